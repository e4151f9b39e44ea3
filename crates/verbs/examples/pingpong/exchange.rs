//! The exchange of addresses over TCP, as libibverbs' ping-pong programs do it.
//!
//! An address is 52 bytes: `LID:QPN:PSN:GID` in hexadecimal digits (4, 6, 6 and 32 of them) and a byte 0. The client sends its own, one for each queue pair;
//! the server connects and answers with as many; the client says `done` and a byte 0.

use super::{Options, PATIENCE, Result};
use sinew_verbs::device::Gid;
use sinew_verbs::qp::Endpoint;
use sinew_verbs::qp::config::{Mtu, PacketSequenceNumber};
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::str::FromStr;

const DONE: &[u8; 5] = b"done\0";

/// Length of an address on the wire.
const LEN: usize = 52;

/// Where a queue pair is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address(Endpoint);

impl Address {
    pub(crate) const fn of(endpoint: Endpoint) -> Self {
        Self(endpoint)
    }

    /// As what a queue pair is connected to. The wire does not say how large packets may be and how many reads are answered at once: both sides
    /// are given the same `-m`, and nobody reads.
    pub(crate) const fn endpoint(self, mtu: Mtu) -> Endpoint {
        Endpoint { mtu, responder_resources: 1, ..self.0 }
    }

    fn to_bytes(self) -> [u8; LEN] {
        let Endpoint { lid, qp_num, psn, .. } = self.0;
        let mut text = format!("{lid:04x}:{qp_num:06x}:{:06x}:", psn.get());
        for byte in self.0.gid.unwrap_or_default().bytes() {
            text += &format!("{byte:02x}");
        }
        let mut bytes = [0; LEN];
        for (place, byte) in bytes.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        bytes
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let nonsense = || format!("the other side sent {text:?}, which is no address of a ping-pong program");
        let number = |digits: &str| u32::from_str_radix(digits, 16).map_err(|_| nonsense());
        let parts: Vec<&str> = text.split(':').collect();
        let [lid, qp_num, psn, gid] = parts[..] else { return Err(nonsense()) };
        let gid = u128::from_str_radix(gid, 16).map_err(|_| nonsense())?;
        let gid = Gid::from_bytes(gid.to_be_bytes());
        Ok(Self(Endpoint {
            lid: u16::try_from(number(lid)?).map_err(|_| nonsense())?,
            qp_num: number(qp_num)?,
            psn: PacketSequenceNumber::new(number(psn)?).map_err(|_| nonsense())?,
            gid: (!gid.is_zero()).then_some(gid),
            mtu: Mtu::B1024,
            responder_resources: 1,
        }))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { lid, qp_num, psn, gid, .. } = self.0;
        let gid = gid.unwrap_or_default();
        write!(f, "LID {lid:#06x}, QPN {qp_num:#08x}, PSN {:#08x}, GID {gid}", psn.get())
    }
}

/// A TCP connection to the other side.
pub(crate) struct Exchange {
    stream: TcpStream,
    is_client: bool,
    slots: usize,
}

impl Exchange {
    /// Connects to the server, or waits for the client.
    pub(crate) fn open(options: &Options) -> Result<Self> {
        let port = options.port;
        let stream = match &options.server {
            Some(server) => call(server, port)?,
            None => {
                let all: [SocketAddr; 2] =
                    [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
                let listener = TcpListener::bind(&all[..])
                    .map_err(|error| format!("cannot listen on port {port}: {error}"))?;
                listener.accept()?.0
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, is_client: options.is_client(), slots: 0 })
    }

    /// At least so many addresses go each way, whatever is in those that are not of a queue pair.
    pub(crate) const fn slots(mut self, slots: usize) -> Self {
        self.slots = slots;
        self
    }

    /// Tells our addresses and learns as many of the other side's; `connect` is called with them as soon as they are known.
    pub(crate) fn swap(
        mut self,
        own: &[Address],
        connect: impl FnOnce(&[Address]) -> Result<()>,
    ) -> Result<()> {
        for address in own {
            println!("  local address:  {address}");
        }
        if self.is_client {
            self.tell(own)?;
        }
        let theirs = own.iter().map(|_| self.hear()).collect::<Result<Vec<Address>>>()?;
        for _ in own.len()..self.slots {
            self.stream.read_exact(&mut [0; LEN])?;
        }
        for address in &theirs {
            println!("  remote address: {address}");
        }
        connect(&theirs)?;
        if self.is_client {
            self.stream.write_all(DONE)?;
            return Ok(());
        }
        self.tell(own)?;
        let mut done = [0; DONE.len()];
        self.stream.read_exact(&mut done).map_err(|error| format!("the client was not ready: {error}"))?;
        Ok(())
    }

    fn tell(&mut self, addresses: &[Address]) -> Result<()> {
        for address in addresses {
            self.stream.write_all(&address.to_bytes())?;
        }
        for _ in addresses.len()..self.slots {
            self.stream.write_all(&[0; LEN])?;
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<Address> {
        let mut bytes = [0; LEN];
        self.stream
            .read_exact(&mut bytes)
            .map_err(|error| format!("the other side told no address: {error}; is it the same program?"))?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.trim_end_matches('\0').parse::<Address>()?)
    }
}

fn call(server: &str, port: u16) -> Result<TcpStream> {
    let addresses =
        (server, port).to_socket_addrs().map_err(|error| format!("there is no {server:?}: {error}"))?;
    let mut failure = "it has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error.to_string(),
        }
    }
    Err(format!(
        "cannot reach {server} at port {port}: {failure}; start the same program there first, without the name of a server"
    )
    .into())
}
