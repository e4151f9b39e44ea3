//! The engine's options after builder, environment and defaults were put together.

use crate::core::Windows;
use sinew_proto::handshake::Secret;
use std::time::Duration;
use zeroize::Zeroizing;

/// How peers beyond this user on this machine are trusted.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Security {
    /// This user on this machine only, proven by kernel credentials on Unix sockets and by a secret in the user's private
    /// runtime directory on loopback TCP. The default.
    #[default]
    ThisUser,
    /// Everybody who knows the domain's secret; engines listen on all interfaces. At least 16 bytes.
    Secret(DomainSecret),
    /// Everybody who can reach the engine. Nothing is proven, nothing authenticated.
    Open,
}

/// The bytes of a domain's secret. Prints nothing of them, and wipes them from memory when it is dropped.
#[derive(Clone)]
pub struct DomainSecret(Zeroizing<Vec<u8>>);

impl DomainSecret {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for DomainSecret {
    /// Takes the bytes over; copies that were made of them before are the caller's to wipe.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl From<&[u8]> for DomainSecret {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl From<&str> for DomainSecret {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl std::fmt::Debug for DomainSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DomainSecret(…)")
    }
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
    pub(crate) secret: Option<Secret>,
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
    pub(crate) features: sinew_wire::hello::Features,
}

impl Config {
    /// How long a lane may be silent before it is given up: the other half of `peer_timeout` is for another way, or for the
    /// same one again, before the session is lost.
    pub(crate) fn lane_timeout(&self) -> Duration {
        self.peer_timeout / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_printed_nowhere_and_wiped_on_drop() {
        let secret = DomainSecret::from("sixteen bytes or more");
        assert_eq!(secret.as_bytes(), b"sixteen bytes or more");
        let shown = format!("{secret:?} {:?}", Security::Secret(secret.clone()));
        assert!(!shown.contains("sixteen") && !shown.contains("115"), "{shown}");
        // The wiping itself is `Zeroizing`'s; that it is used is what can be lost here.
        let _: &Zeroizing<Vec<u8>> = &secret.0;
    }
}
