//! How long a call may wait.

use crate::config::Config;
use std::time::{Duration, Instant};

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

/// The longest time that is told apart from never.
pub(crate) const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// When `within` is over, counted from `now`; a time that the clock cannot show is as good as never.
pub(crate) fn far_at_most(now: Instant, within: Duration) -> Instant {
    now + within.min(FAR)
}

impl From<Duration> for Timeout {
    fn from(limit: Duration) -> Self {
        Self::After(limit)
    }
}
