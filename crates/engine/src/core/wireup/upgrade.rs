//! Keeping to the best lane while traffic flows: the present one is measured again and again, better ones are tried.
//!
//! Only the engine with the greater id looks, as it alone decides about moves. An idle session is not looked at.

use super::{ConnectState, Core, Purpose};
use crate::core::table::Key;
use sinew_transport::Locator;
use std::time::{Duration, Instant};

/// Between two looks at a session with traffic.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait between two trials of lanes that were not better the last time.
const TRIAL_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a trial may take.
const TRIAL_LIMIT: Duration = Duration::from_secs(3);
/// Percent by which an alternative must be better: a change costs a round trip without traffic.
pub(crate) const HYSTERESIS_PERCENT: u64 = 115;

/// When a session is looked at, and how patient trials have become.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) look_at: Option<Instant>,
    trial_at: Option<Instant>,
    backoff: Duration,
}

impl Default for Watch {
    fn default() -> Self {
        Self { look_at: None, trial_at: None, backoff: LOOK_EVERY }
    }
}

impl Core {
    /// When the next session with traffic wants to be looked at.
    pub(crate) fn upgrade_timer(&self) -> Option<Instant> {
        self.sessions
            .iter()
            .filter(|(_, session)| session.traffic > 0 && session.is_up())
            .filter_map(|(_, session)| session.watch.look_at)
            .min()
    }

    /// Looks at sessions with traffic whose time has come.
    pub(crate) fn run_upgrades(&mut self, now: Instant) {
        let mut at = 0;
        while let Some(key) = self.sessions.next_key_from(&mut at) {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            if session.traffic == 0
                || session.active.is_none()
                || self.id < session.peer.id
                || !session.may_choose()
            {
                continue;
            }
            match session.watch.look_at {
                None => session.watch.look_at = Some(now + LOOK_EVERY),
                Some(at) if at <= now => {
                    session.traffic = 0;
                    session.watch.look_at = Some(now + LOOK_EVERY);
                    self.look_at_session(key, now);
                }
                Some(_) => {}
            }
        }
    }

    /// Measures the active lane again, moves if a better one stands by, and tries candidates that should be better.
    fn look_at_session(&mut self, key: Key, now: Instant) {
        let Some(active) = self.sessions.get(key).and_then(|session| session.active) else { return };
        let Some(slot) = self.lanes.get_mut(active) else { return };
        if slot.transport == "self" {
            return;
        }
        let (present, transport, measured) = (slot.cost_ns(), slot.transport, slot.is_well_measured());
        let promised = self.expected_ns(active);
        self.measure_again(key);
        self.consider_move(key);
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.moving_to.is_some() || session.watch.trial_at.is_some_and(|at| now < at) {
            return;
        }
        let expected = Some((session.peer.id, session.peer.incarnation));
        let locators = session.peer.locators.clone();
        let better: Vec<Locator> = locators
            .into_iter()
            .filter(|locator| {
                let domain = self.domains.iter().find(|slot| slot.domain.understands(locator.scheme()));
                domain.is_some_and(|domain| {
                    domain.name != transport
                        && (measured || domain.cost.predict_ns(64) <= promised)
                        && domain.cost.predict_ns(64).saturating_mul(HYSTERESIS_PERCENT) / 100 < present
                })
            })
            .collect();
        if better.is_empty() {
            return;
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.watch.trial_at = Some(now + session.watch.backoff);
            session.watch.backoff = (session.watch.backoff * 2).min(TRIAL_BACKOFF_MAX);
        }
        let trial = self.start_connect(expected, better, now + TRIAL_LIMIT, Purpose::Trial(key));
        if !matches!(self.connect_state(trial), ConnectState::Waiting) {
            self.end_connect(trial);
        }
    }

    /// Probes every proven lane of a session: one sample is luck, the best of a few is the lane.
    fn measure_again(&mut self, session: Key) {
        let Some(session) = self.sessions.get(session) else { return };
        for lane in session.lanes.clone() {
            let Some(slot) = self.lanes.get_mut(lane) else { continue };
            if !slot.proof.verified || slot.lane.is_none() {
                continue;
            }
            // One at a time: an answer belongs to the probe that was sent last.
            if slot.proof.sent_at.is_some() {
                continue;
            }
            self.send_look(lane);
        }
    }
}
