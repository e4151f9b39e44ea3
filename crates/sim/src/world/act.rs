//! What applications do: one thing at a time, drawn from the seed. Those that wait are in `calls`.

use super::World;
use super::process::{Connected, Open, Receiving, Sending};
use crate::checker::{Arrived, End, EndpointId, MessageId, ReceiveId, Wanted, content};
use crate::net::Alarm;
use sinew_engine::{Buf, Bytes, Completion, Failed, Match, Message, OpError, Outgoing, Received};

/// A message to be sent.
pub(super) struct Draft {
    pub(super) number: MessageId,
    pub(super) tag: u64,
    pub(super) untagged: bool,
    pub(super) immediate: bool,
    pub(super) data: Vec<u8>,
}

/// Room that holds every message.
pub(super) const ROOM: usize = 100 << 10;
/// Operations of one kind that a process has under way at most.
const UNDER_WAY_MAX: usize = 24;

pub(super) fn end_of(error: &OpError) -> End {
    match error {
        OpError::Cancelled => End::Cancelled,
        OpError::TimedOut { .. } => End::TimedOut,
        OpError::PeerLost { .. } => End::Lost,
        OpError::EndpointClosed => End::NoEndpoint,
        OpError::EngineClosed => End::Closed,
        OpError::WouldBlock => End::Refused,
        other => End::Other(other.to_string()),
    }
}

impl Draft {
    pub(super) fn to<'a>(&self, known: &'a Connected) -> Message<'a> {
        let message = known.peer.message(self.tag);
        let message = if self.untagged { message.untagged() } else { message };
        if self.immediate { message.immediate(self.number as u64) } else { message }
    }

    pub(super) fn outgoing(&self) -> Outgoing<'_> {
        let outgoing = if self.untagged {
            Outgoing::untagged(&self.data)
        } else {
            Outgoing::tagged(self.tag, &self.data)
        };
        if self.immediate { outgoing.immediate(self.number as u64) } else { outgoing }
    }
}

impl World {
    /// The application of a host does its next thing.
    pub(super) fn act(&self, host: usize) {
        {
            let mut processes = self.processes.borrow_mut();
            let process = &mut processes[host];
            if process.engine.is_none() || process.acts_left == 0 || self.ending.get() {
                return;
            }
            if process.stopped || self.waiting.get() == Some(host) {
                drop(processes);
                return self.alarm(self.plan.think, Alarm::Act(host));
            }
            process.acts_left -= 1;
        }
        let process = self.process_on(host);
        self.wake(host);
        self.posts(host, || self.one_act(host));
        if self.process_on(host) != process {
            return;
        }
        self.sleep(host);
        // What was over at once is not told of by anything.
        self.want_step(host, 0);
        let pause = self.draw(|random| random.below(self.plan.think));
        self.alarm(pause, Alarm::Act(host));
    }

    fn one_act(&self, host: usize) {
        let may_wait = self.waiting.get().is_none();
        let wants_peer = self.processes.borrow()[host].peers.iter().filter(|known| !known.lost).count() < 2;
        if may_wait && (wants_peer && self.chance(500) || self.chance(30)) {
            return self.connect(host);
        }
        if self.plan.callbacks && self.chance(100) {
            return self.callback(host);
        }
        match self.index(if may_wait { 24 } else { 18 }) {
            0..=4 => self.post_send(host),
            5 => self.try_send(host, false),
            6 => self.try_send(host, true),
            7..=11 => self.post_recv(host),
            12 => self.cancel(host),
            13 => self.let_go(host),
            14 => self.try_recv(host),
            15 => self.try_batch(host),
            16 => self.probe(host),
            17 => self.seldom(host),
            18 => self.send(host),
            19 => self.recv(host),
            20 => self.flush(host),
            21 => self.wait(host),
            22 => self.batch(host),
            _ => self.scope(host),
        }
    }

    /// A peer of the host whose session is not known to be over; now and then one that is.
    pub(super) fn some_peer(&self, host: usize) -> Option<Connected> {
        let also_lost = self.chance(50);
        let processes = self.processes.borrow();
        let peers: Vec<&Connected> =
            processes[host].peers.iter().filter(|known| also_lost || !known.lost).collect();
        if peers.is_empty() { None } else { Some(peers[self.index(peers.len())].clone()) }
    }

    pub(super) fn some_endpoint(&self, host: usize) -> Option<Open> {
        let processes = self.processes.borrow();
        let endpoints = &processes[host].endpoints;
        if endpoints.is_empty() { None } else { Some(endpoints[self.index(endpoints.len())].clone()) }
    }

    fn len(&self) -> usize {
        let eager_max = self.plan.eager_max as u64;
        let len = self.draw(|random| match random.below(20) {
            0..=5 => random.below(17),
            6..=10 => random.between(16, 220),
            11..=13 => random.between(eager_max.saturating_sub(20), eager_max + 20),
            14 | 15 => random.between(3 << 10, 10 << 10),
            16 => random.between(15 << 10, 18 << 10),
            17 | 18 => random.between(20 << 10, 60 << 10),
            _ => random.between(60 << 10, ROOM as u64),
        }) as usize;
        len.min(self.plan.len_max)
    }

    pub(super) fn draft(&self, to: &Connected) -> Draft {
        let len = self.len();
        self.draft_of(to, len)
    }

    /// A message that the checker knows, about to be sent.
    pub(super) fn draft_of(&self, to: &Connected, len: usize) -> Draft {
        let untagged = self.chance(100);
        let way = self.index(if untagged { 2 } else { 3 });
        let immediate = way == 0 || way == 1 && len < 8;
        let class = self.draw(|random| random.below(4));
        let now = self.now();
        let mut checker = self.checker.borrow_mut();
        let high = if way == 2 { (checker.next_message() as u64 + 1) << 16 } else { 0 };
        let tag = if untagged { 0 } else { class | high };
        let number = checker.sent(now, to.from, to.to, to.session, (tag, untagged), immediate, len);
        drop(checker);
        let (from, at) = (to.from, to.to);
        self.note(
            &[30, number as u64, tag, len as u64],
            format_args!("{from:?} sends message {number} to {at:?}, tag {tag:#x}, {len} bytes"),
        );
        Draft { number, tag, untagged, immediate, data: content(number, len) }
    }

    pub(super) fn sent(&self, message: MessageId, end: End) {
        self.note(&[31, message as u64, code(&end)], format_args!("send of message {message}: {end:?}"));
        let now = self.now();
        self.checker.borrow_mut().send_ended(now, message, end);
    }

    /// What a receive asks for: the checker's form and the engine's.
    pub(super) fn pattern(&self, host: usize, at: EndpointId) -> (Wanted, Match) {
        let class = self.draw(|random| random.below(4));
        let ids_do_not_count = !0xffff_u64;
        let (tag, ignore, untagged) = match self.index(10) {
            0..=2 => (class, ids_do_not_count, false),
            3 => (class, 0, false),
            4 => (class, ids_do_not_count | 1, false),
            5 => (0, u64::MAX, true),
            _ => (0, u64::MAX, false),
        };
        let source = if self.chance(150) {
            let processes = self.processes.borrow();
            let mut peers = processes[host].peers.iter();
            let known = peers.find(|known| known.from == at && !known.lost);
            known.map(|known| ((known.to, known.session), known.peer.source()))
        } else {
            None
        };
        let wanted = Wanted { tag, ignore, untagged, from: source.map(|(from, _)| from) };
        let mut pattern = if untagged { Match::untagged() } else { Match::tag(tag).ignoring(ignore) };
        if let Some((_, source)) = source {
            pattern = pattern.from(source);
        }
        (wanted, pattern)
    }

    pub(super) fn room(&self) -> usize {
        if self.chance(800) { ROOM } else { self.len().max(8) }
    }

    pub(super) fn posted(&self, at: EndpointId, wanted: Wanted, room: usize) -> ReceiveId {
        let receive = self.checker.borrow_mut().posted(at, wanted, room);
        self.note(
            &[32, receive as u64, u64::from(at.number), wanted.tag, wanted.ignore, room as u64],
            format_args!("{at:?} posts receive {receive}: {wanted:?} into {room}"),
        );
        receive
    }

    /// A receive ended, well or not; `buf` is its memory.
    pub(super) fn received(&self, receive: ReceiveId, result: &Result<Completion, OpError>, buf: &[u8]) {
        let now = self.now();
        let arrived = match result {
            Ok(info) => Arrived {
                tag: info.tag,
                len: info.len,
                immediate: info.immediate,
                source_endpoint: info.source.endpoint(),
                session: info.source.session(),
                bytes: &buf[..info.len.min(buf.len())],
                truncated: false,
            },
            Err(OpError::Truncated { message_len, tag, source, .. }) => Arrived {
                tag: *tag,
                len: *message_len as usize,
                immediate: None,
                source_endpoint: source.endpoint(),
                session: source.session(),
                bytes: buf,
                truncated: true,
            },
            Err(error) => {
                let end = end_of(error);
                self.note(&[33, receive as u64, code(&end)], format_args!("receive {receive}: {end:?}"));
                return self.checker.borrow_mut().receive_ended(now, receive, end);
            }
        };
        let (tag, len) = (arrived.tag, arrived.len);
        self.checker.borrow_mut().received(now, receive, arrived);
        self.note(
            &[34, receive as u64, tag, len as u64],
            format_args!("receive {receive} got tag {tag:#x}, {len} bytes"),
        );
    }

    pub(super) fn recv_op_ended(&self, host: usize, receive: ReceiveId, result: Result<Received, Failed>) {
        match result {
            Ok(received) => self.received(receive, &Ok(received.info), received.buf.as_slice()),
            Err(Failed { buf, error }) => {
                self.received(receive, &Err(error), buf.as_slice());
                if buf.len() <= 16 << 10 {
                    let copy = buf.as_slice().to_vec();
                    self.processes.borrow_mut()[host].given_up.push((buf.into_vec(), copy));
                }
            }
        }
    }

    pub(super) fn post_send(&self, host: usize) {
        let Some(known) = self.some_peer(host) else { return };
        if self.processes.borrow()[host].sends.len() >= UNDER_WAY_MAX {
            return;
        }
        let draft = self.draft(&known);
        let buf: Buf = match self.index(4) {
            0 => Bytes::from(draft.data.clone()).into(),
            1 | 2 if draft.data.len() >= self.plan.lend_min => {
                let allocated = if self.chance(700) {
                    self.engine(host).map(|engine| engine.alloc(draft.data.len()))
                } else {
                    Some(known.peer.alloc(draft.data.len()))
                };
                let mut buf = allocated.and_then(Result::ok).unwrap_or_else(|| Buf::zeroed(draft.data.len()));
                if let Some(memory) = buf.as_mut_slice() {
                    memory.copy_from_slice(&draft.data);
                }
                buf
            }
            _ => draft.data.clone().into(),
        };
        let message = draft.number;
        match draft.to(&known).post(buf) {
            Ok(op) => {
                let sending = Sending { op, message, from: known.from };
                if self.plan.callbacks && self.chance(300) {
                    return self.tell_of_send(host, sending);
                }
                self.processes.borrow_mut()[host].sends.push(sending);
            }
            Err(failed) => self.sent(message, end_of(&failed.error)),
        }
    }

    pub(super) fn try_send(&self, host: usize, stage: bool) {
        let Some(known) = self.some_peer(host) else { return };
        let draft = self.draft(&known);
        let message = draft.to(&known);
        let result = if stage { message.stage(&draft.data) } else { message.try_send(&draft.data) };
        self.sent(draft.number, result.map_or_else(|error| end_of(&error), |()| End::Done));
    }

    pub(super) fn post_recv(&self, host: usize) {
        let Some(open) = self.some_endpoint(host) else { return };
        if self.processes.borrow()[host].receives.len() >= UNDER_WAY_MAX {
            return;
        }
        let (wanted, pattern) = self.pattern(host, open.id);
        let room = self.room();
        let receive = self.posted(open.id, wanted, room);
        match open.endpoint.post_recv(pattern, vec![0xee; room]) {
            Ok(op) => {
                let receiving = Receiving { op, receive, at: open.id };
                if self.plan.callbacks && self.chance(300) {
                    return self.tell_of_receive(host, receiving);
                }
                self.processes.borrow_mut()[host].receives.push(receiving);
            }
            Err(failed) => self.recv_op_ended(host, receive, Err(failed)),
        }
    }

    /// One of the host's operations, taken from the list.
    pub(super) fn some_send(&self, host: usize) -> Option<Sending> {
        let mut processes = self.processes.borrow_mut();
        let sends = &mut processes[host].sends;
        let at = self.index(sends.len());
        (!sends.is_empty()).then(|| sends.swap_remove(at))
    }

    pub(super) fn some_receive(&self, host: usize) -> Option<Receiving> {
        let mut processes = self.processes.borrow_mut();
        let receives = &mut processes[host].receives;
        let at = self.index(receives.len());
        (!receives.is_empty()).then(|| receives.swap_remove(at))
    }

    pub(super) fn cancel(&self, host: usize) {
        if self.chance(500) {
            let Some(sending) = self.some_send(host) else { return };
            let end = sending.op.cancel().map_or_else(|failed| end_of(&failed.error), |_| End::Done);
            self.sent(sending.message, end);
        } else {
            let Some(receiving) = self.some_receive(host) else { return };
            let result = receiving.op.cancel();
            self.recv_op_ended(host, receiving.receive, result);
        }
    }

    fn let_go(&self, host: usize) {
        if self.chance(500) {
            let Some(sending) = self.some_send(host) else { return };
            drop(sending.op);
            self.sent(sending.message, End::LetGo);
        } else {
            let Some(receiving) = self.some_receive(host) else { return };
            drop(receiving.op);
            let receive = receiving.receive;
            self.note(&[38, receive as u64], format_args!("receive {receive} is let go"));
            let now = self.now();
            self.checker.borrow_mut().receive_ended(now, receive, End::LetGo);
        }
    }

    fn try_recv(&self, host: usize) {
        let Some(open) = self.some_endpoint(host) else { return };
        // A message that is there may have to be fetched, which waits.
        if self.waiting.get().is_some() {
            return;
        }
        let (wanted, pattern) = self.pattern(host, open.id);
        let mut buf = vec![0xee; self.room()];
        let receive = self.posted(open.id, wanted, buf.len());
        let result = open.endpoint.try_recv(pattern, &mut buf);
        self.received(receive, &result, &buf);
    }

    fn try_batch(&self, host: usize) {
        let Some(known) = self.some_peer(host) else { return };
        let drafts: Vec<Draft> = (0..2 + self.index(6))
            .map(|_| {
                let len = self.index(300);
                self.draft_of(&known, len)
            })
            .collect();
        let messages: Vec<Outgoing<'_>> = drafts.iter().map(Draft::outgoing).collect();
        let result = known.peer.try_send_batch(&messages);
        self.batch_sent(&drafts, result.map_err(|partial| (partial.sent, partial.error)));
    }

    pub(super) fn batch_sent(&self, drafts: &[Draft], result: Result<(), (usize, OpError)>) {
        let (went, error) = match &result {
            Ok(()) => (drafts.len(), None),
            Err((sent, error)) => (*sent, Some(error)),
        };
        for (at, draft) in drafts.iter().enumerate() {
            let end = match error {
                Some(error) if at == went => end_of(error),
                Some(_) if at > went => End::Refused,
                _ => End::Done,
            };
            self.sent(draft.number, end);
        }
    }

    fn probe(&self, host: usize) {
        let Some(open) = self.some_endpoint(host) else { return };
        let (_, pattern) = self.pattern(host, open.id);
        let found = open.endpoint.probe(pattern);
        self.note(
            &[35, u64::from(found.is_some())],
            format_args!("{:?} probes: {}", open.id, found.is_some()),
        );
    }

    /// What applications do now and then only.
    fn seldom(&self, host: usize) {
        match self.index(5) {
            0 => {
                if self.processes.borrow()[host].endpoints.len() < 3 {
                    self.open_endpoint(host);
                }
            }
            1 => self.close_endpoint(host),
            2 | 3 => {
                let Some(known) = self.some_peer(host) else { return };
                let Some(engine) = self.engine(host) else { return };
                // There is no lane to cut between an engine and itself.
                let rough =
                    self.plan.weather != crate::plan::Weather::Calm && known.to.process != known.from.process;
                let cut = rough && engine.cut(&known.peer);
                self.note(&[36, u64::from(cut)], format_args!("{:?} cuts its lane: {cut}", known.from));
            }
            _ => {
                let Some(known) = self.some_peer(host) else { return };
                // The peer as messages from it name it is the same peer.
                let processes = self.processes.borrow();
                let open = processes[host].endpoints.iter().find(|open| open.id == known.from).cloned();
                drop(processes);
                if let Some(peer) = open.and_then(|open| open.endpoint.reply_to(known.peer.source()).ok()) {
                    self.processes.borrow_mut()[host].peers.push(Connected { peer, ..known });
                }
            }
        }
    }

    fn close_endpoint(&self, host: usize) {
        if self.processes.borrow()[host].endpoints.len() < 2 {
            return;
        }
        let Some(open) = self.some_endpoint(host) else { return };
        let id = open.id;
        drop(open);
        let (sends, receives, handlers, rest) = {
            let mut processes = self.processes.borrow_mut();
            let process = &mut processes[host];
            let sends: Vec<Sending> = process.sends.extract_if(.., |sending| sending.from == id).collect();
            let receives: Vec<Receiving> =
                process.receives.extract_if(.., |receiving| receiving.at == id).collect();
            let peers: Vec<Connected> = process.peers.extract_if(.., |known| known.from == id).collect();
            let endpoints: Vec<Open> = process.endpoints.extract_if(.., |open| open.id == id).collect();
            (sends, receives, process.handlers_of(id), (peers, endpoints))
        };
        for sending in sends {
            let end = sending.op.cancel().map_or_else(|failed| end_of(&failed.error), |_| End::Done);
            self.sent(sending.message, end);
        }
        for receiving in receives {
            let result = receiving.op.cancel();
            self.recv_op_ended(host, receiving.receive, result);
        }
        handlers.into_iter().for_each(|registered| self.unregister(registered));
        self.note(&[37, u64::from(id.number)], format_args!("{id:?} is closed"));
        let now = self.now();
        self.checker.borrow_mut().closed(now, id);
        drop(rest);
    }
}

const fn code(end: &End) -> u64 {
    match end {
        End::Done => 0,
        End::LetGo => 1,
        End::Cancelled => 2,
        End::TimedOut => 3,
        End::Lost => 4,
        End::NoEndpoint => 5,
        End::Closed => 6,
        End::Refused => 7,
        End::Other(_) => 8,
    }
}
