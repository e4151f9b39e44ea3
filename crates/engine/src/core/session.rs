//! A session: everything that two engines share, whichever lanes carry it. The rules are in ADR 4.

use super::Surroundings;
use super::bundle::Packing;
use super::op::Charge;
use super::sockets::Sockets;
use super::table::Key;
use super::wireup::Watch;
use crate::error::OpError;
use crate::pool::SegmentPool;
use sinew_proto::credit::{ReceiveCredit, SendCredit, reserve_of_bytes, reserve_of_envelopes};
use sinew_proto::select;
use sinew_transport::{Locator, Unacknowledged};
use sinew_wire::frame::Header;
use sinew_wire::hello::Features;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Which of the sessions with an engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SessionId {
    pub(crate) engine: [u8; 16],
    /// The name of the transport that explicit connects pinned it to; none: the implicit session.
    pub(crate) pinned: Option<&'static str>,
}

/// What is known of the engine at the other end.
#[derive(Clone, Debug)]
pub(crate) struct PeerEngine {
    pub(crate) id: [u8; 16],
    pub(crate) incarnation: u64,
    /// Stands for it in sources: the same in all sessions with it, and never that of another, while one of them lives.
    pub(crate) number: u32,
    pub(crate) locators: Vec<Locator>,
    /// What both sides have.
    pub(crate) features: Features,
}

/// A control frame that waits for room.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) header: Header,
    pub(crate) body: ControlBody,
}

/// The body of a control frame, kept in place: returning credit and ending a transfer cost no allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ControlBody {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl ControlBody {
    /// Credit has the longest one: four numbers.
    const MAX: usize = 32;

    /// Numbers of 64 bits, one after the other.
    pub(crate) fn numbers<const N: usize>(numbers: [u64; N]) -> Self {
        const { assert!(N * 8 <= Self::MAX) };
        let mut bytes = [0; Self::MAX];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        Self { bytes, len: (N * 8) as u8 }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl<const N: usize> From<[u8; N]> for ControlBody {
    fn from(body: [u8; N]) -> Self {
        const { assert!(N <= Self::MAX) };
        let mut bytes = [0; Self::MAX];
        bytes[..N].copy_from_slice(&body);
        Self { bytes, len: N as u8 }
    }
}

/// Sending towards one endpoint of the peer: its credit, and what waits for it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) bytes: SendCredit,
    pub(crate) envelopes: SendCredit,
    /// For when other endpoints have spent what the session shares.
    pub(crate) reserve_bytes: SendCredit,
    pub(crate) reserve_envelopes: SendCredit,
    /// Send operations in order; the first could not be posted or announced yet.
    pub(crate) pending: VecDeque<Key>,
    /// The peer said that the endpoint is gone.
    pub(crate) closed: bool,
    pub(crate) shortage: Shortage,
    /// So many long messages go without a push: the receiver was not waiting for one that had one.
    pub(crate) shy: u32,
}

/// How long a sender waits for credit before it takes the receiver for one that does not receive: longer than a receiver
/// that shares its processor is kept from running.
const STARVED_AFTER: Duration = Duration::from_millis(200);
/// The same where less is known: the receiver has not even read what was sent, so that it or the way to it stands still; or what
/// is short is what all endpoints share, which any of them gives back, while this one has a whole reserve to receive yet.
const UNSURE_AFTER: Duration = Duration::from_secs(2);

/// Since when credit of a flow has been missing.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Shortage {
    since: Option<Instant>,
    long: bool,
}

impl Shortage {
    /// Credit has come.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }
}

/// Long messages that go without a push after one for which no receive was waiting: what is pushed then goes twice.
const SHY_FOR: u32 = 32;

/// Places that a session remembers.
const ASKED_MAX: usize = 8;

/// Where a session stands.
#[derive(Debug)]
pub(crate) enum Standing {
    /// Lanes come and go, the session lives.
    Up,
    /// Over, for ever.
    Lost(OpError),
}

pub(crate) struct Session {
    pub(crate) peer: PeerEngine,
    /// The only transport that its lanes are of; none: any.
    pub(crate) pinned: Option<&'static str>,
    /// Where explicit connects of this engine have reached the peer: the last ones.
    pub(crate) asked: VecDeque<Locator>,
    pub(crate) epoch: u64,
    pub(crate) standing: Standing,
    /// The lane that carries what this engine sends.
    pub(crate) active: Option<Key>,
    /// All verified lanes, the active one among them.
    pub(crate) lanes: Vec<Key>,
    /// Sends may go straight to the active lane: nothing waits before them.
    pub(crate) ready: bool,
    /// A better lane that takes over once everything on the active one is acknowledged.
    pub(crate) moving_to: Option<Key>,
    /// Sequenced frames that were given to lanes, ever.
    pub(crate) sent: u64,
    /// Sequenced frames that were received, ever.
    pub(crate) received: u64,
    /// Number of the leg that this side sends on: a leg is a stretch of the sequence on one lane.
    pub(crate) leg_out: u32,
    /// Number of the newest leg of the peer's that was begun or fenced: nothing of an earlier one counts.
    pub(crate) leg_in: u32,
    /// Frames of a lost lane that wait for the peer to say which of them it has; the last has number `sent - 1`.
    pub(crate) replay: VecDeque<Unacknowledged>,
    /// Stripes that a lost lane may not have delivered.
    pub(crate) again: VecDeque<Unacknowledged>,
    /// The peer takes stripes.
    pub(crate) stripes_welcome: bool,
    /// How many lanes of its transport it should have; made when more than one may be.
    pub(crate) sockets: Option<Box<Sockets>>,
    /// In the list of sessions whose number of lanes is looked after.
    pub(crate) tended: bool,
    /// A bundle of messages that found no room: it goes before what else has not been posted.
    pub(crate) parked: Option<Box<Packing>>,
    pub(crate) outbox: VecDeque<Control>,
    pub(crate) flows: Vec<Flow>,
    pub(crate) flow_of: HashMap<u32, u32>,
    /// Flows with something pending, in turn.
    pub(crate) pending_flows: VecDeque<u32>,
    pub(crate) bytes: SendCredit,
    pub(crate) envelopes: SendCredit,
    /// Of the bytes that its flows share.
    pub(crate) shortage: Shortage,
    /// Envelopes of the peer that it has not been told to be done with, by its number for them.
    pub(crate) kept: HashMap<u64, Kept>,
    pub(crate) granted_bytes: ReceiveCredit,
    pub(crate) granted_envelopes: ReceiveCredit,
    /// Limits that the peer gives each new flow.
    pub(crate) flow_bytes: u64,
    pub(crate) flow_envelopes: u64,
    /// Sends whose data is being fetched, in turn.
    pub(crate) transfers: VecDeque<Key>,
    /// Bytes that were sent unasked and that the peer has said nothing of.
    pub(crate) pushed: u64,
    /// What is still to be sent so.
    pub(crate) to_push: Option<Push>,
    /// Bytes of sends that the engine copied because credit was spent.
    pub(crate) buffered: usize,
    /// When it is looked at, and whether for better lanes.
    pub(crate) watch: Watch,
    /// Since when it has had no lane to send on, after it had one.
    pub(crate) laneless_since: Option<Instant>,
    /// Why its last lane was lost: said when no other one can be had.
    pub(crate) laneless_because: String,
    /// Buffers that only this peer is shown.
    pub(crate) pool: Option<Arc<SegmentPool>>,
    /// Bytes that were posted and not flushed.
    pub(crate) staged: usize,
    /// A send waits for a lane to give its memory up.
    pub(crate) asks: bool,
    /// A flow waits for credit, and will not for long.
    pub(crate) starving: bool,
    /// It is over as the peer has closed its engine, which had taken everything.
    pub(crate) had_all: bool,
    /// A lane that it does not need was being polled when it was to be closed.
    pub(crate) crowded: bool,
    /// In the list of sessions to pump.
    pub(crate) dirty: bool,
    /// In the list of sessions that are looked at for better lanes.
    pub(crate) lively: bool,
    /// Frames handed up or sent since the last look at better lanes.
    pub(crate) traffic: u64,
}

/// What of a message goes behind its envelope unasked: bytes `next..end` of a send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Push {
    pub(crate) op: Key,
    pub(crate) next: u64,
    pub(crate) end: u64,
}

/// Where an envelope of the peer is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// The endpoint that it is for.
    pub(crate) endpoint: u32,
    /// The receive that fetches it; without one it waits.
    pub(crate) op: Option<Key>,
}

/// Limits that a hello announced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) endpoint_bytes: u64,
    pub(crate) session_bytes: u64,
    pub(crate) endpoint_envelopes: u64,
    pub(crate) session_envelopes: u64,
}

impl Session {
    /// A session without lanes yet. `theirs` is what the peer grants, `ours` what this engine grants.
    pub(crate) fn new(
        peer: PeerEngine,
        pinned: Option<&'static str>,
        epoch: u64,
        theirs: Windows,
        ours: Windows,
    ) -> Self {
        Self {
            peer,
            pinned,
            asked: VecDeque::new(),
            epoch,
            standing: Standing::Up,
            active: None,
            lanes: Vec::new(),
            ready: false,
            moving_to: None,
            sent: 0,
            received: 0,
            leg_out: 0,
            leg_in: 0,
            replay: VecDeque::new(),
            again: VecDeque::new(),
            stripes_welcome: false,
            sockets: None,
            tended: false,
            parked: None,
            outbox: VecDeque::new(),
            flows: Vec::new(),
            flow_of: HashMap::new(),
            pending_flows: VecDeque::new(),
            bytes: SendCredit::new(theirs.session_bytes),
            envelopes: SendCredit::new(theirs.session_envelopes),
            shortage: Shortage::default(),
            kept: HashMap::new(),
            granted_bytes: ReceiveCredit::new(ours.session_bytes),
            granted_envelopes: ReceiveCredit::new(ours.session_envelopes),
            flow_bytes: theirs.endpoint_bytes,
            flow_envelopes: theirs.endpoint_envelopes,
            transfers: VecDeque::new(),
            buffered: 0,
            watch: Watch::default(),
            laneless_since: None,
            laneless_because: String::new(),
            pool: None,
            pushed: 0,
            to_push: None,
            starving: false,
            staged: 0,
            asks: false,
            had_all: false,
            crowded: false,
            dirty: false,
            lively: false,
            traffic: 0,
        }
    }

    /// The receiver of a message of which `pushed` bytes went unasked has taken them, or asked for them once more.
    pub(crate) fn push_answered(&mut self, flow: u32, op: Key, pushed: u64, taken: bool) {
        self.pushed = self.pushed.saturating_sub(pushed);
        if !taken {
            self.to_push = self.to_push.filter(|push| push.op != op);
            if let Some(flow) = self.flows.get_mut(flow as usize) {
                flow.shy = SHY_FOR;
            }
        }
    }

    /// Which credit pays for an eager message that costs `cost` bytes; `None`: none does now.
    #[inline]
    pub(crate) fn charge(&self, flow: &Flow, cost: u64) -> Option<Charge> {
        if !flow.bytes.affords(cost) {
            return None;
        }
        if self.bytes.affords(cost) {
            return Some(Charge::Shared);
        }
        flow.reserve_bytes.affords(cost).then_some(Charge::Reserve)
    }

    /// Takes what [`Session::charge`] has found.
    #[inline]
    pub(crate) fn pay(&mut self, flow: u32, charge: Charge, cost: u64) {
        let flow = &mut self.flows[flow as usize];
        let _ = match charge {
            Charge::Reserve => flow.reserve_bytes.try_take(cost),
            Charge::Shared | Charge::Nothing => {
                let _ = self.bytes.try_take(cost);
                flow.bytes.try_take(cost)
            }
        };
    }

    /// Gives back what [`Session::pay`] took for a message that the peer will never count.
    pub(crate) fn pay_back(&mut self, flow: u32, charge: Charge, cost: u64) {
        let flow = &mut self.flows[flow as usize];
        match charge {
            Charge::Reserve => flow.reserve_bytes.give_back(cost),
            Charge::Shared | Charge::Nothing => {
                self.bytes.give_back(cost);
                flow.bytes.give_back(cost);
            }
        }
    }

    /// Which credit pays for an envelope; `None`: none does now.
    pub(crate) fn charge_envelope(&self, flow: &Flow) -> Option<Charge> {
        if flow.envelopes.available() == 0 {
            None
        } else if self.envelopes.available() > 0 {
            Some(Charge::Shared)
        } else {
            (flow.reserve_envelopes.available() > 0).then_some(Charge::Reserve)
        }
    }

    /// Takes what [`Session::charge_envelope`] has found.
    pub(crate) fn pay_envelope(&mut self, flow: u32, charge: Charge) {
        let flow = &mut self.flows[flow as usize];
        let _ = match charge {
            Charge::Reserve => flow.reserve_envelopes.try_take(1),
            Charge::Shared | Charge::Nothing => {
                let _ = self.envelopes.try_take(1);
                flow.envelopes.try_take(1)
            }
        };
    }

    /// Whether a message of a flow for which nothing pays goes as an envelope: no credit will ever do, or it has been missing
    /// for long. Else `due` is told when it will have been. `unread`: the peer has yet to read what was sent before.
    pub(crate) fn is_starved(
        &mut self,
        flow: u32,
        cost: u64,
        unread: bool,
        surroundings: &dyn Surroundings,
        due: &mut Option<Instant>,
    ) -> bool {
        let Some(flow) = self.flows.get_mut(flow as usize) else { return false };
        if flow.shortage.long || !flow.bytes.can_ever(cost) || !self.bytes.can_ever(cost) {
            return true;
        }
        let of_its_own = !flow.bytes.affords(cost);
        if !of_its_own && !flow.reserve_bytes.can_ever(cost) {
            // Others have spent what the session shares, which may last.
            return true;
        }
        // What is shared comes back to all at once.
        let shortage = if of_its_own { &mut flow.shortage } else { &mut self.shortage };
        let now = surroundings.now();
        let since = *shortage.since.get_or_insert(now);
        let sure = of_its_own && !unread;
        shortage.long |= since + if sure { STARVED_AFTER } else { UNSURE_AFTER } <= now;
        if !shortage.long {
            let at = (since + STARVED_AFTER).max(now + STARVED_AFTER / 4);
            *due = Some(due.map_or(at, |due| due.min(at)));
        }
        shortage.long
    }

    /// The flow towards an endpoint, made on first use.
    pub(crate) fn flow_to(&mut self, dst: u32) -> u32 {
        if let Some(&flow) = self.flow_of.get(&dst) {
            return flow;
        }
        let flow = self.flows.len() as u32;
        self.flows.push(Flow {
            bytes: SendCredit::new(self.flow_bytes),
            envelopes: SendCredit::new(self.flow_envelopes),
            reserve_bytes: SendCredit::new(reserve_of_bytes(self.flow_bytes)),
            reserve_envelopes: SendCredit::new(reserve_of_envelopes(self.flow_envelopes)),
            pending: VecDeque::new(),
            closed: false,
            shy: 0,
            shortage: Shortage::default(),
        });
        self.flow_of.insert(dst, flow);
        flow
    }

    pub(crate) const fn id(&self) -> SessionId {
        SessionId { engine: self.peer.id, pinned: self.pinned }
    }

    /// Whether `own`, this engine, is the one that chooses the session's lane.
    pub(crate) fn chooses(&self, own: [u8; 16]) -> bool {
        select::decides(own, self.peer.id)
    }

    /// Remembers where an explicit connect has reached the peer, for when all lanes are lost.
    pub(crate) fn reached_at(&mut self, locator: Locator) {
        self.asked.retain(|known| *known != locator);
        self.asked.push_front(locator);
        self.asked.truncate(ASKED_MAX);
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.standing, Standing::Up)
    }
}
