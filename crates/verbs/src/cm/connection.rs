//! A queue pair that the connection manager has connected, with a channel of its own to wait at.

use super::channel::EventChannel;
use super::established::{Connectable, Established};
use super::event::{ConnectionAttributes, Event, Status};
use super::id::Id;
use super::progress::NotDone;
use super::wait::Deadline;
use crate::error::{Error, Result};
use crate::hub::Member;
use crate::qp::{QueuePair, QueuePairMut, Rc};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A connected queue pair with its identifier. Dropped, the queue pair is destroyed, then the identifier, which tells the peer; no
/// step of that waits for the peer.
///
/// Its descriptor (`AsFd`) is readable when something has happened ([`ended`](Self::ended)).
#[derive(Debug)]
pub struct Connection<Q = QueuePair<Rc>> {
    id: Id<Established<Q>>,
    channel: EventChannel,
    over: Option<Ended>,
}

/// A connection whose queue pair is a hub's ([`Resolved::connect_member`](super::Resolved::connect_member)): its identifier, and what the peer said. Dropped, the peer is
/// told; the hub keeps its queue pair, and flushes it ([`Hub::fail`](crate::hub::Hub::fail)). Either may end first.
pub type Line = Connection<Member>;

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Ended {
    /// By the peer, or by [`Connection::disconnect`].
    Disconnected,
    /// The device is being removed: drop everything of it.
    DeviceRemoved,
    /// By an error of the connection manager.
    Failed(Status),
}

impl Connection {
    /// The queue pair, to post; it stays this connection's.
    #[must_use]
    pub const fn queue_pair_mut(&mut self) -> QueuePairMut<'_, Rc> {
        self.id.queue_pair_mut()
    }
}

impl<Q: Connectable> Connection<Q> {
    pub(super) const fn new(id: Id<Established<Q>>, channel: EventChannel) -> Self {
        Self { id, channel, over: None }
    }

    /// What is connected.
    #[must_use]
    pub const fn queue_pair(&self) -> &Q {
        self.id.queue_pair()
    }

    /// The identifier.
    #[must_use]
    pub const fn id(&self) -> &Id<Established<Q>> {
        &self.id
    }

    /// What the peer answered or asked for; nothing where it did not say.
    #[must_use]
    pub const fn peer_attributes(&self) -> Option<&ConnectionAttributes> {
        self.id.peer_attributes()
    }

    /// What the peer said when it accepted or asked; padded with zeros over InfiniBand and RoCE.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        self.id.private_data()
    }

    /// The identifier for an event loop, with its events, which arrive at that channel from here on.
    ///
    /// # Errors
    /// Itself, with [`Error::Invalid`] when it has ended, which an event loop would wait for in vain; as for [`Id::migrate`].
    pub fn into_id(
        mut self,
        channel: &EventChannel,
    ) -> std::result::Result<Id<Established<Q>>, NotDone<Self>> {
        let moved = match self.over {
            Some(_) => Err(Error::invalid("connection", "it has ended", "drop it")),
            None => self.id.migrate(channel),
        };
        match moved {
            Ok(()) => Ok(self.id),
            Err(error) => Err(NotDone { back: self, error: error.into() }),
        }
    }

    /// Ends the connection: a queue pair of its own goes to the error state, which flushes it, and the peer is told. Does not wait for the peer;
    /// [`wait_ended`](Self::wait_ended) does. One that has ended already is no error.
    ///
    /// # Errors
    /// [`Error::Transition`] and [`Error::Call`], of the first step that failed; the others were tried.
    pub fn disconnect(&self) -> Result<()> {
        self.id.end()
    }

    /// How it ended, if it has. Never blocks. When the peer ended it, a queue pair of its own is flushed and the peer is answered.
    ///
    /// # Errors
    /// As for [`EventChannel::event`].
    pub fn ended(&mut self) -> Result<Option<Ended>> {
        while self.over.is_none()
            && let Some(event) = self.channel.event()?
        {
            match event {
                Event::Notice(notice) => self.over = self.id.ended_by(&notice),
                other => tracing::debug!(?other, "an event of a connection that changes nothing"),
            }
        }
        Ok(self.over)
    }

    /// Waits until it has ended; nothing when it did not in time. `None` waits for ever.
    ///
    /// # Errors
    /// As for [`EventChannel::wait`].
    pub fn wait_ended(&mut self, timeout: Option<Duration>) -> Result<Option<Ended>> {
        let deadline = Deadline::or_never(timeout);
        loop {
            if let Some(ended) = self.ended()? {
                return Ok(Some(ended));
            }
            if !self.channel.wait_readable(deadline.at())? {
                return Ok(None);
            }
        }
    }
}

impl<Q> AsFd for Connection<Q> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
