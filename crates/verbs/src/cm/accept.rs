//! The passive side, blocking or by a descriptor: an address, requests, connections.

use super::address::Address;
use super::channel::EventChannel;
use super::connection::{Connection, Line};
use super::event::{ConnectionAttributes, Event};
use super::id::{Id, Listening};
use super::parameters::{ConnectionParameters, PortSpace};
use super::peer::Requested;
use super::progress::{ConnectError, NotDone, Progress, Waits as _};
use super::wait::{self, Deadline};
use crate::device::Context;
use crate::error::{Error, Result};
use crate::hub::{Hub, Member};
use crate::library::Library;
use crate::qp::{QueuePair, Rc, Service};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Where requests arrive, for connections or for datagrams.
#[derive(Debug)]
pub(super) struct Listener<S: Service> {
    channel: EventChannel,
    /// Nothing once its device is being removed. Held from taking a request until it has a channel of its own: so nobody else takes what happens to it
    /// meanwhile.
    id: Mutex<Option<Id<Listening, S>>>,
}

/// What asks a listener.
pub(super) trait Asking: Sized {
    /// Takes it out of its event.
    fn of(event: Event) -> std::result::Result<Self, Event>;

    /// Moves its identifier.
    fn migrate(&mut self, to: &EventChannel) -> Result<()>;
}

impl Asking for Id<Requested> {
    fn of(event: Event) -> std::result::Result<Self, Event> {
        match event {
            Event::Request(id) => Ok(id),
            other => Err(other),
        }
    }

    fn migrate(&mut self, to: &EventChannel) -> Result<()> {
        Self::migrate(self, to)
    }
}

impl<S: Service> Listener<S> {
    pub(super) fn bind(library: &Library, space: PortSpace, address: Address, backlog: u32) -> Result<Self> {
        let channel = library.event_channel()?;
        let id = channel.id(space)?.bind(address)?.listen(backlog)?;
        Ok(Self { channel, id: Mutex::new(Some(id)) })
    }

    /// Does something with the identifier.
    pub(super) fn with<R>(&self, what: impl FnOnce(&Id<Listening, S>) -> Result<R>) -> Result<R> {
        match &*self.id.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(id) => what(id),
            None => Err(removed()),
        }
    }

    /// Who asks, with a channel of its own, if somebody does. Never blocks.
    pub(super) fn try_take<T: Asking>(&self) -> Result<Option<(T, EventChannel)>> {
        let mut listening = self.id.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(event) = self.channel.event()? {
            let notice = match T::of(event) {
                Ok(mut asking) => {
                    let channel = self.channel.library().event_channel()?;
                    asking.migrate(&channel)?;
                    return Ok(Some((asking, channel)));
                }
                Err(Event::Notice(notice)) => notice,
                Err(other) => {
                    tracing::debug!(?other, "an event of a listener that is no request");
                    continue;
                }
            };
            match listening.take().ok_or_else(removed)?.handle(notice)? {
                Progress::Same(id, notice) => {
                    tracing::debug!(?notice, "an event of a listener that is no request");
                    *listening = Some(id);
                }
                Progress::Next(never) => match never {},
            }
        }
        if listening.is_some() { Ok(None) } else { Err(removed()) }
    }

    /// Waits for one. `None` waits for ever.
    pub(super) fn take<T: Asking>(
        &self,
        timeout: Option<Duration>,
        what: &'static str,
    ) -> Result<(T, EventChannel)> {
        let deadline = Deadline::or_never(timeout);
        loop {
            if let Some(asking) = self.try_take()? {
                return Ok(asking);
            }
            if !self.channel.wait_readable(deadline.at())? {
                return Err(deadline.passed(what));
            }
        }
    }
}

/// The device of a listener is no more.
fn removed() -> Error {
    Error::call("rdma_listen", "a listener whose device was removed", libc::ENODEV)
}

impl<S: Service> AsFd for Listener<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// A listener. `Send` and `Sync`: several threads may take requests; each goes to one. Its descriptor (`AsFd`) is readable while a
/// request may wait. Dropped, the address is free again and requests that nobody took are refused.
#[derive(Debug)]
pub struct Acceptor {
    pub(super) listener: Listener<Rc>,
}

impl Acceptor {
    /// Listens at an address of this machine; that many requests may wait. Port 0 takes a free one ([`address`](Self::address) says which), the
    /// unspecified address listens through every device.
    ///
    /// # Errors
    /// [`Error::Library`] without librdmacm; [`Error::Call`]: `EADDRINUSE`; `ENODEV` and `EADDRNOTAVAIL` where no device has the address.
    pub fn bind(library: &Library, address: impl Into<Address>, backlog: u32) -> Result<Self> {
        Ok(Self { listener: Listener::bind(library, PortSpace::TCP, address.into(), backlog)? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As for [`Id::local_address`].
    pub fn address(&self) -> Result<Option<Address>> {
        self.listener.with(Id::local_address)
    }

    /// A request, if one waits. Never blocks.
    ///
    /// # Errors
    /// [`Error::Call`] with `ENODEV` when the device of the address is being removed; [`Error::Call`] when a request could not be taken over,
    /// as for want of descriptors: it was refused then, and the listener goes on.
    pub fn try_accept(&self) -> Result<Option<Incoming>> {
        Ok(self.listener.try_take()?.map(Incoming::of))
    }

    /// Waits for a request. `None` waits for ever.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; as for [`try_accept`](Self::try_accept).
    pub fn accept(&self, timeout: Option<Duration>) -> Result<Incoming> {
        Ok(Incoming::of(self.listener.take(timeout, "a request for a connection")?))
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// A request for a connection, with a channel of its own: it can be answered on any thread. Dropped, the peer is refused.
#[derive(Debug)]
pub struct Incoming {
    id: Id<Requested>,
    channel: EventChannel,
}

impl Incoming {
    fn of((id, channel): (Id<Requested>, EventChannel)) -> Self {
        Self { id, channel }
    }

    /// The device that it came through, shared by everything that the connection manager finds through it.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.id.context()
    }

    /// The identifier.
    #[must_use]
    pub const fn id(&self) -> &Id<Requested> {
        &self.id
    }

    /// What the peer says; padded with zeros over InfiniBand and RoCE.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        self.id.private_data()
    }

    /// What the peer asks for.
    #[must_use]
    pub const fn attributes(&self) -> Option<&ConnectionAttributes> {
        self.id.peer_attributes()
    }

    /// Who asks.
    ///
    /// # Errors
    /// As for [`Id::peer_address`].
    pub fn peer(&self) -> Result<Option<Address>> {
        self.id.peer_address()
    }

    /// Refuses, and says why in up to 148 bytes.
    ///
    /// # Errors
    /// As for [`Id::reject`](Id::<Requested>::reject).
    pub fn reject(self, private_data: &[u8]) -> Result<()> {
        self.id.reject(private_data)
    }

    /// Brings a queue pair to INIT, so that receives can be posted before the peer can send. Accepting does it too.
    ///
    /// # Errors
    /// As for [`Id::initialize`](Id::<Requested>::initialize).
    pub fn initialize(&self, queue_pair: &QueuePair<Rc>, parameters: &ConnectionParameters) -> Result<()> {
        self.id.initialize(queue_pair, parameters)
    }

    /// Accepts with this queue pair, and waits until the connection is whole. Blocks until the deadline at most; behind it the peer is told that it
    /// is not to be.
    ///
    /// # Errors
    /// The queue pair, as of [`Resolved::connect`](super::Resolved::connect).
    pub fn accept(
        self,
        queue_pair: QueuePair<Rc>,
        parameters: &ConnectionParameters,
        timeout: Duration,
    ) -> std::result::Result<Connection, NotDone<QueuePair<Rc>>> {
        let (Self { id, channel }, deadline) = (self, Deadline::after(timeout));
        let id = id.accept(queue_pair, parameters).map_err(|not| not.map(|(_, queue_pair)| queue_pair))?;
        let back = |queue_pair| queue_pair;
        let id = wait::drive(&channel, id, "rdma_accept", &deadline, |id| id.into_queue_pair(), back)?;
        Ok(Connection::new(id.establish()?, channel))
    }

    /// Accepts with a queue pair of a hub; see [`Resolved::connect_member`](super::Resolved::connect_member).
    ///
    /// # Errors
    /// As there.
    pub fn accept_member(
        self,
        hub: &mut Hub<Rc>,
        member: Member,
        parameters: &ConnectionParameters,
        timeout: Duration,
    ) -> std::result::Result<Line, ConnectError> {
        let (Self { id, channel }, deadline) = (self, Deadline::after(timeout));
        let id = id.accept_member(hub, member, parameters)?;
        let id = wait::drive(&channel, id, "rdma_accept", &deadline, drop, drop)?;
        Ok(Connection::new(id.establish(hub)?, channel))
    }
}
