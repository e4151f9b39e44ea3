//! What can go wrong, per operation: the cause, the peer, the number from below, and what to do about it.

use crate::completion::Source;
use sinew_transport::{Buf, TransportError};
use std::fmt;
use std::time::Duration;

/// Why an operation on messages ended without success.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OpError {
    /// Its deadline passed. The operation was really cancelled: its memory is the caller's again.
    TimedOut {
        /// How long it waited.
        after: Duration,
    },
    /// It was cancelled by the caller.
    Cancelled,
    /// The message is longer than the buffer: the buffer holds its beginning, the rest is discarded.
    Truncated {
        /// Bytes of the message.
        message_len: u64,
        /// Bytes that the buffer could take.
        buffer_len: usize,
        /// Its tag.
        tag: u64,
        /// Who sent it.
        source: Source,
    },
    /// The session with the peer is over. Whether something sent and not flushed arrived is unknown.
    PeerLost {
        /// Why, for people.
        reason: String,
        /// Messages that were sent and never acknowledged by the peer's session: of unknown fate.
        unknown_fate: u64,
    },
    /// The peer's endpoint is closed, or never was.
    EndpointClosed,
    /// A queue is full; nothing was sent. Only `try_*` and posting forms answer this.
    WouldBlock,
    /// The engine is closed or closing.
    EngineClosed,
    /// The peer, or the source, belongs to another engine than the endpoint that was asked.
    OtherEngine,
    /// The process was forked and this handle belongs to the parent.
    Forked,
    /// The buffer cannot be written, as `Bytes`.
    NotWritable,
}

impl OpError {
    /// Whether the same call may succeed later on the same peer.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::WouldBlock | Self::Cancelled | Self::Truncated { .. })
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { after } => write!(
                f,
                "timed out after {after:?}; raise the deadline or see whether the peer makes progress"
            ),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Truncated { message_len, buffer_len, tag, source } => write!(
                f,
                "a message of {message_len} bytes (tag {tag:#x}, from {source}) does not fit the buffer of {buffer_len}; its rest is discarded"
            ),
            Self::PeerLost { reason, unknown_fate } => {
                write!(
                    f,
                    "the peer is lost: {reason}; {unknown_fate} messages are of unknown fate; connect again to a new session"
                )
            }
            Self::EndpointClosed => f.write_str("the peer has no such endpoint (any more)"),
            Self::WouldBlock => f.write_str("the queue is full; try again after progress"),
            Self::EngineClosed => f.write_str("the engine is closed"),
            Self::OtherEngine => f.write_str(
                "the peer or source is of another engine of this process; use an endpoint of the engine that connected to it",
            ),
            Self::Forked => {
                f.write_str("this handle belongs to the parent process; make an engine after fork")
            }
            Self::NotWritable => f.write_str(
                "the buffer is read-only (made of Bytes); receive into a Vec or the engine's pool",
            ),
        }
    }
}

impl std::error::Error for OpError {}

/// An operation with an owned buffer that failed: the buffer comes back.
#[derive(Debug)]
pub struct Failed {
    /// The buffer that was handed over.
    pub buf: Buf,
    /// Why it failed.
    pub error: OpError,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<Failed> for OpError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// Why no connection came about. Its text contains the table of what was tried.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The text is no address.
    Address(String),
    /// No path worked; the table says what was tried and why it failed.
    Unreachable {
        /// The address, as given.
        target: String,
        /// One line per candidate.
        explanation: String,
    },
    /// The engine was reached, but has no such endpoint.
    NoSuchEndpoint {
        /// The endpoint, as given.
        endpoint: String,
    },
    /// The session ended meanwhile, or the engine is closed.
    Lost(OpError),
}

impl ConnectError {
    /// Whether the same call may succeed later: the peer may not have been there yet, or no more.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Address(_) => false,
            Self::Unreachable { .. } | Self::NoSuchEndpoint { .. } => true,
            Self::Lost(error) => matches!(error, OpError::PeerLost { .. }) || error.is_retryable(),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(text) => f.write_str(text),
            Self::Unreachable { target, explanation } => {
                write!(f, "no path to {target} works:\n{explanation}")
            }
            Self::NoSuchEndpoint { endpoint } => {
                write!(
                    f,
                    "the engine answers, but has no endpoint {endpoint}; `sinew explain` shows how it is reached"
                )
            }
            Self::Lost(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why an engine or endpoint could not be made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// An option has a value that it cannot have; the text says which, and gives an example.
    Option(String),
    /// Listening beyond this user needs a domain secret, and there is none.
    SecretNeeded,
    /// The system refused something.
    System(TransportError),
    /// No transport could be opened; one line each.
    NoTransport(String),
    /// The name is in use in this engine, or not a name.
    Name(String),
    /// The engine is closed.
    Closed,
}

impl BuildError {
    /// Whether the same call may succeed later without anybody changing the program or its options.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::System(error) => error.is_retryable(),
            Self::NoTransport(_) => true,
            _ => false,
        }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(text) | Self::Name(text) => f.write_str(text),
            Self::SecretNeeded => f.write_str(
                "listening beyond this user on this machine needs a domain secret; give one by Security::Secret or SINEW_SECRET_FILE, or choose Security::Open by name",
            ),
            Self::System(error) => write!(f, "{error}"),
            Self::NoTransport(text) => write!(f, "no transport could be opened:\n{text}"),
            Self::Closed => f.write_str("the engine is closed"),
        }
    }
}

impl std::error::Error for BuildError {}

impl From<TransportError> for BuildError {
    fn from(error: TransportError) -> Self {
        Self::System(error)
    }
}
