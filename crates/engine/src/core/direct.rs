//! A blocking receive while its caller polls: the message goes from the lane straight into the caller's memory.
//!
//! Called by [`crate::Endpoint`] for blocking receives. The caller holds the engine's lock from before the first look until
//! the receive is over or stands in the matcher, so nobody can post another receive or take a message meanwhile, and the
//! order is what it would be had the receive been posted at once. What it must not do: keep the caller's memory known to
//! the core any longer than that.
#![allow(unsafe_code)]

use super::op::{Memory, Op, RecvOp, RecvState};
use super::operations::{Started, received};
use super::table::Key;
use super::{Core, OpError};
use crate::completion::{Completion, Match};
use sinew_proto::matching::{Arrival, PostId, Wanted};
use sinew_transport::Body;
use std::ptr::NonNull;

/// Turns that a direct receive takes before it is posted: longer than a round trip over shared memory, and short enough
/// for others who want the lock and for the clock.
const TURNS: u32 = 256;

/// The direct receive under way, if there is one.
#[derive(Debug)]
pub(crate) struct Direct {
    /// The endpoint that receives; 0: none, and all else is without meaning.
    endpoint: u32,
    wanted: Wanted,
    data: NonNull<u8>,
    room: usize,
    outcome: Option<Outcome>,
}

// SAFETY: the memory is written only under the engine's lock, while its borrower is inside `Core::recv_direct`.
unsafe impl Send for Direct {}

/// What became of a direct receive.
#[derive(Debug)]
pub(super) enum Outcome {
    Done(Result<Completion, OpError>),
    /// It matched an envelope and is an operation in the table now.
    Fetching(Key),
}

impl Default for Direct {
    fn default() -> Self {
        Self { endpoint: 0, wanted: Wanted::NOTHING, data: NonNull::dangling(), room: 0, outcome: None }
    }
}

impl Direct {
    /// Whether the message is for the receive under way. Older receives, those of the matcher, were asked before.
    #[inline]
    pub(crate) fn accepts(&self, endpoint: u32, arrival: &Arrival) -> bool {
        self.endpoint == endpoint && self.outcome.is_none() && self.wanted.accepts(arrival)
    }

    /// Its whole message.
    #[inline]
    pub(crate) fn deliver(&mut self, info: &Completion, body: Body<'_>) {
        let len = body.len().min(self.room);
        // SAFETY: the borrower of the memory, writable for `room >= len` bytes, is inside `Core::recv_direct`, which makes
        // `endpoint` 0 before it returns or unwinds; `accepts` was asked before.
        unsafe { body.copy_to_raw(self.data.as_ptr(), len) };
        self.outcome = Some(Outcome::Done(received(info, body.len(), self.room)));
    }

    /// The session in slot `index` is lost: a receive from it alone ends.
    pub(crate) fn end_of_session(&mut self, index: u32, error: &OpError) {
        if self.endpoint != 0
            && self.outcome.is_none()
            && self.wanted.source().is_some_and(|source| (source >> 32) as u32 == index)
        {
            self.outcome = Some(Outcome::Done(Err(error.clone())));
        }
    }
}

/// Forgets the caller's memory when the receive ends, also by a panic.
struct Under<'a>(&'a mut Core);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.direct.endpoint = 0;
    }
}

impl Core {
    /// Receives into `data..data + room`, polling for a while if need be; `leave` is asked after each turn whether others
    /// want the lock. What did not come meanwhile is posted.
    ///
    /// # Safety
    /// The range is writable, and borrowed by the caller until the receive is over: done, or out of the table.
    #[inline]
    pub(crate) unsafe fn recv_direct(
        &mut self,
        endpoint: u32,
        pattern: Match,
        data: NonNull<u8>,
        room: usize,
        leave: impl Fn() -> bool,
    ) -> Started<Completion> {
        let memory = Memory::Borrowed { data, len: room };
        let Some(state) = self.endpoint(endpoint) else {
            return Started::Done(Err(OpError::EngineClosed), memory);
        };
        if state.matcher.has_unexpected()
            && let Some((arrival, message)) = state.matcher.claim(&pattern.into())
        {
            return self.take_unexpected(endpoint, &arrival, message, memory, None);
        }
        if let Some(error) = pattern.source.and_then(|source| self.source_lost(source)) {
            return Started::Done(Err(error), memory);
        }
        let wanted = Wanted::new(&pattern.into());
        self.direct = Direct { endpoint, wanted, data, room, outcome: None };
        let under = Under(self);
        for _ in 0..TURNS {
            let moved = under.0.turn(1);
            if let Some(outcome) = under.0.direct.outcome.take() {
                // This thread stops polling: whoever sleeps takes over.
                under.0.effects.finished = true;
                return match outcome {
                    Outcome::Done(result) => Started::Done(result, memory),
                    Outcome::Fetching(key) => Started::Pending(key),
                };
            }
            if leave() || under.0.effects.any() {
                break;
            }
            if moved == 0 {
                std::hint::spin_loop();
            }
        }
        under.0.direct.endpoint = 0;
        under.0.start_recv(endpoint, pattern, memory, None)
    }

    /// The direct receive becomes an operation, for a message that takes longer.
    #[cold]
    pub(crate) fn direct_to_operation(&mut self) -> Key {
        let Direct { endpoint, data, room, .. } = self.direct;
        let op = RecvOp {
            endpoint,
            untagged: self.direct.wanted.is_untagged(),
            memory: Memory::Borrowed { data, len: room },
            state: RecvState::Posted(PostId::from_u64(u64::MAX)),
            waiter: None,
            handler: None,
        };
        let key = self.ops.insert(Op::Recv(op));
        self.direct.outcome = Some(Outcome::Fetching(key));
        key
    }
}
