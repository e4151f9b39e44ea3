//! What an exchange heard of each rank last, in words: the half of an error that tells people where to look.
//!
//! Written by the round and the connections, read by people.

use super::wire::Reason;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How far a connection is: what it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Phase {
    /// The other side's first bytes.
    Greeting,
    /// Who the other side is, proven.
    Hello,
    /// Its value.
    Value,
    /// That it has our value.
    Done,
    /// Nothing.
    Over,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "its first word",
            Self::Hello => "its name",
            Self::Value => "its value",
            Self::Done => "its word that it has ours",
            Self::Over => "its end",
        })
    }
}

/// What was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum What {
    /// Nothing at all: a higher rank has not dialled, a lower one was not dialled yet.
    Nothing,
    /// Its host has no address.
    Unresolved {
        /// What the system says.
        cause: String,
    },
    /// It cannot be dialled.
    Unreachable {
        /// What the system says.
        cause: String,
    },
    /// It was connected and said nothing more within the time for a connection.
    Silent(Phase),
    /// The connection ended, with the system's word if it was no orderly end.
    Closed(Phase, Option<String>),
    /// A newer connection took its place, or too many strangers were there.
    Displaced,
    /// It refused this rank.
    Refused {
        /// Why.
        reason: Reason,
        /// Whether it was the other side that said so, by its secret or checksum.
        proven: bool,
        /// The number of its job.
        theirs: Option<u32>,
    },
    /// This rank refused it.
    Refuses {
        /// Why.
        reason: Reason,
        /// The rank that it said it is.
        rank: Option<u32>,
        /// The number of its job.
        theirs: Option<u32>,
    },
    /// It has a secret and this rank none, or the other way round.
    OtherMode {
        /// Whether it is this rank that has one.
        ours_has_secret: bool,
    },
    /// It speaks other versions.
    OtherVersion {
        /// Oldest that it speaks.
        min: u8,
        /// Newest that it speaks.
        max: u8,
        /// What this rank speaks.
        ours: u8,
    },
    /// Bytes that are none of this protocol.
    Garbage(&'static str),
}

/// What was heard last of a rank or a stranger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    /// What.
    pub what: What,
    /// From where.
    pub address: Option<SocketAddr>,
    /// How long before the end of the exchange.
    pub ago: Duration,
}

/// What people see of a job's digest.
pub(super) fn job_number(job: &[u8; 32]) -> u32 {
    u32::from_be_bytes([job[0], job[1], job[2], job[3]])
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing was heard of it; does it run, and is its port open?"),
            Self::Unresolved { cause } => write!(f, "its host has no address: {cause}"),
            Self::Unreachable { cause } => write!(f, "it cannot be dialled: {cause}"),
            Self::Silent(phase) => write!(f, "it was connected, but {phase} did not come in time"),
            Self::Closed(phase, None) => write!(f, "it ended the connection before {phase}"),
            Self::Closed(phase, Some(cause)) => write!(f, "the connection broke before {phase}: {cause}"),
            Self::Displaced => f.write_str("its connection had to make room for others"),
            Self::Refused { reason, proven, theirs } => {
                write!(f, "it refused this rank: {reason}")?;
                job(f, *reason, *theirs)?;
                f.write_str(if *proven { "" } else { " (not proven)" })
            }
            Self::Refuses { reason, rank, theirs } => {
                f.write_str("refused here: ")?;
                match rank {
                    Some(rank) => write!(f, "what says it is rank {rank}: {reason}")?,
                    None => write!(f, "{reason}")?,
                }
                job(f, *reason, *theirs)
            }
            Self::OtherMode { ours_has_secret: true } => {
                f.write_str("it has no secret and this rank has one; give all ranks the same")
            }
            Self::OtherMode { ours_has_secret: false } => {
                f.write_str("it has a secret and this rank has none; give all ranks the same")
            }
            Self::OtherVersion { min, max, ours } => {
                write!(f, "it speaks versions {min} to {max} of the exchange, this rank {ours}")
            }
            Self::Garbage(what) => write!(f, "what it sent is no exchange: {what}"),
        }
    }
}

fn job(f: &mut fmt::Formatter<'_>, reason: Reason, theirs: Option<u32>) -> fmt::Result {
    match theirs {
        Some(theirs) if reason == Reason::OtherJob => write!(f, ", job number {theirs:08x}"),
        _ => Ok(()),
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}, {:.1} s ago: ", self.ago.as_secs_f32())?;
        }
        self.what.fmt(f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherJob => "one belongs to another job, perhaps an earlier one that still runs",
            Self::OtherWorldSize => "the two count the ranks of the job differently",
            Self::NotThatRank => "not the rank that belongs there; compare host and port of the two",
            Self::RankTaken => "another process has come as that rank before",
            Self::OtherRound => "the two are not in the same exchange of the job",
            Self::TooLarge => "the value is longer than is taken; raise the limit on all ranks",
            Self::Proof => "the secret is another",
            Self::Malformed => "bytes that make no sense",
            Self::Unknown(code) => return write!(f, "reason Unknown({code})"),
        })
    }
}
