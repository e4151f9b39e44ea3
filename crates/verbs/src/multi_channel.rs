//! Reliable connections to several peers, by index: one domain, one completion queue, one table of operations.
//!
//! # Order of use
//! [`MultiChannel::builder`] → [`PreparedMultiChannel::endpoints`], one for each peer, given to it by any means →
//! [`PreparedMultiChannel::handshake`] with theirs, in the same order → [`MultiChannel`].
//!
//! Everything that [`Channel`](crate::Channel) says of memory, deadlines and scopes holds here for each peer by itself: a peer that is cut short
//! is broken, the others are not. Operations with many peers answer for each of them: one that fails hides nothing of the others.

use crate::channel::connection_options;
use crate::channel::{
    Core, DEADLINE, Done, Driver, Pieces, Places, Recipe, Scope, ScopeError, Submitted, Work,
};
use crate::error::{Error, Result};
use crate::hub::{Held, Operation, Rejected};
use crate::memory::RemoteRegion;
use crate::pd::ProtectionDomain;
use crate::qp::{Endpoint, Rc};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Memory of one of the peers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PeerRegion {
    /// Whose, from 0.
    pub peer: u32,
    /// Where.
    pub region: RemoteRegion,
}

impl PeerRegion {
    /// `len` bytes from `offset` on, or nothing where the region does not enclose them.
    #[must_use]
    pub fn slice(&self, offset: u64, len: u64) -> Option<Self> {
        Some(Self { peer: self.peer, region: self.region.slice(offset, len)? })
    }
}

/// How to make channels to several peers.
#[derive(Clone, Copy, Debug)]
pub struct MultiChannelBuilder<'a> {
    pd: &'a ProtectionDomain,
    peers: u32,
    without: Option<u32>,
    pub(crate) recipe: Recipe,
}

impl MultiChannelBuilder<'_> {
    /// No connection to this one: it is the caller itself.
    #[cfg(feature = "network")]
    pub(crate) const fn without(mut self, peer: u32) -> Self {
        self.without = Some(peer);
        self
    }

    connection_options!(recipe);

    /// Makes them, not yet connected.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no peers, or more requests than a completion queue has; otherwise as for a channel.
    pub fn build(self) -> Result<PreparedMultiChannel> {
        let core = self.recipe.build(self.pd, self.peers, self.without)?;
        let connected = vec![None; self.peers as usize];
        Ok(PreparedMultiChannel { channels: MultiChannel { core, recipe: self.recipe }, connected })
    }
}

/// Channels that are not connected, or not all of them.
#[derive(Debug)]
pub struct PreparedMultiChannel {
    channels: MultiChannel,
    /// To which endpoint each is connected already.
    connected: Vec<Option<Endpoint>>,
}

impl PreparedMultiChannel {
    /// What each peer needs to know, in the order of peers.
    ///
    /// # Errors
    /// [`Error::Call`] when a port cannot be asked.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        Ok(self.endpoints_by_peer()?.into_iter().flatten().collect())
    }

    /// The same, with nothing for the peer without a connection.
    pub(crate) fn endpoints_by_peer(&self) -> Result<Vec<Option<Endpoint>>> {
        let core = &self.channels.core;
        (0..core.peers()).map(|peer| core.has(peer).then(|| core.endpoint(peer)).transpose()).collect()
    }

    /// Connects to the peers whose endpoints these are, in order.
    ///
    /// Where one cannot be connected to, those before it stay connected: a second call goes on with the one that failed, and with those behind it.
    ///
    /// # Errors
    /// Itself with [`Error::Invalid`] when there are more or fewer endpoints than peers (nothing was connected then); with [`Error::Peer`] or
    /// [`Error::Transition`] for the first that cannot be connected to; with [`Error::Invalid`] for a peer that is connected already, to another endpoint than
    /// this one ([`reset`](Self::reset)).
    pub fn handshake(self, endpoints: &[Endpoint]) -> std::result::Result<MultiChannel, (Self, Error)> {
        let peers = self.channels.peers();
        if endpoints.len() != peers as usize {
            let cause = format!("{} endpoints for {peers} peers", endpoints.len());
            return Err((self, Error::invalid("handshake", cause, "give one for each peer, in order")));
        }
        let endpoints: Vec<_> = endpoints.iter().copied().map(Some).collect();
        self.handshake_by_peer(&endpoints).map_err(|(this, _, error)| (this, error))
    }

    /// The same, with nothing for the peer without a connection; which peer failed.
    pub(crate) fn handshake_by_peer(
        mut self,
        endpoints: &[Option<Endpoint>],
    ) -> std::result::Result<MultiChannel, (Self, u32, Error)> {
        for (peer, endpoint) in (0..).zip(endpoints) {
            if let Some(endpoint) = endpoint
                && let Err(error) = self.connect(peer, endpoint)
            {
                return Err((self, peer, error));
            }
        }
        Ok(self.channels)
    }

    fn connect(&mut self, peer: u32, endpoint: &Endpoint) -> Result<()> {
        let Some(connected) = self.connected.get_mut(peer as usize) else {
            return self.channels.core.connect(peer, endpoint);
        };
        match connected {
            Some(to) if to == endpoint => return Ok(()),
            Some(to) => {
                return Err(Error::invalid(
                    "handshake",
                    format!("peer {peer} is connected to queue pair {} already", to.qp_num),
                    "give the same endpoint as before, or reset that peer and tell it the new one of this side",
                ));
            }
            None => self.channels.core.connect(peer, endpoint)?,
        }
        *connected = Some(*endpoint);
        Ok(())
    }

    /// Whether a handshake that failed later has connected that peer.
    #[must_use]
    pub fn is_connected(&self, peer: u32) -> bool {
        self.connected.get(peer as usize).is_some_and(Option::is_some)
    }

    /// Takes one peer's connection back, as far as it came: it can be connected to any endpoint then. Says the endpoint that the peer needs now; what it was
    /// told before is of no use. Receives that were posted for the peer end as flushed.
    ///
    /// # Errors
    /// As for [`MultiChannel::reset`]. The peer counts as not connected then, as nobody knows how far it came: reset it again.
    pub fn reset(&mut self, peer: u32) -> Result<Endpoint> {
        if let Some(connected) = self.connected.get_mut(peer as usize) {
            *connected = None;
        }
        self.channels.reset(peer)
    }

    /// Posts a receive on owned memory before the peer can send.
    ///
    /// # Errors
    /// As for [`MultiChannel::submit_receive`].
    pub fn submit_receive(
        &self,
        peer: u32,
        held: impl Into<Held>,
    ) -> std::result::Result<Submitted, Rejected<Held>> {
        self.channels.submit_receive(peer, held)
    }
}

/// Reliable connections to several peers. `Send`; operations take it mutably. It ends as a [`Channel`](crate::Channel) does.
pub struct MultiChannel {
    core: Arc<Core>,
    recipe: Recipe,
}

impl MultiChannel {
    /// How to make channels to so many peers in a domain.
    #[must_use]
    pub const fn builder(pd: &ProtectionDomain, peers: u32) -> MultiChannelBuilder<'_> {
        MultiChannelBuilder { pd, peers, without: None, recipe: Recipe::DEFAULT }
    }

    /// How many peers.
    #[must_use]
    pub fn peers(&self) -> u32 {
        self.core.peers()
    }

    /// The domain that its memory is of.
    #[must_use]
    pub fn protection_domain(&self) -> &ProtectionDomain {
        self.core.protection_domain()
    }

    pub(crate) const fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) const fn deadline(&self) -> Option<Duration> {
        self.recipe.deadline
    }

    /// How long an operation is waited for; `None`: for ever.
    pub const fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.recipe.deadline = deadline;
    }

    /// Does one operation with a peer, and waits for it.
    ///
    /// # Errors
    /// As for [`Channel::run`](crate::Channel::run); [`Error::Invalid`] for a peer that there is not.
    pub fn run<'data>(&mut self, peer: u32, work: Work<'data>) -> Result<Done<'data>> {
        crate::channel::run(&self.core, peer, self.recipe.deadline, work)
    }

    /// Sends a message to a peer.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn send<'data>(&mut self, peer: u32, pieces: impl Into<Pieces<'data>>) -> Result<()> {
        self.run(peer, Work::send(pieces)).map(drop)
    }

    /// Receives a message from a peer.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn receive<'data>(&mut self, peer: u32, places: impl Into<Places<'data>>) -> Result<Done<'data>> {
        self.run(peer, Work::receive(places))
    }

    /// Writes to the beginning of a peer's memory.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn write<'data>(&mut self, pieces: impl Into<Pieces<'data>>, remote: PeerRegion) -> Result<()> {
        self.run(remote.peer, Work::write(pieces, remote.region)).map(drop)
    }

    /// Reads from the beginning of a peer's memory.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn read<'data>(&mut self, places: impl Into<Places<'data>>, remote: PeerRegion) -> Result<()> {
        self.run(remote.peer, Work::read(places, remote.region)).map(drop)
    }

    /// Does an operation with each of several peers: all are posted, then all waited for. The answers are in the order of the operations, one each:
    /// a peer that fails hides nothing of the others. A peer may be named several times.
    ///
    /// The deadline is for each wait. An operation that cannot be posted is answered with its reason.
    pub fn run_all<'data>(
        &mut self,
        works: impl IntoIterator<Item = (u32, Work<'data>)>,
    ) -> Vec<Result<Done<'data>>> {
        let answer = self.scope(|scope| {
            let pending: Vec<_> = works.into_iter().map(|(peer, work)| scope.post_to(peer, work)).collect();
            Ok::<_, Error>(
                pending.into_iter().map(|pending| pending.and_then(|pending| pending.wait())).collect(),
            )
        });
        // Every operation was waited for, so the scope has nothing to tell besides.
        answer.unwrap_or_default()
    }

    /// Sends to several peers, each its message.
    pub fn scatter_send<'data>(
        &mut self,
        messages: impl IntoIterator<Item = (u32, Pieces<'data>)>,
    ) -> Vec<Result<Done<'data>>> {
        self.run_all(messages.into_iter().map(|(peer, pieces)| (peer, Work::send(pieces))))
    }

    /// Writes to memory of several peers.
    pub fn scatter_write<'data>(
        &mut self,
        writes: impl IntoIterator<Item = (PeerRegion, Pieces<'data>)>,
    ) -> Vec<Result<Done<'data>>> {
        self.run_all(
            writes.into_iter().map(|(remote, pieces)| (remote.peer, Work::write(pieces, remote.region))),
        )
    }

    /// Receives a message from each of several peers.
    pub fn gather_receive<'data>(
        &mut self,
        places: impl IntoIterator<Item = (u32, Places<'data>)>,
    ) -> Vec<Result<Done<'data>>> {
        self.run_all(places.into_iter().map(|(peer, places)| (peer, Work::receive(places))))
    }

    /// Reads memory of several peers.
    pub fn gather_read<'data>(
        &mut self,
        reads: impl IntoIterator<Item = (PeerRegion, Places<'data>)>,
    ) -> Vec<Result<Done<'data>>> {
        self.run_all(
            reads.into_iter().map(|(remote, places)| (remote.peer, Work::read(places, remote.region))),
        )
    }

    /// Sends the same message to several peers, one by one: this is no multicast of the network's.
    pub fn multicast_send<'data>(
        &mut self,
        peers: impl IntoIterator<Item = u32>,
        pieces: impl Into<Pieces<'data>>,
    ) -> Vec<Result<Done<'data>>> {
        let pieces = pieces.into();
        self.run_all(peers.into_iter().map(|peer| (peer, Work::send(pieces))))
    }

    /// Operations on memory that is borrowed until the call returns, posted by [`Scope::post_to`]; see [`Channel::scope`](crate::Channel::scope).
    ///
    /// # Errors
    /// [`ScopeError`].
    pub fn scope<'env, T, E, F>(&mut self, f: F) -> std::result::Result<T, ScopeError<E>>
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> std::result::Result<T, E>,
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
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> std::result::Result<T, E>,
    {
        self.scoped(true, f)
    }

    /// A scope beside which operations on owned memory are submitted.
    pub(crate) fn scoped<'env, T, E, F>(&self, manual: bool, f: F) -> std::result::Result<T, ScopeError<E>>
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> std::result::Result<T, E>,
    {
        crate::channel::run_scope(&self.core, self.recipe.deadline, manual, f)
    }

    /// Starts an operation on owned memory with a peer.
    ///
    /// # Errors
    /// As for [`Channel::submit`](crate::Channel::submit).
    pub fn submit(
        &self,
        peer: u32,
        operation: Operation<Rc>,
    ) -> std::result::Result<Submitted, Rejected<Held>> {
        Submitted::send(&self.core, peer, operation)
    }

    /// Starts a receive on owned memory from a peer.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    pub fn submit_receive(
        &self,
        peer: u32,
        held: impl Into<Held>,
    ) -> std::result::Result<Submitted, Rejected<Held>> {
        Submitted::receive(&self.core, peer, held.into())
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

    /// Why a peer is broken, if it is.
    #[must_use]
    pub fn broken(&self, peer: u32) -> Option<String> {
        self.core.broken(peer)
    }

    /// Brings one peer's connection back to be connected anew, and says the endpoint that the peer needs now. Others are not touched. What is out with it ends
    /// as flushed.
    ///
    /// # Errors
    /// [`Error::Transition`] or [`Error::Call`] when the device refuses; [`Error::Invalid`] for a peer that there is not.
    pub fn reset(&mut self, peer: u32) -> Result<Endpoint> {
        let (recipe, pd) = (self.recipe, self.protection_domain().clone());
        self.core.reset(peer, |tracker| recipe.make(&pd, tracker))?;
        self.core.endpoint(peer)
    }

    /// Connects one peer after a [`reset`](Self::reset).
    ///
    /// # Errors
    /// As for [`PreparedMultiChannel::handshake`].
    pub fn connect(&mut self, peer: u32, endpoint: &Endpoint) -> Result<()> {
        self.core.connect(peer, endpoint)
    }
}

impl fmt::Debug for MultiChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MultiChannel({} peers, deadline {:?})",
            self.peers(),
            self.recipe.deadline.unwrap_or(DEADLINE)
        )
    }
}
