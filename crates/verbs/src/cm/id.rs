//! Identifiers whose type says what has happened to them, up to a path to the peer. What goes on from there is in `peer` and `datagram`.
//!
//! Each step takes the identifier and gives that of the next state, or itself back with the error. Called by programs with an event loop, and by
//! the blocking forms. Nothing here waits.

use super::address::Address;
use super::base::Base;
use super::channel::EventChannel;
use super::event::{EventKind, IdNumber, Notice};
use super::parameters::PortSpace;
#[cfg(doc)]
use super::peer::Connecting;
use super::progress::{NotDone, Progress, Verdict, Waits, judge};
use crate::device::Context;
use crate::error::{Error, Result};
use crate::qp::state::ServiceType;
use crate::qp::{Rc, Service};
use sinew_verbs_sys as sys;
use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// An identifier in state `T`, for connections (`Rc`) or for datagrams (`Ud`): a listener, or one end of a connection. `Send` and `Sync` where its state is.
///
/// Dropped in any state, it is destroyed: what is under way ends, a request that was not answered is refused, the peer of a connection is told. That
/// waits neither for peers nor for events, as those are acknowledged when they are taken. Over iWARP the kernel lets go of a peer that was asked, and has not answered, only when it
/// answers or the device gives it up (`siw`: 10 s): such an identifier is ended by a thread of this crate, which keeps its channel meanwhile, and tells nobody of events of it. A queue
/// pair that it was to connect may have to wait as long in its own end, whoever drops it, as its memory is in use until then: take it out
/// ([`into_queue_pair`](Id::<Connecting<crate::qp::QueuePair<Rc>>>::into_queue_pair)), and drop it where that may wait.
///
/// It has no queue pair of librdmacm's making (`rdma_create_qp`): queue pairs are made as everywhere, move into it when they are connected, and come out
/// when that is over.
#[doc(alias = "rdma_cm_id")]
pub struct Id<T, S: Service = Rc> {
    /// Before the identifier: what is connected ends first.
    pub(super) state: T,
    pub(super) base: Base,
    service: PhantomData<fn() -> S>,
}

/// Made; options can be set.
#[derive(Debug)]
pub struct Created;
/// Bound to an address of this machine.
#[derive(Debug)]
pub struct Bound;
/// Requests arrive at its channel, as [`Event::Request`](super::Event::Request) or [`Event::Inquiry`](super::Event::Inquiry).
#[derive(Debug)]
pub struct Listening;
/// Waits for `ADDR_RESOLVED` or `ADDR_ERROR`.
#[derive(Debug)]
pub struct ResolvingAddress;
/// Its device is known.
#[derive(Debug)]
pub struct AddressResolved {
    pub(super) context: Context,
}
/// Waits for `ROUTE_RESOLVED` or `ROUTE_ERROR`.
#[derive(Debug)]
pub struct ResolvingRoute {
    context: Context,
}
/// The path to the peer is known: it can be asked.
#[derive(Debug)]
pub struct RouteResolved {
    pub(super) context: Context,
}

/// States in which the device is known.
pub trait OnDevice {
    #[doc(hidden)]
    fn device(&self) -> &Context;
}

macro_rules! on_device {
    ($($state:ty),*) => {
        $(impl OnDevice for $state {
            fn device(&self) -> &Context {
                &self.context
            }
        })*
    };
}
pub(super) use on_device;
on_device!(AddressResolved, ResolvingRoute, RouteResolved);

impl EventChannel {
    /// An identifier whose events arrive here: `id::<Rc>(PortSpace::TCP)` for connections, `id::<Ud>(PortSpace::UDP)` for datagrams (rdma_create_id(3)).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a port space of other services; [`Error::Call`] when the system has no more.
    #[doc(alias = "rdma_create_id")]
    pub fn id<S: Service>(&self, space: PortSpace) -> Result<Id<Created, S>> {
        let of_datagrams = matches!(space, PortSpace::UDP | PortSpace::IPOIB);
        if S::TYPE != if of_datagrams { ServiceType::UD } else { ServiceType::RC } {
            return Err(Error::invalid(
                "identifier",
                format!("the port space {space} is not of service {:?}", S::TYPE),
                "`id::<Rc>(PortSpace::TCP)` is for connections, `id::<Ud>(PortSpace::UDP)` for datagrams",
            ));
        }
        Ok(Id::new(Base::new(self, space)?, Created))
    }
}

impl<T, S: Service> Id<T, S> {
    pub(super) const fn new(base: Base, state: T) -> Self {
        Self { state, base, service: PhantomData }
    }

    /// The same identifier in another state.
    pub(super) fn becomes<U>(self, state: U) -> Id<U, S> {
        Id::new(self.base, state)
    }

    /// It goes on where a call succeeds, and stays what it is otherwise.
    pub(super) fn after<U>(
        self,
        answer: Result<()>,
        next: impl FnOnce(T) -> U,
    ) -> std::result::Result<Id<U, S>, NotDone<Self>> {
        match answer {
            Ok(()) => Ok(Id::new(self.base, next(self.state))),
            Err(error) => Err(NotDone { back: self, error: error.into() }),
        }
    }

    /// Its number, which events of it carry: what a program knows of the identifier can be found by it (C has a pointer for that).
    #[must_use]
    pub fn number(&self) -> IdNumber {
        self.base.number()
    }

    /// The raw identifier; it stays as long as this value. Calls on it by hand go beside the lock that those here hold, and beside the types.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::rdma_cm_id {
        self.base.as_raw()
    }

    /// Moves it, and its events that nobody has taken, to another channel (rdma_migrate_id(3)). Does not block.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a channel of another library; [`Error::Call`] from the system; it stays where it is then.
    #[doc(alias = "rdma_migrate_id")]
    pub fn migrate(&mut self, to: &EventChannel) -> Result<()> {
        self.base.migrate(to)
    }

    /// Which ports it is of.
    ///
    /// # Errors
    /// None from the system; the table of the library is looked for.
    pub fn port_space(&self) -> Result<PortSpace> {
        self.base.port_space()
    }

    /// The port of its device, from 1; nothing before a device is found.
    ///
    /// # Errors
    /// As [`port_space`](Self::port_space).
    pub fn device_port(&self) -> Result<Option<u8>> {
        self.base.device_port()
    }

    /// Its own address; nothing before it is bound or resolved. After binding to port 0 it says which port it is.
    ///
    /// # Errors
    /// As [`port_space`](Self::port_space).
    #[doc(alias = "rdma_get_local_addr")]
    pub fn local_address(&self) -> Result<Option<Address>> {
        self.base.local_address()
    }

    /// The peer's address; nothing before it is resolved.
    ///
    /// # Errors
    /// As [`port_space`](Self::port_space).
    #[doc(alias = "rdma_get_peer_addr")]
    pub fn peer_address(&self) -> Result<Option<Address>> {
        self.base.peer_address()
    }

    fn begin(
        self,
        from: Option<&Address>,
        to: &Address,
        timeout: Duration,
    ) -> std::result::Result<Id<ResolvingAddress, S>, NotDone<Self>> {
        let answer = self.base.resolve_address(from, to, timeout);
        self.after(answer, |_| ResolvingAddress)
    }
}

impl<T: OnDevice, S: Service> Id<T, S> {
    /// The device, shared by everything that the connection manager finds through it: what is to be connected is made from it. It stays open as long as
    /// a handle of it, also when the identifier is gone.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.state.device()
    }
}

impl<S: Service> Id<Created, S> {
    /// Type of service of what it sends (rdma_set_option(3)).
    ///
    /// # Errors
    /// [`Error::Call`] from the system.
    #[doc(alias = "rdma_set_option")]
    pub fn set_type_of_service(&self, tos: u8) -> Result<()> {
        self.base.set_type_of_service(tos)
    }

    /// Whether an address in use can be bound (as `SO_REUSEADDR`).
    ///
    /// # Errors
    /// [`Error::Call`] from the system.
    pub fn set_reuse_address(&self, reuse: bool) -> Result<()> {
        self.base.set_reuse_address(reuse)
    }

    /// Whether the unspecified address of IPv6 leaves IPv4 out.
    ///
    /// # Errors
    /// [`Error::Call`] from the system.
    pub fn set_one_family(&self, only: bool) -> Result<()> {
        self.base.set_one_family(only)
    }

    /// Binds it to an address of this machine; port 0 for any port, the unspecified address for every device (rdma_bind_addr(3)).
    ///
    /// # Errors
    /// Itself with [`Error::Call`]: `EADDRINUSE`; `ENODEV` and `EADDRNOTAVAIL` when no device has the address.
    #[doc(alias = "rdma_bind_addr")]
    pub fn bind(self, address: impl Into<Address>) -> std::result::Result<Id<Bound, S>, NotDone<Self>> {
        let answer = self.base.bind(address);
        self.after(answer, |_| Bound)
    }

    /// Finds the device with the way to an address, from one of this machine or from any (rdma_resolve_addr(3)). The kernel gives up after `timeout`.
    ///
    /// # Errors
    /// Itself with [`Error::Call`] when it does not begin, as `ENODEV` where no device has a way there.
    #[doc(alias = "rdma_resolve_addr")]
    pub fn resolve_address(
        self,
        from: Option<&Address>,
        to: &Address,
        timeout: Duration,
    ) -> std::result::Result<Id<ResolvingAddress, S>, NotDone<Self>> {
        self.begin(from, to, timeout)
    }
}

impl<S: Service> Id<Bound, S> {
    /// Listens; that many requests may wait to be taken (rdma_listen(3)).
    ///
    /// # Errors
    /// Itself with [`Error::Call`] from the system.
    #[doc(alias = "rdma_listen")]
    pub fn listen(self, backlog: u32) -> std::result::Result<Id<Listening, S>, NotDone<Self>> {
        let answer = self.base.listen(backlog);
        self.after(answer, |_| Listening)
    }

    /// Finds the device with the way to an address, from the one that it is bound to (rdma_resolve_addr(3)).
    ///
    /// # Errors
    /// As [of one that is not bound](Id::<Created>::resolve_address).
    pub fn resolve_address(
        self,
        to: &Address,
        timeout: Duration,
    ) -> std::result::Result<Id<ResolvingAddress, S>, NotDone<Self>> {
        self.begin(None, to, timeout)
    }

    /// The device of its address; nothing where that is the unspecified one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device that cannot post or poll.
    pub fn context(&self) -> Result<Option<Context>> {
        self.base.context()
    }
}

impl<S: Service> Id<Listening, S> {
    /// The device of its address; nothing where that is the unspecified one: each request says which it came through.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device that cannot post or poll.
    pub fn context(&self) -> Result<Option<Context>> {
        self.base.context()
    }
}

impl<S: Service> Id<AddressResolved, S> {
    /// Finds the path to the address (rdma_resolve_route(3)). The kernel gives up after `timeout`.
    ///
    /// # Errors
    /// Itself with [`Error::Call`] when it does not begin.
    #[doc(alias = "rdma_resolve_route")]
    pub fn resolve_route(
        self,
        timeout: Duration,
    ) -> std::result::Result<Id<ResolvingRoute, S>, NotDone<Self>> {
        let answer = self.base.resolve_route(timeout);
        self.after(answer, |AddressResolved { context }| ResolvingRoute { context })
    }
}

/// Fails with `DEVICE_REMOVAL`; nothing else ends it.
impl<S: Service> Waits for Id<Listening, S> {
    type Next = Infallible;
    type Back = ();

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> std::result::Result<Progress<Self>, NotDone<()>> {
        match judge(&self.base, notice, "rdma_listen", &[]) {
            Verdict::Failed(error) => Err(NotDone { back: (), error }),
            Verdict::Good(notice) | Verdict::Nothing(notice) => Ok(Progress::Same(self, notice)),
        }
    }
}

/// Goes on with the device; when the address cannot be resolved, it can be tried again.
impl<S: Service> Waits for Id<ResolvingAddress, S> {
    type Next = Id<AddressResolved, S>;
    type Back = Id<Bound, S>;

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> std::result::Result<Progress<Self>, NotDone<Self::Back>> {
        let failed = match judge(&self.base, notice, "rdma_resolve_addr", &[EventKind::ADDR_RESOLVED]) {
            Verdict::Good(_) => match self.base.device() {
                Ok(context) => return Ok(Progress::Next(self.becomes(AddressResolved { context }))),
                Err(error) => error.into(),
            },
            Verdict::Nothing(notice) => return Ok(Progress::Same(self, notice)),
            Verdict::Failed(error) => error,
        };
        Err(NotDone { back: self.becomes(Bound), error: failed })
    }
}

/// Goes on with the path; when there is none, it can be looked for again.
impl<S: Service> Waits for Id<ResolvingRoute, S> {
    type Next = Id<RouteResolved, S>;
    type Back = Id<AddressResolved, S>;

    fn number(&self) -> IdNumber {
        self.base.number()
    }

    fn handle(self, notice: Notice) -> std::result::Result<Progress<Self>, NotDone<Self::Back>> {
        match judge(&self.base, notice, "rdma_resolve_route", &[EventKind::ROUTE_RESOLVED]) {
            Verdict::Good(_) => {
                Ok(Progress::Next(Id::new(self.base, RouteResolved { context: self.state.context })))
            }
            Verdict::Nothing(notice) => Ok(Progress::Same(self, notice)),
            Verdict::Failed(error) => {
                let back = Id::new(self.base, AddressResolved { context: self.state.context });
                Err(NotDone { back, error })
            }
        }
    }
}

impl<T, S: Service> fmt::Display for Id<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.base.fmt(f)
    }
}

impl<T, S: Service> fmt::Debug for Id<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = std::any::type_name::<T>();
        let (state, _) = state.split_once('<').unwrap_or((state, ""));
        write!(f, "Id({}, {self})", state.rsplit("::").next().unwrap_or(state))
    }
}
