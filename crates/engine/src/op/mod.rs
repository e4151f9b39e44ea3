//! Operations with owned buffers: futures that can also be waited for, asked and cancelled.
//!
//! Here is what sends and receives have in common: how they are looked at, waited for and taken out of the engine's table.

mod recv;
mod send;

pub(crate) use recv::received;
pub use recv::{Received, RecvOp};
pub use send::SendOp;

use crate::completion::Completion;
use crate::core::Core;
use crate::core::op::Memory;
use crate::core::table::Key;
use crate::endpoint::EndpointInner;
use crate::error::{Failed, OpError};
use crate::held::Held;
use crate::progress::Progress;
use crate::shared::{Shared, TURNS_DIRECT, TURNS_POLL};
use crate::timeout::Timeout;
use sinew_transport::Buf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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

fn owned(memory: Memory) -> Buf {
    memory.into_buf().unwrap_or_else(|| Buf::zeroed(0))
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
