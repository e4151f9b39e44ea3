//! What this engine sends: straight to the active lane when nothing waits, else in order through flows and outboxes.

use super::inbound::OVERHEAD;
use super::op::{Charge, Memory, Op, SendOp, SendState};
use super::sends::buffered_cost;
use super::session::{Control, ControlBody, Session, Standing};
use super::stripes::{is_stripe, op_of};
use super::table::Key;
use super::{Core, SELF_OWNER};
use crate::error::OpError;
use sinew_transport::{Lane, PostError, Token};
use sinew_wire::frame::{Header, Kind};
use std::io::IoSlice;

/// Why a message could not be posted at once.
#[derive(Debug)]
pub(crate) enum Blocked {
    /// The lane or an earlier message is in the way: in a while it goes.
    Busy,
    /// The receiver's credit is spent: it comes back in a moment if the receiver takes messages.
    Credit,
    /// The receiver has not given credit for a while, or the message is too long for one frame: it goes as an envelope.
    Envelope,
    /// The session is over.
    Lost(OpError),
    /// The endpoint is closed.
    Closed,
}

impl Blocked {
    /// The error that it is, unless waiting helps.
    pub(crate) fn error(&self) -> Option<OpError> {
        match self {
            Self::Busy | Self::Credit | Self::Envelope => None,
            Self::Lost(error) => Some(error.clone()),
            Self::Closed => Some(OpError::EndpointClosed),
        }
    }
}

/// Bytes of staged messages, their overhead counted, that go out without being told to.
const STAGED_MAX: usize = 64 << 10;
/// Fragments that one transfer posts before the next one has its turn.
const FRAGMENTS_PER_TURN: usize = 16;

impl Core {
    /// Posts a whole message at once, copying it.
    #[inline]
    pub(crate) fn post_eager(
        &mut self,
        session_key: Key,
        flow: u32,
        header: &Header,
        parts: &[IoSlice<'_>],
        len: usize,
    ) -> Result<(), Blocked> {
        self.settle();
        let Some(session) = self.sessions.get_mut(session_key) else {
            return Err(Blocked::Lost(lost_unknown()));
        };
        let cost = len as u64 + OVERHEAD;
        let Some(state) = session.flows.get(flow as usize) else { return Err(Blocked::Closed) };
        if !session.ready || !state.pending.is_empty() || state.closed {
            return Err(why_blocked(session, flow));
        }
        let mut charge = Charge::Shared;
        if !session.bytes.affords(cost) || !state.bytes.affords(cost) {
            let Some(other) = session.charge(state, cost) else {
                let slot = session.active.and_then(|lane| self.lanes.get(lane));
                let unread =
                    slot.and_then(|slot| slot.lane.as_ref()).is_some_and(|lane| lane.unacknowledged() > 0);
                let surroundings = &*self.surroundings;
                let starved = session.is_starved(flow, cost, unread, surroundings, &mut self.starved_at);
                return Err(if starved { Blocked::Envelope } else { Blocked::Credit });
            };
            charge = other;
        }
        let Some(slot) = session.active.and_then(|lane| self.lanes.get_mut(lane)) else {
            return Err(Blocked::Busy);
        };
        let Some(lane) = slot.lane.as_mut() else { return Err(Blocked::Busy) };
        match lane.try_post(&charge.mark(*header), parts) {
            Ok(()) => {
                session.pay(flow, charge, cost);
                slot.count_sent(session);
                if let (Some(active), false) = (session.active, slot.astir) {
                    self.stir(active);
                }
                if let Some(endpoint) = self.endpoint(header.src) {
                    endpoint.messages_sent += 1;
                    endpoint.bytes_sent += len as u64;
                }
                Ok(())
            }
            Err(PostError::Full) => {
                session.ready = false;
                self.mark_dirty(session_key);
                Err(Blocked::Busy)
            }
            Err(PostError::TooLarge) => Err(Blocked::Envelope),
            Err(PostError::Dead(error)) => {
                let lane = session.active;
                if let Some(lane) = lane {
                    self.lane_failed(lane, &error);
                }
                Err(Blocked::Busy)
            }
        }
    }

    /// Why a message that is too long for one frame is not posted whole.
    pub(crate) fn blocked_by_size(&self, session: Key) -> Blocked {
        match self.session_error(session) {
            Ok(()) => Blocked::Envelope,
            Err(error) => Blocked::Lost(error),
        }
    }

    /// Counts a message that was posted without being flushed; enough of them go out.
    #[inline]
    pub(crate) fn staged(&mut self, session_key: Key, len: usize) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        session.staged += len + OVERHEAD as usize;
        if session.staged >= STAGED_MAX {
            session.staged = 0;
            self.flush_active(session_key);
        } else {
            self.mark_dirty(session_key);
        }
    }

    /// Sends what the active lane held back. `true`: it is a socket, and full.
    #[inline]
    pub(crate) fn flush_active(&mut self, session_key: Key) -> bool {
        let Some(active) = self.sessions.get(session_key).and_then(|session| session.active) else {
            return false;
        };
        let Some(slot) = self.lanes.get_mut(active) else { return false };
        let Some(lane) = slot.lane.as_mut() else { return false };
        match lane.flush() {
            Ok(()) if slot.owner == SELF_OWNER => {
                // Nothing but this tells a sleeping thread that there is something to poll.
                self.effects.post();
                false
            }
            Ok(()) => !slot.memory_polled && lane.is_held_up(),
            Err(error) => {
                self.lane_failed(active, &error);
                false
            }
        }
    }

    /// Whether messages wait in this process that were sent: for a socket, or for room for a bundle.
    pub(crate) fn is_held_up(&mut self, session_key: Key) -> bool {
        self.sessions.get(session_key).is_some_and(|session| session.parked.is_some())
            || self.active_lane(session_key).is_some_and(|lane| lane.is_held_up())
    }

    /// The same where nobody but the application makes progress, so that it is for its waits to see to that.
    #[inline]
    pub(crate) fn leaves_to_callers(&mut self, session_key: Key) -> bool {
        let Some(session) = self.sessions.get(session_key).filter(|_| self.by_callers) else { return false };
        let slot = session.active.and_then(|active| self.lanes.get(active));
        (slot.is_some_and(|slot| !slot.memory_polled) || session.parked.is_some())
            && self.is_held_up(session_key)
    }

    /// [`Core::leaves_to_callers`] for the peer of a send.
    #[inline]
    pub(crate) fn is_left_to_callers(&mut self, op: Key) -> bool {
        let Some(Op::Send(op)) = self.ops.get(op).filter(|_| self.by_callers) else { return false };
        let session = op.session;
        self.leaves_to_callers(session)
    }

    /// Queues a control frame; it goes out at the end of this turn.
    pub(crate) fn send_control(&mut self, session_key: Key, header: Header, body: impl Into<ControlBody>) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if !session.is_up() {
            return;
        }
        session.outbox.push_back(Control { header, body: body.into() });
        session.ready = false;
        self.mark_dirty(session_key);
    }

    /// Queues a send operation behind what waits for the same endpoint.
    pub(crate) fn enqueue(&mut self, session_key: Key, flow: u32, op: Key) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let state = &mut session.flows[flow as usize];
        if state.pending.is_empty() {
            session.pending_flows.push_back(flow);
        }
        state.pending.push_back(op);
        self.mark_dirty(session_key);
    }

    /// Sends what waits in a session, as far as the lane takes it. `false`: the lane is full, try again.
    pub(crate) fn pump(&mut self, key: Key) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return true };
        if !session.is_up() {
            return true;
        }
        if std::mem::take(&mut session.crowded) {
            self.close_spares(key);
        }
        let Some(session) = self.sessions.get_mut(key) else { return true };
        if session.moving_to.is_some() && !self.try_move(key) {
            return false;
        }
        let Some(session) = self.sessions.get_mut(key) else { return true };
        let Some(active) = session.active else { return true };
        // The word that this side sends here goes first, or what follows is taken for leftovers.
        if self.lanes.get(active).is_some_and(|slot| !slot.waiting.is_empty()) {
            self.post_waiting(active);
            if self.lanes.get(active).is_some_and(|slot| !slot.waiting.is_empty()) {
                return false;
            }
        }
        let Some(mut lane) = self.lanes.get_mut(active).and_then(|slot| slot.lane.take()) else {
            return true;
        };
        let striped = self.is_striped(key);
        let before = self.posted_by_pumps(key);
        let result = self.pump_into(key, lane.as_mut(), striped);
        let posted = self.posted_by_pumps(key).wrapping_sub(before);
        // Also where it takes no more: it may be full of what it holds back.
        let result = match result {
            Ok(_) | Err(PostError::Full) => lane.flush().map_err(PostError::Dead).and(result),
            Err(_) => result,
        };
        if !self.revoked.is_empty() {
            self.forget_revoked(active, lane.as_mut());
        }
        if let Some(slot) = self.lanes.get_mut(active) {
            slot.lane = Some(lane);
            slot.frames_sent += posted;
        }
        self.stir(active);
        match result {
            Ok(all) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.ready = all && session.moving_to.is_none();
                }
                let again = self.sessions.get(key).is_some_and(|session| !session.again.is_empty());
                (!(striped || again) || self.pump_stripes(key)) && all
            }
            Err(PostError::TooLarge) => {
                self.lose_session(key, "a message that its former lane had taken whole is longer than a frame of the lane that is left");
                true
            }
            Err(PostError::Full) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.ready = false;
                }
                false
            }
            Err(PostError::Dead(error)) => {
                self.lane_failed(active, &error);
                true
            }
        }
    }

    /// Frames of a session's sequence that were posted, but for a constant: what grows while only pumps post.
    fn posted_by_pumps(&self, key: Key) -> u64 {
        let sent = self.sessions.get(key).map_or(0, |session| session.sent);
        sent.wrapping_add(self.counters.replayed).wrapping_sub(self.counters.split)
    }

    /// `Ok(true)`: nothing is left that the lane could take.
    fn pump_into(&mut self, key: Key, lane: &mut dyn Lane, striped: bool) -> Result<bool, PostError> {
        self.pump_replay(key, lane)?;
        self.pump_parked(key, lane)?;
        self.pump_push(key, lane)?;
        self.pump_outbox(key, lane)?;
        self.pump_flows(key, lane)?;
        // Long messages of a striped session go over all lanes, once this one is back in its place.
        let all = striped || self.pump_transfers(key, lane)?;
        let starving =
            self.sessions.get_mut(key).is_some_and(|session| std::mem::take(&mut session.starving));
        Ok(all && !starving)
    }

    /// A blocking send of a short message whose credit does not come: a copy goes in its stead, and the send ends.
    #[cold]
    fn buffer_instead(&mut self, key: Key) {
        let Some(Op::Send(op)) = self.ops.get_mut(key) else { return };
        // SAFETY: the operation is in the table.
        #[allow(unsafe_code)]
        let copy = unsafe { op.memory.bytes() }.to_vec();
        let (session_key, flow, header, immediate) = (op.session, op.flow, op.header, op.immediate);
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        session.buffered += buffered_cost(copy.len());
        let memory = Memory::Owned(copy.into());
        let stand_in = SendOp {
            detached: true,
            buffered: true,
            ..SendOp::new((session_key, flow), header, immediate, memory)
        };
        let stand_in = self.ops.insert(Op::Send(stand_in));
        let state = &mut session.flows[flow as usize];
        if let Some(front) = state.pending.front_mut() {
            *front = stand_in;
        }
        session.starving = true;
        self.finish_send(key, Ok(()));
    }

    fn pump_outbox(&mut self, key: Key, lane: &mut dyn Lane) -> Result<(), PostError> {
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
        if std::mem::take(&mut session.asks) {
            lane.request_acknowledgement();
        }
        while let Some(control) = session.outbox.front() {
            if control.header.kind == Kind::DONE {
                lane.acknowledge();
            }
            lane.try_post(&control.header, &[IoSlice::new(control.body.as_slice())])?;
            if control.header.kind.is_sequenced() {
                session.sent += 1;
            }
            session.outbox.pop_front();
        }
        Ok(())
    }

    fn pump_flows(&mut self, key: Key, lane: &mut dyn Lane) -> Result<(), PostError> {
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
        for _ in 0..session.pending_flows.len() {
            let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
            let Some(flow) = session.pending_flows.pop_front() else { break };
            let result = self.pump_flow(key, flow, lane);
            if let Some(session) = self.sessions.get_mut(key)
                && !session.flows[flow as usize].pending.is_empty()
            {
                session.pending_flows.push_back(flow);
            }
            result?;
        }
        Ok(())
    }

    /// Posts or announces what waits for one endpoint, in order, until credit or room ends.
    fn pump_flow(&mut self, key: Key, flow: u32, lane: &mut dyn Lane) -> Result<(), PostError> {
        loop {
            self.pump_push(key, lane)?;
            let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
            let Some(&op) = session.flows[flow as usize].pending.front() else { return Ok(()) };
            if !self.pump_one(key, flow, op, lane)? {
                return Ok(());
            }
            if let Some(session) = self.sessions.get_mut(key) {
                let pending = &mut session.flows[flow as usize].pending;
                // One that has ended took itself out: the first is the next by now.
                if pending.front() == Some(&op) {
                    pending.pop_front();
                }
            }
        }
    }

    /// `Ok(true)`: the operation has left its queue.
    fn pump_one(&mut self, key: Key, flow: u32, op_key: Key, lane: &mut dyn Lane) -> Result<bool, PostError> {
        let Some(Op::Send(op)) = self.ops.get_mut(op_key) else { return Ok(true) };
        let Some(session) = self.sessions.get_mut(key) else { return Ok(true) };
        let state = &mut session.flows[flow as usize];
        if matches!(op.header.kind, Kind::FLUSH | Kind::LOOKUP) {
            let header = Header { tag: op_key.0, ..op.header };
            // SAFETY: the operation is in the table.
            #[allow(unsafe_code)]
            let bytes = unsafe { op.memory.bytes() };
            lane.try_post(&header, &[IoSlice::new(bytes)])?;
            session.sent += 1;
            op.state = SendState::Posted;
            return Ok(true);
        }
        if state.closed {
            self.end_send(op_key, OpError::EndpointClosed);
            return Ok(true);
        }
        let len = op.memory.len();
        let cost = len as u64 + OVERHEAD;
        let immediate = op.immediate.map(u64::to_le_bytes);
        let prefix = immediate.as_ref().map_or(&[][..], |bytes| &bytes[..]);
        let fits = len + prefix.len() <= lane.info().limits.frame_max.min(self.config.eager_max);
        let by_reference = op.memory_is_described();
        let payable =
            if fits && !by_reference { session.charge(&session.flows[flow as usize], cost) } else { None };
        if let Some(charge) = payable {
            // SAFETY: the operation is in the table.
            #[allow(unsafe_code)]
            let bytes = unsafe { op.memory.bytes() };
            lane.try_post(&charge.mark(op.header), &[IoSlice::new(prefix), IoSlice::new(bytes)])?;
            session.pay(flow, charge, cost);
            session.sent += 1;
            self.finish_send(op_key, Ok(()));
            return Ok(true);
        }
        let unread = lane.unacknowledged() > 0;
        if fits
            && !by_reference
            && !session.is_starved(flow, cost, unread, &*self.surroundings, &mut self.starved_at)
        {
            session.starving = true;
            return Ok(false);
        }
        let Some(charge) = session.charge_envelope(&session.flows[flow as usize]) else { return Ok(false) };
        if fits
            && matches!(op.memory, Memory::Borrowed { .. })
            && session.buffered + buffered_cost(len) <= self.config.send_buffer
        {
            self.buffer_instead(op_key);
            return Ok(false);
        }
        // What waits for credit has a receiver that is not there.
        self.announce(key, op_key, lane, charge, !fits)
    }

    /// Posts fragments of what receivers fetch, a few of each in turn.
    fn pump_transfers(&mut self, key: Key, lane: &mut dyn Lane) -> Result<bool, PostError> {
        let Some(session) = self.sessions.get_mut(key) else { return Ok(true) };
        let mut turns = session.transfers.len();
        while turns > 0 {
            turns -= 1;
            let Some(session) = self.sessions.get_mut(key) else { return Ok(true) };
            let Some(op) = session.transfers.pop_front() else { return Ok(true) };
            match self.post_fragments(key, op, lane, FRAGMENTS_PER_TURN) {
                Ok(true) => {}
                Ok(false) => {
                    turns += 1;
                    if let Some(session) = self.sessions.get_mut(key) {
                        session.transfers.push_back(op);
                    }
                }
                Err(error) => {
                    if let Some(session) = self.sessions.get_mut(key) {
                        session.transfers.push_front(op);
                    }
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// A lane holds no reference to the operation's memory any more.
    pub(crate) fn handle_released(&mut self, token: Token) {
        let key = op_of(token);
        let Some(Op::Send(op)) = self.ops.get_mut(key) else { return };
        op.references = op.references.saturating_sub(1);
        op.stripes = op.stripes.saturating_sub(u32::from(is_stripe(token)));
        if op.references == 0
            && let SendState::Releasing(result) = &op.state
        {
            let result = result.clone();
            self.finish_send(key, result);
        }
    }
}

fn lost_unknown() -> OpError {
    OpError::PeerLost { reason: "the session is over".into(), unknown_fate: 0 }
}

#[cold]
fn why_blocked(session: &Session, flow: u32) -> Blocked {
    match &session.standing {
        Standing::Lost(error) => Blocked::Lost(error.clone()),
        Standing::Up if session.flows.get(flow as usize).is_none_or(|flow| flow.closed) => Blocked::Closed,
        Standing::Up => Blocked::Busy,
    }
}
