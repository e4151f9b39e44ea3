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

use super::Core;
use super::bundle::At;
use super::inbound::OVERHEAD;
use super::table::Key;
use crate::batch::{Outgoing, Receive};
use crate::completion::{Completion, Match, Source};
use sinew_proto::matching::Arrival;
use sinew_transport::{Body, Peek};
use sinew_wire::frame::{Header, Kind};
use std::ptr::NonNull;

/// What a look at the busiest lane has brought.
#[derive(Debug)]
pub(crate) enum Look {
    /// What was looked for.
    Done,
    /// Something else, that is over now: look again.
    More,
    /// Nothing is there yet.
    Nothing,
    /// A turn of progress comes first; what is left of bundles may stay where it is.
    Aside,
    /// Something else is to be done first.
    Other,
    /// Nothing is there yet, and the system was asked; as for [`Look::Aside`].
    Dry,
    /// What was read needs a turn of progress.
    Behind,
    /// Not here, for now: there is nothing to look at, or too much waits.
    Away,
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
        if staged && data.len() < permit.bundles_below {
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
            permit.flushed = false;
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
            self.permits.to_send.flushed = false;
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
            if data.len() >= self.permits.to_send.bundles_below
                || data.len() > self.config.eager_max
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
    ) -> Look {
        if self.permits.to_receive.endpoint != number && !self.permit_to_receive(number, true) {
            return self.without_permit();
        }
        // SAFETY: the caller's promise.
        let look = unsafe { self.recv_permitted(number, tags, (data, room), got) };
        if self.permits.to_receive.reads { self.has_read(look) } else { look }
    }

    /// [`Core::recv_quick`] under its permit.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn recv_permitted(
        &mut self,
        number: u32,
        tags: Tags,
        (data, room): (NonNull<u8>, usize),
        got: &mut Got,
    ) -> Look {
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
            let peek = permit.look_or_read(lane.as_mut());
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
            return Look::Done;
        }
    }

    /// There is no permit to receive.
    #[cold]
    fn without_permit(&self) -> Look {
        if self.polls_memory() || self.socket_has_more() { Look::Aside } else { Look::Away }
    }

    /// Messages wait that nobody wanted yet: what to do when one of them may be for the receive. They are older than all that
    /// is left of bundles.
    #[inline(never)]
    fn look_at_waiting(&mut self, number: u32, pattern: Match) -> Option<Look> {
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
    ) -> Look {
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
        Look::Done
    }

    /// A message of the bundles that are being taken, of at most `len_max` bytes, that is wanted and that nobody else wants.
    #[inline(always)]
    pub(super) fn find_bundled(
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
    pub(super) fn take_bundled(&mut self, at: At, arrival: &Arrival, len: usize) -> Completion {
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
}
