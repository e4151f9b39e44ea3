//! Sends with owned buffers.
//!
//! Made by [`crate::Peer::post_send`] and [`crate::Message::post`]; what they have in common with receives is in the module above.

use super::{Operation, timed_out};
use crate::core::Core;
use crate::core::table::Key;
use crate::error::{Failed, OpError};
use crate::held::{Ending, Held};
use crate::progress::Progress;
use crate::timeout::Timeout;
use sinew_transport::Buf;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A send with an owned buffer. A future of the buffer; or [`SendOp::wait`], [`SendOp::try_wait`], [`SendOp::cancel`].
///
/// Dropping it does not cancel: the message still goes, and the buffer is dropped when it has gone. `Send`.
///
/// It is over when its buffer may be used again. Where only calls of the application make progress ([`Progress::Caller`]) its waits
/// go on until the system has the message, as [`crate::Peer::send`] does, since the application may not call again for long; a
/// future, and [`SendOp::try_wait`], do not wait for that.
#[must_use = "dropping it gives the buffer up; wait for it or await it to get the buffer back"]
pub struct SendOp {
    pub(crate) operation: Operation,
    /// The buffer of a message that went at once: no operation of the table.
    pub(crate) sent: Option<Buf>,
    /// Of the peer that it is for.
    pub(crate) session: Key,
}

impl Ending for Buf {
    #[inline(always)]
    fn look(core: &mut Core, key: Key) -> Option<Self> {
        core.collect_sent(key)
    }
}

/// The buffer of a send that has gone, to the system too where nobody but the application would bring it there.
struct Left(Buf);

impl Ending for Left {
    #[inline(always)]
    fn look(core: &mut Core, key: Key) -> Option<Self> {
        if core.is_left_to_callers(key) {
            return None;
        }
        core.collect_sent(key).map(Self)
    }
}

/// That no message waits for company, nor one of a session, whose key it is, for the system.
struct AllGone;

impl Ending for AllGone {
    #[inline(always)]
    fn look(core: &mut Core, session: Key) -> Option<Self> {
        (!core.holds_back() && !core.leaves_to_callers(session)).then_some(Self)
    }
}

impl SendOp {
    /// Its buffer, if it went at once. It may still wait for company: where nobody else makes progress, this is its wait.
    #[inline(always)]
    fn take_sent(&mut self) -> Option<Buf> {
        let sent = self.sent.take()?;
        if Held::end_quick::<AllGone>(&mut self.operation.endpoint, self.session).is_none() {
            self.send_staged();
        }
        Some(sent)
    }

    /// Waits until the system has what was sent to the peer, where that is left to calls of the application.
    #[cold]
    #[inline(never)]
    fn leave_to_system(&self, limit: Option<Duration>) {
        if let Some(endpoint) = &self.operation.endpoint {
            endpoint.shared.leave_to_system(self.session, limit);
        }
    }

    #[cold]
    #[inline(never)]
    fn send_staged(&mut self) {
        if let Some(endpoint) = &self.operation.endpoint
            && endpoint.shared.progress == Progress::Caller
        {
            endpoint.shared.with_unless_forked((), Core::send_staged);
        }
    }

    /// Its buffer, if it has gone.
    #[inline(always)]
    fn take_quick(&mut self) -> Option<Buf> {
        Held::end_quick(&mut self.operation.endpoint, self.operation.key)
    }

    /// Waits up to the option `timeout`; at the deadline the send is really cancelled.
    ///
    /// # Errors
    /// [`Failed`] with the buffer.
    pub fn wait(self) -> Result<Buf, Failed> {
        self.wait_within(Timeout::Default)
    }

    /// [`SendOp::wait`] with its own deadline.
    ///
    /// # Errors
    /// As [`SendOp::wait`].
    #[inline]
    pub fn wait_within(mut self, timeout: impl Into<Timeout>) -> Result<Buf, Failed> {
        if let Some(buf) = self.take_sent() {
            if self.operation.endpoint.is_some() {
                self.leave_to_system(self.operation.limit(timeout.into()));
            }
            return Ok(buf);
        }
        match Held::end_quick::<Left>(&mut self.operation.endpoint, self.operation.key) {
            Some(Left(buf)) => Ok(buf),
            None => self.wait_longer(timeout.into()),
        }
    }

    #[inline(never)]
    fn wait_longer(mut self, timeout: Timeout) -> Result<Buf, Failed> {
        let limit = self.operation.limit(timeout);
        if self.operation.wait_quick(limit)
            && let Some(Left(buf)) = Held::end_quick(&mut self.operation.endpoint, self.operation.key)
        {
            return Ok(buf);
        }
        match self.operation.wait(timeout) {
            Some(outcome) => outcome.map(|(buf, _)| buf),
            None => timed_out(self.operation.cancel(), limit).map(|(buf, _)| buf),
        }
    }

    /// The result if the send is over. Makes progress, never blocks. After `Some` the operation is spent.
    pub fn try_wait(&mut self) -> Option<Result<Buf, Failed>> {
        match self.take_sent() {
            Some(buf) => Some(Ok(buf)),
            None => self.operation.try_wait().map(|outcome| outcome.map(|(buf, _)| buf)),
        }
    }

    /// Really cancels: afterwards nothing refers to the buffer. The message may have been delivered if that was too late;
    /// then the result is `Ok`.
    ///
    /// # Errors
    /// [`Failed`] with [`OpError::Cancelled`] and the buffer: the message is taken back, unless the receiver had all of it
    /// and its word of that was still on the way.
    pub fn cancel(mut self) -> Result<Buf, Failed> {
        if let Some(buf) = self.take_sent() {
            return Ok(buf);
        }
        match self.operation.cancel() {
            Some(outcome) => outcome.map(|(buf, _)| buf),
            None => Err(Failed { buf: Buf::zeroed(0), error: OpError::Cancelled }),
        }
    }
}

impl Future for SendOp {
    type Output = Result<Buf, Failed>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(buf) = self.take_sent().or_else(|| self.take_quick()) {
            return Poll::Ready(Ok(buf));
        }
        if self.operation.poll_quick()
            && let Some(buf) = self.take_quick()
        {
            return Poll::Ready(Ok(buf));
        }
        self.operation.poll(context).map(|outcome| outcome.map(|(buf, _)| buf))
    }
}

impl Drop for SendOp {
    #[inline]
    fn drop(&mut self) {
        let key = self.operation.key;
        if let Some(held) = self.operation.endpoint.take() {
            held.end(|core| core.detach_send(key));
        }
    }
}

impl std::fmt::Debug for SendOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SendOp")
    }
}
