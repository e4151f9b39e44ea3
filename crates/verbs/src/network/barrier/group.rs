//! Which lists of ranks are a group, and the digest by which its notices are known.
//!
//! Called by the machine.

use super::schedule::BarrierAlgorithm;
use blake2::{Blake2s256, Digest};
use std::fmt;

/// Why a list of ranks is no group that this rank can pass a barrier with. Nothing was told to anybody.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GroupError {
    /// A rank stands behind a greater one.
    Unordered {
        /// The greater one.
        before: u32,
        /// The one behind it.
        after: u32,
    },
    /// A rank stands there twice.
    Duplicate {
        /// Which.
        rank: u32,
    },
    /// The calling rank is not in the list (an empty list included).
    SelfNotInGroup {
        /// The calling rank.
        rank: u32,
    },
    /// The job has no such rank.
    OutOfRange {
        /// Which.
        rank: u32,
        /// How many ranks the job has.
        world_size: u32,
    },
    /// More different groups have been used with a peer than its memory has cells for.
    TooManyGroups {
        /// The peer.
        peer: u32,
        /// Cells that there are.
        groups_max: usize,
    },
    /// Two groups of the same digest, which happens by chance once in 2^47 pairs of groups.
    SameDigest {
        /// The group that is in use.
        used: Vec<u32>,
    },
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unordered { before, after } => {
                write!(
                    f,
                    "rank {after} stands behind rank {before}; give the ranks of a group in ascending order"
                )
            }
            Self::Duplicate { rank } => {
                write!(f, "rank {rank} stands in the group twice; name each rank once")
            }
            Self::SelfNotInGroup { rank } => {
                write!(f, "the calling rank {rank} is not in the group; only its members pass a barrier")
            }
            Self::OutOfRange { rank, world_size } => {
                write!(
                    f,
                    "there is no rank {rank}: the job has the ranks 0 to {}",
                    world_size.saturating_sub(1)
                )
            }
            Self::TooManyGroups { peer, groups_max } => {
                write!(f, "{groups_max} different groups are in use with rank {peer}; ")?;
                f.write_str("use fewer, or make the network with a greater `groups_max` on every rank")
            }
            Self::SameDigest { used } => {
                write!(f, "the group has by chance the digest of the group {used:?}; add or leave out a rank")
            }
        }
    }
}

impl std::error::Error for GroupError {}

/// Checks a list and says at which place of it `rank` stands.
pub(super) fn check(members: &[u32], rank: u32, world_size: u32) -> Result<usize, GroupError> {
    for pair in members.windows(2) {
        if pair[0] == pair[1] {
            return Err(GroupError::Duplicate { rank: pair[0] });
        }
        if pair[0] > pair[1] {
            return Err(GroupError::Unordered { before: pair[0], after: pair[1] });
        }
    }
    if let Some(&last) = members.last().filter(|&&last| last >= world_size) {
        return Err(GroupError::OutOfRange { rank: last, world_size });
    }
    members.binary_search(&rank).map_err(|_| GroupError::SelfNotInGroup { rank })
}

/// 48 bits that stand for a group, never zero: the lowest is always set.
pub(super) fn digest(algorithm: BarrierAlgorithm, members: &[u32]) -> u64 {
    let mut hash = Blake2s256::new();
    hash.update(b"sinew barrier 1");
    hash.update([algorithm.code()]);
    for rank in members {
        hash.update(rank.to_le_bytes());
    }
    let bytes = hash.finalize();
    let mut low = [0; 8];
    low[..6].copy_from_slice(&bytes[..6]);
    u64::from_le_bytes(low) | 1
}
