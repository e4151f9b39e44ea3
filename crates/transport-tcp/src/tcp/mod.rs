//! The `tcp` transport: listeners on this machine's addresses, dials to addresses and host names.
//!
//! `listen.rs` binds, `address.rs` reads and discovers addresses, `resolve.rs` resolves names in a helper thread.

mod address;
mod listen;
mod resolve;

pub(crate) use resolve::Resolving;

use crate::connector::{Address, Connector, MakeSocket};
use crate::link::{Family, StreamLink};
use crate::listener::Listener;
use crate::options::{CongestionControl, TcpOptions};
use crate::registered::{Registered, Spinners};
use address::Destination;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use sinew_base::guarded::GuardedFd;
use sinew_transport::{
    Availability, Capabilities, Cost, Domain, DomainContext, Interest, LaneCount, Link, Locator, PollKey,
    Poller, Transport, TransportError,
};
use std::net::SocketAddr;
use std::sync::Arc;

/// TCP over IPv4 and IPv6.
#[derive(Clone, Debug, Default)]
pub struct TcpTransport {
    options: TcpOptions,
}

impl TcpTransport {
    /// The transport with these options. Nothing is opened yet.
    #[must_use]
    pub fn new(options: TcpOptions) -> Self {
        Self { options }
    }
}

impl Transport for TcpTransport {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn probe(&self) -> Availability {
        let socket = |family| new_socket(family).map(drop);
        let congestion = || {
            let socket = new_socket(AddressFamily::INET).or_else(|_| new_socket(AddressFamily::INET6));
            socket.and_then(sockopt::tcp_congestion).unwrap_or_else(|_| "unknown".into())
        };
        match (socket(AddressFamily::INET), socket(AddressFamily::INET6)) {
            (Ok(_), Ok(_)) => {
                Availability::Usable(format!("IPv4, IPv6; congestion control {}", congestion()))
            }
            (Ok(_), Err(_)) => {
                Availability::Usable(format!("IPv4, no IPv6; congestion control {}", congestion()))
            }
            (Err(_), Ok(_)) => {
                Availability::Usable(format!("IPv6, no IPv4; congestion control {}", congestion()))
            }
            (Err(errno), Err(_)) => {
                let hint = match errno {
                    Errno::MFILE | Errno::NFILE => "",
                    _ => "the kernel, or a sandbox around this process, gives no internet socket",
                };
                Availability::Missing(TransportError::os(errno, "socket", "TCP").hint(hint))
            }
        }
    }

    fn expectation(&self) -> (Capabilities, Cost) {
        (Family::Tcp.capabilities(false), Family::Tcp.cost(false))
    }

    fn lanes_per_session(&self) -> LaneCount {
        self.options.sockets.lanes()
    }

    fn open(&self, context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        let bound = listen::bind_all(&self.options, context.listen)?;
        let locators = listen::locators(&self.options, &bound)?;
        let mut listeners = Vec::with_capacity(bound.len());
        for (sub, (fd, address)) in bound.into_iter().enumerate() {
            let key = PollKey { owner: context.owner, sub: sub as u32 };
            listeners.push(Listener::new(fd, &context.poller, key, address.to_string())?);
        }
        let options = Arc::new(self.options.clone());
        let spinners = Arc::default();
        Ok(Box::new(TcpDomain { options, poller: context.poller, listeners, locators, spinners }))
    }
}

/// One engine's share of the transport.
struct TcpDomain {
    options: Arc<TcpOptions>,
    poller: Arc<Poller>,
    listeners: Vec<Listener>,
    locators: Vec<Locator>,
    spinners: Arc<Spinners>,
}

impl Domain for TcpDomain {
    fn locators(&self) -> Vec<Locator> {
        self.locators.clone()
    }

    fn understands(&self, scheme: &str) -> bool {
        scheme == "tcp"
    }

    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError> {
        let mut connector = Connector::new(&self.poller, owner);
        match address::parse(to)? {
            Destination::Address(address) => {
                let fd = dialling_socket(&address, &self.options)?;
                connector.start(fd, Address::Inet(address))?;
            }
            Destination::Name(host, port) => {
                let options = Arc::clone(&self.options);
                let make: MakeSocket = Arc::new(move |address| dialling_socket(address, &options));
                connector.resolve(Resolving::start(&host, port, &self.poller, owner)?, make);
            }
        }
        Ok(Box::new(StreamLink::connecting(connector, Family::Tcp, &self.options.stream, &self.spinners)))
    }

    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError> {
        for listener in &self.listeners {
            while let Some(fd) = listener.accept()? {
                if let Ok(link) = self.accepted(fd, owner) {
                    return Ok(Some(Box::new(link)));
                }
            }
        }
        Ok(None)
    }

    fn poll_warm(&mut self, _owners: &mut Vec<u32>) {
        self.spinners.look();
    }

    fn arm(&mut self) -> bool {
        self.spinners.arm()
    }

    fn disarm(&mut self) {
        self.spinners.disarm();
    }
}

impl Drop for TcpDomain {
    fn drop(&mut self) {
        self.spinners.close();
    }
}

impl TcpDomain {
    /// Makes the link; a connection that is gone already is an error that concerns nobody.
    fn accepted(&self, fd: GuardedFd, owner: u32) -> Result<StreamLink, TransportError> {
        let os = |errno| TransportError::os(errno, "setsockopt", "");
        sockopt::set_tcp_nodelay(&fd, true).map_err(os)?;
        if self.options.congestion_control == CongestionControl::Auto && is_same_host(&fd) {
            set_local_congestion_control(&fd);
        }
        let key = PollKey { owner, sub: 0 };
        let socket = Registered::new(fd, &self.poller, key, Interest::READ)?;
        StreamLink::accepted(socket, Family::Tcp, &self.options.stream, &self.spinners)
    }
}

fn new_socket(family: AddressFamily) -> Result<GuardedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    GuardedFd::make(|| rustix::net::socket_with(family, SocketType::STREAM, flags, None))
}

/// A socket of the family of `address`, with the options that must be set before it listens or connects.
fn prepared_socket(
    address: &SocketAddr,
    options: &TcpOptions,
    local: bool,
) -> Result<GuardedFd, TransportError> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = new_socket(family).map_err(|errno| {
        TransportError::os(errno, "socket for", address.to_string()).hint(match errno {
            Errno::AFNOSUPPORT => "this machine has that family of addresses switched off",
            _ => "",
        })
    })?;
    let os = |errno| TransportError::os(errno, "setsockopt for", address.to_string());
    sockopt::set_tcp_nodelay(&fd, true).map_err(os)?;
    if let Some(bytes) = options.stream.socket_send_bytes {
        sockopt::set_socket_send_buffer_size(&fd, bytes).map_err(os)?;
    }
    if let Some(bytes) = options.stream.socket_receive_bytes {
        sockopt::set_socket_recv_buffer_size(&fd, bytes).map_err(os)?;
    }
    match &options.congestion_control {
        CongestionControl::Auto if local => set_local_congestion_control(&fd),
        CongestionControl::Auto | CongestionControl::System => {}
        CongestionControl::Named(name) => set_congestion_control(&fd, name)?,
    }
    Ok(fd)
}

/// Chooses a congestion control by name. That it is the one that the socket then has is read back by the lane's remark.
fn set_congestion_control(fd: &GuardedFd, name: &str) -> Result<(), TransportError> {
    sockopt::set_tcp_congestion(fd, name).map_err(|errno| {
        let list = |what: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{what}_congestion_control"));
            text.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
        };
        let hint = match errno {
            Errno::PERM | Errno::ACCESS => format!(
                "this process may choose {}; others need CAP_NET_ADMIN, or a place in net.ipv4.tcp_allowed_congestion_control",
                list("allowed")
            ),
            _ => format!("this kernel has {}; others are modules, as tcp_bbr: modprobe it", list("available")),
        };
        TransportError::os(errno, "choose the congestion control", name).hint(hint)
    })
}

impl TcpOptions {
    /// Whether this process may have what is asked for by name. Opens a socket and closes it.
    ///
    /// # Errors
    /// The congestion control is one that the kernel does not have, or does not let this process choose: the hint lists those
    /// that it does.
    pub fn check(&self) -> Result<(), TransportError> {
        let CongestionControl::Named(name) = &self.congestion_control else { return Ok(()) };
        let socket = new_socket(AddressFamily::INET).or_else(|_| new_socket(AddressFamily::INET6));
        // A machine without internet sockets has no TCP at all, which is told elsewhere.
        socket.map_or(Ok(()), |fd| set_congestion_control(&fd, name))
    }
}

fn dialling_socket(address: &SocketAddr, options: &TcpOptions) -> Result<GuardedFd, TransportError> {
    let local =
        options.congestion_control == CongestionControl::Auto && address::is_of_this_machine(address.ip());
    prepared_socket(address, options, local)
}

/// Without a network between, pacing only costs: takes `cubic` or `reno` where the system's default paces (`bbr`) and the
/// kernel lets this process choose; else leaves what is there.
fn set_local_congestion_control(fd: &GuardedFd) {
    let paces = sockopt::tcp_congestion(fd).is_ok_and(|name| name.starts_with("bbr"));
    if paces && sockopt::set_tcp_congestion(fd, "cubic").is_err() {
        let _ = sockopt::set_tcp_congestion(fd, "reno");
    }
}

fn is_same_host(fd: &GuardedFd) -> bool {
    let own = rustix::net::getsockname(fd).ok().and_then(|any| SocketAddr::try_from(any).ok());
    let peer = rustix::net::getpeername(fd).ok().flatten().and_then(|any| SocketAddr::try_from(any).ok());
    matches!((own, peer), (Some(own), Some(peer)) if own.ip() == peer.ip() || peer.ip().is_loopback())
}
