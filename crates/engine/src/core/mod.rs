//! The engine's core: all state, and what happens to it, without a thread, lock, clock or generator of its own.
//!
//! Called by the handles ([`crate::Engine`], [`crate::Endpoint`] …) under the engine's lock. It moves frames between lanes,
//! matching and operations; it runs no code of the application: wakers, buffers to drop and handler calls are collected
//! in [`Effects`] and run by the caller after the lock is released.

mod announce;
mod arriving;
mod bundle;
mod direct;
mod direct_batch;
mod effects;
mod ending;
mod endpoint;
mod explain;
mod failover;
pub(crate) mod gather;
mod inbound;
mod lanes;
mod loans;
mod moves;
pub(crate) mod op;
mod operations;
mod outbound;
mod permit;
mod posted;
mod quick;
mod ranges;
mod rendezvous;
mod replay;
mod self_lane;
mod sends;
mod session;
mod sockets;
mod stripes;
mod surroundings;
pub(crate) mod table;
mod unmatch;
mod wireup;

pub use explain::{Explain, ExplainRow, Verdict};
pub use sockets::SocketCount;

pub(crate) use direct::Taken;
pub(crate) use direct_batch::Until;
pub(crate) use effects::Effects;
pub(crate) use endpoint::EndpointState;
pub(crate) use lanes::{BUDGET, LaneSlot};
pub(crate) use loans::Shown;
pub(crate) use operations::Started;
pub(crate) use outbound::Blocked;
pub(crate) use quick::{Got, Look, Receiving, Tags};
pub(crate) use session::{Session, SessionId, Windows};
pub use surroundings::Surroundings;
pub(crate) use wireup::{ConnectState, Connecting, Purpose};

use crate::complete::Ended;
use crate::config::Config;
use crate::error::OpError;
use op::Op;
use sinew_transport::{Cost, Domain, Event, LaneCount, Poller, Token, TransportError};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::{Key, Table};

/// A transport's share in this engine.
pub(crate) struct DomainSlot {
    pub(crate) name: &'static str,
    pub(crate) domain: Box<dyn Domain>,
    /// What its lanes are expected to cost.
    pub(crate) cost: Cost,
    /// How many of its lanes a session may have.
    pub(crate) lanes: LaneCount,
}

/// A transport that could not be opened.
pub(crate) struct Absent {
    pub(crate) name: &'static str,
    pub(crate) error: TransportError,
}

/// Whom a readiness event is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    Free,
    Waker,
    Domain(usize),
    Link(Key),
    Lane(Key),
}

/// Counts since the engine was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) unexpected: u64,
    pub(crate) envelopes: u64,
    pub(crate) lanes_lost: u64,
    pub(crate) replayed: u64,
    /// Frames that became of others when those were split for a lane that takes shorter ones.
    pub(crate) split: u64,
    pub(crate) stripes: u64,
    pub(crate) lanes_added: u64,
    pub(crate) lanes_dropped: u64,
    pub(crate) lanes_refused: u64,
    pub(crate) sessions_lost: u64,
    pub(crate) strangers: u64,
    pub(crate) truncated_unseen: u64,
}

pub(crate) struct Core {
    pub(crate) id: [u8; 16],
    pub(crate) incarnation: u64,
    pub(crate) config: Arc<Config>,
    pub(crate) poller: Arc<Poller>,
    pub(crate) domains: Vec<DomainSlot>,
    pub(crate) absent: Vec<Absent>,
    pub(crate) owners: Vec<Owner>,
    pub(crate) links: Table<wireup::LinkSlot>,
    pub(crate) connects: Table<Connecting>,
    pub(crate) lanes: Table<LaneSlot>,
    pub(crate) sessions: Table<Session>,
    /// Sessions that are over, the oldest first.
    pub(crate) lost: VecDeque<Key>,
    /// The sessions that live.
    pub(crate) session_of: HashMap<SessionId, Key>,
    /// How many of these sessions this engine has declared lost: the next one has this epoch.
    pub(crate) epochs: HashMap<SessionId, u64>,
    /// What was tried for a session and how it went.
    pub(crate) history: HashMap<SessionId, Vec<wireup::Attempt>>,
    /// Endpoint `n` stands at `n - 1`; numbers are never used twice.
    pub(crate) endpoints: Vec<Option<Box<EndpointState>>>,
    pub(crate) names: HashMap<String, u32>,
    pub(crate) ops: Table<Op>,
    pub(crate) handlers: Table<crate::handler::HandlerState>,
    pub(crate) ready_handlers: Vec<Key>,
    /// Operations whose end goes to a function, in the order in which they ended.
    pub(crate) ended: VecDeque<Ended>,
    /// A thread is calling such functions.
    pub(crate) telling: bool,
    pub(crate) effects: Effects,
    pub(crate) direct: direct::Direct,
    pub(crate) direct_batch: direct_batch::DirectBatch,
    pub(crate) counters: Counters,
    /// Memory-polled lanes: one read each per turn.
    hot: Vec<Key>,
    /// The one of them that had frames last.
    last_hot: Key,
    permits: permit::Permits,
    /// Messages of the permit to send that will share a frame.
    packing: bundle::Packing,
    /// For the next bundle that has to wait for room.
    spare_packing: Option<Box<bundle::Packing>>,
    /// Messages of the permit to receive that shared a frame.
    taking: bundle::Taking,
    /// Receives that wait to pull what an envelope described: not while their lane is being polled.
    pub(crate) pulls: Vec<Key>,
    /// Receives that ended, or lost their message, while a lane was in use, which must still forget their memory.
    pub(crate) revoked: Vec<(Key, Token)>,
    /// Memory of those that lost their message, until then.
    pub(crate) set_aside: Vec<(Key, op::Memory)>,
    /// Receives that were given a place among the receives so far.
    pub(crate) receives: u64,
    /// Fetches so far, modulo 65,536.
    fetches: u16,
    /// Numbers for poll keys that are free again.
    free_owners: Vec<u32>,
    /// What timers look at: lanes and sessions that did something of late, lanes that are not proven, sessions without a
    /// lane. Each list may name what is over; nothing that counts is missing. So an idle lane or session costs no look.
    pub(crate) astir: Vec<Key>,
    pub(crate) lively: Vec<Key>,
    pub(crate) unproven: Vec<Key>,
    pub(crate) laneless: Vec<Key>,
    /// Sessions whose number of lanes is looked after.
    pub(crate) tended: Vec<Key>,
    /// The socket lane that was busy last: polled directly while the engine spins.
    hot_socket: Option<Key>,
    /// Lanes that have frames which no descriptor tells of: what the budget of their last poll left.
    behind: VecDeque<Key>,
    dirty: Vec<Key>,
    turns: u32,
    idle_turns: u32,
    timers_at: Instant,
    /// When a message for which credit is missing goes as an envelope: who waits for credit must not sleep longer.
    starved_at: Option<Instant>,
    /// Nothing moves while the application does not call.
    pub(crate) by_callers: bool,
    pub(crate) surroundings: Arc<dyn Surroundings>,
    events: Vec<Event>,
    warm: Vec<u32>,
    pub(crate) closed: bool,
}

/// The owner number of the lane from the engine to itself, which has no descriptor.
pub(crate) const SELF_OWNER: u32 = u32::MAX;
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
    pub(crate) fn new(
        id: [u8; 16],
        incarnation: u64,
        config: Arc<Config>,
        poller: Arc<Poller>,
        surroundings: Arc<dyn Surroundings>,
    ) -> Self {
        Self {
            id,
            incarnation,
            config,
            poller,
            domains: Vec::new(),
            absent: Vec::new(),
            owners: vec![Owner::Waker],
            links: Table::default(),
            connects: Table::default(),
            lanes: Table::default(),
            sessions: Table::default(),
            lost: VecDeque::new(),
            session_of: HashMap::new(),
            epochs: HashMap::new(),
            history: HashMap::new(),
            endpoints: Vec::new(),
            names: HashMap::new(),
            ops: Table::default(),
            handlers: Table::default(),
            ready_handlers: Vec::new(),
            ended: VecDeque::new(),
            telling: false,
            effects: Effects::default(),
            direct: direct::Direct::default(),
            direct_batch: direct_batch::DirectBatch::default(),
            counters: Counters::default(),
            hot: Vec::new(),
            last_hot: Key::NONE,
            permits: permit::Permits::default(),
            packing: bundle::Packing::default(),
            spare_packing: None,
            taking: bundle::Taking::default(),
            pulls: Vec::new(),
            revoked: Vec::new(),
            set_aside: Vec::new(),
            receives: 0,
            free_owners: Vec::new(),
            astir: Vec::new(),
            lively: Vec::new(),
            unproven: Vec::new(),
            laneless: Vec::new(),
            tended: Vec::new(),
            fetches: 0,
            hot_socket: None,
            behind: VecDeque::new(),
            dirty: Vec::new(),
            turns: 0,
            idle_turns: 0,
            timers_at: surroundings.now(),
            starved_at: None,
            by_callers: true,
            surroundings,
            events: Vec::new(),
            warm: Vec::new(),
            closed: false,
        }
    }

    /// A number for poll keys. Number 0 is the engine's own waker.
    pub(crate) fn new_owner(&mut self, owner: Owner) -> u32 {
        if let Some(free) = self.free_owners.pop() {
            self.owners[free as usize] = owner;
            return free;
        }
        self.owners.push(owner);
        self.owners.len() as u32 - 1
    }

    /// Gives back a number that [`Core::new_owner`] gave.
    pub(crate) fn free_owner(&mut self, number: u32) {
        if let Some(owner) = self.owners.get_mut(number as usize)
            && *owner != Owner::Free
        {
            *owner = Owner::Free;
            self.free_owners.push(number);
        }
    }

    /// A lane did something, so that it or its session may want to be looked at in time.
    #[inline]
    pub(crate) fn stir(&mut self, key: Key) {
        if let Some(slot) = self.lanes.get_mut(key)
            && !slot.astir
        {
            slot.astir = true;
            let session = slot.session;
            self.astir.push(key);
            if let Some(session_state) = self.sessions.get_mut(session)
                && !std::mem::replace(&mut session_state.lively, true)
            {
                self.lively.push(session);
            }
        }
    }

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
