//! The one descriptor that an engine sleeps on: an epoll set shared by its domains, links and lanes.

use rustix::event::epoll;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::time::Duration;

/// Who a readiness event is for. The engine hands out `owner`; `sub` is the owner's to use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PollKey {
    /// Domain, link or lane, as the engine numbered it.
    pub owner: u32,
    /// Which of the owner's descriptors.
    pub sub: u32,
}

/// What to be told about a descriptor. Always level-triggered; errors and hang-ups are always told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interest {
    /// It can be read.
    pub readable: bool,
    /// It can be written.
    pub writable: bool,
}

impl Interest {
    /// Readable only.
    pub const READ: Self = Self { readable: true, writable: false };
    /// Both.
    pub const BOTH: Self = Self { readable: true, writable: true };
}

/// One readiness event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Whose it is.
    pub key: PollKey,
    /// It can be read, or has ended.
    pub readable: bool,
    /// It can be written, or has ended.
    pub writable: bool,
    /// It has failed or hung up.
    pub closed: bool,
}

/// Stands in for the system where an engine runs in a time of somebody's own, as in a simulator.
pub trait Readiness: Send + Sync {
    /// As [`Poller::wait`]. The time for which it waits passes where it is that time's.
    fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>);
}

/// A set of descriptors to wait on. `Send` and `Sync`: all calls are safe from any thread.
pub struct Poller {
    epoll: OwnedFd,
    instead: Option<Box<dyn Readiness>>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

const BATCH: usize = 64;

impl Poller {
    /// A new, empty set; its descriptor is close-on-exec.
    ///
    /// # Errors
    /// The `errno` of `epoll_create1` (2), as `EMFILE`.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, instead: None })
    }

    /// One that asks `instead` what is ready, and never the system: descriptors that are added to it count for nothing.
    ///
    /// # Errors
    /// As [`Poller::new`].
    pub fn simulated(instead: impl Readiness + 'static) -> Result<Self, Errno> {
        Ok(Self { instead: Some(Box::new(instead)), ..Self::new()? })
    }

    /// Adds a descriptor.
    ///
    /// # Errors
    /// The `errno` of `epoll_ctl` (2).
    pub fn add(&self, fd: impl AsFd, key: PollKey, interest: Interest) -> Result<(), Errno> {
        match self.instead {
            None => epoll::add(&self.epoll, fd, data(key), flags(interest)),
            Some(_) => Ok(()),
        }
    }

    /// Changes what a descriptor is watched for.
    ///
    /// # Errors
    /// The `errno` of `epoll_ctl` (2).
    pub fn modify(&self, fd: impl AsFd, key: PollKey, interest: Interest) -> Result<(), Errno> {
        match self.instead {
            None => epoll::modify(&self.epoll, fd, data(key), flags(interest)),
            Some(_) => Ok(()),
        }
    }

    /// Removes a descriptor. Call it before closing: a duplicate elsewhere would keep it in the set.
    ///
    /// # Errors
    /// The `errno` of `epoll_ctl` (2).
    pub fn remove(&self, fd: impl AsFd) -> Result<(), Errno> {
        match self.instead {
            None => epoll::delete(&self.epoll, fd),
            Some(_) => Ok(()),
        }
    }

    /// Waits up to `timeout` (`None`: for ever, zero: not at all) and appends what is ready to `events`, 64 at most.
    /// A signal ends the wait early with nothing.
    ///
    /// # Errors
    /// The `errno` of `epoll_pwait2` or `epoll_wait`, never `EINTR`.
    pub fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>) -> Result<(), Errno> {
        if let Some(instead) = &self.instead {
            instead.wait(timeout, events);
            return Ok(());
        }
        let mut batch: [core::mem::MaybeUninit<epoll::Event>; BATCH] =
            [core::mem::MaybeUninit::uninit(); BATCH];
        let timespec = timeout.map(|timeout| rustix::event::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let ready = match epoll::wait(&self.epoll, &mut batch, timespec.as_ref()) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        for event in ready {
            let key = event.data.u64();
            let flags = event.flags;
            let closed =
                flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP | epoll::EventFlags::RDHUP);
            events.push(Event {
                key: PollKey { owner: (key >> 32) as u32, sub: key as u32 },
                readable: flags.contains(epoll::EventFlags::IN) || closed,
                writable: flags.contains(epoll::EventFlags::OUT) || closed,
                closed,
            });
        }
        Ok(())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn data(key: PollKey) -> epoll::EventData {
    epoll::EventData::new_u64(u64::from(key.owner) << 32 | u64::from(key.sub))
}

fn flags(interest: Interest) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, interest.readable);
    flags.set(epoll::EventFlags::OUT, interest.writable);
    flags
}
