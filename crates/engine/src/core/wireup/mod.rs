//! Making lanes: dialling candidates one after the other, the mutual proof on each link, the probe of each lane.
//!
//! Candidates come from addresses and hellos, best expectation first; each next one starts a little later unless the ones
//! before it have failed. The first that is proven carries traffic; a better one takes over later (`failover`, `upgrade`).

mod attempt;
mod connecting;
mod history;
mod link;
mod proof;
mod upgrade;

use super::{Core, LaneSlot, Surroundings};
pub(crate) use attempt::{Attempt, AttemptState};
pub(crate) use connecting::{ConnectState, Connecting, Purpose};
pub(crate) use link::LinkSlot;
use sinew_transport::{ErrorKind, TransportError};
use std::time::{Duration, Instant};
pub(crate) use upgrade::Watch;

/// Least time between two dials to the same place of which the first has not been answered.
const BESIDE_MIN: Duration = Duration::from_millis(100);

/// Random bytes that a connection cannot do without.
fn entropy<const N: usize>(from: &dyn Surroundings) -> Result<[u8; N], TransportError> {
    from.random().map_err(|errno| TransportError::os(errno, "getrandom", ""))
}

impl Core {
    /// When dials, proofs or sessions want to be looked at.
    pub(crate) fn next_wireup_timer(&self) -> Option<Instant> {
        let links = self.links.iter().flat_map(|(_, slot)| [Some(slot.deadline), slot.again_at]).flatten();
        let proving = self.unproven.iter().filter_map(|&key| self.lanes.get(key));
        let proofs = proving.filter(|slot| !slot.proof.verified).map(|slot| slot.proof.deadline);
        let connects = self.connects.iter().filter_map(|(_, connecting)| connecting.next_timer());
        let tended = self.tend_timer();
        links
            .chain(proofs)
            .chain(connects)
            .chain(self.laneless_timer())
            .chain(self.upgrade_timer())
            .chain(tended)
            .min()
    }

    pub(crate) fn run_wireup_timers(&mut self, now: Instant) {
        self.unproven.retain(|&key| self.lanes.get(key).is_some_and(|slot| !slot.proof.verified));
        if self.links.len() == 0 && self.connects.len() == 0 && self.unproven.is_empty() {
            return self.run_session_timers(now);
        }
        for key in self.links.keys() {
            if self.links.get(key).is_some_and(|slot| slot.deadline <= now) {
                let error = TransportError::new(ErrorKind::TimedOut, "connect", "")
                    .hint("a filter drops packets, the host is down, or the program there makes no progress");
                self.link_failed(key, &error);
            }
        }
        for key in self.unproven.clone() {
            if self.lanes.get(key).is_some_and(|slot| slot.proof.deadline <= now) {
                let error = TransportError::new(ErrorKind::TimedOut, "probe", "")
                    .hint("small frames pass, full ones may not");
                self.lane_failed(key, &error);
            }
        }
        self.dial_beside(now);
        self.run_connects(now);
        self.run_session_timers(now);
    }

    fn run_session_timers(&mut self, now: Instant) {
        self.check_laneless(now);
        self.run_upgrades(now);
        self.run_tended(now);
    }

    /// How long a dial of a session without a lane may be without an answer before another one is tried beside it: the system
    /// sends the first packet of each anew too rarely for a way that is back.
    fn beside_after(&self) -> Duration {
        (self.config.peer_timeout / 16).max(BESIDE_MIN)
    }

    /// Dials of sessions without a lane that have not been answered go on alone, and their candidates are tried anew.
    fn dial_beside(&mut self, now: Instant) {
        for key in self.links.keys() {
            let Some(slot) = self.links.get_mut(key) else { continue };
            if slot.again_at.is_none_or(|at| now < at) {
                continue;
            }
            slot.again_at = None;
            if let Some((connect, index)) = slot.attempt.take() {
                self.set_attempt(connect, index, AttemptState::Untried);
            }
        }
    }

    pub(crate) fn abandon_wireup(&mut self) {
        for key in self.links.keys() {
            self.drop_link(key);
        }
        self.abandon_connects();
    }
}
