//! Making lanes: dialling candidates one after the other, the mutual proof on each link, the probe of each lane.
//!
//! Candidates come from addresses and hellos, best expectation first; each next one starts a little later unless the ones
//! before it have failed. The first that is proven carries traffic; a better one takes over later (`failover`).

use super::lanes::Proof;
use super::session::{PeerEngine, Session, Windows};
use super::table::Key;
use super::{Core, LaneSlot, Owner};
use crate::config::Security;
use crate::error::OpError;
use sinew_proto::handshake::{self, Handshake, HandshakeError, PeerHello, Step, Trust, domain_hash};
use sinew_transport::{
    ErrorKind, Identity, LaneError, LaneParams, Link, LinkState, Locator, PollKey, RECORD_LEN, Record, Role,
    TransportError,
};
use sinew_wire::frame::{Header, Kind};
use sinew_wire::hello::{Credits, Hello, Reason};
use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

/// A link on its way to a lane.
pub(crate) struct LinkSlot {
    link: Option<Box<dyn Link>>,
    owner: u32,
    role: Role,
    transport: &'static str,
    locator: String,
    deadline: Instant,
    handshake: Option<Handshake>,
    outgoing: VecDeque<Record>,
    /// The proof is complete; once everything is sent the link becomes a lane.
    done: Option<Box<PeerHello>>,
    /// The link ends once everything is sent, for this reason.
    refused: Option<String>,
    /// The dial that it belongs to: connect and candidate.
    attempt: Option<(Key, usize)>,
    lane_number: u32,
}

/// What became of a candidate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AttemptState {
    Untried,
    Dialing(Key),
    Proving(Key),
    Verified(Key),
    Failed { kind: ErrorKind, text: String },
}

/// One way that was considered.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) transport: String,
    pub(crate) locator: String,
    pub(crate) state: AttemptState,
    pub(crate) rtt_ns: Option<u64>,
    pub(crate) full_rtt_ns: Option<u64>,
    to: Option<Locator>,
}

/// How a connect stands.
#[derive(Clone, Debug)]
pub(crate) enum ConnectState {
    Waiting,
    /// A session with a proven lane.
    Ready(Key),
    Failed(String),
}

/// Candidates being tried towards one engine.
pub(crate) struct Connecting {
    /// The engine that must answer, if it is known.
    expected: Option<([u8; 16], u64)>,
    /// The session that is to be given a lane again.
    redial: Option<Key>,
    /// Only these candidates, whatever else there is.
    pinned: bool,
    attempts: Vec<Attempt>,
    next_at: Instant,
    deadline: Instant,
    backoff: Duration,
    pub(crate) state: ConnectState,
    pub(crate) waker: Option<Waker>,
}

/// Waits between two rounds of a redial.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a session waits for its peer to dial again when the peer cannot be dialled.
const UNDIALLABLE_GRACE: Duration = Duration::from_secs(1);

impl Connecting {
    fn is_live(&self) -> bool {
        matches!(self.state, ConnectState::Waiting)
    }
}

/// Bytes of the system's generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], rustix::io::Errno> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(got) => filled += got,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(bytes)
}

fn entropy<const N: usize>() -> Result<[u8; N], TransportError> {
    random().map_err(|errno| TransportError::os(errno, "getrandom", ""))
}

fn failure_text(error: &LaneError) -> String {
    error.to_string()
}

impl Core {
    /// Starts towards `candidates`; a session that is up already is the answer at once.
    pub(crate) fn start_connect(
        &mut self,
        expected: Option<([u8; 16], u64)>,
        candidates: Vec<Locator>,
        deadline: Instant,
        redial: Option<Key>,
        pinned: bool,
    ) -> Key {
        let now = Instant::now();
        let state = match expected.and_then(|(engine, _)| self.session_of.get(&engine)).copied() {
            Some(session)
                if redial.is_none()
                    && !pinned
                    && self.sessions.get(session).is_some_and(|session| session.active.is_some()) =>
            {
                ConnectState::Ready(session)
            }
            _ => ConnectState::Waiting,
        };
        let key = self.connects.insert(Connecting {
            expected,
            redial,
            pinned,
            attempts: self.order(candidates),
            next_at: now,
            deadline,
            backoff: BACKOFF_MIN,
            state,
            waker: None,
        });
        self.advance_connect(key, now);
        key
    }

    /// Candidates as attempts, the best expectation first; those that no transport here understands fail at once.
    fn order(&self, candidates: Vec<Locator>) -> Vec<Attempt> {
        let mut rated: Vec<(u64, Attempt)> = candidates
            .into_iter()
            .map(|locator| {
                let transport = self.domains.iter().find(|slot| slot.domain.understands(locator.scheme()));
                let state = match transport {
                    Some(_) => AttemptState::Untried,
                    None => AttemptState::Failed {
                        kind: ErrorKind::Unavailable,
                        text: self.why_absent(locator.scheme()),
                    },
                };
                let cost = transport.map_or(u64::MAX, |slot| slot.cost.predict_ns(64));
                let attempt = Attempt {
                    transport: transport
                        .map_or_else(|| locator.scheme().to_owned(), |slot| slot.name.to_owned()),
                    locator: locator.to_string(),
                    state,
                    rtt_ns: None,
                    full_rtt_ns: None,
                    to: Some(locator),
                };
                (cost, attempt)
            })
            .collect();
        rated.sort_by_key(|(cost, _)| *cost);
        rated.into_iter().map(|(_, attempt)| attempt).collect()
    }

    fn why_absent(&self, scheme: &str) -> String {
        match self.absent.iter().find(|absent| absent.name == scheme) {
            Some(absent) => format!("the transport could not be opened: {}", absent.error),
            None => "no transport of this engine understands it (option transports)".to_owned(),
        }
    }

    /// Starts the next candidate when its time has come, or when nothing else is under way.
    fn advance_connect(&mut self, key: Key, now: Instant) {
        loop {
            let Some(connecting) = self.connects.get_mut(key) else { return };
            if !connecting.is_live() {
                return;
            }
            // A proven lane is under way too until its session can use it.
            let under_way = connecting.attempts.iter().any(|attempt| {
                matches!(
                    attempt.state,
                    AttemptState::Dialing(_) | AttemptState::Proving(_) | AttemptState::Verified(_)
                )
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
        let Some(attempt) = self.connects.get(key).and_then(|connecting| connecting.attempts.get(index))
        else {
            return;
        };
        let Some(to) = attempt.to.clone() else { return };
        let link_key = self.links.next_key();
        let owner = self.new_owner(Owner::Link(link_key));
        let Some(domain) = self.domains.iter_mut().find(|slot| slot.domain.understands(to.scheme())) else {
            return;
        };
        let transport = domain.name;
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
                    lane_number: u32::from_le_bytes(random().unwrap_or([1; 4])) | 1,
                };
                let link_key = self.links.insert(slot);
                self.set_attempt(key, index, AttemptState::Dialing(link_key));
                self.link_event(link_key);
            }
            Err(error) => {
                self.owners[owner as usize] = Owner::Free;
                self.set_attempt(key, index, failed(&error));
            }
        }
    }

    fn set_attempt(&mut self, key: Key, index: usize, state: AttemptState) {
        if let Some(attempt) =
            self.connects.get_mut(key).and_then(|connecting| connecting.attempts.get_mut(index))
        {
            attempt.state = state;
        }
    }

    /// Every candidate has failed: a connect is over, a redial tries again unless all say that nobody is there.
    fn connect_exhausted(&mut self, key: Key, now: Instant) {
        let Some(connecting) = self.connects.get_mut(key) else { return };
        let Some(session) = connecting.redial else {
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
            self.lose_session(
                session,
                &format!("its last lane broke and nobody answers where it was\n{table}"),
            );
            return;
        }
        if now >= connecting.deadline {
            self.connects.remove(key);
            return;
        }
        connecting.next_at = now + connecting.backoff;
        connecting.backoff = (connecting.backoff * 2).min(BACKOFF_MAX);
    }

    /// A session has lost its last lane: dial the peer again.
    pub(crate) fn redial(&mut self, session_key: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let pinned = !session.pinned.is_empty();
        let locators = if pinned { session.pinned.clone() } else { session.peer.locators.clone() };
        let expected = Some((session.peer.id, session.peer.incarnation));
        let now = Instant::now();
        let wait = if locators.is_empty() {
            UNDIALLABLE_GRACE.min(self.config.peer_timeout)
        } else {
            self.config.peer_timeout
        };
        self.start_connect(expected, locators, now + wait, Some(session_key), pinned);
    }

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
                        deadline: Instant::now() + self.config.handshake_timeout,
                        handshake: None,
                        outgoing: VecDeque::new(),
                        done: None,
                        refused: None,
                        attempt: None,
                        lane_number: 0,
                    };
                    let key = self.links.insert(slot);
                    self.owners[owner as usize] = Owner::Link(key);
                    self.link_event(key);
                }
                Ok(None) => {
                    self.owners[owner as usize] = Owner::Free;
                    return accepted;
                }
                Err(error) => {
                    self.owners[owner as usize] = Owner::Free;
                    tracing::warn!(target: "sinew", transport, %error, "listener failed");
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

    fn drop_link(&mut self, key: Key) -> Option<LinkSlot> {
        let slot = self.links.remove(key)?;
        if let Some(owner) = self.owners.get_mut(slot.owner as usize)
            && *owner == Owner::Link(key)
        {
            *owner = Owner::Free;
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

    fn link_failed(&mut self, key: Key, error: &TransportError) {
        let Some(slot) = self.drop_link(key) else { return };
        if slot.role == Role::Acceptor {
            self.counters.strangers += 1;
            tracing::debug!(target: "sinew", transport = slot.transport, from = slot.locator, %error, "stranger");
        }
        if let Some((connect, index)) = slot.attempt {
            self.set_attempt(connect, index, failed(error));
            self.advance_connect(connect, Instant::now());
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
        let (role, attempt, number) = match self.links.get(key) {
            Some(slot) => (slot.role, slot.attempt, slot.lane_number),
            None => return Ok(()),
        };
        let expected =
            attempt.and_then(|(connect, _)| self.connects.get(connect)).and_then(|connect| connect.expected);
        let hello = self.hello(expected, number);
        let started = match role {
            Role::Dialer => Handshake::dialer(config, hello, entropy()?)
                .map(|(handshake, record)| (handshake, Some(record)))
                .map_err(|error| refusal_error(&error))?,
            Role::Acceptor => (Handshake::acceptor(config, entropy()?), None),
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
        let secret = (!self.config.secret.is_empty()).then(|| handshake::Secret::new(&self.config.secret));
        handshake::Config {
            engine: self.id,
            incarnation: self.incarnation,
            domain: domain_hash(&self.config.domain),
            trust: Trust { secret, plain: same_user || open },
            versions: self.config.versions,
            features: 0,
            required: 0,
        }
    }

    fn hello(&self, expected: Option<([u8; 16], u64)>, lane: u32) -> Hello {
        let windows = self.config.windows;
        let (engine, incarnation) = expected.unwrap_or_default();
        Hello {
            engine: self.id,
            incarnation: self.incarnation,
            domain: [0; 32],
            expected_engine: engine,
            expected_incarnation: incarnation,
            received: self.epochs.get(&engine).copied().unwrap_or(0),
            resumes: false,
            credits: Credits {
                session_bytes: windows.session_bytes,
                endpoint_bytes: windows.endpoint_bytes,
                session_envelopes: windows.session_envelopes as u32,
                endpoint_envelopes: windows.endpoint_envelopes as u32,
            },
            frame_max: 0,
            process: std::process::id(),
            lane,
            encryption_wanted: false,
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
                None => return Err(refusal_error(&error)),
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
        let answer = if self.closed {
            Err((Reason::CLOSING, "this engine is closing"))
        } else if peer.hello.engine == self.id {
            Err((Reason::MYSELF, "an engine does not dial itself"))
        } else {
            Ok(())
        };
        let record = match answer {
            Ok(()) => {
                let mut hello =
                    self.hello(Some((peer.hello.engine, peer.hello.incarnation)), peer.hello.lane);
                hello.received = hello.received.max(peer.hello.received);
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
        let number = peer.hello.lane;
        let locator = slot.locator.clone();
        let params =
            LaneParams { role, key: PollKey { owner, sub: 0 }, peer_timeout: self.config.peer_timeout };
        let lane = link.into_lane(params)?;
        let session = self.session_with(peer);
        let memory_polled = lane.info().capabilities.memory_polled;
        let pinned =
            attempt.and_then(|(connect, _)| self.connects.get(connect)).is_some_and(|connect| connect.pinned);
        let now = Instant::now();
        let lane_key = self.lanes.insert(LaneSlot {
            owner,
            session,
            number,
            locator,
            transport,
            memory_polled,
            hot: false,
            idle: 0,
            inbound: false,
            listening: false,
            pinned,
            waiting: Vec::new(),
            proof: Proof {
                nonce: u64::from_le_bytes(entropy()?),
                left: 2,
                sent_at: None,
                deadline: now + self.config.handshake_timeout,
                rtt_ns: None,
                full_rtt_ns: None,
                verified: false,
                recent: [None; 4],
                attempt,
            },
            frames_sent: 0,
            frames_received: 0,
            lane: Some(lane),
        });
        self.links.remove(key);
        self.owners[owner as usize] = Owner::Lane(lane_key);
        if let Some((connect, index)) = attempt {
            self.set_attempt(connect, index, AttemptState::Proving(lane_key));
        }
        self.heat(lane_key);
        self.warm_socket(lane_key);
        self.send_probe(lane_key);
        self.poll_lane(lane_key);
        Ok(())
    }

    /// The session that a proven peer belongs to. A later epoch fences what was before.
    fn session_with(&mut self, peer: &PeerHello) -> Key {
        let id = peer.hello.engine;
        let epoch = peer.hello.received.max(self.epochs.get(&id).copied().unwrap_or(0));
        if let Some(&known) = self.session_of.get(&id)
            && let Some(session) = self.sessions.get(known)
        {
            if session.peer.incarnation == peer.hello.incarnation && session.epoch == epoch && session.is_up()
            {
                return known;
            }
            let reason = if session.peer.incarnation == peer.hello.incarnation {
                "the peer had given the session up"
            } else {
                "the peer was restarted"
            };
            self.lose_session(known, reason);
        }
        let epoch = epoch.max(self.epochs.get(&id).copied().unwrap_or(0).min(peer.hello.received));
        let locators = peer.hello.locators.split(' ').filter_map(|text| text.parse().ok()).collect();
        let theirs = Windows {
            endpoint_bytes: peer.hello.credits.endpoint_bytes,
            session_bytes: peer.hello.credits.session_bytes,
            endpoint_envelopes: u64::from(peer.hello.credits.endpoint_envelopes),
            session_envelopes: u64::from(peer.hello.credits.session_envelopes),
        };
        let engine = PeerEngine { id, incarnation: peer.hello.incarnation, locators };
        let key = self.sessions.insert(Session::new(engine, epoch, theirs, self.config.windows));
        self.epochs.insert(id, epoch);
        self.session_of.insert(id, key);
        key
    }

    /// Sends the next probe of a lane: first a small one, then one as large as the lane takes.
    fn send_probe(&mut self, key: Key) {
        let Some(slot) = self.lanes.get_mut(key) else { return };
        let frame_max = slot.lane.as_ref().map_or(0, |lane| lane.info().limits.frame_max);
        let len = if slot.proof.left == 2 { 8 } else { frame_max };
        let header = Header::control(Kind::PROBE, slot.proof.nonce);
        slot.proof.sent_at = Some(Instant::now());
        self.post_unsequenced(key, header, &vec![0x5a; len]);
    }

    pub(crate) fn handle_probe(&mut self, lane: Key, header: &Header, len: usize) {
        self.post_unsequenced(lane, Header::control(Kind::PROBE_REPLY, header.tag), &vec![0xa5; len]);
    }

    pub(crate) fn handle_probe_reply(&mut self, lane: Key, header: &Header) {
        let Some(slot) = self.lanes.get_mut(lane) else { return };
        let proof = &mut slot.proof;
        if header.tag != proof.nonce || proof.left == 0 {
            return;
        }
        let took = proof.sent_at.map_or(0, |at| u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if proof.left == 2 {
            proof.rtt_ns = Some(took);
        } else {
            proof.full_rtt_ns = Some(took);
        }
        proof.left -= 1;
        proof.nonce = proof.nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        if proof.left > 0 {
            self.send_probe(lane);
            return;
        }
        self.lane_proven(lane);
    }

    fn lane_proven(&mut self, key: Key) {
        let Some(slot) = self.lanes.get_mut(key) else { return };
        slot.proof.verified = true;
        let (rtt_ns, full_rtt_ns) = (slot.proof.rtt_ns, slot.proof.full_rtt_ns);
        if let Some((connect, index)) = slot.proof.attempt
            && let Some(attempt) =
                self.connects.get_mut(connect).and_then(|connect| connect.attempts.get_mut(index))
        {
            attempt.state = AttemptState::Verified(key);
            (attempt.rtt_ns, attempt.full_rtt_ns) = (rtt_ns, full_rtt_ns);
        }
        self.attach_lane(key);
    }

    /// A lane ended before or after it was proven: its candidate failed.
    pub(crate) fn proof_failed(&mut self, slot: &LaneSlot, error: &LaneError) {
        self.note(slot, &failure_text(error));
        if let Some((connect, index)) = slot.proof.attempt {
            self.set_attempt(connect, index, failed(error));
            self.advance_connect(connect, Instant::now());
        }
    }

    /// A session can send: connects that waited for it are answered.
    pub(crate) fn session_has_lane(&mut self, session_key: Key) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let (peer, incarnation, active) = (session.peer.id, session.peer.incarnation, session.active);
        for key in self.connects.keys() {
            let Some(connecting) = self.connects.get(key) else { continue };
            let reached = connecting.attempts.iter().any(|attempt| match attempt.state {
                AttemptState::Proving(lane) | AttemptState::Verified(lane) if connecting.pinned => {
                    active == Some(lane)
                }
                AttemptState::Proving(lane) | AttemptState::Verified(lane) => {
                    self.lanes.get(lane).is_some_and(|slot| slot.session == session_key)
                }
                _ => false,
            });
            let expected = !connecting.pinned
                && connecting
                    .expected
                    .is_some_and(|(engine, of)| engine == peer && (of == 0 || of == incarnation));
            if !connecting.is_live() || !(reached || expected) {
                continue;
            }
            let attempts = connecting.attempts.clone();
            let redial = connecting.redial.is_some();
            if connecting.pinned
                && let Some(session) = self.sessions.get_mut(session_key)
            {
                session.pinned = attempts.iter().filter_map(|attempt| attempt.to.clone()).collect();
            }
            self.history.insert(peer, attempts);
            if redial {
                self.connects.remove(key);
            } else if let Some(connecting) = self.connects.get_mut(key) {
                connecting.state = ConnectState::Ready(session_key);
                self.wake_connect(key);
            }
        }
    }

    /// A session is over: connects and redials of it end.
    pub(crate) fn connects_lost(&mut self, session_key: Key, _error: &OpError) {
        for key in self.connects.keys() {
            if self.connects.get(key).is_some_and(|connecting| connecting.redial == Some(session_key)) {
                self.connects.remove(key);
            }
        }
    }

    fn wake_connect(&mut self, key: Key) {
        self.effects.finished = true;
        if let Some(waker) = self.connects.get_mut(key).and_then(|connecting| connecting.waker.take()) {
            self.effects.wakers.push(waker);
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
            if succeeded && !connecting.pinned {
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

    /// The session of the engine with itself.
    pub(crate) fn self_session(&mut self) -> Key {
        if let Some(&known) = self.session_of.get(&self.id) {
            return known;
        }
        let windows = self.config.windows;
        let peer = PeerEngine { id: self.id, incarnation: self.incarnation, locators: Vec::new() };
        let session = self.sessions.insert(Session::new(peer, 0, windows, windows));
        self.session_of.insert(self.id, session);
        let lane = self.lanes.insert(LaneSlot {
            lane: Some(Box::new(super::self_lane::SelfLane::new())),
            owner: u32::MAX,
            session,
            number: 1,
            locator: "self".to_owned(),
            transport: "self",
            memory_polled: true,
            hot: false,
            idle: 0,
            inbound: true,
            listening: true,
            pinned: false,
            waiting: Vec::new(),
            proof: Proof {
                nonce: 0,
                left: 0,
                sent_at: None,
                deadline: Instant::now(),
                rtt_ns: None,
                full_rtt_ns: None,
                verified: true,
                recent: [None; 4],
                attempt: None,
            },
            frames_sent: 0,
            frames_received: 0,
        });
        if let Some(session) = self.sessions.get_mut(session) {
            session.lanes.push(lane);
            session.active = Some(lane);
            session.ready = true;
        }
        self.heat(lane);
        session
    }

    /// When dials, proofs or sessions want to be looked at.
    pub(crate) fn next_wireup_timer(&self) -> Option<Instant> {
        let links = self.links.iter().map(|(_, slot)| slot.deadline);
        let proofs =
            self.lanes.iter().filter(|(_, slot)| !slot.proof.verified).map(|(_, slot)| slot.proof.deadline);
        let connects =
            self.connects.iter().filter(|(_, connecting)| connecting.is_live()).map(|(_, connecting)| {
                let more = connecting.redial.is_some()
                    || connecting.attempts.iter().any(|attempt| attempt.state == AttemptState::Untried);
                if more { connecting.next_at.min(connecting.deadline) } else { connecting.deadline }
            });
        links.chain(proofs).chain(connects).chain(self.laneless_timer()).min()
    }

    pub(crate) fn run_wireup_timers(&mut self, now: Instant) -> usize {
        if self.links.len() == 0
            && self.connects.len() == 0
            && !self.lanes.iter().any(|(_, slot)| !slot.proof.verified)
        {
            self.check_laneless(now);
            return 0;
        }
        for key in self.links.keys() {
            if self.links.get(key).is_some_and(|slot| slot.deadline <= now) {
                let error = TransportError::new(ErrorKind::TimedOut, "connect", "")
                    .hint("a filter drops packets, the host is down, or the program there makes no progress");
                self.link_failed(key, &error);
            }
        }
        for key in self.lanes.keys() {
            if self.lanes.get(key).is_some_and(|slot| !slot.proof.verified && slot.proof.deadline <= now) {
                let error = TransportError::new(ErrorKind::TimedOut, "probe", "")
                    .hint("small frames pass, full ones may not");
                self.lane_failed(key, &error);
            }
        }
        for key in self.connects.keys() {
            let Some(connecting) = self.connects.get_mut(key) else { continue };
            if !connecting.is_live() {
                continue;
            }
            let retry = connecting.redial.is_some()
                && now >= connecting.next_at
                && connecting
                    .attempts
                    .iter()
                    .all(|attempt| matches!(attempt.state, AttemptState::Failed { .. }));
            if retry {
                for attempt in connecting.attempts.iter_mut().filter(|attempt| attempt.to.is_some()) {
                    attempt.state = AttemptState::Untried;
                }
            }
            self.advance_connect(key, now);
        }
        self.check_laneless(now);
        0
    }

    pub(crate) fn abandon_wireup(&mut self) {
        for key in self.links.keys() {
            self.drop_link(key);
        }
        for key in self.connects.keys() {
            if let Some(connecting) = self.connects.get_mut(key) {
                connecting.state = ConnectState::Failed("the engine was closed".into());
            }
            self.wake_connect(key);
        }
    }

    /// Remembers what became of a lane, for `explain`.
    pub(crate) fn note(&mut self, slot: &LaneSlot, text: &str) {
        let Some(peer) = self.sessions.get(slot.session).map(|session| session.peer.id) else { return };
        let rows = self.history.entry(peer).or_default();
        let state = AttemptState::Failed { kind: ErrorKind::Broken, text: text.to_owned() };
        match rows.iter().position(|row| row.transport == slot.transport && row.locator == slot.locator) {
            Some(row) => rows[row].state = state,
            None if rows.len() < 64 => rows.push(Attempt {
                transport: slot.transport.to_owned(),
                locator: slot.locator.clone(),
                state,
                rtt_ns: slot.proof.rtt_ns,
                full_rtt_ns: slot.proof.full_rtt_ns,
                to: None,
            }),
            None => {}
        }
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

fn failed(error: &TransportError) -> AttemptState {
    AttemptState::Failed { kind: error.kind, text: error.to_string() }
}

fn refusal_error(error: &HandshakeError) -> TransportError {
    TransportError::new(ErrorKind::Protocol, "handshake", error.to_string())
}

fn table_text(attempts: &[Attempt]) -> String {
    if attempts.is_empty() {
        return "  (there was nothing to try: the address has no locator)".to_owned();
    }
    let mut text = String::new();
    for attempt in attempts {
        let verdict = match &attempt.state {
            AttemptState::Untried => "not tried yet".to_owned(),
            AttemptState::Dialing(_) => "no answer yet".to_owned(),
            AttemptState::Proving(_) => "answered, but a full frame has not come back yet".to_owned(),
            AttemptState::Verified(_) => "works".to_owned(),
            AttemptState::Failed { text, .. } => text.clone(),
        };
        text.push_str(&format!("  {:<6} {}: {verdict}\n", attempt.transport, attempt.locator));
    }
    text
}
