//! The judge: what applications did, what came of it and which faults happened, against what Sinew promises.
//!
//! Told by the world, event by event. It sees no engine, no lane and no packet: operations, their outcomes and faults only,
//! and shares no code with what it judges. `DESIGN.md` (Delivery) and `docs/faults.md` are what it knows.

mod order;
mod sessions;

use crate::net::{MILLIS, Nanos};
use crate::random::mix;
use std::collections::HashMap;

/// A process: its host and its generation there.
pub(crate) type ProcessId = (usize, u32);
pub(crate) type MessageId = usize;
pub(crate) type ReceiveId = usize;

/// How much later than its deadline a call may return: the time that a turn takes.
const SLACK: Nanos = 2 * MILLIS;

/// An endpoint of a process, by its number in the engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct EndpointId {
    pub(crate) process: ProcessId,
    pub(crate) number: u32,
}

/// What a receive asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) tag: u64,
    /// Bits of the tag that do not count.
    pub(crate) ignore: u64,
    pub(crate) untagged: bool,
    /// Only from this endpoint, on the session that the receiver calls so.
    pub(crate) from: Option<(EndpointId, u64)>,
}

impl Wanted {
    fn takes(&self, message: &Message) -> bool {
        self.untagged == message.untagged
            && (self.untagged || (self.tag ^ message.tag) & !self.ignore == 0)
            && self.from.is_none_or(|(from, session)| {
                from == message.from && message.came_on.is_none_or(|came_on| came_on == session)
            })
    }
}

/// How an operation ended that brought no message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Done,
    /// Its handle is gone, and it goes on.
    LetGo,
    Cancelled,
    TimedOut,
    Lost,
    /// The endpoint that it was for is gone.
    NoEndpoint,
    /// The own engine or endpoint is gone.
    Closed,
    /// Nothing was sent, says the call.
    Refused,
    Other(String),
}

/// What a message said about itself on arrival.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived<'a> {
    pub(crate) tag: u64,
    pub(crate) len: usize,
    pub(crate) immediate: Option<u64>,
    pub(crate) source_endpoint: u32,
    /// The receiving engine's number of the session.
    pub(crate) session: u64,
    /// The content, or what of it fitted.
    pub(crate) bytes: &'a [u8],
    pub(crate) truncated: bool,
}

pub(crate) struct Message {
    from: EndpointId,
    to: EndpointId,
    /// The sending engine's number of the session.
    session: u64,
    tag: u64,
    untagged: bool,
    immediate: bool,
    len: usize,
    sent_at: Nanos,
    end: Option<End>,
    got_by: Option<ReceiveId>,
    /// The receiver's name for the session.
    came_on: Option<u64>,
    /// Everything before it was flushed, with success, while it was done.
    flushed: bool,
}

pub(crate) struct Receive {
    at: EndpointId,
    wanted: Wanted,
    room: usize,
    got: Option<MessageId>,
    ended_at: Option<Nanos>,
    given_up: bool,
    /// Its handle went, and nobody knows what it had got.
    let_go: bool,
    /// It was posted after all receives before this one; those between that and it were posted beside it.
    after: ReceiveId,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Checker {
    pub(crate) messages: Vec<Message>,
    pub(crate) receives: Vec<Receive>,
    sessions: sessions::Sessions,
    dead: HashMap<ProcessId, Nanos>,
    closed: HashMap<EndpointId, Nanos>,
    /// Hosts on which calls that post receives are under way, and the first receive that they may post.
    posting: HashMap<usize, ReceiveId>,
    pub(crate) violations: Vec<String>,
    /// Outcomes that were looked at.
    pub(crate) judged: u64,
}

/// The bytes of a message.
pub(crate) fn content(message: MessageId, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut word = message as u64;
    while bytes.len() < len {
        bytes.extend_from_slice(&word.to_le_bytes());
        word = mix(word.wrapping_add(0x1234_5678_9abc_def1));
    }
    bytes.truncate(len);
    bytes
}

impl Checker {
    pub(crate) fn received_count(&self) -> u64 {
        self.receives.iter().filter(|receive| receive.got.is_some()).count() as u64
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    /// The number that the next message will have: it is part of the content.
    pub(crate) fn next_message(&self) -> MessageId {
        self.messages.len()
    }

    /// A message was handed to the engine.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn sent(
        &mut self,
        now: Nanos,
        from: EndpointId,
        to: EndpointId,
        session: u64,
        (tag, untagged): (u64, bool),
        immediate: bool,
        len: usize,
    ) -> MessageId {
        self.messages.push(Message {
            from,
            to,
            session,
            tag,
            untagged,
            immediate,
            len,
            sent_at: now,
            end: None,
            got_by: None,
            came_on: None,
            flushed: false,
        });
        self.messages.len() - 1
    }

    /// A send ended.
    pub(crate) fn send_ended(&mut self, now: Nanos, message: MessageId, end: End) {
        self.judged += 1;
        let Some(known) = self.messages.get_mut(message) else { return };
        let (process, session) = (known.from.process, known.session);
        if self.dead.contains_key(&process) {
            return;
        }
        if known.end.as_ref().is_some_and(|end| *end != End::LetGo) {
            return self.violation(format!("the send of message {message} ended twice"));
        }
        known.end = Some(end.clone());
        let (to, sent_at) = (known.to, known.sent_at);
        if end == End::Done && self.sessions.was_lost_before((process, session), sent_at) {
            self.violation(format!("message {message} was taken by a session that was over"));
        }
        match end {
            End::Lost => self.sessions.lost(now, (process, session)),
            End::NoEndpoint if !self.closed.contains_key(&to) => {
                self.violation(format!(
                    "the send of message {message} says that its endpoint is gone, which is open"
                ));
            }
            End::Other(text) => self.violation(format!("the send of message {message} ended with {text}")),
            _ => {}
        }
    }

    /// A receive was posted.
    pub(crate) fn posted(&mut self, at: EndpointId, wanted: Wanted, room: usize) -> ReceiveId {
        let number = self.receives.len();
        self.receives.push(Receive {
            at,
            wanted,
            room,
            got: None,
            ended_at: None,
            given_up: false,
            let_go: false,
            after: number,
        });
        number
    }

    /// A receive was posted by a handler, for the next message: below a call that posts others it comes before or after those.
    pub(crate) fn posted_again(&mut self, at: EndpointId, wanted: Wanted, room: usize) -> ReceiveId {
        let number = self.posted(at, wanted, room);
        let after = self.posting.get(&at.process.0).copied().unwrap_or(number);
        self.receives[number].after = after;
        number
    }

    /// Calls that post receives begin on a host. `false`: such are under way.
    pub(crate) fn begin_posting(&mut self, host: usize) -> bool {
        let next = self.receives.len();
        let outermost = !self.posting.contains_key(&host);
        self.posting.entry(host).or_insert(next);
        outermost
    }

    pub(crate) fn end_posting(&mut self, host: usize) {
        self.posting.remove(&host);
    }

    /// A receive ended without a message.
    pub(crate) fn receive_ended(&mut self, now: Nanos, receive: ReceiveId, end: End) {
        self.judged += 1;
        let Some(known) = self.receives.get_mut(receive) else { return };
        if self.dead.contains_key(&known.at.process) {
            return;
        }
        if known.ended_at.replace(now).is_some() {
            return self.violation(format!("receive {receive} ended twice"));
        }
        known.given_up = true;
        known.let_go = end == End::LetGo;
        let from = known.wanted.from;
        match end {
            End::Lost if from.is_none() => {
                // A message that it had begun to fetch went with its session.
            }
            End::Other(text) => self.violation(format!("receive {receive} ended with {text}")),
            _ => {}
        }
    }

    /// A receive got a message.
    pub(crate) fn received(&mut self, now: Nanos, receive: ReceiveId, arrived: Arrived<'_>) {
        self.judged += 1;
        let Some(known) = self.receives.get_mut(receive) else { return };
        let (at, wanted, room) = (known.at, known.wanted, known.room);
        if self.dead.contains_key(&at.process) {
            return;
        }
        if known.ended_at.replace(now).is_some() {
            return self.violation(format!("receive {receive} ended twice"));
        }
        let first = arrived.bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let number = arrived.immediate.or((arrived.tag >> 16).checked_sub(1)).or(first);
        let number = number.unwrap_or(u64::MAX) as usize;
        let Some(message) = self.messages.get_mut(number) else {
            return self.violation(format!("receive {receive} got a message that nobody sent: {number}"));
        };
        known.got = Some(number);
        message.came_on = Some(arrived.session);
        let mut wrong = Vec::new();
        if message.to != at {
            wrong.push(format!("was for {:?} and came to {at:?}", message.to));
        }
        if (message.tag, message.len) != (arrived.tag, arrived.len) {
            let (tag, len) = (arrived.tag, arrived.len);
            wrong.push(format!("was ({:#x}, {}) and is ({tag:#x}, {len})", message.tag, message.len));
        }
        if !arrived.truncated && message.immediate != arrived.immediate.is_some()
            || message.from.number != arrived.source_endpoint
        {
            wrong.push("has another immediate or source".to_owned());
        }
        if arrived.truncated != (message.len > room) {
            wrong.push(format!("of {} bytes in {room}: truncated is {}", message.len, arrived.truncated));
        }
        if *arrived.bytes != *content(number, message.len.min(room)) {
            wrong.push("is garbled".to_owned());
        }
        if !wanted.takes(message) {
            wrong.push(format!("does not match {wanted:?}"));
        }
        if let Some(before) = message.got_by.replace(receive) {
            wrong.push(format!("came twice, to receives {before} and {receive}"));
        }
        let (from, session, sent_at) = (message.from, message.session, message.sent_at);
        for what in wrong {
            self.violation(format!("message {number} {what}"));
        }
        let theirs = (from.process, session);
        if let Err(what) = self.sessions.arrived(theirs, (at.process, arrived.session), sent_at) {
            self.violation(format!("message {number} {what}"));
        }
    }

    /// A call with a deadline came back.
    pub(crate) fn returned(&mut self, what: &str, process: ProcessId, deadline: Nanos, now: Nanos) {
        self.judged += 1;
        if now > deadline + SLACK && !self.dead.contains_key(&process) {
            let late = (now - deadline) as f64 / 1e9;
            self.violation(format!("{what} of {process:?} came back {late:.3} s after its deadline"));
        }
    }

    /// A flush ended well: the peer's session has what was sent before, as of message `before`, from endpoint to endpoint.
    pub(crate) fn flushed(&mut self, from: EndpointId, to: EndpointId, session: u64, before: MessageId) {
        for message in &mut self.messages[..before] {
            let done = message.end == Some(End::Done);
            message.flushed |= message.from == from && message.to == to && message.session == session && done;
        }
    }

    /// A connect ended well.
    pub(crate) fn connected(&mut self, now: Nanos, from: ProcessId, session: u64, to: ProcessId) {
        self.sessions.connected(now, (from, session), to);
    }

    /// A process sees that a session of its own is over.
    pub(crate) fn saw_lost(&mut self, now: Nanos, process: ProcessId, session: u64) {
        self.sessions.lost(now, (process, session));
    }

    /// Something happened between two hosts for which a session may end.
    pub(crate) fn excuse(&mut self, one: usize, other: usize, from: Nanos, until: Nanos) {
        self.sessions.excuse(one, other, from, until);
    }

    /// A process ended: killed, crashed or closed.
    pub(crate) fn died(&mut self, now: Nanos, process: ProcessId) {
        self.dead.insert(process, now);
    }

    pub(crate) fn closed(&mut self, now: Nanos, endpoint: EndpointId) {
        self.closed.insert(endpoint, now);
    }

    /// Something else is wrong that the world saw, as an operation that never ends.
    pub(crate) fn complain(&mut self, text: String) {
        self.violation(text);
    }

    pub(crate) fn is_gone(&self, endpoint: EndpointId) -> bool {
        self.dead.contains_key(&endpoint.process) || self.closed.contains_key(&endpoint)
    }

    /// Messages that must arrive and have not, to endpoints of this process.
    pub(crate) fn missing(&self, process: ProcessId) -> Vec<MessageId> {
        let all = self.messages.iter().enumerate();
        let missing = all.filter(|(_, message)| {
            message.to.process == process
                && message.got_by.is_none()
                && (message.end == Some(End::Done)
                    || matches!(message.end, None | Some(End::LetGo)) && !self.is_gone(message.from))
                && !self.is_gone(message.to)
                && !self.may_be_cut(message)
                && !self.dead.contains_key(&message.from.process)
                && !self.is_over(message)
        });
        missing.map(|(number, _)| number).collect()
    }

    /// Whether the session of a message is over, or may be and its endpoint is closed, so that nobody is there to see it.
    fn is_over(&self, message: &Message) -> bool {
        let (here, there) = (message.from.process, message.to.process);
        self.sessions.is_over((here, message.session))
            || self.closed.contains_key(&message.from)
                && self.sessions.may_have_ended(here.0, there.0, message.sent_at)
    }

    /// Whether the beginning of a message may have gone with a receive that was too small for it.
    fn may_be_cut(&self, message: &Message) -> bool {
        let small = |receive: &Receive| {
            receive.let_go && receive.room < message.len && receive.ended_at >= Some(message.sent_at)
        };
        self.receives
            .iter()
            .any(|receive| small(receive) && receive.at == message.to && receive.wanted.takes(message))
    }

    /// Everything has come to rest.
    pub(crate) fn finish(&mut self) {
        let mut lost = Vec::new();
        for (number, message) in self.messages.iter().enumerate() {
            let over = self.is_over(message);
            let gone = self.is_gone(message.to) || self.dead.contains_key(&message.from.process);
            if message.end == Some(End::Refused) && message.got_by.is_some() {
                lost.push(format!("message {number} was refused and came"));
            }
            if message.got_by.is_some() || self.is_gone(message.to) || self.may_be_cut(message) {
                continue;
            }
            match &message.end {
                Some(End::Done) if !over && !gone => lost.push(format!("message {number} is lost")),
                Some(End::Done) if message.flushed && message.len <= 64 => {
                    lost.push(format!("message {number} was flushed and is lost"));
                }
                Some(End::LetGo) if !over && !gone && !self.is_gone(message.from) => {
                    lost.push(format!("message {number}, let go, is lost"));
                }
                None if !gone => lost.push(format!("the send of message {number} never ended")),
                _ => {}
            }
        }
        for (number, receive) in self.receives.iter().enumerate() {
            if receive.ended_at.is_none() && !self.is_gone(receive.at) {
                lost.push(format!("receive {number} never ended"));
            }
        }
        self.violations.extend(lost);
        let order = self.order_violations();
        self.violations.extend(order);
        self.violations.extend(self.sessions.finish(&self.dead));
    }
}
