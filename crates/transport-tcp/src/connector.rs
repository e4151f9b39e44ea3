//! A connection on its way: sockets that connect without blocking, the first that gets through wins.
//!
//! Made by the domains' `dial`, driven by the link's `poll`. Host names are resolved by a helper thread, because resolving
//! blocks; everything else is done by whoever polls.

use crate::registered::Registered;
use crate::tcp::Resolving;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use sinew_base::guarded::GuardedFd;
use sinew_transport::{ErrorKind, Interest, PollKey, Poller, TransportError};
use std::net::SocketAddr;
use std::sync::Arc;

/// Where a connection goes to.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// A path, as text for people and as the kernel takes it.
    Unix(String, SocketAddrUnix),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path, _) => f.write_str(path),
        }
    }
}

/// Makes a socket for an address, with its options set.
pub(crate) type MakeSocket = Arc<dyn Fn(&SocketAddr) -> Result<GuardedFd, TransportError> + Send + Sync>;

#[derive(Debug)]
struct Attempt {
    socket: Registered,
    address: Address,
}

/// See the module.
pub(crate) struct Connector {
    attempts: Vec<Attempt>,
    resolving: Option<(Resolving, MakeSocket)>,
    poller: Arc<Poller>,
    owner: u32,
    last_error: Option<TransportError>,
}

impl Connector {
    pub(crate) fn new(poller: &Arc<Poller>, owner: u32) -> Self {
        Self { attempts: Vec::new(), resolving: None, poller: Arc::clone(poller), owner, last_error: None }
    }

    /// Begins to connect `fd`.
    pub(crate) fn start(&mut self, fd: GuardedFd, address: Address) -> Result<(), TransportError> {
        if let Err(errno) = connect(&fd, &address)
            && !matches!(errno, Errno::INPROGRESS | Errno::AGAIN | Errno::ALREADY | Errno::INTR)
        {
            return Err(connect_error(errno, &address));
        }
        let key = PollKey { owner: self.owner, sub: self.attempts.len() as u32 };
        let socket = Registered::new(fd, &self.poller, key, Interest::BOTH)?;
        self.attempts.push(Attempt { socket, address });
        Ok(())
    }

    /// Connects once the name is resolved.
    pub(crate) fn resolve(&mut self, resolving: Resolving, make: MakeSocket) {
        self.resolving = Some((resolving, make));
    }

    /// The socket that got through, or `None` while all are on their way.
    pub(crate) fn poll(&mut self) -> Result<Option<(Registered, Address)>, TransportError> {
        self.poll_name()?;
        let mut at = 0;
        while at < self.attempts.len() {
            let attempt = &self.attempts[at];
            match connect(&attempt.socket, &attempt.address) {
                Ok(()) | Err(Errno::ISCONN) => {
                    let attempt = self.attempts.swap_remove(at);
                    if is_connected_to_itself(&attempt) {
                        self.last_error = Some(connect_error(Errno::CONNREFUSED, &attempt.address));
                        continue;
                    }
                    self.attempts.clear();
                    return Ok(Some((attempt.socket, attempt.address)));
                }
                Err(Errno::INPROGRESS | Errno::AGAIN | Errno::ALREADY | Errno::INTR) => at += 1,
                Err(errno) => {
                    let attempt = self.attempts.swap_remove(at);
                    self.last_error = Some(connect_error(errno, &attempt.address));
                }
            }
        }
        if self.attempts.is_empty() && self.resolving.is_none() {
            return Err(self
                .last_error
                .take()
                .unwrap_or_else(|| TransportError::new(ErrorKind::NoRoute, "connect", "")));
        }
        Ok(None)
    }

    fn poll_name(&mut self) -> Result<(), TransportError> {
        let Some((resolving, _)) = &self.resolving else { return Ok(()) };
        let Some(result) = resolving.take() else { return Ok(()) };
        let Some((_, make)) = self.resolving.take() else { return Ok(()) };
        for address in result? {
            let started = make(&address).and_then(|fd| self.start(fd, Address::Inet(address)));
            if let Err(error) = started {
                self.last_error = Some(error);
            }
        }
        Ok(())
    }

    /// What to print for the other end.
    pub(crate) fn describe(&self) -> String {
        match (&self.resolving, self.attempts.first()) {
            (Some((resolving, _)), _) => resolving.name().to_owned(),
            (None, Some(attempt)) => attempt.address.to_string(),
            (None, None) => String::new(),
        }
    }
}

fn connect(fd: impl AsFd, address: &Address) -> Result<(), Errno> {
    match address {
        Address::Inet(address) => rustix::net::connect(fd, address),
        Address::Unix(_, address) => rustix::net::connect(fd, address),
    }
}

/// A dial to a free port of this machine's ephemeral range can meet itself.
fn is_connected_to_itself(attempt: &Attempt) -> bool {
    let Address::Inet(address) = &attempt.address else { return false };
    rustix::net::getsockname(&attempt.socket)
        .ok()
        .and_then(|own| SocketAddr::try_from(own).ok())
        .is_some_and(|own| own == *address)
}

/// The error of a failed connect, with what can be done about it.
pub(crate) fn connect_error(errno: Errno, address: &Address) -> TransportError {
    let error = TransportError::os(errno, "connect to", address.to_string());
    let hint = match (errno, address) {
        (Errno::CONNREFUSED | Errno::NOENT, Address::Unix(..)) => {
            "nobody listens on that socket: has the other program ended?"
        }
        (Errno::CONNREFUSED, _) => {
            "nobody listens there: does the other program run, and is this the port it has now?"
        }
        (Errno::ACCESS | Errno::PERM, Address::Unix(..)) => {
            "the socket or its directory belongs to another user"
        }
        (Errno::ACCESS | Errno::PERM, _) => "a firewall rule or a security policy forbids it",
        (Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN, _) => {
            "this machine has no way there: see `ip route get ADDRESS`"
        }
        (Errno::TIMEDOUT, _) => "nothing answered: a firewall may drop the packets, or the host is down",
        (Errno::ADDRNOTAVAIL, _) => "no local port is free for it: see net.ipv4.ip_local_port_range",
        _ => "",
    };
    error.hint(hint)
}
