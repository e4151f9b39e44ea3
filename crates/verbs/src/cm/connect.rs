//! The active side, blocking: an address, a device, a connection; a deadline for each step.

use super::address::Address;
use super::connection::{ConnectError, Connection, Half, Line, NotConnected};
use super::event::{EventKind, Status};
use super::id::Id;
use super::parameters::{ConnectionParameters, PortSpace, PrivateData};
use super::wait::{self, Deadline};
use crate::device::Context;
use crate::error::{Error, Result};
use crate::hub::{Hub, Member};
use crate::library::Library;
use crate::qp::state::State;
use crate::qp::{QueuePair, Rc};
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
    /// [`Error::Library`] without librdmacm; [`Error::Call`] with the number of the step that failed: `ENODEV` and `EADDRNOTAVAIL` where no
    /// device has a way there, `ENETUNREACH`, `EHOSTUNREACH` and `ETIMEDOUT` where nobody answers; [`Error::TimedOut`].
    pub fn resolve(&self, to: impl Into<Address>, timeout: Duration) -> Result<Resolved> {
        let id = self.resolved(PortSpace::TCP, &to.into(), &Deadline::after(timeout))?;
        Ok(Resolved { half: Half::new(id)? })
    }

    /// An identifier with a channel of its own, whose device and path are known.
    pub(super) fn resolved(&self, space: PortSpace, to: &Address, deadline: &Deadline) -> Result<Id> {
        let channel = self.library.event_channel()?;
        let id = channel.id(space)?;
        if let Some(tos) = self.type_of_service {
            id.set_type_of_service(tos)?;
        }
        let expect = |call, kind| wait::expect(&channel, id.number(), call, to, &[kind], deadline);
        id.resolve_address(self.from.as_ref(), to, deadline.left())?;
        expect("rdma_resolve_addr", EventKind::ADDR_RESOLVED)?;
        id.resolve_route(deadline.left())?;
        expect("rdma_resolve_route", EventKind::ROUTE_RESOLVED)?;
        Ok(id)
    }
}

/// An address whose device and path are known. What is to be connected is made from its [`context`](Self::context).
#[derive(Debug)]
pub struct Resolved {
    half: Half,
}

impl Resolved {
    /// The device, shared by everything that the connection manager finds through it.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.half.context
    }

    /// The identifier.
    #[must_use]
    pub const fn id(&self) -> &Id {
        &self.half.id
    }

    /// Brings a queue pair to INIT, so that receives can be posted before the peer can send. Connecting does it too.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a queue pair of another context; [`Error::Transition`] and [`Error::Call`] from the device.
    pub fn initialize(&self, queue_pair: &QueuePair<Rc>, parameters: &ConnectionParameters) -> Result<()> {
        self.half.check(queue_pair)?;
        self.half.step(queue_pair, State::INIT, parameters, None)
    }

    /// Connects the queue pair. Blocks until the deadline at most; behind it the wish is withdrawn.
    ///
    /// # Errors
    /// The queue pair with [`ConnectError::Rejected`] when the peer refuses, what it says included; with [`Error::TimedOut`];
    /// [`Error::Invalid`] for private data that does not fit and for a queue pair of another context; [`Error::Call`] with `ETIMEDOUT`
    /// when the kernel gave up first.
    pub fn connect(
        self,
        queue_pair: QueuePair<Rc>,
        parameters: &ConnectionParameters,
        timeout: Duration,
    ) -> std::result::Result<Connection, NotConnected> {
        match self.try_connect(&queue_pair, parameters, timeout) {
            Ok(answer) => {
                let attributes = answer.parameters.connection().copied();
                Ok(self.half.connected(queue_pair, attributes, answer.private_data))
            }
            Err(error) => Err(NotConnected { queue_pair, error }),
        }
    }

    /// Connects a queue pair of a hub, so that all of it is safe: made by [`Hub::queue_pair`] and `build_raw`, [adopted](Hub::adopt), brought to INIT
    /// ([`initialize`](Self::initialize) of [`Hub::queue_pair_of`]), receives posted; behind this it sends. Blocks until the deadline at most; behind it the wish is withdrawn.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect); [`Error::Invalid`] for a member that was removed. The queue pair stays the hub's, in any state up to RTS: remove it.
    pub fn connect_member(
        self,
        hub: &mut Hub<Rc>,
        member: Member,
        parameters: &ConnectionParameters,
        timeout: Duration,
    ) -> std::result::Result<Line, ConnectError> {
        let answer = self.try_connect(hub.queue_pair_of(member)?, parameters, timeout)?;
        hub.refresh(member)?;
        let attributes = answer.parameters.connection().copied();
        Ok(self.half.line(attributes, answer.private_data))
    }

    fn try_connect(
        &self,
        queue_pair: &QueuePair<Rc>,
        parameters: &ConnectionParameters,
        timeout: Duration,
    ) -> std::result::Result<super::Notice, ConnectError> {
        let (half, deadline) = (&self.half, Deadline::after(timeout));
        PrivateData::Connect.check(PortSpace::TCP, parameters.data())?;
        self.initialize(queue_pair, parameters)?;
        let shared = queue_pair.depths().receive == 0;
        let told = parameters.attributes(&half.context, None, queue_pair.number(), shared)?;
        half.id.connect(&told, parameters.data()).map_err(refused)?;
        let kinds = [EventKind::CONNECT_RESPONSE, EventKind::ESTABLISHED];
        let answer = half.expect("rdma_connect", &kinds, &deadline)?;
        if answer.kind == EventKind::CONNECT_RESPONSE {
            half.step(queue_pair, State::RTR, parameters, None)?;
            half.step(queue_pair, State::RTS, parameters, None)?;
            half.id.establish()?;
        }
        Ok(answer)
    }
}

/// Over iWARP the answer that nobody listens may come before the call is over.
fn refused(error: Error) -> ConnectError {
    match error.errno() {
        Some(libc::ECONNREFUSED) => {
            ConnectError::Rejected { reason: Status::from_raw(-libc::ECONNREFUSED), private_data: Vec::new() }
        }
        _ => error.into(),
    }
}
