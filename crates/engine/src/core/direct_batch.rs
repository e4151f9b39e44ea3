//! A batch of receives while its caller polls: messages go from the lane straight into the caller's buffers.
//!
//! Called by [`crate::batch`], in the manner of [`super::direct`]: the caller holds the engine's lock from before the first
//! look until the receives are over, handed back open, or operations in the table; nobody else can post or take anything
//! meanwhile, so the order is what it would be had they been posted one after the other. What it must not do: keep the
//! caller's memory known to the core any longer than that.
#![allow(unsafe_code)]

use super::op::{Memory, Op, Receiver, RecvOp};
use super::operations::{Started, received};
use super::quick::{Got, Look, Tags};
use super::table::Key;
use super::{BUDGET, Core, OpError};
use crate::batch::{Place, Receive};
use crate::completion::{Completion, Match};
use sinew_proto::matching::{Arrival, Pattern, Wanted};
use sinew_transport::Body;
use std::ptr::NonNull;

/// Batches with more receives are posted: looking through them one by one would cost more than the matcher.
const RECEIVES_MAX: usize = 64;

/// Turns that a batch is polled for before it is posted, as for a single receive.
const TURNS: u32 = 256;

/// How long a batch is polled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Until {
    /// While something comes.
    Now,
    /// Until some of it have ended, and while something comes.
    Some,
    /// Until all of it have ended.
    All,
}

/// What became of one receive.
#[derive(Debug)]
enum Outcome {
    Done(Result<Completion, OpError>),
    /// It is an operation in the table now: it matched an envelope, or had to be posted.
    Operation(Key),
}

/// The receives under way.
#[derive(Debug, Default)]
pub(crate) struct DirectBatch {
    /// The endpoint that receives; 0: none.
    endpoint: u32,
    slots: Vec<Slot>,
    /// All before this one have their outcome.
    first: usize,
    /// How many have none.
    left: usize,
}

#[derive(Debug)]
struct Slot {
    /// None: it names a source.
    tags: Option<Tags>,
    wanted: Wanted,
    data: NonNull<u8>,
    room: usize,
    /// See [`Receiver`].
    order: u64,
    outcome: Option<Outcome>,
}

// SAFETY: the memory is written only under the engine's lock, while its borrower is inside `Core::recv_batch_direct`.
unsafe impl Send for Slot {}

impl DirectBatch {
    /// The oldest receive under way that the message is for. Receives of the matcher were asked before.
    #[inline]
    pub(crate) fn find(&self, endpoint: u32, arrival: &Arrival) -> Option<usize> {
        if self.endpoint != endpoint {
            return None;
        }
        let open = |slot: &Slot| slot.outcome.is_none() && slot.wanted.accepts(arrival);
        self.slots[self.first..].iter().position(open).map(|at| self.first + at)
    }

    /// The whole message for a receive that [`DirectBatch::find`] has found.
    #[inline]
    pub(crate) fn deliver(&mut self, at: usize, info: &Completion, body: Body<'_>) {
        let Some(slot) = self.slots.get(at) else { return };
        let len = body.len().min(slot.room);
        // SAFETY: the borrower of the memory, writable for `room >= len` bytes, is inside `Core::recv_batch_direct`, which
        // removes all slots before it returns or unwinds.
        unsafe { body.copy_to_raw(slot.data.as_ptr(), len) };
        self.end(at, Outcome::Done(received(info, body.len(), slot.room)));
    }

    /// What a receive is as an operation.
    fn operation(&self, at: usize) -> (Receiver, Pattern, Memory) {
        let &Slot { wanted, data, room, order, .. } = &self.slots[at];
        let receiver = Receiver { endpoint: self.endpoint, order, handler: None };
        (receiver, wanted.pattern(), Memory::Borrowed { data, len: room })
    }

    fn end(&mut self, at: usize, outcome: Outcome) {
        self.slots[at].outcome = Some(outcome);
        self.left -= 1;
        while self.slots.get(self.first).is_some_and(|slot| slot.outcome.is_some()) {
            self.first += 1;
        }
    }

    /// No session is left with the engine of this number: receives from it alone end.
    pub(crate) fn end_of_engine(&mut self, engine: u32, error: &OpError) {
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            if slot.outcome.is_none()
                && slot.wanted.source().is_some_and(|source| (source >> 32) as u32 == engine)
            {
                self.end(at, Outcome::Done(Err(error.clone())));
            }
        }
    }
}

/// Hands the receives back when they are over, also by a panic.
struct Under<'c, 'r, 'a> {
    core: &'c mut Core,
    receives: &'r mut [Receive<'a>],
}

impl Drop for Under<'_, '_, '_> {
    fn drop(&mut self) {
        let batch = &mut self.core.direct_batch;
        batch.endpoint = 0;
        let open = self.receives.iter_mut().filter(|receive| receive.is_open());
        for (receive, slot) in open.zip(batch.slots.drain(..)) {
            match slot.outcome {
                Some(Outcome::Done(result)) => receive.end(result),
                Some(Outcome::Operation(key)) => receive.begin(key),
                None => {}
            }
        }
    }
}

impl Core {
    /// Receives what is there for the open ones of `receives`, and polls for more for a while; `leave` is asked after each
    /// turn whether others want the lock. What did not come meanwhile stays open.
    pub(crate) fn recv_batch_direct(
        &mut self,
        endpoint: u32,
        receives: &mut [Receive<'_>],
        until: Until,
        leave: impl Fn() -> bool,
    ) {
        for receive in receives.iter_mut().filter(|receive| receive.is_open()) {
            receive.take_place(self.next_order());
        }
        let some = self.claim_batch(endpoint, receives);
        let open = receives.iter().filter(|receive| receive.is_open()).count();
        if open == 0 || open > RECEIVES_MAX {
            return;
        }
        debug_assert!(self.direct_batch.slots.is_empty());
        for Place { pattern, data, len, order } in receives.iter_mut().filter_map(Receive::place) {
            let wanted = Wanted::new(&pattern.into());
            self.direct_batch.slots.push(Slot {
                tags: Tags::of(&pattern),
                wanted,
                data,
                room: len,
                order,
                outcome: None,
            });
        }
        self.direct_batch.first = 0;
        self.direct_batch.left = open;
        self.direct_batch.endpoint = endpoint;
        let under = Under { core: self, receives };
        for _ in 0..TURNS {
            let mut moved = under.core.receive_in_order();
            if under.core.direct_batch.left > 0 {
                moved += under.core.turn(under.core.direct_batch.left.min(BUDGET));
            }
            let left = under.core.direct_batch.left;
            let enough = left == 0 || (until != Until::All && moved == 0 && (some || left < open));
            if enough || (until == Until::Now && moved == 0) {
                // This thread stops polling: whoever sleeps takes over.
                under.core.effects.finish();
                return;
            }
            if leave() || under.core.effects.any() {
                return;
            }
            if moved == 0 {
                std::hint::spin_loop();
            }
        }
    }

    /// Takes one message the short way, if it is for this receive, the first open one of its batch.
    #[inline]
    pub(crate) fn receive_quick(&mut self, endpoint: u32, receive: &mut Receive<'_>) -> Look {
        let Some(Place { pattern, data, len, .. }) = receive.place() else { return Look::Other };
        let Some(tags) = Tags::of(&pattern) else { return Look::Other };
        let mut got = Got::NOTHING;
        // SAFETY: the memory is the receive's, which is borrowed here.
        let look = unsafe { self.recv_quick(endpoint, tags, (data, len), &mut got) };
        if matches!(look, Look::Done) {
            receive.end(Ok(got.info()));
        }
        look
    }

    /// Takes messages the short way as long as each is for the oldest open receive. Returns how many.
    fn receive_in_order(&mut self) -> usize {
        let mut done = 0;
        let mut got = Got::NOTHING;
        while let Some(slot) = self.direct_batch.slots.get(self.direct_batch.first) {
            let Some(tags) = slot.tags else { break };
            let (endpoint, memory) = (self.direct_batch.endpoint, (slot.data, slot.room));
            // SAFETY: the borrower of the memory is inside `Core::recv_batch_direct`.
            let Look::Done = (unsafe { self.recv_quick(endpoint, tags, memory, &mut got) }) else {
                break;
            };
            self.direct_batch.end(self.direct_batch.first, Outcome::Done(Ok(got.info())));
            done += 1;
        }
        done
    }

    /// Gives the receives what waits already; whether there was any.
    fn claim_batch(&mut self, endpoint: u32, receives: &mut [Receive<'_>]) -> bool {
        let mut some = false;
        let mut absent: Option<Match> = None;
        for receive in receives.iter_mut() {
            let Some(Place { pattern, data, len, order }) = receive.place() else { continue };
            let Some(state) = self.endpoint(endpoint) else {
                receive.end(Err(OpError::EngineClosed));
                some = true;
                continue;
            };
            if !state.matcher.has_unexpected() {
                break;
            }
            if absent == Some(pattern) {
                continue;
            }
            let Some((arrival, message)) = state.matcher.claim(&pattern.into()) else {
                absent = Some(pattern);
                continue;
            };
            some = true;
            let memory = Memory::Borrowed { data, len };
            let receiver = Receiver { endpoint, order, handler: None };
            match self.take_unexpected(receiver, &arrival, message, pattern.into(), memory) {
                Started::Done(result, ..) => receive.end(result),
                Started::Pending(key) => receive.begin(key),
            }
        }
        some
    }

    /// A receive of the batch becomes an operation, for a message that takes longer.
    #[cold]
    pub(crate) fn direct_batch_to_operation(&mut self, at: usize) -> (Key, Pattern) {
        let (receiver, wanted, memory) = self.direct_batch.operation(at);
        let op = RecvOp::matched(receiver, wanted.untagged, memory);
        let key = self.ops.insert(Op::Recv(op));
        self.direct_batch.end(at, Outcome::Operation(key));
        (key, wanted)
    }

    /// The batch under way at an endpoint is over: what has not ended is posted, so that a receive that lost its message
    /// finds its place among them.
    #[cold]
    pub(crate) fn post_direct_batch(&mut self, endpoint: u32) {
        if self.direct_batch.endpoint != endpoint {
            return;
        }
        for at in 0..self.direct_batch.slots.len() {
            if self.direct_batch.slots[at].outcome.is_some() {
                continue;
            }
            let (receiver, wanted, memory) = self.direct_batch.operation(at);
            let outcome = match self.start_recv_from(receiver, wanted, None, memory) {
                Started::Done(result, ..) => Outcome::Done(result),
                Started::Pending(key) => Outcome::Operation(key),
            };
            self.direct_batch.end(at, outcome);
        }
    }
}
