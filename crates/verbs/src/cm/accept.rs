//! The passive side, blocking or by a descriptor: an address, requests, connections.

use super::address::Address;
use super::channel::EventChannel;
use super::connection::{ConnectError, Connection, Half, Line, NotConnected};
use super::event::{ConnectRequest, ConnectionAttributes, Event, EventKind, Notice};
use super::id::Id;
use super::parameters::{ConnectionParameters, PortSpace, PrivateData};
use super::wait::Deadline;
use crate::device::Context;
use crate::error::{Error, Result};
use crate::hub::{Hub, Member};
use crate::library::Library;
use crate::qp::state::State;
use crate::qp::{QueuePair, Rc};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Where requests arrive, for connections or for datagrams.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) id: Id,
    channel: EventChannel,
    /// Held from taking a request until it has a channel of its own: so nobody else takes what happens to it meanwhile.
    taking: Mutex<()>,
}

impl Listener {
    pub(super) fn bind(library: &Library, space: PortSpace, address: Address, backlog: u32) -> Result<Self> {
        let channel = library.event_channel()?;
        let id = channel.id(space)?;
        id.bind(address)?;
        id.listen(backlog)?;
        Ok(Self { id, channel, taking: Mutex::new(()) })
    }

    /// A request with a channel of its own, if one waits. Never blocks.
    pub(super) fn try_take(&self) -> Result<Option<ConnectRequest>> {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(event) = self.channel.event()? {
            match event {
                Event::Request(request) => {
                    let channel = self.channel.library().event_channel()?;
                    request.id().migrate(&channel)?;
                    return Ok(Some(request));
                }
                Event::Other(Notice { kind: EventKind::DEVICE_REMOVAL, id, .. })
                    if id == Some(self.id.number()) =>
                {
                    return Err(Error::call("rdma_listen", &self.id, libc::ENODEV));
                }
                Event::Other(notice) => tracing::debug!(?notice, "an event of a listener that is no request"),
            }
        }
        Ok(None)
    }

    /// Waits for one. `None` waits for ever.
    pub(super) fn take(&self, timeout: Option<Duration>, what: &'static str) -> Result<ConnectRequest> {
        let deadline = Deadline::or_never(timeout);
        loop {
            if let Some(request) = self.try_take()? {
                return Ok(request);
            }
            if !self.channel.wait_readable(deadline.at())? {
                return Err(deadline.passed(what));
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// A listener. `Send` and `Sync`: several threads may take requests; each goes to one. Its descriptor (`AsFd`) is readable while a
/// request may wait. Dropped, the address is free again and requests that nobody took are refused.
#[derive(Debug)]
pub struct Acceptor {
    listener: Listener,
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
        self.listener.id.local_address()
    }

    /// The identifier.
    #[must_use]
    pub const fn id(&self) -> &Id {
        &self.listener.id
    }

    /// A request, if one waits. Never blocks.
    ///
    /// # Errors
    /// [`Error::Call`] with `ENODEV` when the device of the address is being removed; [`Error::Call`] when a request could not be taken over,
    /// as for want of descriptors: it was refused then, and the listener goes on.
    pub fn try_accept(&self) -> Result<Option<Incoming>> {
        self.listener.try_take()?.map(Incoming::new).transpose()
    }

    /// Waits for a request. `None` waits for ever.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; as for [`try_accept`](Self::try_accept).
    pub fn accept(&self, timeout: Option<Duration>) -> Result<Incoming> {
        Incoming::new(self.listener.take(timeout, "a request for a connection")?)
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
    half: Half,
    attributes: Option<ConnectionAttributes>,
    private_data: Vec<u8>,
}

impl Incoming {
    fn new(request: ConnectRequest) -> Result<Self> {
        let ConnectRequest { id, parameters, private_data, .. } = request;
        Ok(Self { half: Half::new(id)?, attributes: parameters.connection().copied(), private_data })
    }

    /// The device that it came through, shared by everything that the connection manager finds through it.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.half.context
    }

    /// The identifier.
    #[must_use]
    pub const fn id(&self) -> &Id {
        &self.half.id
    }

    /// What the peer says; padded with zeros over InfiniBand and RoCE.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }

    /// What the peer asks for.
    #[must_use]
    pub const fn attributes(&self) -> Option<&ConnectionAttributes> {
        self.attributes.as_ref()
    }

    /// Who asks.
    ///
    /// # Errors
    /// As for [`Id::peer_address`].
    pub fn peer(&self) -> Result<Option<Address>> {
        self.half.id.peer_address()
    }

    /// Refuses, and says why in up to 148 bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for data that does not fit, [`Error::Call`] from the system; the peer is refused all the same, without the data.
    pub fn reject(self, private_data: &[u8]) -> Result<()> {
        self.half.id.reject(private_data)
    }

    /// Brings a queue pair to INIT, so that receives can be posted before the peer can send. Accepting does it too.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a queue pair of another context; [`Error::Transition`] and [`Error::Call`] from the device.
    pub fn initialize(&self, queue_pair: &QueuePair<Rc>, parameters: &ConnectionParameters) -> Result<()> {
        self.half.check(queue_pair)?;
        self.half.step(queue_pair, State::INIT, parameters, None)
    }

    /// Accepts with this queue pair, and waits until the connection is whole. Blocks until the deadline at most; behind it the peer is told that it
    /// is not to be.
    ///
    /// # Errors
    /// The queue pair with [`ConnectError`]: as for [`Resolved::connect`](super::Resolved::connect).
    pub fn accept(
        self,
        queue_pair: QueuePair<Rc>,
        parameters: &ConnectionParameters,
        timeout: Duration,
    ) -> std::result::Result<Connection, NotConnected> {
        match self.try_accept(&queue_pair, parameters, timeout) {
            Ok(()) => Ok(self.half.connected(queue_pair, self.attributes, self.private_data)),
            Err(error) => Err(NotConnected { queue_pair, error }),
        }
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
        self.try_accept(hub.queue_pair_of(member)?, parameters, timeout)?;
        hub.refresh(member)?;
        Ok(self.half.line(self.attributes, self.private_data))
    }

    fn try_accept(
        &self,
        queue_pair: &QueuePair<Rc>,
        parameters: &ConnectionParameters,
        timeout: Duration,
    ) -> std::result::Result<(), ConnectError> {
        let (half, deadline) = (&self.half, Deadline::after(timeout));
        PrivateData::Accept.check(PortSpace::TCP, parameters.data())?;
        self.initialize(queue_pair, parameters)?;
        let shared = queue_pair.depths().receive == 0;
        let asked = self.attributes.as_ref();
        let told = parameters.attributes(&half.context, asked, queue_pair.number(), shared)?;
        half.step(queue_pair, State::RTR, parameters, Some(&told))?;
        half.step(queue_pair, State::RTS, parameters, Some(&told))?;
        half.id.accept(&told, parameters.data())?;
        half.expect("rdma_accept", &[EventKind::ESTABLISHED], &deadline)?;
        Ok(())
    }
}
