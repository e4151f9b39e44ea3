//! How many lanes of one transport a session has: more are dialled, and those that are not needed closed (ADR 12).
//!
//! Called by fetches (a long message goes), by changes of lanes, and by timers for sessions that are tended. What is measured is
//! judged in `sinew_proto::growth`. The engine that dialled the lane that carries the session dials the others, too: the other one
//! may not be able to, and asks for them (`LANES`).

use super::session::Session;
use super::table::Key;
use super::{Core, Purpose};
use sinew_proto::growth::{ENOUGH, ENOUGH_LOCAL, Growth, LOOK_EVERY, Look};
use sinew_transport::{LaneCount, Locator};
use sinew_wire::frame::{Header, Kind};
use sinew_wire::hello::Features;
use std::fmt;
use std::time::{Duration, Instant};

/// A wish that was not granted is said again so often.
const WISH_EVERY: Duration = Duration::from_millis(250);
/// Waits between two dials of which the first failed.
const DIAL_AGAIN_MIN: Duration = Duration::from_millis(100);
const DIAL_AGAIN_MAX: Duration = Duration::from_secs(10);
/// How long a dial may take.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// More than one lane has a queue worth dividing from so many bytes on.
const QUEUE: u64 = 64 << 10;
/// Looks without traffic after which a session is not looked at any more.
const QUIET_LOOKS: u32 = 12;
/// The same while it has more lanes than the least: they are given up after a stretch of two seconds in which little moved, and the
/// stretch in which traffic ended may not be one.
const QUIET_LOOKS_GROWN: u32 = 170;

/// What a session knows of its number of lanes.
#[derive(Debug)]
pub(crate) struct Sockets {
    transport: &'static str,
    bounds: LaneCount,
    growth: Growth,
    /// How many the peer asks for.
    peer_wants: usize,
    look_at: Instant,
    /// How many this side has asked the peer for last, and when.
    wished: usize,
    wished_at: Option<Instant>,
    dial_at: Option<Instant>,
    backoff: Duration,
    /// Why the last one could not be had.
    refused: Option<String>,
    /// What of the lanes that are gone had arrived.
    arrived_before: u64,
    last_arrived: u64,
    quiet: u32,
    /// Most that there were.
    most: usize,
}

impl Sockets {
    fn new(transport: &'static str, bounds: LaneCount, local: bool, now: Instant) -> Self {
        Self {
            transport,
            bounds,
            growth: Growth::new(bounds.min, bounds.max, if local { ENOUGH_LOCAL } else { ENOUGH }),
            peer_wants: 1,
            look_at: now,
            wished: 1,
            wished_at: None,
            dial_at: None,
            backoff: DIAL_AGAIN_MIN,
            refused: None,
            arrived_before: 0,
            last_arrived: 0,
            quiet: 0,
            most: 1,
        }
    }

    /// How many lanes there should be.
    fn target(&self) -> usize {
        self.growth.wanted().max(self.peer_wants).clamp(1, self.bounds.max)
    }
}

/// How many sockets carry a session, and why so many.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SocketCount {
    /// The transport.
    pub transport: String,
    /// Those that carry long messages now.
    pub now: usize,
    /// Those that there should be.
    pub wanted: usize,
    /// The least and the most that this engine's options allow.
    pub bounds: (usize, usize),
    /// Why, for people.
    pub why: String,
}

impl fmt::Display for SocketCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = self.bounds;
        write!(
            f,
            "{} sockets: {} of {} wanted, {min} to {max} allowed: {}",
            self.transport, self.now, self.wanted, self.why
        )
    }
}

impl Core {
    fn lane_count(&self, transport: &str) -> LaneCount {
        self.domains
            .iter()
            .find(|slot| slot.name == transport)
            .map_or(LaneCount::default(), |slot| slot.lanes)
    }

    /// Whether one lane more of a session may be accepted.
    pub(crate) fn takes_extra(&self, session_key: Key, transport: &str) -> bool {
        let there =
            self.lanes.iter().filter(|(_, slot)| slot.session == session_key && slot.transport == transport);
        there.count() < self.lane_count(transport).max
    }

    /// Most lanes of a transport that a session may have here.
    pub(crate) fn extra_max(&self, transport: &str) -> usize {
        self.lane_count(transport).max
    }

    /// A session may need more lanes, or fewer: it is looked at soon, if its transport can have more than one.
    #[inline]
    pub(crate) fn tend_later(&mut self, session_key: Key) {
        if self.sessions.get(session_key).is_some_and(|session| !session.tended) {
            self.tend_anew(session_key);
        }
    }

    #[cold]
    fn tend_anew(&mut self, session_key: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let Some(slot) = session.active.and_then(|lane| self.lanes.get(lane)) else { return };
        let transport = slot.transport;
        let bounds = self.lane_count(transport);
        let joins = slot.joins;
        let local = slot.lane.as_ref().is_some_and(|lane| lane.info().capabilities.local);
        let known = session.sockets.as_ref().is_some_and(|sockets| sockets.transport == transport);
        if !joins || !session.peer.features.contains(Features::STRIPES) || bounds.max == 1 {
            return;
        }
        let now = self.surroundings.now();
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if !known {
            session.sockets = Some(Box::new(Sockets::new(transport, bounds, local, now)));
        }
        if let Some(sockets) = &mut session.sockets {
            sockets.look_at = now;
            sockets.quiet = 0;
        }
        session.tended = true;
        self.tended.push(session_key);
    }

    /// The lanes of a session have changed.
    pub(crate) fn lanes_changed(&mut self, session_key: Key) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if let Some(sockets) = &mut session.sockets {
            sockets.look_at = self.surroundings.now();
        }
        let active = session.active.and_then(|lane| self.lanes.get(lane));
        let fixed = active.is_some_and(|slot| self.lane_count(slot.transport).min > 1);
        if fixed || self.sessions.get(session_key).is_some_and(|session| session.sockets.is_some()) {
            self.tend_later(session_key);
        }
    }

    /// When the next tended session wants to be looked at.
    pub(crate) fn tend_timer(&self) -> Option<Instant> {
        let sessions = self.tended.iter().filter_map(|&key| self.sessions.get(key));
        // One without a lane is looked at when it has one again.
        let carried = sessions.filter(|session| session.is_up() && session.active.is_some());
        carried.filter_map(|session| session.sockets.as_ref().map(|sockets| sockets.look_at)).min()
    }

    /// Looks at the sessions whose time has come.
    pub(crate) fn run_tended(&mut self, now: Instant) {
        let mut at = 0;
        while let Some(&key) = self.tended.get(at) {
            let session = self.sessions.get(key).filter(|session| session.is_up());
            let due = session.and_then(|session| Some((session.active, session.sockets.as_ref()?.look_at)));
            let stays = match due {
                None => false,
                Some((None, _)) => true,
                Some((Some(_), look_at)) if look_at > now => true,
                Some((Some(active), _)) => self.tend(key, active, now),
            };
            if stays {
                at += 1;
                continue;
            }
            self.tended.swap_remove(at);
            if let Some(session) = self.sessions.get_mut(key) {
                session.tended = false;
            }
        }
    }

    /// One look at a session. `false`: there is nothing more to see.
    fn tend(&mut self, key: Key, active: Key, now: Instant) -> bool {
        let Some(carrier) = self.lanes.get(active) else { return true };
        let (transport, dialled) = (carrier.transport, carrier.dialled);
        let carriers: Vec<Key> = self.carriers(key).collect();
        let (mut arrived, mut queued) = (0, 0);
        for &lane in &carriers {
            let backlog =
                self.lanes.get(lane).and_then(|slot| slot.lane.as_ref()?.backlog()).unwrap_or_default();
            arrived += backlog.arrived;
            queued += backlog.queued;
        }
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let waits = !session.transfers.is_empty() || !session.again.is_empty();
        let Some(sockets) = session.sockets.as_mut().filter(|sockets| sockets.transport == transport) else {
            return false;
        };
        arrived += sockets.arrived_before;
        let moved = arrived != sockets.last_arrived;
        sockets.last_arrived = sockets.last_arrived.max(arrived);
        let queue = moved && (waits || queued >= QUEUE * carriers.len() as u64);
        sockets.growth.handle_look(Look { now, lanes: carriers.len(), arrived: sockets.last_arrived, queue });
        sockets.quiet = if moved { 0 } else { sockets.quiet + 1 };
        sockets.look_at = now + LOOK_EVERY;
        sockets.most = sockets.most.max(carriers.len());
        let target = sockets.target();
        let quiet_enough = if sockets.growth.is_grown() { QUIET_LOOKS_GROWN } else { QUIET_LOOKS };
        let calm = sockets.quiet >= quiet_enough && carriers.len() == target;
        let told = !dialled && self.tell_wish(key, active, now, carriers.len());
        if carriers.len() < target && !told {
            self.dial_more(key, active, dialled, now);
        } else if carriers.len() > target {
            self.close_extras(key, target);
        }
        !calm
    }

    /// Asks the peer, who has dialled, for the lanes that this side wants, or for fewer than it was asked for before: it may not
    /// know otherwise that those it has made are not needed. Said again while it has not happened. Whether anything was said.
    fn tell_wish(&mut self, key: Key, active: Key, now: Instant, there: usize) -> bool {
        let Some(sockets) = self.sessions.get_mut(key).and_then(|session| session.sockets.as_mut()) else {
            return false;
        };
        let (own, target) = (sockets.growth.wanted(), sockets.target());
        let again = sockets.wished_at.is_none_or(|at| now >= at + WISH_EVERY);
        let more = there < target && own > 1 && again;
        let fewer = own < sockets.wished || (there > target && sockets.wished_at.is_some() && again);
        if more || fewer {
            (sockets.wished, sockets.wished_at) = (own, Some(now));
            self.post_unsequenced(active, Header::control(Kind::LANES, own as u64), &[]);
        }
        more || fewer
    }

    /// Dials what is missing.
    fn dial_more(&mut self, key: Key, active: Key, dialled: bool, now: Instant) {
        let there = self.lanes.iter().filter(|(_, slot)| slot.session == key).count();
        let dialling = self.connects.iter().filter(|(_, connecting)| connecting.is_extra_of(key)).count();
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(sockets) = session.sockets.as_mut() else { return };
        let target = sockets.target();
        let wanted = if dialled { target } else { sockets.peer_wants.min(target) };
        if wanted <= there + dialling || sockets.dial_at.is_some_and(|at| now < at) {
            return;
        }
        for _ in there + dialling..wanted {
            self.dial_extra(key, active, now);
        }
    }

    fn dial_extra(&mut self, key: Key, active: Key, now: Instant) {
        let Some(slot) = self.lanes.get(active) else { return };
        let (transport, at) = (slot.transport, slot.locator.clone());
        let Some(session) = self.sessions.get(key) else { return };
        let of = |to: &Locator| {
            self.domains.iter().any(|slot| slot.name == transport && slot.domain.understands(to.scheme()))
        };
        let same: Option<Locator> = at.parse().ok().filter(of);
        let to =
            same.filter(|_| slot.dialled).or_else(|| session.peer.locators.iter().find(|to| of(to)).cloned());
        let Some(to) = to else {
            return self.extra_failed(key, "the peer says no place where it can be dialled", now);
        };
        let expected = Some((session.peer.id, session.peer.incarnation));
        self.start_connect(expected, vec![to], now + DIAL_LIMIT, Purpose::Extra(key));
    }

    /// A lane more could not be had.
    pub(crate) fn extra_failed(&mut self, key: Key, why: &str, now: Instant) {
        self.counters.lanes_refused += 1;
        let Some(sockets) = self.sessions.get_mut(key).and_then(|session| session.sockets.as_mut()) else {
            return;
        };
        sockets.refused = Some(why.trim().to_owned());
        sockets.dial_at = Some(now + sockets.backoff);
        sockets.look_at = now + LOOK_EVERY;
        sockets.backoff = (sockets.backoff * 2).min(DIAL_AGAIN_MAX);
        sockets.growth.handle_refusal(now);
    }

    /// A lane more is proven.
    pub(crate) fn extra_attached(&mut self, key: Key) {
        self.counters.lanes_added += 1;
        if let Some(sockets) = self.sessions.get_mut(key).and_then(|session| session.sockets.as_mut()) {
            sockets.refused = None;
            sockets.dial_at = None;
            sockets.backoff = DIAL_AGAIN_MIN;
        }
        self.lanes_changed(key);
    }

    /// A lane of a session has ended: what had arrived on it still counts.
    pub(crate) fn extra_gone(&mut self, key: Key, arrived: u64) {
        if let Some(sockets) = self.sessions.get_mut(key).and_then(|session| session.sockets.as_mut()) {
            sockets.arrived_before += arrived;
        }
        self.lanes_changed(key);
    }

    /// Closes lanes that this engine has dialled and that carry nothing of the sequence, those that are idle first.
    fn close_extras(&mut self, key: Key, target: usize) {
        let carriers: Vec<Key> = self.carriers(key).collect();
        let surplus = carriers.len().saturating_sub(target);
        let active = self.sessions.get(key).and_then(|session| session.active);
        let mut own: Vec<(u64, Key)> = Vec::new();
        for lane in carriers {
            let Some(slot) = self.lanes.get(lane) else { continue };
            let idle = Some(lane) != active && !slot.inbound && slot.extra && slot.dialled;
            if let Some(lane_state) = slot.lane.as_ref().filter(|_| idle) {
                own.push((lane_state.unacknowledged(), lane));
            }
        }
        own.sort_by_key(|&(unacknowledged, _)| unacknowledged);
        for (_, lane) in own.into_iter().take(surplus) {
            self.counters.lanes_dropped += 1;
            self.retire_lane(lane, "closed: fewer sockets carry as much");
        }
    }

    /// The peer asks for so many lanes.
    pub(crate) fn handle_lanes_wish(&mut self, key: Key, wanted: u64) {
        self.tend_later(key);
        if let Some(sockets) = self.sessions.get_mut(key).and_then(|session| session.sockets.as_mut()) {
            sockets.peer_wants = usize::try_from(wanted).unwrap_or(usize::MAX).clamp(1, sockets.bounds.max);
            sockets.look_at = self.surroundings.now();
        }
    }

    /// What `explain` says of the number of lanes.
    pub(crate) fn socket_count(&self, session_key: Key, session: &Session) -> Option<SocketCount> {
        let slot = session.active.and_then(|lane| self.lanes.get(lane)).filter(|slot| slot.joins)?;
        let bounds = self.lane_count(slot.transport);
        let now = self.carriers(session_key).count();
        let sockets = session.sockets.as_ref().filter(|sockets| sockets.transport == slot.transport);
        let wanted = sockets.map_or(bounds.min, |sockets| sockets.target());
        let mut why = match (bounds.min, bounds.max) {
            (1, 1) => "single was asked for".to_owned(),
            (min, max) if min == max => format!("{min} were asked for"),
            _ => sockets.map_or_else(
                || "no long queue was seen".to_owned(),
                |sockets| sockets.growth.why().to_string(),
            ),
        };
        if let Some(sockets) = sockets {
            if sockets.peer_wants > 1 {
                why.push_str(&format!("; the peer asks for {}", sockets.peer_wants));
            }
            if let Some(refused) = &sockets.refused {
                why.push_str(&format!("; another one could not be had: {refused}"));
            }
        }
        let transport = slot.transport.to_owned();
        Some(SocketCount { transport, now, wanted, bounds: (bounds.min, bounds.max), why })
    }
}
