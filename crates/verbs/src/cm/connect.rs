//! The active side, blocking: an address, a device, a connection; a deadline for each step.

use super::address::Address;
use super::channel::EventChannel;
use super::connection::{Connection, Line};
use super::id::{Id, RouteResolved};
use super::parameters::{ConnectionParameters, PortSpace};
use super::progress::{ConnectError, NotDone};
use super::wait::{self, Deadline};
use crate::device::Context;
use crate::error::Result;
use crate::hub::{Hub, Member};
use crate::library::Library;
use crate::qp::{QueuePair, Rc, Service};
use std::time::Duration;

/// How to connect to an address.
#[derive(Clone, Debug)]
pub struct Connector {
    library: Library,
    from: Option<Address>,
    type_of_service: Option<u8>,
}

impl Connector {
    /// By this library, from any address.
    #[must_use]
    pub fn new(library: &Library) -> Self {
        Self { library: library.clone(), from: None, type_of_service: None }
    }

    /// From this address of this machine; by default from that with the route to the peer.
    #[must_use]
    pub fn from(mut self, address: impl Into<Address>) -> Self {
        self.from = Some(address.into());
        self
    }

    /// With this type of service; the system's by default.
    #[must_use]
    pub const fn type_of_service(mut self, tos: u8) -> Self {
        self.type_of_service = Some(tos);
        self
    }

    /// Finds the device and the path to an address. Blocks until the deadline at most.
    ///
    /// # Errors
    /// [`Error::Library`](crate::Error::Library) without librdmacm; [`Error::Call`](crate::Error::Call) with the number of the step that failed: `ENODEV` and `EADDRNOTAVAIL` where no
    /// device has a way there, `ENETUNREACH`, `EHOSTUNREACH` and `ETIMEDOUT` where nobody answers; [`Error::TimedOut`](crate::Error::TimedOut).
    pub fn resolve(&self, to: impl Into<Address>, timeout: Duration) -> Result<Resolved> {
        let (id, channel) = self.resolved(PortSpace::TCP, &to.into(), &Deadline::after(timeout))?;
        Ok(Resolved { id, channel })
    }

    /// An identifier with a channel of its own, whose device and path are known.
    pub(super) fn resolved<S: Service>(
        &self,
        space: PortSpace,
        to: &Address,
        deadline: &Deadline,
    ) -> Result<(Id<RouteResolved, S>, EventChannel)> {
        let channel = self.library.event_channel()?;
        let id = channel.id(space)?;
        if let Some(tos) = self.type_of_service {
            id.set_type_of_service(tos)?;
        }
        let id = id.resolve_address(self.from.as_ref(), to, deadline.left())?;
        let id = wait::drive(&channel, id, "rdma_resolve_addr", deadline, drop, drop)?;
        let id = id.resolve_route(deadline.left())?;
        let id = wait::drive(&channel, id, "rdma_resolve_route", deadline, drop, drop)?;
        Ok((id, channel))
    }
}

/// An address whose device and path are known. What is to be connected is made from its [`context`](Self::context).
#[derive(Debug)]
pub struct Resolved {
    id: Id<RouteResolved>,
    channel: EventChannel,
}

impl Resolved {
    /// The device, shared by everything that the connection manager finds through it.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.id.context()
    }

    /// The identifier.
    #[must_use]
    pub const fn id(&self) -> &Id<RouteResolved> {
        &self.id
    }

    /// Brings a queue pair to INIT, so that receives can be posted before the peer can send. Connecting does it too.
    ///
    /// # Errors
    /// As for [`Id::initialize`](Id::<RouteResolved>::initialize).
    pub fn initialize(&self, queue_pair: &QueuePair<Rc>, parameters: &ConnectionParameters) -> Result<()> {
        self.id.initialize(queue_pair, parameters)
    }

    /// Connects the queue pair. Blocks until the deadline at most; behind it the wish is withdrawn. Over iWARP the end of the queue pair may wait then ([`Id`](super::Id)).
    ///
    /// # Errors
    /// The queue pair, in any state up to RTS (bring it to RESET before it is used again; receives that were posted to it are still posted), with
    /// [`ConnectError::Rejected`] when the peer refuses, what it says included; with [`Error::TimedOut`](crate::Error::TimedOut);
    /// [`Error::Invalid`](crate::Error::Invalid) for private data that does not fit and for a queue pair of another context; [`Error::Call`](crate::Error::Call) with
    /// `ETIMEDOUT` when the kernel gave up first.
    pub fn connect(
        self,
        queue_pair: QueuePair<Rc>,
        parameters: &ConnectionParameters,
        timeout: Duration,
    ) -> std::result::Result<Connection, NotDone<QueuePair<Rc>>> {
        let (Self { id, channel }, deadline) = (self, Deadline::after(timeout));
        let id = id.connect(queue_pair, parameters).map_err(|not| not.map(|(_, queue_pair)| queue_pair))?;
        let back = |queue_pair| queue_pair;
        let id = wait::drive(&channel, id, "rdma_connect", &deadline, |id| id.into_queue_pair(), back)?;
        Ok(Connection::new(id.establish()?, channel))
    }

    /// Connects a queue pair of a hub, so that all of it is safe: made by [`Hub::queue_pair`] and `build_raw`, [adopted](Hub::adopt), brought to INIT
    /// ([`initialize`](Self::initialize) of [`Hub::queue_pair_of`]), receives posted; behind this it sends. Blocks until the deadline at most; behind it the wish is withdrawn. Over iWARP the end of the queue pair may wait then ([`Id`](super::Id)).
    ///
    /// # Errors
    /// As for [`connect`](Self::connect); [`Error::Invalid`](crate::Error::Invalid) for a member that was removed. The queue pair stays the hub's, in any state up to RTS: remove it.
    pub fn connect_member(
        self,
        hub: &mut Hub<Rc>,
        member: Member,
        parameters: &ConnectionParameters,
        timeout: Duration,
    ) -> std::result::Result<Line, ConnectError> {
        let (Self { id, channel }, deadline) = (self, Deadline::after(timeout));
        let id = id.connect_member(hub, member, parameters)?;
        let id = wait::drive(&channel, id, "rdma_connect", &deadline, drop, drop)?;
        Ok(Connection::new(id.establish(hub)?, channel))
    }
}
