//! How a healthy session goes over to a better lane, and which lanes beside the one that carries it are closed.
//!
//! Called when lanes come, when they have been measured, and when the peer has moved. One side decides, the other follows. What it must
//! not do: move while anything on the old lane is unacknowledged.

use super::table::Key;
use super::{Core, LaneSlot};
use sinew_proto::select::{self, Present};

impl Core {
    /// The peer's leg runs on `lane`: it may close the others, of which it was told before that.
    pub(super) fn offer_spares(&mut self, session_key: Key, lane: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        if session.lanes.len() < 2 || session.chooses(self.id) {
            return;
        }
        let others: Vec<Key> = session.lanes.iter().copied().filter(|&other| other != lane).collect();
        for other in others {
            self.post_resume(session_key, other);
        }
    }

    /// A healthy session moves its sending to where the peer's is, if this side is the one that follows.
    pub(super) fn follow_peer(&mut self, session_key: Key, lane: Key) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if !session.chooses(self.id)
            && session.active.is_some_and(|active| active != lane)
            && session.moving_to != Some(lane)
        {
            session.moving_to = Some(lane);
            session.ready = false;
            self.mark_dirty(session_key);
        }
        self.close_idle_lanes(session_key);
    }

    /// Starts a move to a better standing-by lane, if there is one and this engine decides.
    pub(crate) fn consider_move(&mut self, session_key: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let Some(active) = session.active else { return };
        if session.moving_to.is_some() || !session.is_up() || !session.chooses(self.id) {
            return;
        }
        let cost = |key: Key| self.lanes.get(key).map_or(u64::MAX, LaneSlot::cost_ns);
        let standing_by = session.lanes.iter().copied().filter(|&lane| {
            let fit = |slot: &LaneSlot| slot.listening && slot.proof.verified && !slot.extra;
            lane != active && self.lanes.get(lane).is_some_and(fit)
        });
        let standing_by = standing_by.map(|lane| (lane, cost(lane), self.expected_ns(lane)));
        if let Some(best) = select::better(&self.present_path(active), standing_by)
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
        self.effects.tell(crate::events::lane_moved(&peer, name(active), name(target)));
        self.post_switch(session_key, target, count);
        self.lanes_changed(session_key);
        self.session_has_lane(session_key);
        self.close_idle_lanes(session_key);
        true
    }

    /// After a move: closes lanes that neither side sends on, but such as the session would move to. One that merely was measured
    /// cheaper, in a moment in which the machine was busy, would stand by for ever.
    fn close_idle_lanes(&mut self, session_key: Key) {
        self.close_idle(session_key, |slot, expected, carrier, present| {
            slot.transport == carrier.transport || !present.yields_to(slot.cost_ns(), expected)
        });
    }

    /// Closes lanes that neither side sends on, beside one of the same transport that both send on: explicit connects prove one
    /// each, and two engines that connect to each other at once make two. So are lanes that ought to be worse and were not measured better:
    /// the others of a connect whose first try took long.
    pub(crate) fn close_spares(&mut self, session_key: Key) {
        self.close_idle(session_key, |slot, expected, carrier, present| {
            let worse = || expected > present.expected && !present.yields_to(slot.cost_ns(), expected);
            slot.spare && (slot.transport == carrier.transport || worse())
        });
    }

    /// Closes idle lanes that are superfluous beside the one that carries the session: of a lane, what it should cost, the carrier, and what is
    /// known of that. The engine with the greater id does, as it decides.
    fn close_idle(
        &mut self,
        session_key: Key,
        superfluous: impl Fn(&LaneSlot, u64, &LaneSlot, &Present) -> bool,
    ) {
        let Some(session) = self.sessions.get(session_key) else { return };
        if session.lanes.len() < 2 || !session.chooses(self.id) || session.moving_to.is_some() {
            return;
        }
        let Some(active) = session.active else { return };
        let Some(carrier) = self.lanes.get(active).filter(|slot| slot.inbound) else { return };
        let present = self.present_path(active);
        let idle = |lane: &Key| {
            let slot = self.lanes.get(*lane).filter(|slot| *lane != active && slot.listening);
            // Beside another of its transport an extra one is closed by who has made it, when it does not help (`sockets`).
            let helps = |slot: &LaneSlot| slot.extra && slot.transport == carrier.transport;
            slot.is_some_and(|slot| {
                !helps(slot) && superfluous(slot, self.expected_ns(*lane), carrier, &present)
            })
        };
        let idle: Vec<Key> = session.lanes.iter().copied().filter(idle).collect();
        for lane in idle {
            if self.lanes.get(lane).is_some_and(|slot| slot.lane.is_some()) {
                self.retire_lane(lane, "closed: a better one carries the session");
            } else if let Some(session) = self.sessions.get_mut(session_key) {
                // It is being polled.
                session.crowded = true;
                self.mark_dirty(session_key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::SELF_OWNER;
    use crate::core::lanes::{Proof, RECENT};
    use crate::core::self_lane::SelfLane;
    use crate::core::session::{PeerEngine, Session};
    use crate::{Engine, Progress, Security};
    use sinew_transport::loopback::Loopback;
    use sinew_transport_tcp::{TcpOptions, TcpTransport};
    use sinew_wire::hello::Features;

    /// A lane whose round trips took so long, when it was proven and in so many looks since.
    fn lane(core: &mut Core, session: Key, (transport, rtt_ns): (&'static str, u64), looks: usize) -> Key {
        let mut recent = [None; RECENT];
        recent[..looks].fill(Some(rtt_ns));
        let proof = Proof {
            verified: true,
            rtt_ns: Some(rtt_ns),
            recent,
            ..Proof::new(0, 0, core.surroundings.now(), None)
        };
        let lane = Box::new(SelfLane::new());
        core.lanes.insert(LaneSlot {
            listening: true,
            ..LaneSlot::new(lane, transport, (SELF_OWNER, session), proof)
        })
    }

    /// Two lanes of a session, the first of which carries it: transport, round trip, and looks since it was proven.
    type Two = [(&'static str, u64); 2];

    /// Whether the other lane stays.
    fn stays([carrier, other]: Two, looks: usize, close: impl FnOnce(&mut Core, Key, Key)) -> bool {
        let builder = Engine::builder().domain("moves").security(Security::Open).progress(Progress::Event);
        let builder = builder.transport(Loopback);
        let engine = builder.transport(TcpTransport::new(TcpOptions::default())).build().unwrap();
        engine.shared().with(|core| {
            let (windows, features) = (core.config.windows, Features(0));
            let peer = PeerEngine { id: [0; 16], incarnation: 1, number: 1, locators: Vec::new(), features };
            let session = core.sessions.insert(Session::new(peer, None, 0, windows, windows));
            let active = lane(core, session, carrier, looks);
            let other = lane(core, session, other, looks);
            core.lanes.get_mut(active).unwrap().inbound = true;
            let state = core.sessions.get_mut(session).unwrap();
            state.lanes = vec![active, other];
            state.active = Some(active);
            close(core, session, other);
            let lanes = core.sessions.get(session).unwrap().lanes.clone();
            assert!(lanes.contains(&active) && core.lanes.get(active).is_some());
            assert_eq!(lanes.contains(&other), core.lanes.get(other).is_some());
            lanes.contains(&other)
        })
    }

    #[test]
    fn only_a_lane_that_a_move_would_choose_stands_by() {
        let stays = |carrier_rtt_ns, looks, other_rtt_ns| {
            let two = [("loopback", carrier_rtt_ns), ("tcp", other_rtt_ns)];
            stays(two, looks, |core, session, _| core.close_idle_lanes(session))
        };
        assert!(!stays(5_300_000, 0, 365_000), "one moment in which the machine was busy is no measurement");
        assert!(!stays(5_300_000, RECENT - 1, 365_000), "still not enough of them");
        assert!(stays(5_300_000, RECENT, 365_000), "the session would move to it");
        assert!(!stays(5_300_000, RECENT, 5_000_000), "cheaper, but not by what a move costs");
        assert!(!stays(1_000, RECENT, 365_000), "dearer");
    }

    #[test]
    fn a_spare_lane_that_ought_to_be_worse_does_not_stand_by() {
        let stays = |two, looks, spare| {
            stays(two, looks, |core, session, other| {
                core.lanes.get_mut(other).unwrap().spare = spare;
                core.close_spares(session);
            })
        };
        let worse = |other| [("loopback", 1_000_000), ("tcp", other)];
        assert!(!stays(worse(2_000_000), 0, true), "of a connect whose first try took long");
        assert!(!stays(worse(100_000), 0, true), "measured better only once");
        assert!(stays(worse(100_000), RECENT, true), "measured better");
        assert!(stays(worse(2_000_000), 0, false), "the peer may send on it");
        let better = [("tcp", 1_000_000), ("loopback", 2_000_000)];
        assert!(stays(better, RECENT, true), "it ought to be better, and is measured again and again");
    }
}
