//! Links: accepting them, the mutual proof on each, and the lane that comes of it.

use super::attempt::failed;
use super::{AttemptState, Core, LaneSlot, entropy};
use crate::config::Security;
use crate::core::Owner;
use crate::core::lanes::{BUDGET, Proof};
use crate::core::session::{PeerEngine, Session, SessionId, Windows};
use crate::core::table::Key;
use sinew_proto::handshake::{self, Handshake, HandshakeError, PeerHello, Step, Trust, domain_hash};
use sinew_transport::{
    ErrorKind, Identity, LaneParams, Link, LinkState, Locator, PollKey, RECORD_LEN, Record, Role,
    TransportError,
};
use sinew_wire::hello::{Credits, Features, Hello, Reason};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// A link on its way to a lane.
pub(crate) struct LinkSlot {
    pub(super) link: Option<Box<dyn Link>>,
    pub(super) owner: u32,
    pub(super) role: Role,
    pub(super) transport: &'static str,
    pub(super) locator: String,
    pub(super) deadline: Instant,
    pub(super) handshake: Option<Handshake>,
    pub(super) outgoing: VecDeque<Record>,
    /// The proof is complete; once everything is sent the link becomes a lane.
    pub(super) done: Option<Box<PeerHello>>,
    /// The link ends once everything is sent, for this reason.
    pub(super) refused: Option<String>,
    /// The dial that it belongs to: connect and candidate.
    pub(super) attempt: Option<(Key, usize)>,
    /// The engine that must answer, if it is known.
    pub(super) expected: Option<([u8; 16], u64)>,
    /// When another dial to the same place begins beside it.
    pub(super) again_at: Option<Instant>,
    pub(super) lane_number: u32,
    /// The transport to which its session is pinned; of an accepted link it is known once the peer has introduced itself.
    pub(super) pinned: Option<&'static str>,
    /// The lane is one more of a session that stands.
    pub(super) extra: bool,
}

/// Numbers for engines in sources: of the whole process, so that a source of one engine is nothing to another.
static NUMBERS: AtomicU32 = AtomicU32::new(1);

/// A link whose hello named an epoch that is over.
const STALE: &str = "stale session";

impl Core {
    /// Connections that peers made.
    pub(crate) fn accept_from(&mut self, index: usize) -> usize {
        let mut accepted = 0;
        loop {
            let link_key = self.links.next_key();
            let owner = self.new_owner(Owner::Link(link_key));
            let Some(slot) = self.domains.get_mut(index) else { return accepted };
            let (transport, result) = (slot.name, slot.domain.accept(owner));
            match result {
                Ok(Some(link)) => {
                    accepted += 1;
                    self.bound_half_open();
                    let slot = LinkSlot {
                        locator: link.describe(),
                        link: Some(link),
                        owner,
                        role: Role::Acceptor,
                        transport,
                        deadline: self.surroundings.now() + self.config.handshake_timeout,
                        handshake: None,
                        outgoing: VecDeque::new(),
                        done: None,
                        refused: None,
                        attempt: None,
                        expected: None,
                        again_at: None,
                        lane_number: 0,
                        pinned: None,
                        extra: false,
                    };
                    let key = self.links.insert(slot);
                    self.owners[owner as usize] = Owner::Link(key);
                    self.link_event(key);
                }
                Ok(None) => {
                    self.free_owner(owner);
                    return accepted;
                }
                Err(error) => {
                    self.free_owner(owner);
                    self.effects.tell(crate::events::listener_failed(transport, &error));
                    return accepted;
                }
            }
        }
    }

    /// Half-open connections are bounded: the oldest gives way.
    fn bound_half_open(&mut self) {
        let accepted = |slot: &LinkSlot| slot.role == Role::Acceptor;
        if self.links.iter().filter(|(_, slot)| accepted(slot)).count() < self.config.half_open_max {
            return;
        }
        let oldest = self
            .links
            .iter()
            .filter(|(_, slot)| accepted(slot))
            .min_by_key(|(_, slot)| slot.deadline)
            .map(|(key, _)| key);
        if let Some(oldest) = oldest {
            self.counters.strangers += 1;
            self.drop_link(oldest);
        }
    }

    pub(super) fn drop_link(&mut self, key: Key) -> Option<LinkSlot> {
        let slot = self.links.remove(key)?;
        if self.owners.get(slot.owner as usize) == Some(&Owner::Link(key)) {
            self.free_owner(slot.owner);
        }
        Some(slot)
    }

    /// Moves a link forward as far as it goes.
    pub(crate) fn link_event(&mut self, key: Key) -> usize {
        match self.advance_link(key) {
            Ok(moved) => moved,
            Err(error) => {
                self.link_failed(key, &error);
                1
            }
        }
    }

    pub(super) fn link_failed(&mut self, key: Key, error: &TransportError) {
        let Some(slot) = self.drop_link(key) else { return };
        if slot.role == Role::Acceptor {
            self.counters.strangers += 1;
            self.effects.tell(crate::events::stranger(slot.transport, &slot.locator, error));
        }
        if let Some((connect, index)) = slot.attempt {
            let state = if error.operation == STALE { AttemptState::Untried } else { failed(error) };
            self.set_attempt(connect, index, state);
            self.advance_connect(connect, self.surroundings.now());
        }
    }

    fn advance_link(&mut self, key: Key) -> Result<usize, TransportError> {
        let Some(slot) = self.links.get_mut(key) else { return Ok(0) };
        let Some(mut link) = slot.link.take() else { return Ok(0) };
        let result = self.drive_link(key, link.as_mut());
        let Some(slot) = self.links.get_mut(key) else { return Ok(1) };
        match result {
            Ok(false) => {
                slot.link = Some(link);
                Ok(1)
            }
            Ok(true) => match (slot.done.take(), slot.refused.take()) {
                (_, Some(text)) => Err(TransportError::new(ErrorKind::Protocol, "handshake", text)),
                (Some(hello), None) => {
                    self.establish(key, link, &hello)?;
                    Ok(1)
                }
                (None, None) => Ok(1),
            },
            Err(error) => Err(error),
        }
    }

    /// `true`: everything is said; the link becomes a lane or ends.
    fn drive_link(&mut self, key: Key, link: &mut dyn Link) -> Result<bool, TransportError> {
        if link.poll()? == LinkState::Connecting {
            return Ok(false);
        }
        if self.links.get(key).is_some_and(|slot| slot.handshake.is_none() && slot.refused.is_none()) {
            self.begin_handshake(key, link.identity())?;
        }
        loop {
            let Some(slot) = self.links.get_mut(key) else { return Ok(false) };
            while let Some(record) = slot.outgoing.front() {
                if !link.try_send(record)? {
                    return Ok(false);
                }
                slot.outgoing.pop_front();
            }
            if slot.done.is_some() || slot.refused.is_some() {
                return Ok(true);
            }
            let mut record = [0; RECORD_LEN];
            if !link.try_recv(&mut record)? {
                return Ok(false);
            }
            self.handle_record(key, &record)?;
        }
    }

    fn begin_handshake(&mut self, key: Key, identity: Identity) -> Result<(), TransportError> {
        let config = self.handshake_config(&identity);
        let Some(slot) = self.links.get(key) else { return Ok(()) };
        let (role, expected, number, pinned) = (slot.role, slot.expected, slot.lane_number, slot.pinned);
        let extra = slot.extra;
        let hello = Hello { resumes: extra, ..self.hello(expected, pinned, number) };
        let started = match role {
            Role::Dialer => Handshake::dialer(config, hello, entropy(&*self.surroundings)?)
                .map(|(handshake, record)| (handshake, Some(record)))
                .map_err(|error| refusal_error(&error))?,
            Role::Acceptor => (Handshake::acceptor(config, entropy(&*self.surroundings)?), None),
        };
        if let Some(slot) = self.links.get_mut(key) {
            slot.handshake = Some(started.0);
            slot.outgoing.extend(started.1);
        }
        Ok(())
    }

    fn handshake_config(&self, identity: &Identity) -> handshake::Config {
        let same_user = matches!(identity, Identity::SameUser { .. });
        let open = matches!(self.config.security, Security::Open);
        let secret = self.config.secret.clone();
        handshake::Config {
            engine: self.id,
            incarnation: self.incarnation,
            domain: domain_hash(&self.config.domain),
            trust: Trust { secret, plain: same_user || open },
            versions: self.config.versions,
            features: self.config.features.0,
            required: 0,
        }
    }

    fn hello(&self, expected: Option<([u8; 16], u64)>, pinned: Option<&'static str>, lane: u32) -> Hello {
        let windows = self.config.windows;
        let (engine, incarnation) = expected.unwrap_or_default();
        Hello {
            engine: self.id,
            incarnation: self.incarnation,
            domain: [0; 32],
            expected_engine: engine,
            expected_incarnation: incarnation,
            epoch: self.epoch_of(SessionId { engine, pinned }),
            resumes: false,
            credits: Credits {
                session_bytes: windows.session_bytes,
                endpoint_bytes: windows.endpoint_bytes,
                session_envelopes: u32::try_from(windows.session_envelopes).unwrap_or(u32::MAX),
                endpoint_envelopes: u32::try_from(windows.endpoint_envelopes).unwrap_or(u32::MAX),
            },
            frame_max: 0,
            process: std::process::id(),
            lane,
            encryption_wanted: false,
            pinned: pinned.unwrap_or_default().to_owned(),
            locators: locators_text(&self.locators()),
        }
    }

    fn handle_record(&mut self, key: Key, record: &Record) -> Result<(), TransportError> {
        let Some(slot) = self.links.get_mut(key) else { return Ok(()) };
        let Some(mut handshake) = slot.handshake.take() else { return Ok(()) };
        let step = handshake.handle(record);
        let step = match step {
            Ok(Step::Introduced(peer)) => self.decide(key, &mut handshake, &peer),
            Ok(Step::SendAndDone(record, peer)) => {
                if let Some(slot) = self.links.get_mut(key) {
                    slot.outgoing.push_back(*record);
                    slot.done = Some(peer);
                }
                Ok(())
            }
            Ok(Step::Done(peer)) => {
                if let Some(slot) = self.links.get_mut(key) {
                    slot.done = Some(peer);
                }
                Ok(())
            }
            Err(error) => Err(error),
        };
        let Some(slot) = self.links.get_mut(key) else { return Ok(()) };
        if let Err(error) = step {
            let reply = handshake.refusal_for(&error);
            let text = error.to_string();
            match reply {
                Some(record) => {
                    slot.outgoing.push_back(record);
                    slot.refused = Some(text);
                }
                None => {
                    let ours = self.config.versions;
                    return Err(refusal_error(&error).hint(format!("this engine speaks version {ours}")));
                }
            }
        }
        slot.handshake = Some(handshake);
        Ok(())
    }

    /// Whether this engine wants a session with who introduced itself; the answer goes out.
    fn decide(
        &mut self,
        key: Key,
        handshake: &mut Handshake,
        peer: &PeerHello,
    ) -> Result<(), HandshakeError> {
        let transport = self.links.get(key).map_or("", |slot| slot.transport);
        let pinned = Some(transport).filter(|name| *name == peer.hello.pinned);
        let more;
        let answer = if self.closed {
            Err((Reason::CLOSING, "this engine is closing"))
        } else if peer.hello.engine == self.id {
            Err((Reason::MYSELF, "an engine does not dial itself"))
        } else if pinned.is_none() && !peer.hello.pinned.is_empty() {
            Err((Reason::OTHER_TRANSPORT, "the session is pinned to another transport than that of the link"))
        } else if peer.hello.resumes && !self.has_session(peer, pinned) {
            Err((Reason::FENCED, "there is no such session for another lane"))
        } else if peer.hello.resumes && !self.takes_one_more(peer, pinned, transport) {
            more = format!(
                "this engine takes {} sockets for a session and no more (option tcp_sockets)",
                self.extra_max(transport)
            );
            Err((Reason::FULL, more.as_str()))
        } else {
            Ok(())
        };
        let record = match answer {
            Ok(()) => {
                if let Some(slot) = self.links.get_mut(key) {
                    slot.pinned = pinned;
                    slot.extra = peer.hello.resumes;
                }
                let dialer = Some((peer.hello.engine, peer.hello.incarnation));
                let mut hello = self.hello(dialer, pinned, peer.hello.lane);
                hello.epoch = hello.epoch.max(peer.hello.epoch);
                handshake.answer(hello)?
            }
            Err((reason, text)) => {
                let record = handshake.refuse(reason, text);
                if let Some(slot) = self.links.get_mut(key) {
                    slot.refused = Some(text.to_owned());
                }
                record
            }
        };
        if let Some(slot) = self.links.get_mut(key) {
            slot.outgoing.push_back(record);
        }
        Ok(())
    }

    /// Makes the lane, finds or makes its session, and starts to prove the lane.
    fn establish(&mut self, key: Key, link: Box<dyn Link>, peer: &PeerHello) -> Result<(), TransportError> {
        let Some(slot) = self.links.get(key) else { return Ok(()) };
        let (owner, role, transport, attempt) = (slot.owner, slot.role, slot.transport, slot.attempt);
        let id = SessionId { engine: peer.hello.engine, pinned: slot.pinned };
        let number = peer.hello.lane;
        let (locator, extra, lost) = (slot.locator.clone(), slot.extra, self.epoch_of(id));
        if extra && !self.has_session(peer, id.pinned) {
            return Err(TransportError::new(ErrorKind::TurnedAway, "handshake", "the session is over"));
        }
        if role == Role::Dialer && lost > peer.hello.epoch {
            // The hello could not say so, as it was not known who would answer: dial again, knowing it.
            if let Some(connecting) = attempt.and_then(|(connect, _)| self.connects.get_mut(connect)) {
                connecting.expected = Some((peer.hello.engine, peer.hello.incarnation));
            }
            return Err(TransportError::new(ErrorKind::Protocol, STALE, ""));
        }
        let params =
            LaneParams { role, key: PollKey { owner, sub: 0 }, peer_timeout: self.config.lane_timeout() };
        let lane = link.into_lane(params)?;
        let session = self.session_with(id, peer);
        let nonce = u64::from_le_bytes(entropy(&*self.surroundings)?);
        let deadline = self.surroundings.now() + self.config.handshake_timeout;
        let proof = Proof::new(nonce, super::proof::PROBES, deadline, attempt);
        let lane_key = self.lanes.insert(LaneSlot {
            number,
            locator,
            dialled: role == Role::Dialer,
            extra,
            ..LaneSlot::new(lane, transport, (owner, session), proof)
        });
        self.links.remove(key);
        self.owners[owner as usize] = Owner::Lane(lane_key);
        if let Some((connect, index)) = attempt {
            self.set_attempt(connect, index, AttemptState::Proving(lane_key));
        }
        self.unproven.push(lane_key);
        self.heat(lane_key);
        self.warm_socket(lane_key);
        self.send_probe(lane_key);
        self.poll_lane(lane_key, BUDGET);
        Ok(())
    }

    fn known_session(&self, peer: &PeerHello, pinned: Option<&'static str>) -> Option<(Key, &Session)> {
        let key = *self.session_of.get(&SessionId { engine: peer.hello.engine, pinned })?;
        let session = self.sessions.get(key).filter(|session| session.is_up())?;
        let same = session.peer.incarnation == peer.hello.incarnation && peer.hello.epoch <= session.epoch;
        same.then_some((key, session))
    }

    /// Whether the session of which a peer wants another lane stands.
    fn has_session(&self, peer: &PeerHello, pinned: Option<&'static str>) -> bool {
        self.known_session(peer, pinned).is_some()
    }

    fn takes_one_more(&self, peer: &PeerHello, pinned: Option<&'static str>, transport: &str) -> bool {
        self.known_session(peer, pinned).is_some_and(|(key, _)| self.takes_extra(key, transport))
    }

    /// The session that a proven peer means. A later epoch fences what was before.
    fn session_with(&mut self, id: SessionId, peer: &PeerHello) -> Key {
        for key in self.sessions_with(id.engine) {
            let restarted = |session: &Session| session.peer.incarnation != peer.hello.incarnation;
            if self.sessions.get(key).is_some_and(restarted) {
                self.lose_session(key, "the peer was restarted");
            }
        }
        let epoch = peer.hello.epoch.max(self.epoch_of(id));
        if let Some(&known) = self.session_of.get(&id)
            && let Some(session) = self.sessions.get(known)
        {
            if session.epoch == epoch && session.is_up() {
                return known;
            }
            self.lose_session(known, "the peer had given the session up");
        }
        let epoch = epoch.max(self.epoch_of(id).min(peer.hello.epoch));
        let locators = peer.hello.locators.split(' ').filter_map(|text| text.parse().ok()).collect();
        let theirs = Windows {
            endpoint_bytes: peer.hello.credits.endpoint_bytes,
            session_bytes: peer.hello.credits.session_bytes,
            endpoint_envelopes: u64::from(peer.hello.credits.endpoint_envelopes),
            session_envelopes: u64::from(peer.hello.credits.session_envelopes),
        };
        let (incarnation, number) = (peer.hello.incarnation, self.number_for(id.engine));
        let engine =
            PeerEngine { id: id.engine, incarnation, number, locators, features: Features(peer.features) };
        let session = Session::new(engine, id.pinned, epoch, theirs, self.config.windows);
        let key = self.sessions.insert(session);
        self.epochs.insert(id, epoch);
        self.session_of.insert(id, key);
        key
    }

    /// The sessions that live with an engine: the implicit one and those that are pinned.
    pub(crate) fn sessions_with(&self, engine: [u8; 16]) -> Vec<Key> {
        let names = self.domains.iter().map(|slot| Some(slot.name));
        let ids = std::iter::once(None).chain(names).map(|pinned| SessionId { engine, pinned });
        ids.filter_map(|id| self.session_of.get(&id).copied()).collect()
    }

    /// What stands for an engine in sources: what it has in the sessions that live with it, else a number of its own.
    pub(super) fn number_for(&mut self, engine: [u8; 16]) -> u32 {
        let known = self.sessions_with(engine);
        if let Some(session) = known.first().and_then(|&key| self.sessions.get(key)) {
            return session.peer.number;
        }
        NUMBERS.fetch_add(1, Ordering::Relaxed)
    }

    /// How many of these sessions this engine has declared lost.
    fn epoch_of(&self, id: SessionId) -> u64 {
        self.epochs.get(&id).copied().unwrap_or(0)
    }

    /// Where peers can reach this engine.
    pub(crate) fn locators(&self) -> Vec<Locator> {
        self.domains.iter().flat_map(|slot| slot.domain.locators()).collect()
    }
}

/// Locators for a hello: one text, as many as fit.
fn locators_text(locators: &[Locator]) -> String {
    let mut text = String::new();
    for locator in locators {
        let next = locator.to_string();
        if text.len() + next.len() + 1 > sinew_wire::hello::LOCATORS_MAX {
            continue;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&next);
    }
    text
}

fn refusal_error(error: &HandshakeError) -> TransportError {
    let kind = match error {
        HandshakeError::Malformed(_) | HandshakeError::OutOfOrder { .. } | HandshakeError::Crypto(_) => {
            ErrorKind::Protocol
        }
        _ => ErrorKind::TurnedAway,
    };
    TransportError::new(kind, "handshake", error.to_string())
}
