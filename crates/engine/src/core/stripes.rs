//! Long messages over several lanes of one transport: each fragment goes on the lane with the shortest queue (ADR 12).
//!
//! Called by the pump of a session (`outbound`) and by the sink of its lanes. A stripe is a fragment outside the session's
//! sequence: it names its receive, its place in the message and the turn of the fetch, so it may come on any lane that the peer
//! listens on, in any order, and twice. Which bytes are there the receive counts. A lane that is lost gives back what it may not
//! have delivered, and that goes on another.
#![allow(unsafe_code)]

use super::inbound::Handled;
use super::op::{Op, RecvState, SendState, Way};
use super::rendezvous::post_borrowed;
use super::table::Key;
use super::{Core, LaneSlot};
use sinew_transport::{Body, Placement, PostError, Token, Unacknowledged, UnacknowledgedBody};
use sinew_wire::frame::{Header, Kind};
use sinew_wire::hello::Features;
use std::io::IoSlice;
use std::ptr::NonNull;

/// Marks tokens of stripes apart from those of fragments in sequence: no table has so many entries.
const STRIPE: u64 = 1 << 31;
/// Smallest stripe: below it, what comes with a frame costs more than another lane gains.
const STRIPE_MIN: u64 = 64 << 10;
/// Longest message that stripes can carry: their offsets have 48 bits.
const STRIPED_MAX: u64 = 1 << 48;

/// The token of a stripe from, or into, the memory of an operation.
pub(crate) const fn stripe_token(op: Key) -> Token {
    Token(op.0 | STRIPE)
}

/// The operation whose memory a token names.
pub(crate) const fn op_of(token: Token) -> Key {
    Key(token.0 & !STRIPE)
}

/// Whether a token is that of a stripe.
pub(crate) const fn is_stripe(token: Token) -> bool {
    token.0 & STRIPE != 0
}

impl Core {
    /// Whether long messages of a session go over several lanes now.
    pub(crate) fn is_striped(&self, session_key: Key) -> bool {
        let Some(session) = self.sessions.get(session_key) else { return false };
        let known = session.peer.features.contains(Features::STRIPES);
        if session.lanes.len() < 2 || !session.stripes_welcome || !known || self.is_single(session_key) {
            return false;
        }
        let joins = |lane: &Key| self.lanes.get(*lane).is_some_and(|slot| slot.joins);
        self.carriers(session_key).filter(joins).nth(1).is_some()
    }

    /// Whether one socket is all that this engine takes for the session: a second one, of a way that was tried at the same time, is
    /// there for a moment only and carries no part of its messages.
    pub(super) fn is_single(&self, session_key: Key) -> bool {
        let active = self.sessions.get(session_key).and_then(|session| session.active);
        let slot = active.and_then(|lane| self.lanes.get(lane));
        slot.is_some_and(|slot| slot.joins && self.extra_max(slot.transport) == 1)
    }

    /// The lanes of a session that may carry stripes: those of the transport that carries it, as far as the peer listens there.
    pub(crate) fn carriers(&self, session_key: Key) -> impl Iterator<Item = Key> {
        let session = self.sessions.get(session_key);
        let active = session.and_then(|session| session.active);
        let transport = active.and_then(|lane| self.lanes.get(lane)).map(|slot| slot.transport);
        let fits = move |slot: &LaneSlot, lane: Key| {
            let proven = (slot.listening && slot.proof.verified && slot.joins) || active == Some(lane);
            proven && Some(slot.transport) == transport
        };
        let lanes = session.map_or(&[][..], |session| &session.lanes);
        lanes.iter().copied().filter(move |&lane| self.lanes.get(lane).is_some_and(|slot| fits(slot, lane)))
    }

    /// The lane with the shortest queue that takes something.
    fn shortest(&self, session_key: Key) -> Option<Key> {
        let queue = |lane: Key| {
            let slot = self.lanes.get(lane)?;
            let lane = slot.lane.as_ref().filter(|_| slot.waiting.is_empty())?;
            let backlog = lane.backlog().unwrap_or_default();
            if lane.is_held_up() { None } else { Some(backlog.queued) }
        };
        let queues = self.carriers(session_key).filter_map(|lane| Some((queue(lane)?, lane)));
        queues.min_by_key(|&(queued, _)| queued).map(|(_, lane)| lane)
    }

    /// Sends fragments of what receivers fetch on all lanes of a striped session, and again what a lost lane gave back. `false`:
    /// no lane takes more now.
    pub(crate) fn pump_stripes(&mut self, session_key: Key) -> bool {
        loop {
            let Some(session) = self.sessions.get(session_key) else { return true };
            if session.again.is_empty() && session.transfers.is_empty() {
                return true;
            }
            let Some(lane_key) = self.shortest(session_key) else { return false };
            let result =
                self.post_next(session_key, lane_key).and_then(|()| self.flush_stripe(session_key, lane_key));
            match result {
                Ok(()) => {}
                Err(PostError::Full | PostError::TooLarge) => return false,
                Err(PostError::Dead(error)) => self.lane_failed(lane_key, &error),
            }
        }
    }

    /// Sends what was posted, and asks for word of it: the memory goes back to the sender on that word alone.
    fn flush_stripe(&mut self, session_key: Key, lane_key: Key) -> Result<(), PostError> {
        let active = self.sessions.get(session_key).and_then(|session| session.active);
        let Some(slot) = self.lanes.get_mut(lane_key) else { return Ok(()) };
        let Some(lane) = slot.lane.as_mut() else { return Ok(()) };
        if active != Some(lane_key) {
            // On the lane of the sequence the answer to the message brings it.
            lane.request_acknowledgement();
        }
        let result = lane.flush().map_err(PostError::Dead);
        self.stir(lane_key);
        result
    }

    /// Posts the next stripe of a session on a lane.
    fn post_next(&mut self, session_key: Key, lane_key: Key) -> Result<(), PostError> {
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        if let Some(frame) = session.again.pop_front() {
            return self.post_again_on(session_key, lane_key, frame);
        }
        let Some(op_key) = session.transfers.pop_front() else { return Ok(()) };
        let lanes = self.carriers(session_key).count() as u64;
        let Some(Op::Send(op)) = self.ops.get_mut(op_key) else { return Ok(()) };
        let SendState::Moving { receiver, next, end, turn } = op.state else { return Ok(()) };
        let Some(slot) = self.lanes.get_mut(lane_key) else { return Ok(()) };
        let Some(lane) = slot.lane.as_mut() else { return Ok(()) };
        let max = lane.info().limits.borrowed_max_of(Kind::STRIPE) as u64;
        let share = ((end - next).div_ceil(lanes.max(1)).next_multiple_of(STRIPE_MIN)).min(max);
        // `next < end <= memory.len()`, checked when the fetch came.
        let (data, len) = op.memory.piece(next as usize, (end - next).min(share) as usize);
        if len == 0 {
            op.state = SendState::Posted;
            return Ok(());
        }
        let header = Header::stripe(receiver, turn.unwrap_or(0), next);
        let result = post_borrowed(lane.as_mut(), &header, data, len, stripe_token(op_key));
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        if result.is_err() {
            session.transfers.push_front(op_key);
            return result;
        }
        op.references += 1;
        op.stripes += 1;
        slot.stripes.push(stripe_token(op_key));
        slot.frames_sent += 1;
        session.traffic += 1;
        self.counters.stripes += 1;
        let next = next + len as u64;
        op.state =
            if next == end { SendState::Posted } else { SendState::Moving { receiver, next, end, turn } };
        if next < end {
            session.transfers.push_back(op_key);
        }
        Ok(())
    }

    /// Posts a stripe that a lost lane gave back, in pieces where this lane takes shorter ones.
    fn post_again_on(
        &mut self,
        session_key: Key,
        lane_key: Key,
        frame: Unacknowledged,
    ) -> Result<(), PostError> {
        let Unacknowledged { header, body } = frame;
        let (turn, offset) = header.stripe_place();
        let len = match &body {
            UnacknowledgedBody::Owned(bytes) => bytes.len(),
            UnacknowledgedBody::Borrowed { len, .. } => *len,
        };
        let Some(lane) = self.lanes.get_mut(lane_key).and_then(|slot| slot.lane.as_mut()) else {
            return self.keep_for_again(session_key, Unacknowledged { header, body }, PostError::Full);
        };
        let limits = lane.info().limits;
        let (result, posted) = match &body {
            UnacknowledgedBody::Owned(bytes) => {
                let here = len.min(limits.frame_max);
                (lane.try_post(&header, &[IoSlice::new(&bytes[..here])]), here)
            }
            &UnacknowledgedBody::Borrowed { data, token, .. } => {
                let here = len.min(limits.borrowed_max_of(Kind::STRIPE));
                let data = NonNull::new(data.cast_mut()).unwrap_or(NonNull::dangling());
                (post_borrowed(lane.as_mut(), &header, data, here, token), here)
            }
        };
        if let Err(error) = result {
            return self.keep_for_again(session_key, Unacknowledged { header, body }, error);
        }
        // Its message may have been answered before the lane was lost: nothing else would bring word of it, not even on the lane
        // of the sequence.
        lane.request_acknowledgement();
        if let (UnacknowledgedBody::Borrowed { token, .. }, Some(slot)) =
            (&body, self.lanes.get_mut(lane_key))
        {
            slot.stripes.push(*token);
        }
        self.counters.replayed += 1;
        if posted == len {
            return Ok(());
        }
        let rest = match body {
            UnacknowledgedBody::Owned(bytes) => UnacknowledgedBody::Owned(bytes[posted..].to_vec()),
            UnacknowledgedBody::Borrowed { data, token, .. } => {
                if let Some(Op::Send(op)) = self.ops.get_mut(op_of(token)) {
                    // One frame has become two.
                    op.references += 1;
                    op.stripes += 1;
                }
                UnacknowledgedBody::Borrowed { data: data.wrapping_add(posted), len: len - posted, token }
            }
        };
        let header = Header::stripe(header.tag, turn, offset + posted as u64);
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.again.push_front(Unacknowledged { header, body: rest });
        }
        Ok(())
    }

    fn keep_for_again(
        &mut self,
        session_key: Key,
        frame: Unacknowledged,
        error: PostError,
    ) -> Result<(), PostError> {
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.again.push_front(frame);
        }
        Err(error)
    }

    /// Keeps what a lane that has ended may not have delivered: it goes on another one. Of the stripes that it `held` it cannot say
    /// any more which it had let go of: those whose memory does not come back.
    pub(crate) fn take_stripes(
        &mut self,
        session_key: Key,
        mut held: Vec<Token>,
        tail: &mut Vec<Unacknowledged>,
    ) {
        for frame in &*tail {
            if let UnacknowledgedBody::Borrowed { token, .. } = frame.body
                && let Some(at) = held.iter().position(|&other| other == token)
            {
                held.swap_remove(at);
            }
        }
        held.into_iter().for_each(|token| self.handle_released(token));
        if !tail.iter().any(|frame| frame.header.kind == Kind::STRIPE) {
            return;
        }
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let (stripes, others) =
            std::mem::take(tail).into_iter().partition(|frame| frame.header.kind == Kind::STRIPE);
        *tail = others;
        let stripes: Vec<Unacknowledged> = stripes;
        session.again.extend(stripes);
        self.mark_dirty(session_key);
    }

    /// Asks every lane of a session what the peer has: a send waits for its memory.
    pub(crate) fn ask_carriers(&mut self, session_key: Key) {
        let lanes: Vec<Key> = self.carriers(session_key).collect();
        for key in lanes {
            if let Some(lane) = self.lanes.get_mut(key).and_then(|slot| slot.lane.as_mut()) {
                lane.request_acknowledgement();
                // A lane that has failed says so when it is polled.
                let _ = lane.flush();
            }
        }
    }

    /// Where a stripe belongs, if its receive still waits for these bytes in this turn.
    fn stripe_target(&mut self, session_key: Key, header: &Header, len: usize) -> Option<NonNull<u8>> {
        let Some(Op::Recv(op)) = self.ops.get_mut(Key(header.tag)) else { return None };
        let RecvState::Fetching(fetch) = &op.state else { return None };
        let (turn, offset) = header.stripe_place();
        let end = offset.checked_add(len as u64)?;
        let wanted = fetch.way == Way::Fragments
            && fetch.turn == turn
            && fetch.envelope.session == session_key
            && end <= fetch.expected
            && fetch.arrived.is_free(offset, end);
        // SAFETY: `offset <= expected <= memory.len()`.
        wanted.then(|| unsafe { op.memory.data().add(offset as usize) })
    }

    /// A whole stripe in the lane's memory.
    pub(crate) fn handle_stripe(
        &mut self,
        session_key: Key,
        lane: Key,
        header: &Header,
        body: Body<'_>,
    ) -> Handled {
        self.check_member(session_key, lane)?;
        if let Some(target) = self.stripe_target(session_key, header, body.len()) {
            // SAFETY: the target has room for `body.len()` bytes and belongs to the receive, which is in the table.
            unsafe { body.copy_to_raw(target.as_ptr(), body.len()) };
            self.stripe_arrived(session_key, header, body.len());
        }
        Ok(())
    }

    /// A stripe begins to arrive on a lane that reads into place. Twice the same may: the bytes are the same, too.
    pub(crate) fn place_stripe(
        &mut self,
        session_key: Key,
        lane: Key,
        header: &Header,
        len: usize,
    ) -> Placement {
        if self.check_member(session_key, lane).is_err() {
            return Placement::Discard;
        }
        match self.stripe_target(session_key, header, len) {
            Some(target) => Placement::Into { target, token: stripe_token(Key(header.tag)) },
            None => Placement::Discard,
        }
    }

    /// A placed (or discarded) stripe is complete. One whose target was revoked finds its fetch over, or in another turn.
    pub(crate) fn stripe_arrived(&mut self, session_key: Key, header: &Header, len: usize) {
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.traffic += 1;
        }
        if self.stripe_target(session_key, header, len).is_some() {
            let (_, offset) = header.stripe_place();
            self.fragment_arrived(Key(header.tag), offset, len);
        }
    }

    /// Only lanes that were offered to the peer carry stripes.
    fn check_member(&self, session_key: Key, lane: Key) -> Handled {
        match self.sessions.get(session_key).is_some_and(|session| session.lanes.contains(&lane)) {
            true => Ok(()),
            false => Err("a fragment on a lane that was not offered"),
        }
    }

    /// Whether a message can go in stripes.
    pub(crate) const fn may_be_striped(end: u64) -> bool {
        end <= STRIPED_MAX
    }
}
