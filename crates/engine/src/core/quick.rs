//! The short way of a short message: from the caller's memory onto the lane, and from the lane into the caller's memory.
//!
//! Called under the engine's lock by blocking sends and receives before anything else. Each call either does the whole of
//! what the long way (`outbound`, `direct`, `inbound`) does for one message that meets no obstacle, or nothing at all. What
//! it must not do: anything about an obstacle. Whoever calls it takes the long way then, which finds the obstacle itself.
//!
//! # Permits
//! Most of what the long way finds out is the same for the next message. So it is found out once and kept as a [`Permit`](super::permit::Permit),
//! with so much credit as is there; messages are counted in the permit and go into the books when it is settled. A permit is
//! good until anything but quick calls happens under the lock: [`Core::settle`] stands at the entry of all else, of each turn
//! of progress and of each post the long way. One to send and one to receive do not disturb each other.
#![allow(unsafe_code)]

use super::bundle::{self, At};
use super::endpoint::EndpointState;
use super::inbound::OVERHEAD;
use super::op::{Charge, Loan, Memory, Op, Receiver, RecvOp, RecvState, SendOp, SendState};
use super::rendezvous::Status;
use super::table::Key;
use super::{Core, SELF_OWNER};
use crate::batch::{Outgoing, Receive};
use crate::completion::{Completion, Match, Source};
use sinew_proto::matching::{Arrival, Wanted};
use sinew_transport::{Body, Buf, Descriptor, Peek, Peeked, View};
use sinew_wire::frame::{Flags, Header, Kind};
use std::io::IoSlice;
use std::ptr::NonNull;

/// What a look at the busiest lane has brought.
#[derive(Debug)]
pub(crate) enum Look<T> {
    /// What was looked for.
    Done(T),
    /// Something else, that is over now: look again.
    More,
    /// Nothing is there yet.
    Nothing,
    /// A turn of progress comes first; what is left of bundles may stay where it is.
    Aside,
    /// Something else is to be done first.
    Other,
    /// Not here, for now: there is nothing to look at, or too much waits.
    Away,
}

impl<T> Look<T> {
    /// The same of a look for something else, which is not done.
    #[inline(always)]
    pub(crate) fn of_nothing<U>(self) -> Look<U> {
        match self {
            Self::More => Look::More,
            Self::Nothing => Look::Nothing,
            Self::Aside => Look::Aside,
            Self::Away => Look::Away,
            Self::Done(_) | Self::Other => Look::Other,
        }
    }
}

/// A message that was received without memory for it.
#[derive(Debug)]
pub(crate) enum Shown {
    /// A short one, copied.
    Copied(Vec<u8>),
    /// The sender's memory.
    Lent(View, Loan),
}

/// A receive that looks for its message.
#[derive(Clone, Copy)]
pub(crate) struct Receiving {
    pub(crate) endpoint: u32,
    pub(crate) pattern: Match,
    pub(crate) data: NonNull<u8>,
    pub(crate) room: usize,
}

/// What a receive from anybody wants: of a pattern what fits registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tags {
    tag: u64,
    ignore: u64,
    untagged: bool,
}

/// What was received the short way. Apart from the answer and in words, so that it can stay in registers: what has just been
/// stored word by word is slow to be moved in wider ones, as answers are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Got {
    len: usize,
    tag: u64,
    source: Source,
}

impl Got {
    pub(crate) const NOTHING: Self = Self { len: 0, tag: 0, source: Source::new(0, 0, 0) };

    #[inline(always)]
    pub(crate) const fn info(&self) -> Completion {
        Completion { len: self.len, tag: self.tag, immediate: None, source: self.source }
    }
}

impl Tags {
    /// `None`: the pattern names a source.
    #[inline(always)]
    pub(crate) const fn of(pattern: &Match) -> Option<Self> {
        match pattern.source {
            None => Some(Self { tag: pattern.tag, ignore: pattern.ignore, untagged: pattern.untagged }),
            Some(_) => None,
        }
    }

    /// The pattern again.
    #[inline(always)]
    pub(crate) const fn pattern(self) -> Match {
        let Self { tag, ignore, untagged } = self;
        Match { tag, ignore, source: None, untagged }
    }

    /// Whether the receive is for the message.
    #[inline(always)]
    const fn accept(&self, arrival: &Arrival) -> bool {
        (self.tag ^ arrival.tag) & !self.ignore == 0 && self.untagged == arrival.untagged
    }
}

impl Core {
    /// Posts one message on a lane that is polled in memory, or on any if it is `staged`: sent with the next progress. `false`:
    /// nothing has happened, take the long way.
    #[inline(always)]
    pub(crate) fn send_quick(
        &mut self,
        session: Key,
        flow: u32,
        header: &Header,
        data: &[u8],
        staged: bool,
    ) -> bool {
        let permit = &self.permits.to_send;
        if (permit.endpoint != header.src || permit.flow != flow || permit.session != session)
            && (!(staged || self.polls_memory()) || !self.permit_to_send(session, flow, header.src, staged))
        {
            return false;
        }
        let permit = &mut self.permits.to_send;
        if permit.staged_only && !staged {
            return false;
        }
        if data.len() > self.config.eager_max || permit.credit < data.len() as u64 + OVERHEAD {
            return false;
        }
        if staged && data.len() <= bundle::SHORT_MAX {
            return self.pack_quick(header, data);
        }
        if !self.flush_bundle() {
            return false;
        }
        let permit = &mut self.permits.to_send;
        let Some(lane) = self.lanes.get_mut(permit.lane).and_then(|slot| slot.lane.as_mut()) else {
            return false;
        };
        let posted = lane.post_short(header, data);
        if posted {
            permit.count(data.len());
        }
        posted
    }

    /// Adds a message to those that will share a frame.
    #[inline(always)]
    fn pack_quick(&mut self, header: &Header, data: &[u8]) -> bool {
        let packed =
            self.packing.push(header, data) || (self.post_bundle() && self.packing.push(header, data));
        if packed {
            self.permits.to_send.count_bundled(data.len());
        }
        packed
    }

    /// Packs messages one after the other, as long as the permit, their credit and their length allow it. How many; `header` is
    /// that of any message of the endpoint to where they go.
    pub(crate) fn pack_run(
        &mut self,
        session: Key,
        flow: u32,
        header: &Header,
        messages: &[Outgoing<'_>],
    ) -> usize {
        let permit = &self.permits.to_send;
        if permit.endpoint != header.src || permit.flow != flow || permit.session != session {
            return 0;
        }
        for (done, outgoing) in messages.iter().enumerate() {
            let Some((header, data)) = outgoing.plain(header) else { return done };
            let fits = data.len() <= bundle::SHORT_MAX.min(self.config.eager_max);
            if !fits
                || self.permits.to_send.credit < data.len() as u64 + OVERHEAD
                || !self.pack_quick(&header, data)
            {
                return done;
            }
        }
        messages.len()
    }

    /// Takes one message from the lane that had the last one, if it is what a receive of endpoint `number` waits for and nobody
    /// else does.
    ///
    /// # Safety
    /// `data` is writable for `room` bytes and nobody else accesses them during the call.
    #[inline(always)]
    pub(crate) unsafe fn recv_quick(
        &mut self,
        number: u32,
        tags: Tags,
        (data, room): (NonNull<u8>, usize),
        got: &mut Got,
    ) -> Look<()> {
        if self.permits.to_receive.endpoint != number && !self.permit_to_receive(number) {
            return self.without_permit();
        }
        if !self.permits.to_receive.alone
            && let Some(look) = self.look_at_waiting(number, tags.pattern())
        {
            return look;
        }
        loop {
            if !self.taking.is_empty() {
                if let Some((at, arrival)) = self.taking.find(|arrival| tags.accept(arrival)) {
                    // SAFETY: the caller's promise.
                    return unsafe { self.recv_bundled(number, (data, room), (at, &arrival), got) };
                }
                if !self.taking.has_room() {
                    return Look::Other;
                }
            }
            // What was staged goes out before anybody waits for an answer; a turn of progress sees to it where there is no room.
            self.flush_bundle();
            if !self.may_look(number) {
                return Look::Aside;
            }
            let permit = &mut self.permits.to_receive;
            let Some(lane) = self.lanes.get_mut(permit.lane).and_then(|slot| slot.lane.as_mut()) else {
                return Look::Other;
            };
            let peek = permit.look(lane.as_mut());
            let message = match &peek {
                Peek::Frame(message) => message,
                Peek::Nothing => return Look::Nothing,
                Peek::Poll => return Look::Other,
            };
            let len = message.body.len();
            if !permit.covers(message) || len > room {
                if message.header.kind != Kind::BUNDLE {
                    let (header, status) = (message.header, message.body.prefix());
                    return self.answer_quick(header, status);
                }
                if !permit.open(&mut self.taking, message) {
                    return Look::Other;
                }
                continue;
            }
            let (source, arrival) = permit.source(&message.header);
            let endpoint = self.endpoints.get((number as usize).wrapping_sub(1)).and_then(Option::as_deref);
            if !tags.accept(&arrival) || endpoint.is_none_or(|endpoint| endpoint.matcher.may_want(&arrival)) {
                return Look::Other;
            }
            // SAFETY: writable for `room` bytes, says the caller; `len` is at most that.
            unsafe { message.body.copy_to_raw(data.as_ptr(), len) };
            permit.receive(len);
            *got = Got { len, tag: arrival.tag, source };
            return Look::Done(());
        }
    }

    /// There is no permit to receive.
    #[cold]
    fn without_permit(&self) -> Look<()> {
        if self.polls_memory() || self.socket_has_more() { Look::Aside } else { Look::Away }
    }

    /// Messages wait that nobody wanted yet: what to do when one of them may be for the receive. They are older than all that
    /// is left of bundles.
    #[inline(never)]
    fn look_at_waiting(&mut self, number: u32, pattern: Match) -> Option<Look<()>> {
        let Some(endpoint) = self.endpoint(number) else { return Some(Look::Away) };
        match endpoint.matcher.has_waiting(&pattern.into()) {
            Some(false) => None,
            Some(true) => Some(Look::Aside),
            None => Some(Look::Away),
        }
    }

    /// Takes a message of a bundle that the receive wants, if nobody else wants it.
    ///
    /// # Safety
    /// As [`Core::recv_quick`].
    #[inline(always)]
    unsafe fn recv_bundled(
        &mut self,
        number: u32,
        (data, room): (NonNull<u8>, usize),
        (at, arrival): (At, &Arrival),
        got: &mut Got,
    ) -> Look<()> {
        let endpoint = self.endpoints.get((number as usize).wrapping_sub(1)).and_then(Option::as_deref);
        let message = self.taking.data(at);
        let len = message.len();
        if len > room || endpoint.is_none_or(|endpoint| endpoint.matcher.may_want(arrival)) {
            return Look::Other;
        }
        // SAFETY: writable for `room` bytes, says the caller; `len` is at most that.
        unsafe { Body::from_slice(message).copy_to_raw(data.as_ptr(), len) };
        let Completion { len, tag, source, .. } = self.take_bundled(at, arrival, len);
        *got = Got { len, tag, source };
        Look::Done(())
    }

    /// A message of the bundles that are being taken, of at most `len_max` bytes, that is wanted and that nobody else wants.
    #[inline(always)]
    fn find_bundled(
        &self,
        number: u32,
        len_max: usize,
        wanted: impl Fn(&Arrival) -> bool,
    ) -> Option<(At, Arrival)> {
        if self.permits.to_receive.endpoint != number {
            return None;
        }
        let (at, arrival) = self.taking.find(wanted)?;
        let endpoint = self.endpoints.get((number as usize).wrapping_sub(1)).and_then(Option::as_deref)?;
        let may = !endpoint.matcher.may_want(&arrival) && self.taking.data(at).len() <= len_max;
        may.then_some((at, arrival))
    }

    #[inline(always)]
    fn take_bundled(&mut self, at: At, arrival: &Arrival, len: usize) -> Completion {
        let source = self.taking.source(at);
        self.taking.take(at);
        self.permits.to_receive.count_bundled(len);
        Completion { len, tag: arrival.tag, immediate: None, source }
    }

    /// Takes messages of bundles for the open ones of `receives` from `first` on, while each is for the first of them. Whether
    /// there were any; `first` is behind all that have ended.
    pub(crate) fn receive_run(
        &mut self,
        number: u32,
        receives: &mut [Receive<'_>],
        first: &mut usize,
    ) -> bool {
        while receives.get(*first).is_some_and(|receive| !receive.is_open()) {
            *first += 1;
        }
        let Self { endpoints, taking, permits, .. } = self;
        let permit = &mut permits.to_receive;
        let endpoint = endpoints.get((number as usize).wrapping_sub(1)).and_then(Option::as_deref);
        let (Some(endpoint), true) = (endpoint, permit.endpoint == number && permit.alone) else {
            return false;
        };
        let mut some = false;
        for receive in &mut receives[*first..] {
            if let Some(wanted) = receive.wanted() {
                let Some(tags) = Tags::of(wanted) else { break };
                let Some((at, arrival)) = taking.find(|arrival| tags.accept(arrival)) else { break };
                let message = taking.data(at);
                if message.len() > receive.room() || endpoint.matcher.may_want(&arrival) {
                    break;
                }
                let got = Got { len: message.len(), tag: arrival.tag, source: taking.source(at) };
                receive.fill(Body::from_slice(message), got.info());
                taking.take(at);
                permit.count_bundled(got.len);
                some = true;
            }
            *first += 1;
        }
        some
    }

    /// Takes one message of at most `len_max` bytes from the lane that had the last one, if it is what was `wanted` and nobody
    /// else wants it: where it is, when it was sent on loan.
    #[inline]
    pub(crate) fn view_quick(
        &mut self,
        number: u32,
        wanted: &Wanted,
        len_max: usize,
    ) -> Look<(Completion, Shown)> {
        if !self.taking.is_empty() {
            let accepts = |arrival: &Arrival| wanted.accepts(arrival);
            let Some((at, arrival)) = self.find_bundled(number, len_max, accepts) else { return Look::Other };
            let bytes = self.taking.data(at).to_vec();
            return Look::Done((self.take_bundled(at, &arrival, bytes.len()), Shown::Copied(bytes)));
        }
        if !self.may_look(number) {
            return Look::Other;
        }
        let permit = &mut self.permits.to_receive;
        let Some(lane) = self.lanes.get_mut(permit.lane).and_then(|slot| slot.lane.as_mut()) else {
            return Look::Other;
        };
        let peek = permit.look(lane.as_mut());
        let message = match &peek {
            Peek::Frame(message) => message,
            Peek::Nothing => return Look::Nothing,
            Peek::Poll => return Look::Other,
        };
        let lent = permit.covers_loan(message);
        if lent.is_none() && !permit.covers(message) {
            if message.header.kind == Kind::BUNDLE {
                return if permit.open(&mut self.taking, message) { Look::More } else { Look::Other };
            }
            let (header, status) = (message.header, message.body.prefix());
            return self.answer_quick(header, status).of_nothing();
        }
        let &Peeked { header, body } = message;
        let len = lent.map_or(body.len() as u64, |(_, len, _)| len);
        let (source, arrival) = permit.source(&header);
        let endpoint = self.endpoints.get((header.dst as usize).wrapping_sub(1)).and_then(Option::as_deref);
        if len > len_max as u64
            || !wanted.accepts(&arrival)
            || endpoint.is_none_or(|endpoint| endpoint.matcher.may_want(&arrival))
        {
            return Look::Other;
        }
        let info = Completion { len: len as usize, tag: header.tag, immediate: None, source };
        let Some((loan, _, descriptor)) = lent else {
            let bytes = body.to_vec();
            permit.receive(bytes.len());
            return Look::Done((info, Shown::Copied(bytes)));
        };
        match lane.view(&descriptor) {
            Ok(view) if view.len() == info.len => {
                permit.received = true;
                permit.envelopes -= 1;
                permit.loans += 1;
                permit.lent = permit.lent.wrapping_add(len);
                self.counters.envelopes += 1;
                Look::Done((info, Shown::Lent(view, loan)))
            }
            _ => Look::Other,
        }
    }

    /// The frame that was shown is no message for whoever looks: it may be the word that a loan of ours is over.
    #[inline(never)]
    fn answer_quick(&mut self, header: Header, status: Option<[u8; 4]>) -> Look<()> {
        let key = Key(header.tag);
        let taken = header.kind == Kind::DONE && status.map(u32::from_le_bytes) == Some(Status::Taken as u32);
        let of_it = |op: &SendOp| {
            op.session == self.permits.to_receive.session
                && op.references == 0
                && matches!(op.state, SendState::Announced)
        };
        match self.ops.get(key) {
            Some(Op::Send(op)) if taken && of_it(op) => {}
            _ => return Look::Other,
        }
        self.permits.to_receive.received = true;
        self.permits.to_receive.answers += 1;
        self.finish_send(key, Ok(()));
        Look::More
    }

    /// Takes one message from the lane that had the last one, if a posted receive of the endpoint waits for it.
    #[inline]
    pub(crate) fn deliver_quick(&mut self, number: u32) -> Look<()> {
        if !self.taking.is_empty() {
            return self.deliver_bundled(number);
        }
        if !self.may_look(number) {
            return Look::Other;
        }
        let permit = &mut self.permits.to_receive;
        let Some(lane) = self.lanes.get_mut(permit.lane).and_then(|slot| slot.lane.as_mut()) else {
            return Look::Other;
        };
        let peek = permit.look(lane.as_mut());
        let message = match &peek {
            Peek::Frame(message) => message,
            Peek::Nothing => return Look::Nothing,
            Peek::Poll => return Look::Other,
        };
        if !permit.covers(message) {
            if message.header.kind == Kind::BUNDLE {
                return if permit.open(&mut self.taking, message) { Look::More } else { Look::Other };
            }
            let (header, status) = (message.header, message.body.prefix());
            return self.answer_quick(header, status).of_nothing();
        }
        let &Peeked { header, body } = message;
        let (source, arrival) = permit.source(&header);
        let endpoint =
            self.endpoints.get_mut((header.dst as usize).wrapping_sub(1)).and_then(Option::as_deref_mut);
        let Some(key) = endpoint.and_then(|endpoint| endpoint.matcher.arrive(&arrival)) else {
            return Look::Other;
        };
        let len = body.len();
        permit.receive(len);
        let number = permit.number();
        if let Some(Op::Recv(op)) = self.ops.get_mut(key) {
            op.number = number;
            let result = op.fill(&Completion { len, tag: header.tag, immediate: None, source }, body);
            self.finish_recv(key, result);
        }
        Look::Done(())
    }

    /// The same for the oldest message of the bundle that is being taken.
    #[inline]
    fn deliver_bundled(&mut self, number: u32) -> Look<()> {
        if self.permits.to_receive.endpoint != number {
            return Look::Other;
        }
        let Some((at, arrival)) = self.taking.first() else { return Look::Other };
        let endpoint =
            self.endpoints.get_mut((number as usize).wrapping_sub(1)).and_then(Option::as_deref_mut);
        let Some(key) = endpoint.and_then(|endpoint| endpoint.matcher.arrive(&arrival)) else {
            return Look::Other;
        };
        let (number, len) = (self.taking.number(at), self.taking.data(at).len());
        let info = self.take_bundled(at, &arrival, len);
        if let Some(Op::Recv(op)) = self.ops.get_mut(key) {
            op.number = number;
            let result = op.fill(&info, Body::from_slice(self.taking.data(at)));
            self.finish_recv(key, result);
        }
        Look::Done(())
    }

    /// Posts a receive from anybody while no message waits; else `Err`: nothing has happened.
    #[inline]
    pub(crate) fn post_recv_quick(&mut self, endpoint: u32, pattern: Match, buf: Buf) -> Result<Key, Buf> {
        if pattern.source.is_some() {
            return Err(buf);
        }
        let key = self.ops.next_key();
        let queue = |state: &mut EndpointState| state.matcher.queue(pattern.into(), key);
        let Some(post) = self.endpoint(endpoint).and_then(queue) else { return Err(buf) };
        let order = self.next_order();
        let receiver = Receiver { endpoint, order, handler: None };
        let op = RecvOp::new(receiver, pattern.untagged, Memory::Owned(buf), RecvState::Posted(post));
        self.ops.insert(Op::Recv(op));
        Ok(key)
    }

    /// Announces a message that lies in the engine's pool, on a lane that is polled in memory: an operation that ends when the
    /// receiver has given the memory back. `Err`: nothing has happened, take the long way.
    #[inline]
    pub(crate) fn lend_quick(
        &mut self,
        session_key: Key,
        flow: u32,
        header: &Header,
        buf: Buf,
    ) -> Result<Key, Buf> {
        if !self.flush_bundle() {
            return Err(buf);
        }
        let Some(session) = self.sessions.get_mut(session_key) else { return Err(buf) };
        let Some(state) = session.flows.get(flow as usize) else { return Err(buf) };
        let may = session.ready && state.pending.is_empty() && !state.closed;
        if !may || session.charge_envelope(state) != Some(Charge::Shared) {
            return Err(buf);
        }
        let Some(slot) = session.active.and_then(|lane| self.lanes.get_mut(lane)) else { return Err(buf) };
        let Some(lane) = slot.lane.as_mut().filter(|_| slot.memory_polled && slot.owner != SELF_OWNER) else {
            return Err(buf);
        };
        let Ok(Some(Descriptor(descriptor))) = lane.describe(&buf) else { return Err(buf) };
        let len = buf.len() as u64;
        let envelope =
            Header { kind: Kind::ENVELOPE, flags: header.flags.with(Flags::DESCRIPTOR), ..*header };
        let mut body = [0; 16 + size_of::<Descriptor>()];
        body[..8].copy_from_slice(&self.ops.next_key().0.to_le_bytes());
        body[8..16].copy_from_slice(&len.to_le_bytes());
        body[16..].copy_from_slice(&descriptor);
        if lane.try_post(&envelope, &[IoSlice::new(&body)]).is_err() {
            return Err(buf);
        }
        session.pay_envelope(flow, Charge::Shared);
        slot.count_sent(session);
        if let (Some(active), false) = (session.active, slot.astir) {
            self.stir(active);
        }
        if let Some(endpoint) = self.endpoint(header.src) {
            endpoint.messages_sent += 1;
            endpoint.bytes_sent += len;
        }
        Ok(self.ops.insert(Op::Send(SendOp {
            session: session_key,
            flow,
            header: *header,
            immediate: None,
            memory: Memory::Owned(buf),
            state: SendState::Announced,
            references: 0,
            stripes: 0,
            waiter: None,
            detached: false,
            buffered: false,
        })))
    }

    /// Gives a loan back at once. `false`: nothing has happened, take the long way.
    #[inline]
    pub(crate) fn return_quick(&mut self, loan: Loan) -> bool {
        let Some(session) = self.sessions.get_mut(loan.session) else { return true };
        let Some(slot) = session.active.and_then(|lane| self.lanes.get_mut(lane)) else { return false };
        let memory_polled = slot.memory_polled && slot.owner != SELF_OWNER;
        let Some(lane) = slot.lane.as_mut().filter(|_| session.ready && memory_polled) else { return false };
        let header = Header::control(Kind::DONE, loan.sender_op);
        if lane.try_post(&header, &[IoSlice::new(&(Status::Taken as u32).to_le_bytes())]).is_err() {
            return false;
        }
        if !session.kept.is_empty() {
            session.kept.remove(&loan.sender_op);
        }
        slot.count_sent(session);
        if let (Some(active), false) = (session.active, slot.astir) {
            self.stir(active);
        }
        true
    }
}
