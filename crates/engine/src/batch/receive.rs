//! Receiving a batch: several messages of one turn of progress, each into a buffer of its own.
//!
//! Called by applications through [`Endpoint`]. However a call ends, [`Open`] takes back what it posted.

use crate::completion::{Completion, Match};
use crate::core::op::{Memory, Op, RecvState};
use crate::core::table::Key;
use crate::core::{BUDGET, Core, Started};
use crate::endpoint::Endpoint;
use crate::error::OpError;
use crate::shared::Shared;
use crate::timeout::Timeout;
use std::ptr::NonNull;
use std::sync::Arc;

/// One receive of a batch: which message it wants, and where it goes. Made once and used again: [`Receive::again`].
#[derive(Debug)]
#[must_use = "put it into a slice for `Endpoint::recv_batch`"]
pub struct Receive<'a> {
    pattern: Match,
    buf: &'a mut [u8],
    state: State,
}

#[derive(Debug)]
enum State {
    /// Wants a message.
    Open,
    /// In the engine's table, during a call only.
    Posted(Key),
    /// Has ended.
    Ended(Result<Completion, OpError>),
}

impl<'a> Receive<'a> {
    /// A receive of one message that matches `pattern` into `buf`.
    pub fn new(pattern: impl Into<Match>, buf: &'a mut [u8]) -> Self {
        Self { pattern: pattern.into(), buf, state: State::Open }
    }

    /// How it ended; `None` while it has not.
    #[must_use]
    pub const fn result(&self) -> Option<&Result<Completion, OpError>> {
        match &self.state {
            State::Ended(result) => Some(result),
            State::Open | State::Posted(_) => None,
        }
    }

    /// What it received, if it has.
    #[must_use]
    pub const fn completion(&self) -> Option<&Completion> {
        match &self.state {
            State::Ended(Ok(completion)) => Some(completion),
            _ => None,
        }
    }

    /// The bytes of the message, as far as they fit; empty when it has none.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match &self.state {
            State::Ended(Ok(completion)) => &self.buf[..completion.len],
            State::Ended(Err(OpError::Truncated { .. })) => self.buf,
            _ => &[],
        }
    }

    /// Its whole buffer.
    #[must_use]
    pub const fn buf(&mut self) -> &mut [u8] {
        self.buf
    }

    /// Makes it want a message again, and answers how it had ended.
    pub fn again(&mut self, pattern: impl Into<Match>) -> Option<Result<Completion, OpError>> {
        self.pattern = pattern.into();
        match std::mem::replace(&mut self.state, State::Open) {
            State::Ended(result) => Some(result),
            State::Open | State::Posted(_) => None,
        }
    }

    #[inline]
    fn start(&mut self, core: &mut Core, endpoint: u32) {
        let memory = Memory::Borrowed { data: NonNull::from(&mut *self.buf).cast(), len: self.buf.len() };
        self.state = match core.start_recv(endpoint, self.pattern, memory, None) {
            Started::Done(result, _) => State::Ended(result),
            Started::Pending(key) => State::Posted(key),
        };
    }

    const fn is_posted(&self) -> bool {
        matches!(self.state, State::Posted(_))
    }

    /// Whether it has ended.
    #[inline]
    fn collect(&mut self, core: &mut Core) -> bool {
        if let State::Posted(key) = self.state
            && let Some((result, _)) = core.collect_recv(key)
        {
            self.state = State::Ended(result);
        }
        !self.is_posted()
    }

    /// Whether its message has begun to arrive.
    fn has_begun(&self, core: &Core) -> bool {
        let State::Posted(key) = self.state else { return false };
        matches!(core.ops.get(key), Some(Op::Recv(recv)) if !matches!(recv.state, RecvState::Posted(_)))
    }

    /// Takes it out of the engine: with its message if that has come meanwhile.
    fn withdraw(&mut self, core: &mut Core) {
        let State::Posted(key) = self.state else { return };
        self.state = match core.cancel_recv(key) {
            Some((Err(OpError::Cancelled), _)) | None => State::Open,
            Some((result, _)) => State::Ended(result),
        };
    }
}

/// Receives of a call; whichever way the call ends, nothing of them stays in the engine.
struct Open<'g, 'a> {
    shared: &'g Arc<Shared>,
    receives: &'g mut [Receive<'a>],
    /// All before this one are known to have ended.
    first: usize,
    /// One has ended in this call.
    any: bool,
}

impl<'g, 'a> Open<'g, 'a> {
    const fn new(shared: &'g Arc<Shared>, receives: &'g mut [Receive<'a>]) -> Self {
        Self { shared, receives, first: 0, any: false }
    }

    /// Posts all that have not ended.
    fn start(&mut self, core: &mut Core, endpoint: u32) {
        for receive in &mut *self.receives {
            if matches!(receive.state, State::Open) {
                receive.start(core, endpoint);
                self.any |= !receive.is_posted();
            }
        }
    }

    /// Whether all have ended.
    #[inline]
    fn all_ended(&mut self, core: &mut Core) -> bool {
        while let Some(receive) = self.receives.get_mut(self.first) {
            if !receive.collect(core) {
                return false;
            }
            self.first += 1;
        }
        true
    }

    /// Whether none is in the engine any more.
    fn begun_have_ended(&mut self, core: &mut Core) -> bool {
        self.receives.iter_mut().all(|receive| receive.collect(core))
    }

    /// Whether one has ended, and none of the others has begun to arrive.
    fn some_ended(&mut self, core: &mut Core) -> bool {
        let mut begun = false;
        for receive in self.receives.iter_mut().filter(|receive| receive.is_posted()) {
            self.any |= receive.collect(core);
            begun |= receive.has_begun(core);
        }
        self.any && !begun
    }
}

impl Drop for Open<'_, '_> {
    fn drop(&mut self) {
        if !self.receives.iter().any(Receive::is_posted) {
            return;
        }
        if self.shared.check_fork().is_ok() {
            self.shared.with(|core| self.receives.iter_mut().for_each(|receive| receive.withdraw(core)));
            return;
        }
        for receive in self.receives.iter_mut().filter(|receive| receive.is_posted()) {
            receive.state = State::Ended(Err(OpError::Forked));
        }
    }
}

fn ended(receives: &[Receive<'_>]) -> usize {
    receives.iter().filter(|receive| receive.result().is_some()).count()
}

impl Endpoint {
    /// Receives what is there already, several messages of one turn of progress: for each receive that has not ended the
    /// oldest waiting message that matches, in the order of the slice. Answers how many ended in this call; the others want
    /// a message still. Never blocks, but that long messages that are with their senders are fetched, up to the option
    /// `timeout`.
    ///
    /// # Errors
    /// [`OpError::WouldBlock`] when no message is there. What became of each message, [`OpError::Truncated`] among it, is
    /// in [`Receive::result`].
    pub fn try_recv_batch(&self, receives: &mut [Receive<'_>]) -> Result<usize, OpError> {
        let shared = &self.inner.shared;
        shared.check_fork()?;
        let before = ended(receives);
        let mut open = Open::new(shared, receives);
        let number = self.inner.number;
        shared.with(|core| {
            core.progress();
            let mut absent = None;
            for receive in &mut *open.receives {
                if !matches!(receive.state, State::Open) || absent == Some(receive.pattern) {
                    continue;
                }
                match core.probe_or_closed(number, receive.pattern) {
                    Some(Ok(_)) => receive.start(core, number),
                    Some(Err(error)) => receive.state = State::Ended(Err(error)),
                    None => absent = Some(receive.pattern),
                }
            }
        });
        if open.receives.iter().any(Receive::is_posted) {
            let limit = Timeout::Default.resolve(&shared.config);
            shared.wait(limit, |core| open.begun_have_ended(core).then_some(()));
        }
        drop(open);
        match ended(receives) - before {
            0 if !receives.is_empty() => Err(OpError::WouldBlock),
            count => Ok(count),
        }
    }

    /// Waits until at least one receive of the slice has ended, and takes what else is there. Answers how many ended in this
    /// call; the others want a message still, and are not in the engine any more. They match in the order of the slice.
    /// Receives that had ended before are left alone, so that the same slice can be waited for until all have.
    ///
    /// # Errors
    /// [`OpError::TimedOut`] when none ended before the option `timeout`. What became of each message is in
    /// [`Receive::result`].
    pub fn recv_batch(&self, receives: &mut [Receive<'_>]) -> Result<usize, OpError> {
        self.recv_batch_within(receives, Timeout::Default)
    }

    /// [`Endpoint::recv_batch`] with its own deadline.
    ///
    /// # Errors
    /// As [`Endpoint::recv_batch`].
    pub fn recv_batch_within(
        &self,
        receives: &mut [Receive<'_>],
        timeout: impl Into<Timeout>,
    ) -> Result<usize, OpError> {
        self.wait_batch(receives, timeout.into(), |open, core| open.some_ended(core))
    }

    /// Waits until all receives of the slice have ended. Answers how many ended in this call: fewer than all at the deadline;
    /// the others want a message still.
    ///
    /// # Errors
    /// [`OpError::TimedOut`] when none ended before the option `timeout`.
    pub fn recv_all(&self, receives: &mut [Receive<'_>]) -> Result<usize, OpError> {
        self.recv_all_within(receives, Timeout::Default)
    }

    /// [`Endpoint::recv_all`] with its own deadline.
    ///
    /// # Errors
    /// As [`Endpoint::recv_all`].
    pub fn recv_all_within(
        &self,
        receives: &mut [Receive<'_>],
        timeout: impl Into<Timeout>,
    ) -> Result<usize, OpError> {
        self.wait_batch(receives, timeout.into(), |open, core| open.all_ended(core))
    }

    fn wait_batch(
        &self,
        receives: &mut [Receive<'_>],
        timeout: Timeout,
        enough: impl Fn(&mut Open<'_, '_>, &mut Core) -> bool,
    ) -> Result<usize, OpError> {
        let shared = &self.inner.shared;
        shared.check_fork()?;
        let before = ended(receives);
        if before == receives.len() {
            return Ok(0);
        }
        let limit = timeout.resolve(&shared.config);
        let mut open = Open::new(shared, receives);
        let ready = shared.with(|core| {
            open.start(core, self.inner.number);
            enough(&mut open, core)
        });
        if !ready {
            shared.wait_taking(BUDGET, limit, |core| enough(&mut open, core).then_some(()));
        }
        drop(open);
        match ended(receives) - before {
            0 => Err(OpError::TimedOut { after: limit.unwrap_or_default() }),
            count => Ok(count),
        }
    }
}
