//! Datagrams by address: how a peer's queue pair is addressed, and groups of the network. Blocking, with a deadline.
//!
//! *Order of use.* Who is to be found: [`DatagramService::bind`], a queue pair as [`configure`](DatagramService::configure) says, and an
//! [`answer`](Inquiry::answer) to each [`Inquiry`]. Who looks: [`Connector::look_up`]; an address handle and a queue pair from the
//! [`DatagramPeer`]; then datagrams [`to`](crate::hub::Operation::to) it. A [`Group`] is joined, a queue pair put into it, and it is sent to like a
//! peer. Nothing stays connected: a peer that goes away is not noticed.

use super::accept::Listener;
use super::address::Address;
use super::connect::Connector;
use super::connection::{ConnectError, Half};
use super::devices_match;
use super::event::{ConnectRequest, ConnectionAttributes, DatagramAttributes, EventKind, Notice};
use super::id::Id;
use super::parameters::{PortSpace, PrivateData};
use super::wait::Deadline;
use crate::ah::AddressHandle;
use crate::device::Context;
use crate::error::{Error, Result};
use crate::library::Library;
use crate::pd::ProtectionDomain;
use crate::qp::state::{AttributeMask, State};
use crate::qp::{QueuePair, QueuePairBuilder, Ud};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Where a queue pair of datagrams must be, so that those that the connection manager tells of it reach it.
#[derive(Clone, Copy, Debug)]
struct Place {
    port: u8,
    pkey_index: u16,
    qkey: u32,
}

impl Place {
    /// As the connection manager proposes it.
    fn of(id: &Id) -> Result<Self> {
        let proposed = id.attributes(State::INIT)?;
        match (proposed.port(), proposed.qkey()) {
            (Some(port), Some(qkey)) => {
                Ok(Self { port, pkey_index: proposed.pkey_index().unwrap_or(0), qkey })
            }
            _ => Err(Error::Unsupported { what: "datagrams", object: id.to_string() }),
        }
    }

    const fn configure(self, builder: QueuePairBuilder<'_, Ud>) -> QueuePairBuilder<'_, Ud> {
        builder.port(self.port).pkey_index(self.pkey_index).qkey(self.qkey)
    }

    /// Refuses a queue pair that is elsewhere.
    fn check(self, queue_pair: &QueuePair<Ud>) -> Result<()> {
        let told = queue_pair.query(AttributeMask::STATE | AttributeMask::PORT | AttributeMask::QKEY)?;
        if told.port() == Some(self.port) && told.qkey() == Some(self.qkey) {
            return Ok(());
        }
        Err(Error::invalid(
            "queue pair of datagrams",
            format!(
                "it is at port {} with queue key {:#x}, and would be told of at port {} with {:#x}",
                told.port().unwrap_or(0),
                told.qkey().unwrap_or(0),
                self.port,
                self.qkey
            ),
            "make it with what `configure` sets",
        ))
    }
}

/// Whom datagrams go to, as it answered to an inquiry.
#[derive(Debug)]
pub struct DatagramPeer {
    context: Context,
    place: Place,
    attributes: DatagramAttributes,
    private_data: Vec<u8>,
}

impl Connector {
    /// Asks at an address which queue pair takes datagrams there, and says these bytes meanwhile. Blocks until the deadline at most.
    ///
    /// # Errors
    /// [`ConnectError::Rejected`] when nobody listens there, or who does refuses; [`Error::TimedOut`]; as for [`resolve`](Self::resolve);
    /// [`Error::Call`] from a device without datagrams (iWARP).
    pub fn look_up(
        &self,
        to: impl Into<Address>,
        private_data: &[u8],
        timeout: Duration,
    ) -> std::result::Result<DatagramPeer, ConnectError> {
        let (to, deadline) = (to.into(), Deadline::after(timeout));
        PrivateData::Connect.check(PortSpace::UDP, private_data)?;
        let half = Half::new(self.resolved(PortSpace::UDP, &to, &deadline)?)?;
        half.id.connect(&ConnectionAttributes::default(), private_data)?;
        let answer = half.expect("rdma_connect", &[EventKind::ESTABLISHED], &deadline)?;
        let attributes = addressed(&answer, &half)?;
        let place = Place::of(&half.id)?;
        Ok(DatagramPeer { context: half.context, place, attributes, private_data: answer.private_data })
    }
}

/// What an event says of addressing.
fn addressed(notice: &Notice, half: &Half) -> Result<DatagramAttributes> {
    notice.parameters.datagram().copied().ok_or_else(|| Error::Peer {
        cause: format!("{} of {} says nothing of datagrams", notice.kind, half.id),
    })
}

/// The handle of a way, in a domain of the device that the way is of.
fn handle(context: &Context, pd: &ProtectionDomain, to: &DatagramAttributes) -> Result<AddressHandle> {
    devices_match(context, pd.context())?;
    pd.address_handle(&to.path)
}

impl DatagramPeer {
    /// The device with the way there, shared by everything that the connection manager finds through it.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// How it is addressed: with each datagram goes the number of its queue pair, and its queue key.
    #[must_use]
    pub const fn attributes(&self) -> &DatagramAttributes {
        &self.attributes
    }

    /// What it said; padded with zeros.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }

    /// The way to it, as the device has it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a domain of another context; as for [`ProtectionDomain::address_handle`].
    pub fn address_handle(&self, pd: &ProtectionDomain) -> Result<AddressHandle> {
        handle(&self.context, pd, &self.attributes)
    }

    /// Port, partition and queue key of a queue pair that sends there, and that answers reach.
    #[must_use]
    pub const fn configure<'a>(&self, builder: QueuePairBuilder<'a, Ud>) -> QueuePairBuilder<'a, Ud> {
        self.place.configure(builder)
    }
}

/// Answers who asks at an address which queue pair takes datagrams there. `Send` and `Sync`. Its descriptor (`AsFd`) is readable while an
/// inquiry may wait. Dropped, the address is free again.
#[derive(Debug)]
pub struct DatagramService {
    listener: Listener,
}

impl DatagramService {
    /// Listens at an address of this machine; that many inquiries may wait. Port 0 takes a free one, which [`address`](Self::address) says.
    ///
    /// # Errors
    /// As for [`Acceptor::bind`](super::Acceptor::bind).
    pub fn bind(library: &Library, address: impl Into<Address>, backlog: u32) -> Result<Self> {
        Ok(Self { listener: Listener::bind(library, PortSpace::UDP, address.into(), backlog)? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As for [`Id::local_address`].
    pub fn address(&self) -> Result<Option<Address>> {
        self.listener.id.local_address()
    }

    /// The device of its address; nothing where it listens through every device: an [`Inquiry`] says then which it came through.
    ///
    /// # Errors
    /// As for [`Id::context`].
    pub fn context(&self) -> Result<Option<Context>> {
        self.listener.id.context()
    }

    /// Port, partition and queue key of a queue pair that inquiries can be answered with.
    ///
    /// # Errors
    /// [`Error::Call`] where it listens through every device; [`Error::Unsupported`] over iWARP.
    pub fn configure<'a>(&self, builder: QueuePairBuilder<'a, Ud>) -> Result<QueuePairBuilder<'a, Ud>> {
        Ok(Place::of(&self.listener.id)?.configure(builder))
    }

    /// An inquiry, if one waits. Never blocks.
    ///
    /// # Errors
    /// As for [`Acceptor::try_accept`](super::Acceptor::try_accept).
    pub fn try_accept(&self) -> Result<Option<Inquiry>> {
        self.listener.try_take()?.map(Inquiry::new).transpose()
    }

    /// Waits for an inquiry. `None` waits for ever.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; as for [`try_accept`](Self::try_accept).
    pub fn accept(&self, timeout: Option<Duration>) -> Result<Inquiry> {
        Inquiry::new(self.listener.take(timeout, "an inquiry for datagrams")?)
    }
}

impl AsFd for DatagramService {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Somebody asks which queue pair takes datagrams. It can be answered on any thread. Dropped, who asks is refused.
#[derive(Debug)]
pub struct Inquiry {
    half: Half,
    private_data: Vec<u8>,
}

impl Inquiry {
    fn new(request: ConnectRequest) -> Result<Self> {
        let ConnectRequest { id, private_data, .. } = request;
        Ok(Self { half: Half::new(id)?, private_data })
    }

    /// The device that it came through, shared by everything that the connection manager finds through it.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.half.context
    }

    /// What the asker says; padded with zeros.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }

    /// Port, partition and queue key of a queue pair that it can be answered with.
    ///
    /// # Errors
    /// As for [`DatagramService::configure`].
    pub fn configure<'a>(&self, builder: QueuePairBuilder<'a, Ud>) -> Result<QueuePairBuilder<'a, Ud>> {
        Ok(Place::of(&self.half.id)?.configure(builder))
    }

    /// Says that datagrams go to this queue pair, and up to 136 bytes. One queue pair can answer to any number. Post receives to it before.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a queue pair of another context, one with another port or queue key than [`configure`](Self::configure) sets,
    /// and for data that does not fit; [`Error::Call`] from the system.
    pub fn answer(&self, queue_pair: &QueuePair<Ud>, private_data: &[u8]) -> Result<()> {
        devices_match(&self.half.context, queue_pair.protection_domain().context())?;
        Place::of(&self.half.id)?.check(queue_pair)?;
        let answer = ConnectionAttributes { qp_num: queue_pair.number(), ..Default::default() };
        self.half.id.accept(&answer, private_data)
    }

    /// Refuses. What the network carries of it says no reason.
    ///
    /// # Errors
    /// As for [`Incoming::reject`](super::Incoming::reject).
    pub fn reject(self) -> Result<()> {
        self.half.id.reject(&[])
    }
}

/// A group of the network that an address of this machine is in. Left when it is dropped: queue pairs that were put into it get nothing then.
#[derive(Debug)]
pub struct Group {
    half: Half,
    place: Place,
    attributes: DatagramAttributes,
}

impl Group {
    /// Joins a group by an address of this machine, which names the device. Blocks until the deadline at most.
    ///
    /// # Errors
    /// [`Error::Call`]: `EADDRNOTAVAIL` and `ENODEV` where no device has the address, `ENOSYS` and `EOPNOTSUPP` for a device without groups (iWARP);
    /// [`Error::TimedOut`].
    pub fn join(
        library: &Library,
        local: impl Into<Address>,
        group: impl Into<Address>,
        timeout: Duration,
    ) -> std::result::Result<Self, ConnectError> {
        let deadline = Deadline::after(timeout);
        let id = library.event_channel()?.id(PortSpace::UDP)?;
        id.bind(local)?;
        let half = Half::new(id)?;
        half.id.join(&group.into())?;
        let joined = half.expect("rdma_join_multicast", &[EventKind::MULTICAST_JOIN], &deadline)?;
        let attributes = addressed(&joined, &half)?;
        let place = Place { qkey: attributes.qkey, ..Place::of(&half.id)? };
        Ok(Self { half, place, attributes })
    }

    /// The device, shared by everything that the connection manager finds through it.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.half.context
    }

    /// How its datagrams are addressed.
    #[must_use]
    pub const fn attributes(&self) -> &DatagramAttributes {
        &self.attributes
    }

    /// The way to it, as the device has it.
    ///
    /// # Errors
    /// As for [`DatagramPeer::address_handle`].
    pub fn address_handle(&self, pd: &ProtectionDomain) -> Result<AddressHandle> {
        handle(&self.half.context, pd, &self.attributes)
    }

    /// Port, partition and queue key of a queue pair that can be in it, or send to it.
    #[must_use]
    pub const fn configure<'a>(&self, builder: QueuePairBuilder<'a, Ud>) -> QueuePairBuilder<'a, Ud> {
        self.place.configure(builder)
    }

    /// Puts a queue pair into it: it receives what is sent to the group until [`remove`](Self::remove), or its end. One that is in it is no error.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a queue pair of another context, or one with another port or queue key than [`configure`](Self::configure) sets;
    /// as for [`QueuePair::join_group`].
    pub fn add(&self, queue_pair: &QueuePair<Ud>) -> Result<()> {
        devices_match(&self.half.context, queue_pair.protection_domain().context())?;
        self.place.check(queue_pair)?;
        let (gid, lid) = self.name()?;
        queue_pair.join_group(gid, lid)
    }

    /// Takes a queue pair out of it.
    ///
    /// # Errors
    /// As for [`QueuePair::leave_group`].
    pub fn remove(&self, queue_pair: &QueuePair<Ud>) -> Result<()> {
        let (gid, lid) = self.name()?;
        queue_pair.leave_group(gid, lid)
    }

    fn name(&self) -> Result<(crate::device::Gid, u16)> {
        let path = &self.attributes.path;
        let route = path.route.as_ref().ok_or_else(|| Error::Peer {
            cause: format!("the connection manager gave {} a group without a GID", self.half.id),
        })?;
        Ok((route.gid, path.lid))
    }
}
