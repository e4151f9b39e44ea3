//! Operations with owned buffers: futures that can also be waited for, asked and cancelled.

use crate::completion::Completion;
use crate::core::op::Memory;
use crate::core::table::Key;
use crate::core::{Core, Started};
use crate::endpoint::EndpointInner;
use crate::error::{Failed, OpError};
use crate::progress::Progress;
use crate::shared::{TURNS_DIRECT, TURNS_POLL};
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

pub(crate) enum State {
    Pending(Key),
    Done(Buf, Result<Option<Completion>, OpError>),
    Taken,
}

/// What both kinds of operation share.
pub(crate) struct Operation {
    pub(crate) endpoint: Arc<EndpointInner>,
    pub(crate) state: State,
}

/// Waits that are shorter look at the clock from the start.
pub(crate) const SHORT: Duration = Duration::from_micros(200);

pub(crate) type Outcome = Result<(Buf, Option<Completion>), Failed>;

impl Operation {
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

    fn take_done(&mut self) -> Option<Outcome> {
        let State::Done(_, result) = &self.state else { return None };
        let shared = &self.endpoint.shared;
        // A send has its buffer back, but may still wait for company: where nobody else makes progress, this is its wait.
        if matches!(result, Ok(None)) && shared.progress == Progress::Caller {
            shared.with_unless_forked((), Core::send_staged);
        }
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Done(buf, result) => Some(Self::outcome(buf, result)),
            _ => None,
        }
    }

    /// In a forked child every operation is over; its memory stays with the copy of the engine.
    fn forked(&mut self) -> Option<Outcome> {
        let error = self.endpoint.shared.check_fork().err()?;
        self.state = State::Taken;
        Some(Err(Failed { buf: Buf::zeroed(0), error }))
    }

    fn try_wait(&mut self) -> Option<Outcome> {
        if let Some(done) = self.take_done().or_else(|| self.forked()) {
            return Some(done);
        }
        let State::Pending(key) = self.state else { return None };
        let shared = &self.endpoint.shared;
        let done = shared.with(|core| Self::collect(core, key));
        let done = done.or_else(|| {
            // What progress leaves to run may panic: the result must not be lost by that.
            shared.with(Core::progress);
            shared.with(|core| Self::collect(core, key))
        })?;
        self.state = State::Taken;
        Some(done)
    }

    fn wait(&mut self, timeout: Timeout) -> Option<Outcome> {
        if let Some(done) = self.take_done().or_else(|| self.forked()) {
            return Some(done);
        }
        let State::Pending(key) = self.state else { return None };
        let shared = &self.endpoint.shared;
        let limit = timeout.resolve(&shared.config);
        let done = shared.wait(limit, |core| Self::collect(core, key))?;
        self.state = State::Taken;
        Some(done)
    }

    /// Waits a while for a success, which `collect` shall find. `None`: it takes longer, or is none.
    #[inline(always)]
    fn wait_quick<T>(
        &mut self,
        limit: Option<Duration>,
        collect: impl FnMut(&mut Core, Key) -> Option<T>,
    ) -> Option<T> {
        if limit.is_some_and(|limit| limit <= SHORT) {
            return None;
        }
        self.turn_quick(TURNS_DIRECT, collect)
    }

    /// The same for the poll of a future.
    #[inline(always)]
    fn poll_quick<T>(&mut self, collect: impl FnMut(&mut Core, Key) -> Option<T>) -> Option<T> {
        if self.endpoint.shared.progress != Progress::Caller {
            return None;
        }
        self.turn_quick(TURNS_POLL, collect)
    }

    #[inline(always)]
    fn turn_quick<T>(
        &mut self,
        turns: u32,
        mut collect: impl FnMut(&mut Core, Key) -> Option<T>,
    ) -> Option<T> {
        let State::Pending(key) = self.state else { return None };
        let shared = &self.endpoint.shared;
        if shared.check_fork().is_err() {
            return None;
        }
        let ended = |core: &mut Core| match collect(core, key) {
            None if !core.is_over(key) => None,
            done => Some(done),
        };
        let done = shared.wait_quick(self.endpoint.number, turns, ended)??;
        self.state = State::Taken;
        Some(done)
    }

    fn cancel(&mut self) -> Option<Outcome> {
        if let Some(done) = self.take_done().or_else(|| self.forked()) {
            return Some(done);
        }
        let State::Pending(key) = std::mem::replace(&mut self.state, State::Taken) else { return None };
        self.endpoint.shared.with(|core| Self::cancel_in(core, key))
    }

    pub(crate) fn cancel_in(core: &mut Core, key: Key) -> Option<Outcome> {
        if let Some((result, memory)) = core.cancel_recv(key) {
            return Some(Self::outcome(owned(memory), result.map(Some)));
        }
        let (result, memory) = core.cancel_send(key)?;
        Some(Self::outcome(owned(memory), result.map(|()| None)))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(done) = self.take_done().or_else(|| self.forked()) {
            return Poll::Ready(done);
        }
        let State::Pending(key) = self.state else {
            return Poll::Ready(Err(Failed { buf: Buf::zeroed(0), error: OpError::Cancelled }));
        };
        let shared = &self.endpoint.shared;
        let by_caller = shared.progress == Progress::Caller;
        if by_caller {
            // By itself, as what it leaves to run may panic: the result must not be lost by that.
            shared.with(Core::progress);
        }
        let done = shared.with(|core| {
            let done = Self::collect(core, key);
            if done.is_none() {
                core.set_waker(key, context.waker());
            }
            done
        });
        match done {
            Some(done) => {
                self.state = State::Taken;
                Poll::Ready(done)
            }
            None => {
                if by_caller {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

fn owned(memory: Memory) -> Buf {
    memory.into_buf().unwrap_or_else(|| Buf::zeroed(0))
}

/// A send with an owned buffer. A future of the buffer; or [`SendOp::wait`], [`SendOp::try_wait`], [`SendOp::cancel`].
///
/// Dropping it does not cancel: the message still goes, and the buffer is dropped when it has gone. `Send`.
#[must_use = "dropping it gives the buffer up; wait for it or await it to get the buffer back"]
pub struct SendOp(pub(crate) Operation);

/// A receive into an owned buffer. A future of the message; or [`RecvOp::wait`], [`RecvOp::try_wait`], [`RecvOp::cancel`].
///
/// Dropping it really cancels: a message that had come, or begun to, waits for another receive. One that had come whole has its old
/// place among those of its session. One that was longer than the buffer is gone, which is counted
/// (`EngineCounters::truncated_unseen`) and told. Look before you drop ([`RecvOp::cancel`]) where that matters. `Send`.
#[must_use = "dropping it cancels the receive"]
pub struct RecvOp {
    pub(crate) operation: Operation,
    /// It asked for untagged messages.
    untagged: bool,
    /// The place of a message that it got at once in what its session brought.
    number: u64,
}

impl SendOp {
    pub(crate) const fn new(endpoint: Arc<EndpointInner>, key: Key) -> Self {
        Self(Operation { endpoint, state: State::Pending(key) })
    }

    pub(crate) const fn done(endpoint: Arc<EndpointInner>, buf: Buf) -> Self {
        Self(Operation { endpoint, state: State::Done(buf, Ok(None)) })
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
    pub fn wait_within(mut self, timeout: impl Into<Timeout>) -> Result<Buf, Failed> {
        let timeout = timeout.into();
        let limit = timeout.resolve(&self.0.endpoint.shared.config);
        if let Some(buf) = self.0.wait_quick(limit, Core::collect_sent) {
            return Ok(buf);
        }
        match self.0.wait(timeout) {
            Some(outcome) => outcome.map(|(buf, _)| buf),
            None => timed_out(self.0.cancel(), limit).map(|(buf, _)| buf),
        }
    }

    /// The result if the send is over. Makes progress, never blocks. After `Some` the operation is spent.
    pub fn try_wait(&mut self) -> Option<Result<Buf, Failed>> {
        self.0.try_wait().map(|outcome| outcome.map(|(buf, _)| buf))
    }

    /// Really cancels: afterwards nothing refers to the buffer. The message may have been delivered if that was too late;
    /// then the result is `Ok`.
    ///
    /// # Errors
    /// [`Failed`] with [`OpError::Cancelled`] and the buffer: the message is taken back, unless the receiver had all of it
    /// and its word of that was still on the way.
    pub fn cancel(mut self) -> Result<Buf, Failed> {
        match self.0.cancel() {
            Some(outcome) => outcome.map(|(buf, _)| buf),
            None => Err(Failed { buf: Buf::zeroed(0), error: OpError::Cancelled }),
        }
    }
}

impl RecvOp {
    pub(crate) fn new(endpoint: Arc<EndpointInner>, started: Started<Completion>, untagged: bool) -> Self {
        let mut number = 0;
        let state = match started {
            Started::Pending(key) => State::Pending(key),
            Started::Done(result, memory, place) => {
                number = place;
                State::Done(owned(memory), result.map(Some))
            }
        };
        Self { operation: Operation { endpoint, state }, untagged, number }
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
    pub fn wait_within(mut self, timeout: impl Into<Timeout>) -> Result<Received, Failed> {
        let timeout = timeout.into();
        let limit = timeout.resolve(&self.operation.endpoint.shared.config);
        if let Some(received) = self.operation.wait_quick(limit, Core::collect_received) {
            return Ok(received);
        }
        match self.operation.wait(timeout) {
            Some(outcome) => received(outcome),
            None => received(timed_out(self.operation.cancel(), limit)),
        }
    }

    /// The result if the receive is over. Makes progress, never blocks. After `Some` the operation is spent.
    pub fn try_wait(&mut self) -> Option<Result<Received, Failed>> {
        self.operation.try_wait().map(received)
    }

    /// Really cancels: the buffer is back and never written again. If a message had arrived, it is the result.
    ///
    /// # Errors
    /// [`Failed`] with [`OpError::Cancelled`] and the buffer.
    pub fn cancel(mut self) -> Result<Received, Failed> {
        received(
            self.operation
                .cancel()
                .unwrap_or_else(|| Err(Failed { buf: Buf::zeroed(0), error: OpError::Cancelled })),
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

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(buf) = self.0.poll_quick(Core::collect_sent) {
            return Poll::Ready(Ok(buf));
        }
        self.0.poll(context).map(|outcome| outcome.map(|(buf, _)| buf))
    }
}

impl Future for RecvOp {
    type Output = Result<Received, Failed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(received) = self.operation.poll_quick(Core::collect_received) {
            return Poll::Ready(Ok(received));
        }
        self.operation.poll(context).map(received)
    }
}

impl Drop for SendOp {
    fn drop(&mut self) {
        if let State::Pending(key) = self.0.state
            && self.0.endpoint.shared.check_fork().is_ok()
        {
            self.0.endpoint.shared.with(|core| core.detach_send(key));
        }
    }
}

impl Drop for RecvOp {
    fn drop(&mut self) {
        let Operation { endpoint, state } = &mut self.operation;
        if matches!(state, State::Taken) {
            return;
        }
        if endpoint.shared.check_fork().is_err() {
            return;
        }
        match std::mem::replace(state, State::Taken) {
            State::Pending(key) => drop(endpoint.shared.with(|core| core.give_up_recv(key))),
            State::Done(buf, Ok(Some(info))) => endpoint.shared.with(|core| {
                core.put_back_whole(endpoint.number, self.untagged, self.number, &info, buf.as_slice());
            }),
            State::Done(_, Err(error)) => endpoint.shared.with(|core| core.note_unseen(&error)),
            _ => {}
        }
    }
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
