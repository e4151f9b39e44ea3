//! Receives as operations: started, ended, given up, collected; and what both kinds share.
#![allow(unsafe_code)]

use super::op::{Charge, Fetch, Memory, Op, Receiver, RecvOp, RecvState, SendState, Unexpected, Way};
use super::table::Key;
use super::{Core, Session};
use crate::completion::{Completion, Match, Source};
use crate::error::OpError;
use crate::op::Received;
use sinew_proto::matching::{Arrival, Pattern, Posted};
use sinew_transport::{Body, Buf};

/// An operation after its first step.
#[derive(Debug)]
pub(crate) enum Started<T> {
    /// It is over already; the memory comes back. Of a message also its place in what its session brought.
    Done(Result<T, OpError>, Memory, u64),
    /// It is in the table.
    Pending(Key),
}

impl From<Match> for Pattern {
    fn from(m: Match) -> Self {
        Self { tag: m.tag, ignore: m.ignore, source: m.source.map(|source| source.key), untagged: m.untagged }
    }
}

/// What a receive of `room` bytes answers to a whole message.
#[inline]
pub(crate) fn received(info: &Completion, message_len: usize, room: usize) -> Result<Completion, OpError> {
    if message_len <= room {
        return Ok(*info);
    }
    let (tag, source) = (info.tag, info.source);
    Err(OpError::Truncated { message_len: message_len as u64, buffer_len: room, tag, source })
}

/// A message that waits, as `probe` shows it.
fn waiting_info(arrival: &Arrival, message: &Unexpected) -> Completion {
    let (session, len, immediate) = match message {
        Unexpected::Small { len, immediate, session, .. } => (*session, usize::from(*len), *immediate),
        Unexpected::Large { bytes, immediate, session, .. } => (*session, bytes.len(), *immediate),
        Unexpected::Envelope { envelope, immediate } => (envelope.session, envelope.len as usize, *immediate),
    };
    let source = Source { session: session.0, key: arrival.source };
    Completion { len, tag: arrival.tag, immediate, source }
}

impl RecvOp {
    /// Puts a whole message, from place `number` of its session, into its memory: it is over. Whether somebody is to be told. It is in
    /// the table.
    #[inline(always)]
    pub(crate) fn receive(&mut self, number: u64, info: &Completion, body: Body<'_>) -> bool {
        self.number = number;
        self.state = RecvState::Finished(match &self.memory {
            Memory::Owned(buf) if body.len() <= buf.len() => {
                // SAFETY: the receive is in the table, so its memory is lent to it alone, writable for its length.
                unsafe { body.copy_to_raw(buf.data().as_ptr(), body.len()) };
                Ok(*info)
            }
            _ => self.fill(info, body).map_err(Box::new),
        });
        self.handler.is_some() || self.waiter.is_some()
    }

    #[inline(never)]
    fn fill(&mut self, info: &Completion, body: Body<'_>) -> Result<Completion, OpError> {
        let room = self.memory.len();
        let len = body.len().min(room);
        if matches!(self.memory, Memory::Later { .. }) {
            self.memory = Memory::Owned(body.take(len).to_vec().into());
        } else {
            // SAFETY: as above, for `room >= len` bytes.
            unsafe { body.copy_to_raw(self.memory.data().as_ptr(), len) };
        }
        received(info, body.len(), room)
    }
}

impl Core {
    /// Starts a receive. `memory` must be writable.
    #[inline]
    pub(crate) fn start_recv(
        &mut self,
        endpoint: u32,
        pattern: Match,
        memory: Memory,
        handler: Option<Key>,
    ) -> Started<Completion> {
        let order = self.next_order();
        self.start_recv_as(Receiver { endpoint, order, handler }, pattern, memory)
    }

    /// [`Core::start_recv`] with the place of the receive, which must be behind all that are posted.
    #[inline]
    pub(crate) fn start_recv_as(
        &mut self,
        receiver: Receiver,
        pattern: Match,
        memory: Memory,
    ) -> Started<Completion> {
        self.start_recv_from(receiver, pattern.into(), pattern.source, memory)
    }

    /// [`Core::start_recv_as`]; `source` may be lost.
    #[inline]
    pub(crate) fn start_recv_from(
        &mut self,
        receiver: Receiver,
        wanted: Pattern,
        source: Option<Source>,
        memory: Memory,
    ) -> Started<Completion> {
        let key = self.ops.next_key();
        let endpoint = receiver.endpoint;
        let Some(state) = self.endpoint(endpoint) else {
            return Started::Done(Err(OpError::EngineClosed), memory, 0);
        };
        match state.matcher.post(wanted, key) {
            Posted::Queued(post) => {
                if let Some(error) = source.and_then(|source| self.source_lost(source)) {
                    if let Some(state) = self.endpoint(endpoint) {
                        state.matcher.cancel(post);
                    }
                    return Started::Done(Err(error), memory, 0);
                }
                let op = RecvOp::new(receiver, wanted.untagged, memory, RecvState::Posted(post));
                Started::Pending(self.ops.insert(Op::Recv(op)))
            }
            Posted::Matched(_, arrival, message) => {
                self.take_unexpected(receiver, &arrival, message, wanted, memory)
            }
        }
    }

    /// The place of a receive behind all that were posted before.
    #[inline]
    pub(crate) fn next_order(&mut self) -> u64 {
        self.receives += 1;
        self.receives
    }

    /// Why nothing more will ever come from a source, if so: no session is left with its engine.
    #[inline]
    pub(crate) fn source_lost(&self, source: Source) -> Option<OpError> {
        let of_it = |session: &Session| session.is_up() && session.peer.number == source.engine();
        if self.sessions.get(Key(source.session)).is_some_and(of_it) {
            return None;
        }
        if self.sessions.iter().any(|(_, session)| of_it(session)) {
            return None;
        }
        self.source_error(source).err()
    }

    /// Why the session on which a source's message came cannot be used, if it cannot.
    #[cold]
    pub(crate) fn source_error(&self, source: Source) -> Result<(), OpError> {
        let session = Key(source.session);
        match self.sessions.get(session) {
            // Keys of two engines look alike, numbers never do.
            Some(session) if session.peer.number != source.engine() => Err(OpError::OtherEngine),
            _ => self.session_error(session),
        }
    }

    #[inline(never)]
    pub(crate) fn take_unexpected(
        &mut self,
        receiver: Receiver,
        arrival: &Arrival,
        message: Unexpected,
        wanted: Pattern,
        memory: Memory,
    ) -> Started<Completion> {
        let Receiver { endpoint, handler, .. } = receiver;
        let op = RecvOp::matched(receiver, arrival.untagged, memory);
        let (_, number) = message.number();
        let key = self.ops.insert(Op::Recv(op));
        if !self.give_unexpected(key, endpoint, arrival, message, wanted) || handler.is_some() {
            if self.by_callers && self.is_over(key) {
                // One without room for a message that was announced: its caller may not call again for long, and the sender waits.
                self.send_staged();
            }
            return Started::Pending(key);
        }
        match self.collect_recv(key) {
            Some((result, memory)) => Started::Done(result, memory, number),
            None => Started::Pending(key),
        }
    }

    /// Gives a message that waited to a receive of the table. `false`: it must be fetched first.
    pub(crate) fn give_unexpected(
        &mut self,
        key: Key,
        endpoint: u32,
        arrival: &Arrival,
        message: Unexpected,
        wanted: Pattern,
    ) -> bool {
        let info = waiting_info(arrival, &message);
        let kept = super::inbound::kept_cost(&message);
        let (_, number) = message.number();
        match message {
            Unexpected::Small { len, bytes, .. } => {
                self.deliver(key, number, &info, Body::from_slice(&bytes[..usize::from(len)]));
                self.return_bytes(endpoint, kept);
            }
            Unexpected::Large { bytes, .. } => {
                self.deliver(key, number, &info, Body::from_slice(&bytes));
                self.return_bytes(endpoint, kept);
            }
            Unexpected::Envelope { envelope, .. } => {
                self.return_envelope(endpoint, kept);
                self.begin_fetch(key, envelope, info, *arrival, wanted, 0);
                return false;
            }
        }
        true
    }

    /// Puts a whole message, from place `number` of its session, into the memory of the receive that matched it.
    #[inline]
    pub(crate) fn deliver(&mut self, key: Key, number: u64, info: &Completion, body: Body<'_>) {
        let Some(Op::Recv(op)) = self.ops.get_mut(key) else { return };
        let tells = op.receive(number, info, body);
        self.received(key, tells);
    }

    /// A receive is over; somebody is to be told, or not.
    #[inline(always)]
    pub(crate) fn received(&mut self, key: Key, tells: bool) {
        self.effects.finish();
        if tells {
            self.tell_of(key);
        }
    }

    /// Ends a receive; its owner collects it.
    pub(crate) fn finish_recv(&mut self, key: Key, result: Result<Completion, OpError>) {
        let Some(Op::Recv(op)) = self.ops.get_mut(key) else { return };
        op.state = RecvState::Finished(result.map_err(Box::new));
        let tells = op.handler.is_some() || op.waiter.is_some();
        self.received(key, tells);
    }

    #[cold]
    #[inline(never)]
    fn tell_of(&mut self, key: Key) {
        let Some(Op::Recv(op)) = self.ops.get(key) else { return };
        if let Some(handler) = op.handler {
            self.ready_handlers.push(handler);
            self.effects.call_handlers();
        }
        if op.waiter.is_some() {
            self.tell_waiter(key);
        }
    }

    /// Puts a receive that was over at once into the table, for one who collects it later, or gives it up.
    pub(crate) fn keep_finished(
        &mut self,
        endpoint: u32,
        untagged: bool,
        memory: Memory,
        result: Result<Completion, OpError>,
        number: u64,
    ) -> Key {
        let receiver = Receiver { endpoint, order: self.next_order(), handler: None };
        let state = RecvState::Finished(result.map_err(Box::new));
        let op = RecvOp { number, ..RecvOp::new(receiver, untagged, memory, state) };
        self.ops.insert(Op::Recv(op))
    }

    /// Takes a finished receive out of the table.
    #[inline]
    pub(crate) fn collect_recv(&mut self, key: Key) -> Option<(Result<Completion, OpError>, Memory)> {
        let Some(Op::Recv(op)) = self.ops.get_mut(key) else { return None };
        if !matches!(op.state, RecvState::Finished(_)) {
            return None;
        }
        let state = std::mem::replace(&mut op.state, RecvState::NONE);
        let RecvState::Finished(result) = state else { return None };
        let mut memory = std::mem::replace(&mut op.memory, Memory::NONE);
        self.ops.discard(key);
        if let (Ok(info), Memory::Owned(buf)) = (&result, &mut memory) {
            buf.set_len(info.len);
        }
        Some((result.map_err(|error| *error), memory))
    }

    /// Takes a receive with an owned buffer out of the table if it has got its message.
    #[inline(always)]
    pub(crate) fn collect_received(&mut self, key: Key) -> Option<Received> {
        let Some(Op::Recv(op)) = self.ops.get_mut(key) else { return None };
        let (RecvState::Finished(Ok(info)), None) = (&op.state, &op.waiter) else { return None };
        let mut buf = op.memory.take_buf()?;
        buf.set_len(info.len);
        let received = Received { buf, info: *info };
        self.ops.forget(key);
        Some(received)
    }

    /// Takes a send with an owned buffer out of the table if it has gone well.
    #[inline(always)]
    pub(crate) fn collect_sent(&mut self, key: Key) -> Option<Buf> {
        let Some(Op::Send(op)) = self.ops.get_mut(key) else { return None };
        let (SendState::Finished(Ok(())), None) = (&op.state, &op.waiter) else { return None };
        let buf = op.memory.take_buf()?;
        self.ops.forget(key);
        Some(buf)
    }

    /// Whether an operation has ended.
    #[inline]
    pub(crate) fn is_over(&self, key: Key) -> bool {
        match self.ops.get(key) {
            Some(Op::Recv(op)) => matches!(op.state, RecvState::Finished(_)),
            Some(Op::Send(op)) => matches!(op.state, SendState::Finished(_)),
            None => true,
        }
    }

    /// Whether a receive waits for a message.
    pub(crate) fn is_posted(&self, key: Key) -> bool {
        matches!(self.ops.get(key), Some(Op::Recv(op)) if matches!(op.state, RecvState::Posted(_)))
    }

    /// Really cancels a receive: afterwards nothing refers to its memory. A message under way waits for another receive.
    pub(crate) fn cancel_recv(&mut self, key: Key) -> Option<(Result<Completion, OpError>, Memory)> {
        let Some(Op::Recv(op)) = self.ops.get(key) else { return None };
        let endpoint = op.endpoint;
        match &op.state {
            RecvState::Finished(_) => return self.collect_recv(key),
            &RecvState::Posted(post) => {
                if let Some(state) = self.endpoint(endpoint) {
                    state.matcher.cancel(post);
                }
            }
            RecvState::Fetching(fetch) if fetch.way == Way::Whole => self.move_aside(key),
            RecvState::Fetching(fetch) => {
                let Fetch { envelope, info, arrival, .. } = **fetch;
                self.revoke_everywhere(envelope.session, key);
                self.put_back(endpoint, envelope, arrival, info.immediate);
            }
        }
        match self.ops.remove(key) {
            Some(Op::Recv(op)) => {
                self.effects.spend(op.waiter);
                Some((Err(OpError::Cancelled), op.memory))
            }
            _ => None,
        }
    }

    /// Gives a receive up: a message that it has, in part or whole, and that nobody has seen, waits for another. Called by
    /// whoever lent its memory, while that is still lent.
    pub(crate) fn give_up_recv(&mut self, key: Key) -> Option<Memory> {
        let Some(Op::Recv(op)) = self.ops.get(key) else { return None };
        let (endpoint, untagged, number) = (op.endpoint, op.untagged, op.number);
        let (result, memory) = self.cancel_recv(key)?;
        let info = match result {
            Ok(info) => info,
            Err(error) => {
                self.note_unseen(&error);
                return Some(memory);
            }
        };
        let copy;
        let bytes = match &memory {
            Memory::Owned(buf) => buf.as_slice(),
            // SAFETY: lent until this call ends, says the contract, and written by nobody now that the receive has left the
            // table; the message fits, or the result would be an error.
            &Memory::Borrowed { data, len } => unsafe {
                std::slice::from_raw_parts(data.as_ptr(), info.len.min(len))
            },
            Memory::Viewed { view, loan } => {
                copy = view.body().to_vec();
                self.return_loan(*loan);
                &copy
            }
            Memory::Gathered(_) | Memory::Later { .. } => return Some(memory),
        };
        self.put_back_whole(endpoint, untagged, number, &info, bytes);
        Some(memory)
    }

    /// How a receive that was given up had ended. Of a truncated message the rest is nowhere any more, so that it can wait for no
    /// other receive; it does not go silently.
    pub(crate) fn note_unseen(&mut self, error: &OpError) {
        if let &OpError::Truncated { message_len, buffer_len, tag, .. } = error {
            self.counters.truncated_unseen += 1;
            self.effects.tell(crate::events::truncated_unseen(tag, message_len, buffer_len));
        }
    }

    /// A message that came whole, in place `number` of its session, and that nobody has seen waits for another receive, before
    /// all others of its endpoint but those that came before it on its session.
    pub(crate) fn put_back_whole(
        &mut self,
        endpoint: u32,
        untagged: bool,
        number: u64,
        info: &Completion,
        bytes: &[u8],
    ) {
        let arrival = Arrival { tag: info.tag, untagged, source: info.source.key };
        let body = Body::from_slice(bytes);
        let Some(state) = self.endpoint(endpoint) else { return };
        if let Some(other) = state.matcher.arrive(&arrival) {
            return self.deliver(other, number, info, body);
        }
        // It may have come in a poll, for one who has looked at what waits and looks no more.
        if self.direct.accepts(endpoint, &arrival) {
            return self.direct.deliver(number, info, body);
        }
        if let Some(at) = self.direct_batch.find(endpoint, &arrival) {
            return self.direct_batch.deliver(at, info, body);
        }
        let Some(state) = self.endpoint(endpoint) else { return };
        let session = Key(info.source.session);
        let message = Unexpected::whole(body, info.immediate, (session, number), Charge::Nothing);
        state.matcher.store_behind(arrival, message, |_, other| other.came_before(session, number));
        self.wake_for_arrival();
    }

    /// The oldest waiting message that matches, without taking it.
    pub(crate) fn probe(&mut self, endpoint: u32, pattern: Match) -> Option<Completion> {
        let (_, arrival, message) = self.endpoint(endpoint)?.matcher.probe(&pattern.into())?;
        Some(waiting_info(arrival, message))
    }

    /// [`Core::probe`], or that no message will ever come.
    pub(crate) fn probe_or_closed(
        &mut self,
        endpoint: u32,
        pattern: Match,
    ) -> Option<Result<Completion, OpError>> {
        if self.endpoint(endpoint).is_none() {
            return Some(Err(OpError::EngineClosed));
        }
        if let Some(found) = self.probe(endpoint, pattern) {
            return Some(Ok(found));
        }
        pattern.source.and_then(|source| self.source_lost(source)).map(Err)
    }
}
