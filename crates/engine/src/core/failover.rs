//! How a session survives its lanes (ADR 4).
//!
//! Sequenced frames are counted on both sides. A side that takes a new lane into a session first says on it how many it has
//! (`RESUME`); the other side then answers with `SWITCH` and whatever was not received, in order. A move to a better lane
//! waits until everything on the old one is acknowledged, so nothing is ever sent twice or overtakes.

use super::inbound::Handled;
use super::op::{Op, RecvState, SendState, Unexpected};
use super::session::{Session, Standing};
use super::table::Key;
use super::{Core, LaneSlot};
use crate::error::OpError;
use sinew_proto::matching::{Arrival, Pattern};
use sinew_transport::{Body, ErrorKind, LaneError, PostError, Token, UnacknowledgedBody};
use sinew_wire::frame::{Header, Kind};
use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::time::{Duration, Instant};

/// Lost sessions that are remembered.
const LOST_KEPT: usize = 1024;

/// Why a session ended, as `GOODBYE` says it.
pub(crate) const GOODBYE_CLOSED: u32 = 0;
pub(crate) const GOODBYE_VIOLATION: u32 = 1;

impl Core {
    /// Takes a verified lane into its session.
    pub(crate) fn attach_lane(&mut self, key: Key) {
        let Some(slot) = self.lanes.get_mut(key) else { return };
        let session_key = slot.session;
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if !session.lanes.contains(&key) {
            session.lanes.push(key);
        }
        session.laneless_since = None;
        let resume = Header::control(Kind::RESUME, session.received);
        self.post_unsequenced(key, resume, &[]);
    }

    /// Posts a frame outside the session's sequence on one lane; if it does not fit now, the lane is not worth having.
    pub(crate) fn post_unsequenced(&mut self, key: Key, header: Header, body: &[u8]) {
        let Some(slot) = self.lanes.get_mut(key) else { return };
        let Some(lane) = slot.lane.as_mut() else {
            slot.waiting.push((header, body.to_vec()));
            return;
        };
        if let Err(PostError::Full) = lane.try_post(&header, &[IoSlice::new(body)]) {
            slot.waiting.push((header, body.to_vec()));
        }
        let _ = lane.flush();
    }

    /// Frames outside the sequence: proofs, moves, farewells.
    pub(crate) fn handle_unsequenced(
        &mut self,
        session_key: Key,
        lane: Key,
        header: &Header,
        body: Body<'_>,
    ) -> Handled {
        match header.kind {
            Kind::PROBE => self.handle_probe(lane, header, body.len()),
            Kind::PROBE_REPLY => self.handle_probe_reply(lane, header),
            Kind::RESUME => return self.handle_resume(session_key, lane, header.tag),
            Kind::SWITCH => return self.handle_switch(session_key, lane, header.tag, header.src != 0),
            Kind::LANE_DOWN => self.handle_lane_down(session_key, lane, header.tag),
            Kind::GOODBYE => {
                let reason = body.prefix().map_or(GOODBYE_CLOSED, u32::from_le_bytes);
                self.peer_said_goodbye(session_key, reason);
            }
            _ => {}
        }
        Ok(())
    }

    /// The peer has `count` frames of ours and listens on this lane.
    fn handle_resume(&mut self, session_key: Key, lane: Key, count: u64) -> Handled {
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        if session.active == Some(lane) {
            return Ok(());
        }
        if session.active.is_some() {
            // A further lane beside a healthy one: it stands by until it is chosen.
            if self.take_lane(session_key, lane)
                && let Some(session) = self.sessions.get_mut(session_key)
            {
                session.moving_to = Some(lane);
                session.ready = false;
                self.mark_dirty(session_key);
            } else {
                self.consider_move(session_key);
            }
            return Ok(());
        }
        let oldest = session.sent - session.replay.len() as u64;
        if count > session.sent {
            return Err("a resume point beyond what was sent");
        }
        // It may have been said while an older lane still delivered and acknowledged: that counts.
        let count = count.max(oldest);
        let arrived: Vec<_> = session.replay.drain(..(count - oldest) as usize).collect();
        session.active = Some(lane);
        let peer = session.peer.id;
        for frame in arrived {
            // The lost lane cannot say any more that it let go of the memory.
            if let UnacknowledgedBody::Borrowed { token, .. } = frame.body {
                self.handle_released(token);
            }
        }
        self.take_lane(session_key, lane);
        crate::events::session_up(&peer, self.lanes.get(lane).map_or("", |slot| slot.transport));
        self.post_switch(session_key, lane, count);
        self.session_has_lane(session_key);
        self.mark_dirty(session_key);
        Ok(())
    }

    /// The peer listens on a lane: it may be sent on. `true`: an explicit connect asked for it, and the session is pinned to
    /// it from now on.
    fn take_lane(&mut self, session_key: Key, lane: Key) -> bool {
        let Some(slot) = self.lanes.get_mut(lane) else { return false };
        slot.listening = true;
        let pinned = slot.pinned;
        if pinned
            && let (Some(session), Ok(locator)) = (self.sessions.get_mut(session_key), slot.locator.parse())
        {
            session.pinned = vec![locator];
        }
        pinned
    }

    /// Says that this side sends on `lane` from frame `count` on; `src` says whether by an explicit choice.
    fn post_switch(&mut self, session_key: Key, lane: Key, count: u64) {
        let pinned = self.sessions.get(session_key).is_some_and(|session| !session.pinned.is_empty());
        let header = Header { src: u32::from(pinned), ..Header::control(Kind::SWITCH, count) };
        self.post_unsequenced(lane, header, &[]);
    }

    /// The peer sends on this lane from frame `count` on.
    fn handle_switch(&mut self, session_key: Key, lane: Key, count: u64, pinned: bool) -> Handled {
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        let Some(again) = session.received.checked_sub(count) else {
            return Err("a switch beyond the next frame");
        };
        let lanes = session.lanes.clone();
        for other in lanes {
            if let Some(slot) = self.lanes.get_mut(other) {
                slot.inbound = other == lane;
                slot.repeated = if slot.inbound { again } else { 0 };
            }
        }
        self.heat(lane);
        self.warm_socket(lane);
        self.follow_peer(session_key, lane, pinned);
        Ok(())
    }

    /// A healthy session moves its sending to where the peer's is, so that one lane serves both directions. Only one side
    /// follows, or both would change places for ever: the one with the lesser id, or the one that is not pinned.
    fn follow_peer(&mut self, session_key: Key, lane: Key, pinned: bool) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        session.peer_pinned = pinned;
        let follows = session.pinned.is_empty() && (pinned || self.id < session.peer.id);
        if follows && session.active.is_some_and(|active| active != lane) && session.moving_to != Some(lane) {
            session.moving_to = Some(lane);
            session.ready = false;
            self.mark_dirty(session_key);
        }
        self.close_idle_lanes(session_key);
    }

    /// Starts a move to a better standing-by lane, if there is one. Only the engine with the greater id decides: two that
    /// choose differently would move for ever.
    pub(crate) fn consider_move(&mut self, session_key: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let Some(active) = session.active else { return };
        if session.moving_to.is_some() || self.id < session.peer.id || !session.may_choose() {
            return;
        }
        let cost = |key: Key| self.lanes.get(key).map_or(u64::MAX, LaneSlot::cost_ns);
        let present = cost(active);
        let best = session
            .lanes
            .iter()
            .copied()
            .filter(|&lane| {
                lane != active
                    && self.lanes.get(lane).is_some_and(|slot| slot.listening && slot.proof.verified)
            })
            .min_by_key(|&lane| cost(lane));
        let Some(best) = best else { return };
        if cost(best).saturating_mul(super::wireup::HYSTERESIS_PERCENT) / 100 < present
            && let Some(session) = self.sessions.get_mut(session_key)
        {
            session.moving_to = Some(best);
            session.ready = false;
            self.mark_dirty(session_key);
        }
    }

    /// Completes a move once everything on the old lane is acknowledged. `false`: not yet.
    pub(crate) fn try_move(&mut self, session_key: Key) -> bool {
        let Some(session) = self.sessions.get_mut(session_key) else { return true };
        let Some(target) = session.moving_to else { return true };
        let Some(active) = session.active else { return true };
        if !self.lanes.get(target).is_some_and(|slot| slot.lane.is_some() && slot.listening) {
            if self.lanes.get(target).is_none() {
                session.moving_to = None;
            }
            return session.moving_to.is_none();
        }
        let Some(lane) = self.lanes.get_mut(active).and_then(|slot| slot.lane.as_mut()) else { return false };
        if lane.unacknowledged() > 0 {
            lane.request_acknowledgement();
            let _ = lane.flush();
            return false;
        }
        let Some(session) = self.sessions.get_mut(session_key) else { return true };
        session.active = Some(target);
        session.moving_to = None;
        // What a lost lane left over has not been sent again yet.
        let (count, peer) = (session.sent - session.replay.len() as u64, session.peer.id);
        let name = |key: Key| self.lanes.get(key).map_or("", |slot| slot.transport);
        crate::events::lane_moved(&peer, name(active), name(target));
        self.post_switch(session_key, target, count);
        self.session_has_lane(session_key);
        self.close_idle_lanes(session_key);
        true
    }

    /// Closes lanes that neither side sends on any more. The engine with the greater id does, as it decides.
    fn close_idle_lanes(&mut self, session_key: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        if self.id < session.peer.id {
            return;
        }
        let Some(active) = session.active else { return };
        if !self.lanes.get(active).is_some_and(|slot| slot.inbound) || session.moving_to.is_some() {
            return;
        }
        let active_cost = self.lanes.get(active).map_or(u64::MAX, LaneSlot::cost_ns);
        let idle: Vec<Key> = session
            .lanes
            .iter()
            .copied()
            .filter(|&lane| {
                lane != active
                    && self.lanes.get(lane).is_some_and(|slot| {
                        slot.listening && slot.lane.is_some() && slot.cost_ns() >= active_cost
                    })
            })
            .collect();
        for lane in idle {
            self.retire_lane(lane);
        }
    }

    /// Ends a lane that carries nothing.
    fn retire_lane(&mut self, key: Key) {
        if let Some(mut slot) = self.remove_lane(key) {
            if let Some(session) = self.sessions.get_mut(slot.session) {
                session.lanes.retain(|&lane| lane != key);
            }
            self.note(&slot, "closed: a better one carries the session");
            if let Some(lane) = slot.lane.as_mut() {
                let _ = lane.flush();
                lane.close();
            }
        }
    }

    /// The peer has given up a lane that this side may still believe in.
    fn handle_lane_down(&mut self, session_key: Key, by: Key, number: u64) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let received = session.received;
        let down = session.lanes.iter().copied().find(|&lane| {
            self.lanes.get(lane).is_some_and(|slot| u64::from(slot.number) == number && slot.lane.is_some())
        });
        if let Some(lane) = down {
            let error = LaneError::new(ErrorKind::Broken, "lane", "").hint("the peer gave it up");
            self.lane_failed(lane, &error);
        }
        // The peer, which believed in it until now, has to hear where to go on.
        self.post_unsequenced(by, Header::control(Kind::RESUME, received), &[]);
    }

    /// A lane is over: what was not acknowledged waits for another lane.
    #[cold]
    pub(crate) fn lane_failed(&mut self, key: Key, error: &LaneError) {
        let Some(mut slot) = self.remove_lane(key) else { return };
        self.counters.lanes_lost += 1;
        crate::events::lane_lost(slot.transport, &slot.locator, error);
        self.proof_failed(&slot, error);
        let tail = slot.lane.as_mut().map(|lane| lane.recover()).unwrap_or_default();
        let session_key = slot.session;
        let number = slot.number;
        let inbound = slot.inbound;
        drop(slot);
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let was_member = session.lanes.contains(&key);
        session.lanes.retain(|&lane| lane != key);
        if session.moving_to == Some(key) {
            session.moving_to = None;
            self.mark_dirty(session_key);
        }
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let was_active = session.active == Some(key);
        if was_active {
            session.active = None;
            session.ready = false;
            session.moving_to = None;
            let mut replay: VecDeque<_> =
                tail.into_iter().filter(|frame| frame.header.kind.is_sequenced()).collect();
            replay.append(&mut session.replay);
            session.replay = replay;
            self.recount_references(session_key);
        }
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if !was_member || !session.is_up() {
            return;
        }
        if error.kind == ErrorKind::PeerDead {
            self.lose_session(session_key, &format!("its process is gone ({error})"));
            return;
        }
        if session.lanes.is_empty() {
            session.laneless_since = Some(Instant::now());
            self.redial(session_key);
        } else if session.active.is_none() || inbound {
            self.fall_back(session_key, number);
        }
    }

    /// After the sending lane is gone: only what waits to be sent again refers to memory of sends. What the lane had let go
    /// of and not said yet is said here.
    fn recount_references(&mut self, session_key: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let mut held: HashMap<u64, u32> = HashMap::new();
        for frame in &session.replay {
            if let UnacknowledgedBody::Borrowed { token, .. } = frame.body {
                *held.entry(token.0).or_default() += 1;
            }
        }
        for key in self.ops.keys() {
            let Some(Op::Send(op)) = self.ops.get_mut(key) else { continue };
            if op.session != session_key || op.references == 0 {
                continue;
            }
            // One more, taken back at once by the release that ends the send if it was the last.
            op.references = held.get(&key.0).copied().unwrap_or(0) + 1;
            self.handle_released(Token(key.0));
        }
    }

    /// Another verified lane takes over from one that was lost: both sides say what they have.
    fn fall_back(&mut self, session_key: Key, lost: u32) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let Some(&lane) = session.lanes.first() else { return };
        let received = session.received;
        self.post_unsequenced(lane, Header::control(Kind::LANE_DOWN, u64::from(lost)), &[]);
        self.post_unsequenced(lane, Header::control(Kind::RESUME, received), &[]);
    }

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

    fn peer_said_goodbye(&mut self, session_key: Key, reason: u32) {
        let text = match reason {
            GOODBYE_CLOSED => "it closed its engine".to_owned(),
            GOODBYE_VIOLATION => "it says that this engine broke the protocol".to_owned(),
            other => format!("it ended the session (reason {other})"),
        };
        self.lose_session(session_key, &text);
    }

    /// Ends a session for ever: every operation of it ends now, nothing of it arrives later.
    pub(crate) fn lose_session(&mut self, session_key: Key, reason: &str) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if !session.is_up() {
            return;
        }
        let lanes = std::mem::take(&mut session.lanes);
        let mut unknown =
            session.replay.iter().filter(|frame| frame.header.kind == Kind::EAGER).count() as u64;
        session.replay.clear();
        session.outbox.clear();
        session.transfers.clear();
        session.pending_flows.clear();
        session.active = None;
        session.ready = false;
        session.moving_to = None;
        let peer = session.peer.id;
        let epoch = session.epoch;
        for key in lanes {
            let Some(mut slot) = self.remove_lane(key) else { continue };
            if let Some(lane) = slot.lane.as_mut() {
                lane.close();
                unknown += lane
                    .recover()
                    .iter()
                    .filter(|frame| counts_as_message(&frame.header, &frame.body))
                    .count() as u64;
            }
        }
        let error = OpError::PeerLost { reason: reason.to_owned(), unknown_fate: unknown };
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.standing = Standing::Lost(error.clone());
            for flow in &mut session.flows {
                flow.pending.clear();
            }
        }
        if self.session_of.get(&peer) == Some(&session_key) {
            self.session_of.remove(&peer);
        }
        self.epochs.insert(peer, epoch + 1);
        self.counters.sessions_lost += 1;
        self.end_operations_of(session_key, &error);
        self.forget_kept_of(session_key);
        self.connects_lost(session_key);
        self.bury(session_key);
        crate::events::session_lost(&peer, reason, unknown);
    }

    /// Keeps a lost session for a while, so that handles of it can say why; then its slot may be used again.
    fn bury(&mut self, session_key: Key) {
        self.lost.push_back(session_key);
        if self.lost.len() <= LOST_KEPT {
            return;
        }
        let Some(old) = self.lost.pop_front() else { return };
        for endpoint in self.endpoints.iter_mut().flatten() {
            let other = |arrival: &Arrival, _: &mut Unexpected| (arrival.source >> 32) as u32 != old.index();
            endpoint.matcher.retain_unexpected(other, |_, _| {});
        }
        self.sessions.remove(old);
    }

    fn end_operations_of(&mut self, session_key: Key, error: &OpError) {
        for key in self.ops.keys() {
            match self.ops.get_mut(key) {
                Some(Op::Send(op))
                    if op.session == session_key && !matches!(op.state, SendState::Finished(_)) =>
                {
                    op.references = 0;
                    let result = match &op.state {
                        // The receiver had said how it ended; only a lane still held the memory.
                        SendState::Releasing(result) => result.clone(),
                        _ => Err(error.clone()),
                    };
                    self.finish_send(key, result);
                }
                Some(Op::Recv(op)) => match &op.state {
                    RecvState::Fetching { envelope, .. } if envelope.session == session_key => {
                        self.finish_recv(key, Err(error.clone()));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        let index = session_key.index();
        self.direct.end_of_session(index, error);
        for number in 1..=self.endpoints.len() as u32 {
            let Some(endpoint) = self.endpoint(number) else { continue };
            let mut ended: Vec<Key> = Vec::new();
            let other = |pattern: &Pattern, _: &Key| {
                pattern.source.is_none_or(|source| (source >> 32) as u32 != index)
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
                        && session.pending_flows.is_empty()
                        && session.transfers.is_empty()
                        && session.active.and_then(|lane| self.lanes.get(lane)).is_none_or(|slot| {
                            slot.lane.as_ref().is_none_or(|lane| lane.unacknowledged() == 0)
                        }))
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
            self.close_endpoint(number);
        }
        self.abandon_wireup();
        self.domains.clear();
    }

    /// Sessions that have been without a lane for too long are lost.
    pub(crate) fn check_laneless(&mut self, now: Instant) {
        let timeout = self.config.peer_timeout;
        for key in self.sessions.keys() {
            let Some(since) = self.sessions.get(key).and_then(|session| session.laneless_since) else {
                continue;
            };
            if now.duration_since(since) >= timeout
                && self.sessions.get(key).is_some_and(super::Session::is_up)
            {
                self.lose_session(key, &format!("no lane for {timeout:?} (peer_timeout)"));
            }
        }
    }

    /// When the next laneless session is lost.
    pub(crate) fn laneless_timer(&self) -> Option<Instant> {
        let timeout: Duration = self.config.peer_timeout;
        self.sessions
            .iter()
            .filter(|(_, session)| session.is_up())
            .filter_map(|(_, session)| session.laneless_since.map(|since| since + timeout))
            .min()
    }

    /// Fails the active lane of a session, as a fault of the network would.
    pub(crate) fn cut(&mut self, session_key: Key) -> bool {
        let Some(active) = self.sessions.get(session_key).and_then(|session| session.active) else {
            return false;
        };
        let error = LaneError::new(ErrorKind::Broken, "lane", "").hint("cut on purpose");
        self.lane_failed(active, &error);
        true
    }
}

fn counts_as_message(header: &Header, _body: &UnacknowledgedBody) -> bool {
    header.kind == Kind::EAGER
}
