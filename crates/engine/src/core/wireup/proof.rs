//! Proving lanes by round trips on the data path itself, at first and while they carry traffic.

use super::attempt::failed;
use super::{AttemptState, Core, LaneSlot};
use crate::core::lanes::Proof;
use crate::core::session::{PeerEngine, Session, SessionId};
use crate::core::table::Key;
use sinew_transport::LaneError;
use sinew_wire::frame::{Header, Kind};

/// Round trips that prove a lane: small ones, of which the shortest counts as a busy machine makes any of them long, and a
/// full one.
pub(super) const PROBES: u8 = 5;
/// Round trips of one look at a lane that carries traffic, of which the shortest counts likewise.
const TRIPS_PER_LOOK: u8 = 4;

impl Core {
    /// Sends the next probe of a lane: first small ones, then one as large as the lane takes.
    pub(super) fn send_probe(&mut self, key: Key) {
        let Some(slot) = self.lanes.get_mut(key) else { return };
        let len = if slot.proof.left > 1 { 8 } else { slot.frame_max };
        let header = Header::control(Kind::PROBE, slot.proof.nonce);
        slot.proof.sent_at = Some(self.surroundings.now());
        self.post_unsequenced(key, header, &vec![0x5a; len]);
    }

    pub(crate) fn handle_probe(&mut self, lane: Key, header: &Header, len: usize) {
        // The peer's lane may take longer frames than this side's.
        let len = len.min(self.lanes.get(lane).map_or(0, |slot| slot.frame_max));
        self.post_unsequenced(lane, Header::control(Kind::PROBE_REPLY, header.tag), &vec![0xa5; len]);
    }

    /// A round trip of a look at a lane that carries traffic. The next one follows at once, as both sides are awake now.
    fn looked(&mut self, lane: Key, took: u64) {
        let Some(slot) = self.lanes.get_mut(lane) else { return };
        let proof = &mut slot.proof;
        if proof.look == 0 {
            proof.recent.rotate_right(1);
            proof.recent[0] = None;
        }
        proof.recent[0] = Some(proof.recent[0].map_or(took, |best| best.min(took)));
        proof.look += 1;
        if proof.look < TRIPS_PER_LOOK {
            self.send_look(lane);
        } else {
            proof.look = 0;
        }
    }

    pub(crate) fn send_look(&mut self, lane: Key) {
        let Some(slot) = self.lanes.get_mut(lane) else { return };
        let nonce = slot.proof.nonce;
        slot.proof.sent_at = Some(self.surroundings.now());
        self.post_unsequenced(lane, Header::control(Kind::PROBE, nonce), &[0x5a; 8]);
    }

    pub(crate) fn handle_probe_reply(&mut self, lane: Key, header: &Header) {
        let now = self.surroundings.now();
        let Some(slot) = self.lanes.get_mut(lane) else { return };
        let proof = &mut slot.proof;
        if header.tag != proof.nonce {
            return;
        }
        let took = proof
            .sent_at
            .take()
            .map_or(0, |at| u64::try_from(now.saturating_duration_since(at).as_nanos()).unwrap_or(u64::MAX));
        if proof.left == 0 {
            return self.looked(lane, took);
        }
        if proof.left > 1 {
            proof.rtt_ns = Some(proof.rtt_ns.map_or(took, |known| known.min(took)));
        } else {
            proof.full_rtt_ns = Some(took);
        }
        proof.left -= 1;
        proof.nonce = proof.nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        if proof.left > 0 {
            self.send_probe(lane);
            return;
        }
        self.lane_proven(lane);
    }

    fn lane_proven(&mut self, key: Key) {
        let Some(slot) = self.lanes.get_mut(key) else { return };
        slot.proof.verified = true;
        let (rtt_ns, full_rtt_ns) = (slot.proof.rtt_ns, slot.proof.full_rtt_ns);
        if let Some((connect, index)) = slot.proof.attempt
            && let Some(attempt) =
                self.connects.get_mut(connect).and_then(|connect| connect.attempts.get_mut(index))
        {
            attempt.state = AttemptState::Verified(key);
            (attempt.rtt_ns, attempt.full_rtt_ns) = (rtt_ns, full_rtt_ns);
        }
        self.attach_lane(key);
    }

    /// A lane ended before or after it was proven: its candidate failed.
    pub(crate) fn proof_failed(&mut self, slot: &LaneSlot, error: &LaneError) {
        self.note(slot, &error.to_string());
        if let Some((connect, index)) = slot.proof.attempt {
            self.set_attempt(connect, index, failed(error));
            self.advance_connect(connect, self.surroundings.now());
        }
    }

    /// The session of the engine with itself.
    pub(crate) fn self_session(&mut self) -> Key {
        let id = SessionId { engine: self.id, pinned: None };
        if let Some(&known) = self.session_of.get(&id) {
            return known;
        }
        let windows = self.config.windows;
        let (incarnation, number) = (self.incarnation, self.number_for(self.id));
        let peer = PeerEngine {
            id: self.id,
            incarnation,
            number,
            locators: Vec::new(),
            features: self.config.features,
        };
        let session = self.sessions.insert(Session::new(peer, None, 0, windows, windows));
        self.session_of.insert(id, session);
        let proof = Proof { verified: true, ..Proof::new(0, 0, self.surroundings.now(), None) };
        let own = Box::new(crate::core::self_lane::SelfLane::new());
        let lane = self.lanes.insert(LaneSlot {
            number: 1,
            locator: "self".to_owned(),
            inbound: true,
            listening: true,
            ..LaneSlot::new(own, "self", (crate::core::SELF_OWNER, session), proof)
        });
        if let Some(session) = self.sessions.get_mut(session) {
            session.lanes.push(lane);
            session.active = Some(lane);
            session.ready = true;
        }
        self.heat(lane);
        session
    }
}
