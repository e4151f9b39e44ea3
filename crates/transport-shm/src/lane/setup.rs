//! The exchange of halves: what each side sends over the socket before the lane is open.
//!
//! Called by the lane's first polls. Nothing of the peer is mapped before its note was checked.

use super::datapath::{Ends, Open};
use crate::across::Across;
use crate::half::{self, Geometry, OwnHalf, Page, PeerHalf};
use crate::link::Peer;
use crate::note::{self, NO_BIT, Note, broken};
use crate::registry::{Registry, Watch};
use crate::shared::sleep::{Barrier, HINTS_MAX, Hints};
use crate::sys::memory::{Wish, Writers};
use crate::sys::socket::{self, Moved};
use rustix::fd::{AsFd, OwnedFd};
use sinew_base::guarded::GuardedFd;
use sinew_transport::{ErrorKind, TransportError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How to wake the peer.
#[derive(Debug)]
pub(crate) enum Bell {
    /// Same user: its hint page and its doorbell.
    Shared {
        /// Where to say which lane.
        hints: Page<Hints>,
        /// This lane's bit there.
        bit: u32,
        /// What to ring.
        doorbell: OwnedFd,
    },
    /// Somebody else: a note on the socket, which can neither block us nor be stolen by a third.
    Socket,
}

impl Bell {
    /// Says which lane has something.
    #[cold]
    pub(crate) fn hint(&self, socket: &GuardedFd) {
        match self {
            Self::Shared { hints, bit, .. } => hints.set(*bit),
            Self::Socket => self.ring(socket),
        }
    }

    /// Ends the peer's sleep. What is full was rung and not heard yet.
    #[cold]
    pub(crate) fn ring(&self, socket: &GuardedFd) {
        match self {
            Self::Shared { doorbell, .. } => {
                let _ = rustix::io::write(doorbell, &1u64.to_ne_bytes());
            }
            Self::Socket => {
                let _ = socket::send(socket, &Note::Bell.encode(), &[]);
            }
        }
    }
}

/// A lane that is being set up.
#[derive(Debug)]
pub(crate) struct Setup {
    owner: u32,
    place: u32,
    own: OwnHalf,
    own_fd: Option<OwnedFd>,
    said: note::Setup,
    unsent: Vec<u8>,
    same_user: bool,
    pid: Option<u32>,
    got: String,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    setup: note::Setup,
    fds: Vec<OwnedFd>,
}

impl Setup {
    pub(crate) fn new(
        registry: &Registry,
        peer: &Peer,
        unsent: Vec<u8>,
        owner: u32,
    ) -> Result<Self, TransportError> {
        let options = &registry.options;
        let geometry = Geometry::checked(options.ring_slots, options.small_window + options.large_window)
            .ok_or_else(|| TransportError::new(ErrorKind::Unsupported, "shm options", ""))?;
        let wish = Wish { huge: options.huge_pages, numa: options.numa };
        let (own_fd, own, got) = OwnHalf::create(geometry, wish)?;
        let same_user = peer.is_same_user();
        let place = registry.reserve();
        let said = note::Setup {
            geometry,
            bit: if place < HINTS_MAX { place } else { NO_BIT },
            membarrier: registry.membarrier,
            bell: same_user,
            segments_max: u32::try_from(options.segments_max).unwrap_or(u32::MAX),
            token: registry.token.shown().filter(|_| same_user),
        };
        Ok(Self {
            owner,
            place,
            own,
            own_fd: Some(own_fd),
            said,
            unsent,
            same_user,
            pid: peer.pid,
            got,
            answer: None,
        })
    }

    /// Sends what is still to be said; whether all is said.
    pub(crate) fn push(&mut self, registry: &Registry, socket: &GuardedFd) -> Result<bool, TransportError> {
        let sent = |result| match result {
            Ok(Moved::Bytes(count)) => Ok(count),
            Ok(Moved::Nothing) => Ok(0),
            Ok(Moved::End) => Err(TransportError::new(
                ErrorKind::Broken,
                "shared-memory lane",
                "the peer closed the socket",
            )),
            Err(errno) => Err(TransportError::os(errno, "send", "set-up")),
        };
        while !self.unsent.is_empty() {
            match sent(socket::send(socket, &self.unsent, &[]))? {
                0 => return Ok(false),
                count => drop(self.unsent.drain(..count)),
            }
        }
        let Some(own_fd) = self.own_fd.take() else { return Ok(true) };
        let fds =
            [own_fd.as_fd(), registry.page_fd.as_fd(), registry.bell.as_fd(), registry.hints_fd.as_fd()];
        let bytes = Note::Setup(self.said).encode();
        match sent(socket::send(socket, &bytes, &fds[..self.said.fds()]))? {
            0 => {
                self.own_fd = Some(own_fd);
                Ok(false)
            }
            count => {
                self.unsent.extend_from_slice(&bytes[count..]);
                Ok(self.unsent.is_empty())
            }
        }
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// The peer's first note.
    pub(crate) fn handle_answer(
        &mut self,
        note: Option<Note>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), TransportError> {
        let Some(Note::Setup(setup)) = note else { return Err(broken("the first note is no set-up")) };
        if fds.len() < setup.fds() {
            // The system leaves out those for which this process has no number left.
            let error =
                TransportError::new(ErrorKind::Limit, "receive the descriptors of", "the peer's rings");
            return Err(error.hint("descriptors are short; close some or raise the limit (ulimit -n)"));
        }
        if fds.len() > setup.fds() {
            return Err(broken("descriptors of the set-up"));
        }
        self.answer = Some(Answer { setup, fds });
        Ok(())
    }

    /// The open lane.
    pub(crate) fn finish(mut self, registry: &Arc<Registry>) -> Result<Open, TransportError> {
        let Some(answer) = self.answer.take() else { return Err(broken("no set-up of the peer")) };
        let place = self.place;
        let opened = self.adopt(registry, answer);
        if opened.is_err() {
            registry.close(place);
        }
        opened
    }

    fn adopt(self, registry: &Arc<Registry>, answer: Answer) -> Result<Open, TransportError> {
        let Answer { setup: theirs, fds } = answer;
        let mut fds = fds.into_iter();
        let mut fd = || fds.next().ok_or_else(|| broken("descriptors of the set-up"));
        let peer = PeerHalf::adopt(&fd()?, theirs.geometry)?;
        let page = half::adopt_domain_page(&fd()?)?;
        let bell = if theirs.bell && self.same_user {
            let doorbell = fd()?;
            // A full doorbell must not block us.
            rustix::io::ioctl_fionbio(&doorbell, true).map_err(|_| broken("doorbell"))?;
            let hints = Page::<Hints>::adopt(&fd()?, Writers::Anybody)?;
            if theirs.bit >= HINTS_MAX && theirs.bit != NO_BIT {
                return Err(broken("hint bit"));
            }
            Bell::Shared { hints, bit: theirs.bit, doorbell }
        } else {
            Bell::Socket
        };
        let barrier =
            if registry.membarrier && theirs.membarrier { Barrier::Asymmetric } else { Barrier::Fences };
        let watch = Arc::new(Watch {
            owner: self.owner,
            own: self.own,
            peer,
            position: AtomicU64::new(0),
            waiting_at: AtomicU64::new(u64::MAX),
            pending: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        registry.open(self.place, &watch);
        let across = Across::prove(registry.options.cross_read, self.same_user, self.pid, theirs.token);
        watch.own.control().reads.store(across.wanted(), Ordering::Relaxed);
        let ends = Ends {
            watch,
            bit: self.place,
            peer_page: page,
            bell,
            barrier,
            segments_max: theirs.segments_max,
            across,
            got: self.got,
        };
        Ok(Open::new(&registry.options, ends))
    }

    /// Gives back what was reserved.
    pub(crate) fn abandon(self, registry: &Registry) {
        registry.close(self.place);
    }
}
