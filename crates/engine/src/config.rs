//! The engine's options after builder, environment and defaults were put together.

use crate::core::Windows;
use std::time::Duration;

/// How peers beyond this user on this machine are trusted.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Security {
    /// This user on this machine only, proven by kernel credentials on Unix sockets and by a secret in the user's private
    /// runtime directory on loopback TCP. The default.
    #[default]
    ThisUser,
    /// Everybody who knows the domain's secret; engines listen on all interfaces. At least 16 bytes.
    Secret(Vec<u8>),
    /// Everybody who can reach the engine. Nothing is proven, nothing authenticated.
    Open,
}

impl Security {
    /// What `explain` says of it.
    pub(crate) const fn describe(&self) -> &'static str {
        match self {
            Self::ThisUser => {
                "the same user on this machine is proven; the bytes are not authenticated on the way"
            }
            Self::Secret(_) => "the domain's secret is proven; the bytes are not authenticated on the way",
            Self::Open => "nothing is proven (Security::Open); the bytes are not authenticated on the way",
        }
    }
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ThisUser => "ThisUser",
            Self::Secret(_) => "Secret(…)",
            Self::Open => "Open",
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) domain: String,
    pub(crate) security: Security,
    /// The secret for links whose other end the kernel does not vouch for.
    pub(crate) secret: Vec<u8>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) peer_timeout: Duration,
    pub(crate) stagger: Duration,
    pub(crate) spin: Duration,
    pub(crate) eager_max: usize,
    pub(crate) send_buffer: usize,
    pub(crate) half_open_max: usize,
    pub(crate) windows: Windows,
    pub(crate) histograms: bool,
    pub(crate) versions: sinew_wire::hello::Versions,
}
