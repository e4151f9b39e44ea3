//! The engine: shared by its handles, closed in order or by the last drop.

use crate::builder::Builder;
use crate::core::Core;
use crate::endpoint::{Endpoint, EndpointInner};
use crate::error::{BuildError, OpError};
use crate::histogram::Measures;
use crate::metrics::{EngineCounters, LaneCounters};
use crate::shared::Shared;
use rustix::fd::{AsFd, BorrowedFd};
use sinew_transport::TransportError;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An engine: endpoints of one domain and their sessions with other engines. Cheap to clone; `Send` and `Sync`.
///
/// The thread that uses an engine most takes no lock. Threads that want to run side by side make an engine each.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<EngineInner>,
}

struct EngineInner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How long the last drop of an engine tries to hand over what was sent.
const DRAIN_ON_DROP: Duration = Duration::from_millis(200);

impl EngineInner {
    /// Whether everything was handed over. A panic of the application on the way is kept in `broken`: it must not keep the
    /// engine from ending.
    fn close(&self, within: Duration, broken: &mut std::thread::Result<()>) -> bool {
        let shared = &self.shared;
        if shared.check_fork().is_err() {
            return false;
        }
        let until = shared.now().checked_add(within);
        let drained = loop {
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(shared.now()));
            let wait = || {
                shared.wait(Some(left), |core| {
                    core.request_acknowledgements();
                    core.drained().then_some(())
                })
            };
            match catch_unwind(AssertUnwindSafe(wait)) {
                Ok(drained) => break drained.is_some(),
                Err(panic) => crate::panics::keep(broken, Err(panic)),
            }
            if left.is_zero() {
                break false;
            }
        };
        shared.with_caught(broken, Core::shut_down);
        shared.stop.store(true, std::sync::atomic::Ordering::Release);
        shared.notify();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
        drained
    }
}

impl Drop for EngineInner {
    fn drop(&mut self) {
        let mut broken = Ok(());
        self.close(DRAIN_ON_DROP, &mut broken);
        broken.unwrap_or_else(crate::panics::discard);
    }
}

impl Engine {
    /// A builder without transports; the facade's adds the usual ones.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(shared: Arc<Shared>, thread: Option<JoinHandle<()>>) -> Self {
        Self { inner: Arc::new(EngineInner { shared, thread: Mutex::new(thread) }) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Makes an endpoint. `name` may be empty: then it can be reached by its address only.
    ///
    /// # Errors
    /// [`BuildError::Name`], [`BuildError::Closed`].
    pub fn endpoint(&self, name: &str) -> Result<Endpoint, BuildError> {
        let shared = &self.inner.shared;
        shared.check_fork().map_err(|_| BuildError::Closed)?;
        let name = (!name.is_empty()).then_some(name);
        let (number, address) = shared.with(|core| {
            let number = core.create_endpoint(name)?;
            Ok::<_, BuildError>((number, core.address_of(number)))
        })?;
        let measures = if shared.config.histograms { Measures::new() } else { None };
        let inner = EndpointInner {
            shared: Arc::clone(shared),
            number,
            name: name.map(str::to_owned),
            address,
            measures,
            operations: AtomicUsize::new(0),
        };
        Ok(Endpoint { inner: Arc::new(inner) })
    }

    /// The number of a named endpoint of this engine.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Option<u32> {
        self.inner.shared.with_unless_forked(None, |core| core.names.get(name).copied())
    }

    /// Moves what can be moved now; never blocks. Returns how much was done.
    pub fn progress(&self) -> usize {
        self.inner.shared.with_unless_forked(0, Core::progress)
    }

    /// How long whoever waits on this engine polls before it sleeps: the option `spin`.
    #[must_use]
    pub fn spin(&self) -> Duration {
        self.inner.shared.config.spin
    }

    /// The descriptor to watch for readability with [`Progress::Event`](crate::Progress::Event).
    #[must_use]
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.inner.shared.poller().as_fd()
    }

    /// Announces that the caller is about to sleep until [`Engine::event_fd`] is readable or the time that it answers has
    /// passed. `None`: something is there; call [`Engine::process`] and try again.
    #[must_use]
    pub fn arm(&self) -> Option<Armed> {
        self.inner.shared.arm_for_event().map(|timeout| Armed { engine: Some(self.clone()), timeout })
    }

    /// Handles what is ready; never blocks. Returns how much was done.
    pub fn process(&self) -> usize {
        self.inner.shared.process_event(false)
    }

    /// Closes the engine: what was sent is handed over, up to `within`; then peers are told and every operation ends.
    /// `true`: everything was handed over.
    ///
    /// # Errors
    /// [`OpError::Forked`].
    pub fn close(&self, within: Duration) -> Result<bool, OpError> {
        self.inner.shared.check_fork()?;
        let mut broken = Ok(());
        let drained = self.inner.close(within, &mut broken);
        match broken {
            Ok(()) => Ok(drained),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Counts since the engine was made.
    #[must_use]
    pub fn counters(&self) -> EngineCounters {
        self.inner.shared.with_unless_forked(EngineCounters::default(), |core| core.engine_counters())
    }

    /// Counts of each lane that lives.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneCounters> {
        self.inner.shared.with_unless_forked(Vec::new(), |core| core.lane_counters())
    }

    /// Transports that could not be opened, and why.
    #[must_use]
    pub fn absent(&self) -> Vec<(String, TransportError)> {
        self.inner.shared.with_unless_forked(Vec::new(), |core| {
            core.absent.iter().map(|absent| (absent.name.to_owned(), absent.error.clone())).collect()
        })
    }

    /// Gives a session up without telling the peer, as after `peer_timeout`; for tests.
    #[doc(hidden)]
    pub fn lose(&self, peer: &crate::Peer) -> bool {
        self.inner.shared.with(|core| {
            core.lose_session(peer.session, "given up on purpose");
            core.session_error(peer.session).is_err()
        })
    }

    /// Makes one lane to the peer of `peer` fail, as a fault of the network would; for tests.
    #[doc(hidden)]
    pub fn cut(&self, peer: &crate::Peer) -> bool {
        self.inner.shared.with(|core| core.cut(peer.session))
    }

    /// The same to one of the lanes that were added beside the one that carries the session; `false`: there is none.
    #[doc(hidden)]
    pub fn cut_added(&self, peer: &crate::Peer) -> bool {
        self.inner.shared.with(|core| core.cut_added(peer.session))
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// The engine is announced as sleeping. Drop it, or call [`Armed::process`], when awake again. One that is forgotten
/// (`mem::forget`) leaves the announcement standing and a handle of the engine behind: peers go on waking it for each message, and it ends with its process.
#[must_use = "watch the descriptor, then call process"]
pub struct Armed {
    /// Until it is processed.
    engine: Option<Engine>,
    timeout: Option<Duration>,
}

impl Armed {
    /// How long to sleep at most; `None`: until the descriptor is readable.
    #[must_use]
    pub const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The same as a point in time.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let engine = self.engine.as_ref()?;
        self.timeout.and_then(|timeout| engine.shared().now().checked_add(timeout))
    }

    /// Handles what is ready. Returns how much was done.
    pub fn process(mut self) -> usize {
        self.end()
    }

    fn end(&mut self) -> usize {
        self.engine.take().map_or(0, |engine| engine.inner.shared.process_event(true))
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        // No panic of the application goes out of a drop.
        crate::panics::survives(|| {
            self.end();
        });
    }
}

impl std::fmt::Debug for Armed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Armed({:?})", self.timeout)
    }
}
