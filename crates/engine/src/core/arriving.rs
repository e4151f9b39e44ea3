//! Whole messages that go straight into the memory of their receive while they arrive.
//!
//! Called by the sink of lanes that read into place. Such a message is matched when its head has come; at most one of a lane is
//! under way. Until its last byte has come it does not count as received: a lane that is lost in its middle has its sender send it
//! again, so its receive goes back to its old place. A receive that is given up in the middle leaves what has come to memory of the
//! engine's own, where the rest follows, and whole it waits for another. What it must not do: let anybody have the memory of a
//! receive back while a lane still writes there.
#![allow(unsafe_code)]

use super::Core;
use super::inbound::{Handled, OVERHEAD, OVERRUN, arrival, numbered};
use super::op::{Charge, Envelope, Fetch, Memory, Op, Receiver, RecvOp, RecvState, Way};
use super::ranges::Ranges;
use super::table::Key;
use crate::completion::{Completion, Source};
use sinew_transport::{Buf, Token};
use sinew_wire::frame::{Flags, Header};
use std::ptr::NonNull;

impl Core {
    /// Where a whole message of `len` bytes that begins to arrive belongs, if a receive with memory for it waits.
    pub(crate) fn place_message(
        &mut self,
        session_key: Key,
        lane: Key,
        header: &Header,
        len: usize,
    ) -> Option<(NonNull<u8>, Token)> {
        if header.flags.contains(Flags::IMMEDIATE) || self.lanes.get(lane)?.arriving.is_some() {
            return None;
        }
        let source = Source::new(session_key.0, self.sessions.get(session_key)?.peer.number, header.src);
        let arrival = arrival(header, source);
        let (key, wanted) = match self.endpoint(header.dst)?.matcher.arrive_wanted(&arrival) {
            Some(found) => found,
            None if self.direct.takes(header.dst, &arrival, len) => self.direct_to_operation(),
            None => return None,
        };
        let forgotten = self.is_revoked_later(key);
        let Some(Op::Recv(op)) = self.ops.get_mut(key) else { return None };
        let lent = matches!(op.memory, Memory::Owned(_) | Memory::Borrowed { .. });
        if !lent || op.memory.len() < len || op.handler.is_some() || forgotten {
            let endpoint = op.endpoint;
            self.post_direct_batch(endpoint);
            self.post_again(endpoint, key, wanted);
            return None;
        }
        let envelope = Envelope {
            session: session_key,
            lane,
            sender_op: 0,
            number: 0,
            len: len as u64,
            descriptor: None,
            charge: Charge::of(header),
        };
        op.state = RecvState::Fetching(Box::new(Fetch {
            envelope,
            info: Completion { len, tag: header.tag, immediate: None, source },
            arrival,
            received: 0,
            arrived: Ranges::default(),
            expected: len as u64,
            way: Way::Whole,
            turn: 0,
            wanted,
            len_max: None,
            pushed: 0,
        }));
        let target = op.memory.data();
        if let Some(slot) = self.lanes.get_mut(lane) {
            slot.arriving = Some(key);
        }
        Some((target, Token(key.0)))
    }

    /// All of a message that was placed has come: it counts as received now.
    pub(crate) fn message_placed(
        &mut self,
        session_key: Key,
        lane: Key,
        header: &Header,
        len: usize,
    ) -> Handled {
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        session.received += 1;
        session.traffic += 1;
        let number = numbered(session.received);
        let cost = len as u64 + OVERHEAD;
        let shared = Charge::of(header) == Charge::Shared;
        if shared && session.granted_bytes.pass(cost).is_err() {
            return Err(OVERRUN);
        }
        let mut due = shared && session.granted_bytes.is_due();
        let windows = self.config.windows;
        if let Some(endpoint) =
            self.endpoints.get_mut((header.dst as usize).wrapping_sub(1)).and_then(Option::as_deref_mut)
        {
            endpoint.messages_received += 1;
            endpoint.bytes_received = endpoint.bytes_received.wrapping_add(len as u64);
            let inflow = endpoint.inflow(session_key, &windows);
            let credit = if shared { &mut inflow.bytes } else { &mut inflow.reserve_bytes };
            if credit.pass(cost).is_err() {
                return Err(OVERRUN);
            }
            due |= credit.is_due();
        }
        if due {
            self.announce_credit(session_key, header.dst);
        }
        let Some(key) = self.lanes.get_mut(lane).and_then(|slot| slot.arriving.take()) else { return Ok(()) };
        let Some(Op::Recv(op)) = self.ops.get_mut(key) else { return Ok(()) };
        let RecvState::Fetching(fetch) = &op.state else { return Ok(()) };
        let (way, info) = (fetch.way, fetch.info);
        op.number = number;
        if way == Way::Whole {
            self.finish_recv(key, Ok(info));
        } else if let Some(Op::Recv(RecvOp { endpoint, untagged, memory: Memory::Owned(buf), .. })) =
            self.ops.remove(key)
        {
            self.put_back_whole(endpoint, untagged, number, &info, buf.as_slice());
        }
        Ok(())
    }

    /// A receive is given up while its message arrives: what has come moves to memory of the engine's own, and the rest follows.
    pub(crate) fn move_aside(&mut self, key: Key) {
        let Some(Op::Recv(op)) = self.ops.get(key) else { return };
        let RecvState::Fetching(fetch) = &op.state else { return };
        let lane = fetch.envelope.lane;
        let memory = Memory::Owned(Buf::zeroed(fetch.envelope.len as usize));
        let target = memory.data();
        let receiver = Receiver { endpoint: op.endpoint, order: op.order, handler: None };
        let fetch = Fetch { way: Way::Aside, ..(**fetch).clone() };
        let stand_in = RecvOp::new(receiver, op.untagged, memory, RecvState::Fetching(Box::new(fetch)));
        let Some(slot) = self.lanes.get_mut(lane).filter(|slot| slot.arriving == Some(key)) else { return };
        let Some(lane_in_use) = slot.lane.as_mut() else {
            // Not between two frames, where nothing arrives: a lane has panicked, and is gone.
            slot.arriving = None;
            self.revoked.push((lane, Token(key.0)));
            return;
        };
        let other = self.ops.insert(Op::Recv(stand_in));
        slot.arriving = Some(other);
        // SAFETY: the stand-in is in the table, its memory its own and as long as the message, until the message is whole, or
        // `stop_arriving` finds that the lane has forgotten it.
        unsafe { lane_in_use.redirect(Token(key.0), target, Token(other.0)) };
    }

    /// The lane that a message was arriving on is over, or does not count any more, and writes nowhere: its sender sends it again, and
    /// its receive waits for it in its old place.
    #[cold]
    pub(crate) fn stop_arriving(&mut self, key: Key) {
        let Some(Op::Recv(op)) = self.ops.get(key) else { return };
        let RecvState::Fetching(fetch) = &op.state else { return };
        let (endpoint, way, wanted) = (op.endpoint, fetch.way, fetch.wanted);
        if way == Way::Whole {
            self.post_direct_batch(endpoint);
            self.post_again(endpoint, key, wanted);
            // A call that only tries looks whether its message is still there.
            self.effects.finish();
        } else if way == Way::Aside
            && let Some(Op::Recv(op)) = self.ops.remove(key)
        {
            self.effects.discard(op.memory.into_buf());
        }
    }
}
