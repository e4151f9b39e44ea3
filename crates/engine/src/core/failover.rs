//! How a session survives its lanes (ADR 4).
//!
//! What a side sends runs in legs: a leg is a stretch of the session's sequence on one lane, begun by `SWITCH`. After a loss
//! the sender fences the last leg (`FENCE`), the receiver then says what it has (`RESUME`), and as nothing of that leg or an
//! earlier one can count any more, the next leg begins with exactly the next frame. A move to a better lane waits until
//! everything on the old one is acknowledged. So nothing is ever sent twice, overtakes or is lost.

use super::Core;
use super::ending::GOODBYE_CLOSED;
use super::inbound::Handled;
use super::op::Op;
use super::table::Key;
use super::wireup::Watch;
use sinew_transport::{Body, ErrorKind, LaneError, PostError, Token, UnacknowledgedBody};
use sinew_wire::frame::{Flags, Header, Kind};
use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;

/// Frames outside the sequence that may wait on a lane: more than one poll can ask for.
const ANSWERS_MAX: usize = 256;

impl Core {
    /// Takes a verified lane into its session.
    pub(crate) fn attach_lane(&mut self, key: Key) {
        let Some(slot) = self.lanes.get_mut(key) else { return };
        let session_key = slot.session;
        let (extra, attempt) = (slot.extra, slot.proof.attempt.take_if(|_| slot.extra));
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if !session.lanes.contains(&key) {
            session.lanes.push(key);
        }
        let carried = session.active.is_some();
        if extra {
            if let Some((connect, _)) = attempt {
                self.connects.remove(connect);
            }
            self.extra_attached(session_key);
        }
        self.post_resume(session_key, key);
        if carried {
            // Whoever waits for this lane has it: the session is carried already, and may not need another.
            self.session_has_lane(session_key);
            self.close_spares(session_key);
        }
    }

    /// Says on a lane what has arrived, and whether more of the last leg may still count.
    pub(super) fn post_resume(&mut self, session_key: Key, lane: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let running = self.inbound_lane(session_key).is_some();
        let header = Header {
            src: session.leg_in,
            dst: u32::from(!running),
            ..Header::control(Kind::RESUME, session.received)
        };
        self.post_unsequenced(lane, header, &[]);
    }

    /// The lane that the peer's present leg runs on.
    fn inbound_lane(&self, session_key: Key) -> Option<Key> {
        let lanes = &self.sessions.get(session_key)?.lanes;
        lanes.iter().copied().find(|&lane| self.lanes.get(lane).is_some_and(|slot| slot.inbound))
    }

    /// Posts a frame outside the session's sequence on one lane; if it does not fit now, the lane is not worth having.
    pub(crate) fn post_unsequenced(&mut self, key: Key, header: Header, body: &[u8]) {
        let Some(slot) = self.lanes.get_mut(key) else { return };
        let Some(lane) = slot.lane.as_mut().filter(|_| slot.waiting.is_empty()) else {
            slot.waiting.push((header, body.to_vec()));
            return;
        };
        match lane.try_post(&header, &[IoSlice::new(body)]) {
            Ok(()) if slot.beside.0 == slot.frames_sent => slot.beside.1 += 1,
            Ok(()) => slot.beside = (slot.frames_sent, 1),
            Err(PostError::Full) => slot.waiting.push((header, body.to_vec())),
            Err(_) => {}
        }
        // A lane that has failed says so when it is polled.
        let _ = lane.flush();
        self.stir(key);
    }

    /// Whether so many answers wait on a lane that the peer cannot mean well.
    fn owes_answers(&self, lane: Key) -> bool {
        self.lanes.get(lane).is_some_and(|slot| slot.waiting.len() > ANSWERS_MAX)
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
            Kind::PROBE | Kind::FENCE if self.owes_answers(lane) => {
                return Err("too many requests without reading the answers");
            }
            Kind::PROBE => self.handle_probe(lane, header, body.len()),
            Kind::PROBE_REPLY => self.handle_probe_reply(lane, header),
            Kind::RESUME => return self.handle_resume(session_key, lane, header),
            Kind::SWITCH => return self.handle_switch(session_key, lane, header),
            Kind::FENCE => self.handle_fence(session_key, lane, header.tag),
            Kind::STRIPE => return self.handle_stripe(session_key, lane, header, body),
            Kind::LANES => self.handle_lanes_wish(session_key, header.tag),
            Kind::LANE_DOWN => self.handle_lane_down(session_key, lane, header.tag),
            Kind::GOODBYE => {
                let reason = body.prefix().map_or(GOODBYE_CLOSED, u32::from_le_bytes);
                self.peer_said_goodbye(session_key, reason);
            }
            _ if header.flags.contains(Flags::OPTIONAL) => {}
            _ => return Err("a kind that this version does not know"),
        }
        Ok(())
    }

    /// The peer listens on this lane and says how many frames of ours it has.
    fn handle_resume(&mut self, session_key: Key, lane: Key, header: &Header) -> Handled {
        let (count, leg, fenced) = (header.tag, header.src, header.dst != 0);
        let Some(session) = self.sessions.get(session_key) else { return Ok(()) };
        let (active, leg_out) = (session.active, session.leg_out);
        if active == Some(lane) {
            return Ok(());
        }
        if let Some(slot) = self.lanes.get_mut(lane) {
            slot.listening = true;
            slot.spare = !fenced;
        }
        if active.is_some() {
            // A further lane beside a healthy one: it stands by until it is chosen.
            self.consider_move(session_key);
            self.close_spares(session_key);
            return Ok(());
        }
        if !fenced || leg != leg_out {
            // It was said of an earlier leg, or while frames were still arriving: exact is only what is said of a fenced one.
            self.post_fence(session_key, lane);
            return Ok(());
        }
        self.resume(session_key, lane, count)
    }

    /// Begins the next leg on `lane`: the peer has `count` frames, and that will not change before it hears of the leg.
    fn resume(&mut self, session_key: Key, lane: Key, count: u64) -> Handled {
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        let oldest = session.sent - session.replay.len() as u64;
        if count > session.sent {
            return Err("a resume point beyond what was sent");
        }
        let Some(arrived) = count.checked_sub(oldest) else {
            return Err("a resume point before what was acknowledged");
        };
        let arrived: Vec<_> = session.replay.drain(..arrived as usize).collect();
        session.active = Some(lane);
        session.laneless_since = None;
        let peer = session.peer.id;
        for frame in arrived {
            // The lost lane cannot say any more that it let go of the memory.
            if let UnacknowledgedBody::Borrowed { token, .. } = frame.body {
                self.handle_released(token);
            }
        }
        self.effects
            .tell(crate::events::session_up(&peer, self.lanes.get(lane).map_or("", |slot| slot.transport)));
        self.post_switch(session_key, lane, count);
        self.lanes_changed(session_key);
        self.session_has_lane(session_key);
        self.mark_dirty(session_key);
        Ok(())
    }

    /// Asks the peer to take nothing more of the last leg and to say what it has.
    fn post_fence(&mut self, session_key: Key, lane: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        self.post_unsequenced(lane, Header::control(Kind::FENCE, u64::from(session.leg_out)), &[]);
    }

    /// The peer has lost the lane of its leg `leg`: nothing of it counts from now on.
    fn handle_fence(&mut self, session_key: Key, by: Key, leg: u64) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let leg_in = u64::from(session.leg_in);
        if leg < leg_in {
            // Overtaken: the peer has begun another leg since.
            return;
        }
        session.leg_in = leg.min(u64::from(u32::MAX)) as u32;
        // The lane of just this leg is the one that the peer has lost; of an earlier leg it may be well.
        let lost = self.end_leg(session_key).filter(|&lane| leg == leg_in && lane != by);
        if let Some(lane) = lost.filter(|&lane| self.lanes.get(lane).is_some_and(|slot| slot.lane.is_some()))
        {
            self.lane_failed(lane, &given_up());
        }
        self.post_resume(session_key, by);
    }

    /// The lane of the peer's present leg, if there is one, carries nothing of its sequence any more, and writes to no receive's
    /// memory. One that is being polled stands between two frames and has nothing to forget.
    fn end_leg(&mut self, session_key: Key) -> Option<Key> {
        let key = self.inbound_lane(session_key)?;
        let slot = self.lanes.get_mut(key)?;
        slot.inbound = false;
        let arriving = slot.arriving.take();
        if let Some(lane) = slot.lane.as_mut() {
            if let Some(op) = arriving {
                lane.revoke(Token(op.0));
            }
            for (op, state) in self.ops.iter() {
                if matches!(state, Op::Recv(recv) if recv.fetches_from(session_key)) {
                    lane.revoke(Token(op.0));
                }
            }
        }
        if let Some(op) = arriving {
            self.stop_arriving(op);
        }
        Some(key)
    }

    /// Begins a leg: says that this side sends on `lane` from frame `count` on.
    pub(super) fn post_switch(&mut self, session_key: Key, lane: Key, count: u64) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        session.leg_out += 1;
        let header = Header { dst: session.leg_out, ..Header::control(Kind::SWITCH, count) };
        self.post_unsequenced(lane, header, &[]);
    }

    /// The peer begins a leg on this lane.
    fn handle_switch(&mut self, session_key: Key, lane: Key, header: &Header) -> Handled {
        let (count, leg) = (header.tag, header.dst);
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        if leg <= session.leg_in {
            // Its lane was lost meanwhile, and the leg is fenced.
            return Ok(());
        }
        if count != session.received {
            return Err("a switch at another frame than the next");
        }
        if !session.lanes.contains(&lane) {
            return Err("a switch to a lane that was not offered");
        }
        session.leg_in = leg;
        self.end_leg(session_key);
        if let Some(slot) = self.lanes.get_mut(lane) {
            slot.inbound = true;
        }
        self.heat(lane);
        self.warm_socket(lane);
        self.follow_peer(session_key, lane);
        self.offer_spares(session_key, lane);
        Ok(())
    }

    /// Ends a lane that carries nothing.
    pub(crate) fn retire_lane(&mut self, key: Key, why: &str) {
        if let Some(mut slot) = self.remove_lane(key) {
            if let Some(session) = self.sessions.get_mut(slot.session) {
                session.lanes.retain(|&lane| lane != key);
            }
            self.note(&slot, why);
            let mut tail = Vec::new();
            let mut arrived = 0;
            if let Some(lane) = slot.lane.as_mut() {
                // Said on the lane itself: it ends on purpose. Where there is no room the peer counts it as lost.
                let _ = lane.try_post(&Header::control(Kind::LANE_DOWN, u64::from(slot.number)), &[]);
                let _ = lane.flush();
                arrived = lane.backlog().map_or(0, |backlog| backlog.arrived);
                if lane.unacknowledged() > 0 {
                    tail = lane.recover();
                }
                lane.close();
            }
            self.take_stripes(slot.session, std::mem::take(&mut slot.stripes), &mut tail);
            self.extra_gone(slot.session, arrived);
        }
    }

    /// The peer has given up a lane that this side may still believe in, or closes the one that it says so on.
    fn handle_lane_down(&mut self, session_key: Key, by: Key, number: u64) {
        if let Some(slot) = self.lanes.get_mut(by).filter(|slot| u64::from(slot.number) == number) {
            slot.closes = true;
            return;
        }
        let Some(session) = self.sessions.get(session_key) else { return };
        let down = session.lanes.iter().copied().find(|&lane| {
            self.lanes.get(lane).is_some_and(|slot| u64::from(slot.number) == number && slot.lane.is_some())
        });
        if let Some(lane) = down {
            self.lane_failed(lane, &given_up());
        }
    }

    /// A lane is over: what was not acknowledged waits for another lane.
    #[cold]
    pub(crate) fn lane_failed(&mut self, key: Key, error: &LaneError) {
        let Some(mut slot) = self.remove_lane(key) else { return };
        if slot.closes {
            self.effects.tell(crate::events::lane_closed(slot.transport, &slot.locator));
        } else {
            self.counters.lanes_lost += 1;
            self.effects.tell(crate::events::lane_lost(slot.transport, &slot.locator, error));
        }
        self.proof_failed(&slot, error);
        let arrived = slot.lane.as_ref().and_then(|lane| lane.backlog()).map_or(0, |backlog| backlog.arrived);
        let mut tail = slot.lane.as_mut().map(|lane| lane.recover()).unwrap_or_default();
        let session_key = slot.session;
        self.take_stripes(session_key, std::mem::take(&mut slot.stripes), &mut tail);
        let number = slot.number;
        let because = format!("{}: {error}", slot.transport);
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
            // What made better lanes fail before may be over.
            session.watch = Watch::default();
            session.ready = false;
            session.moving_to = None;
            let mut replay: VecDeque<_> =
                tail.into_iter().filter(|frame| frame.header.kind.is_sequenced()).collect();
            replay.append(&mut session.replay);
            session.replay = replay;
            self.recount_references(session_key);
        }
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if !(was_member || was_active) || !session.is_up() {
            self.forget_unproven(session_key, error);
            return;
        }
        let peer = session.peer.id;
        if error.kind == ErrorKind::PeerDead {
            let reason = format!("its process is gone ({error})");
            for session in self.sessions_with(peer) {
                self.lose_session(session, &reason);
            }
            return;
        }
        if session.active.is_none() {
            session.laneless_because = because;
            // A lane that ends by silence tells that nothing has come for as long.
            let silent = (error.kind == ErrorKind::TimedOut).then(|| self.config.lane_timeout());
            let now = self.surroundings.now();
            let since = silent.and_then(|silent| now.checked_sub(silent)).unwrap_or(now);
            session.laneless_since.get_or_insert(since);
            if !self.laneless.contains(&session_key) {
                self.laneless.push(session_key);
            }
        }
        self.fall_back(session_key, number);
        self.extra_gone(session_key, arrived);
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
            op.references = held.get(&key.0).copied().unwrap_or(0) + op.stripes + 1;
            self.handle_released(Token(key.0));
        }
    }

    /// After a loss: the peer hears of it on the lanes that are left, and one of them takes over; if there is none, the peer is
    /// dialled again.
    fn fall_back(&mut self, session_key: Key, lost: u32) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let (lanes, sending) = (session.lanes.clone(), session.active.is_some());
        for &lane in &lanes {
            if !self.lanes.get(lane).is_some_and(|slot| slot.listening) {
                // Its word that it listens is still to come, and is answered then.
                continue;
            }
            self.post_unsequenced(lane, Header::control(Kind::LANE_DOWN, u64::from(lost)), &[]);
            if !sending {
                self.post_fence(session_key, lane);
            }
        }
        if !sending && lanes.is_empty() {
            self.redial(session_key);
        }
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

impl Core {
    /// The same to a lane beside the active one.
    pub(crate) fn cut_added(&mut self, session_key: Key) -> bool {
        let Some(session) = self.sessions.get(session_key) else { return false };
        let added = |lane: &Key| self.lanes.get(*lane).is_some_and(|slot| slot.extra && slot.lane.is_some());
        let Some(lane) =
            session.lanes.iter().copied().find(|lane| Some(*lane) != session.active && added(lane))
        else {
            return false;
        };
        let error = LaneError::new(ErrorKind::Broken, "lane", "").hint("cut on purpose");
        self.lane_failed(lane, &error);
        true
    }
}

/// Why a lane ends that only the peer has lost.
fn given_up() -> LaneError {
    LaneError::new(ErrorKind::Broken, "lane", "").hint("the peer gave it up")
}
