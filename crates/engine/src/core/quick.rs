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
//! of progress and of each post the long way. One to send
//! and one to receive do not disturb each other.
#![allow(unsafe_code)]

use super::Core;
use super::bundle;
use super::inbound::OVERHEAD;
use super::table::Key;
use crate::completion::{Completion, Match};
use sinew_proto::matching::{Arrival, Wanted};
use sinew_transport::{Body, Peek, Peeked};
use sinew_wire::frame::{Header, Kind};
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
    /// Something else is to be done first.
    Other,
}

/// A receive that looks for its message.
#[derive(Clone, Copy)]
pub(crate) struct Receiving {
    pub(crate) endpoint: u32,
    pub(crate) wanted: Wanted,
    pub(crate) data: NonNull<u8>,
    pub(crate) room: usize,
}

impl Receiving {
    #[inline(always)]
    pub(crate) fn new(endpoint: u32, pattern: &Match, data: NonNull<u8>, room: usize) -> Self {
        Self { endpoint, wanted: Wanted::new(&(*pattern).into()), data, room }
    }
}

/// Whether a receive from anybody is for the message.
#[inline(always)]
const fn wants(pattern: &Match, arrival: &Arrival) -> bool {
    (pattern.tag ^ arrival.tag) & !pattern.ignore == 0
        && pattern.untagged == arrival.untagged
        && pattern.source.is_none()
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
        if lane.try_post(header, &[IoSlice::new(data)]).is_err() {
            return false;
        }
        permit.count(data.len());
        true
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

    /// Takes one message from the lane that had the last one, if it is what the receive waits for and nobody else does.
    ///
    /// # Safety
    /// `receiving.data` is writable for `receiving.room` bytes and nobody else accesses them during the call.
    #[inline(always)]
    pub(crate) unsafe fn recv_quick(&mut self, receiving: &Receiving) -> Look<Completion> {
        if !self.taking.is_empty() {
            // SAFETY: the caller's promise.
            return unsafe { self.recv_bundled(receiving) };
        }
        if !self.may_look(receiving.endpoint) {
            return Look::Other;
        }
        let permit = &mut self.permits.to_receive;
        let Some(lane) = self.lanes.get_mut(permit.lane).and_then(|slot| slot.lane.as_mut()) else {
            return Look::Other;
        };
        let message = match permit.look(lane.as_mut()) {
            Peek::Frame(message) => message,
            Peek::Nothing => return Look::Nothing,
            Peek::Poll => return Look::Other,
        };
        if !permit.covers(&message) || message.body.len() > receiving.room {
            if message.header.kind == Kind::BUNDLE {
                return permit.open(&mut self.taking, &message);
            }
            let (header, status) = (message.header, message.body.prefix());
            return self.answer_quick(header, status);
        }
        let Peeked { header, body } = message;
        let (source, arrival) = permit.source(&header);
        let endpoint = self.endpoints.get((header.dst as usize).wrapping_sub(1)).and_then(Option::as_deref);
        if !receiving.wanted.accepts(&arrival)
            || endpoint.is_none_or(|endpoint| endpoint.matcher.may_want(&arrival))
        {
            return Look::Other;
        }
        let len = body.len();
        // SAFETY: writable for `room` bytes, says the caller; `len` is at most that.
        unsafe { body.copy_to_raw(receiving.data.as_ptr(), len) };
        permit.receive(len);
        Look::Done(Completion { len, tag: header.tag, immediate: None, source })
    }

    /// Takes one message of the bundle that is being taken, if the receive waits for one and nobody else does.
    ///
    /// # Safety
    /// As [`Core::recv_quick`].
    #[inline(always)]
    unsafe fn recv_bundled(&mut self, receiving: &Receiving) -> Look<Completion> {
        let wanted = |arrival: &Arrival| receiving.wanted.accepts(arrival);
        let Some((at, arrival)) = self.find_bundled(receiving.endpoint, receiving.room, wanted) else {
            return Look::Other;
        };
        let data = self.taking.data(at);
        let len = data.len();
        // SAFETY: writable for `room` bytes, says the caller; `len` is at most that.
        unsafe { Body::from_slice(data).copy_to_raw(receiving.data.as_ptr(), len) };
        Look::Done(self.take_bundled(at, &arrival, len))
    }

    /// Whether messages of a bundle are left that came the short way.
    #[inline(always)]
    pub(crate) const fn has_bundled(&self) -> bool {
        !self.taking.is_empty()
    }

    /// Takes the oldest message of the bundle that is being taken that the receive is for, if nobody else wants it.
    #[inline(always)]
    pub(crate) fn recv_packed(&mut self, number: u32, pattern: &Match, buf: &mut [u8]) -> Option<Completion> {
        // What waits came before: a posted receive may have opened the bundle over it.
        if self.endpoint(number)?.matcher.has_unexpected() {
            return None;
        }
        let (at, arrival) = self.find_bundled(number, buf.len(), |arrival| wants(pattern, arrival))?;
        let len = Body::from_slice(self.taking.data(at)).copy_to(buf);
        Some(self.take_bundled(at, &arrival, len))
    }

    /// A message of the bundle that is being taken, of at most `len_max` bytes, that is wanted and that nobody else wants.
    #[inline(always)]
    pub(super) fn find_bundled(
        &self,
        number: u32,
        len_max: usize,
        wanted: impl Fn(&Arrival) -> bool,
    ) -> Option<(usize, Arrival)> {
        if self.permits.to_receive.endpoint != number {
            return None;
        }
        let (at, arrival) = self.taking.find(wanted)?;
        let endpoint = self.endpoints.get((number as usize).wrapping_sub(1)).and_then(Option::as_deref)?;
        let may = !endpoint.matcher.may_want(&arrival) && self.taking.data(at).len() <= len_max;
        may.then_some((at, arrival))
    }

    #[inline(always)]
    pub(super) fn take_bundled(&mut self, at: usize, arrival: &Arrival, len: usize) -> Completion {
        self.taking.take(at);
        self.permits.to_receive.count_bundled(len);
        Completion { len, tag: arrival.tag, immediate: None, source: self.taking.source() }
    }
}
