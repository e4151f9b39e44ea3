//! One end of a connection: an ordered stream of pieces over packets that may be lost, doubled and overtaken.
//!
//! This is the kernel's part: what it has taken it delivers, or says that the connection is over. Whether the process reads
//! does not matter to it, but that it stops taking more.

use super::{EndId, Event, Kind, MICROS, MILLIS, Nanos, Net, Packet, Piece, SECONDS, Word};
use sinew_transport::ErrorKind;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Pieces that may wait to be read.
const ROOM: u64 = 48;
/// Pieces that may be under way.
const WINDOW: u64 = 32;
/// Bytes that may wait to be sent.
const SEND_BYTES: usize = 96 << 10;
/// Between a packet and its next try, at first and at last.
const RESEND_FIRST: Nanos = 4 * MILLIS;
const RESEND_LAST: Nanos = 300 * MILLIS;
/// How long what was left behind by its owner is still sent.
const LINGER: Nanos = 60 * SECONDS;

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Connecting,
    Open,
    Over(ErrorKind),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) kind: Kind,
    pub(crate) host: usize,
    pub(crate) peer: EndId,
    pub(crate) peer_host: usize,
    /// Which process is meant there; 0: whichever.
    pub(crate) port: u32,
    pub(crate) owner: u32,
    pub(crate) state: State,
    /// Nobody holds it; it only finishes.
    pub(crate) abandoned: bool,
    left_at: Nanos,
    /// A link: something happened since it was polled.
    pub(crate) news: bool,
    pub(crate) is_lane: bool,
    /// A lane that is polled in memory: something happened since it was polled; it wants to be told by its domain.
    pub(crate) dirty: bool,
    pub(crate) cooled: bool,
    /// Pieces that the peer has not confirmed, and the number of the first.
    out: VecDeque<Arc<Piece>>,
    first: u64,
    sent: u64,
    out_bytes: usize,
    pub(crate) wants_room: bool,
    pub(crate) edge: u64,
    resend_after: Nanos,
    round: u64,
    timed: bool,
    /// Since when the peer's kernel has owed an answer.
    pub(crate) owed_since: Option<Nanos>,
    peer_timeout: Nanos,
    expected: u64,
    early: BTreeMap<u64, Arc<Piece>>,
    pub(crate) arrived: VecDeque<Arc<Piece>>,
    taken: u64,
    told_edge: u64,
    /// Frames that the peer's lane has handed up, where memory shows it.
    pub(crate) handed_up: u64,
    /// Descriptors with an earlier number are not believed.
    pub(crate) recalled: u64,
}

impl End {
    pub(super) fn new(kind: Kind, host: usize, peer: EndId, owner: u32) -> Self {
        Self {
            kind,
            host,
            peer,
            peer_host: 0,
            port: 0,
            owner,
            state: State::Connecting,
            abandoned: false,
            left_at: 0,
            news: false,
            is_lane: false,
            dirty: false,
            cooled: false,
            out: VecDeque::new(),
            first: 0,
            sent: 0,
            out_bytes: 0,
            wants_room: false,
            edge: ROOM,
            resend_after: RESEND_FIRST,
            round: 0,
            timed: false,
            owed_since: None,
            peer_timeout: 0,
            expected: 0,
            early: BTreeMap::new(),
            arrived: VecDeque::new(),
            taken: 0,
            told_edge: ROOM,
            handed_up: 0,
            recalled: 0,
        }
    }

    pub(crate) fn is_polled(&self) -> bool {
        self.is_lane && self.kind == Kind::Near && !self.abandoned
    }

    pub(crate) fn has_room(&self) -> bool {
        self.out_bytes < SEND_BYTES
    }

    /// Whether a descriptor would be readable or writable.
    pub(super) fn is_ready(&self) -> bool {
        if self.abandoned || self.owner == u32::MAX || self.is_polled() {
            return false;
        }
        let over = matches!(self.state, State::Over(_));
        if !self.is_lane && self.news {
            return true;
        }
        !self.arrived.is_empty() || over || self.is_lane && self.wants_room && self.has_room()
    }

    /// For people who look for a fault.
    pub(crate) fn brief(&self) -> String {
        let Self { kind, state, is_lane, dirty, news, wants_room, abandoned, .. } = self;
        let (waiting, out) = (self.arrived.len(), self.out.len());
        format!(
            "{kind:?} {state:?} lane {is_lane} dirty {dirty} news {news} wants_room {wants_room} abandoned {abandoned} waiting {waiting} out {out}"
        )
    }

    fn is_idle(&self) -> bool {
        self.state != State::Connecting && self.out.is_empty()
    }
}

impl Net {
    /// Something happened to an end: whoever holds it will find out.
    fn note(&mut self, id: EndId) {
        let Some(end) = self.end(id) else { return };
        end.news = true;
        let (host, kind, owner) = (end.host, end.kind, end.owner);
        if end.is_polled()
            && !std::mem::replace(&mut end.dirty, true)
            && std::mem::take(&mut end.cooled)
            && let Some(share) = self.share(host, kind)
        {
            share.warm.push(owner);
        }
        self.touch(host);
    }

    /// Gives a piece to the stream. The caller has seen that there is room, or takes little.
    pub(crate) fn put(&mut self, id: EndId, piece: Piece) {
        let Some(end) = self.end(id) else { return };
        end.out_bytes += piece.len();
        end.out.push_back(Arc::new(piece));
        self.send_more(id);
    }

    fn send_more(&mut self, id: EndId) {
        loop {
            let now = self.now;
            let Some(end) = self.end(id) else { return };
            let number = end.sent;
            let Some(piece) = end.out.get((number - end.first) as usize).cloned() else { break };
            if end.state != State::Open || number >= end.edge || number >= end.first + WINDOW {
                break;
            }
            end.sent += 1;
            end.owed_since.get_or_insert(now);
            self.say(id, Word::Data { number, piece });
        }
        if self.end(id).is_some_and(|end| !end.out.is_empty()) {
            self.start_timer(id);
        }
    }

    pub(super) fn start_timer(&mut self, id: EndId) {
        let Some(end) = self.end(id) else { return };
        if end.timed || end.kind != Kind::Far && end.state == State::Open && end.sent > end.first {
            return;
        }
        end.timed = true;
        end.round += 1;
        let (round, after) = (end.round, end.resend_after);
        let late = self.random.below(200 * MICROS);
        self.push(self.now + after + late, Event::Resend { end: id, round });
    }

    /// Tries again what was not confirmed.
    pub(super) fn resend(&mut self, id: EndId, round: u64) {
        let now = self.now;
        let Some(end) = self.end(id) else { return };
        if end.round != round {
            return;
        }
        end.timed = false;
        if matches!(end.state, State::Over(_)) || end.is_idle() {
            return;
        }
        if end.abandoned && now > end.left_at + LINGER {
            return self.reset(id);
        }
        end.resend_after = (end.resend_after * 2).min(RESEND_LAST);
        if end.state == State::Connecting {
            self.say(id, Word::Syn);
        } else if end.sent > end.first {
            let number = end.first;
            if let Some(piece) = end.out.front().cloned() {
                self.say(id, Word::Data { number, piece });
            }
        } else {
            end.owed_since.get_or_insert(now);
            self.say(id, Word::Probe);
        }
        self.start_timer(id);
    }

    /// From now on the kernel looks after a peer that is silent, as of a lane that has nothing to say.
    pub(crate) fn keep_alive_from_now(&mut self, id: EndId, peer_timeout: Nanos) {
        let Some(end) = self.end(id) else { return };
        end.peer_timeout = peer_timeout;
        if end.kind == Kind::Far {
            self.push(self.now + peer_timeout / 3, Event::KeepAlive { end: id });
        }
    }

    pub(super) fn keep_alive(&mut self, id: EndId) {
        let now = self.now;
        let Some(end) = self.end(id) else { return };
        if end.abandoned || end.state != State::Open {
            return;
        }
        let since = *end.owed_since.get_or_insert(now);
        if since + end.peer_timeout <= now {
            end.state = State::Over(ErrorKind::TimedOut);
            return self.note(id);
        }
        let after = end.peer_timeout / 3;
        self.say(id, Word::Probe);
        self.push(now + after, Event::KeepAlive { end: id });
    }

    /// Sends a packet from an end.
    pub(super) fn say(&mut self, id: EndId, word: Word) {
        let Some(end) = self.end(id) else { return };
        end.told_edge = end.taken + ROOM;
        let packet = Packet { from: id, to: end.peer, word, received: end.expected, edge: end.told_edge };
        let (kind, host, to) = (end.kind, end.host, end.peer_host);
        self.transmit(kind, host, to, packet);
    }

    /// Answers a packet for an end that is not there.
    pub(super) fn answer(&mut self, packet: &Packet, kind: Kind, word: Word) {
        let reply = Packet { from: packet.to, to: packet.from, word, received: 0, edge: 0 };
        let (from, to) = (self.places[packet.to].host, self.places[packet.from].host);
        self.transmit(kind, from, to, reply);
    }

    /// Handles a packet that has come.
    pub(super) fn receive(&mut self, kind: Kind, packet: Packet) {
        if matches!(packet.word, Word::Syn) {
            return self.syn(kind, &packet);
        }
        let now = self.now;
        let Some(end) = self.end(packet.to) else {
            if !matches!(packet.word, Word::Reset) {
                self.answer(&packet, kind, Word::Reset);
            }
            return;
        };
        if let Word::Reset = packet.word {
            return self.was_reset(packet.to);
        }
        if matches!(end.state, State::Over(_)) {
            return;
        }
        if end.state == State::Connecting {
            end.state = State::Open;
            self.note(packet.to);
        }
        let Some(end) = self.end(packet.to) else { return };
        let confirmed = packet.received.min(end.sent);
        let progress = confirmed > end.first;
        while end.first < confirmed {
            end.first += 1;
            end.out_bytes -= end.out.pop_front().map_or(0, |piece| piece.len());
        }
        end.edge = end.edge.max(packet.edge);
        // Whatever is heard shows that somebody is there.
        end.owed_since = (end.sent > end.first).then_some(now);
        if progress {
            end.resend_after = RESEND_FIRST;
            end.timed = false;
            end.round += 1;
            let tells = end.wants_room && end.has_room();
            if tells || end.kind == Kind::Near {
                self.note(packet.to);
            }
        }
        self.send_more(packet.to);
        match packet.word {
            Word::Data { number, piece } => self.take_in(packet.to, number, piece),
            Word::Probe | Word::SynAnswer => self.say(packet.to, Word::Acknowledge),
            _ => {}
        }
        self.finish_abandoned(packet.to);
    }

    /// A piece has come, perhaps again, perhaps early.
    fn take_in(&mut self, id: EndId, number: u64, piece: Arc<Piece>) {
        let Some(end) = self.end(id) else { return };
        if number >= end.expected && number < end.taken + ROOM {
            end.early.insert(number, piece);
        }
        let before = end.expected;
        while let Some(piece) = end.early.remove(&end.expected) {
            end.expected += 1;
            end.arrived.push_back(piece);
        }
        let news = end.expected > before;
        if end.abandoned {
            end.taken += end.arrived.len() as u64;
            end.arrived.clear();
        }
        self.say(id, Word::Acknowledge);
        if news {
            self.note(id);
        }
    }

    /// Takes the next piece that has arrived.
    pub(crate) fn take(&mut self, id: EndId) -> Option<Arc<Piece>> {
        let end = self.end(id)?;
        let piece = end.arrived.pop_front()?;
        end.taken += 1;
        // The peer waits for room.
        if end.told_edge <= end.expected && end.taken + ROOM >= end.expected + ROOM / 2 {
            self.say(id, Word::Acknowledge);
        }
        Some(piece)
    }

    fn was_reset(&mut self, id: EndId) {
        let kind = self.places[id].kind;
        let Some(end) = self.end(id) else { return };
        if end.abandoned {
            return self.remove(id);
        }
        let refused = end.state == State::Connecting;
        let error = match kind {
            _ if refused => ErrorKind::Refused,
            Kind::Near if !self.peer_lives(id) => ErrorKind::PeerDead,
            _ => ErrorKind::Broken,
        };
        let lost = self.random.chance(300);
        let Some(end) = self.end(id) else { return };
        if !matches!(end.state, State::Over(_)) {
            end.state = State::Over(error);
            if lost && kind == Kind::Far {
                end.arrived.clear();
            }
            end.out.clear();
            end.early.clear();
            end.owed_since = None;
        }
        self.note(id);
    }

    /// Whether the process at the other end is the one that it was.
    fn peer_lives(&self, id: EndId) -> bool {
        let Some(end) = self.ends[id].as_ref() else { return false };
        let host = &self.hosts[end.peer_host];
        host.alive && (end.port == 0 || end.port == host.generation)
    }

    /// Both ends are over, as a firewall in between would do it.
    pub(crate) fn cut(&mut self, id: EndId) {
        let Some(peer) = self.end(id).map(|end| end.peer) else { return };
        for id in [id, peer] {
            let Some(end) = self.end(id) else { continue };
            if !matches!(end.state, State::Over(_)) {
                end.state = State::Over(ErrorKind::Broken);
                end.out.clear();
                end.early.clear();
                end.owed_since = None;
            }
            self.note(id);
        }
    }

    /// Ends a connection without a word but a reset.
    pub(crate) fn reset(&mut self, id: EndId) {
        if self.end(id).is_some_and(|end| !matches!(end.state, State::Over(_))) {
            self.say(id, Word::Reset);
        }
        self.remove(id);
    }

    /// Its owner lets go of it: what was put still goes out.
    pub(crate) fn leave(&mut self, id: EndId) {
        let now = self.now;
        let Some(end) = self.end(id) else { return };
        if end.state != State::Open {
            return self.reset(id);
        }
        end.abandoned = true;
        end.left_at = now;
        end.taken += end.arrived.len() as u64;
        end.arrived.clear();
        self.finish_abandoned(id);
    }

    fn finish_abandoned(&mut self, id: EndId) {
        if self.end(id).is_some_and(|end| end.abandoned && end.out.is_empty()) {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: EndId) {
        let host = self.places[id].host;
        self.ends[id] = None;
        self.hosts[host].ends.retain(|&other| other != id);
        for share in self.hosts[host].shares.iter_mut().flatten() {
            share.waiting.retain(|&other| other != id);
        }
    }
}
