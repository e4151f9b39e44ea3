//! The short way of a short message: from the caller's memory onto the lane, and from the lane into the caller's memory.
//!
//! Called under the engine's lock by blocking sends and receives before anything else. Each call either does the whole of
//! what the long way (`outbound`, `direct`, `inbound`) does for one message that meets no obstacle, or nothing at all. What
//! it must not do: anything about an obstacle. Whoever calls it takes the long way then, which finds the obstacle itself.
#![allow(unsafe_code)]

use super::inbound::OVERHEAD;
use super::table::Key;
use super::{Core, SELF_OWNER};
use crate::completion::{Completion, Match, Source};
use sinew_proto::matching::{Arrival, Wanted};
use sinew_transport::Peeked;
use sinew_wire::frame::{Flags, Header};
use std::io::IoSlice;
use std::ptr::NonNull;

/// What a look at the busiest lane has brought.
#[derive(Debug)]
pub(crate) enum Quick {
    /// The message; it is in the caller's memory.
    Done(Completion),
    /// Nothing is there yet.
    Nothing,
    /// Something else is to be done first.
    Other,
}

/// A receive that looks for its message.
#[derive(Clone, Copy)]
pub(crate) struct Receiving {
    pub(crate) endpoint: u32,
    pub(crate) wanted: Wanted,
    pub(crate) data: NonNull<u8>,
    pub(crate) room: usize,
}

impl Receiving {
    #[inline(always)]
    pub(crate) fn new(endpoint: u32, pattern: &Match, data: NonNull<u8>, room: usize) -> Self {
        Self { endpoint, wanted: Wanted::new(&(*pattern).into()), data, room }
    }
}

/// Turns between those that look at everything while messages come in one after the other.
const TURNS_PER_LONG: u32 = 256;
/// Sends between flushes of a lane that shows each frame at once: what else it has to say can wait for so long.
const SENDS_PER_FLUSH: u64 = 64;

impl Core {
    /// Posts and flushes one message on a lane that is polled in memory. `false`: nothing has happened, take the long way.
    #[inline(always)]
    pub(crate) fn send_quick(&mut self, session_key: Key, flow: u32, header: &Header, data: &[u8]) -> bool {
        let Some(session) = self.sessions.get_mut(session_key) else { return false };
        let Some(state) = session.flows.get_mut(flow as usize) else { return false };
        if !session.ready || !state.pending.is_empty() || state.closed || data.len() > self.config.eager_max {
            return false;
        }
        let cost = data.len() as u64 + OVERHEAD;
        if !session.bytes.affords(cost) || !state.bytes.affords(cost) {
            return false;
        }
        let Some(slot) = session.active.and_then(|lane| self.lanes.get_mut(lane)) else { return false };
        if !slot.memory_polled || !slot.astir || slot.owner == SELF_OWNER {
            return false;
        }
        let Some(lane) = slot.lane.as_mut() else { return false };
        if lane.try_post(header, &[IoSlice::new(data)]).is_err() {
            return false;
        }
        session.bytes.take_afforded(cost);
        state.bytes.take_afforded(cost);
        session.sent += 1;
        session.traffic += 1;
        if session.sent.is_multiple_of(SENDS_PER_FLUSH) {
            // An error of this is found by whoever uses the lane next.
            let _ = lane.flush();
        }
        slot.frames_sent += 1;
        if let Some(endpoint) = self.endpoint(header.src) {
            endpoint.messages_sent += 1;
            endpoint.bytes_sent += data.len() as u64;
        }
        true
    }

    /// Takes one message from the lane that had the last one, if it is what the receive waits for and nobody else does.
    ///
    /// # Safety
    /// `receiving.data` is writable for `receiving.room` bytes and nobody else accesses them during the call.
    #[inline(always)]
    pub(crate) unsafe fn recv_quick(&mut self, receiving: &Receiving) -> Quick {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(TURNS_PER_LONG) || !self.dirty.is_empty() || !self.pulls.is_empty() {
            return Quick::Other;
        }
        let Some(slot) = self.lanes.get_mut(self.last_hot) else { return Quick::Other };
        if !slot.hot || !slot.inbound || !slot.astir || !slot.waiting.is_empty() {
            return Quick::Other;
        }
        let Some(lane) = slot.lane.as_mut() else { return Quick::Other };
        let Some(Peeked { tag, dst, src, flags, body }) = lane.peek() else { return Quick::Nothing };
        if dst != receiving.endpoint || body.len() > receiving.room || flags.contains(Flags::IMMEDIATE) {
            return Quick::Other;
        }
        let source = Source { session: slot.session.0, endpoint: src };
        let arrival = Arrival { tag, untagged: flags.contains(Flags::UNTAGGED), source: source.key() };
        if !receiving.wanted.accepts(&arrival) {
            return Quick::Other;
        }
        let Some(session) = self.sessions.get_mut(slot.session) else { return Quick::Other };
        let Some(endpoint) =
            self.endpoints.get_mut((dst as usize).wrapping_sub(1)).and_then(Option::as_deref_mut)
        else {
            return Quick::Other;
        };
        if endpoint.matcher.may_want(&arrival) {
            return Quick::Other;
        }
        let len = body.len();
        let cost = len as u64 + OVERHEAD;
        let credit = &mut endpoint.inflow(slot.session, &self.config.windows).bytes;
        if !credit.may_pass(cost) || !session.granted_bytes.may_pass(cost) {
            return Quick::Other;
        }
        credit.pass_allowed(cost);
        session.granted_bytes.pass_allowed(cost);
        let due = credit.is_due() || session.granted_bytes.is_due();
        // SAFETY: writable for `room` bytes, says the caller; `len` is at most that.
        unsafe { body.copy_to_raw(receiving.data.as_ptr(), len) };
        lane.take_peeked();
        session.received += 1;
        session.traffic += 1;
        slot.idle = 0;
        slot.frames_received += 1;
        endpoint.messages_received += 1;
        endpoint.bytes_received = endpoint.bytes_received.wrapping_add(len as u64);
        if due {
            let session = slot.session;
            self.give_credit(session, dst);
        }
        Quick::Done(Completion { len, tag, immediate: None, source })
    }

    #[cold]
    fn give_credit(&mut self, session: Key, dst: u32) {
        self.announce_credit(session, dst);
        self.pump_dirty();
    }
}
