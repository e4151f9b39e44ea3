//! A socket together with its place in the engine's poller, left before the descriptor is closed.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use sinew_transport::{Interest, PollKey, Poller, TransportError};
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(crate) struct Registered {
    fd: OwnedFd,
    poller: Arc<Poller>,
    key: PollKey,
}

impl Registered {
    pub(crate) fn new(
        fd: OwnedFd,
        poller: &Arc<Poller>,
        key: PollKey,
        interest: Interest,
    ) -> Result<Self, TransportError> {
        poller.add(&fd, key, interest).map_err(|errno| {
            TransportError::os(errno, "epoll_ctl", "")
                .hint("if the number of watched descriptors is at its limit, raise fs.epoll.max_user_watches")
        })?;
        Ok(Self { fd, poller: Arc::clone(poller), key })
    }

    /// Changes what is watched for.
    pub(crate) fn watch(&self, interest: Interest) -> Result<(), Errno> {
        self.poller.modify(&self.fd, self.key, interest)
    }

    /// Changes whom events are for, and what is watched for.
    pub(crate) fn rekey(&mut self, key: PollKey, interest: Interest) -> Result<(), Errno> {
        self.key = key;
        self.watch(interest)
    }
}

impl AsFd for Registered {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Closing follows at once; a poller that has lost it already is no harm.
        let _ = self.poller.remove(&self.fd);
    }
}
