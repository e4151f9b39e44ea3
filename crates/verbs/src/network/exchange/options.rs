//! How an exchange is to be made: which job, whom to trust, where to listen, how long.
//!
//! Filled in by programs, read by the TCP exchange.

use super::wire;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// How an exchange is made. All ranks of a job need the same job, secret and, for large values, limit.
///
/// The *job* is a name that no other run has, the launcher's job number for instance: a process of an earlier run that still
/// lives, or of another run on the same hosts, is refused, and both sides say so.
///
/// With a *secret* nothing of a stranger is interpreted before it has proven that it knows it, and nothing can be changed on the way. It is
/// not encrypted: who can listen to the network can read what ranks give each other, remote keys among it. It should come from a file
/// or the environment and have at least 128 random bits. **Without one the exchange is open to whoever reaches the port** and knows, or
/// has seen, the name of the job; that is right on a closed network or on one machine only, and must be chosen by name.
pub struct ExchangeOptions {
    pub(super) job: [u8; 32],
    pub(super) secret: Option<[u8; 32]>,
    pub(super) timeout: Duration,
    pub(super) connection_timeout: Duration,
    pub(super) retry_min: Duration,
    pub(super) retry_max: Duration,
    pub(super) value_max: usize,
    pub(super) strangers_max: usize,
    pub(super) dials_max: usize,
    pub(super) bind: Option<SocketAddr>,
    pub(super) listener: Option<TcpListener>,
}

impl ExchangeOptions {
    /// Open to whoever reaches the port and gives the name of the job.
    #[must_use]
    pub fn open(job: impl AsRef<[u8]>) -> Self {
        Self::new(job.as_ref(), None)
    }

    /// Only with processes that know the secret.
    #[must_use]
    pub fn with_secret(job: impl AsRef<[u8]>, secret: impl AsRef<[u8]>) -> Self {
        Self::new(job.as_ref(), Some(wire::key(Some(secret.as_ref()))))
    }

    fn new(job: &[u8], secret: Option<[u8; 32]>) -> Self {
        Self {
            job: wire::job(job),
            secret,
            timeout: Duration::from_secs(60),
            connection_timeout: Duration::from_secs(5),
            retry_min: Duration::from_millis(10),
            retry_max: Duration::from_millis(500),
            value_max: 1 << 20,
            strangers_max: 128,
            dials_max: 64,
            bind: None,
            listener: None,
        }
    }

    /// Time for a whole exchange. Default 60 s.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Time for one connection from its beginning to its end; then it is given up and dialled again. Default 5 s: enough for a mebibyte
    /// over a slow network. A silent connection delays its own pair of ranks that long, and no other.
    #[must_use]
    pub const fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = timeout;
        self
    }

    /// Time from one try to the next: the first, doubled with each, up to the second. Default 10 ms and 500 ms.
    #[must_use]
    pub fn retry(mut self, first: Duration, most: Duration) -> Self {
        self.retry_min = first.max(Duration::from_millis(1));
        self.retry_max = most.max(self.retry_min);
        self
    }

    /// The longest value that is taken from a rank, in bytes. Default 1 MiB. Memory grows with what arrives, not with what is announced.
    #[must_use]
    pub fn value_max_bytes(mut self, bytes: u32) -> Self {
        self.value_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        self
    }

    /// Connections that have not yet said who they are, at most; a new one displaces the oldest. Default 128.
    #[must_use]
    pub fn strangers_max(mut self, connections: usize) -> Self {
        self.strangers_max = connections.max(1);
        self
    }

    /// Ranks that are dialled at a time, at most. Default 64.
    #[must_use]
    pub fn dials_max(mut self, connections: usize) -> Self {
        self.dials_max = connections.max(1);
        self
    }

    /// Where to listen, if not at the port of the configuration: on loopback where the rank's host is a loopback address, on all interfaces
    /// otherwise. For port 0 that of the configuration is meant.
    #[must_use]
    pub const fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = Some(address);
        self
    }

    /// A socket that listens already, from a launcher for instance; `bind` is ignored then.
    #[must_use]
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }
}

impl fmt::Debug for ExchangeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeOptions")
            .field("secret", &self.secret.map(|_| "…"))
            .field("timeout", &self.timeout)
            .field("connection_timeout", &self.connection_timeout)
            .field("value_max", &self.value_max)
            .field("bind", &self.bind)
            .finish_non_exhaustive()
    }
}
