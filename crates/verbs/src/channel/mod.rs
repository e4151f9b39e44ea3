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
//! What `scope` and `manual_scope` answer, by what happened, and the test in `tests/scope_matrix.rs` that shows it of both:
//!
//! | at the end of the closure | `scope` | `manual_scope` | test |
//! |---|---|---|---|
//! | `Ok`, every result taken | `Ok` | `Ok` | `every_result_was_taken` |
//! | `Ok`, a failed result was taken and ignored | `Ok` | `Ok` | `a_failed_result_was_taken_and_ignored` |
//! | `Ok`, results not taken, all succeed | waits, `Ok` | waits, panics: the program broke its word | `results_that_were_not_taken_succeed` |
//! | `Ok`, a result not taken, it failed | waits, [`ScopeError::Failed`] | the same: no error is lost to a panic | `a_result_that_was_not_taken_failed` |
//! | `Err` | waits, [`ScopeError::Closure`] with what failed besides | the same | `the_closure_failed` |
//! | panic | waits, goes on with the panic | the same | `the_closure_panicked` |
//! | what is out does not end by the deadline | cut short, [`ScopeError::Failed`] or `Closure` says so | the same | `what_is_out_does_not_end_by_the_deadline` |
//! | the device fails to poll | cut short, the same; nothing is given back that the device may touch | the same | `the_device_fails_to_poll` |

mod asynchronous;
mod claims;
mod core;
mod pending;
mod recipe;
mod scope;
mod state;
mod window;
mod work;

pub use self::asynchronous::{Driver, Finished, Submitted};
pub(crate) use self::core::Core;
pub use self::pending::PendingWork;
pub(crate) use self::pending::run;
pub use self::recipe::DEADLINE;
pub(crate) use self::recipe::{Recipe, connection_options};
pub(crate) use self::scope::run as run_scope;
pub use self::scope::{Pending, Scope, ScopeError};
pub use self::work::{Done, Pieces, Places, Work};
use crate::error::{Error, Result};
use crate::hub::{Held, Operation, Rejected, Success};
use crate::memory::{Buffer, Gather, Memory, RemoteRegion, Scatter};
use crate::pd::ProtectionDomain;
use crate::qp::{Endpoint, Rc};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How to make a channel. Every option has a default that works.
#[derive(Clone, Copy, Debug)]
pub struct ChannelBuilder<'a> {
    pd: &'a ProtectionDomain,
    recipe: Recipe,
}

impl ChannelBuilder<'_> {
    connection_options!(recipe);

    /// Makes it, not yet connected.
    ///
    /// # Errors
    /// As for a queue pair ([`QueuePairBuilder::build`](crate::qp::QueuePairBuilder::build)) and a completion queue.
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
    /// Itself with [`Error::Peer`] or [`Error::Transition`]; see [`PreparedQueuePair::connect`](crate::qp::PreparedQueuePair::connect).
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
///
/// Its queue pair ends with the last of the channel, what was submitted, and what is unpolled, on whichever thread; memory that was submitted goes
/// afterwards. Dropping a channel does not wait.
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
