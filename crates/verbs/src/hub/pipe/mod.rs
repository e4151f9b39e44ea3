//! One queue pair with completion queues of its own: the fastest safe posting.
//!
//! # Order of use
//! [`Pipe::new`], receives posted, endpoints exchanged, [`Pipe::connect`]; then [`Pipe::post`] or [`Pipe::post_all`], and [`Pipe::poll`]. One that sleeps is made by
//! [`Pipe::with_events`], and waits by [`Pipe::wait`].
//!
//! # Memory
//! As with a [`Hub`](super::Hub): what is posted moves into the pipe and comes back when it has ended. A completion says that all before it have ended too; nothing is looked up,
//! and a number that was counted on is all that a completion changes. A pipe that is dropped destroys its queue pair first, and then drops the memory of what was out; what a device
//! refuses to end stays for ever, counted. Forgetting a pipe leaks the memory with it. Inline bytes are the driver's during the call alone.
#![allow(unsafe_code)]

mod events;
mod inline;
mod list;
mod places;
mod post;
mod receive;
mod run;
mod verb;

use super::member::{flush, names_no_queue, tell_kept};
use super::ring::Ring;
use crate::cq::{CompletionChannel, CompletionQueue, WorkCompletion};
use crate::error::{Error, Result};
use crate::memory::Buffer;
use crate::pd::ProtectionDomain;
use crate::qp::state::ServiceType;
use crate::qp::{Connected, Endpoint, Operations, Plan, QueuePair, QueuePairBuilder};
use crate::work::WorkError;
pub use events::{NoEvents, OwnEvents, SharedEvents};
use inline::Inlines;
use list::List;
use places::Places;
pub use receive::Received;
pub use run::Run;
use std::fmt;
use std::mem::ManuallyDrop;
pub use verb::Verb;

/// Completions that are read at once.
const BATCH: usize = 16;

/// One queue pair of a connection, whose operations are of one buffer each and end in the order posted. `Send`; one thread at a time uses it.
///
/// The fastest safe way to post: for loops over one connection, posting and polling costs what C's does. Take a [`Hub`](super::Hub) for several queue pairs in one loop, for
/// datagrams, shared memory and operations of several buffers; and for atomics and windows: an atomic has two words beside its memory and a window is no buffer, which each [`Verb`] and each
/// place would have room for, and each post would ask for.
///
/// `E` says how it tells that something has ended: only to who polls ([`NoEvents`]), at a channel of its own, where it sleeps ([`OwnEvents`]), or at one that it shares with others
/// ([`SharedEvents`]).
///
/// No queue of it overruns: a place is free only when its buffer was taken back. Dropped on whichever thread, it ends its queue pair first; nothing waits for the peer.
///
/// ```no_run
/// # use sinew_verbs::{hub::{Pipe, Verb}, memory::RemoteRegion, qp::{Endpoint, Rc}, Error, ProtectionDomain};
/// # fn f(pd: &ProtectionDomain, peer: &Endpoint, remote: RemoteRegion) -> Result<(), Error> {
/// let mut pipe: Pipe<Rc> = Pipe::new(pd, 64, 1, |qp| Ok(qp))?;
/// pipe.connect(peer)?;
/// let mut free = (0..16).map(|_| pd.allocate(4096)).collect::<Result<Vec<_>, Error>>()?;
/// for round in 0..1000_u32 {
///     free[0][..4].copy_from_slice(&round.to_ne_bytes());
///     // One doorbell, one completion.
///     let write = Verb::write(remote);
///     pipe.post_all(&mut free, |place| if place == 15 { write } else { write.unsignaled() })?;
///     while free.len() < 16 {
///         let ended = pipe.poll()?;
///         ended.result()?;
///         ended.append_to(&mut free);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Pipe<S: Connected, E = NoEvents> {
    /// Destroyed before the buffers of what is out go.
    qp: ManuallyDrop<QueuePair<S>>,
    /// Its number, which completions name.
    number: u32,
    /// The identity of its domain.
    domain: *const (),
    /// Closed until it is connected.
    sends: ManuallyDrop<Places>,
    /// Sends that have no buffer, beside.
    inlines: Inlines,
    receives: ManuallyDrop<Ring<Buffer>>,
    plan: Plan,
    list: List,
    sent: Reader,
    received: Reader,
    /// The number of the send that failed last, and why.
    failed: Option<(u64, WorkError)>,
    strays: u64,
    events: E,
}

// SAFETY: the pointer is compared, and never followed; the rest is of any thread.
unsafe impl<S: Connected, E: Send> Send for Pipe<S, E> {}
// SAFETY: the same; shared references only ask.
unsafe impl<S: Connected, E: Sync> Sync for Pipe<S, E> {}

/// A completion queue and what was read of it.
struct Reader {
    queue: CompletionQueue,
    batch: Box<[WorkCompletion; BATCH]>,
    /// Which of the batch comes next.
    next: usize,
    /// How many of it are left.
    left: usize,
}

impl Reader {
    fn new(queue: CompletionQueue) -> Self {
        Self { queue, batch: Box::new([WorkCompletion::EMPTY; BATCH]), next: 0, left: 0 }
    }

    /// The next completion, which stays the next until it is [skipped](Self::skip).
    fn peek(&mut self) -> Result<Option<WorkCompletion>> {
        if self.left == 0 {
            self.next = 0;
            self.left = self.queue.poll_into(&mut self.batch[..])?;
        }
        Ok((self.left > 0).then(|| self.batch[self.next % BATCH]))
    }

    /// Done with it.
    const fn skip(&mut self) {
        self.next += 1;
        self.left -= 1;
    }

    /// Reads all that there are: they are of a connection that is gone.
    fn empty(&mut self) {
        self.left = 0;
        // No more than it holds: a device that makes completions up does not keep the caller here.
        let mut left = self.queue.entries() as usize;
        // A device that fails here fails at the next poll too, where it is told.
        while left > 0
            && let Ok(count @ 1..) = self.queue.poll_into(&mut self.batch[..])
        {
            left = left.saturating_sub(count);
        }
    }
}

impl<S: Connected> Pipe<S> {
    /// With a send queue of `sends` and a receive queue of `receives` requests, of which one at least has a place. `options` says the rest; how deep it is stays as it is here.
    ///
    /// # Errors
    /// [`Error::Invalid`] for options that change its queues, and for the sending side of an extended connection; as for a completion queue ([`build`](crate::cq::CompletionQueueBuilder::build)) and for a queue pair
    /// ([`build`](QueuePairBuilder::build)), and what `options` answers.
    pub fn new(
        pd: &ProtectionDomain,
        sends: u32,
        receives: u32,
        options: impl for<'a> FnOnce(QueuePairBuilder<'a, S>) -> Result<QueuePairBuilder<'a, S>>,
    ) -> Result<Self> {
        Self::make(pd, (sends, receives), None, NoEvents::NEW, options)
    }
}

impl<S: Connected, E> Pipe<S, E> {
    /// With queues so deep, sends and receives; a channel, and the words that events of the two completion queues come with.
    fn make(
        pd: &ProtectionDomain,
        (sends, receives): (u32, u32),
        channel: Option<(&CompletionChannel, [u64; 2])>,
        events: E,
        options: impl for<'a> FnOnce(QueuePairBuilder<'a, S>) -> Result<QueuePairBuilder<'a, S>>,
    ) -> Result<Self> {
        if S::TYPE == ServiceType::XRC_SEND {
            return Err(names_no_queue("a pipe"));
        }
        let queue = |entries: u32, which: usize| {
            let queue = pd.context().completion_queue(entries.max(1));
            match channel {
                Some((channel, cookies)) => queue.channel(channel, cookies[which]),
                None => queue,
            }
            .build()
        };
        let (sent, received) = (queue(sends, 0)?, queue(receives, 1)?);
        let builder = pd.queue_pair(&sent).receive_completion_queue(&received);
        let prepared = options(builder.send_depth(sends).receive_depth(receives))?.build()?;
        let (qp, plan) = prepared.into_parts();
        let depths = qp.depths();
        let is_its_own = qp.send_completion_queue().is(&sent)
            && qp.receive_completion_queue().is(&received)
            && qp.shared_receive_queue().is_none()
            && qp.protection_domain().is(pd)
            && (depths.send, depths.receive) == (sends, receives);
        if !is_its_own {
            return Err(Error::invalid(
                "queue pair of a pipe",
                "the options make another one, or other queues",
                "say only what the queue pair does; take a hub for shared queues",
            ));
        }
        qp.set_kept();
        // What a verb can be. Looked at once: a post does not ask.
        let needed = S::OPERATIONS - Operations::ATOMICS - Operations::KEYS;
        if !qp.operations().contains(needed) {
            return Err(Error::Unsupported { what: "sends, writes and reads", object: format!("{qp:?}") });
        }
        Ok(Self {
            domain: pd.identity(),
            number: qp.number(),
            qp: ManuallyDrop::new(qp),
            sends: ManuallyDrop::new(Places::new(sends)),
            inlines: Inlines::new(if depths.inline > 0 { sends } else { 0 }),
            receives: ManuallyDrop::new(Ring::new(receives)),
            plan,
            list: List::new(),
            sent: Reader::new(sent),
            received: Reader::new(received),
            failed: None,
            strays: 0,
            events,
        })
    }

    /// What the peer needs to know.
    ///
    /// # Errors
    /// [`Error::Call`] when the port cannot be asked.
    pub fn endpoint(&self) -> Result<Endpoint> {
        self.plan.endpoint(&*self.qp)
    }

    /// Connects to the peer whose endpoint this is.
    ///
    /// # Errors
    /// As for [`PreparedQueuePair::connect`](crate::qp::PreparedQueuePair::connect).
    pub fn connect(&mut self, peer: &Endpoint) -> Result<()> {
        self.plan.connect(&*self.qp, peer)?;
        self.sends.open();
        Ok(())
    }

    /// The queue pair, to be asked or changed.
    #[must_use]
    pub fn queue_pair(&self) -> &QueuePair<S> {
        &self.qp
    }

    /// Sends and receives that are out.
    #[must_use]
    pub fn in_flight(&self) -> (u32, u32) {
        let sends = self.sends.out() + self.inlines.out_behind(self.sends.oldest());
        (sends as u32, self.receives.len())
    }

    /// Whether nothing is out.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight() == (0, 0)
    }

    /// Completions of nothing that was out: a fault of the device.
    #[must_use]
    pub const fn strays(&self) -> u64 {
        self.strays
    }

    /// Ends its work: everything that is out completes as flushed.
    ///
    /// # Errors
    /// [`Error::Transition`] when the device refuses.
    pub fn fail(&self) -> Result<()> {
        self.qp.fail()
    }

    /// Brings it back for a new connection. The memory of what was out comes back, sends first, of unknown fate; inline sends have none.
    ///
    /// # Errors
    /// [`Error::Transition`] when the device refuses: what is out stays with the pipe.
    pub fn reset(&mut self) -> Result<Vec<Buffer>> {
        self.plan.reset(&*self.qp)?;
        self.sends.close();
        self.inlines.clear();
        self.sends.set_aside(0);
        let mut back = self.sends.drain();
        back.extend(self.receives.drain());
        self.sent.empty();
        self.received.empty();
        Ok(back)
    }

    /// Nobody knows what the device has taken: all that is out is flushed, and nothing is sent after it, whose completion would tell that what the device did not take had succeeded.
    #[cold]
    fn cut(&mut self) {
        self.sends.close();
        flush(&self.qp);
    }
}

impl<S: Connected, E> Drop for Pipe<S, E> {
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        let qp = unsafe { ManuallyDrop::take(&mut self.qp) };
        match qp.destroy() {
            // SAFETY: dropped once, here, after the device forgot the queue pair and with it every request.
            Ok(()) => unsafe {
                ManuallyDrop::drop(&mut self.sends);
                ManuallyDrop::drop(&mut self.receives);
            },
            // The device may touch the buffers: they stay for ever, and the queue pair's own drop counts it.
            Err((qp, _)) => {
                tell_kept(self.sends.out() as u32 + self.receives.len());
                drop(qp);
            }
        }
    }
}

impl<S: Connected, E> fmt::Debug for Pipe<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("queue_pair", &*self.qp).finish_non_exhaustive()
    }
}
