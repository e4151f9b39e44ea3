//! What an event does to the identifier that waits for it.

use super::base::Base;
use super::event::{EventKind, IdNumber, Notice, Status};
use crate::error::Error;
use std::fmt;

/// What waits for an event of one identifier. The event decides what comes next, and brings it.
pub trait Waits: Sized {
    /// What it goes on as.
    type Next;
    /// What is left of it when it cannot go on.
    type Back;

    /// Whose events it waits for.
    fn number(&self) -> IdNumber;

    /// Takes an event in. Does not wait.
    ///
    /// # Errors
    /// What is left, and why it cannot go on.
    fn handle(self, notice: Notice) -> Result<Progress<Self>, NotDone<Self::Back>>;
}

/// What became of what has waited.
#[derive(Debug)]
pub enum Progress<T: Waits> {
    /// It went on.
    Next(T::Next),
    /// It waits still: the event, which is given back, was another identifier's, or changes nothing (as `ADDR_CHANGE`, and kinds that this crate does not know).
    Same(T, Notice),
}

/// A step that was not done: what it was to be done with, and why not.
pub struct NotDone<B> {
    /// What went in, or is left.
    pub back: B,
    /// Why.
    pub error: ConnectError,
}

impl<B> NotDone<B> {
    pub(super) fn map<C>(self, change: impl FnOnce(B) -> C) -> NotDone<C> {
        NotDone { back: change(self.back), error: self.error }
    }
}

impl<B> fmt::Display for NotDone<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<B> fmt::Debug for NotDone<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotDone").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<B> std::error::Error for NotDone<B> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<B> From<NotDone<B>> for Error {
    fn from(not: NotDone<B>) -> Self {
        not.error.into()
    }
}

impl<B> From<NotDone<B>> for ConnectError {
    fn from(not: NotDone<B>) -> Self {
        not.error
    }
}

/// Why a connection was not made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The peer refused.
    Rejected {
        /// By the fabric's or the system's number.
        reason: Status,
        /// What the peer's program says; padded with zeros over InfiniBand and RoCE.
        private_data: Vec<u8>,
    },
    /// The peer ended it before it was whole.
    Disconnected,
    /// A call or a step failed, or the deadline passed.
    Failed(Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected { reason, .. }
                if *reason == Status::NOBODY_LISTENS || reason.errno() == Some(libc::ECONNREFUSED) =>
            {
                write!(
                    f,
                    "the peer rejected the connection: {reason}; start the listener, or compare the ports"
                )
            }
            Self::Rejected { reason, .. } => write!(f, "the peer rejected the connection: {reason}"),
            Self::Disconnected => {
                f.write_str("the peer ended the connection before it was whole; it may have given up waiting")
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Failed(error) => error,
            other => Self::Peer { cause: other.to_string() },
        }
    }
}

/// What an event says of a step that waits for one of some kinds.
pub(super) enum Verdict {
    Good(Notice),
    /// It is another's, or says nothing of it.
    Nothing(Notice),
    Failed(ConnectError),
}

/// Judges an event by what is waited for.
pub(super) fn judge(id: &Base, notice: Notice, call: &'static str, kinds: &[EventKind]) -> Verdict {
    if notice.id != Some(id.number()) {
        return Verdict::Nothing(notice);
    }
    if kinds.contains(&notice.kind) {
        return Verdict::Good(notice);
    }
    let failed =
        |errno| ConnectError::Failed(Error::call(call, format_args!("{id} ({})", notice.kind), errno));
    Verdict::Failed(match notice.kind {
        EventKind::REJECTED => {
            ConnectError::Rejected { reason: notice.status, private_data: notice.private_data }
        }
        // To an inquiry for datagrams somebody has answered no, and says which no.
        EventKind::UNREACHABLE if notice.status.as_raw() > 0 => {
            ConnectError::Rejected { reason: notice.status.of_inquiry(), private_data: notice.private_data }
        }
        EventKind::ADDR_ERROR
        | EventKind::ROUTE_ERROR
        | EventKind::CONNECT_ERROR
        | EventKind::MULTICAST_ERROR
        | EventKind::UNREACHABLE => failed(notice.status.errno().unwrap_or(libc::EHOSTUNREACH)),
        EventKind::DEVICE_REMOVAL => failed(libc::ENODEV),
        EventKind::DISCONNECTED => ConnectError::Disconnected,
        _ => return Verdict::Nothing(notice),
    })
}
