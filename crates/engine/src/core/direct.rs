//! A blocking receive while its caller polls: the message goes from the lane straight into the caller's memory.
//!
//! Called by [`crate::Endpoint`] for blocking receives. The caller holds the engine's lock from before the first look until
//! the receive is over or stands in the matcher, so nobody can post another receive or take a message meanwhile, and the
//! order is what it would be had the receive been posted at once. What it must not do: keep the caller's memory known to
//! the core any longer than that.
#![allow(unsafe_code)]

use super::op::{Memory, Op, Receiver, RecvOp};
use super::operations::{Started, received};
use super::quick::Receiving;
use super::table::Key;
use super::{Core, OpError};
use crate::completion::{Completion, Match, Source};
use sinew_proto::matching::{Arrival, Pattern, Wanted};
use sinew_transport::Body;
use std::ptr::NonNull;

/// What became of a direct receive. Small, as it is moved on the way of each message.
#[derive(Debug)]
pub(crate) enum Taken {
    /// The message is there.
    Done(Completion),
    Failed(Box<OpError>),
    /// It is an operation in the table now.
    Pending(Key),
}

/// The direct receive under way, if there is one.
///
/// What the message says about itself is kept in single words, none beside another that it is returned with: a processor
/// that reads two words at once waits for the stores that have just written them one by one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Direct {
    sender: u64,
    /// The endpoint that receives; 0: nobody waits for a message.
    endpoint: u32,
    /// This and the other words of a message: with [`Over::Done`].
    len: usize,
    data: NonNull<u8>,
    tag: u64,
    room: usize,
    session: u64,
    over: Over,
    immediate: u64,
    /// The place of the message in what its session brought.
    number: u64,
    wanted: Wanted,
    has_immediate: bool,
}

// SAFETY: the memory is written only under the engine's lock, while its borrower is inside `Core::recv_in_turn`.
unsafe impl Send for Direct {}

/// What became of a direct receive.
#[derive(Debug)]
enum Over {
    Not,
    Done,
    Failed(Box<OpError>),
    /// It matched an envelope and is an operation in the table now.
    Operation(Key),
}

impl Default for Direct {
    fn default() -> Self {
        Self {
            sender: 0,
            endpoint: 0,
            len: 0,
            data: NonNull::dangling(),
            tag: 0,
            room: 0,
            session: 0,
            over: Over::Not,
            immediate: 0,
            number: 0,
            wanted: Wanted::NOTHING,
            has_immediate: false,
        }
    }
}

impl Direct {
    /// Whether the message is for the receive under way. Older receives, those of the matcher, were asked before.
    #[inline]
    pub(crate) fn accepts(&self, endpoint: u32, arrival: &Arrival) -> bool {
        self.endpoint == endpoint && self.wanted.accepts(arrival)
    }

    /// The same of a message of `len` bytes that has only begun to arrive: whether there is room for it.
    pub(crate) fn takes(&self, endpoint: u32, arrival: &Arrival, len: usize) -> bool {
        self.accepts(endpoint, arrival) && len <= self.room
    }

    /// The memory of the receive under way: its borrower is inside `Core::recv_in_turn`, where all polls are.
    pub(crate) fn memory(&self) -> Option<(NonNull<u8>, usize)> {
        (self.endpoint != 0).then_some((self.data, self.room))
    }

    /// Its whole message, from place `number` of its session. The caller has asked [`Direct::accepts`].
    #[inline]
    pub(crate) fn deliver(&mut self, number: u64, info: &Completion, body: Body<'_>) {
        let len = body.len().min(self.room);
        self.endpoint = 0;
        // SAFETY: the borrower of the memory, writable for `room >= len` bytes, is inside `Core::recv_in_turn`: `endpoint`,
        // which `accepts` has compared, is 0 otherwise.
        unsafe {
            if body.lies_in(self.data.as_ptr(), self.room) {
                // A lane has read it there (`Direct::memory`).
                body.move_to_raw(self.data.as_ptr(), len);
            } else {
                body.copy_to_raw(self.data.as_ptr(), len);
            }
        }
        if body.len() <= self.room {
            (self.len, self.tag) = (info.len, info.tag);
            (self.session, self.sender) = (info.source.session, info.source.key);
            self.has_immediate = info.immediate.is_some();
            self.immediate = info.immediate.unwrap_or(0);
            self.number = number;
            self.over = Over::Done;
        } else if let Err(error) = received(info, body.len(), self.room) {
            self.over = Over::Failed(Box::new(error));
        }
    }

    #[inline(always)]
    fn info(&self) -> Completion {
        Completion {
            len: self.len,
            tag: self.tag,
            immediate: self.has_immediate.then_some(self.immediate),
            source: Source { session: self.session, key: self.sender },
        }
    }

    /// What became of a receive that was started as an operation.
    fn taken(&mut self, started: Started<Completion>) -> Taken {
        match started {
            Started::Done(Ok(info), _, number) => {
                self.number = number;
                Taken::Done(info)
            }
            Started::Done(Err(error), ..) => Taken::Failed(Box::new(error)),
            Started::Pending(key) => Taken::Pending(key),
        }
    }

    /// The place of the message that was taken last in what its session brought.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// No session is left with the engine of this number: a receive from it alone ends.
    pub(crate) fn end_of_engine(&mut self, engine: u32, error: &OpError) {
        if self.endpoint != 0 && self.wanted.source().is_some_and(|source| (source >> 32) as u32 == engine) {
            self.endpoint = 0;
            self.over = Over::Failed(Box::new(error.clone()));
        }
    }
}

/// Forgets the caller's memory when the receive ends, also by a panic.
struct Under<'a>(&'a mut Core);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.direct.endpoint = 0;
        // Nobody has heard of the operation: a lane has panicked.
        if let Over::Operation(key) = self.0.direct.over {
            self.0.direct.over = Over::Not;
            self.0.cancel_recv(key);
        }
    }
}

impl Core {
    /// Whether a receive has to look at more than lanes: messages that came before, a source that may be lost.
    #[inline(always)]
    fn recv_has_more_to_see(&mut self, pattern: &Match, endpoint: u32) -> bool {
        pattern.source.is_some() || self.endpoint(endpoint).is_none_or(|state| state.matcher.has_unexpected())
    }

    /// Whether a receive that has not been posted may look for its message the short way.
    #[inline(always)]
    pub(crate) fn may_receive_quick(&mut self, endpoint: u32, pattern: &Match) -> bool {
        (self.polls_memory() || self.socket_has_more()) && !self.recv_has_more_to_see(pattern, endpoint)
    }

    /// What a receive finds before it looks at any lane: a message that came before, or that none will come.
    pub(crate) fn recv_before(&mut self, receiving: &Receiving) -> Option<Taken> {
        if self.endpoint(receiving.endpoint).is_none() {
            return Some(Taken::Failed(Box::new(OpError::EngineClosed)));
        }
        if self.recv_has_more_to_see(&receiving.pattern, receiving.endpoint) {
            return self.recv_waiting(receiving);
        }
        None
    }

    #[inline(never)]
    fn recv_waiting(&mut self, receiving: &Receiving) -> Option<Taken> {
        let &Receiving { endpoint, pattern, data, room } = receiving;
        if let Some((arrival, message)) = self.endpoint(endpoint)?.matcher.claim(&pattern.into()) {
            let memory = Memory::Borrowed { data, len: room };
            let receiver = Receiver { endpoint, order: self.next_order(), handler: None };
            let started = self.take_unexpected(receiver, &arrival, message, pattern.into(), memory);
            return Some(self.direct.taken(started));
        }
        pattern.source.and_then(|source| self.source_lost(source)).map(|error| Taken::Failed(Box::new(error)))
    }

    /// Posts a receive that has polled for long enough.
    ///
    /// # Safety
    /// The receive's memory is writable, and borrowed by the caller until the operation is out of the table.
    #[cold]
    pub(crate) unsafe fn recv_posted(&mut self, receiving: &Receiving) -> Taken {
        let &Receiving { endpoint, pattern, data, room } = receiving;
        let started = self.start_recv(endpoint, pattern, Memory::Borrowed { data, len: room }, None);
        self.direct.taken(started)
    }

    /// One turn of progress, in which the message may come whatever it is.
    ///
    /// # Safety
    /// The receive's memory is writable, and borrowed by the caller until the receive is over: done, or out of the table.
    #[inline(never)]
    pub(crate) unsafe fn recv_in_turn(&mut self, receiving: &Receiving) -> Option<Taken> {
        let &Receiving { endpoint, pattern, data, room } = receiving;
        let direct = &mut self.direct;
        (direct.endpoint, direct.over) = (endpoint, Over::Not);
        (direct.wanted, direct.data, direct.room) = (Wanted::new(&pattern.into()), data, room);
        let under = Under(self);
        let moved = under.0.turn_settled(1);
        if under.0.direct.endpoint != 0 {
            if moved == 0 {
                std::hint::spin_loop();
            }
            return None;
        }
        // This thread stops polling: whoever sleeps takes over.
        under.0.effects.finish();
        if matches!(under.0.direct.over, Over::Done) {
            return Some(Taken::Done(under.0.direct.info()));
        }
        Some(under.0.other_end())
    }

    /// What became of a direct receive that did not simply get its message.
    #[cold]
    fn other_end(&mut self) -> Taken {
        match std::mem::replace(&mut self.direct.over, Over::Not) {
            Over::Not | Over::Done => Taken::Done(self.direct.info()),
            Over::Failed(error) => Taken::Failed(error),
            Over::Operation(key) => Taken::Pending(key),
        }
    }

    /// The direct receive becomes an operation, for a message that takes longer.
    #[cold]
    pub(crate) fn direct_to_operation(&mut self) -> (Key, Pattern) {
        let Direct { endpoint, data, room, .. } = self.direct;
        let memory = Memory::Borrowed { data, len: room };
        let wanted = self.direct.wanted.pattern();
        let receiver = Receiver { endpoint, order: self.next_order(), handler: None };
        let op = RecvOp::matched(receiver, wanted.untagged, memory);
        let key = self.ops.insert(Op::Recv(op));
        (self.direct.endpoint, self.direct.over) = (0, Over::Operation(key));
        (key, wanted)
    }
}
