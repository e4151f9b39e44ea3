//! The short way of posted receives: posted, and filled from the lane while somebody waits for one of them.
//!
//! Called under the engine's lock, as [`super::quick`] is, and by the same rules: each call does the whole of what the long way does
//! for what meets no obstacle, or nothing at all.

use super::Core;
use super::op::{Memory, Op, Receiver, RecvOp, RecvState};
use super::quick::Look;
use super::table::Key;
use crate::completion::{Completion, Match};
use crate::error::OpError;
use sinew_transport::{Body, Buf, Peek, Peeked};
use sinew_wire::frame::Kind;

impl Core {
    /// Whether [`Core::post_recv_quick`] may be called: nothing is to be seen to first.
    #[inline(always)]
    pub(crate) fn may_post_quick(&mut self, endpoint: u32, pattern: &Match) -> bool {
        pattern.source.is_none()
            && self.endpoint(endpoint).is_some_and(|state| !state.matcher.has_unexpected())
    }

    /// Posts a receive from anybody while no message waits.
    #[inline(always)]
    pub(crate) fn post_recv_quick(&mut self, endpoint: u32, pattern: &Match, buf: Buf) -> Key {
        let key = self.ops.next_key();
        let order = self.next_order();
        let post = self.endpoint(endpoint).and_then(|state| state.matcher.queue((*pattern).into(), key));
        let state = match post {
            Some(post) => RecvState::Posted(post),
            // Not after `may_post_quick`.
            None => RecvState::Finished(Err(Box::new(OpError::EngineClosed))),
        };
        let receiver = Receiver { endpoint, order, handler: None };
        self.ops.insert(Op::Recv(RecvOp::new(receiver, pattern.untagged, Memory::Owned(buf), state)))
    }

    /// Takes messages for posted receives of the endpoint until operation `key` is over, or until there is none or another one comes
    /// first. Whether it is over.
    #[inline(never)]
    pub(crate) fn deliver_until(&mut self, number: u32, key: Key) -> bool {
        // What was staged goes out before anybody waits for an answer; a turn of progress sees to it where there is no room.
        self.flush_bundle();
        loop {
            match self.deliver_quick(number, key) {
                Look::Done => return true,
                // It may panic: nothing must be taken out of the engine before that.
                Look::More if !self.effects.must_run() => {}
                _ => return false,
            }
        }
    }

    /// Takes messages from the lane that had the last one for which posted receives of the endpoint wait: one, or those of one
    /// frame. Done: operation `key` is over.
    #[inline(always)]
    fn deliver_quick(&mut self, number: u32, key: Key) -> Look {
        if !self.taking.is_empty() {
            return self.deliver_bundled(number, key);
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
            return match self.answer_quick(header, status) {
                Look::More if self.is_over(key) => Look::Done,
                other => other,
            };
        }
        let &Peeked { header, body } = message;
        let (source, arrival) = permit.source(&header);
        let endpoint =
            self.endpoints.get_mut((header.dst as usize).wrapping_sub(1)).and_then(Option::as_deref_mut);
        let Some(found) = endpoint.and_then(|endpoint| endpoint.matcher.arrive(&arrival)) else {
            return Look::Other;
        };
        let len = body.len();
        permit.receive(len);
        let place = permit.number();
        let info = Completion { len, tag: header.tag, immediate: None, source };
        if let Some(Op::Recv(op)) = self.ops.get_mut(found) {
            let tells = op.receive(place, &info, body);
            self.received(found, tells);
        }
        if found == key { Look::Done } else { Look::More }
    }

    /// The same for what is left of the bundle that is being taken, the oldest first.
    #[inline(never)]
    fn deliver_bundled(&mut self, number: u32, key: Key) -> Look {
        if self.permits.to_receive.endpoint != number {
            return Look::Other;
        }
        let mut look = Look::More;
        while let Some((at, arrival)) = self.taking.first() {
            let endpoint =
                self.endpoints.get_mut((number as usize).wrapping_sub(1)).and_then(Option::as_deref_mut);
            let Some(found) = endpoint.and_then(|endpoint| endpoint.matcher.arrive(&arrival)) else {
                return if matches!(look, Look::Done) { look } else { Look::Other };
            };
            let (place, len) = (self.taking.number(at), self.taking.data(at).len());
            let info = self.take_bundled(at, &arrival, len);
            if let Some(Op::Recv(op)) = self.ops.get_mut(found) {
                let tells = op.receive(place, &info, Body::from_slice(self.taking.data(at)));
                self.received(found, tells);
            }
            if found == key {
                look = Look::Done;
            }
            if self.effects.must_run() {
                break;
            }
        }
        look
    }
}
