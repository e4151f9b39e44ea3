//! How long a call may wait.

use crate::config::Config;
use std::time::Duration;

/// A wait's limit. `Duration` converts into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Timeout {
    /// The engine's option `timeout`.
    #[default]
    Default,
    /// This long.
    After(Duration),
    /// For ever: by name only.
    Never,
}

impl Timeout {
    pub(crate) fn resolve(self, config: &Config) -> Option<Duration> {
        match self {
            Self::Default => config.timeout,
            Self::After(limit) => Some(limit),
            Self::Never => None,
        }
    }
}

impl From<Duration> for Timeout {
    fn from(limit: Duration) -> Self {
        Self::After(limit)
    }
}
