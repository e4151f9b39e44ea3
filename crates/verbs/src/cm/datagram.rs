//! Datagrams by address: how a peer's queue pair is addressed, and groups of the network. Blocking, with a deadline, and by identifiers for event loops.
//!
//! *Order of use.* Who is to be found: [`DatagramService::bind`], a queue pair as [`configure`](DatagramService::configure) says, and an
//! [`answer`](Inquiry::answer) to each [`Inquiry`]. Who looks: [`Connector::look_up`]; an address handle and a queue pair from the
//! [`DatagramPeer`]; then datagrams [`to`](crate::hub::Operation::to) it. A [`Group`] is joined, a queue pair put into it, and it is sent to like a
//! peer. Nothing stays connected: a peer that goes away is not noticed.

use super::accept::{Asking, Listener};
use super::address::Address;
use super::base::Base;
use super::channel::EventChannel;
use super::connect::Connector;
use super::devices_match;
use super::event::{ConnectionAttributes, DatagramAttributes, Event, EventKind, IdNumber, Notice};
use super::id::{Bound, Id, RouteResolved};
use super::parameters::{PortSpace, PrivateData};
use super::progress::{ConnectError, NotDone, Progress, Verdict, Waits, judge};
use super::wait::{self, Deadline};
use crate::ah::AddressHandle;
use crate::device::Context;
use crate::error::{Error, Result};
use crate::library::Library;
use crate::pd::ProtectionDomain;
use crate::qp::state::{AttributeMask, State};
use crate::qp::{QueuePair, QueuePairBuilder, Ud};
use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Waits for who answers an inquiry for datagrams.
#[derive(Debug)]
pub struct LookingUp {
    context: Context,
}

/// Waits until it is in a group.
#[derive(Debug)]
pub struct Joining {
    context: Context,
}

/// Where a queue pair of datagrams must be, so that those that the connection manager tells of it reach it.
#[derive(Clone, Copy, Debug)]
struct Place {
    port: u8,
    pkey_index: u16,
    qkey: u32,
}

impl Place {
    /// As the connection manager proposes it.
    fn of(id: &Base) -> Result<Self> {
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
        let (id, channel) = self.resolved::<Ud>(PortSpace::UDP, &to, &deadline)?;
        let id = id.look_up(private_data)?;
        Ok(wait::drive(&channel, id, "rdma_connect", &deadline, drop, drop)?)
    }
}

impl Id<RouteResolved, Ud> {
    /// Asks which queue pair takes datagrams there, and says up to 180 bytes (rdma_connect(3)).
    ///
    /// # Errors
    /// Itself with [`Error::Invalid`] for private data that does not fit; [`Error::Call`] from the system, as over iWARP.
    pub fn look_up(self, private_data: &[u8]) -> std::result::Result<Id<LookingUp, Ud>, NotDone<Self>> {
        let asked = self.base.connect(&ConnectionAttributes::default(), private_data);
        self.after(asked, |RouteResolved { context }| LookingUp { context })
    }
}

/// Goes on as the peer, when it has answered.
impl Waits for Id<LookingUp, Ud> {
    type Next = DatagramPeer;
    type Back = ();

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> std::result::Result<Progress<Self>, NotDone<()>> {
        let found = match judge(&self.base, notice, "rdma_connect", &[EventKind::ESTABLISHED]) {
            Verdict::Good(answer) => addressed(&answer, &self.base)
                .and_then(|attributes| Ok((answer.private_data, attributes, Place::of(&self.base)?))),
            Verdict::Nothing(notice) => return Ok(Progress::Same(self, notice)),
            Verdict::Failed(error) => return Err(NotDone { back: (), error }),
        };
        match found {
            Ok((private_data, attributes, place)) => {
                let context = self.state.context;
                Ok(Progress::Next(DatagramPeer { context, place, attributes, private_data }))
            }
            Err(error) => Err(NotDone { back: (), error: error.into() }),
        }
    }
}

/// What an event says of addressing.
fn addressed(notice: &Notice, id: &Base) -> Result<DatagramAttributes> {
    notice
        .parameters
        .datagram()
        .copied()
        .ok_or_else(|| Error::Peer { cause: format!("{} of {id} says nothing of datagrams", notice.kind) })
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
    listener: Listener<Ud>,
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
        self.listener.with(Id::local_address)
    }

    /// The device of its address; nothing where it listens through every device: an [`Inquiry`] says then which it came through.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device that cannot post or poll.
    pub fn context(&self) -> Result<Option<Context>> {
        self.listener.with(|id| id.context())
    }

    /// Port, partition and queue key of a queue pair that inquiries can be answered with.
    ///
    /// # Errors
    /// [`Error::Call`] where it listens through every device; [`Error::Unsupported`] over iWARP.
    pub fn configure<'a>(&self, builder: QueuePairBuilder<'a, Ud>) -> Result<QueuePairBuilder<'a, Ud>> {
        Ok(self.listener.with(|id| Place::of(&id.base))?.configure(builder))
    }

    /// An inquiry, if one waits. Never blocks.
    ///
    /// # Errors
    /// As for [`Acceptor::try_accept`](super::Acceptor::try_accept).
    pub fn try_accept(&self) -> Result<Option<Inquiry>> {
        Ok(self.listener.try_take()?.map(|(inquiry, _)| inquiry))
    }

    /// Waits for an inquiry. `None` waits for ever.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; as for [`try_accept`](Self::try_accept).
    pub fn accept(&self, timeout: Option<Duration>) -> Result<Inquiry> {
        Ok(self.listener.take(timeout, "an inquiry for datagrams")?.0)
    }
}

impl AsFd for DatagramService {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Somebody asks which queue pair takes datagrams. It can be answered once, on any thread. Dropped, who asks is refused.
#[derive(Debug)]
pub struct Inquiry {
    base: Base,
    context: Context,
    listener: IdNumber,
    private_data: Vec<u8>,
}

impl Asking for Inquiry {
    fn of(event: Event) -> std::result::Result<Self, Event> {
        match event {
            Event::Inquiry(inquiry) => Ok(inquiry),
            other => Err(other),
        }
    }

    fn migrate(&mut self, to: &EventChannel) -> Result<()> {
        self.base.migrate(to)
    }
}

impl Inquiry {
    pub(super) const fn new(base: Base, context: Context, listener: IdNumber, private_data: Vec<u8>) -> Self {
        Self { base, context, listener, private_data }
    }

    /// The device that it came through, shared by everything that the connection manager finds through it.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Which listener was asked.
    #[must_use]
    pub const fn listener(&self) -> IdNumber {
        self.listener
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
        Ok(Place::of(&self.base)?.configure(builder))
    }

    /// Says that datagrams go to this queue pair, and up to 136 bytes (rdma_accept(3)). One queue pair can answer to any number. Post receives to it before.
    ///
    /// # Errors
    /// Itself with [`Error::Invalid`] for a queue pair of another context, one with another port or queue key than [`configure`](Self::configure) sets,
    /// and for data that does not fit; [`Error::Call`] from the system.
    pub fn answer(
        self,
        queue_pair: &QueuePair<Ud>,
        private_data: &[u8],
    ) -> std::result::Result<(), NotDone<Self>> {
        let answer = ConnectionAttributes { qp_num: queue_pair.number(), ..Default::default() };
        let answered = devices_match(&self.context, queue_pair.protection_domain().context())
            .and_then(|()| Place::of(&self.base)?.check(queue_pair))
            .and_then(|()| self.base.accept(&answer, private_data));
        answered.map_err(|error| NotDone { back: self, error: error.into() })
    }

    /// Refuses. What the network carries of it says no reason.
    ///
    /// # Errors
    /// As for [`Incoming::reject`](super::Incoming::reject).
    pub fn reject(self) -> Result<()> {
        self.base.reject(&[])
    }
}

/// A group of the network that an address of this machine is in. Left when it is dropped: queue pairs that were put into it get nothing then.
#[derive(Debug)]
pub struct Group {
    base: Base,
    context: Context,
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
        let channel = library.event_channel()?;
        let id = channel.id::<Ud>(PortSpace::UDP)?.bind(local)?.join(&group.into())?;
        Ok(wait::drive(&channel, id, "rdma_join_multicast", &deadline, drop, drop)?)
    }

    /// The device, shared by everything that the connection manager finds through it.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
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
        handle(&self.context, pd, &self.attributes)
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
        devices_match(&self.context, queue_pair.protection_domain().context())?;
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
            cause: format!("the connection manager gave {} a group without a GID", self.base),
        })?;
        Ok((route.gid, path.lid))
    }
}

impl Id<Bound, Ud> {
    /// Joins a group through the device of its address (rdma_join_multicast(3)). Dropped, it is left again; an identifier for each group.
    ///
    /// # Errors
    /// Itself with [`Error::Call`]: `ENODEV` where it is bound to the unspecified address; `ENOSYS` and `EOPNOTSUPP` for a device without groups (iWARP).
    #[doc(alias = "rdma_join_multicast")]
    pub fn join(self, group: &Address) -> std::result::Result<Id<Joining, Ud>, NotDone<Self>> {
        match self.base.device().and_then(|context| self.base.join(group).map(|()| context)) {
            Ok(context) => Ok(self.becomes(Joining { context })),
            Err(error) => Err(NotDone { back: self, error: error.into() }),
        }
    }
}

/// Goes on as the group, when it is in it.
impl Waits for Id<Joining, Ud> {
    type Next = Group;
    type Back = ();

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> std::result::Result<Progress<Self>, NotDone<()>> {
        let joined = match judge(&self.base, notice, "rdma_join_multicast", &[EventKind::MULTICAST_JOIN]) {
            Verdict::Good(joined) => addressed(&joined, &self.base)
                .and_then(|to| Ok((to, Place { qkey: to.qkey, ..Place::of(&self.base)? }))),
            Verdict::Nothing(notice) => return Ok(Progress::Same(self, notice)),
            Verdict::Failed(error) => return Err(NotDone { back: (), error }),
        };
        match joined {
            Ok((attributes, place)) => {
                let Self { base, state: Joining { context }, .. } = self;
                Ok(Progress::Next(Group { base, context, place, attributes }))
            }
            Err(error) => Err(NotDone { back: (), error: error.into() }),
        }
    }
}

/// Fails when the network has lost the group (`MULTICAST_ERROR`: join it anew), or the device is removed; nothing else ends it.
impl Waits for Group {
    type Next = Infallible;
    type Back = ();

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> std::result::Result<Progress<Self>, NotDone<()>> {
        match judge(&self.base, notice, "rdma_join_multicast", &[]) {
            Verdict::Failed(error) => Err(NotDone { back: (), error }),
            Verdict::Good(notice) | Verdict::Nothing(notice) => Ok(Progress::Same(self, notice)),
        }
    }
}
