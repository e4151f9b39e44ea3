//! Waiting for what happens to one identifier, until a deadline.

use super::channel::EventChannel;
use super::event::Event;
use super::progress::{NotDone, Progress, Waits};
use crate::error::{Error, Result};
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

/// Drives an identifier with a channel of its own until an event has brought it on. `late` says what is left of one that waits in vain, `failed` of one
/// that cannot go on.
pub(super) fn drive<W: Waits, B>(
    channel: &EventChannel,
    mut id: W,
    what: &'static str,
    deadline: &Deadline,
    late: impl FnOnce(W) -> B,
    failed: impl FnOnce(W::Back) -> B,
) -> std::result::Result<W::Next, NotDone<B>> {
    loop {
        let event = match next(channel, what, deadline) {
            Ok(event) => event,
            Err(error) => return Err(NotDone { back: late(id), error: error.into() }),
        };
        id = match event {
            Event::Notice(notice) => match id.handle(notice) {
                Ok(Progress::Next(next)) => return Ok(next),
                Ok(Progress::Same(id, notice)) => {
                    tracing::debug!(?notice, what, "an event that nobody waits for");
                    id
                }
                Err(not) => return Err(not.map(failed)),
            },
            other => {
                tracing::debug!(?other, what, "an event that nobody waits for");
                id
            }
        };
    }
}

fn next(channel: &EventChannel, what: &'static str, deadline: &Deadline) -> Result<Event> {
    loop {
        if let Some(event) = channel.event()? {
            return Ok(event);
        }
        if !channel.wait_readable(deadline.at())? {
            return Err(deadline.passed(what));
        }
    }
}
