//! The connection before the lane: a Unix socket that carries records, and whose credentials say who is there.
//!
//! Called by the engine through [`Link`]. It reads nothing beyond the record it is asked for, so that the first note of
//! the peer's lane stays in the socket for the lane.

use crate::lane::ShmLane;
use crate::registry::Registry;
use crate::sys::socket::{self, Moved};
use rustix::io::Errno;
use sinew_base::guarded::GuardedFd;
use sinew_transport::{
    ErrorKind, Identity, Interest, Lane, LaneParams, Link, LinkState, PollKey, RECORD_LEN, Record,
    TransportError,
};
use std::path::PathBuf;
use std::sync::Arc;

/// The user number that stands for users who have none in this user namespace.
const OVERFLOW_UID: u32 = 65_534;

/// A link of the shared-memory transport.
pub(crate) struct ShmLink {
    socket: Option<GuardedFd>,
    registry: Arc<Registry>,
    /// Where to dial; `None` once connected.
    dialing: Option<PathBuf>,
    peer: Peer,
    received: Record,
    received_len: usize,
    unsent: Vec<u8>,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) pid: Option<u32>,
    pub(crate) uid: u32,
}

impl Peer {
    const UNKNOWN: Self = Self { pid: None, uid: OVERFLOW_UID };

    /// By the kernel's word the same user as this process. The overflow number stands for many users, so for none.
    pub(crate) fn is_same_user(&self) -> bool {
        self.uid == rustix::process::geteuid().as_raw() && self.uid != OVERFLOW_UID
    }

    pub(crate) fn describe(&self) -> String {
        match self.pid {
            Some(pid) => format!("pid {pid}"),
            None => format!("a process of user {} in another pid namespace", self.uid),
        }
    }
}

impl ShmLink {
    pub(crate) fn dial(registry: Arc<Registry>, path: PathBuf, owner: u32) -> Result<Self, TransportError> {
        let socket = socket::unconnected()
            .map_err(|errno| TransportError::os(errno, "socket", "").hint(crate::no_descriptor(errno)))?;
        let mut link = Self::new(registry, socket);
        link.dialing = Some(path);
        link.try_connect()?;
        link.register(owner)?;
        Ok(link)
    }

    pub(crate) fn accepted(
        registry: Arc<Registry>,
        socket: GuardedFd,
        owner: u32,
    ) -> Result<Self, TransportError> {
        let mut link = Self::new(registry, socket);
        link.learn_peer()?;
        link.register(owner)?;
        Ok(link)
    }

    fn new(registry: Arc<Registry>, socket: GuardedFd) -> Self {
        Self {
            socket: Some(socket),
            registry,
            dialing: None,
            peer: Peer::UNKNOWN,
            received: [0; RECORD_LEN],
            received_len: 0,
            unsent: Vec::new(),
        }
    }

    fn socket(&self) -> Result<&GuardedFd, TransportError> {
        self.socket.as_ref().filter(|_| !self.registry.fork.forked()).ok_or_else(crate::forked)
    }

    fn register(&self, owner: u32) -> Result<(), TransportError> {
        let key = PollKey { owner, sub: 0 };
        self.registry
            .poller
            .add(self.socket()?, key, Interest::READ)
            .map_err(|errno| TransportError::os(errno, "epoll_ctl", ""))
    }

    fn learn_peer(&mut self) -> Result<(), TransportError> {
        let (pid, uid) = socket::credentials(self.socket()?)
            .map_err(|errno| TransportError::os(errno, "SO_PEERCRED", ""))?;
        self.peer = Peer { pid: Some(pid).filter(|&pid| pid != 0), uid };
        Ok(())
    }

    /// Whether it is connected now.
    fn try_connect(&mut self) -> Result<bool, TransportError> {
        let Some(path) = &self.dialing else { return Ok(true) };
        match socket::connect(self.socket()?, path) {
            Ok(()) | Err(Errno::ISCONN) => {
                self.dialing = None;
                self.learn_peer()?;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => {
                let error = TransportError::os(errno, "connect", path.display().to_string());
                Err(match errno {
                    Errno::NOENT | Errno::CONNREFUSED => {
                        error.hint("no engine listens there: it has ended, or its directory is not shared with this process")
                    }
                    Errno::ACCESS | Errno::PERM => error.hint("the socket's directory belongs to another user"),
                    _ => error,
                })
            }
        }
    }

    /// Sends the rest of a record; whether nothing is left.
    fn push(&mut self) -> Result<bool, TransportError> {
        while !self.unsent.is_empty() {
            match socket::send(self.socket()?, &self.unsent, &[]) {
                Ok(Moved::Bytes(sent)) => {
                    self.unsent.drain(..sent);
                }
                Ok(Moved::Nothing) => return Ok(false),
                Ok(Moved::End) => return Err(gone()),
                Err(errno) => return Err(TransportError::os(errno, "send", self.peer.describe())),
            }
        }
        Ok(true)
    }
}

fn gone() -> TransportError {
    TransportError::new(ErrorKind::Broken, "shared-memory link", "the other end closed it")
}

impl Link for ShmLink {
    fn poll(&mut self) -> Result<LinkState, TransportError> {
        if !self.try_connect()? {
            return Ok(LinkState::Connecting);
        }
        self.push()?;
        Ok(LinkState::Ready)
    }

    fn try_send(&mut self, record: &Record) -> Result<bool, TransportError> {
        if self.dialing.is_some() || !self.push()? {
            return Ok(false);
        }
        match socket::send(self.socket()?, record, &[]) {
            Ok(Moved::Bytes(sent)) => {
                self.unsent.extend_from_slice(&record[sent..]);
                Ok(true)
            }
            Ok(Moved::Nothing) => Ok(false),
            Ok(Moved::End) => Err(gone()),
            Err(errno) => Err(TransportError::os(errno, "send", self.peer.describe())),
        }
    }

    fn try_recv(&mut self, record: &mut Record) -> Result<bool, TransportError> {
        if self.dialing.is_some() {
            return Ok(false);
        }
        while self.received_len < RECORD_LEN {
            // Descriptors that come with a record are nobody's: closed here.
            let mut stray = Vec::new();
            let socket =
                self.socket.as_ref().filter(|_| !self.registry.fork.forked()).ok_or_else(crate::forked)?;
            match socket::receive(socket, &mut self.received[self.received_len..], &mut stray) {
                Ok(Moved::Bytes(got)) => self.received_len += got,
                Ok(Moved::Nothing) => return Ok(false),
                Ok(Moved::End) => return Err(gone()),
                Err(errno) => return Err(TransportError::os(errno, "receive", self.peer.describe())),
            }
        }
        *record = self.received;
        self.received_len = 0;
        Ok(true)
    }

    fn identity(&self) -> Identity {
        if self.peer.is_same_user() {
            Identity::SameUser { pid: self.peer.pid }
        } else {
            Identity::OtherUser { uid: self.peer.uid }
        }
    }

    fn describe(&self) -> String {
        match &self.dialing {
            Some(path) => path.display().to_string(),
            None => self.peer.describe(),
        }
    }

    fn into_lane(mut self: Box<Self>, params: LaneParams) -> Result<Box<dyn Lane>, TransportError> {
        self.socket()?;
        if self.dialing.is_some() || self.received_len != 0 {
            return Err(gone());
        }
        let unsent = std::mem::take(&mut self.unsent);
        let socket = self.socket.take().ok_or_else(gone)?;
        let lane = ShmLane::new(self.registry.clone(), socket, self.peer.clone(), unsent, params)?;
        Ok(Box::new(lane))
    }
}

impl Drop for ShmLink {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket
            && !self.registry.fork.forked()
        {
            let _ = self.registry.poller.remove(socket);
        }
    }
}
