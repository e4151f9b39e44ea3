//! A channel: one reliable connection, with blocking, scoped, asynchronous and unpolled operations.
//!
//! # Order of use
//! [`Channel::builder`] → [`PreparedChannel`]: give its endpoint to the peer by any means → [`PreparedChannel::handshake`] with the peer's →
//! [`Channel`].
//!
//! # Levels
//! | level | memory | ends |
//! |---|---|---|
//! | [`Channel::run`] and its short forms | borrowed for the call | with the call: done, failed, or cut short at the deadline |
//! | [`Channel::scope`], [`Channel::manual_scope`] | borrowed for the scope, given back with each result | with the scope |
//! | [`Channel::submit`], [`Channel::submit_receive`] | owned; comes back with the result | whenever; dropped early, its memory is parked |
//! | [`Channel::post_unpolled`] (`unsafe`) | borrowed, by the caller's promise | when its handle is waited for or dropped |
//!
//! # When the deadline passes
//! The device is told to end everything of the connection (flush); what it does not end within a second ends with the queue pair. Then memory is
//! free, and the channel is *broken*: every call answers [`Error::Broken`] until [`Channel::reset`] and a new handshake. A device that does not
//! even destroy the queue pair while it has borrowed memory ends the process: there is nothing else that would be sound.
//!
//! # The end of a scope
//! What `scope` and `manual_scope` answer, by what happened (tests of the same names in `tests/scope_matrix.rs`):
//!
//! | at the end of the closure | `scope` | `manual_scope` |
//! |---|---|---|
//! | `Ok`, every result taken | `Ok` | `Ok` |
//! | `Ok`, a failed result was taken and ignored | `Ok` | `Ok` |
//! | `Ok`, results not taken, all succeed | waits, `Ok` | waits, panics: the program broke its word |
//! | `Ok`, a result not taken, it failed | waits, [`ScopeError::Failed`] | waits, [`ScopeError::Failed`] |
//! | `Err` | waits, [`ScopeError::Closure`] with what failed besides | the same |
//! | panic | waits, goes on with the panic | the same |
//! | what is out does not end by the deadline | cut short, [`ScopeError::Failed`] or `Closure` says so | the same |
//! | the device fails to poll | cut short, the same | the same |

mod asynchronous;
mod claims;
mod core;
mod pending;
mod scope;
mod state;
mod work;

pub use self::asynchronous::{Driver, Finished, Submitted};
pub(crate) use self::core::Core;
pub use self::pending::PendingWork;
pub(crate) use self::pending::run;
pub(crate) use self::scope::run as run_scope;
pub use self::scope::{Pending, Scope, ScopeError};
pub use self::work::{Done, Pieces, Places, Work};
use crate::error::{Error, Result};
use crate::hub::{Held, Operation, Rejected, Success, Tracker};
use crate::memory::{Buffer, Gather, Memory, RemoteAccess, RemoteRegion, Scatter};
use crate::pd::ProtectionDomain;
use crate::qp::config::{AckTimeout, MinRnrTimer, Mtu, RetryCount, RnrRetry};
use crate::qp::{Endpoint, PreparedQueuePair, QueuePairBuilder, Rc};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long an operation is waited for unless it is said otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How to make a channel. Every option has a default that works.
#[derive(Clone, Copy, Debug)]
pub struct ChannelBuilder<'a> {
    pd: &'a ProtectionDomain,
    recipe: Recipe,
}

/// What a queue pair of a channel is made by, also a second time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) send_depth: u32,
    pub(crate) receive_depth: u32,
    inline: u32,
    pub(crate) access: RemoteAccess,
    pub(crate) port: Option<u8>,
    pub(crate) gid_index: Option<u32>,
    mtu: Option<Mtu>,
    traffic_class: u8,
    ack_timeout: AckTimeout,
    retries: RetryCount,
    rnr_retries: RnrRetry,
    min_rnr_timer: MinRnrTimer,
    pub(crate) deadline: Option<Duration>,
    pub(crate) parked_bytes_max: usize,
}

impl Recipe {
    pub(crate) const DEFAULT: Self = Self {
        send_depth: 64,
        receive_depth: 64,
        inline: 0,
        access: RemoteAccess::empty(),
        port: None,
        gid_index: None,
        mtu: None,
        traffic_class: 0,
        ack_timeout: AckTimeout::DEFAULT,
        retries: RetryCount::DEFAULT,
        rnr_retries: RnrRetry::Unlimited,
        min_rnr_timer: MinRnrTimer::DEFAULT,
        deadline: Some(DEADLINE),
        parked_bytes_max: 64 << 20,
    };

    /// A queue pair by it, for a tracker.
    pub(crate) fn make<P>(
        &self,
        pd: &ProtectionDomain,
        tracker: &Tracker<Rc, P>,
    ) -> Result<PreparedQueuePair<Rc>> {
        let mut builder: QueuePairBuilder<'_, Rc> = tracker
            .queue_pair(pd)
            .send_depth(self.send_depth)
            .receive_depth(self.receive_depth)
            .send_elements(work::ELEMENTS_MAX as u32)
            .receive_elements(work::ELEMENTS_MAX as u32)
            .inline_capacity(self.inline)
            .remote_access(self.access)
            .traffic_class(self.traffic_class)
            .ack_timeout(self.ack_timeout)
            .retries(self.retries)
            .rnr_retries(self.rnr_retries)
            .min_rnr_timer(self.min_rnr_timer);
        if let Some(port) = self.port {
            builder = builder.port(port);
        }
        if let Some(index) = self.gid_index {
            builder = builder.gid_index(index);
        }
        if let Some(mtu) = self.mtu {
            builder = builder.mtu(mtu);
        }
        builder.build()
    }

    /// Queue pairs for so many peers, but for one perhaps, with what they share.
    pub(crate) fn build(&self, pd: &ProtectionDomain, peers: u32, without: Option<u32>) -> Result<Arc<Core>> {
        let each = self.send_depth.saturating_add(self.receive_depth);
        let entries = each.checked_mul(peers).filter(|entries| *entries > 0).ok_or_else(|| {
            let cause = format!("{each} requests for each of {peers} peers");
            Error::invalid("channel", cause, "take depths and a number of peers of at least 1")
        })?;
        let events = pd.context().completion_channel()?;
        let mut tracker = Tracker::new(pd.context(), entries, Some((&events, 0)))?;
        let mut members = Vec::new();
        for peer in 0..peers {
            members.push(if without == Some(peer) {
                None
            } else {
                let prepared = self.make(pd, &tracker)?;
                Some(tracker.add(prepared)?)
            });
        }
        Ok(Arc::new(Core::new(pd, events, tracker, members, entries as usize, self.parked_bytes_max)))
    }
}

/// Setters of a recipe's options.
macro_rules! recipe_options {
    ($($(#[$doc:meta])* $name:ident: $type:ty $(= $wrap:expr)?;)*) => {
        $($(#[$doc])* #[must_use] pub const fn $name(mut self, $name: $type) -> Self {
            self.recipe.$name = recipe_options!(@value $name $(, $wrap)?);
            self
        })*
    };
    (@value $name:ident) => { $name };
    (@value $name:ident, $wrap:expr) => { $wrap($name) };
}

impl<'a> ChannelBuilder<'a> {
    recipe_options! {
        /// Sends, writes, reads and atomics that can be out at once; 64 by default.
        send_depth: u32;
        /// Receives that can be out at once; 64 by default.
        receive_depth: u32;
        /// The port; one that is up by default.
        port: u8 = Some;
        /// The place of our GID in the port's table; a routed one by default.
        gid_index: u32 = Some;
        /// The largest packet; what both ports carry by default.
        mtu: Mtu = Some;
        /// Traffic class; 0 by default.
        traffic_class: u8;
        /// How long the device waits for an acknowledgement; 67 ms by default.
        ack_timeout: AckTimeout;
        /// How often the device sends again; 6 times by default.
        retries: RetryCount;
        /// How often the device tries again while the peer has no receive; for ever by default, as operations have deadlines.
        rnr_retries: RnrRetry;
        /// What the peer's device is asked to wait that found no receive here; 0.64 ms by default.
        min_rnr_timer: MinRnrTimer;
        /// Bytes of owned memory that may be parked, because nobody waits for their operations any more; 64 MiB by default. Beyond, nothing
        /// more is submitted until the device is done with some.
        parked_bytes_max: usize;
    }

    /// What the peer may do with memory that was exposed in this domain; nothing by default.
    #[must_use]
    pub const fn remote_access(mut self, access: RemoteAccess) -> Self {
        self.recipe.access = access;
        self
    }

    /// How long an operation is waited for; 30 s by default. `None` waits for ever.
    #[must_use]
    pub const fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.recipe.deadline = deadline;
        self
    }

    /// Makes it, not yet connected.
    ///
    /// # Errors
    /// As for a queue pair ([`QueuePairBuilder::build`]) and a completion queue.
    pub fn build(self) -> Result<PreparedChannel> {
        let core = self.recipe.build(self.pd, 1, None)?;
        let scratch = self.pd.allocate(8)?;
        Ok(PreparedChannel { channel: Channel { core, recipe: self.recipe, scratch: Some(scratch) } })
    }
}

/// A channel that is not connected.
#[derive(Debug)]
pub struct PreparedChannel {
    channel: Channel,
}

impl PreparedChannel {
    /// What the peer needs to know.
    ///
    /// # Errors
    /// [`Error::Call`] when the port cannot be asked.
    pub fn endpoint(&self) -> Result<Endpoint> {
        self.channel.core.endpoint(0)
    }

    /// Connects to the peer whose endpoint this is. Does not wait for the peer: what is sent before it is connected too is sent again by the
    /// device.
    ///
    /// # Errors
    /// Itself with [`Error::Peer`] or [`Error::Transition`]; see [`PreparedQueuePair::connect`].
    pub fn handshake(self, peer: &Endpoint) -> std::result::Result<Channel, (Self, Error)> {
        match self.channel.core.connect(0, peer) {
            Ok(()) => Ok(self.channel),
            Err(error) => Err((self, error)),
        }
    }

    /// Posts a receive on owned memory before the peer can send.
    ///
    /// # Errors
    /// As for [`Channel::submit_receive`].
    pub fn submit_receive(&self, held: impl Into<Held>) -> std::result::Result<Submitted, Rejected<Held>> {
        self.channel.submit_receive(held)
    }
}

/// One reliable connection. `Send`; operations take it mutably, so one thread at a time uses it; futures of submitted operations go where they like.
pub struct Channel {
    core: Arc<Core>,
    recipe: Recipe,
    /// Where results of atomics arrive; gone while one is out.
    scratch: Option<Buffer>,
}

impl Channel {
    /// How to make a channel in a domain.
    #[must_use]
    pub const fn builder(pd: &ProtectionDomain) -> ChannelBuilder<'_> {
        ChannelBuilder { pd, recipe: Recipe::DEFAULT }
    }

    /// The domain that its memory is of.
    #[must_use]
    pub fn protection_domain(&self) -> &ProtectionDomain {
        self.core.protection_domain()
    }

    /// How long an operation is waited for; `None`: for ever.
    pub const fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.recipe.deadline = deadline;
    }

    /// Does one operation, and waits for it.
    ///
    /// # Errors
    /// [`Error::Work`] when it failed, and [`Error::TimedOut`] when the deadline passed: the channel is broken then. [`Error::Broken`] when it was
    /// before; [`Error::Invalid`] for more than 8 elements. In every case the memory is free.
    pub fn run<'data>(&mut self, work: Work<'data>) -> Result<Done<'data>> {
        run(&self.core, 0, self.recipe.deadline, work)
    }

    /// Sends a message of these pieces and waits until the peer's device has it.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn send(&mut self, pieces: &[Gather<'_>]) -> Result<()> {
        self.run(Work::send(pieces)).map(drop)
    }

    /// Receives a message into a place.
    ///
    /// # Errors
    /// As for [`run`](Self::run); a message that is longer than the place breaks the channel on both sides.
    pub fn receive(&mut self, place: Scatter<'_>) -> Result<Success> {
        self.run(Work::receive(place)).map(|done| done.success)
    }

    /// Writes pieces to the beginning of a peer's memory.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn write(&mut self, pieces: &[Gather<'_>], remote: RemoteRegion) -> Result<()> {
        self.run(Work::write(pieces, remote)).map(drop)
    }

    /// Reads from the beginning of a peer's memory into a place.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn read(&mut self, place: Scatter<'_>, remote: RemoteRegion) -> Result<()> {
        self.run(Work::read(place, remote)).map(drop)
    }

    /// Adds to 8 bytes of a peer's memory, at a multiple of 8; answers what they were.
    ///
    /// # Errors
    /// As for [`run`](Self::run); [`Error::Unsupported`] where the device has no atomics.
    pub fn fetch_add(&mut self, remote: RemoteRegion, add: u64) -> Result<u64> {
        self.atomic(|place| Operation::fetch_add(place, remote, add))
    }

    /// Writes `swap` to 8 bytes of a peer's memory, at a multiple of 8, if they are `compare`; answers what they were.
    ///
    /// # Errors
    /// As for [`fetch_add`](Self::fetch_add).
    pub fn compare_swap(&mut self, remote: RemoteRegion, compare: u64, swap: u64) -> Result<u64> {
        self.atomic(|place| Operation::compare_swap(place, remote, compare, swap))
    }

    fn atomic(&mut self, operation: impl FnOnce(Buffer) -> Operation<Rc>) -> Result<u64> {
        // One that was cut short left its place with the device: then there is a new one.
        let place = match self.scratch.take() {
            Some(place) => place,
            None => self.protection_domain().adopt(Memory::zeroed(8)?)?,
        };
        let submitted = self.submit(operation(place)).map_err(|rejected| {
            self.scratch = rejected.operation.into_buffer();
            rejected.error
        })?;
        let after = self.recipe.deadline.unwrap_or(Duration::MAX);
        let finished = match submitted.wait(after) {
            Ok(finished) => finished,
            Err((submitted, error)) => {
                drop(submitted);
                self.core.cut(0, &error);
                return Err(error);
            }
        };
        let place = finished.held.into_buffer();
        let word = place
            .as_ref()
            .and_then(|place| place.first_chunk::<8>())
            .map_or(0, |word| u64::from_ne_bytes(*word));
        self.scratch = place;
        finished.result.map(|_| word)
    }

    /// Operations on memory that is borrowed until the call returns: posted as often as there is room, waited for one by one or not at all. What
    /// an operation borrowed comes back with its result, to be used again, as in a ring of buffers. The scope waits for what was not
    /// waited for, also when the closure fails or panics. See the [module](self) for what it answers.
    ///
    /// # Errors
    /// [`ScopeError`].
    pub fn scope<'env, T, E, F>(&mut self, f: F) -> std::result::Result<T, ScopeError<E>>
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> std::result::Result<T, E>,
    {
        run_scope(&self.core, self.recipe.deadline, false, f)
    }

    /// The same for programs that take every result themselves: one that was not taken is a fault of the program.
    ///
    /// # Errors
    /// [`ScopeError`].
    ///
    /// # Panics
    /// When a result was not taken, though all succeeded and the closure did.
    pub fn manual_scope<'env, T, E, F>(&mut self, f: F) -> std::result::Result<T, ScopeError<E>>
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> std::result::Result<T, E>,
    {
        run_scope(&self.core, self.recipe.deadline, true, f)
    }

    /// Starts an operation on owned memory.
    ///
    /// # Errors
    /// With the operation's memory: [`Error::Full`] when the queue, or the room for parked memory, is full; [`Error::Broken`]; [`Error::Invalid`] for
    /// memory of another domain.
    pub fn submit(&self, operation: Operation<Rc>) -> std::result::Result<Submitted, Rejected<Held>> {
        Submitted::send(&self.core, 0, operation)
    }

    /// Starts a receive on owned memory.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    pub fn submit_receive(&self, held: impl Into<Held>) -> std::result::Result<Submitted, Rejected<Held>> {
        Submitted::receive(&self.core, 0, held.into())
    }

    /// Makes progress for its futures, on any event loop.
    #[must_use]
    pub fn driver(&self) -> Driver {
        Driver::new(self.core.clone())
    }

    /// Bytes of owned memory that the device still has, and whose operations nobody waits for.
    #[must_use]
    pub fn parked_bytes(&self) -> usize {
        self.core.parked_bytes()
    }

    /// Why it is broken, if it is.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.core.broken(0)
    }

    /// Brings it back, to be connected anew: the endpoint that the peer needs is a new one. What is out ends as flushed.
    ///
    /// # Errors
    /// Itself with [`Error::Transition`] or [`Error::Call`] when the device refuses.
    pub fn reset(self) -> std::result::Result<PreparedChannel, (Self, Error)> {
        let recipe = self.recipe;
        let pd = self.protection_domain().clone();
        match self.core.reset(0, |tracker| recipe.make(&pd, tracker)) {
            Ok(()) => Ok(PreparedChannel { channel: self }),
            Err(error) => Err((self, error)),
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("broken", &self.broken()).finish_non_exhaustive()
    }
}
