//! The link: a connection that carries records of exactly 512 bytes until both engines agree to make it a lane.
//!
//! Made by the domains' `dial` and `accept`. It never reads beyond the record that was asked for, so that the first frame
//! of the lane is left in the socket, and it allocates nothing that a peer chooses the size of.

use crate::connector::{Address, Connector};
use crate::lane::{BORROWED_MAX, FRAME_MAX, LaneParts, StreamLane};
use crate::options::StreamOptions;
use crate::registered::{Registered, Spinners};
use crate::socket;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use sinew_transport::{
    Capabilities, Cost, ErrorKind, Identity, Lane, LaneInfo, LaneParams, Limits, Link, LinkState, RECORD_LEN,
    Record, TransportError,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Which of the two transports a link belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    /// TCP over IPv4 or IPv6.
    Tcp,
    /// Unix-domain stream sockets.
    Uds,
}

impl Family {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Uds => "uds",
        }
    }

    /// What its lanes can do.
    pub(crate) fn capabilities(self, local: bool) -> Capabilities {
        Capabilities { pull: false, view: false, memory_polled: false, local, death_detected: true }
    }

    /// What its lanes are expected to cost, until measured.
    pub(crate) fn cost(self, local: bool) -> Cost {
        match (self, local) {
            (Self::Uds, _) => Cost { latency_ns: 1500, per_byte_ps: 60, overhead_ns: 700 },
            (Self::Tcp, true) => Cost { latency_ns: 3500, per_byte_ps: 90, overhead_ns: 1700 },
            (Self::Tcp, false) => Cost { latency_ns: 20_000, per_byte_ps: 800, overhead_ns: 1700 },
        }
    }
}

enum State {
    Connecting(Connector),
    Ready { socket: Registered, peer: Peer },
    Over(TransportError),
}

#[derive(Clone, Debug)]
struct Peer {
    text: String,
    identity: Identity,
    local: bool,
}

/// See the module.
pub(crate) struct StreamLink {
    state: State,
    family: Family,
    options: StreamOptions,
    /// The record being sent, and how much of it is.
    out: Record,
    out_sent: usize,
    /// The record being received, and how much of it is.
    input: Record,
    input_len: usize,
    watching_writable: bool,
    spinners: Arc<Spinners>,
}

impl StreamLink {
    /// A link that is being connected.
    pub(crate) fn connecting(
        connector: Connector,
        family: Family,
        options: &StreamOptions,
        spinners: &Arc<Spinners>,
    ) -> Self {
        Self::new(State::Connecting(connector), family, options, spinners)
    }

    /// A link that a peer made; `Err` when it is gone already.
    pub(crate) fn accepted(
        socket: Registered,
        family: Family,
        options: &StreamOptions,
        spinners: &Arc<Spinners>,
    ) -> Result<Self, TransportError> {
        let peer = describe_peer(&socket, family, None)?;
        Ok(Self::new(State::Ready { socket, peer }, family, options, spinners))
    }

    fn new(state: State, family: Family, options: &StreamOptions, spinners: &Arc<Spinners>) -> Self {
        Self {
            state,
            family,
            options: options.clone(),
            out: [0; RECORD_LEN],
            out_sent: RECORD_LEN,
            input: [0; RECORD_LEN],
            input_len: 0,
            watching_writable: false,
            spinners: Arc::clone(spinners),
        }
    }

    fn over(&mut self, error: TransportError) -> TransportError {
        self.state = State::Over(error.clone());
        error
    }

    fn fail(&mut self, errno: Option<Errno>, operation: &'static str) -> TransportError {
        let peer = self.describe();
        let error = match errno {
            Some(errno) => TransportError::os(errno, operation, peer),
            None => TransportError::new(ErrorKind::Broken, operation, peer).hint(
                "the other end closed the connection while the two sides were still introducing themselves",
            ),
        };
        self.over(error)
    }

    /// The socket, once there is one.
    fn socket(&self) -> Result<Option<&Registered>, TransportError> {
        match &self.state {
            State::Ready { socket, .. } => Ok(Some(socket)),
            State::Connecting(_) => Ok(None),
            State::Over(error) => Err(error.clone()),
        }
    }

    /// Sends what is left of the record under way.
    fn push_out(&mut self) -> Result<(), TransportError> {
        let Some(socket) = self.socket()? else { return Ok(()) };
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if self.out_sent < RECORD_LEN {
            match rustix::net::send(socket, &self.out[self.out_sent..], flags) {
                Ok(count) => self.out_sent += count,
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => {}
                Err(errno) => return Err(self.fail(Some(errno), "send to")),
            }
        }
        let pending = self.out_sent < RECORD_LEN;
        if pending != self.watching_writable
            && let Some(socket) = self.socket()?
            && socket.watch_writable(pending).is_ok()
        {
            self.watching_writable = pending;
        }
        Ok(())
    }
}

impl Link for StreamLink {
    fn poll(&mut self) -> Result<LinkState, TransportError> {
        let connected = match &mut self.state {
            State::Over(error) => return Err(error.clone()),
            State::Ready { .. } => None,
            State::Connecting(connector) => match connector.poll() {
                Ok(Some(connected)) => Some(connected),
                Ok(None) => return Ok(LinkState::Connecting),
                Err(error) => return Err(self.over(error)),
            },
        };
        if let Some((socket, address)) = connected {
            let peer = match describe_peer(&socket, self.family, Some(&address)) {
                Ok(peer) => peer,
                Err(error) => return Err(self.over(error)),
            };
            if let Err(errno) = socket.watch_writable(false) {
                return Err(self.fail(Some(errno), "epoll_ctl"));
            }
            self.state = State::Ready { socket, peer };
        }
        self.push_out()?;
        Ok(LinkState::Ready)
    }

    fn try_send(&mut self, record: &Record) -> Result<bool, TransportError> {
        if self.socket()?.is_none() {
            return Ok(false);
        }
        self.push_out()?;
        if self.out_sent < RECORD_LEN {
            return Ok(false);
        }
        self.out = *record;
        self.out_sent = 0;
        self.push_out()?;
        Ok(true)
    }

    fn try_recv(&mut self, record: &mut Record) -> Result<bool, TransportError> {
        self.push_out()?;
        let Self { state: State::Ready { socket, .. }, input, input_len, .. } = self else {
            return Ok(false);
        };
        match rustix::net::recv(&*socket, &mut input[*input_len..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(self.fail(None, "receive from")),
            Ok((_, count)) => *input_len += count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(errno) => return Err(self.fail(Some(errno), "receive from")),
        }
        if self.input_len < RECORD_LEN {
            return Ok(false);
        }
        *record = self.input;
        self.input_len = 0;
        Ok(true)
    }

    fn identity(&self) -> Identity {
        match &self.state {
            State::Ready { peer, .. } => peer.identity.clone(),
            _ => Identity::Remote(self.describe()),
        }
    }

    fn describe(&self) -> String {
        match &self.state {
            State::Ready { peer, .. } => peer.text.clone(),
            State::Connecting(connector) => connector.describe(),
            State::Over(error) => error.object.clone(),
        }
    }

    fn into_lane(self: Box<Self>, params: LaneParams) -> Result<Box<dyn Lane>, TransportError> {
        let this = *self;
        let (mut socket, peer) = match this.state {
            State::Ready { socket, peer } => (socket, peer),
            State::Over(error) => return Err(error),
            State::Connecting(connector) => {
                return Err(TransportError::new(ErrorKind::Broken, "make a lane to", connector.describe())
                    .hint("the link is not connected yet"));
            }
        };
        socket
            .rekey(params.key)
            .map_err(|errno| TransportError::os(errno, "epoll_ctl", peer.text.clone()))?;
        if this.watching_writable {
            // The lane watches for it again if it has to.
            let _ = socket.watch_writable(false);
        }
        if this.family == Family::Tcp {
            keep_alive(&socket, params.peer_timeout);
        }
        Ok(Box::new(StreamLane::new(LaneParts {
            socket: Arc::new(socket),
            spinners: this.spinners,
            info: LaneInfo {
                transport: this.family.name(),
                peer: peer.text,
                capabilities: this.family.capabilities(peer.local),
                cost: this.family.cost(peer.local),
                limits: Limits { frame_max: FRAME_MAX, borrowed_max: BORROWED_MAX },
            },
            unsent: this.out[this.out_sent..].to_vec(),
            retention_bytes: this.options.retention_bytes,
            retention_frames: this.options.retention_frames,
            receive_bytes: this.options.receive_bytes,
            peer_timeout: params.peer_timeout,
            tcp: this.family == Family::Tcp,
        })))
    }
}

/// Has the kernel find out that the peer's machine is gone while nothing is under way, and retry often enough to tell
/// within `timeout` while something is. Best effort: without it the lane only ends later.
fn keep_alive(socket: &Registered, timeout: Duration) {
    // Not earlier than `timeout`: the system counts whole seconds.
    let third = Duration::from_secs((timeout.as_millis().div_ceil(3000) as u64).clamp(1, 3600));
    let _ = sockopt::set_tcp_keepidle(socket, third);
    let _ = sockopt::set_tcp_keepintvl(socket, third);
    let _ = sockopt::set_tcp_keepcnt(socket, 2);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let rto_max_ms = (timeout.as_millis() / 4).clamp(1000, 120_000) as u32;
    let _ = socket::set_rto_max_ms(socket.as_fd(), rto_max_ms);
}

/// Who is there, once the connection stands. `dialled` is where this side connected to.
fn describe_peer(
    socket: &Registered,
    family: Family,
    dialled: Option<&Address>,
) -> Result<Peer, TransportError> {
    match family {
        Family::Tcp => describe_inet_peer(socket, dialled),
        Family::Uds => {
            let (uid, pid) = socket::peer_credentials(socket.as_fd())
                .map_err(|errno| TransportError::os(errno, "SO_PEERCRED", ""))?;
            let text = match (pid, dialled) {
                (Some(pid), _) => format!("pid {pid}"),
                (None, Some(address)) => address.to_string(),
                (None, None) => format!("a process of user {uid} that is not visible here"),
            };
            let identity = if uid == rustix::process::geteuid().as_raw() {
                Identity::SameUser { pid }
            } else {
                Identity::OtherUser { uid }
            };
            Ok(Peer { text, identity, local: true })
        }
    }
}

fn describe_inet_peer(socket: &Registered, dialled: Option<&Address>) -> Result<Peer, TransportError> {
    let inet = |any| SocketAddr::try_from(any).ok();
    let peer = rustix::net::getpeername(socket)
        .map_err(|errno| TransportError::os(errno, "getpeername", ""))?
        .and_then(inet)
        .or(match dialled {
            Some(Address::Inet(address)) => Some(*address),
            _ => None,
        })
        .ok_or_else(|| TransportError::os(Errno::NOTCONN, "getpeername", ""))?;
    let own = rustix::net::getsockname(socket).ok().and_then(inet);
    let local = peer.ip().is_loopback() || own.is_some_and(|own| own.ip() == peer.ip());
    let text = peer.to_string();
    Ok(Peer { identity: Identity::Remote(text.clone()), text, local })
}
