//! A completion queue, the queue pairs that report to it, and the memory of each request that is out: safe posting.
//!
//! # Order of use
//! [`Hub::new`], [`Hub::queue_pair`] with its options, [`Hub::add`], receives posted, endpoints exchanged, [`Hub::connect`]; then
//! [`Hub::post`] and [`Hub::poll`].
//!
//! [`Pipe`] is the same for one queue pair, at less than half the cost: take it for a loop over one connection.
//!
//! # Memory
//! What is posted moves into the hub and comes back with [`Completed`]. A hub that is dropped, also while requests are out, destroys its
//! queue pairs first, and then drops their memory; what a device refuses to end stays for ever, counted
//! (`Library::leaked_objects`). Forgetting a hub leaks the memory with it.

mod answer;
mod ended;
mod member;
mod operation;
mod pipe;
mod poll;
mod post;
mod prepared;
mod ring;
mod shared;
mod tracker;
mod window;

use crate::cq::{CompletionChannel, WorkCompletion};
use crate::device::Context;
use crate::error::Result;
use crate::memory::Buffer;
use crate::pd::ProtectionDomain;
use crate::qp::state::State;
use crate::qp::{Connected, Datagram, Endpoint, PreparedQueuePair, QueuePair, QueuePairBuilder, Service};
use crate::work::WorkError;
pub(crate) use ended::Payload;
pub use member::{Member, Side};
pub use operation::{Held, Operation};
use operation::{Kept, Stored};
pub(crate) use operation::{NO_ELEMENTS, no_word, of_another_domain};
pub use pipe::{NoEvents, OwnEvents, Pipe, Received, Run, SharedEvents, Verb};
pub use post::{BatchRejected, Rejected};
pub use prepared::Prepared;
use std::fmt;
pub(crate) use tracker::Tracker;

/// Queue pairs of one service with a completion queue of their own. `Send`; one thread at a time uses it.
///
/// A loop over one connection that counts instructions takes a [`Pipe`]: an operation costs about 200 here, beside C's 70 to 150, and half of that there.
///
/// No queue of it overruns: a place is free only when its completion was polled.
///
/// It holds its queue pairs, and with them queues, domains and device. Dropped on whichever thread, it ends its queue pairs first, then the memory
/// of what was out goes; nothing waits for peers.
pub struct Hub<S: Service> {
    tracker: Tracker<S, Kept<S>>,
}

/// An operation that ended. Its memory lies in the hub until it is taken out of this; it is dropped with it.
#[must_use]
pub struct Ended<'hub, S: Service> {
    ended: ended::Ended<'hub, S, Kept<S>>,
}

impl<S: Service> Ended<'_, S> {
    /// Which queue pair.
    #[must_use]
    #[inline]
    pub fn member(&self) -> Member {
        self.ended.member()
    }

    /// Which of its queues.
    #[must_use]
    #[inline]
    pub fn side(&self) -> Side {
        self.ended.side()
    }

    /// The word that it was posted with.
    #[must_use]
    #[inline]
    pub fn tag(&self) -> u64 {
        self.ended.payload().map_or(0, |kept| kept.tag)
    }

    /// How it ended.
    ///
    /// # Errors
    /// Why the device did not do it.
    #[inline]
    pub fn result(&self) -> std::result::Result<Success, WorkError> {
        match self.ended.completion() {
            Some(completion) => match completion.ok() {
                Ok(()) => Ok(Success::of(completion, is_datagram::<S>())),
                // Of prepared requests: what follows one that failed is flushed.
                Err(error) => Err(self.ended.first_failure().unwrap_or(error)),
            },
            None => Ok(Success::default()),
        }
    }

    /// Its memory, if that is one buffer; other memory is dropped.
    #[must_use]
    #[inline(always)]
    pub fn into_buffer(self) -> Option<Buffer> {
        let buffer = |place: &mut Option<Kept<S>>| match place {
            Some(Kept { held: Stored::Held(Held::Buffer(_)), .. }) => place.take()?.into_held().into_buffer(),
            _ => None,
        };
        self.ended.pick(buffer, |kept| kept.into_held().into_buffer())
    }

    /// Its memory.
    #[must_use]
    #[inline]
    pub fn into_held(self) -> Held {
        self.ended.take().map_or(Held::Nothing, Kept::into_held)
    }

    /// All of it, apart from the hub.
    #[inline]
    pub fn take(self) -> Completed {
        let (member, side, tag, result) = (self.member(), self.side(), self.tag(), self.result());
        Completed { member, side, tag, held: self.into_held(), result }
    }
}

impl<S: Service> fmt::Debug for Ended<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended")
            .field("member", &self.member())
            .field("side", &self.side())
            .field("tag", &self.tag())
            .field("result", &self.result())
            .finish_non_exhaustive()
    }
}

/// An operation that ended, with its memory.
#[derive(Debug)]
pub struct Completed {
    /// Which queue pair.
    pub member: Member,
    /// Which of its queues.
    pub side: Side,
    /// The word that it was posted with.
    pub tag: u64,
    /// Its memory.
    pub held: Held,
    /// How it ended.
    pub result: std::result::Result<Success, WorkError>,
}

/// How an operation ended that did what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Success {
    /// Bytes that arrived: of a receive, a read or an atomic.
    pub len: Option<u32>,
    /// The word that came along.
    pub immediate: Option<u32>,
    /// The key of ours that the peer's message took out of use.
    pub invalidated_key: Option<u32>,
    /// Of a datagram: whose it is. Its bytes begin with 40 of a global route.
    pub source: Option<u32>,
}

impl Success {
    pub(crate) fn of(completion: &WorkCompletion, datagram: bool) -> Self {
        Self {
            len: completion.len(),
            immediate: completion.immediate(),
            invalidated_key: completion.invalidated_key(),
            source: datagram.then(|| completion.source_qp_num()),
        }
    }
}

impl<S: Service> Hub<S> {
    /// With a completion queue of `entries`: the sum of the depths of its queue pairs at least.
    ///
    /// # Errors
    /// As for a completion queue ([`CompletionQueueBuilder::build`](crate::cq::CompletionQueueBuilder::build)).
    pub fn new(context: &Context, entries: u32) -> Result<Self> {
        Ok(Self { tracker: Tracker::new(context, entries, None)? })
    }

    /// The same; events of the completion queue come by `channel`, with `cookie`. Arm it by [`arm`](Self::arm).
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_channel(
        context: &Context,
        entries: u32,
        channel: &CompletionChannel,
        cookie: u64,
    ) -> Result<Self> {
        Ok(Self { tracker: Tracker::new(context, entries, Some((channel, cookie)))? })
    }

    /// How to make a queue pair for it.
    #[must_use]
    pub fn queue_pair<'a>(&'a self, pd: &'a ProtectionDomain) -> QueuePairBuilder<'a, S> {
        self.tracker.queue_pair(pd)
    }

    /// From here on its queue pairs take their receives from one queue of `requests`, each of up to `elements` pieces: memory for what comes at once, not
    /// for each queue pair. Posted by [`post_shared_receive`](Self::post_shared_receive); the hub's completion queue has room for them besides.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) after the first queue pair was taken in, a second time, or when the completion queue has no room; as for a
    /// shared receive queue ([`build`](crate::srq::SharedReceiveQueueBuilder::build)).
    pub fn share_receives(&mut self, pd: &ProtectionDomain, requests: u32, elements: u32) -> Result<()> {
        self.tracker.share_receives(pd, requests, elements)
    }

    /// Takes a queue pair in.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for one that reports to another completion queue; it is dropped then.
    pub fn add(&mut self, prepared: PreparedQueuePair<S>) -> Result<Member> {
        self.tracker.add(prepared)
    }

    /// Takes in a queue pair that was made by [`queue_pair`](Self::queue_pair) and `build_raw`, and is brought up elsewhere: by hand, or by a connection
    /// manager ([`Resolved::connect_member`](crate::cm::Resolved::connect_member)). Receives can be posted
    /// from INIT on; it sends from RTS on: where it is brought up by hand behind this, [`refresh`](Self::refresh) says so. Nothing that was posted by hand may be out.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for one that reports to another completion queue; it is dropped then. [`Error::Call`](crate::Error::Call) when the device
    /// cannot be asked for its state; it is dropped then too.
    pub fn adopt(&mut self, qp: QueuePair<S>) -> Result<Member> {
        self.tracker.adopt(qp)
    }

    /// Looks at the state of a queue pair that was brought up elsewhere: from RTS on it sends. What it is in now.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a member that was removed; [`Error::Call`](crate::Error::Call) when the device cannot be asked.
    pub fn refresh(&mut self, member: Member) -> Result<State> {
        self.tracker.refresh(member)
    }

    /// What the peer needs to know.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a member that was removed; [`Error::Call`](crate::Error::Call) when the port cannot be asked.
    pub fn endpoint(&self, member: Member) -> Result<Endpoint> {
        self.tracker.endpoint(member)
    }

    /// Asks for an event with the next completion; poll once more before waiting for it. For hubs with a channel.
    ///
    /// # Errors
    /// As for [`CompletionQueue::arm`](crate::cq::CompletionQueue::arm).
    pub fn arm(&self, solicited_only: bool) -> Result<()> {
        self.tracker.queue().arm(solicited_only)
    }

    /// A queue pair, to be asked or changed; to RESET it goes by [`reset`](Self::reset) only, as requests that are out would be lost there.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a member that was removed.
    pub fn queue_pair_of(&self, member: Member) -> Result<&QueuePair<S>> {
        self.tracker.qp(member)
    }

    /// Sends and receives of a member that are out.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a member that was removed.
    pub fn in_flight(&self, member: Member) -> Result<(u32, u32)> {
        self.tracker.out(member)
    }

    /// Whether nothing is out.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tracker.is_idle()
    }

    /// Completions of nothing that was out: a fault of the device, or left from a queue pair that is gone.
    #[must_use]
    pub const fn strays(&self) -> u64 {
        self.tracker.strays()
    }

    /// The next operation that ended, if one has; those of one queue pair's send queue come in the order posted. Never blocks, never
    /// allocates.
    ///
    /// # Errors
    /// [`Error::Call`](crate::Error::Call) when the device failed: what is out stays with the hub.
    #[inline(always)]
    pub fn poll(&mut self) -> Result<Option<Ended<'_, S>>> {
        match self.tracker.poll() {
            Ok(Some(ended)) => Ok(Some(Ended { ended })),
            Ok(None) => Ok(None),
            Err(error) => Err(*error),
        }
    }

    /// Ends a queue pair's work: everything that is out completes as flushed.
    ///
    /// # Errors
    /// [`Error::Transition`](crate::Error::Transition) when the device refuses.
    pub fn fail(&self, member: Member) -> Result<()> {
        self.tracker.fail(member)
    }

    /// Takes a queue pair out and destroys it. The memory of what was out comes back, of unknown fate.
    ///
    /// # Errors
    /// [`Error::Call`](crate::Error::Call) when the device refuses: it stays, with its memory.
    pub fn remove(&mut self, member: Member) -> Result<Vec<Held>> {
        Ok(self.tracker.remove(member)?.into_iter().map(Kept::into_held).collect())
    }

    /// Brings a queue pair back for a new connection. The memory of what was out comes back, of unknown fate.
    ///
    /// # Errors
    /// [`Error::Transition`](crate::Error::Transition) when the device refuses: what is out stays with the hub.
    pub fn reset(&mut self, member: Member) -> Result<Vec<Held>> {
        Ok(self.tracker.reset(member)?.into_iter().map(Kept::into_held).collect())
    }
}

impl<S: Connected> Hub<S> {
    /// Connects a queue pair to the peer whose endpoint this is.
    ///
    /// # Errors
    /// As for [`PreparedQueuePair::connect`].
    pub fn connect(&mut self, member: Member, peer: &Endpoint) -> Result<()> {
        self.tracker.connect(member, peer)
    }
}

impl<S: Datagram> Hub<S> {
    /// Brings a queue pair up: it can send to and receive from anybody who names its queue key.
    ///
    /// # Errors
    /// As for [`PreparedQueuePair::activate`].
    pub fn activate(&mut self, member: Member) -> Result<()> {
        self.tracker.activate(member)
    }
}

const fn is_datagram<S: Service>() -> bool {
    matches!(S::TYPE, crate::qp::state::ServiceType::UD | crate::qp::state::ServiceType::DRIVER)
}

impl<S: Service> fmt::Debug for Hub<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("queue", self.tracker.queue()).finish_non_exhaustive()
    }
}
