//! What carries messages, as types: an operation that a service does not have is not there to call.

use super::state::ServiceType;
use crate::ah::AddressHandle;
use crate::error::Error;
use crate::pd::ProtectionDomain;
use sinew_verbs_sys as sys;
use std::fmt::Debug;

pub(crate) mod sealed {
    /// What only this crate can say of a service.
    pub trait Sealed {
        /// Whom a request goes to, where each says it itself.
        type Way: super::Way;
    }
}

/// Whom a request goes to.
pub trait Way: Default + Debug + Send + Sync + 'static {
    /// As requests name it.
    ///
    /// # Errors
    /// For a datagram that goes to nobody, or by a way of another domain.
    fn resolve(&self, pd: &ProtectionDomain) -> Result<Option<sys::ibv_send_wr_ud>, Box<Error>>;

    /// The way of it.
    fn handle(&self) -> Option<&AddressHandle>;
}

/// To the peer of the connection.
impl Way for () {
    #[inline]
    fn resolve(&self, _: &ProtectionDomain) -> Result<Option<sys::ibv_send_wr_ud>, Box<Error>> {
        Ok(None)
    }

    fn handle(&self) -> Option<&AddressHandle> {
        None
    }
}

/// The destination of a datagram, with the way there, which lives as long.
#[derive(Debug)]
pub struct Destined {
    pub(crate) handle: AddressHandle,
    pub(crate) qp_num: u32,
    pub(crate) qkey: u32,
}

impl Way for Option<Destined> {
    fn resolve(&self, pd: &ProtectionDomain) -> Result<Option<sys::ibv_send_wr_ud>, Box<Error>> {
        let Some(Destined { handle, qp_num, qkey }) = self else {
            let error = Error::invalid("datagram", "it goes to nobody", "say whom it goes to (`to`)");
            return Err(Box::new(error));
        };
        if !handle.protection_domain().is(pd) {
            return Err(crate::hub::of_another_domain());
        }
        Ok(Some(sys::ibv_send_wr_ud { ah: handle.as_raw(), remote_qpn: *qp_num, remote_qkey: *qkey }))
    }

    fn handle(&self) -> Option<&AddressHandle> {
        self.as_ref().map(|destined| &destined.handle)
    }
}

/// A service of queue pairs (InfiniBand specification, volume 1, 9.7 and 9.8).
pub trait Service: sealed::Sealed + Send + Sync + 'static {
    /// Its number.
    const TYPE: ServiceType;
    /// Whether requests complete in the order posted.
    const IN_ORDER: bool;
    /// The operations that it has, as far as a device does too.
    const OPERATIONS: Operations;
}

/// Between two queue pairs: RC and UC.
pub trait Connected: Service {}

/// To any queue pair, named with each request: UD and SRD.
pub trait Datagram: Service + sealed::Sealed<Way = Option<Destined>> {}

/// Writes remote memory.
pub trait Writes: Service {}

/// Reads remote memory.
pub trait Reads: Writes {}

/// Does atomics on remote memory, invalidates keys, waits for reads (fences).
pub trait Atomics: Reads {}

/// Reliable connection: acknowledged, in order, between two queue pairs. Everything there is.
#[derive(Debug)]
pub enum Rc {}

/// Unreliable connection: in order, between two queue pairs, lost messages are lost. Sends and writes.
#[derive(Debug)]
pub enum Uc {}

/// Unreliable datagram: messages of up to one packet to anybody. Received ones begin with 40 bytes of a global route.
#[derive(Debug)]
pub enum Ud {}

/// Scalable reliable datagram (Amazon's EFA): acknowledged, in any order, to anybody.
#[derive(Debug)]
pub enum Srd {}

/// Raw packets (Ethernet): whole frames, sent as they are and received as rules steer them ([`FlowRule`](super::flow::FlowRule)). Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub enum RawPacket {}

/// The sending side of an extended reliable connection: it goes to a process, and each request names a shared receive queue there
/// ([`to_queue`](super::SendRequest::to_queue)). The other side is an [`XrcReceiver`](super::xrc::XrcReceiver).
#[derive(Debug)]
pub enum XrcSend {}

bitflags::bitflags! {
    /// Operations that a queue pair can be made for (`IBV_QP_EX_WITH_*`).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    #[doc(alias = "ibv_qp_create_send_ops_flags")]
    pub struct Operations: u64 {
        /// Write.
        const WRITE = 1;
        /// Write with immediate data.
        const WRITE_IMMEDIATE = 1 << 1;
        /// Send.
        const SEND = 1 << 2;
        /// Send with immediate data.
        const SEND_IMMEDIATE = 1 << 3;
        /// Read.
        const READ = 1 << 4;
        /// Compare-and-swap.
        const COMPARE_SWAP = 1 << 5;
        /// Fetch-and-add.
        const FETCH_ADD = 1 << 6;
        /// Invalidate a key of one's own.
        const LOCAL_INVALIDATE = 1 << 7;
        /// Bind a memory window.
        const BIND_WINDOW = 1 << 8;
        /// Send, and invalidate a key of the peer's.
        const SEND_INVALIDATE = 1 << 9;
    }
}

impl Operations {
    pub(super) const SENDS: Self = Self::SEND.union(Self::SEND_IMMEDIATE);
    pub(super) const WRITES: Self = Self::WRITE.union(Self::WRITE_IMMEDIATE);
    /// What needs the device's atomics.
    pub(crate) const ATOMICS: Self = Self::COMPARE_SWAP.union(Self::FETCH_ADD);
    /// What needs the device's memory management extensions.
    pub(crate) const KEYS: Self =
        Self::LOCAL_INVALIDATE.union(Self::SEND_INVALIDATE).union(Self::BIND_WINDOW);
}

macro_rules! service {
    ($name:ident, $way:ty, $in_order:literal, $operations:expr, [$($also:ident),*]) => {
        impl sealed::Sealed for $name {
            type Way = $way;
        }
        impl Service for $name {
            const TYPE: ServiceType = service!(@type $name);
            const IN_ORDER: bool = $in_order;
            const OPERATIONS: Operations = $operations;
        }
        $(impl $also for $name {})*
    };
    (@type Rc) => { ServiceType::RC };
    (@type Uc) => { ServiceType::UC };
    (@type Ud) => { ServiceType::UD };
    (@type Srd) => { ServiceType::DRIVER };
    (@type RawPacket) => { ServiceType::RAW_PACKET };
    (@type XrcSend) => { ServiceType::XRC_SEND };
}

service!(Rc, (), true, Operations::all(), [Connected, Writes, Reads, Atomics]);
service!(Uc, (), true, Operations::SENDS.union(Operations::WRITES), [Connected, Writes]);
service!(RawPacket, (), true, Operations::SEND, []);
service!(XrcSend, (), true, Operations::all(), [Connected, Writes, Reads, Atomics]);
service!(Ud, Option<Destined>, true, Operations::SENDS, [Datagram]);
service!(
    Srd,
    Option<Destined>,
    false,
    Operations::SENDS.union(Operations::WRITES).union(Operations::READ),
    [Datagram, Writes, Reads]
);
