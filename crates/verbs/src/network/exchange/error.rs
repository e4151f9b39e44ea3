//! Why an exchange failed.
//!
//! Made by exchanges, read by people and programs.

use super::heard::Heard;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Why an exchange failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The job has no such rank.
    NoSuchRank {
        /// Which.
        rank: u32,
        /// How many ranks it has.
        world_size: u32,
    },
    /// There must be one entry for each rank.
    WrongCount {
        /// How many were given.
        given: usize,
        /// How many ranks there are.
        world_size: u32,
    },
    /// An entry is longer than the limit.
    TooLarge {
        /// For whom.
        peer: u32,
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The socket that others are to dial cannot be made.
    Listen {
        /// Where.
        address: SocketAddr,
        /// The number of the system, `errno`.
        errno: i32,
    },
    /// A call of the system failed that has nothing to do with a peer.
    System {
        /// Which.
        call: &'static str,
        /// The number of the system, `errno`.
        errno: i32,
    },
    /// The time is over and some ranks are missing. The others may have succeeded.
    Missing {
        /// How long it took.
        after: Duration,
        /// Those with whom the exchange was not finished.
        ranks: Vec<MissingRank>,
        /// What came from others than the ranks, the last few; at a port that belongs to one job alone there is nothing.
        strangers: Vec<Heard>,
    },
    /// A value cannot be written.
    Encode {
        /// For whom.
        peer: u32,
        /// What the writer says.
        cause: String,
    },
    /// A value of a rank is not what was expected.
    Decode {
        /// From whom.
        rank: u32,
        /// What the reader says.
        cause: String,
    },
    /// An exchange of another kind failed.
    Other {
        /// In words.
        cause: String,
    },
}

/// A rank with which an exchange was not finished.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MissingRank {
    /// Which.
    pub rank: u32,
    /// Its host, as configured.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What was heard of it last.
    pub last: Heard,
}

impl ExchangeError {
    /// Whether the same may succeed later without anything being changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::System { .. })
    }
}

/// Shown of a long list.
const SHOWN: usize = 8;

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let system = |errno: &i32| std::io::Error::from_raw_os_error(*errno);
        match self {
            Self::NoSuchRank { rank, world_size } => {
                write!(f, "there is no rank {rank}: the job has {world_size} ranks, from 0")
            }
            Self::WrongCount { given, world_size } => {
                write!(f, "{given} entries for {world_size} ranks; give one for each, the own included")
            }
            Self::TooLarge { peer, len, max } => {
                write!(
                    f,
                    "the entry for rank {peer} has {len} bytes, more than {max}; raise `value_max_bytes` on all ranks"
                )
            }
            Self::Listen { address, errno } => {
                write!(f, "cannot listen at {address}: {}; ", system(errno))?;
                f.write_str("another process has the port (perhaps of an earlier run), or the address is not this host's (see `bind`)")
            }
            Self::System { call, errno } => write!(f, "{call}: {}", system(errno)),
            Self::Missing { after, ranks, strangers } => {
                write!(f, "after {:.1} s {} missing", after.as_secs_f32(), Count(ranks.len()))?;
                for rank in ranks.iter().take(SHOWN) {
                    write!(f, "; rank {} at {} port {}: {}", rank.rank, rank.host, rank.port, rank.last)?;
                }
                if ranks.len() > SHOWN {
                    write!(f, "; and {} more", ranks.len() - SHOWN)?;
                }
                strangers.iter().try_for_each(|stranger| write!(f, "; a stranger: {stranger}"))
            }
            Self::Encode { peer, cause } => write!(f, "the value for rank {peer} cannot be written: {cause}"),
            Self::Decode { rank, cause } => {
                write!(
                    f,
                    "what rank {rank} gave is not what was expected: {cause}; do all ranks run the same program?"
                )
            }
            Self::Other { cause } => f.write_str(cause),
        }
    }
}

struct Count(usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 1 { f.write_str("1 rank is") } else { write!(f, "{} ranks are", self.0) }
    }
}

impl std::error::Error for ExchangeError {}
