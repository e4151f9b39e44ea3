//! Resolving a host name without blocking the caller: a short-lived thread, and a descriptor that says when it is done.

use crate::registered::Registered;
use rustix::event::EventfdFlags;
use sinew_base::guarded::GuardedFd;
use sinew_transport::{Code, ErrorKind, Interest, PollKey, Poller, TransportError};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Names that are resolved at the same time in one process.
const AT_ONCE_MAX: usize = 16;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// The poll key's `sub` of the descriptor; connecting sockets count from 0.
const SUB: u32 = u32::MAX;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

type Outcome = Result<Vec<SocketAddr>, TransportError>;

/// A name on its way to addresses. Dropping it forgets the result; the thread ends by itself.
pub(crate) struct Resolving {
    name: String,
    outcome: Arc<Mutex<Option<Outcome>>>,
    _done: Registered,
}

struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        let taken = RUNNING
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < AT_ONCE_MAX).then_some(n + 1));
        taken.is_ok().then_some(Self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Resolving {
    pub(crate) fn start(
        host: &str,
        port: u16,
        poller: &Arc<Poller>,
        owner: u32,
    ) -> Result<Self, TransportError> {
        let name = format!("{host}:{port}");
        let os = |errno| TransportError::os(errno, "resolve", name.clone());
        let slot = Slot::take().ok_or_else(|| {
            TransportError::new(ErrorKind::Limit, "resolve", name.clone()).hint(
                "too many names are being resolved; is the name server slow? Try again, or dial addresses",
            )
        })?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let done = GuardedFd::make(|| rustix::event::eventfd(0, flags)).map_err(os)?;
        let signal = rustix::io::fcntl_dupfd_cloexec(&done, 0).map_err(os)?;
        let done = Registered::new(done, poller, PollKey { owner, sub: SUB }, Interest::READ)?;
        let outcome = Arc::new(Mutex::new(None));
        let (place, host, text) = (Arc::clone(&outcome), host.to_owned(), name.clone());
        let helper = std::thread::Builder::new().name("sinew-resolve".into());
        let started = helper.spawn(move || {
            crate::socket::block_signals();
            let result = resolve(&host, port, &text);
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            let _ = rustix::io::write(&signal, &1u64.to_ne_bytes());
            drop(slot);
        });
        started.map_err(|error| {
            TransportError::new(ErrorKind::Limit, "resolve", name.clone())
                .hint(format!("no thread could be started: {error}"))
        })?;
        Ok(Self { name, outcome, _done: done })
    }

    /// The addresses, once.
    pub(crate) fn take(&self) -> Option<Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

fn resolve(host: &str, port: u16, text: &str) -> Outcome {
    let found = (host, port).to_socket_addrs().map_err(|error| {
        let mut failed = TransportError::new(ErrorKind::InvalidAddress, "resolve", text)
            .hint(format!("no address for that name ({error}); see `getent hosts {host}`"));
        failed.code = error.raw_os_error().map(|number| Code { space: "errno", number: i64::from(number) });
        failed
    })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(
            TransportError::new(ErrorKind::InvalidAddress, "resolve", text).hint("the name has no address")
        );
    }
    Ok(addresses)
}
