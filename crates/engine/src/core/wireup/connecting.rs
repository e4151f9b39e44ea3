//! Dialling candidates one after the other: for a connect, for a session that has lost its last lane, for a better lane or one more.
//!
//! Started by calls of the application, by failover and by timers; what becomes of a dial is told by [`super::link`] and
//! [`super::proof`].

use super::attempt::{Attempt, AttemptState, failed, table_text};
use super::link::LinkSlot;
use crate::core::session::{Session, SessionId};
use crate::core::table::Key;
use crate::core::{Core, Owner};
use sinew_transport::{ErrorKind, Locator, Role};
use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

/// How a connect stands.
#[derive(Clone, Debug)]
pub(crate) enum ConnectState {
    Waiting,
    /// A session with a proven lane.
    Ready(Key),
    Failed(String),
}

/// What candidates are tried for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Any session with a lane.
    Connect,
    /// The session that is pinned to the transport of the only candidate, which is dialled whatever else there is.
    Pinned,
    /// This session has lost its last lane.
    Redial(Key),
    /// This session may have a better lane.
    Trial(Key),
    /// This session wants one lane more of the transport that it has.
    Extra(Key),
}

/// Candidates being tried towards one engine.
pub(crate) struct Connecting {
    /// The engine that must answer, if it is known.
    pub(super) expected: Option<([u8; 16], u64)>,
    /// The session that is to be given a lane again.
    purpose: Purpose,
    pub(super) attempts: Vec<Attempt>,
    next_at: Instant,
    deadline: Instant,
    backoff: Duration,
    /// Every candidate has failed, and `next_at` is when they are tried again.
    rests: bool,
    pub(crate) state: ConnectState,
    pub(crate) waker: Option<Waker>,
}

/// The first wait between two rounds of a redial. It is short: a process that is dying may still take a connection, and
/// refuses the next.
const BACKOFF_MIN: Duration = Duration::from_millis(2);
/// The first wait before a connect that failed is tried again.
const AGAIN_MIN: Duration = Duration::from_millis(50);
/// Times that wait, from which on it is not tried again: with doubled waits three tries in all.
const TRIES_DOUBLED: u32 = 4;
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a session waits for its peer to dial again when the peer cannot be dialled.
const UNDIALLABLE_GRACE: Duration = Duration::from_secs(1);

impl Connecting {
    /// Every candidate has failed, and will be tried again. Whoever looks at timers comes by here: it counts once in each round.
    fn rest(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.rests, true) {
            self.next_at = now + self.backoff;
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Every candidate has not been tried yet, again.
    fn begin_anew(&mut self) {
        self.rests = false;
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.to.is_some()) {
            if let AttemptState::Failed { text, .. } =
                std::mem::replace(&mut attempt.state, AttemptState::Untried)
            {
                attempt.before = Some(text);
            }
        }
    }

    /// Whether it is to be one lane more of a session.
    pub(crate) fn is_extra_of(&self, session: Key) -> bool {
        self.purpose == Purpose::Extra(session)
    }

    fn is_live(&self) -> bool {
        matches!(self.state, ConnectState::Waiting)
    }

    /// Every candidate has failed, as there is none that has not.
    fn has_failed(&self) -> bool {
        self.attempts.iter().all(|attempt| matches!(attempt.state, AttemptState::Failed { .. }))
    }

    /// When it wants to be looked at. What is under way has deadlines of its own, and who waits for a connect his: a time that
    /// has passed without anything to do then would keep the engine awake.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        if !self.is_live() {
            return None;
        }
        let untried = self.attempts.iter().any(|attempt| attempt.state == AttemptState::Untried);
        let again = self.has_failed() && (self.rests || matches!(self.purpose, Purpose::Redial(_)));
        let next = (untried || again).then_some(self.next_at);
        match self.purpose {
            Purpose::Trial(_) | Purpose::Extra(_) => {
                Some(next.map_or(self.deadline, |next| next.min(self.deadline)))
            }
            _ => next.map(|next| next.min(self.deadline)),
        }
    }
}

impl Core {
    /// Starts towards `candidates`; a session that is up already is the answer at once.
    pub(crate) fn start_connect(
        &mut self,
        expected: Option<([u8; 16], u64)>,
        candidates: Vec<Locator>,
        deadline: Instant,
        purpose: Purpose,
    ) -> Key {
        let now = self.surroundings.now();
        let known = |(engine, incarnation)| {
            let id = SessionId { engine, pinned: None };
            let (key, session) = self.session_of.get(&id).map(|&key| (key, self.sessions.get(key)))?;
            session.filter(|session| session.peer.incarnation == incarnation).map(|session| (key, session))
        };
        let state = match expected.and_then(known) {
            Some((session, known)) if purpose == Purpose::Connect && known.active.is_some() => {
                ConnectState::Ready(session)
            }
            _ => ConnectState::Waiting,
        };
        let key = self.connects.insert(Connecting {
            expected,
            purpose,
            attempts: self.order(candidates),
            next_at: now,
            deadline,
            backoff: if matches!(purpose, Purpose::Redial(_)) { BACKOFF_MIN } else { AGAIN_MIN },
            rests: false,
            state,
            waker: None,
        });
        self.advance_connect(key, now);
        key
    }

    /// Starts the next candidate when its time has come, or when nothing else is under way.
    pub(super) fn advance_connect(&mut self, key: Key, now: Instant) {
        loop {
            let Some(connecting) = self.connects.get_mut(key) else { return };
            if !connecting.is_live() {
                return;
            }
            let under_way = connecting.attempts.iter().any(|attempt| match attempt.state {
                AttemptState::Dialing(_) | AttemptState::Proving(_) => true,
                // Proven here; the peer has yet to say that it listens.
                AttemptState::Verified(lane) => self.lanes.get(lane).is_some(),
                _ => false,
            });
            let next = connecting.attempts.iter().position(|attempt| attempt.state == AttemptState::Untried);
            match next {
                Some(index) if !under_way || now >= connecting.next_at => {
                    connecting.next_at = now + self.config.stagger;
                    self.dial_attempt(key, index, now);
                }
                Some(_) => return,
                None if under_way => return,
                None => return self.connect_exhausted(key, now),
            }
        }
    }

    fn dial_attempt(&mut self, key: Key, index: usize, now: Instant) {
        let Some(connecting) = self.connects.get(key) else { return };
        let (purpose, expected) = (connecting.purpose, connecting.expected);
        let Some(to) = connecting.attempts.get(index).and_then(|attempt| attempt.to.clone()) else { return };
        let Some(at) = self.domains.iter().position(|slot| slot.domain.understands(to.scheme())) else {
            // It was to be tried again with the others.
            return self.set_attempt(key, index, self.absence(to.scheme()));
        };
        let link_key = self.links.next_key();
        let owner = self.new_owner(Owner::Link(link_key));
        let domain = &mut self.domains[at];
        let transport = domain.name;
        let pinned = match purpose {
            Purpose::Connect => None,
            Purpose::Pinned => Some(transport),
            Purpose::Redial(session) | Purpose::Trial(session) | Purpose::Extra(session) => {
                match self.sessions.get(session) {
                    Some(session) => session.pinned,
                    None => {
                        self.connects.remove(key);
                        return self.free_owner(owner);
                    }
                }
            }
        };
        match domain.domain.dial(&to, owner) {
            Ok(link) => {
                let slot = LinkSlot {
                    link: Some(link),
                    owner,
                    role: Role::Dialer,
                    transport,
                    locator: to.to_string(),
                    deadline: now + self.config.handshake_timeout,
                    handshake: None,
                    outgoing: VecDeque::new(),
                    done: None,
                    refused: None,
                    attempt: Some((key, index)),
                    expected,
                    again_at: matches!(purpose, Purpose::Redial(_)).then(|| now + self.beside_after()),
                    lane_number: u32::from_le_bytes(self.surroundings.random().unwrap_or([1; 4])) | 1,
                    pinned,
                    extra: matches!(purpose, Purpose::Extra(_)),
                };
                let link_key = self.links.insert(slot);
                self.set_attempt(key, index, AttemptState::Dialing(link_key));
                self.link_event(link_key);
            }
            Err(error) => {
                self.free_owner(owner);
                self.set_attempt(key, index, failed(&error));
            }
        }
    }

    pub(super) fn set_attempt(&mut self, key: Key, index: usize, state: AttemptState) {
        if let Some(attempt) =
            self.connects.get_mut(key).and_then(|connecting| connecting.attempts.get_mut(index))
        {
            attempt.state = state;
        }
    }

    /// Every candidate has failed: a connect is over, a redial tries again unless all say that nobody is there.
    fn connect_exhausted(&mut self, key: Key, now: Instant) {
        let Some(connecting) = self.connects.get_mut(key) else { return };
        if let Purpose::Trial(_) = connecting.purpose {
            self.connects.remove(key);
            return;
        }
        if let Purpose::Extra(session) = connecting.purpose {
            let text = table_text(&connecting.attempts);
            self.connects.remove(key);
            return self.extra_failed(session, &text, now);
        }
        let Purpose::Redial(session) = connecting.purpose else {
            let unsure = |attempt: &Attempt| {
                let kinds = [ErrorKind::TimedOut, ErrorKind::Broken];
                attempt.to.is_some()
                    && matches!(&attempt.state, AttemptState::Failed { kind, .. } if kinds.contains(kind))
            };
            // Somebody may be there who was too busy, or had too many connections at once.
            let again = connecting.attempts.iter().any(unsure)
                && connecting.backoff < AGAIN_MIN * TRIES_DOUBLED
                && now + connecting.backoff < connecting.deadline;
            if connecting.rests || again {
                return connecting.rest(now);
            }
            let text = table_text(&connecting.attempts);
            connecting.state = ConnectState::Failed(text);
            self.wake_connect(key);
            return;
        };
        let gone = !connecting.attempts.is_empty()
            && connecting.attempts.iter().all(|attempt| {
                matches!(
                    attempt.state,
                    AttemptState::Failed {
                        kind: ErrorKind::Refused
                            | ErrorKind::PeerDead
                            | ErrorKind::Unavailable
                            | ErrorKind::PermissionDenied,
                        ..
                    }
                )
            });
        let undiallable = connecting.attempts.is_empty() && now >= connecting.deadline;
        if gone || undiallable {
            let table = table_text(&connecting.attempts);
            self.connects.remove(key);
            let because = self.sessions.get(session).map_or("", |session| &session.laneless_because);
            let reason = format!(
                "its last lane broke ({because}) and nobody answers where it was\n{}",
                table.trim_end()
            );
            self.lose_session(session, &reason);
            return;
        }
        if now >= connecting.deadline {
            self.connects.remove(key);
            return;
        }
        connecting.rest(now);
    }

    /// A session has lost its last lane: dial the peer again.
    pub(crate) fn redial(&mut self, session_key: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let dialling = |connecting: &Connecting| {
            connecting.purpose == Purpose::Redial(session_key) && connecting.is_live()
        };
        if self.connects.iter().any(|(_, connecting)| dialling(connecting)) {
            return;
        }
        let locators = self.where_to_redial(session);
        let expected = Some((session.peer.id, session.peer.incarnation));
        let now = self.surroundings.now();
        let silent = session.laneless_since.is_some_and(|since| now - since >= self.config.lane_timeout());
        let wait = if locators.is_empty() && !silent {
            UNDIALLABLE_GRACE.min(self.config.peer_timeout)
        } else {
            self.config.peer_timeout
        };
        self.start_connect(expected, locators, now + wait, Purpose::Redial(session_key));
    }

    /// Where a session's peer is dialled again. Of a pinned session, where this engine was told to; if only the peer was told,
    /// where the peer can be reached by that transport.
    fn where_to_redial(&self, session: &Session) -> Vec<Locator> {
        let of = |name: &str, scheme: &str| {
            self.domains.iter().any(|slot| slot.name == name && slot.domain.understands(scheme))
        };
        match session.pinned {
            Some(_) if !session.asked.is_empty() => session.asked.iter().cloned().collect(),
            pinned => {
                let locators = session.peer.locators.iter();
                locators.filter(|to| pinned.is_none_or(|name| of(name, to.scheme()))).cloned().collect()
            }
        }
    }

    /// A session can send: connects that waited for it are answered.
    pub(crate) fn session_has_lane(&mut self, session_key: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let (id, incarnation) = (session.id(), session.peer.incarnation);
        for key in self.connects.keys() {
            let Some(connecting) = self.connects.get(key) else { continue };
            let reached = connecting.attempts.iter().find(|attempt| match attempt.state {
                AttemptState::Proving(lane) | AttemptState::Verified(lane) => {
                    self.lanes.get(lane).is_some_and(|slot| slot.session == session_key)
                }
                _ => false,
            });
            let expects =
                |(engine, of): ([u8; 16], u64)| engine == id.engine && (of == 0 || of == incarnation);
            let answered = match connecting.purpose {
                Purpose::Connect => {
                    id.pinned.is_none() && (reached.is_some() || connecting.expected.is_some_and(expects))
                }
                Purpose::Pinned => reached.is_some(),
                Purpose::Redial(session) => session == session_key,
                Purpose::Trial(_) | Purpose::Extra(_) => false,
            };
            if !connecting.is_live() || !answered {
                continue;
            }
            let asked = reached.filter(|_| connecting.purpose == Purpose::Pinned);
            if let (Some(to), Some(session)) =
                (asked.and_then(|attempt| attempt.to.clone()), self.sessions.get_mut(session_key))
            {
                session.reached_at(to);
            }
            let attempts = connecting.attempts.clone();
            let redial = matches!(connecting.purpose, Purpose::Redial(_));
            self.remember(id, attempts);
            if redial {
                self.connects.remove(key);
            } else if let Some(connecting) = self.connects.get_mut(key) {
                connecting.state = ConnectState::Ready(session_key);
                self.wake_connect(key);
            }
        }
    }

    /// A session is over: connects and redials of it end.
    pub(crate) fn connects_lost(&mut self, session_key: Key) {
        for key in self.connects.keys() {
            if self.connects.get(key).is_some_and(|connecting| matches!(connecting.purpose, Purpose::Redial(session) | Purpose::Trial(session) | Purpose::Extra(session) if session == session_key)) {
                self.connects.remove(key);
            }
        }
    }

    fn wake_connect(&mut self, key: Key) {
        self.effects.finish();
        if let Some(waker) = self.connects.get_mut(key).and_then(|connecting| connecting.waker.take()) {
            self.effects.wake(waker);
        }
    }

    /// A connect that nobody waits for any more; its dials end.
    pub(crate) fn end_connect(&mut self, key: Key) -> Option<String> {
        let connecting = self.connects.remove(key)?;
        let succeeded = matches!(connecting.state, ConnectState::Ready(_));
        let links: Vec<Key> = self
            .links
            .iter()
            .filter(|(_, slot)| slot.attempt.is_some_and(|(connect, _)| connect == key))
            .map(|(key, _)| key)
            .collect();
        for link in links {
            // A better path may still come out of what is under way.
            if succeeded && connecting.purpose == Purpose::Connect {
                if let Some(slot) = self.links.get_mut(link) {
                    slot.attempt = None;
                }
            } else {
                self.drop_link(link);
            }
        }
        Some(table_text(&connecting.attempts))
    }

    /// How a connect stands.
    pub(crate) fn connect_state(&self, key: Key) -> ConnectState {
        self.connects
            .get(key)
            .map_or_else(|| ConnectState::Failed("given up".into()), |connecting| connecting.state.clone())
    }

    /// Tries candidates again whose time has come, and gives up what has taken too long.
    pub(super) fn run_connects(&mut self, now: Instant) {
        for key in self.connects.keys() {
            let Some(connecting) = self.connects.get_mut(key) else { continue };
            if !connecting.is_live() {
                continue;
            }
            let retry = (connecting.rests || matches!(connecting.purpose, Purpose::Redial(_)))
                && now >= connecting.next_at
                && connecting.has_failed();
            if retry {
                connecting.begin_anew();
            }
            let purpose = connecting.purpose;
            let over = matches!(purpose, Purpose::Trial(_) | Purpose::Extra(_)) && now >= connecting.deadline;
            if over {
                let text = self.end_connect(key);
                if let (Purpose::Extra(session), Some(text)) = (purpose, text) {
                    self.extra_failed(session, &text, now);
                }
            } else {
                self.advance_connect(key, now);
            }
        }
    }

    /// The engine ends: so does every connect.
    pub(super) fn abandon_connects(&mut self) {
        for key in self.connects.keys() {
            if let Some(connecting) = self.connects.get_mut(key) {
                connecting.state = ConnectState::Failed("the engine was closed".into());
            }
            self.wake_connect(key);
        }
    }
}

#[cfg(test)]
impl Core {
    /// What a caller would be told of a connect at this moment.
    pub(crate) fn told_of(&self, key: Key) -> String {
        self.connects.get(key).map_or_else(String::new, |connecting| table_text(&connecting.attempts))
    }
}
