//! The builder that knows the transports that come with Sinew.

use crate::options::from_environment;
use crate::{BuildError, DomainSecret, EngineOptions, Progress, Security, Transport, TransportOptions};
use std::ops::Deref;
use std::path::Path;
use zeroize::Zeroizing;

/// An engine with the transports that come with Sinew. Everything that an engine does is behind [`Deref`]:
/// [`sinew_engine::Engine`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine(sinew_engine::Engine);

impl Engine {
    /// A builder. Options that are not set there come from `SINEW_*`, then from their defaults.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// An engine of `domain` with all defaults.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn new(domain: &str) -> Result<Self, BuildError> {
        Self::builder().domain(domain).build()
    }
}

impl Deref for Engine {
    type Target = sinew_engine::Engine;

    fn deref(&self) -> &sinew_engine::Engine {
        &self.0
    }
}

/// Puts an [`Engine`] together.
#[derive(Default)]
pub struct Builder {
    engine: sinew_engine::Builder,
    security: Option<Security>,
    options: Option<EngineOptions>,
    transports: Option<TransportOptions>,
    /// The transports to open, whatever the options say.
    only: Option<Vec<String>>,
    custom: bool,
    only_custom: bool,
}

impl Builder {
    /// The domain: engines of different domains cannot reach each other. Default: `default`.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.engine = self.engine.domain(domain);
        self
    }

    /// Who is trusted. Default: the secret of `SINEW_SECRET_FILE` if that is set, else [`Security::ThisUser`].
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.security = Some(security);
        self
    }

    /// Who makes progress. Default: [`Progress::Caller`].
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.engine = self.engine.progress(progress);
        self
    }

    /// Whether connections are accepted. Default: yes.
    #[must_use]
    pub fn listen(mut self, listen: bool) -> Self {
        self.engine = self.engine.listen(listen);
        self
    }

    /// Adds a transport of somebody else's.
    #[must_use]
    pub fn transport(mut self, transport: impl Transport + 'static) -> Self {
        self.engine = self.engine.transport(transport);
        self.custom = true;
        self
    }

    /// Leaves out the transports that come with Sinew.
    #[must_use]
    pub const fn without_own_transports(mut self) -> Self {
        self.only_custom = true;
        self
    }

    /// Opens only these transports, of `shm`, `uds`, `tcp`, whatever `SINEW_TRANSPORTS` and
    /// [`Builder::transport_options`] say; the transports' other options stay as they are there.
    ///
    /// # Errors
    /// None here; [`Builder::build`] answers [`BuildError::Option`] for a name that is unknown.
    #[must_use]
    pub fn transports<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.only = Some(names.into_iter().map(str::to_owned).collect());
        self
    }

    /// Options of the engine, instead of those of the environment.
    #[must_use]
    pub fn options(mut self, options: EngineOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// Options of the transports, instead of those of the environment.
    #[must_use]
    pub fn transport_options(mut self, options: TransportOptions) -> Self {
        self.transports = Some(options);
        self
    }

    /// Wire versions to speak; for tests of version mismatch.
    #[doc(hidden)]
    #[must_use]
    pub fn wire_versions(mut self, min: u16, max: u16) -> Self {
        self.engine = self.engine.wire_versions(min, max);
        self
    }

    /// Optional features of the wire to have, a bit each; for tests with peers that have fewer.
    #[doc(hidden)]
    #[must_use]
    pub fn wire_features(mut self, features: u64) -> Self {
        self.engine = self.engine.wire_features(features);
        self
    }

    /// Makes the engine.
    ///
    /// # Errors
    /// [`BuildError`]: an unknown `SINEW_*` variable, an impossible value, no secret where one is needed, no transport.
    pub fn build(self) -> Result<Engine, BuildError> {
        let (from_engine, from_transports) = from_environment()?;
        let options = self.options.unwrap_or(from_engine);
        let mut transports = self.transports.unwrap_or(from_transports);
        if let Some(only) = self.only {
            transports.transports = only;
        }
        let mut engine = self.engine;
        if !self.only_custom {
            engine = add_own(engine, &options, &transports)?;
        }
        let security = match (self.security, &transports.secret_file) {
            (Some(security), _) => security,
            (None, Some(file)) => Security::Secret(read_secret(file)?),
            (None, None) => Security::ThisUser,
        };
        engine.security(security).options(options).build().map(Engine)
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.engine.fmt(f)
    }
}

/// Names of the transports that this build has, the fastest expectation first.
#[must_use]
pub const fn transport_names() -> &'static [&'static str] {
    &[
        #[cfg(feature = "shm")]
        "shm",
        #[cfg(feature = "tcp")]
        "uds",
        #[cfg(feature = "tcp")]
        "tcp",
    ]
}

fn add_own(
    mut engine: sinew_engine::Builder,
    options: &EngineOptions,
    transports: &TransportOptions,
) -> Result<sinew_engine::Builder, BuildError> {
    transports.check(transport_names())?;
    #[cfg(feature = "shm")]
    if transports.wants("shm") {
        let mut own = crate::shm::ShmOptions::default();
        own.runtime_dir.clone_from(&options.runtime_dir);
        own.cross_read = parsed("SINEW_SHM_CROSS_READ", &transports.shm_cross_read)?;
        own.huge_pages = parsed("SINEW_SHM_HUGE_PAGES", &transports.shm_huge_pages)?;
        own.numa = parsed("SINEW_SHM_NUMA", &transports.shm_numa)?;
        engine = engine.transport(crate::shm::ShmTransport::new(own));
    }
    #[cfg(feature = "tcp")]
    {
        if transports.wants("uds") {
            let mut own = crate::tcp::UdsOptions::default();
            own.runtime_dir.clone_from(&options.runtime_dir);
            engine = engine.transport(crate::tcp::UdsTransport::new(own));
        }
        if transports.wants("tcp") {
            use crate::tcp::CongestionControl;
            let mut own = crate::tcp::TcpOptions::default();
            own.bind = transports.tcp_bind_addresses()?;
            own.ports = transports.tcp_port_range()?;
            own.advertise.clone_from(&transports.tcp_advertise);
            own.congestion_control = match transports.tcp_congestion.as_str() {
                "auto" | "" => CongestionControl::Auto,
                "system" => CongestionControl::System,
                name => CongestionControl::Named(name.to_owned()),
            };
            own.sockets = transports
                .tcp_sockets
                .parse()
                .map_err(|error| BuildError::Option(format!("SINEW_TCP_SOCKETS (tcp_sockets): {error}")))?;
            own.check().map_err(|error| {
                BuildError::Option(format!("SINEW_TCP_CONGESTION (tcp_congestion): {error}"))
            })?;
            engine = engine.transport(crate::tcp::TcpTransport::new(own));
        }
    }
    Ok(engine)
}

/// An option's text as its value.
#[cfg(feature = "shm")]
fn parsed<T: std::str::FromStr<Err = String>>(name: &str, text: &str) -> Result<T, BuildError> {
    text.parse().map_err(|error| BuildError::Option(format!("{name}: {error}")))
}

/// A secret file's bytes, without a line end.
fn read_secret(file: &Path) -> Result<DomainSecret, BuildError> {
    use std::os::unix::fs::MetadataExt;
    let failed = |error: &dyn std::fmt::Display| {
        BuildError::Option(format!("secret file {}: {error}", file.display()))
    };
    let meta = std::fs::metadata(file).map_err(|error| failed(&error))?;
    if meta.mode() & 0o077 != 0 {
        return Err(failed(&"others can read it; chmod 600 it and choose another secret"));
    }
    let mut secret = Zeroizing::new(std::fs::read(file).map_err(|error| failed(&error))?);
    while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        secret.pop();
    }
    Ok(std::mem::take(&mut *secret).into())
}
