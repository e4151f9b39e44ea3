//! Sockets that never block: dialling, listening, reading and writing without a wait.
//!
//! Called by the round and the exchange.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with, sockopt};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

/// Begins to connect. The socket becomes writable when that has ended, and [`dialled`] says how.
pub(super) fn dial(to: SocketAddr) -> Result<TcpStream, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error),
    }
}

/// How a dialled socket that became writable has ended its connecting.
pub(super) fn dialled(socket: &TcpStream) -> Result<(), Errno> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => {
            // A lost option costs time, not bytes.
            let _ = socket.set_nodelay(true);
            if is_connected_to_itself(socket) { Err(Errno::CONNREFUSED) } else { Ok(()) }
        }
        Ok(Err(error)) | Err(error) => Err(error),
    }
}

/// A dialler of a local port in the range of those that the system gives out can meet itself where nobody listens.
fn is_connected_to_itself(socket: &TcpStream) -> bool {
    matches!((socket.local_addr(), socket.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

/// Where to listen for a rank that others dial at `host`: on loopback if that is loopback, on all interfaces otherwise.
pub(super) fn places_to_listen(host: &str, port: u16) -> Vec<SocketAddr> {
    let at = |address| SocketAddr::new(address, port);
    match host.parse() {
        Ok(IpAddr::V4(address)) if address.is_loopback() => vec![at(address.into())],
        Ok(IpAddr::V6(address)) if address.is_loopback() => vec![at(address.into())],
        Ok(IpAddr::V4(_)) => vec![at(Ipv4Addr::UNSPECIFIED.into())],
        _ if host.eq_ignore_ascii_case("localhost") => {
            vec![at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())]
        }
        _ => vec![at(Ipv6Addr::UNSPECIFIED.into()), at(Ipv4Addr::UNSPECIFIED.into())],
    }
}

/// Listens at the first of `places` that exists here.
pub(super) fn listen(places: &[SocketAddr]) -> Result<TcpListener, (SocketAddr, io::Error)> {
    let mut failed = (SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), io::Error::from(Errno::ADDRNOTAVAIL));
    for &place in places {
        match TcpListener::bind(place) {
            Ok(listener) => return Ok(listener),
            // No such family here: the next place is of the other one.
            Err(error) => {
                let code = error.raw_os_error();
                let absent = [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT]
                    .iter()
                    .any(|no| code == Some(no.raw_os_error()));
                failed = (place, error);
                if !absent {
                    break;
                }
            }
        }
    }
    Err(failed)
}

/// What a read or write without waiting came to.
pub(super) enum Moved {
    Bytes(usize),
    /// The other side has ended its half.
    End,
    NotNow,
    Failed(String),
}

pub(super) fn moved(result: io::Result<usize>) -> Moved {
    match result {
        Ok(0) => Moved::End,
        Ok(count) => Moved::Bytes(count),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Moved::NotNow,
        Err(error) => Moved::Failed(error.to_string()),
    }
}

/// 16 bytes of the system's randomness.
pub(super) fn random() -> Result<[u8; 16], Errno> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
