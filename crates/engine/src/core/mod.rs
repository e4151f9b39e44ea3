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
mod quick_socket;
mod ranges;
mod rendezvous;
mod replay;
#[cfg(test)]
mod rig;
mod self_lane;
mod sends;
mod session;
mod sockets;
mod stripes;
mod surroundings;
pub(crate) mod table;
mod turns;
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
pub(crate) use quick_socket::LOOKS_PER_TURN;
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
use std::time::Instant;
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
    /// Many messages were read from it without a turn: the next one looks at descriptors.
    look_due: bool,
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
    pub(crate) anchors: crate::anchor::Anchors,
}

/// The owner number of the lane from the engine to itself, which has no descriptor.
pub(crate) const SELF_OWNER: u32 = u32::MAX;

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
            look_due: false,
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
            anchors: crate::anchor::Anchors::default(),
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
}
