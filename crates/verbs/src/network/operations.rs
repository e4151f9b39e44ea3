//! What a rank does with the others: the operations of [`MultiChannel`](crate::MultiChannel), by rank.
//!
//! Each is passed on. The channels themselves are lent only to be asked: a program that had them mutably could exchange them for those of another
//! node, and the barriers would write through the wrong ones.

use super::node::Node;
use crate::channel::{Done, Pieces, Places, Work};
use crate::error::Result;
use crate::multi_channel::PeerRegion;
use crate::qp::Endpoint;
use std::time::Duration;

impl Node {
    /// How long an operation is waited for; `None`: for ever.
    pub const fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.channels_mut().set_deadline(deadline);
    }

    /// Does one operation with a rank, and waits for it.
    ///
    /// # Errors
    /// As for [`Channel::run`](crate::Channel::run); [`Error::Invalid`](crate::Error::Invalid) for a rank that there is not, and for this one.
    pub fn run<'data>(&mut self, rank: u32, work: Work<'data>) -> Result<Done<'data>> {
        self.channels_mut().run(rank, work)
    }

    /// Sends a message to a rank.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn send<'data>(&mut self, rank: u32, pieces: impl Into<Pieces<'data>>) -> Result<()> {
        self.channels_mut().send(rank, pieces)
    }

    /// Receives a message from a rank.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn receive<'data>(&mut self, rank: u32, places: impl Into<Places<'data>>) -> Result<Done<'data>> {
        self.channels_mut().receive(rank, places)
    }

    /// Writes to the beginning of a rank's memory.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn write<'data>(&mut self, pieces: impl Into<Pieces<'data>>, remote: PeerRegion) -> Result<()> {
        self.channels_mut().write(pieces, remote)
    }

    /// Reads from the beginning of a rank's memory.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn read<'data>(&mut self, places: impl Into<Places<'data>>, remote: PeerRegion) -> Result<()> {
        self.channels_mut().read(places, remote)
    }

    /// Does an operation with each of several ranks; as [`MultiChannel::run_all`](crate::MultiChannel::run_all).
    pub fn run_all<'data>(
        &mut self,
        works: impl IntoIterator<Item = (u32, Work<'data>)>,
    ) -> Vec<Result<Done<'data>>> {
        self.channels_mut().run_all(works)
    }

    /// Sends to several ranks, each its message.
    pub fn scatter_send<'data>(
        &mut self,
        messages: impl IntoIterator<Item = (u32, Pieces<'data>)>,
    ) -> Vec<Result<Done<'data>>> {
        self.channels_mut().scatter_send(messages)
    }

    /// Writes to memory of several ranks.
    pub fn scatter_write<'data>(
        &mut self,
        writes: impl IntoIterator<Item = (PeerRegion, Pieces<'data>)>,
    ) -> Vec<Result<Done<'data>>> {
        self.channels_mut().scatter_write(writes)
    }

    /// Receives a message from each of several ranks.
    pub fn gather_receive<'data>(
        &mut self,
        places: impl IntoIterator<Item = (u32, Places<'data>)>,
    ) -> Vec<Result<Done<'data>>> {
        self.channels_mut().gather_receive(places)
    }

    /// Reads memory of several ranks.
    pub fn gather_read<'data>(
        &mut self,
        reads: impl IntoIterator<Item = (PeerRegion, Places<'data>)>,
    ) -> Vec<Result<Done<'data>>> {
        self.channels_mut().gather_read(reads)
    }

    /// Sends the same message to several ranks, one by one.
    pub fn multicast_send<'data>(
        &mut self,
        ranks: impl IntoIterator<Item = u32>,
        pieces: impl Into<Pieces<'data>>,
    ) -> Vec<Result<Done<'data>>> {
        self.channels_mut().multicast_send(ranks, pieces)
    }

    /// Brings one rank's connection back to be connected anew ([`reconnect`](Self::reconnect)), and says the endpoint that the rank needs now. Others are
    /// not touched. What is out with it ends as flushed.
    ///
    /// # Errors
    /// As for [`MultiChannel::reset`](crate::MultiChannel::reset).
    pub fn reset(&mut self, rank: u32) -> Result<Endpoint> {
        self.channels_mut().reset(rank)
    }
}
