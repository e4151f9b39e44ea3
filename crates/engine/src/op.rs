//! Operations with owned buffers: futures that can also be waited for, asked and cancelled.

use crate::completion::Completion;
use crate::core::Core;
use crate::core::op::Memory;
use crate::core::table::Key;
use crate::endpoint::EndpointInner;
use crate::error::{Failed, OpError};
use crate::held::{Ending, Held};
use crate::progress::Progress;
use crate::shared::{Shared, TURNS_DIRECT, TURNS_POLL};
use crate::timeout::Timeout;
use sinew_transport::Buf;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A message that was received, with its buffer, whose length is the message's.
#[derive(Debug)]
pub struct Received {
    /// The buffer that was posted.
    pub buf: Buf,
    /// What the message says about itself.
    pub info: Completion,
}

/// What both kinds of operation share: their endpoint, until they are spent, and their place in the engine's table.
pub(crate) struct Operation {
    pub(crate) endpoint: Option<Held>,
    pub(crate) key: Key,
}

/// Waits that are shorter look at the clock from the start.
pub(crate) const SHORT: Duration = Duration::from_micros(200);

pub(crate) type Outcome = Result<(Buf, Option<Completion>), Failed>;

impl Operation {
    /// Called under the lock of the endpoint's engine, which `core` stands for.
    #[inline(always)]
    pub(crate) fn new(endpoint: &Arc<EndpointInner>, core: &mut Core, key: Key) -> Self {
        Self { endpoint: Some(Held::new(endpoint, core)), key }
    }

    pub(crate) fn outcome(buf: Buf, result: Result<Option<Completion>, OpError>) -> Outcome {
        match result {
            Ok(info) => Ok((buf, info)),
            Err(error) => Err(Failed { buf, error }),
        }
    }

    pub(crate) fn collect(core: &mut Core, key: Key) -> Option<Outcome> {
        if let Some((result, memory)) = core.collect_recv(key) {
            return Some(Self::outcome(owned(memory), result.map(Some)));
        }
        let (result, memory) = core.collect_send(key)?;
        Some(Self::outcome(owned(memory), result.map(|()| None)))
    }

    /// The same, when nothing else of the section is left to run: it may panic, and the result must not be lost by that.
    fn collect_alone(core: &mut Core, key: Key) -> Option<Outcome> {
        if core.effects.must_run() { None } else { Self::collect(core, key) }
    }

    /// What it is asked for when it is spent, and in a forked child, where every operation is over: its memory stays with the copy of
    /// the engine.
    fn shared(&self) -> Result<&Arc<Shared>, Failed> {
        let none = || Buf::zeroed(0);
        let Some(endpoint) = self.endpoint.as_ref().filter(|_| self.key != Key::NONE) else {
            return Err(Failed { buf: none(), error: OpError::Cancelled });
        };
        endpoint.shared.check_fork().map_err(|error| Failed { buf: none(), error })?;
        Ok(&endpoint.shared)
    }

    /// It has been collected, or is nobody's to collect.
    fn spend<T>(&mut self, done: T) -> Option<T> {
        self.key = Key::NONE;
        Some(done)
    }

    fn try_wait(&mut self) -> Option<Outcome> {
        let key = self.key;
        let done = match self.shared() {
            Err(Failed { error: OpError::Cancelled, .. }) => return None,
            Err(forked) => Err(forked),
            Ok(shared) => {
                let done = shared.with(|core| Self::collect_alone(core, key));
                done.or_else(|| {
                    // By itself, too.
                    shared.with(Core::progress);
                    shared.with(|core| Self::collect_alone(core, key))
                })?
            }
        };
        self.spend(done)
    }

    fn wait(&mut self, timeout: Timeout) -> Option<Outcome> {
        let key = self.key;
        let done = match self.shared() {
            Err(Failed { error: OpError::Cancelled, .. }) => return None,
            Err(forked) => Err(forked),
            Ok(shared) => {
                let limit = timeout.resolve(&shared.config);
                // A send that is over while the system has not got it is found by the cancel at the deadline.
                shared.wait(limit, |core| {
                    if core.is_left_to_callers(key) { None } else { Self::collect(core, key) }
                })?
            }
        };
        self.spend(done)
    }

    fn limit(&self, timeout: Timeout) -> Option<Duration> {
        self.endpoint.as_ref().and_then(|endpoint| timeout.resolve(&endpoint.shared.config))
    }

    /// Makes progress for a while, until it is over. `false`: that takes longer, or this thread is not the one that may.
    fn wait_quick(&self, limit: Option<Duration>) -> bool {
        limit.is_none_or(|limit| limit > SHORT) && self.turn_quick(TURNS_DIRECT)
    }

    /// The same for the poll of a future.
    fn poll_quick(&self) -> bool {
        self.is_by_caller() && self.turn_quick(TURNS_POLL)
    }

    /// Whether nothing moves while the application does not call.
    #[inline(always)]
    fn is_by_caller(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.shared.progress == Progress::Caller)
    }

    fn turn_quick(&self, turns: u32) -> bool {
        let number = self.endpoint.as_ref().map_or(0, |endpoint| endpoint.number);
        self.shared().is_ok_and(|shared| shared.wait_quick(number, self.key, turns))
    }

    fn cancel(&mut self) -> Option<Outcome> {
        let key = self.key;
        let done = match self.shared() {
            Err(Failed { error: OpError::Cancelled, .. }) => return None,
            Err(forked) => Err(forked),
            Ok(shared) => shared.with(|core| Self::cancel_in(core, key))?,
        };
        self.spend(done)
    }

    pub(crate) fn cancel_in(core: &mut Core, key: Key) -> Option<Outcome> {
        if let Some((result, memory)) = core.cancel_recv(key) {
            return Some(Self::outcome(owned(memory), result.map(Some)));
        }
        let (result, memory) = core.cancel_send(key)?;
        Some(Self::outcome(owned(memory), result.map(|()| None)))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let key = self.key;
        let shared = match self.shared() {
            Ok(shared) => shared,
            Err(failed) => {
                self.key = Key::NONE;
                return Poll::Ready(Err(failed));
            }
        };
        let by_caller = shared.progress == Progress::Caller;
        if by_caller {
            // By itself, as what it leaves to run may panic: the result must not be lost by that.
            shared.with(Core::progress);
        }
        let mut again = by_caller;
        let done = shared.with(|core| {
            again |= core.effects.must_run();
            let done = Self::collect_alone(core, key);
            if done.is_none() {
                core.set_waker(key, context.waker());
            }
            done
        });
        match done {
            Some(done) => {
                self.key = Key::NONE;
                Poll::Ready(done)
            }
            None => {
                if again {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl Ending for Received {
    #[inline(always)]
    fn look(core: &mut Core, key: Key) -> Option<Self> {
        core.collect_received(key)
    }
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

fn owned(memory: Memory) -> Buf {
    memory.into_buf().unwrap_or_else(|| Buf::zeroed(0))
}

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

/// A receive into an owned buffer. A future of the message; or [`RecvOp::wait`], [`RecvOp::try_wait`], [`RecvOp::cancel`].
///
/// Dropping it really cancels: a message that had come, or begun to, waits for another receive. One that had come whole has its old
/// place among those of its session. One that was longer than the buffer is gone, which is counted
/// (`EngineCounters::truncated_unseen`) and told. Look before you drop ([`RecvOp::cancel`]) where that matters. `Send`.
#[must_use = "dropping it cancels the receive"]
pub struct RecvOp(pub(crate) Operation);

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

/// What a cancel at the deadline answers: what had ended meanwhile, else that time was up.
fn timed_out(cancelled: Option<Outcome>, limit: Option<std::time::Duration>) -> Outcome {
    let after = limit.unwrap_or_default();
    match cancelled {
        Some(Err(Failed { buf, error: OpError::Cancelled })) => {
            Err(Failed { buf, error: OpError::TimedOut { after } })
        }
        Some(outcome) => outcome,
        None => Err(Failed { buf: Buf::zeroed(0), error: OpError::TimedOut { after } }),
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

impl Drop for SendOp {
    #[inline]
    fn drop(&mut self) {
        let key = self.operation.key;
        if let Some(held) = self.operation.endpoint.take() {
            held.end(|core| core.detach_send(key));
        }
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

impl std::fmt::Debug for SendOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SendOp")
    }
}

impl std::fmt::Debug for RecvOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecvOp")
    }
}
