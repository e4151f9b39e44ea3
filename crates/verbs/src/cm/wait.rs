//! Waiting for what happens to one identifier, until a deadline.

use super::channel::EventChannel;
use super::connection::ConnectError;
use super::event::{Event, EventKind, IdNumber, Notice};
use crate::error::{Error, Result};
use std::fmt;
use std::time::{Duration, Instant};

/// When a call of several steps gives up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    after: Duration,
    /// Nothing: never.
    at: Option<Instant>,
}

impl Deadline {
    pub(super) fn after(timeout: Duration) -> Self {
        Self { after: timeout, at: Instant::now().checked_add(timeout) }
    }

    pub(super) fn or_never(timeout: Option<Duration>) -> Self {
        timeout.map_or(Self { after: Duration::MAX, at: None }, Self::after)
    }

    pub(super) const fn at(&self) -> Option<Instant> {
        self.at
    }

    /// What is left, for a library that has a timer of its own.
    pub(super) fn left(&self) -> Duration {
        self.at.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }

    pub(super) const fn passed(&self, what: &'static str) -> Error {
        Error::TimedOut { what, after: self.after }
    }
}

/// The next that happens to this identifier. What is of others is not waited for here: a request among it is refused.
pub(super) fn next(
    channel: &EventChannel,
    id: IdNumber,
    what: &'static str,
    deadline: &Deadline,
) -> Result<Notice> {
    loop {
        match channel.event()? {
            Some(Event::Other(notice)) if notice.id == Some(id) => return Ok(notice),
            Some(other) => tracing::debug!(?other, what, "an event that nobody waits for"),
            None if channel.wait_readable(deadline.at())? => {}
            None => return Err(deadline.passed(what)),
        }
    }
}

/// Waits for one of these kinds. What says that the connection cannot be is an error; what this crate does not know is passed over.
pub(super) fn expect(
    channel: &EventChannel,
    id: IdNumber,
    call: &'static str,
    object: &dyn fmt::Display,
    kinds: &[EventKind],
    deadline: &Deadline,
) -> std::result::Result<Notice, ConnectError> {
    loop {
        let notice = next(channel, id, call, deadline)?;
        if kinds.contains(&notice.kind) {
            return Ok(notice);
        }
        match notice.kind {
            EventKind::REJECTED => {
                return Err(ConnectError::Rejected {
                    reason: notice.status,
                    private_data: notice.private_data,
                });
            }
            // To an inquiry for datagrams somebody has answered no, and says which no.
            EventKind::UNREACHABLE if notice.status.as_raw() > 0 => {
                return Err(ConnectError::Rejected {
                    reason: notice.status.of_inquiry(),
                    private_data: notice.private_data,
                });
            }
            EventKind::ADDR_ERROR
            | EventKind::ROUTE_ERROR
            | EventKind::CONNECT_ERROR
            | EventKind::MULTICAST_ERROR
            | EventKind::UNREACHABLE => {
                let object = format!("{object} ({})", notice.kind);
                let errno = notice.status.errno().unwrap_or(libc::EHOSTUNREACH);
                return Err(ConnectError::Failed(Error::call(call, object, errno)));
            }
            EventKind::DEVICE_REMOVAL => {
                return Err(ConnectError::Failed(Error::call(call, object, libc::ENODEV)));
            }
            EventKind::DISCONNECTED => return Err(ConnectError::Disconnected),
            _ => tracing::debug!(?notice, call, "an event that nobody waits for"),
        }
    }
}
