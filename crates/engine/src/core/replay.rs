//! What a lost lane leaves to be sent again, on a lane that may be narrower: in the old order, divided, or announced anew.
//!
//! Called by the pump, before anything new.

use super::Core;
use super::announce::ENVELOPE_MAX;
use super::inbound::OVERHEAD;
use super::op::{Charge, Memory, Op, SendOp, SendState};
use super::sends::buffered_cost;
use super::table::Key;
use sinew_transport::{Lane, Limits, PostError, Unacknowledged, UnacknowledgedBody};
use sinew_wire::frame::{Flags, Header, Kind};
use std::io::IoSlice;
use std::ptr::NonNull;

impl Core {
    pub(super) fn pump_replay(&mut self, key: Key, lane: &mut dyn Lane) -> Result<(), PostError> {
        let limits = lane.info().limits;
        loop {
            self.split_replay(key, &limits);
            if !self.announce_replay(key, &limits) {
                return Err(PostError::Full);
            }
            let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
            let Some(frame) = session.replay.front() else { return Ok(()) };
            match &frame.body {
                UnacknowledgedBody::Owned(bytes) => lane.try_post(&frame.header, &[IoSlice::new(bytes)])?,
                &UnacknowledgedBody::Borrowed { data, len, token } => {
                    let Some(data) = NonNull::new(data.cast_mut()) else { break Ok(()) };
                    super::rendezvous::post_borrowed(lane, &frame.header, data, len, token)?;
                }
            }
            session.replay.pop_front();
            self.counters.replayed += 1;
        }
    }

    /// A fragment that is longer than this lane takes becomes several, which count as frames of their own: those behind it
    /// have not been sent yet, so their numbers move with it.
    fn split_replay(&mut self, key: Key, limits: &Limits) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(front) = session.replay.front() else { return };
        let (len, piece) = match &front.body {
            UnacknowledgedBody::Owned(bytes) => (bytes.len(), limits.frame_max),
            UnacknowledgedBody::Borrowed { len, .. } => (*len, limits.borrowed_max),
        };
        if !front.header.kind.is_fragment() || len <= piece {
            return;
        }
        let Some(Unacknowledged { header, body }) = session.replay.pop_front() else { return };
        let part = |at: usize| {
            let here = piece.min(len - at);
            let body = match &body {
                UnacknowledgedBody::Owned(bytes) => UnacknowledgedBody::Owned(bytes[at..at + here].to_vec()),
                UnacknowledgedBody::Borrowed { data, token, .. } => {
                    UnacknowledgedBody::Borrowed { data: data.wrapping_add(at), len: here, token: *token }
                }
            };
            let place = Header::data(header.tag, header.offset() + at as u64);
            Unacknowledged { header: Header { kind: header.kind, ..place }, body }
        };
        let parts: Vec<Unacknowledged> = (0..len).step_by(piece).map(part).collect();
        let more = parts.len() - 1;
        session.sent += more as u64;
        self.counters.split += more as u64;
        for part in parts.into_iter().rev() {
            session.replay.push_front(part);
        }
        if let UnacknowledgedBody::Borrowed { token, .. } = body
            && let Some(Op::Send(op)) = self.ops.get_mut(Key(token.0))
        {
            op.references += more as u32;
        }
    }

    /// A whole message that is longer than this lane takes goes as an envelope in the same place of the sequence: the engine
    /// keeps its bytes until the peer has fetched them. `false`: there is no envelope left for it now.
    fn announce_replay(&mut self, key: Key, limits: &Limits) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return true };
        let Some(Unacknowledged { header, body: UnacknowledgedBody::Owned(bytes) }) = session.replay.front()
        else {
            return true;
        };
        if header.kind != Kind::EAGER || bytes.len() <= limits.frame_max {
            return true;
        }
        let Some(&flow) = session.flow_of.get(&header.dst) else { return true };
        let Some(charge) = session.charge_envelope(&session.flows[flow as usize]) else { return false };
        let Some(Unacknowledged { header, body: UnacknowledgedBody::Owned(mut bytes) }) =
            session.replay.pop_front()
        else {
            return true;
        };
        let immediate = header.flags.contains(Flags::IMMEDIATE);
        let message = bytes.split_off(if immediate { 8.min(bytes.len()) } else { 0 });
        let len = message.len();
        // The peer has not had the message, so it has counted none of it.
        session.pay_back(flow, Charge::of(&header), len as u64 + OVERHEAD);
        session.pay_envelope(flow, charge);
        session.buffered += buffered_cost(len);
        let header = Header { flags: header.flags.without(Flags::RESERVE), ..header };
        let memory = Memory::Owned(message.into());
        let op = SendOp {
            state: SendState::Announced,
            detached: true,
            buffered: true,
            ..SendOp::new((key, flow), header, None, memory)
        };
        let op = self.ops.insert(Op::Send(op));
        let mut body = Vec::with_capacity(ENVELOPE_MAX);
        body.extend(op.0.to_le_bytes());
        body.extend((len as u64).to_le_bytes());
        body.extend(bytes);
        let header = charge.mark(Header { kind: Kind::ENVELOPE, ..header });
        if let Some(session) = self.sessions.get_mut(key) {
            session.replay.push_front(Unacknowledged { header, body: UnacknowledgedBody::Owned(body) });
        }
        true
    }
}
