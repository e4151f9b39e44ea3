//! An eventfd in a poller: how something without a descriptor of its own becomes ready.
//!
//! Used by the loopback transport and by wrappers.

use crate::{Interest, PollKey, Poller, TransportError};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::sync::Arc;

/// An eventfd in a poller, readable from [`Bell::ring`] to [`Bell::hush`]; taken out of the poller on drop.
pub(crate) struct Bell {
    fd: OwnedFd,
    poller: Arc<Poller>,
}

impl Bell {
    pub(crate) fn new(poller: Arc<Poller>, key: PollKey) -> Result<Self, TransportError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| TransportError::os(errno, "eventfd", ""))?;
        poller.add(&fd, key, Interest::READ).map_err(|errno| TransportError::os(errno, "epoll_ctl", ""))?;
        Ok(Self { fd, poller })
    }

    /// A full counter is readable already, so a refused write loses nothing.
    pub(crate) fn ring(&self) {
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    pub(crate) fn hush(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0; 8]);
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let _ = self.poller.remove(&self.fd);
    }
}
