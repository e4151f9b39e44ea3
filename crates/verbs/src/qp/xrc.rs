//! Extended reliable connections (XRC): one connection to a process, whose requests name the shared receive queue that they go to. So n processes of
//! each of two hosts need n connections for each of them, not n times n.
//!
//! Order of use. Who receives: a domain, shared receive queues of it
//! ([`extended`](crate::srq::SharedReceiveQueueBuilder::extended)), a receiver for each connection. Who sends: a queue pair
//! [`XrcSend`](super::XrcSend), requests with [`to_queue`](super::SendRequest::to_queue). InfiniBand specification, volume 1, annex A14; ibv_open_xrcd(3).
#![allow(unsafe_code)]

use super::attributes::Attributes;
use super::builder::{Options, choices, options};
use super::config::{MinRnrTimer, Mtu, PacketSequenceNumber};
use super::endpoint::Endpoint;
use super::pair::{Calls, Stepped, change, named, query};
use super::prepared::Plan;
use super::state::{AttributeMask, ServiceType, State};
use crate::device::{Choice, Context};
use crate::error::{Error, Result};
use crate::memory::RemoteAccess;
use sinew_verbs_sys as sys;
use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// What receivers and shared receive queues have in common. `Clone` is another handle to the same; `Send` and `Sync`. Closed with the last handle,
/// which receivers and queues of it hold too; it holds its device.
#[derive(Clone)]
#[doc(alias = "ibv_xrcd")]
pub struct XrcDomain {
    shared: Arc<Opened>,
}

struct Opened {
    context: Context,
    xrcd: NonNull<sys::ibv_xrcd>,
}

// SAFETY: a domain is named and closed by any thread.
unsafe impl Send for Opened {}
// SAFETY: the same.
unsafe impl Sync for Opened {}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once; what is of it holds this value.
        if let Err(errno) = unsafe { sys::ibv_close_xrcd(self.xrcd.as_ptr()) } {
            self.context.library().leaked("ibv_close_xrcd", &self.context.name(), errno.0);
            std::mem::forget(self.context.clone());
        }
    }
}

impl Context {
    /// A domain of extended connections. One that is opened for a file is the same in each process that opens it for that file; without a file it is
    /// this process's own.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the device has none; [`Error::Call`] from the device, or for a descriptor that is none.
    #[doc(alias = "ibv_open_xrcd")]
    pub fn xrc_domain(&self, file: Option<BorrowedFd<'_>>) -> Result<XrcDomain> {
        let mut attributes = sys::ibv_xrcd_init_attr {
            comp_mask: sys::IBV_XRCD_INIT_ATTR_FD | sys::IBV_XRCD_INIT_ATTR_OFLAGS,
            fd: file.map_or(-1, |file| file.as_raw_fd()),
            oflags: libc::O_CREAT,
        };
        // SAFETY: the context is open, the attributes are a local.
        let xrcd = unsafe { sys::ibv_open_xrcd(self.as_raw(), &mut attributes) };
        let xrcd = xrcd.and_then(|xrcd| NonNull::new(xrcd).ok_or(sys::Errno::UNKNOWN));
        let xrcd = xrcd.map_err(|errno| Error::call("ibv_open_xrcd", self.name(), errno.0))?;
        Ok(XrcDomain { shared: Arc::new(Opened { context: self.clone(), xrcd }) })
    }
}

impl XrcDomain {
    /// The device.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.shared.context
    }

    /// The raw domain; it stays as long as a handle is there.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_xrcd {
        self.shared.xrcd.as_ptr()
    }

    /// The receiving side of a connection.
    #[must_use]
    pub const fn receiver(&self) -> XrcReceiverBuilder<'_> {
        XrcReceiverBuilder { domain: self, options: Options::DEFAULT }
    }
}

/// How to make the receiving side of an extended connection. Every option has a default that works.
#[derive(Clone)]
pub struct XrcReceiverBuilder<'a> {
    domain: &'a XrcDomain,
    options: Options,
}

impl XrcReceiverBuilder<'_> {
    choices! {
        /// The port; chosen by itself by default: one that is up.
        port: u8;
        /// The place of our GID in the port's table; chosen by itself by default: a routed one.
        gid_index: u32;
        /// The number of our first packet, of which there is none but answers; random by default.
        psn: PacketSequenceNumber;
        /// The largest packet; by default what both ports carry.
        mtu: Mtu;
    }

    options! {
        /// Place of the partition key in the port's table; 0 by default.
        pkey_index: u16;
        /// Routers on the way, at most; 64 by default.
        hop_limit: u8;
        /// Traffic class (DSCP and ECN bits over RoCE v2); 0 by default.
        traffic_class: u8;
        /// What a sender is asked to wait that finds no receive; 0.64 ms by default.
        min_rnr_timer: MinRnrTimer;
        /// Reads and atomics under way to here; 16 by default, less where the device has less.
        responder_resources: u8;
    }

    /// What the peer may do through it with memory that was exposed; nothing by default.
    #[must_use]
    pub const fn remote_access(mut self, access: RemoteAccess) -> Self {
        self.options.access = access;
        self
    }

    /// Makes it, in INIT.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a GID that there is not; [`Error::Unsupported`] where the device has no extended connections; [`Error::Call`] when it
    /// has no more.
    #[doc(alias = "ibv_create_qp_ex")]
    pub fn build(self) -> Result<XrcReceiver> {
        let Self { domain, options } = self;
        let context = domain.context();
        let choice = options.choose(context)?;
        let mut attributes = sys::ibv_qp_init_attr_ex::zeroed();
        attributes.qp_type = sys::IbvQpType(ServiceType::XRC_RECV.as_raw());
        attributes.comp_mask = sys::IBV_QP_INIT_ATTR_XRCD;
        attributes.xrcd = domain.as_raw();
        // SAFETY: the context is open, the attributes name a live object of it.
        let qp = unsafe { context.table().create_qp_ex(context.as_raw(), &mut attributes) };
        let qp = qp.and_then(|qp| NonNull::new(qp).ok_or(sys::Errno::UNKNOWN));
        let qp = qp.map_err(|errno| {
            Error::call("ibv_create_qp", format_args!("XRC_RECV of {}", context.name()), errno.0)
        })?;
        let held = ManuallyDrop::new(domain.clone());
        let plan = Plan { options, choice, psn: PacketSequenceNumber::default(), ready_for: None };
        let mut receiver = XrcReceiver { qp, domain: held, plan, calls: Calls::default() };
        let mut plan = receiver.plan.clone();
        plan.init(&receiver)?;
        receiver.plan = plan;
        Ok(receiver)
    }
}

/// The receiving side of an extended connection. It has no queues: messages go to the shared receive queues of its domain, writes and reads to memory.
/// `Send` and `Sync`. Destroyed when it is dropped, before its domain, which it holds.
#[doc(alias = "IBV_QPT_XRC_RECV")]
pub struct XrcReceiver {
    qp: NonNull<sys::ibv_qp>,
    domain: ManuallyDrop<XrcDomain>,
    plan: Plan,
    calls: Calls,
}

// SAFETY: changed and destroyed by any thread.
unsafe impl Send for XrcReceiver {}
// SAFETY: the same; shared references change and ask it, one call at a time (`Calls`).
unsafe impl Sync for XrcReceiver {}

impl Stepped for XrcReceiver {
    fn context(&self) -> &Context {
        self.domain.context()
    }

    fn number(&self) -> u32 {
        self.number()
    }

    fn service_type(&self) -> ServiceType {
        ServiceType::XRC_RECV
    }

    fn change(&self, attributes: &Attributes) -> Result<()> {
        let (context, service) = (self.domain.context(), ServiceType::XRC_RECV);
        // SAFETY: the queue pair is alive, and the calls are its own.
        unsafe { change(context, self.as_raw(), &self.calls, service, attributes) }
    }
}

impl XrcReceiver {
    /// Its number, which the peer names.
    #[must_use]
    pub fn number(&self) -> u32 {
        // SAFETY: the queue pair is alive, and nobody writes the field.
        unsafe { self.qp.as_ref().qp_num }
    }

    /// The raw queue pair; it stays as long as this value.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_qp {
        self.qp.as_ptr()
    }

    /// The domain of its shared receive queues.
    #[must_use]
    pub fn domain(&self) -> &XrcDomain {
        &self.domain
    }

    /// Which port and GID it uses, and why.
    #[must_use]
    pub const fn choice(&self) -> &Choice {
        &self.plan.choice
    }

    /// What the sending side needs to know.
    ///
    /// # Errors
    /// [`Error::Call`] when the port cannot be asked.
    pub fn endpoint(&self) -> Result<Endpoint> {
        self.plan.endpoint(self)
    }

    /// Connects to the sending side whose endpoint this is: to RTR, in which it stays.
    ///
    /// # Errors
    /// [`Error::Peer`] when the endpoint cannot be connected to, and [`Error::Transition`] when the device refuses.
    pub fn connect(&mut self, peer: &Endpoint) -> Result<()> {
        let mut plan = self.plan.clone();
        plan.connect(self, peer)?;
        self.plan = plan;
        Ok(())
    }

    /// Changes it by hand.
    ///
    /// # Errors
    /// [`Error::Transition`] when the step is refused, with what is missing or does not belong.
    #[doc(alias = "ibv_modify_qp")]
    pub fn modify(&self, attributes: &Attributes) -> Result<()> {
        self.change(attributes)
    }

    /// What the device says of it, of what the mask asks for.
    ///
    /// # Errors
    /// [`Error::Call`] from the device.
    #[doc(alias = "ibv_query_qp")]
    pub fn query(&self, mask: AttributeMask) -> Result<Attributes> {
        // SAFETY: the queue pair is alive, and the calls are its own.
        unsafe { query(self.domain.context(), self.as_raw(), &self.calls, mask) }
    }

    /// The state that it is in, by the device.
    ///
    /// # Errors
    /// [`Error::Call`] from the device.
    pub fn state(&self) -> Result<State> {
        Ok(self.query(AttributeMask::STATE)?.state().unwrap_or(State::ERR))
    }
}

impl Drop for XrcReceiver {
    fn drop(&mut self) {
        let context = self.domain.context().clone();
        // SAFETY: made by us, destroyed once.
        let answer = unsafe { (context.table().ibv_destroy_qp)(self.qp.as_ptr()) };
        match sys::Errno::check(answer) {
            // SAFETY: dropped once, here, after the device forgot the queue pair.
            Ok(()) => unsafe { ManuallyDrop::drop(&mut self.domain) },
            // Its domain and the device stay for ever.
            Err(errno) => {
                // SAFETY: it is alive still.
                let object = unsafe { named(&context, self.as_raw()) };
                context.library().leaked("ibv_destroy_qp", &object, errno.0);
            }
        }
    }
}

impl fmt::Debug for XrcDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XrcDomain of {}", self.context().name())
    }
}

impl fmt::Debug for XrcReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XrcReceiver({:#x} of {})", self.number(), self.domain.context().name())
    }
}
