//! Puts an engine together: options, descriptors, transports, the thread of progress.

use crate::config::{Config, Security};
use crate::core::{Absent, Core, DomainSlot, Owner, Surroundings, Windows};
use crate::engine::Engine;
use crate::error::BuildError;
use crate::options::EngineOptions;
use crate::progress::{self, Progress};
use crate::shared::Shared;
use crate::system::System;
use crate::timeout::FAR;
use sinew_proto::handshake::Secret;
use sinew_transport::{Availability, DomainContext, ListenScope, Transport, TransportError};
use std::sync::Arc;
use std::thread::JoinHandle;

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
        Ok(Engine::new(shared, thread))
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
