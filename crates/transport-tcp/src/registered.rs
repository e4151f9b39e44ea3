//! A socket together with its place in the engine's poller, and the sockets that stay out of it for a while.
//!
//! A descriptor in an epoll set makes every arrival dearer (70 to 100 ns), also while nobody sleeps on the set. So a lane that
//! is polled again and again without a word from the poller leaves it, and comes back before anybody sleeps:
//! [`Spinners`] is the list that the domain and its lanes share.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use sinew_base::guarded::GuardedFd;
use sinew_transport::{Interest, PollKey, Poller, TransportError};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// See the module.
#[derive(Debug)]
pub(crate) struct Registered {
    fd: GuardedFd,
    poller: Arc<Poller>,
    key: PollKey,
    /// Whether it is in the poller now.
    watched: AtomicBool,
    /// Whether writability is watched for, too, when it is in.
    writable: AtomicBool,
    /// Counts polls, so that [`Spinners`] sees whether there are any.
    polls: AtomicU32,
}

impl Registered {
    pub(crate) fn new(
        fd: GuardedFd,
        poller: &Arc<Poller>,
        key: PollKey,
        interest: Interest,
    ) -> Result<Self, TransportError> {
        poller.add(&fd, key, interest).map_err(|errno| {
            TransportError::os(errno, "epoll_ctl", "")
                .hint("if the number of watched descriptors is at its limit, raise fs.epoll.max_user_watches")
        })?;
        Ok(Self {
            fd,
            poller: Arc::clone(poller),
            key,
            watched: AtomicBool::new(true),
            writable: AtomicBool::new(interest.writable),
            polls: AtomicU32::new(0),
        })
    }

    fn interest(&self) -> Interest {
        Interest { readable: true, writable: self.writable.load(Ordering::Relaxed) }
    }

    /// Changes whether writability is watched for; readability always is.
    pub(crate) fn watch_writable(&self, writable: bool) -> Result<(), Errno> {
        self.writable.store(writable, Ordering::Relaxed);
        if self.is_watched() { self.poller.modify(&self.fd, self.key, self.interest()) } else { Ok(()) }
    }

    /// Changes whom events are for.
    pub(crate) fn rekey(&mut self, key: PollKey) -> Result<(), Errno> {
        self.key = key;
        self.poller.modify(&self.fd, self.key, self.interest())
    }

    /// Whether it is in the poller now.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Says that it was polled.
    #[inline]
    pub(crate) fn count_poll(&self) {
        self.polls.store(self.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    fn come_back(&self) -> Result<(), Errno> {
        if !self.is_watched() {
            self.poller.add(&self.fd, self.key, self.interest())?;
            self.watched.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl AsFd for Registered {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.is_watched() {
            // Closing follows at once; a poller that has lost it already is no harm.
            let _ = self.poller.remove(&self.fd);
        }
    }
}

/// How many looks apart [`Spinners::look`] checks that those outside are still polled.
const LOOKS_PER_CHECK: u32 = 64;

#[derive(Debug)]
struct Spinner {
    socket: Weak<Registered>,
    /// Its count of polls at the last check.
    polls: u32,
}

/// The sockets of a domain that are outside the poller.
#[derive(Debug, Default)]
pub(crate) struct Spinners {
    outside: Mutex<Vec<Spinner>>,
    any: AtomicBool,
    /// Somebody sleeps on the poller, or is about to, while others may go on polling: nobody leaves.
    armed: AtomicBool,
    closed: AtomicBool,
    looks: AtomicU32,
}

impl Spinners {
    /// Takes a socket out of the poller until [`Spinners::arm`]. `false`: not now.
    pub(crate) fn leave(&self, socket: &Arc<Registered>) -> bool {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = self.armed.load(Ordering::Relaxed) || self.closed.load(Ordering::Relaxed);
        if refused || socket.poller.remove(&socket.fd).is_err() {
            return false;
        }
        socket.watched.store(false, Ordering::Relaxed);
        let polls = socket.polls.load(Ordering::Relaxed);
        outside.push(Spinner { socket: Arc::downgrade(socket), polls });
        self.any.store(true, Ordering::Relaxed);
        true
    }

    /// Puts all sockets back into the poller, where they stay until [`Spinners::disarm`]. `false`: one could not be; do not
    /// sleep.
    pub(crate) fn arm(&self) -> bool {
        self.armed.store(true, Ordering::Relaxed);
        !self.any.load(Ordering::Relaxed) || self.call_back_if(|_| true)
    }

    /// Nobody sleeps any more.
    pub(crate) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    /// Called on each idle turn: now and then puts those back that are not polled any more.
    #[inline]
    pub(crate) fn look(&self) {
        if self.any.load(Ordering::Relaxed) {
            let looks = self.looks.load(Ordering::Relaxed).wrapping_add(1);
            self.looks.store(looks, Ordering::Relaxed);
            if looks.is_multiple_of(LOOKS_PER_CHECK) {
                self.call_back_if(|spinner| {
                    let polls = spinner.socket.upgrade().map(|socket| socket.polls.load(Ordering::Relaxed));
                    polls == Some(std::mem::replace(&mut spinner.polls, polls.unwrap_or(0)))
                });
            }
        }
    }

    /// The domain ends: nobody would call the sockets back any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.arm();
    }

    #[cold]
    fn call_back_if(&self, mut chosen: impl FnMut(&mut Spinner) -> bool) -> bool {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = true;
        outside.retain_mut(|spinner| {
            let comes = chosen(spinner);
            let Some(socket) = spinner.socket.upgrade() else { return false };
            let failed = comes && socket.come_back().is_err();
            all &= !failed;
            !comes || failed
        });
        self.any.store(!outside.is_empty(), Ordering::Relaxed);
        all
    }
}
