//! Receives into owned buffers.
//!
//! Made by [`crate::Endpoint::post_recv`]; what they have in common with sends is in the module above.

use super::{Operation, Outcome, timed_out};
use crate::completion::Completion;
use crate::core::Core;
use crate::core::table::Key;
use crate::error::{Failed, OpError};
use crate::held::{Ending, Held};
use crate::timeout::Timeout;
use sinew_transport::Buf;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A message that was received, with its buffer, whose length is the message's.
#[derive(Debug)]
pub struct Received {
    /// The buffer that was posted.
    pub buf: Buf,
    /// What the message says about itself.
    pub info: Completion,
}

/// A receive into an owned buffer. A future of the message; or [`RecvOp::wait`], [`RecvOp::try_wait`], [`RecvOp::cancel`].
///
/// Dropping it really cancels: a message that had come, or begun to, waits for another receive. One that had come whole has its old
/// place among those of its session. One that was longer than the buffer is gone, which is counted
/// (`EngineCounters::truncated_unseen`) and told. Look before you drop ([`RecvOp::cancel`]) where that matters. `Send`.
#[must_use = "dropping it cancels the receive"]
pub struct RecvOp(pub(crate) Operation);

impl Ending for Received {
    #[inline(always)]
    fn look(core: &mut Core, key: Key) -> Option<Self> {
        core.collect_received(key)
    }
}

impl RecvOp {
    /// Its message, if it has got one.
    #[inline(always)]
    fn take_quick(&mut self) -> Option<Received> {
        Held::end_quick(&mut self.0.endpoint, self.0.key)
    }

    /// The same, after a look for it if `looks`.
    #[inline(always)]
    fn take_looking(&mut self, looks: bool) -> Option<Received> {
        Held::end_looking(&mut self.0.endpoint, self.0.key, looks)
    }

    /// Waits up to the option `timeout`; at the deadline the receive is really cancelled and the buffer comes back.
    ///
    /// # Errors
    /// [`Failed`] with the buffer.
    pub fn wait(self) -> Result<Received, Failed> {
        self.wait_within(Timeout::Default)
    }

    /// [`RecvOp::wait`] with its own deadline.
    ///
    /// # Errors
    /// As [`RecvOp::wait`].
    #[inline]
    pub fn wait_within(mut self, timeout: impl Into<Timeout>) -> Result<Received, Failed> {
        match self.take_looking(true) {
            Some(received) => Ok(received),
            None => self.wait_longer(timeout.into()),
        }
    }

    #[inline(never)]
    fn wait_longer(mut self, timeout: Timeout) -> Result<Received, Failed> {
        let limit = self.0.limit(timeout);
        if self.0.wait_quick(limit)
            && let Some(received) = self.take_quick()
        {
            return Ok(received);
        }
        match self.0.wait(timeout) {
            Some(outcome) => received(outcome),
            None => received(timed_out(self.0.cancel(), limit)),
        }
    }

    /// The result if the receive is over. Makes progress, never blocks. After `Some` the operation is spent.
    pub fn try_wait(&mut self) -> Option<Result<Received, Failed>> {
        self.0.try_wait().map(received)
    }

    /// Really cancels: the buffer is back and never written again. If a message had arrived, it is the result.
    ///
    /// # Errors
    /// [`Failed`] with [`OpError::Cancelled`] and the buffer.
    pub fn cancel(mut self) -> Result<Received, Failed> {
        received(
            self.0.cancel().unwrap_or_else(|| Err(Failed { buf: Buf::zeroed(0), error: OpError::Cancelled })),
        )
    }
}

pub(crate) fn received(outcome: Outcome) -> Result<Received, Failed> {
    match outcome? {
        (buf, Some(info)) => Ok(Received { buf, info }),
        (buf, None) => Err(Failed { buf, error: OpError::Cancelled }),
    }
}

impl Future for RecvOp {
    type Output = Result<Received, Failed>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let looks = self.0.is_by_caller();
        if let Some(received) = self.take_looking(looks) {
            return Poll::Ready(Ok(received));
        }
        if looks
            && self.0.poll_quick()
            && let Some(received) = self.take_quick()
        {
            return Poll::Ready(Ok(received));
        }
        self.0.poll(context).map(received)
    }
}

impl Drop for RecvOp {
    #[inline]
    fn drop(&mut self) {
        let key = self.0.key;
        if let Some(held) = self.0.endpoint.take() {
            give_up(held, key);
        }
    }
}

/// The memory is dropped outside of the lock.
#[cold]
#[inline(never)]
fn give_up(held: Held, key: Key) {
    let mut memory = None;
    held.end(|core| memory = core.give_up_recv(key));
}

impl std::fmt::Debug for RecvOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecvOp")
    }
}
