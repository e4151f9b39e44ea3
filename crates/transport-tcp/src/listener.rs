//! A listening socket in the poller, which steps out of it for a while when the process has no descriptor left.
//!
//! Used by both domains. One bad connection never ends it.

use rustix::io::Errno;
use rustix::net::SocketFlags;
use sinew_base::guarded::GuardedFd;
use sinew_transport::{Interest, PollKey, Poller, TransportError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a listener stays out of the poller after it could not accept for lack of a descriptor or memory.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Connections that are looked at in one call although they were gone already.
const GONE_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: Arc<GuardedFd>,
    poller: Arc<Poller>,
    key: PollKey,
    /// Out of the poller; a helper thread will put it back.
    resting: Arc<AtomicBool>,
    name: String,
}

impl Listener {
    pub(crate) fn new(
        fd: GuardedFd,
        poller: &Arc<Poller>,
        key: PollKey,
        name: String,
    ) -> Result<Self, TransportError> {
        poller
            .add(&fd, key, Interest::READ)
            .map_err(|errno| TransportError::os(errno, "epoll_ctl", &*name))?;
        Ok(Self {
            fd: Arc::new(fd),
            poller: Arc::clone(poller),
            key,
            resting: Arc::new(AtomicBool::new(false)),
            name,
        })
    }

    /// A connection, or `None` when none waits.
    pub(crate) fn accept(&self) -> Result<Option<GuardedFd>, TransportError> {
        for _ in 0..GONE_MAX {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match GuardedFd::make(|| rustix::net::accept_with(&self.fd, flags)) {
                Ok(fd) => return Ok(Some(fd)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    self.rest();
                    return Err(TransportError::os(errno, "accept on", &*self.name).hint(match errno {
                        Errno::MFILE | Errno::NFILE => "",
                        _ => "the machine is short of memory for sockets",
                    }));
                }
                Err(errno @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)) => {
                    return Err(TransportError::os(errno, "accept on", &*self.name));
                }
                // A connection that failed while it waited, a signal, a rule of the firewall: the next one may be good.
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// Leaves the poller, which would otherwise report the waiting connection again and again, for [`BACK_OFF`]. A thread
    /// waits, because it needs no descriptor. Where there is no thread either, the engine's own back-off has to do.
    fn rest(&self) {
        if self.resting.swap(true, Ordering::AcqRel) {
            return;
        }
        let _ = self.poller.remove(&self.fd);
        let (fd, poller, key) = (Arc::downgrade(&self.fd), Arc::clone(&self.poller), self.key);
        let resting = Arc::clone(&self.resting);
        let waiter = std::thread::Builder::new().name("sinew-accept".into()).stack_size(64 << 10);
        let started = waiter.spawn(move || {
            crate::socket::block_signals();
            std::thread::sleep(BACK_OFF);
            if let Some(fd) = fd.upgrade() {
                let _ = poller.add(&fd, key, Interest::READ);
            }
            resting.store(false, Ordering::Release);
        });
        if started.is_err() {
            let _ = self.poller.add(&self.fd, self.key, Interest::READ);
            self.resting.store(false, Ordering::Release);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.poller.remove(&self.fd);
    }
}
