//! Keeping to the best lane while traffic flows: the present one is measured again and again, better ones are tried.
//!
//! Only the engine that decides about moves looks. An idle session is not looked at.

use super::{ConnectState, Core, Purpose};
use crate::core::session::Session;
use crate::core::table::Key;
use sinew_transport::Locator;
use std::time::{Duration, Instant};

/// Between two looks at a session with traffic.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait between two trials of lanes that were not better the last time.
const TRIAL_BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a trial may take.
const TRIAL_LIMIT: Duration = Duration::from_secs(3);

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
        let sessions = self.lively.iter().filter_map(|&key| self.sessions.get(key));
        // One without a lane is not looked at before it has one again: its time would have come all the while.
        let looked_at =
            |session: &&Session| session.traffic > 0 && session.active.is_some() && session.is_up();
        let busy = sessions.filter(looked_at);
        busy.filter_map(|session| session.watch.look_at).min()
    }

    /// Looks at sessions with traffic whose time has come.
    pub(crate) fn run_upgrades(&mut self, now: Instant) {
        let mut at = 0;
        while let Some(&key) = self.lively.get(at) {
            if !self.stays_lively(key) {
                self.lively.swap_remove(at);
                continue;
            }
            at += 1;
            let Some(session) = self.sessions.get_mut(key) else { continue };
            // Of one that is pinned there is nothing to choose.
            let chooses = session.is_up() && session.pinned.is_none() && session.chooses(self.id);
            if session.traffic == 0 || session.active.is_none() || !chooses {
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

    /// Whether a session has had traffic, or its lanes may have some without saying so anew.
    fn stays_lively(&mut self, key: Key) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let astir = |&lane: &Key| self.lanes.get(lane).is_some_and(|slot| slot.astir);
        session.lively = session.traffic > 0 || session.lanes.iter().any(astir);
        session.lively
    }

    /// Measures the active lane again, moves if a better one stands by, and tries candidates that should be better.
    fn look_at_session(&mut self, key: Key, now: Instant) {
        let Some(active) = self.sessions.get(key).and_then(|session| session.active) else { return };
        let Some(slot) = self.lanes.get(active) else { return };
        if slot.transport == "self" {
            return;
        }
        let present = self.present_path(active);
        self.measure_again(key);
        self.consider_move(key);
        let Some(session) = self.sessions.get(key) else { return };
        if session.moving_to.is_some() || session.watch.trial_at.is_some_and(|at| now < at) {
            return;
        }
        let expected = Some((session.peer.id, session.peer.incarnation));
        // What stands by already is measured, and need not be tried.
        let stands_by = |transport| {
            let of_it = |&lane: &Key| self.lanes.get(lane).is_some_and(|slot| slot.transport == transport);
            session.lanes.iter().any(of_it)
        };
        let locators = session.peer.locators.iter();
        let better: Vec<Locator> = locators
            .filter(|locator| {
                let domain = self.domains.iter().find(|slot| slot.domain.understands(locator.scheme()));
                domain.is_some_and(|domain| {
                    let costs = domain.cost.predict_ns(64);
                    !stands_by(domain.name) && present.yields_to(costs, costs)
                })
            })
            .cloned()
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
