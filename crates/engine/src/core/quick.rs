//! The short way of a short message: from the caller's memory onto the lane, and from the lane into the caller's memory.
//!
//! Called under the engine's lock by blocking sends and receives before anything else. Each call either does the whole of
//! what the long way (`outbound`, `direct`, `inbound`) does for one message that meets no obstacle, or nothing at all. What
//! it must not do: anything about an obstacle. Whoever calls it takes the long way then, which finds the obstacle itself.
//!
//! # Permits
//! Most of what the long way finds out is the same for the next message. So it is found out once and kept as a [`Permit`],
//! with so much credit as is there; messages are counted in the permit and go into the books when it is settled. A permit is
//! good until anything but quick calls happens under the lock: [`Core::settle`] stands at the entry of all else, of each turn
//! of progress and of each post the long way. One to send
//! and one to receive do not disturb each other.
#![allow(unsafe_code)]

use super::inbound::OVERHEAD;
use super::op::Op;
use super::table::Key;
use super::{Core, SELF_OWNER};
use crate::completion::{Completion, Match, Source};
use sinew_proto::matching::{Arrival, Wanted};
use sinew_transport::{Lane, Peeked};
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

/// What a look for anybody's message has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Delivered {
    /// A message; its receive has ended.
    One,
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

/// What stays true of one endpoint and one lane until anything but quick calls happens.
#[derive(Debug)]
struct Permit {
    /// The endpoint that receives or sends; 0: there is no permit.
    endpoint: u32,
    /// Where it sends to.
    flow: u32,
    /// From whom it receives: what stands for the peer's engine in sources.
    engine: u32,
    session: Key,
    lane: Key,
    /// Credit that may still be used.
    credit: u64,
    /// Messages since, and their bytes.
    messages: u64,
    bytes: u64,
    /// The frame that the lane showed last was received, and is to be taken before the lane is asked for anything.
    received: bool,
}

impl Permit {
    const NONE: Self = Self {
        endpoint: 0,
        flow: 0,
        engine: 0,
        session: Key::NONE,
        lane: Key::NONE,
        credit: 0,
        messages: 0,
        bytes: 0,
        received: false,
    };

    #[inline(always)]
    fn count(&mut self, len: usize) {
        self.credit -= len as u64 + OVERHEAD;
        self.messages += 1;
        self.bytes += len as u64;
    }

    /// The next message of the permit's lane.
    #[inline(always)]
    fn look<'a>(&mut self, lane: &'a mut dyn Lane) -> Option<Peeked<'a>> {
        if std::mem::take(&mut self.received) {
            lane.take_peeked();
        }
        lane.peek()
    }

    /// Whether the message is for the permit's endpoint, plain and paid for.
    #[inline(always)]
    fn covers(&self, message: &Peeked<'_>) -> bool {
        message.dst == self.endpoint
            && message.flags.0 & (Flags::IMMEDIATE.0 | Flags::RESERVE.0) == 0
            && self.credit >= message.body.len() as u64 + OVERHEAD
    }

    /// The message that was shown last has been received.
    #[inline(always)]
    fn receive(&mut self, len: usize) {
        self.received = true;
        self.count(len);
    }

    const fn cost(&self) -> u64 {
        self.bytes + self.messages * OVERHEAD
    }
}

/// The permits of a core.
#[derive(Debug)]
pub(crate) struct Permits {
    to_send: Permit,
    to_receive: Permit,
}

impl Default for Permits {
    fn default() -> Self {
        Self { to_send: Permit::NONE, to_receive: Permit::NONE }
    }
}

/// Quick receives between turns that look at everything, while messages come in one after the other.
const TURNS_PER_LONG: u32 = 256;

impl Core {
    /// Posts one message on a lane that is polled in memory. `false`: nothing has happened, take the long way.
    #[inline(always)]
    pub(crate) fn send_quick(&mut self, session: Key, flow: u32, header: &Header, data: &[u8]) -> bool {
        let permit = &self.permits.to_send;
        if (permit.endpoint != header.src || permit.flow != flow || permit.session != session)
            && (!self.polls_memory() || !self.permit_to_send(session, flow, header.src))
        {
            return false;
        }
        let permit = &mut self.permits.to_send;
        if data.len() > self.config.eager_max || permit.credit < data.len() as u64 + OVERHEAD {
            return false;
        }
        let Some(lane) = self.lanes.get_mut(permit.lane).and_then(|slot| slot.lane.as_mut()) else {
            return false;
        };
        if lane.try_post(header, &[IoSlice::new(data)]).is_err() {
            return false;
        }
        permit.count(data.len());
        true
    }

    #[inline(never)]
    fn permit_to_send(&mut self, session_key: Key, flow: u32, src: u32) -> bool {
        self.settle_sent();
        let Some(session) = self.sessions.get_mut(session_key) else { return false };
        let Some(state) = session.flows.get_mut(flow as usize) else { return false };
        let Some(lane) = session.active else { return false };
        if !session.ready || !state.pending.is_empty() || state.closed {
            return false;
        }
        let credit = session.bytes.affordable().min(state.bytes.affordable());
        let Some(slot) = self.lanes.get_mut(lane) else { return false };
        if !slot.memory_polled || slot.owner == SELF_OWNER {
            return false;
        }
        self.stir(lane);
        self.permits.to_send =
            Permit { endpoint: src, flow, session: session_key, lane, credit, ..Permit::NONE };
        true
    }

    /// Takes one message from the lane that had the last one, if it is what the receive waits for and nobody else does.
    ///
    /// # Safety
    /// `receiving.data` is writable for `receiving.room` bytes and nobody else accesses them during the call.
    #[inline(always)]
    pub(crate) unsafe fn recv_quick(&mut self, receiving: &Receiving) -> Quick {
        if !self.may_look(receiving.endpoint) {
            return Quick::Other;
        }
        let permit = &mut self.permits.to_receive;
        let Some(lane) = self.lanes.get_mut(permit.lane).and_then(|slot| slot.lane.as_mut()) else {
            return Quick::Other;
        };
        let Some(message) = permit.look(lane.as_mut()) else { return Quick::Nothing };
        if !permit.covers(&message) || message.body.len() > receiving.room {
            return Quick::Other;
        }
        let Peeked { tag, dst, src, flags, body } = message;
        let source = Source::new(permit.session.0, permit.engine, src);
        let arrival = Arrival { tag, untagged: flags.contains(Flags::UNTAGGED), source: source.key };
        let endpoint = self.endpoints.get((dst as usize).wrapping_sub(1)).and_then(Option::as_deref);
        if !receiving.wanted.accepts(&arrival)
            || endpoint.is_none_or(|endpoint| endpoint.matcher.may_want(&arrival))
        {
            return Quick::Other;
        }
        let len = body.len();
        // SAFETY: writable for `room` bytes, says the caller; `len` is at most that.
        unsafe { body.copy_to_raw(receiving.data.as_ptr(), len) };
        permit.receive(len);
        Quick::Done(Completion { len, tag, immediate: None, source })
    }

    /// Takes one message from the lane that had the last one, if a posted receive of the endpoint waits for it.
    #[inline]
    pub(crate) fn deliver_quick(&mut self, number: u32) -> Delivered {
        if !self.may_look(number) {
            return Delivered::Other;
        }
        let permit = &mut self.permits.to_receive;
        let Some(lane) = self.lanes.get_mut(permit.lane).and_then(|slot| slot.lane.as_mut()) else {
            return Delivered::Other;
        };
        let Some(message) = permit.look(lane.as_mut()) else { return Delivered::Nothing };
        if !permit.covers(&message) {
            return Delivered::Other;
        }
        let Peeked { tag, dst, src, flags, body } = message;
        let source = Source::new(permit.session.0, permit.engine, src);
        let arrival = Arrival { tag, untagged: flags.contains(Flags::UNTAGGED), source: source.key };
        let endpoint = self.endpoints.get_mut((dst as usize).wrapping_sub(1)).and_then(Option::as_deref_mut);
        let Some(key) = endpoint.and_then(|endpoint| endpoint.matcher.arrive(&arrival)) else {
            return Delivered::Other;
        };
        let len = body.len();
        permit.receive(len);
        if let Some(Op::Recv(op)) = self.ops.get_mut(key) {
            let result = op.fill(&Completion { len, tag, immediate: None, source }, body);
            self.finish_recv(key, result);
        }
        Delivered::One
    }

    /// Whether there is a permit to look for messages of the endpoint; now and then there is none.
    #[inline(always)]
    fn may_look(&mut self, number: u32) -> bool {
        if self.permits.to_receive.endpoint != number && !self.permit_to_receive(number) {
            return false;
        }
        let turns = self.turns.wrapping_add(1);
        let may = !turns.is_multiple_of(TURNS_PER_LONG);
        if may {
            self.turns = turns;
        }
        may
    }

    #[inline(never)]
    fn permit_to_receive(&mut self, number: u32) -> bool {
        self.settle_received();
        if !self.dirty.is_empty() || !self.pulls.is_empty() {
            return false;
        }
        let lane = self.last_hot;
        let Some(slot) = self.lanes.get_mut(lane) else { return false };
        if !slot.hot || !slot.inbound || !slot.waiting.is_empty() {
            return false;
        }
        let session_key = slot.session;
        let windows = self.config.windows;
        let Some(session) = self.sessions.get_mut(session_key) else { return false };
        let Some(endpoint) =
            self.endpoints.get_mut((number as usize).wrapping_sub(1)).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        let credit = endpoint.inflow(session_key, &windows).bytes.headroom();
        let (credit, engine) = (credit.min(session.granted_bytes.headroom()), session.peer.number);
        self.stir(lane);
        self.permits.to_receive =
            Permit { endpoint: number, engine, session: session_key, lane, credit, ..Permit::NONE };
        true
    }

    /// Ends the permits and puts what was done under them into the books.
    #[inline(always)]
    pub(crate) fn settle(&mut self) {
        if self.permits.to_send.endpoint | self.permits.to_receive.endpoint != 0 {
            self.settle_now();
        }
    }

    #[inline(never)]
    fn settle_now(&mut self) {
        self.settle_sent();
        self.settle_received();
    }

    fn settle_sent(&mut self) {
        let permit = std::mem::replace(&mut self.permits.to_send, Permit::NONE);
        if permit.messages == 0 {
            return;
        }
        if let Some(session) = self.sessions.get_mut(permit.session) {
            session.bytes.take_afforded(permit.cost());
            session.flows[permit.flow as usize].bytes.take_afforded(permit.cost());
            session.sent += permit.messages;
            session.traffic += permit.messages;
        }
        if let Some(endpoint) = self.endpoint(permit.endpoint) {
            endpoint.messages_sent += permit.messages;
            endpoint.bytes_sent += permit.bytes;
        }
        if let Some(slot) = self.lanes.get_mut(permit.lane) {
            slot.frames_sent += permit.messages;
            if let Some(lane) = &mut slot.lane {
                // An error of this is found by whoever uses the lane next.
                let _ = lane.flush();
            }
        }
    }

    fn settle_received(&mut self) {
        let permit = std::mem::replace(&mut self.permits.to_receive, Permit::NONE);
        if permit.messages == 0 {
            return;
        }
        if let Some(slot) = self.lanes.get_mut(permit.lane) {
            slot.idle = 0;
            slot.frames_received += permit.messages;
            if let (true, Some(lane)) = (permit.received, &mut slot.lane) {
                lane.take_peeked();
            }
        }
        let windows = self.config.windows;
        let Some(session) = self.sessions.get_mut(permit.session) else { return };
        session.received += permit.messages;
        session.traffic += permit.messages;
        session.granted_bytes.pass_allowed(permit.cost());
        let mut due = session.granted_bytes.is_due();
        if let Some(endpoint) = self.endpoint(permit.endpoint) {
            endpoint.messages_received += permit.messages;
            endpoint.bytes_received = endpoint.bytes_received.wrapping_add(permit.bytes);
            let credit = &mut endpoint.inflow(permit.session, &windows).bytes;
            credit.pass_allowed(permit.cost());
            due |= credit.is_due();
        }
        if due {
            self.announce_credit(permit.session, permit.endpoint);
        }
    }
}
