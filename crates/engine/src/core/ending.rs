//! How sessions end, and how an engine does.
//!
//! Called by the failover of lanes, by timers and by `close`. A session that is over stays over: every operation of it ends
//! now, nothing of it arrives later, and what had arrived whole stays.

use super::bundle::messages_in;
use super::lanes::LaneSlot;
use super::op::{Op, RecvState, SendState, Unexpected};
use super::session::{Session, Standing};
use super::table::Key;
use super::{Core, inbound};
use crate::error::OpError;
use sinew_proto::matching::{Arrival, Pattern};
use sinew_transport::LaneError;
use sinew_wire::frame::{Header, Kind};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Lost sessions that are remembered.
const LOST_KEPT: usize = 1024;

/// Why a session ended, as `GOODBYE` says it.
pub(crate) const GOODBYE_CLOSED: u32 = 0;
pub(crate) const GOODBYE_VIOLATION: u32 = 1;

impl Core {
    /// The peer broke the protocol on a lane: it is told, and the session is over.
    #[cold]
    pub(crate) fn violated(&mut self, key: Key, error: &LaneError) {
        let Some(slot) = self.lanes.get(key) else { return };
        let session_key = slot.session;
        self.post_unsequenced(key, Header::control(Kind::GOODBYE, 0), &GOODBYE_VIOLATION.to_le_bytes());
        if self.sessions.get(session_key).is_some() {
            self.lose_session(session_key, &format!("it broke the protocol ({error})"));
        } else {
            self.lane_failed(key, error);
        }
    }

    pub(crate) fn peer_said_goodbye(&mut self, session_key: Key, reason: u32) {
        let text = match reason {
            GOODBYE_CLOSED => "it closed its engine".to_owned(),
            GOODBYE_VIOLATION => "it says that this engine broke the protocol".to_owned(),
            other => format!("it ended the session (reason {other})"),
        };
        let under_way = self.ops.iter().any(|(_, op)| match op {
            // Its question itself may stay without an answer.
            Op::Send(op) if op.header.kind == Kind::FLUSH => false,
            Op::Send(op) => op.session == session_key && !matches!(op.state, SendState::Finished(_)),
            Op::Recv(_) => false,
        });
        self.lose_session(session_key, &text);
        if let Some(session) = self.sessions.get_mut(session_key) {
            let none = matches!(session.standing, Standing::Lost(OpError::PeerLost { unknown_fate: 0, .. }));
            session.had_all = reason == GOODBYE_CLOSED && none && !under_way;
        }
    }

    /// Whether a session is over by the peer's own will, and all that was sent had been taken before.
    pub(crate) fn had_all(&self, session: Key) -> bool {
        self.sessions.get(session).is_some_and(|session| session.had_all)
    }

    /// Ends a session for ever: every operation of it ends now, nothing of it arrives later.
    pub(crate) fn lose_session(&mut self, session_key: Key, reason: &str) {
        self.spill_bundles();
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if !session.is_up() {
            return;
        }
        let mut lanes = std::mem::take(&mut session.lanes);
        let mut unknown = session.replay.iter().map(|frame| messages_in(&frame.header)).sum::<u64>();
        // The session is remembered for long: what it needed memory for is not.
        unknown += session.parked.take().map_or(0, |parked| parked.count());
        session.replay = VecDeque::new();
        session.again = VecDeque::new();
        session.outbox = VecDeque::new();
        session.kept = HashMap::new();
        session.transfers = VecDeque::new();
        session.pending_flows = VecDeque::new();
        // Its free segments go now, the others with the buffers that lie in them.
        session.pool = None;
        session.active = None;
        session.ready = false;
        session.moving_to = None;
        let (id, number, epoch) = (session.id(), session.peer.number, session.epoch);
        // Those that are not proven yet are no members.
        let of_it = |key: &Key| self.lanes.get(*key).is_some_and(|slot| slot.session == session_key);
        lanes.extend(self.unproven.iter().copied().filter(of_it));
        for key in lanes {
            let Some(mut slot) = self.remove_lane(key) else { continue };
            if let Some(lane) = slot.lane.as_mut() {
                lane.close();
                unknown += lane.recover().iter().map(|frame| messages_in(&frame.header)).sum::<u64>();
            }
        }
        let error = OpError::PeerLost { reason: reason.to_owned(), unknown_fate: unknown };
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.standing = Standing::Lost(error.clone());
            for flow in &mut session.flows {
                flow.pending = VecDeque::new();
            }
        }
        if self.session_of.get(&id) == Some(&session_key) {
            self.session_of.remove(&id);
        }
        self.epochs.insert(id, epoch.saturating_add(1));
        self.counters.sessions_lost += 1;
        self.end_operations_of(session_key, &error);
        if self.sessions_with(id.engine).is_empty() {
            self.end_receives_from(number, &error);
        }
        self.forget_kept_of(session_key);
        self.connects_lost(session_key);
        self.bury(session_key);
        self.effects.tell(crate::events::session_lost(&id.engine, reason, unknown));
    }

    /// A session whose lanes were all lost before one was proven never was: nobody has a handle of it, and the peer, who has not
    /// heard of it, need not either.
    pub(crate) fn forget_unproven(&mut self, session_key: Key, error: &LaneError) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let unused = (session.leg_out, session.leg_in) == (0, 0) && session.laneless_since.is_none();
        let is_new = session.is_up() && unused && session.lanes.is_empty();
        let of_it = |key: &Key| self.lanes.get(*key).is_some_and(|slot| slot.session == session_key);
        if !is_new || self.unproven.iter().any(of_it) {
            return;
        }
        let (id, number) = (session.id(), session.peer.number);
        self.sessions.remove(session_key);
        if self.session_of.get(&id) == Some(&session_key) {
            self.session_of.remove(&id);
        }
        if self.sessions_with(id.engine).is_empty() {
            let reason = format!("no lane to it could be proven ({error})");
            self.end_receives_from(number, &OpError::PeerLost { reason, unknown_fate: 0 });
        }
    }

    /// Keeps a lost session for a while, so that handles of it can say why; then its slot may be used again.
    fn bury(&mut self, session_key: Key) {
        self.lost.push_back(session_key);
        if self.lost.len() <= LOST_KEPT {
            return;
        }
        let Some(old) = self.lost.pop_front() else { return };
        for endpoint in self.endpoints.iter_mut().flatten() {
            let other = |_: &Arrival, message: &mut Unexpected| inbound::kept_cost(message).session != old;
            endpoint.matcher.retain_unexpected(other, |_, _| {});
        }
        if let Some(session) = self.sessions.remove(old)
            && !self.session_of.contains_key(&session.id())
        {
            self.history.remove(&session.id());
        }
    }

    fn end_operations_of(&mut self, session_key: Key, error: &OpError) {
        for key in self.ops.keys() {
            match self.ops.get_mut(key) {
                Some(Op::Send(op))
                    if op.session == session_key && !matches!(op.state, SendState::Finished(_)) =>
                {
                    (op.references, op.stripes) = (0, 0);
                    let result = match &op.state {
                        // The receiver had said how it ended; only a lane still held the memory.
                        SendState::Releasing(result) => result.clone(),
                        _ => Err(error.clone()),
                    };
                    self.finish_send(key, result);
                }
                Some(Op::Recv(op)) => match &op.state {
                    RecvState::Fetching(fetch) if fetch.envelope.session == session_key => {
                        self.finish_recv(key, Err(error.clone()));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }

    /// No session is left with the engine of this number: receives from it alone end.
    fn end_receives_from(&mut self, engine: u32, error: &OpError) {
        self.direct.end_of_engine(engine, error);
        self.direct_batch.end_of_engine(engine, error);
        for number in 1..=self.endpoints.len() as u32 {
            let Some(endpoint) = self.endpoint(number) else { continue };
            let mut ended: Vec<Key> = Vec::new();
            let other = |pattern: &Pattern, _: &Key| {
                pattern.source.is_none_or(|source| (source >> 32) as u32 != engine)
            };
            endpoint.matcher.retain_posted(other, |op| ended.push(op));
            for key in ended {
                self.finish_recv(key, Err(error.clone()));
            }
        }
    }

    /// Envelopes of a lost session can never be fetched; messages that arrived whole stay.
    fn forget_kept_of(&mut self, session_key: Key) {
        for endpoint in self.endpoints.iter_mut().flatten() {
            let other = |_: &Arrival, message: &mut Unexpected| !matches!(message, Unexpected::Envelope { envelope, .. } if envelope.session == session_key);
            endpoint.matcher.retain_unexpected(other, |_, _| {});
            endpoint.inflows.retain(|flow| flow.session != session_key);
            endpoint.last_inflow = 0;
        }
    }

    /// Sends what waits, then says goodbye. Called in turns until it answers `true` or time is up.
    pub(crate) fn drained(&mut self) -> bool {
        let sending = self.ops.iter().any(|(_, op)| {
            matches!(op, Op::Send(send) if send.header.kind == Kind::EAGER
                && !matches!(send.state, SendState::Finished(_))
                && self.sessions.get(send.session).is_some_and(Session::is_up))
        });
        !sending
            && self.sessions.iter().all(|(_, session)| {
                !session.is_up()
                    || (session.outbox.is_empty()
                        && session.replay.is_empty()
                        && session.again.is_empty()
                        && session.parked.is_none()
                        && session.pending_flows.is_empty()
                        && session.transfers.is_empty()
                        && session
                            .active
                            .and_then(|lane| self.lanes.get(lane))
                            .is_none_or(LaneSlot::is_taken))
            })
    }

    /// Asks all lanes what the peers have, so that a close can see that all is there.
    pub(crate) fn request_acknowledgements(&mut self) {
        for key in self.lanes.keys() {
            if let Some(lane) = self.lanes.get_mut(key).and_then(|slot| slot.lane.as_mut())
                && lane.unacknowledged() > 0
            {
                lane.request_acknowledgement();
                let _ = lane.flush();
            }
        }
    }

    /// Ends everything: peers are told, operations end, descriptors close.
    pub(crate) fn shut_down(&mut self) {
        self.closed = true;
        for key in self.sessions.keys() {
            if let Some(active) = self.sessions.get(key).and_then(|session| session.active) {
                self.post_unsequenced(
                    active,
                    Header::control(Kind::GOODBYE, 0),
                    &GOODBYE_CLOSED.to_le_bytes(),
                );
            }
            self.lose_session(key, "this engine was closed");
        }
        for number in 1..=self.endpoints.len() as u32 {
            self.close_endpoint(number, &OpError::EngineClosed);
        }
        self.abandon_wireup();
        self.domains.clear();
    }

    /// Sessions that have been without a lane for too long are lost.
    pub(crate) fn check_laneless(&mut self, now: Instant) {
        if self.laneless.is_empty() {
            return;
        }
        let timeout = self.config.peer_timeout;
        let mut at = 0;
        while let Some(&key) = self.laneless.get(at) {
            let up = self.sessions.get(key).filter(|session| session.is_up());
            match up.and_then(|session| Some((session.laneless_since?, &session.laneless_because))) {
                Some((since, _)) if now.duration_since(since) < timeout => {
                    at += 1;
                    continue;
                }
                Some((_, because)) => {
                    let reason =
                        format!("no lane for {timeout:?} (peer_timeout); the last one broke ({because})");
                    self.lose_session(key, &reason);
                }
                None => {}
            }
            self.laneless.swap_remove(at);
        }
    }

    /// When the next laneless session is lost.
    pub(crate) fn laneless_timer(&self) -> Option<Instant> {
        let timeout: Duration = self.config.peer_timeout;
        let sessions = self.laneless.iter().filter_map(|&key| self.sessions.get(key));
        let waiting = sessions.filter(|session| session.is_up());
        waiting.filter_map(|session| session.laneless_since.map(|since| since + timeout)).min()
    }
}
