//! Turns of progress: which lanes are polled, when descriptors and timers are looked at, and what waits is sent.
//!
//! Called by whoever waits, by the background thread and by event loops, under the lock. Nothing here blocks but [`Core::look`] with a
//! timeout, for which the caller answers.

use super::lanes::{BUDGET, LaneSlot};
use super::table::Key;
use super::{Core, Owner};
use sinew_transport::Event;
use std::time::{Duration, Instant};

/// Idle turns between looks at descriptors while memory-polled lanes are spun on: one look costs as much as several messages.
const TURNS_PER_LOOK: u32 = 128;
/// Turns between looks at descriptors while a socket is busy: a look hands up what nobody waits for yet, which costs more.
const TURNS_PER_LOOK_SOCKET: u32 = 512;
/// Turns between looks at descriptors while memory-polled lanes are busy, so that they starve no socket.
const TURNS_PER_LOOK_BUSY: u32 = 4096;
/// Idle turns, and busy ones, between looks at lanes that were cooled.
const TURNS_PER_WARM: u32 = 2;
const TURNS_PER_WARM_BUSY: u32 = 64;
/// Between two rounds of timers while the engine spins.
const TIMERS_EVERY: Duration = Duration::from_millis(1);

impl Core {
    /// One turn of progress: what has arrived is handled, what waits is sent. Never blocks. Returns how much was done.
    pub(crate) fn progress(&mut self) -> usize {
        let done = self.turn(BUDGET);
        if !self.behind.is_empty() {
            // No descriptor tells of what a lane holds back, and the caller may not come again: sleepers take over.
            self.effects.finish();
        }
        done
    }

    /// A turn for whoever waits for one thing: each lane hands up at most `budget` frames, the others stay where they are
    /// until somebody wants them, and other sources than the busiest lanes are looked at now and then only.
    #[inline]
    pub(crate) fn turn(&mut self, budget: usize) -> usize {
        self.settle();
        self.turn_settled(budget)
    }

    /// [`Core::turn`] of a core that is settled, but perhaps for bundles: the lane of those is left out.
    pub(crate) fn turn_settled(&mut self, budget: usize) -> usize {
        let mut done = 0;
        for index in 0..self.hot.len() {
            if let Some(&lane) = self.hot.get(index) {
                done += self.poll_lane(lane, budget);
            }
        }
        if !self.behind.is_empty() {
            done += self.poll_behind(budget);
        }
        self.turns = self.turns.wrapping_add(1);
        if done == 0 {
            self.idle_turns = self.idle_turns.wrapping_add(1);
            if self.hot.is_empty() || self.idle_turns.is_multiple_of(TURNS_PER_WARM) {
                done = self.turn_aside(budget);
            }
        } else {
            self.idle_turns = 0;
            if self.turns.is_multiple_of(TURNS_PER_WARM_BUSY) {
                done += self.poll_warm();
            }
            let often = if self.hot.is_empty() { TURNS_PER_LOOK_SOCKET } else { TURNS_PER_LOOK_BUSY };
            if self.turns.is_multiple_of(often) {
                done += self.look(Some(Duration::ZERO));
            }
        }
        if std::mem::take(&mut self.look_due) {
            done += self.look(Some(Duration::ZERO));
        }
        if !self.pulls.is_empty() {
            self.pull_described();
        }
        if !self.dirty.is_empty() {
            self.pump_dirty();
        }
        done
    }

    /// Whether a turn looks at memory, and not at sockets alone.
    pub(crate) fn polls_memory(&self) -> bool {
        !self.hot.is_empty()
    }

    /// Whether the socket that was busy last has frames in memory.
    #[inline]
    pub(crate) fn socket_has_more(&self) -> bool {
        let slot = self.hot_socket.and_then(|key| self.lanes.get(key));
        slot.and_then(|slot| slot.lane.as_ref()).is_some_and(|lane| lane.has_more())
    }

    /// What a turn does beside memory-polled lanes.
    fn turn_aside(&mut self, budget: usize) -> usize {
        let look = self.idle_turns.is_multiple_of(TURNS_PER_LOOK);
        let mut done = self.poll_warm();
        if let Some(lane) = self.hot_socket
            && (self.hot.is_empty() || look)
        {
            done += self.poll_lane(lane, budget);
        }
        if done == 0 && (look || (self.hot.is_empty() && self.hot_socket.is_none())) {
            done += self.look(Some(Duration::ZERO));
        }
        done
    }

    /// Waits for descriptors up to `timeout` and handles what is ready, and timers. The caller must not hold the lock for
    /// longer than it means to: only zero waits happen inside it.
    pub(crate) fn look(&mut self, timeout: Option<Duration>) -> usize {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        if self.poller.wait(timeout, &mut events).is_err() {
            events.clear();
        }
        let done = self.dispatch(&events);
        self.events = events;
        let now = self.surroundings.now();
        if now < self.timers_at {
            return done;
        }
        self.timers_at = now + TIMERS_EVERY;
        self.run_timers(now);
        done
    }

    /// Handles readiness that was found outside the lock.
    pub(crate) fn dispatch(&mut self, events: &[Event]) -> usize {
        let mut done = 0;
        for &event in events {
            match self.owners.get(event.key.owner as usize).copied() {
                Some(Owner::Waker) => self.effects.finish(),
                Some(Owner::Domain(index)) => done += self.domain_event(index, event),
                Some(Owner::Link(key)) => done += self.link_event(key),
                Some(Owner::Lane(key)) => {
                    if let Some(lane) = self.lanes.get_mut(key).and_then(|slot| slot.lane.as_mut()) {
                        lane.handle_event(event);
                    }
                    self.stir(key);
                    done += self.poll_lane(key, BUDGET);
                    self.warm_socket(key);
                }
                Some(Owner::Free) | None => {}
            }
        }
        done
    }

    fn domain_event(&mut self, index: usize, event: Event) -> usize {
        if let Some(slot) = self.domains.get_mut(index) {
            slot.domain.handle_event(event);
        }
        self.accept_from(index) + self.poll_warm()
    }

    /// Lanes that had been cooled and have something.
    fn poll_warm(&mut self) -> usize {
        let mut warm = std::mem::take(&mut self.warm);
        for slot in &mut self.domains {
            slot.domain.poll_warm(&mut warm);
        }
        let mut done = 0;
        for owner in warm.drain(..) {
            if let Some(Owner::Lane(key)) = self.owners.get(owner as usize).copied() {
                self.heat(key);
                done += self.poll_lane(key, BUDGET);
            }
        }
        self.warm = warm;
        done
    }

    /// Announces sleep to all domains, until [`Core::disarm`]. `false`: something is there, do not sleep.
    pub(crate) fn arm(&mut self) -> bool {
        let left = |&key: &Key| {
            self.lanes.get(key).and_then(|slot| slot.lane.as_ref()).is_some_and(|lane| lane.has_more())
        };
        self.behind.is_empty()
            && !self.hot.iter().any(left)
            && self.domains.iter_mut().all(|slot| slot.domain.arm())
    }

    pub(crate) fn disarm(&mut self) {
        for slot in &mut self.domains {
            slot.domain.disarm();
        }
    }

    /// When something must be done although nothing arrives. `None`: never, as for an idle engine.
    pub(crate) fn next_timer(&mut self, now: Instant) -> Option<Instant> {
        let lanes = &self.lanes;
        let lane_timers = self
            .astir
            .iter()
            .filter_map(|&key| lanes.get(key).and_then(|slot| slot.lane.as_ref()?.next_timer()))
            .min();
        let blocked = (!self.dirty.is_empty()).then(|| now + Duration::from_millis(1));
        if self.starved_at.is_some_and(|at| at <= now) {
            self.starved_at = None;
        }
        lane_timers.into_iter().chain(self.next_wireup_timer()).chain(blocked).chain(self.starved_at).min()
    }

    pub(crate) fn run_timers(&mut self, now: Instant) {
        let mut at = 0;
        while let Some(&key) = self.astir.get(at) {
            let timer = |slot: &mut LaneSlot| slot.lane.as_ref().and_then(|lane| lane.next_timer());
            if self.lanes.get_mut(key).and_then(timer).is_some_and(|due| due <= now)
                && let Some(lane) = self.lanes.get_mut(key).and_then(|slot| slot.lane.as_mut())
                && let Err(error) = lane.handle_timer(now)
            {
                self.lane_failed(key, &error);
            }
            // Until it has nothing more to wait for.
            if self.lanes.get_mut(key).and_then(timer).is_some() {
                at += 1;
                continue;
            }
            self.astir.swap_remove(at);
            if let Some(slot) = self.lanes.get_mut(key) {
                slot.astir = false;
            }
        }
        self.run_wireup_timers(now);
    }

    /// Puts a session on the list of those that have something to send.
    #[inline]
    pub(crate) fn mark_dirty(&mut self, key: Key) {
        if let Some(session) = self.sessions.get_mut(key)
            && !session.dirty
        {
            session.dirty = true;
            self.dirty.push(key);
            self.effects.post();
        }
    }

    /// Sends what was posted and waits for the engine's next progress.
    pub(crate) fn send_staged(&mut self) {
        if !self.dirty.is_empty() {
            self.pump_dirty();
        }
    }

    /// Whether a message may wait for the engine's next progress.
    #[inline]
    pub(crate) fn holds_back(&self) -> bool {
        !self.dirty.is_empty() || !self.packing.is_empty() || self.permits.to_send.staged_only
    }

    fn pump_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for &key in &dirty {
            if let Some(session) = self.sessions.get_mut(key) {
                session.dirty = false;
            }
            if !self.pump(key) {
                self.mark_dirty(key);
            }
        }
        // The list keeps its memory: a message that is staged must not cost an allocation.
        dirty.clear();
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        self.effects.unpost();
    }
}
