//! What a transport promises before there is a connection: that it works here, where it can be reached, and memory that its lanes carry well.

use crate::{Capabilities, Cost, Event, Link, Locator, Poller, TransportError};
use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

/// Whether a transport works on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Availability {
    /// It does; the text says with what (kernel feature, library version).
    Usable(String),
    /// It does not; the error says why and what would help.
    Missing(TransportError),
}

/// From where connections are accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenScope {
    /// This user on this machine: sockets in a private directory, loopback addresses.
    ThisUser,
    /// Also from elsewhere: the engine has a domain secret or was told to be open.
    Anywhere,
    /// Nobody: the domain only dials.
    Nobody,
}

/// What a domain gets from its engine.
pub struct DomainContext {
    /// The engine's identity: unique, not secret.
    pub engine: [u8; 16],
    /// From where to accept.
    pub listen: ListenScope,
    /// Where to register descriptors.
    pub poller: Arc<Poller>,
    /// The domain's own `owner` number in poll keys.
    pub owner: u32,
}

/// How many lanes of a transport one session may have at the same time, beside each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneCount {
    /// As many as the engine makes whatever is measured; at least 1.
    pub min: usize,
    /// As many as it makes at most: between the two it adds one where measurements show that this carries more.
    pub max: usize,
}

impl Default for LaneCount {
    /// One.
    fn default() -> Self {
        Self { min: 1, max: 1 }
    }
}

/// A family of lanes: shared memory, TCP, a libfabric provider. Stateless but for its options.
pub trait Transport: Send + Sync {
    /// The name for people and for `SINEW_TRANSPORTS`: `shm`, `tcp`, `uds`.
    fn name(&self) -> &'static str;

    /// Tries the cheap prerequisites; never blocks for more than a few milliseconds.
    fn probe(&self) -> Availability;

    /// What its lanes can do and are expected to cost; a lane may say more precisely in [`LaneInfo`](crate::LaneInfo).
    fn expectation(&self) -> (Capabilities, Cost);

    /// How many lanes of it a session may have. The default is one.
    fn lanes_per_session(&self) -> LaneCount {
        LaneCount::default()
    }

    /// Makes the engine's share of this transport: listeners, pools, doorbells.
    ///
    /// # Errors
    /// Whatever the system refuses, with a hint.
    fn open(&self, context: DomainContext) -> Result<Box<dyn Domain>, TransportError>;
}

/// One engine's share of a transport. Dropping it closes listeners; its links and lanes may outlive it.
pub trait Domain: Send {
    /// Where peers can reach this engine, best first. May be empty.
    fn locators(&self) -> Vec<Locator>;

    /// Whether this transport understands the scheme.
    fn understands(&self, scheme: &str) -> bool;

    /// Starts a link; never blocks. `owner` is its number in poll keys.
    ///
    /// # Errors
    /// What is known at once: a bad address, no descriptor left, no route.
    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError>;

    /// A link that a peer started, or `None`. Called when the domain's descriptor was ready, until it answers `None`.
    /// `owner` is the number that the link will have if there is one.
    ///
    /// # Errors
    /// A lasting failure of the listener; the engine backs off and tells. A single bad connection is no error.
    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError>;

    /// Readiness of one of the domain's descriptors.
    fn handle_event(&mut self, _event: Event) {}

    /// Appends the owners of lanes that were cooled ([`Lane::cool`](crate::Lane::cool)) and have something now. Costs one memory read.
    fn poll_warm(&mut self, _owners: &mut Vec<u32>) {}

    /// Announces that the engine is about to sleep on the poller. After this call, whatever a memory-polled lane of the
    /// domain receives makes a descriptor ready, until [`Domain::disarm`]. Returns `false` if something is there already: do
    /// not sleep; it stays announced all the same, as another thread may be asleep. May be called again meanwhile.
    fn arm(&mut self) -> bool {
        true
    }

    /// Ends what [`Domain::arm`] began.
    fn disarm(&mut self) {}

    /// Memory of at least `len` bytes that lanes of this domain can describe to peers. `None`: this transport has none. It
    /// is the caller's alone.
    ///
    /// # Errors
    /// No memory, no descriptor: with a hint.
    fn allocate_segment(&mut self, _len: usize) -> Result<Option<Box<dyn Segment>>, TransportError> {
        Ok(None)
    }
}

/// Memory that a domain made for [`Buf`](crate::Buf)s: stays mapped and at its place until the last clone of the `Arc` is gone.
///
/// # Safety
/// The implementor answers for `data` and `len` as long as the segment lives: the same each time, readable, writable and
/// initialised, written by nobody but who holds the segment, and part of no other segment. Engines cut [`Buf`](crate::Buf)s out of it,
/// which safe code reads and writes as slices.
#[allow(unsafe_code)]
pub unsafe trait Segment: Send + Sync + Any {
    /// First byte; page-aligned.
    fn data(&self) -> NonNull<u8>;
    /// Length in bytes.
    fn len(&self) -> usize;
    /// Whether it has no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether a peer has been shown it: what is written to it from then on that peer can read.
    fn is_shown(&self) -> bool;
    /// The concrete segment, for the domain that made it.
    fn as_any(&self) -> &dyn Any;
}
