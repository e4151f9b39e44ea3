//! A rank of a job with its connections to all others: messages and memory by rank, and barriers.
//!
//! # Order of use
//! Read the [`NetworkConfig`](super::config::NetworkConfig), make an [`Exchange`], [`Node::builder`] → [`NodeBuilder::build`] →
//! [`PreparedNode::connect`] with the exchange (or [`PreparedNode::introductions`] and [`PreparedNode::handshake`] by other means) → [`Node`].

use super::barrier::{BarrierAlgorithm, BarrierError, Barriers, CellLayout, Cells, GroupError};
use super::exchange::{Exchange, ExchangeError};
use crate::channel::{Pending, Scope, ScopeError, Work, connection_options};
use crate::error::{Error, Result};
use crate::hub::Operation;
use crate::memory::{BufferPool, ExposedRegion, Memory, PageSize, RemoteAccess, RemoteRegion};
use crate::multi_channel::{MultiChannel, MultiChannelBuilder, PreparedMultiChannel};
use crate::pd::ProtectionDomain;
use crate::qp::Endpoint;
use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Notices that can be under way at once from one rank; beyond, a barrier asks again.
const NOTICES: usize = 64;

/// What one rank tells another before they are connected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Introduction {
    /// Where to connect to.
    pub endpoint: Endpoint,
    /// Where notices of barriers are written.
    pub cells: RemoteRegion,
}

impl Introduction {
    /// Length of [`Introduction::to_bytes`].
    pub const PACKED_LEN: usize = Endpoint::PACKED_LEN + RemoteRegion::PACKED_LEN;

    /// As bytes: the endpoint, then the region.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::PACKED_LEN] {
        let mut bytes = [0; Self::PACKED_LEN];
        bytes[..Endpoint::PACKED_LEN].copy_from_slice(&self.endpoint.to_bytes());
        bytes[Endpoint::PACKED_LEN..].copy_from_slice(&self.cells.to_bytes());
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`Error::Peer`] for what is no introduction.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let nonsense = || Error::Peer { cause: format!("{} bytes are no introduction", bytes.len()) };
        let (endpoint, rest) = bytes.split_first_chunk::<{ Endpoint::PACKED_LEN }>().ok_or_else(nonsense)?;
        let cells = <&[u8; RemoteRegion::PACKED_LEN]>::try_from(rest).map_err(|_| nonsense())?;
        Ok(Self { endpoint: Endpoint::from_bytes(endpoint)?, cells: RemoteRegion::from_bytes(cells)? })
    }
}

/// How to make a node.
#[derive(Clone, Copy, Debug)]
pub struct NodeBuilder<'a> {
    pd: &'a ProtectionDomain,
    rank: u32,
    channels: MultiChannelBuilder<'a>,
    algorithm: BarrierAlgorithm,
    layout: CellLayout,
}

impl NodeBuilder<'_> {
    #[cfg(test)]
    pub(crate) const fn recipe(&self) -> &crate::channel::Recipe {
        &self.channels.recipe
    }

    connection_options!(channels.recipe);

    /// How ranks hear of each other in a barrier; a tree by default. The same on all ranks.
    #[must_use]
    pub const fn barrier_algorithm(mut self, algorithm: BarrierAlgorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Different groups that two ranks may use together for barriers; 64 by default. The same on all ranks.
    #[must_use]
    pub const fn groups_max(mut self, groups: usize) -> Self {
        self.layout.groups_max = groups;
        self
    }

    /// Makes it, not yet connected.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a rank that the job does not have, or too many groups; otherwise as for channels.
    pub fn build(self) -> Result<PreparedNode> {
        let invalid = |error: GroupError| Error::invalid("node", error.to_string(), "take what the job has");
        let cells = self.layout.len_bytes().ok_or_else(|| {
            Error::invalid(
                "node",
                format!("{:?} needs more memory than there is", self.layout),
                "take fewer groups",
            )
        })?;
        // First of all: a job of more ranks than there is memory for ends here.
        let cells = Memory::pages(cells, PageSize::Normal)?;
        let barriers = Barriers::new(self.rank, self.algorithm, self.layout).map_err(invalid)?;
        let cells = self.pd.expose(cells, RemoteAccess::WRITE)?;
        let access = self.channels.recipe.remote_access | RemoteAccess::WRITE;
        let channels = self.channels.remote_access(access).build()?;
        let notices = self.pd.pool(NOTICES, 8)?;
        Ok(PreparedNode { rank: self.rank, channels, cells, notices, barriers })
    }
}

/// A node that is not connected.
#[derive(Debug)]
pub struct PreparedNode {
    rank: u32,
    channels: PreparedMultiChannel,
    cells: ExposedRegion,
    notices: BufferPool,
    barriers: Barriers,
}

/// Why the ranks of a job did not come together.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetworkError {
    /// They did not hear of each other.
    Exchange(ExchangeError),
    /// The connection to a rank was not made.
    Connect {
        /// To which.
        rank: u32,
        /// Why.
        error: Error,
    },
    /// The exchange is of another job or rank than the node.
    Mismatch {
        /// In what.
        cause: String,
    },
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(error) => error.fmt(f),
            Self::Connect { rank, error } => write!(f, "the connection to rank {rank}: {error}"),
            Self::Mismatch { cause } => write!(f, "{cause}; give node and exchange the same configuration"),
        }
    }
}

impl std::error::Error for NetworkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Exchange(error) => Some(error),
            Self::Connect { error, .. } => Some(error),
            Self::Mismatch { .. } => None,
        }
    }
}

impl PreparedNode {
    /// What each rank needs to know, by rank; nothing for this one.
    ///
    /// # Errors
    /// [`Error::Call`] when a port cannot be asked.
    pub fn introductions(&self) -> Result<Vec<Option<Introduction>>> {
        let endpoints = self.channels.endpoints_by_peer()?;
        let cells = self.cells.remote();
        Ok(endpoints
            .into_iter()
            .map(|endpoint| endpoint.map(|endpoint| Introduction { endpoint, cells }))
            .collect())
    }

    /// Tells and hears all by an exchange, and connects. Blocks until all ranks have called it, or the exchange's deadline is over. When it
    /// returns, all ranks can be sent to.
    ///
    /// # Errors
    /// [`NetworkError`], which names the rank.
    pub fn connect(self, exchange: &mut impl Exchange) -> std::result::Result<Node, NetworkError> {
        let peers = self.barriers.layout().world_size;
        if exchange.rank() != self.rank || exchange.world_size() != peers {
            return Err(NetworkError::Mismatch {
                cause: format!(
                    "the node is rank {} of {peers}, the exchange rank {} of {}",
                    self.rank,
                    exchange.rank(),
                    exchange.world_size()
                ),
            });
        }
        let own = self.introductions().map_err(|error| NetworkError::Connect { rank: self.rank, error })?;
        let given = own.iter().map(|own| own.map_or_else(Vec::new, |own| own.to_bytes().to_vec())).collect();
        let received = exchange.exchange_bytes(given).map_err(NetworkError::Exchange)?;
        let mut introductions = Vec::new();
        for (rank, bytes) in (0..).zip(received) {
            let of_rank = |error| NetworkError::Connect { rank, error };
            introductions.push(if rank == self.rank {
                None
            } else {
                Some(Introduction::from_bytes(&bytes).map_err(of_rank)?)
            });
        }
        let node = self.handshake(&introductions).map_err(|(_, error)| error)?;
        // Nobody sends before all are connected: what came earlier would be sent again by the device, but why begin like that.
        exchange.exchange_bytes(vec![Vec::new(); peers as usize]).map_err(NetworkError::Exchange)?;
        Ok(node)
    }

    /// Connects to the ranks that introduced themselves so, by rank; nothing for this one.
    ///
    /// # Errors
    /// Itself, with [`NetworkError`].
    pub fn handshake(
        self,
        introductions: &[Option<Introduction>],
    ) -> std::result::Result<Node, (Box<Self>, NetworkError)> {
        let peers = self.barriers.layout().world_size;
        let missing = (0..peers).find(|rank| {
            *rank != self.rank
                && introductions.get(*rank as usize).is_none_or(|introduction| introduction.is_none())
        });
        if introductions.len() != peers as usize || missing.is_some() {
            let cause = match missing {
                Some(rank) => format!("rank {rank} has not introduced itself"),
                None => format!("{} introductions for {peers} ranks", introductions.len()),
            };
            return Err((Box::new(self), NetworkError::Mismatch { cause }));
        }
        let endpoints: Vec<_> = introductions.iter().map(|of| of.map(|of| of.endpoint)).collect();
        let Self { rank, channels, cells, notices, barriers } = self;
        let channels = match channels.handshake_by_peer(&endpoints) {
            Ok(channels) => channels,
            Err((channels, failed, error)) => {
                let this = Self { rank, channels, cells, notices, barriers };
                return Err((Box::new(this), NetworkError::Connect { rank: failed, error }));
            }
        };
        let remote = introductions.iter().map(|of| of.map(|of| of.cells)).collect();
        // Fields are dropped in order: queue pairs before the memory that peers write through them.
        Ok(Node { channels, rank, bindings: Bindings { cells, remote, notices }, barriers })
    }
}

/// A rank with its connections to all others. Peers are ranks: what [`MultiChannel`] does is here too, and what it answers by `Deref`; this rank itself
/// has no connection.
pub struct Node {
    channels: MultiChannel,
    rank: u32,
    bindings: Bindings,
    barriers: Barriers,
}

/// Where operations with ranks are posted on memory borrowed for `'env`, and barriers are entered; see [`Node::scope`].
pub struct NodeScope<'node, 'scope, 'env: 'scope> {
    scope: &'scope Scope<'scope, 'env>,
    barriers: RefCell<(&'node mut Barriers, Bound<'node>)>,
}

impl<'scope, 'env> NodeScope<'_, 'scope, 'env> {
    /// Posts an operation with a rank.
    ///
    /// # Errors
    /// As for [`Scope::post_to`].
    pub fn post_to(&self, rank: u32, work: Work<'env>) -> Result<Pending<'scope, 'env>> {
        self.scope.post_to(rank, work)
    }

    /// Waits until all of these ranks have called it, as [`Node::barrier`]. What was posted goes on meanwhile.
    ///
    /// # Errors
    /// As for [`Node::barrier`].
    pub fn barrier(&self, ranks: &[u32], timeout: Duration) -> std::result::Result<u64, BarrierError<Error>> {
        let (barriers, cells) = &mut *self.barriers.borrow_mut();
        barriers.run(ranks, timeout, cells)
    }

    /// The same for all ranks.
    ///
    /// # Errors
    /// As for [`Node::barrier`].
    pub fn barrier_all(&self, timeout: Duration) -> std::result::Result<u64, BarrierError<Error>> {
        let world_size = self.barriers.borrow().0.layout().world_size;
        self.barrier(&(0..world_size).collect::<Vec<_>>(), timeout)
    }
}

impl fmt::Debug for NodeScope<'_, '_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeScope({:?})", self.scope)
    }
}

/// Where notices come and go.
struct Bindings {
    cells: ExposedRegion,
    remote: Vec<Option<RemoteRegion>>,
    notices: BufferPool,
}

impl Node {
    /// How to make rank `rank` of a job of `world_size`, in a domain.
    #[must_use]
    pub const fn builder(pd: &ProtectionDomain, rank: u32, world_size: u32) -> NodeBuilder<'_> {
        NodeBuilder {
            pd,
            rank,
            channels: MultiChannel::builder(pd, world_size).without(rank),
            algorithm: BarrierAlgorithm::BinaryTree,
            layout: CellLayout { world_size, groups_max: 64 },
        }
    }

    /// Within the module: channels are not exchanged.
    pub(super) const fn channels_mut(&mut self) -> &mut MultiChannel {
        &mut self.channels
    }

    /// This rank.
    #[must_use]
    pub const fn rank(&self) -> u32 {
        self.rank
    }

    /// How many ranks there are.
    #[must_use]
    pub fn world_size(&self) -> u32 {
        self.peers()
    }

    /// Waits until all of these ranks (strictly ascending, this one among them) have called it, at most so long. Answers the group's count of
    /// barriers, from 1. What a rank wrote to this one's memory before it called is seen afterwards.
    ///
    /// # Errors
    /// [`BarrierError`]; after a timeout or a failed connection the barrier is entered still, and calling again goes on with it.
    pub fn barrier(
        &mut self,
        ranks: &[u32],
        timeout: Duration,
    ) -> std::result::Result<u64, BarrierError<Error>> {
        let mut cells = Bound {
            rank: self.rank,
            layout: self.barriers.layout(),
            channels: &self.channels,
            bindings: &self.bindings,
        };
        self.barriers.run(ranks, timeout, &mut cells)
    }

    /// The same for all ranks.
    ///
    /// # Errors
    /// As for [`barrier`](Self::barrier).
    pub fn barrier_all(&mut self, timeout: Duration) -> std::result::Result<u64, BarrierError<Error>> {
        let all: Vec<u32> = (0..self.world_size()).collect();
        self.barrier(&all, timeout)
    }

    /// Operations with ranks on memory that is borrowed until the call returns, as [`MultiChannel::scope`]; barriers can be entered meanwhile.
    ///
    /// # Errors
    /// [`ScopeError`].
    pub fn scope<'env, T, E, F>(&mut self, f: F) -> std::result::Result<T, ScopeError<E>>
    where
        F: for<'node, 'scope> FnOnce(&NodeScope<'node, 'scope, 'env>) -> std::result::Result<T, E>,
    {
        self.scoped(false, f)
    }

    /// The same for programs that take every result themselves.
    ///
    /// # Errors
    /// [`ScopeError`].
    ///
    /// # Panics
    /// When a result was not taken, though all succeeded and the closure did.
    pub fn manual_scope<'env, T, E, F>(&mut self, f: F) -> std::result::Result<T, ScopeError<E>>
    where
        F: for<'node, 'scope> FnOnce(&NodeScope<'node, 'scope, 'env>) -> std::result::Result<T, E>,
    {
        self.scoped(true, f)
    }

    fn scoped<'env, T, E, F>(&mut self, manual: bool, f: F) -> std::result::Result<T, ScopeError<E>>
    where
        F: for<'node, 'scope> FnOnce(&NodeScope<'node, 'scope, 'env>) -> std::result::Result<T, E>,
    {
        let Self { channels, rank, bindings, barriers } = self;
        let cells = Bound { rank: *rank, layout: barriers.layout(), channels, bindings };
        channels.scoped(manual, |scope| f(&NodeScope { scope, barriers: RefCell::new((barriers, cells)) }))
    }

    /// Connects anew to a rank whose connection was reset, and tells it again what it may have missed of barriers.
    ///
    /// # Errors
    /// As for [`MultiChannel::connect`]; [`Error::Full`] when not all could be told: call the barrier again.
    pub fn reconnect(&mut self, rank: u32, introduction: &Introduction) -> Result<()> {
        self.channels.connect(rank, &introduction.endpoint)?;
        if let Some(remote) = self.bindings.remote.get_mut(rank as usize) {
            *remote = Some(introduction.cells);
        }
        let mut cells = Bound {
            rank: self.rank,
            layout: self.barriers.layout(),
            channels: &self.channels,
            bindings: &self.bindings,
        };
        for (place, notice) in self.barriers.told_to(rank) {
            if !cells.try_notify(rank, place, notice.value())? {
                return Err(Error::Full { queue: "room for notices of barriers", depth: NOTICES as u32 });
            }
        }
        Ok(())
    }

    /// What a rank needs to know to connect anew, after [`reset`](Self::reset) has said the endpoint.
    #[must_use]
    pub fn introduction(&self, endpoint: Endpoint) -> Introduction {
        Introduction { endpoint, cells: self.bindings.cells.remote() }
    }
}

impl Deref for Node {
    type Target = MultiChannel;

    fn deref(&self) -> &MultiChannel {
        &self.channels
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({} of {})", self.rank, self.world_size())
    }
}

/// Cells over one-sided writes.
struct Bound<'a> {
    rank: u32,
    layout: CellLayout,
    channels: &'a MultiChannel,
    bindings: &'a Bindings,
}

impl Cells for Bound<'_> {
    type Error = Error;

    fn try_notify(&mut self, rank: u32, place: usize, value: u64) -> Result<bool> {
        let offset = self.layout.offset_bytes(self.rank, place);
        let remote = self.bindings.remote.get(rank as usize).copied().flatten();
        let cell = offset.zip(remote).and_then(|(offset, remote)| remote.slice(offset as u64, 8));
        let cell =
            cell.ok_or_else(|| Error::Peer { cause: format!("rank {rank} has no cell at {place}") })?;
        // All of them are under way: they come back when the device is done.
        self.channels.driver().progress()?;
        let Some(mut notice) = self.bindings.notices.take() else { return Ok(false) };
        notice.copy_from_slice(&value.to_ne_bytes());
        match self.channels.submit(rank, Operation::write(notice, cell)) {
            // Nobody waits for it: one that fails breaks the connection, which the barrier sees.
            Ok(submitted) => {
                drop(submitted);
                Ok(true)
            }
            Err(rejected) if matches!(rejected.error, Error::Full { .. }) => Ok(false),
            Err(rejected) => Err(rejected.error),
        }
    }

    fn load(&self, rank: u32, place: usize) -> u64 {
        let offset = self.layout.offset_bytes(rank, place);
        offset.and_then(|offset| self.bindings.cells.load(offset, Ordering::Acquire).ok()).unwrap_or(0)
    }

    fn pause(&mut self, rank: u32) -> Result<()> {
        self.channels.driver().progress()?;
        if let Some(cause) = self.channels.broken(rank) {
            return Err(Error::Broken { cause });
        }
        std::thread::yield_now();
        Ok(())
    }
}
