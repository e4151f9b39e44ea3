//! The engine: made by a builder, shared by its handles, closed in order or by the last drop.

use crate::config::{Config, Security};
use crate::core::{Absent, Core, DomainSlot, Owner, Surroundings, Windows};
use crate::endpoint::{Endpoint, EndpointInner};
use crate::error::{BuildError, OpError};
use crate::histogram::Measures;
use crate::metrics::{EngineCounters, LaneCounters};
use crate::options::EngineOptions;
use crate::progress::{self, Progress};
use crate::shared::Shared;
use crate::system::System;
use crate::timeout::FAR;
use rustix::fd::{AsFd, BorrowedFd};
use sinew_proto::handshake::Secret;
use sinew_transport::{Availability, DomainContext, ListenScope, Transport, TransportError};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Puts an engine together. Options come from here, then from `SINEW_*`, then from their defaults.
pub struct Builder {
    domain: String,
    security: Option<Security>,
    progress: Progress,
    listen: bool,
    transports: Vec<Arc<dyn Transport>>,
    options: EngineOptions,
    versions: sinew_wire::hello::Versions,
    features: sinew_wire::hello::Features,
    surroundings: Arc<dyn Surroundings>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            domain: "default".to_owned(),
            security: None,
            progress: Progress::Caller,
            listen: true,
            transports: Vec::new(),
            options: EngineOptions::default(),
            versions: sinew_wire::hello::Versions::THIS,
            features: sinew_wire::hello::Features::THIS,
            surroundings: Arc::new(System),
        }
    }
}

impl Builder {
    /// The domain: engines of different domains cannot reach each other. Default: `default`.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = domain.into();
        self
    }

    /// Who is trusted. Default: [`Security::ThisUser`].
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.security = Some(security);
        self
    }

    /// Who makes progress. Default: [`Progress::Caller`].
    #[must_use]
    pub const fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Whether connections are accepted. Default: yes. An engine that does not listen can still connect.
    #[must_use]
    pub const fn listen(mut self, listen: bool) -> Self {
        self.listen = listen;
        self
    }

    /// Adds a transport; anybody's crate can make one. The order does not matter.
    #[must_use]
    pub fn transport(mut self, transport: impl Transport + 'static) -> Self {
        self.transports.push(Arc::new(transport));
        self
    }

    /// All other options, as made from the environment or by hand.
    #[must_use]
    pub fn options(mut self, options: EngineOptions) -> Self {
        self.options = options;
        self
    }

    /// Wire versions to speak; for tests of version mismatch.
    #[doc(hidden)]
    #[must_use]
    pub const fn wire_versions(mut self, min: u16, max: u16) -> Self {
        self.versions = sinew_wire::hello::Versions { min, max };
        self
    }

    /// Optional features of the wire to have, a bit each; for tests with peers that have fewer.
    #[doc(hidden)]
    #[must_use]
    pub const fn wire_features(mut self, features: u64) -> Self {
        self.features = sinew_wire::hello::Features(features);
        self
    }

    /// Where time, chance and readiness come from; for simulators, whose time stands still while nobody waits.
    #[doc(hidden)]
    #[must_use]
    pub fn surroundings(mut self, surroundings: impl Surroundings + 'static) -> Self {
        self.surroundings = Arc::new(surroundings);
        self
    }

    /// Makes the engine: opens the transports, and starts the background thread if there is to be one.
    ///
    /// # Errors
    /// [`BuildError`]: an impossible option, no secret where one is needed, no transport that works.
    pub fn build(self) -> Result<Engine, BuildError> {
        let config = Arc::new(self.config()?);
        let poller = Arc::new(self.surroundings.poller().map_err(|errno| {
            BuildError::System(TransportError::os(errno, "epoll_create1", "").hint(descriptors_hint(errno)))
        })?);
        let mut core = Core::new(
            random(&*self.surroundings)?,
            u64::from_le_bytes(random(&*self.surroundings)?).max(1),
            config,
            Arc::clone(&poller),
            Arc::clone(&self.surroundings),
        );
        open_transports(&mut core, &self.transports, self.listen)?;
        let shared = Shared::new(core, poller, self.progress).map_err(|errno| {
            BuildError::System(TransportError::os(errno, "eventfd", "").hint(descriptors_hint(errno)))
        })?;
        let shared = Arc::new(shared);
        let thread = match self.progress {
            Progress::Thread { cpu } => Some(spawn(&shared, cpu)?),
            _ => None,
        };
        Ok(Engine { inner: Arc::new(EngineInner { shared, thread: Mutex::new(thread) }) })
    }

    fn config(&self) -> Result<Config, BuildError> {
        let options = &self.options;
        if self.domain.is_empty() || self.domain.len() > 255 {
            return Err(BuildError::Option(
                "a domain's name has 1 to 255 bytes, as in \"training-7\"".into(),
            ));
        }
        refuse_nothing(options)?;
        let security = self.security.clone().unwrap_or_default();
        let secret = match &security {
            Security::Secret(secret) if secret.as_bytes().len() < 16 => {
                return Err(BuildError::Option(format!(
                    "the domain secret has {} bytes; it needs at least 16 that nobody can guess, as from `head -c 32 /dev/urandom`",
                    secret.as_bytes().len()
                )));
            }
            Security::Secret(secret) => Some(Secret::new(secret.as_bytes())),
            Security::ThisUser => Some(crate::user_secret::load(options.runtime_dir.as_deref())?),
            Security::Open => None,
        };
        Ok(Config {
            domain: self.domain.clone(),
            security,
            secret,
            timeout: options.timeout,
            connect_timeout: options.connect_timeout.min(FAR),
            handshake_timeout: options.handshake_timeout.min(FAR),
            peer_timeout: options.peer_timeout.min(FAR),
            stagger: options.stagger.min(FAR),
            spin: options.spin,
            eager_max: options.eager_max,
            send_buffer: options.send_buffer,
            half_open_max: options.half_open_max.min(descriptor_share()),
            windows: Windows {
                endpoint_bytes: options.endpoint_window as u64,
                session_bytes: options.session_window as u64,
                endpoint_envelopes: options.endpoint_envelopes as u64,
                session_envelopes: options.session_envelopes as u64,
            },
            histograms: options.histograms,
            versions: self.versions,
            features: self.features,
        })
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("domain", &self.domain)
            .field("security", &self.security)
            .finish_non_exhaustive()
    }
}

/// What helps when a descriptor that the engine cannot do without is refused, and not because descriptors are short.
fn descriptors_hint(errno: rustix::io::Errno) -> &'static str {
    match errno {
        rustix::io::Errno::MFILE | rustix::io::Errno::NFILE => "",
        _ => "a sandbox (seccomp) around this process may refuse it; the engine cannot do without",
    }
}

fn random<const N: usize>(from: &dyn Surroundings) -> Result<[u8; N], BuildError> {
    from.random().map_err(|errno| BuildError::System(TransportError::os(errno, "getrandom", "")))
}

/// An eighth of the descriptors that this process may have, so that strangers cannot take them all.
fn descriptor_share() -> usize {
    if cfg!(miri) {
        // The interpreter knows no limits.
        return usize::MAX;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let share = limit.map_or(usize::MAX, |limit| usize::try_from(limit / 8).unwrap_or(usize::MAX));
    share.max(16)
}

/// Refuses a nothing of which no message, link or session could come.
fn refuse_nothing(options: &EngineOptions) -> Result<(), BuildError> {
    let nothings = [
        ("endpoint_envelopes", options.endpoint_envelopes == 0, "1"),
        ("session_envelopes", options.session_envelopes == 0, "1"),
        ("handshake_timeout", options.handshake_timeout.is_zero(), "3s"),
        ("peer_timeout", options.peer_timeout.is_zero(), "10s"),
    ];
    match nothings.iter().find(|(_, nothing, _)| *nothing) {
        Some((name, _, fine)) => Err(BuildError::Option(format!(
            "{name} is 0, with which nothing would work; give more, as {fine}"
        ))),
        None => Ok(()),
    }
}

fn open_transports(
    core: &mut Core,
    transports: &[Arc<dyn Transport>],
    listen: bool,
) -> Result<(), BuildError> {
    let scope = match (&core.config.security, listen) {
        (_, false) => ListenScope::Nobody,
        (Security::ThisUser, true) => ListenScope::ThisUser,
        (_, true) => ListenScope::Anywhere,
    };
    for transport in transports {
        let name = transport.name();
        if let Availability::Missing(error) = transport.probe() {
            core.absent.push(Absent { name, error });
            continue;
        }
        let index = core.domains.len();
        let owner = core.new_owner(Owner::Domain(index));
        let context =
            DomainContext { engine: core.id, listen: scope, poller: Arc::clone(&core.poller), owner };
        match transport.open(context) {
            Ok(domain) => {
                let (_, cost) = transport.expectation();
                let lanes = transport.lanes_per_session();
                core.domains.push(DomainSlot { name, domain, cost, lanes });
            }
            Err(error) => core.absent.push(Absent { name, error }),
        }
    }
    if core.domains.is_empty() && !transports.is_empty() {
        let lines: Vec<String> =
            core.absent.iter().map(|absent| format!("  {}: {}", absent.name, absent.error)).collect();
        return Err(BuildError::NoTransport(lines.join("\n")));
    }
    Ok(())
}

fn spawn(shared: &Arc<Shared>, cpu: Option<usize>) -> Result<JoinHandle<()>, BuildError> {
    let shared = Arc::clone(shared);
    crate::signals::with_all_blocked(|| {
        std::thread::Builder::new().name("sinew".into()).spawn(move || progress::run(&shared, cpu))
    })
    .map_err(|error| {
        let refused =
            TransportError::new(sinew_transport::ErrorKind::Limit, "start the thread of progress", error.to_string());
        BuildError::System(refused.hint(
            "raise the limit of threads (ulimit -u, pids.max of the control group) or of address space (ulimit -v), or choose Progress::Caller or Event",
        ))
    })
}

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

    /// The descriptor to watch for readability with [`Progress::Event`].
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

/// The engine is announced as sleeping. Drop it, or call [`Armed::process`], when awake again.
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
