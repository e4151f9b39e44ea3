//! How a pipe tells that something has ended to who sleeps: at a channel of its own, or at one that it shares.
//!
//! Nothing here is on the way of a post or a poll.

use super::Pipe;
use crate::cq::CompletionChannel;
use crate::error::Result;
use crate::pd::ProtectionDomain;
use crate::qp::{Connected, QueuePairBuilder};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// A [`Pipe`] that tells nobody but who polls.
#[derive(Debug)]
pub struct NoEvents(());

impl NoEvents {
    pub(super) const NEW: Self = Self(());
}

/// A [`Pipe`] with a completion channel of its own, which nobody else takes events from: it can sleep. Costs a descriptor.
pub struct OwnEvents {
    channel: CompletionChannel,
    /// Of the sends, and of the receives: whether its event is to come, or lies there and was not taken.
    armed: [bool; 2],
}

/// A [`Pipe`] whose events come by a completion channel that it shares with other queues. Who has the channel waits at it, for all of them: the event of one is not another's.
#[derive(Debug)]
pub struct SharedEvents(());

/// Of the sends, and of the receives.
const COOKIES: [u64; 2] = [0, 1];

/// How many events are taken when the time is over: one of each queue, and those that a device makes up keep nobody.
const LATE_EVENTS: u32 = 2;

impl<S: Connected> Pipe<S> {
    /// The same as [`new`](Self::new), with a completion channel of its own, to sleep at.
    ///
    /// # Errors
    /// As for [`new`](Self::new); [`Error::Call`](crate::Error::Call) when no descriptor is left.
    pub fn with_events(
        pd: &ProtectionDomain,
        sends: u32,
        receives: u32,
        options: impl for<'a> FnOnce(QueuePairBuilder<'a, S>) -> Result<QueuePairBuilder<'a, S>>,
    ) -> Result<Pipe<S, OwnEvents>> {
        let channel = pd.context().completion_channel()?;
        let events = OwnEvents { channel: channel.clone(), armed: [false; 2] };
        Pipe::make(pd, (sends, receives), Some((&channel, COOKIES)), events, options)
    }

    /// The same as [`new`](Self::new); its events come by `channel`, with `cookie`, those of its sends as those of its receives. Arm it by [`arm`](Pipe::arm).
    ///
    /// # Errors
    /// As for [`new`](Self::new); [`Error::Invalid`](crate::Error::Invalid) for a channel of another context.
    pub fn with_channel(
        pd: &ProtectionDomain,
        sends: u32,
        receives: u32,
        channel: &CompletionChannel,
        cookie: u64,
        options: impl for<'a> FnOnce(QueuePairBuilder<'a, S>) -> Result<QueuePairBuilder<'a, S>>,
    ) -> Result<Pipe<S, SharedEvents>> {
        let cookies = [cookie; 2];
        Pipe::make(pd, (sends, receives), Some((channel, cookies)), SharedEvents(()), options)
    }
}

impl<S: Connected> Pipe<S, SharedEvents> {
    /// Asks for an event with the next completion of its sends and one with the next of its receives, or the next message that its sender marked as solicited. Poll both once more
    /// ([`poll`](Self::poll), [`poll_received`](Self::poll_received)) before waiting at the channel.
    ///
    /// # Errors
    /// [`Error::Call`](crate::Error::Call) from the device.
    pub fn arm(&self, solicited_only: bool) -> Result<()> {
        self.sent.queue.arm(solicited_only)?;
        self.received.queue.arm(solicited_only)
    }
}

impl<S: Connected> Pipe<S, OwnEvents> {
    /// Sleeps until something has ended: true when [`poll`](Self::poll) or [`poll_received`](Self::poll_received) has something to tell, also an inline send; take what both have
    /// before the next wait. False when the time is over, and at once when nothing is out. `None` waits for ever. Signals neither end it nor move its deadline.
    ///
    /// What has ended before is seen before it sleeps: no wake-up is lost. It does not spin: who wants that polls before. An unsignaled send wakes nobody unless it fails; nor does
    /// a peer that dies, unless something is sent to it.
    ///
    /// For an event loop, with the descriptor of this ([`AsFd`]): `wait(Some(Duration::ZERO))` does not block; when it says false, the descriptor is readable as soon as something ends.
    ///
    /// # Errors
    /// [`Error::Call`](crate::Error::Call) when the device or the channel failed, or the system cannot wait.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        if self.has_ended()? {
            return Ok(true);
        }
        if self.is_idle() {
            return Ok(false);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut late = 0;
        loop {
            self.arm_again()?;
            // What ended before raised no event.
            if self.has_ended()? {
                return Ok(true);
            }
            if late > LATE_EVENTS {
                return Ok(false);
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let Some(event) = self.events.channel.wait(left)? else { return Ok(false) };
            if let Some(armed) = self.events.armed.get_mut(usize::from(event.cookie == COOKIES[1])) {
                *armed = false;
            }
            late += u32::from(left == Some(Duration::ZERO));
        }
    }

    /// Asks each queue for an event whose last one was taken: so at most one of each lies there, however often is waited.
    fn arm_again(&mut self) -> Result<()> {
        let queues = [&self.sent.queue, &self.received.queue];
        for (queue, armed) in queues.into_iter().zip(&mut self.events.armed) {
            if !*armed {
                queue.arm(false)?;
                *armed = true;
            }
        }
        Ok(())
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.sends.ended() > 0 || self.next_sent()?.is_some() || self.next_received()?.is_some())
    }
}

/// Readable while an event lies there. A descriptor to wait at, not to read from.
impl<S: Connected> AsFd for Pipe<S, OwnEvents> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.channel.as_fd()
    }
}

impl fmt::Debug for OwnEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnEvents").field(&self.channel).finish()
    }
}
