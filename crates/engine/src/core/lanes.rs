//! Lanes in the core: polling them, and being the sink that they hand frames to.

use super::stripes::is_stripe;
use super::table::Key;
use super::{Core, Session};
use crate::histogram::Measures;
use sinew_transport::{Body, ErrorKind, Lane, LaneError, Placement, Sink, Token, TransportError};
use sinew_wire::frame::{Header, Kind};
use std::ptr::NonNull;
use std::time::Instant;

/// A lane and what the engine knows of it.
pub(crate) struct LaneSlot {
    /// `None` while it is being polled.
    pub(crate) lane: Option<Box<dyn Lane>>,
    pub(crate) owner: u32,
    pub(crate) session: Key,
    /// Its number in the session, chosen by the dialer.
    pub(crate) number: u32,
    /// Where it was dialled, for people.
    pub(crate) locator: String,
    pub(crate) transport: &'static str,
    /// The longest body of a frame that it takes.
    pub(crate) frame_max: usize,
    pub(crate) memory_polled: bool,
    pub(crate) hot: bool,
    /// In the list of lanes that timers look at.
    pub(crate) astir: bool,
    /// In the list of those that have frames which nothing tells of.
    pub(crate) behind: bool,
    /// Turns without a frame.
    pub(crate) idle: u32,
    /// The peer's present leg runs here: frames of the session's sequence count.
    pub(crate) inbound: bool,
    /// This engine has dialled it.
    pub(crate) dialled: bool,
    /// Long messages can go over it and others of its transport together.
    pub(crate) joins: bool,
    /// It was made to carry long messages beside others.
    pub(crate) extra: bool,
    /// The peer has taken it into the session: frames may be sent on it.
    pub(crate) listening: bool,
    /// The peer has said so while what this side sends reached it on another lane: it can do without this one.
    pub(crate) spare: bool,
    /// The peer has said on it that it closes it: its end is no loss.
    pub(crate) closes: bool,
    /// Frames outside the sequence that wait for room, or for the end of a poll.
    pub(crate) waiting: Vec<(Header, Vec<u8>)>,
    pub(crate) proof: Proof,
    /// Of each stripe that the lane holds, or has let go of without having said so yet.
    pub(crate) stripes: Vec<Token>,
    /// The receive into whose memory a whole message is just arriving here.
    pub(crate) arriving: Option<Key>,
    pub(crate) frames_sent: u64,
    /// Frames outside the sequence that went last, behind so many of it.
    pub(crate) beside: (u64, u64),
    pub(crate) frames_received: u64,
    /// Made by the first call that is measured.
    pub(crate) measures: Option<Box<Measures>>,
}

impl LaneSlot {
    /// A lane with nobody's word on it yet, and nothing sent.
    pub(crate) fn new(
        lane: Box<dyn Lane>,
        transport: &'static str,
        (owner, session): (u32, Key),
        proof: Proof,
    ) -> Self {
        Self {
            frame_max: lane.info().limits.frame_max,
            memory_polled: lane.info().capabilities.memory_polled,
            joins: lane.backlog().is_some(),
            lane: Some(lane),
            owner,
            session,
            number: 0,
            locator: String::new(),
            transport,
            hot: false,
            astir: false,
            behind: false,
            idle: 0,
            inbound: false,
            dialled: false,
            extra: false,
            listening: false,
            spare: false,
            closes: false,
            waiting: Vec::new(),
            proof,
            stripes: Vec::new(),
            arriving: None,
            frames_sent: 0,
            beside: (0, 0),
            frames_received: 0,
            measures: None,
        }
    }

    /// Whether the peer has all of the session's sequence that went out here. A probe behind it is answered only when the peer's
    /// engine is called again, which may be never.
    pub(crate) fn is_taken(&self) -> bool {
        let beside = if self.beside.0 == self.frames_sent { self.beside.1 } else { 0 };
        self.lane.as_ref().is_none_or(|lane| lane.unacknowledged() <= beside)
    }

    /// One frame more of the session's sequence has gone out here.
    #[inline]
    pub(crate) fn count_sent(&mut self, session: &mut Session) {
        session.sent += 1;
        session.traffic += 1;
        self.frames_sent += 1;
    }
}

/// So many looks a lane is judged by while it carries traffic.
pub(crate) const RECENT: usize = 8;

/// How far a lane is proven.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) nonce: u64,
    /// Round trips still to come: the small one, then the full one.
    pub(crate) left: u8,
    pub(crate) sent_at: Option<Instant>,
    pub(crate) deadline: Instant,
    pub(crate) rtt_ns: Option<u64>,
    pub(crate) full_rtt_ns: Option<u64>,
    pub(crate) verified: bool,
    /// The best round trip of each of the last looks while it carried traffic, in nanoseconds.
    pub(crate) recent: [Option<u64>; RECENT],
    /// Round trips that the present look has had.
    pub(crate) look: u8,
    /// The connect or dial that waits for it.
    pub(crate) attempt: Option<(Key, usize)>,
}

impl Proof {
    /// Nothing is proven yet; `left` round trips are to come until the deadline.
    pub(crate) const fn new(nonce: u64, left: u8, deadline: Instant, attempt: Option<(Key, usize)>) -> Self {
        Self {
            nonce,
            left,
            sent_at: None,
            deadline,
            rtt_ns: None,
            full_rtt_ns: None,
            verified: false,
            recent: [None; RECENT],
            look: 0,
            attempt,
        }
    }
}

/// Frames that one poll hands up at most, so that no lane starves the others.
pub(crate) const BUDGET: usize = 64;
/// Turns without a frame after which a memory-polled lane may be cooled, when there are many.
const IDLE_BEFORE_COOL: u32 = 4096;
/// Memory-polled lanes that are polled on each turn whatever they do.
const HOT_LANES: usize = 4;

fn violation(kind: Kind, text: &str) -> LaneError {
    TransportError::new(ErrorKind::Protocol, "frame", format!("{kind:?}: {text}"))
}

struct LaneSink<'a> {
    core: &'a mut Core,
    lane: Key,
    session: Key,
    /// Frames of this poll that were handed up.
    frames: u64,
    /// Frames of the session's sequence on this lane count.
    inbound: bool,
    violation: Option<LaneError>,
}

// SAFETY: a target lies in the memory of a receive, which stays in the table, and so lent, until the fragment has been placed
// or `revoke_everywhere` has made the lanes forget it (`rendezvous`), the message `move_aside` or `stop_arriving` (`arriving`).
#[allow(unsafe_code)]
unsafe impl Sink for LaneSink<'_> {
    #[inline]
    fn frame(&mut self, header: &Header, body: Body<'_>) {
        self.frames += 1;
        if self.violation.is_some() {
            return;
        }
        // What is left of bundles is older than what comes now.
        self.core.spill_bundles();
        if !self.inbound && header.kind.is_sequenced() {
            return;
        }
        let result = if header.kind == Kind::EAGER {
            self.core.handle_eager(self.session, header, body)
        } else if header.kind.is_sequenced() {
            self.core.handle_sequenced(self.session, self.lane, header, body)
        } else {
            let result = self.core.handle_unsequenced(self.session, self.lane, header, body);
            self.inbound = self.core.is_inbound(self.lane);
            result
        };
        if let Err(text) = result {
            self.violation = Some(violation(header.kind, text));
        }
    }

    fn place(&mut self, header: &Header, len: usize) -> Placement {
        if self.violation.is_some() {
            return Placement::Discard;
        }
        if header.kind == Kind::STRIPE {
            return self.core.place_stripe(self.session, self.lane, header, len);
        }
        if !self.inbound {
            return Placement::Discard;
        }
        self.core.place_data(self.session, header, len)
    }

    fn place_message(&mut self, header: &Header, len: usize) -> Option<(NonNull<u8>, Token)> {
        if self.violation.is_some() || !self.inbound {
            return None;
        }
        // What is left of bundles is older.
        self.core.spill_bundles();
        self.core.place_message(self.session, self.lane, header, len)
    }

    fn expected(&mut self) -> Option<(NonNull<u8>, usize)> {
        // What is left of bundles may be for it.
        self.core.direct.memory().filter(|_| self.core.taking.is_empty())
    }

    fn placed(&mut self, header: &Header, len: usize) {
        self.frames += 1;
        if header.kind == Kind::EAGER {
            if self.violation.is_none()
                && self.inbound
                && let Err(text) = self.core.message_placed(self.session, self.lane, header, len)
            {
                self.violation = Some(violation(header.kind, text));
            }
        } else if header.kind == Kind::STRIPE {
            self.core.stripe_arrived(self.session, header, len);
        } else if self.inbound {
            self.core.handle_placed(self.session, header, len);
        }
    }

    fn released(&mut self, token: Token) {
        if is_stripe(token)
            && let Some(slot) = self.core.lanes.get_mut(self.lane)
            && let Some(at) = slot.stripes.iter().position(|&held| held == token)
        {
            slot.stripes.swap_remove(at);
        }
        self.core.handle_released(token);
    }

    fn pulled(&mut self, token: Token, result: Result<(), LaneError>) {
        self.core.handle_pulled(Key(token.0), result);
    }
}

impl Core {
    /// Polls one lane for at most `budget` frames; its failure is handled. Returns how much it handed up.
    #[inline]
    pub(crate) fn poll_lane(&mut self, key: Key, budget: usize) -> usize {
        if !self.taking.is_empty() && self.taking.lane() == key {
            // What it brings comes after what is left: whoever keeps that looks at the lane itself.
            return 0;
        }
        let Some(slot) = self.lanes.get_mut(key) else { return 0 };
        let Some(mut lane) = slot.lane.take() else { return 0 };
        let session = slot.session;
        let inbound = slot.inbound;
        let mut sink = LaneSink { core: self, lane: key, session, frames: 0, inbound, violation: None };
        let result = lane.poll(&mut sink, budget);
        let LaneSink { frames, violation, .. } = sink;
        if !self.revoked.is_empty() {
            self.forget_revoked(key, lane.as_mut());
        }
        let Some(slot) = self.lanes.get_mut(key) else { return 0 };
        let behind = !slot.memory_polled && lane.has_more();
        slot.lane = Some(lane);
        match (result, violation) {
            (Ok(done), None) => {
                if done == 0 {
                    slot.idle = slot.idle.wrapping_add(1);
                    let (cool, waits) = (slot.idle >= IDLE_BEFORE_COOL, !slot.waiting.is_empty());
                    if cool {
                        self.consider_cooling(key);
                    }
                    if waits {
                        self.post_waiting(key);
                    }
                    return 0;
                }
                slot.idle = 0;
                slot.frames_received += frames;
                if slot.hot {
                    self.last_hot = key;
                }
                let (idle_before, waits) = (!slot.astir, !slot.waiting.is_empty());
                if behind && !std::mem::replace(&mut slot.behind, true) {
                    self.behind.push_back(key);
                }
                if idle_before {
                    self.stir(key);
                }
                if waits {
                    self.post_waiting(key);
                }
                done
            }
            (result, violation) => {
                self.poll_failed(key, result, violation);
                1
            }
        }
    }

    /// What ended while a lane was in use is forgotten by it.
    #[cold]
    pub(crate) fn forget_revoked(&mut self, key: Key, lane: &mut dyn Lane) {
        self.revoked.retain(|&(of, token)| {
            if of == key {
                lane.revoke(token);
            }
            of != key
        });
        if !self.set_aside.is_empty() {
            self.take_up_set_aside();
        }
    }

    /// Whether frames of the session's sequence count on a lane.
    fn is_inbound(&self, key: Key) -> bool {
        self.lanes.get(key).is_some_and(|slot| slot.inbound)
    }

    /// Polls lanes that were left with frames when a budget was spent.
    pub(crate) fn poll_behind(&mut self, budget: usize) -> usize {
        let mut done = 0;
        for _ in 0..self.behind.len() {
            let Some(key) = self.behind.pop_front() else { break };
            if !self.taking.is_empty() && self.taking.lane() == key {
                // Whoever keeps what is left of its bundle looks at it, but may end before there is nothing more.
                self.behind.push_back(key);
                continue;
            }
            if let Some(slot) = self.lanes.get_mut(key) {
                slot.behind = false;
                done += self.poll_lane(key, budget);
            }
        }
        done
    }

    /// Posts what waited for the end of a poll, or for room.
    #[cold]
    pub(crate) fn post_waiting(&mut self, key: Key) {
        let Some(slot) = self.lanes.get_mut(key) else { return };
        let waiting = std::mem::take(&mut slot.waiting);
        for (header, body) in waiting {
            // In order: what comes after one that found no room waits behind it.
            self.post_unsequenced(key, header, &body);
        }
    }

    #[cold]
    fn poll_failed(&mut self, key: Key, result: Result<usize, LaneError>, violation: Option<LaneError>) {
        if let Some(error) = violation {
            self.violated(key, &error);
        } else if let Err(error) = result {
            self.lane_failed(key, &error);
        }
    }

    /// Adds a lane to those that are polled on each turn.
    pub(crate) fn heat(&mut self, key: Key) {
        let Some(slot) = self.lanes.get_mut(key) else { return };
        slot.idle = 0;
        if slot.memory_polled && !slot.hot {
            slot.hot = true;
            self.hot.push(key);
        }
    }

    /// Remembers the socket lane that was busy last.
    pub(crate) fn warm_socket(&mut self, key: Key) {
        if self.lanes.get(key).is_some_and(|slot| !slot.memory_polled) {
            self.hot_socket = Some(key);
        }
    }

    #[cold]
    fn consider_cooling(&mut self, key: Key) {
        let many = self.hot.len() > HOT_LANES;
        let Some(slot) = self.lanes.get_mut(key) else { return };
        slot.idle = 0;
        if !many || !slot.hot {
            return;
        }
        if slot.lane.as_mut().is_some_and(|lane| lane.cool()) {
            slot.hot = false;
            self.hot.retain(|&hot| hot != key);
        }
    }

    /// Forgets a lane and its descriptors.
    pub(crate) fn remove_lane(&mut self, key: Key) -> Option<LaneSlot> {
        self.spill_bundles();
        self.hot.retain(|&hot| hot != key);
        if self.hot_socket == Some(key) {
            self.hot_socket = None;
        }
        let mut slot = self.lanes.remove(key)?;
        if let Some(op) = slot.arriving.take() {
            // It is not polled any more.
            if let Some(lane) = slot.lane.as_mut() {
                lane.revoke(Token(op.0));
            }
            self.stop_arriving(op);
        }
        self.pulls_lost(key);
        self.free_owner(slot.owner);
        Some(slot)
    }

    /// The lane that a session sends on.
    #[inline]
    pub(crate) fn active_lane(&mut self, session: Key) -> Option<&mut Box<dyn Lane>> {
        let active = self.sessions.get(session)?.active?;
        self.lanes.get_mut(active)?.lane.as_mut()
    }
}
