//! Operations under way: what they hold, and in which state they are.
#![allow(unsafe_code)]

use super::gather::Gathered;
use super::ranges::Ranges;
use super::table::Key;
use crate::complete::Waiter;
use crate::completion::Completion;
use crate::error::OpError;
use sinew_proto::matching::{Arrival, Pattern, PostId};
use sinew_transport::{Body, Buf, Descriptor, Lane, LaneError, View};
use sinew_wire::frame::{Flags, Header};
use std::ptr::NonNull;

/// Memory that an operation reads from or writes to. Only the core touches it, under the engine's lock, and never after
/// the operation has left the table.
#[derive(Debug)]
pub(crate) enum Memory {
    /// Owned: comes back with the completion.
    Owned(Buf),
    /// Borrowed by a blocking call or a scope, which outlives the operation.
    Borrowed {
        /// First byte.
        data: NonNull<u8>,
        /// Bytes.
        len: usize,
    },
    /// Borrowed by a blocking call, to send, in several places.
    Gathered(Gathered),
    /// None yet: made on match, or the message is read where it is.
    Later {
        /// Longest message that is taken whole, in bytes.
        len_max: usize,
    },
    /// The sender's memory, read in place until the loan is given back.
    Viewed {
        /// The memory.
        view: View,
        /// Whose message it is.
        loan: Loan,
    },
}

/// Which message of which sender is on loan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loan {
    pub(crate) session: Key,
    pub(crate) sender_op: u64,
}

// SAFETY: a raw range is only dereferenced under the engine's lock, while its borrower waits for the operation to leave
// the table; `Buf` is Send itself.
unsafe impl Send for Memory {}

impl Memory {
    /// What stands where memory was taken away.
    pub(crate) const NONE: Self = Self::Later { len_max: 0 };

    pub(crate) fn data(&self) -> NonNull<u8> {
        match self {
            Self::Owned(buf) => buf.data(),
            Self::Borrowed { data, .. } => *data,
            Self::Gathered(_) | Self::Later { .. } | Self::Viewed { .. } => NonNull::dangling(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Owned(buf) => buf.len(),
            Self::Borrowed { len, .. } => *len,
            Self::Gathered(gathered) => gathered.len(),
            Self::Later { len_max } => *len_max,
            Self::Viewed { view, .. } => view.len(),
        }
    }

    /// The buffer, if it is one, and nothing in its place.
    #[inline(always)]
    pub(crate) fn take_buf(&mut self) -> Option<Buf> {
        match self {
            Self::Owned(_) => std::mem::replace(self, Self::NONE).into_buf(),
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) fn into_buf(self) -> Option<Buf> {
        match self {
            Self::Owned(buf) => Some(buf),
            Self::Borrowed { .. } | Self::Gathered(_) | Self::Later { .. } | Self::Viewed { .. } => None,
        }
    }

    /// The bytes of a message to send; none when they do not lie together ([`Memory::piece`] shows those).
    ///
    /// # Safety
    /// The operation is in the table (so the range is still lent), and nothing writes the range meanwhile.
    pub(crate) unsafe fn bytes<'a>(&self) -> &'a [u8] {
        let len = if matches!(self, Self::Gathered(_)) { 0 } else { self.len() };
        // SAFETY: lent and initialised, says the contract; senders' memory is not written while it is lent.
        unsafe { std::slice::from_raw_parts(self.data().as_ptr(), len) }
    }
}

#[derive(Debug)]
pub(crate) enum SendState {
    /// Not announced yet: waits in its flow for room or credit.
    Queued,
    /// An envelope is out; the receiver will fetch.
    Announced,
    /// The receiver fetches: fragments `next..end` are still to be posted.
    /// In stripes if the receiver takes them: `turn` is its number for this fetch.
    Moving { receiver: u64, next: u64, end: u64, turn: Option<u16> },
    /// All fragments are posted; the receiver will say that it is done.
    Posted,
    /// Over but for lanes that still refer to the memory.
    Releasing(Result<(), OpError>),
    /// Over.
    Finished(Result<(), OpError>),
}

impl SendState {
    /// Whether the receiver has heard of the message, and has not said that it is done with it.
    pub(crate) const fn is_out(&self) -> bool {
        matches!(self, Self::Announced | Self::Moving { .. } | Self::Posted)
    }
}

#[derive(Debug)]
pub(crate) struct SendOp {
    pub(crate) session: Key,
    pub(crate) flow: u32,
    pub(crate) header: Header,
    pub(crate) immediate: Option<u64>,
    pub(crate) memory: Memory,
    pub(crate) state: SendState,
    /// Fragments that lanes still refer to.
    pub(crate) references: u32,
    /// Those of them that are stripes, which no loss of the lane of the sequence gives up.
    pub(crate) stripes: u32,
    pub(crate) waiter: Option<Waiter>,
    /// Nobody waits: remove it when it is finished.
    pub(crate) detached: bool,
    /// Whether its bytes count against the session's send buffer.
    pub(crate) buffered: bool,
    /// Bytes that were sent unasked and that the receiver has said nothing of.
    pub(crate) pushed: u64,
}

impl SendOp {
    /// One that waits for its turn, and that somebody waits for.
    #[inline(always)]
    pub(crate) const fn new(
        (session, flow): (Key, u32),
        header: Header,
        immediate: Option<u64>,
        memory: Memory,
    ) -> Self {
        Self {
            session,
            flow,
            header,
            immediate,
            memory,
            state: SendState::Queued,
            references: 0,
            stripes: 0,
            waiter: None,
            detached: false,
            buffered: false,
            pushed: 0,
        }
    }

    /// Whether the message goes by descriptor: the receiver pulls it from, or reads it in, the engine's pool.
    pub(crate) fn memory_is_described(&self) -> bool {
        matches!(&self.memory, Memory::Owned(buf) if is_described(buf, self.session))
    }

    /// Whether the peer may have been told where the message lies in this process: it may read it there until it is recalled.
    pub(crate) fn memory_is_lent(&self) -> bool {
        matches!(self.memory, Memory::Owned(_) | Memory::Borrowed { .. }) && self.memory.len() >= LENT_FROM
    }

    /// Names the message towards the peer, so that it is read or shown where it lies. `None`: it will be sent.
    pub(crate) fn describe(&self, lane: &mut dyn Lane) -> Result<Option<Descriptor>, LaneError> {
        match &self.memory {
            Memory::Owned(buf) if self.memory_is_described() => lane.describe(buf),
            memory if self.memory_is_lent() => lane.describe_lent(memory.data(), memory.len()),
            _ => Ok(None),
        }
    }
}

/// Pooled messages shorter than this are copied: one cache line and a copy beat a descriptor and an answer.
const DESCRIBED_FROM: usize = 1024;

/// Shorter messages of other memory are never read where they lie in the sender's process: the answer costs more than a copy.
const LENT_FROM: usize = 4096;

/// Whether a message goes to the peer of a session by descriptor.
pub(crate) fn is_described(buf: &Buf, session: Key) -> bool {
    buf.len() >= DESCRIBED_FROM && buf.may_be_shown(session.0)
}

/// An envelope as the receiver keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    pub(crate) session: Key,
    /// The lane that it came by: descriptors are good there only.
    pub(crate) lane: Key,
    pub(crate) sender_op: u64,
    /// Its place in what the session brought (`inbound::numbered`): what came before it has a smaller number.
    pub(crate) number: u64,
    pub(crate) len: u64,
    pub(crate) descriptor: Option<Descriptor>,
    /// What it holds while it waits.
    pub(crate) charge: Charge,
}

/// Which credit a message holds while it waits for a receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Charge {
    /// None: it was put back, and its sender paid once.
    Nothing,
    /// That of its endpoint and that of its session.
    Shared,
    /// The reserve of its endpoint.
    Reserve,
}

impl Charge {
    /// What a message says.
    #[inline]
    pub(crate) const fn of(header: &Header) -> Self {
        if header.flags.contains(Flags::RESERVE) { Self::Reserve } else { Self::Shared }
    }

    /// The header of a message that is charged so.
    pub(crate) const fn mark(self, header: Header) -> Header {
        match self {
            Self::Reserve => Header { flags: header.flags.with(Flags::RESERVE), ..header },
            Self::Nothing | Self::Shared => header,
        }
    }
}

/// How the bytes of an envelope come. One way at a time: what comes the other way is a forgery, and would end the receive
/// while a lane still writes to its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// A lane of this side pulls them from where the sender described them.
    Pulled,
    /// The sender was asked for them.
    Fragments,
    /// A lane of this side puts a whole message there while it arrives (`arriving`).
    Whole,
    /// The same, of a message whose receive was given up meanwhile: into memory of the engine's own.
    Aside,
}

#[derive(Debug)]
pub(crate) enum RecvState {
    /// Waits for a message.
    Posted(PostId),
    /// Matched an envelope. Apart, as most receives never come here, and all are moved about.
    Fetching(Box<Fetch>),
    /// Over. The error apart, as for [`RecvState::Fetching`].
    Finished(Result<Completion, Box<OpError>>),
}

impl RecvState {
    /// What stands where a state was taken away.
    pub(crate) const NONE: Self = Self::Posted(PostId::from_u64(u64::MAX));
}

/// A message that comes: `received` of `expected` bytes are there.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    pub(crate) envelope: Envelope,
    pub(crate) info: Completion,
    pub(crate) arrival: Arrival,
    pub(crate) received: u64,
    /// Which they are.
    pub(crate) arrived: Ranges,
    pub(crate) expected: u64,
    pub(crate) way: Way,
    /// Which of this engine's fetches it is: what comes late of an earlier one of the same receive is known by it.
    pub(crate) turn: u16,
    /// What it asked for, and how long a message it takes if it had no memory: it may have to ask again.
    pub(crate) wanted: Pattern,
    pub(crate) len_max: Option<usize>,
    /// So many bytes come unasked, from the first on; the others were asked for.
    pub(crate) pushed: u64,
}

/// Who receives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiver {
    pub(crate) endpoint: u32,
    /// Its place among the receives of its endpoint: each has a greater number than those that were posted before.
    pub(crate) order: u64,
    /// The handler that it feeds.
    pub(crate) handler: Option<Key>,
}

#[derive(Debug)]
pub(crate) struct RecvOp {
    pub(crate) endpoint: u32,
    /// See [`Receiver`].
    pub(crate) order: u64,
    /// It asked for untagged messages.
    pub(crate) untagged: bool,
    pub(crate) memory: Memory,
    pub(crate) state: RecvState,
    pub(crate) waiter: Option<Waiter>,
    /// The handler that it feeds.
    pub(crate) handler: Option<Key>,
    /// The place of its message in what its session brought; 0: none has come, or that is not known.
    pub(crate) number: u64,
}

impl RecvOp {
    pub(crate) fn new(receiver: Receiver, untagged: bool, memory: Memory, state: RecvState) -> Self {
        let Receiver { endpoint, order, handler } = receiver;
        Self { endpoint, order, untagged, memory, state, waiter: None, handler, number: 0 }
    }

    /// A receive that has matched already, without having been posted.
    pub(crate) fn matched(receiver: Receiver, untagged: bool, memory: Memory) -> Self {
        Self::new(receiver, untagged, memory, RecvState::NONE)
    }

    /// Whether fragments of a session are on their way into its memory.
    pub(crate) fn fetches_from(&self, session: Key) -> bool {
        matches!(&self.state, RecvState::Fetching(fetch)
            if fetch.way == Way::Fragments && fetch.envelope.session == session)
    }
}

#[derive(Debug)]
pub(crate) enum Op {
    Send(SendOp),
    Recv(RecvOp),
}

/// A message that nobody had asked for when it came.
#[derive(Debug)]
pub(crate) enum Unexpected {
    /// Short: kept in place.
    Small { len: u8, bytes: [u8; SMALL], immediate: Option<u64>, session: Key, number: u64, charge: Charge },
    /// Its bytes.
    Large { bytes: Box<[u8]>, immediate: Option<u64>, session: Key, number: u64, charge: Charge },
    /// Its envelope; the bytes are with the sender.
    Envelope { envelope: Envelope, immediate: Option<u64> },
}

impl Unexpected {
    /// Which session brought it, and its place in that.
    pub(crate) const fn number(&self) -> (Key, u64) {
        match self {
            Self::Small { session, number, .. } | Self::Large { session, number, .. } => (*session, *number),
            Self::Envelope { envelope, .. } => (envelope.session, envelope.number),
        }
    }

    /// Whether it came before place `before` of that session.
    pub(crate) fn came_before(&self, of: Key, before: u64) -> bool {
        let (session, number) = self.number();
        session == of && number < before
    }

    /// Whether it came behind place `after` of that session.
    pub(crate) fn came_behind(&self, of: Key, after: u64) -> bool {
        let (session, number) = self.number();
        session == of && number > after
    }

    /// A whole message: place `number` of its session.
    pub(crate) fn whole(
        body: Body<'_>,
        immediate: Option<u64>,
        (session, number): (Key, u64),
        charge: Charge,
    ) -> Self {
        let len = body.len();
        if len > SMALL {
            return Self::Large {
                bytes: body.to_vec().into_boxed_slice(),
                immediate,
                session,
                number,
                charge,
            };
        }
        let mut bytes = [0; SMALL];
        body.copy_to(&mut bytes);
        Self::Small { len: len as u8, bytes, immediate, session, number, charge }
    }
}

/// Bytes that an unexpected message may have without an allocation.
pub(crate) const SMALL: usize = 40;
