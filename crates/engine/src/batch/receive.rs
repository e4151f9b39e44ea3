//! Receiving a batch: several messages of one turn of progress, each into a buffer of its own.
//!
//! Called by applications through [`Endpoint`]. However a call ends, [`Open`] takes back what it posted.

use crate::completion::{Completion, Match};
use crate::core::op::{Memory, Receiver};
use crate::core::table::Key;
use crate::core::{BUDGET, Core, Look, Started, Until};
use crate::endpoint::Endpoint;
use crate::error::OpError;
use crate::op::SHORT;
use crate::shared::{Shared, TURNS_DIRECT};
use crate::timeout::Timeout;
use sinew_transport::Body;
use std::ptr::NonNull;
use std::sync::Arc;

/// One receive of a batch: which message it wants, and where it goes. Made once and used again: [`Receive::again`].
#[derive(Debug)]
#[must_use = "put it into a slice for `Endpoint::recv_batch`"]
pub struct Receive<'a> {
    pattern: Match,
    buf: &'a mut [u8],
    /// Its place among the receives of the endpoint during a call: that of the slice, whichever is posted first.
    order: u64,
    state: State,
}

/// A receive that wants a message: which, where it goes, and its place among others.
pub(crate) struct Place {
    pub(crate) pattern: Match,
    pub(crate) data: NonNull<u8>,
    pub(crate) len: usize,
    pub(crate) order: u64,
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
        Self { pattern: pattern.into(), buf, order: 0, state: State::Open }
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
        let receiver = Receiver { endpoint, order: self.order, handler: None };
        self.state = match core.start_recv_as(receiver, self.pattern, memory) {
            Started::Done(result, ..) => State::Ended(result),
            Started::Pending(key) => State::Posted(key),
        };
    }

    /// Whether it wants a message and is not in the engine's table.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// What it wants and where that goes, while it is open.
    pub(crate) fn place(&mut self) -> Option<Place> {
        let (pattern, order, len) = (self.pattern, self.order, self.buf.len());
        self.is_open().then(|| Place { pattern, data: NonNull::from(&mut *self.buf).cast(), len, order })
    }

    /// It is behind all receives that were posted before.
    pub(crate) fn take_place(&mut self, order: u64) {
        self.order = order;
    }

    /// Which messages it wants, while it is open.
    #[inline(always)]
    pub(crate) const fn wanted(&self) -> Option<&Match> {
        if self.is_open() { Some(&self.pattern) } else { None }
    }

    /// The room for its message in bytes.
    #[inline(always)]
    pub(crate) const fn room(&self) -> usize {
        self.buf.len()
    }

    /// It has its message, which is no longer than the room for it.
    #[inline(always)]
    pub(crate) fn fill(&mut self, message: Body<'_>, info: Completion) {
        message.copy_to(self.buf);
        self.state = State::Ended(Ok(info));
    }

    /// It has ended.
    pub(crate) fn end(&mut self, result: Result<Completion, OpError>) {
        self.state = State::Ended(result);
    }

    /// It is an operation now, mostly because its message has begun to arrive.
    pub(crate) fn begin(&mut self, key: Key) {
        self.state = State::Posted(key);
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
        matches!(self.state, State::Posted(key) if !core.is_posted(key))
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
    /// Waits for all of them, not for some.
    all: bool,
    /// All before this one are known to have ended.
    first: usize,
    /// How many had ended before.
    before: usize,
}

impl Open<'_, '_> {
    fn is_posted(&self) -> bool {
        self.receives.iter().any(Receive::is_posted)
    }

    /// Takes what comes while this thread polls, and posts the others if that is not enough. Whether it is.
    fn start(&mut self, core: &mut Core, endpoint: u32) -> bool {
        let shared = self.shared;
        let until = if self.all { Until::All } else { Until::Some };
        core.recv_batch_direct(endpoint, self.receives, until, || shared.is_contended());
        if !self.all && ended(self.receives) > self.before {
            return !self.is_posted();
        }
        self.receives
            .iter_mut()
            .filter(|receive| receive.is_open())
            .for_each(|one| one.start(core, endpoint));
        self.is_enough(core)
    }

    /// Whether what the call waits for has happened: all have ended, or some have and none of the others has begun to
    /// arrive.
    #[inline]
    fn is_enough(&mut self, core: &mut Core) -> bool {
        if !self.all {
            let mut begun = false;
            for receive in self.receives.iter_mut().filter(|receive| receive.is_posted()) {
                begun |= !receive.collect(core) && receive.has_begun(core);
            }
            return !begun && ended(self.receives) > self.before;
        }
        while let Some(receive) = self.receives.get_mut(self.first) {
            if !receive.collect(core) {
                return false;
            }
            self.first += 1;
        }
        true
    }
}

impl Drop for Open<'_, '_> {
    fn drop(&mut self) {
        if !self.is_posted() {
            return;
        }
        if self.shared.check_fork().is_ok() {
            self.shared
                .with_in_drop(|core| self.receives.iter_mut().for_each(|receive| receive.withdraw(core)));
            return;
        }
        for receive in self.receives.iter_mut().filter(|receive| receive.is_posted()) {
            receive.state = State::Ended(Err(OpError::Forked));
        }
    }
}

/// Takes messages the short way while each is for the first open receive. Whether that is enough: all have ended, or some
/// have and no more is there.
fn take_quick(shared: &Arc<Shared>, endpoint: u32, receives: &mut [Receive<'_>], all: bool) -> bool {
    let mut first = 0;
    let mut some = false;
    for _ in 0..TURNS_DIRECT {
        let may = |core: &mut Core| core.may_receive_quick(endpoint, &Match::any_tag());
        let look = |core: &mut Core| {
            some |= core.receive_run(endpoint, receives, &mut first);
            let Some(receive) = receives.get_mut(first) else { return Look::Done };
            match core.receive_quick(endpoint, receive) {
                Look::Done => {
                    some = true;
                    Look::More
                }
                Look::Nothing if some && !all => Look::Done,
                other => other,
            }
        };
        match shared.look_quick(may, look) {
            Some(true) => return true,
            Some(false) => {}
            None => return false,
        }
        shared.with(|core| core.turn(1));
        if shared.is_contended() {
            return false;
        }
    }
    false
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
        let open = Open { shared, receives, all: true, first: 0, before };
        shared.with(|core| core.recv_batch_direct(self.inner.number, open.receives, Until::Now, || false));
        if open.is_posted() {
            let limit = Timeout::Default.resolve(&shared.config);
            shared.wait(limit, |core| {
                let mut over = true;
                for receive in open.receives.iter_mut() {
                    if receive.is_posted() && !receive.has_begun(core) {
                        // Its message was taken back, and there is no other.
                        receive.withdraw(core);
                    }
                    over &= receive.collect(core);
                }
                over.then_some(())
            });
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
        self.wait_batch(receives, timeout.into(), false)
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
        self.wait_batch(receives, timeout.into(), true)
    }

    fn wait_batch(
        &self,
        receives: &mut [Receive<'_>],
        timeout: Timeout,
        all: bool,
    ) -> Result<usize, OpError> {
        let shared = &self.inner.shared;
        shared.check_fork()?;
        let before = ended(receives);
        if before == receives.len() {
            return Ok(0);
        }
        let limit = timeout.resolve(&shared.config);
        if limit.is_none_or(|limit| limit > SHORT) && take_quick(shared, self.inner.number, receives, all) {
            return Ok(ended(receives) - before);
        }
        let budget = receives.len().min(BUDGET);
        let mut open = Open { shared, receives, all, first: 0, before };
        if !shared.with(|core| open.start(core, self.inner.number)) {
            shared.wait_taking(budget, limit, |core| open.is_enough(core).then_some(()));
        }
        drop(open);
        match ended(receives) - before {
            0 => Err(OpError::TimedOut { after: limit.unwrap_or_default() }),
            count => Ok(count),
        }
    }
}
