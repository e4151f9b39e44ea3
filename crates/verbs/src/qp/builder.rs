//! Making a queue pair: options with their checks, then the way to the peer.
#![allow(unsafe_code)]

use super::config::{AckTimeout, MinRnrTimer, Mtu, PacketSequenceNumber, RetryCount, RnrRetry};
use super::pair::{Depths, QueuePair};
use super::prepared::{Plan, PreparedQueuePair};
use super::service::{Atomics, Connected, Operations, Service};
use super::state::ServiceType;
use crate::cq::CompletionQueue;
use crate::device::{Capabilities, Choice, Context};
use crate::error::{Error, Result};
use crate::memory::RemoteAccess;
use crate::pd::ProtectionDomain;
use crate::srq::SharedReceiveQueue;
use sinew_verbs_sys as sys;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// The number by which Linux' software RoCE calls its maker. In rdma-core 44 its extended posting takes the length of a list to be that
/// of its first element times their number, so lists are posted by `ibv_post_send` there.
const RXE: u32 = 0xff_ffff;

/// How to make a queue pair of service `S`. Every option has a default that works.
#[derive(Clone)]
#[doc(alias = "ibv_qp_init_attr")]
pub struct QueuePairBuilder<'a, S: Service> {
    pub(super) pd: &'a ProtectionDomain,
    pub(super) send: &'a CompletionQueue,
    pub(super) receive: &'a CompletionQueue,
    pub(super) shared: Option<&'a SharedReceiveQueue>,
    pub(super) depths: Depths,
    pub(super) options: Options,
    service: PhantomData<fn() -> S>,
}

/// What a queue pair keeps for its ways up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(super) port: Option<u8>,
    pub(super) gid_index: Option<u32>,
    pub(super) pkey_index: u16,
    pub(super) qkey: u32,
    pub(super) access: RemoteAccess,
    pub(super) mtu: Option<Mtu>,
    pub(super) psn: Option<PacketSequenceNumber>,
    pub(super) ack_timeout: AckTimeout,
    pub(super) retries: RetryCount,
    pub(super) rnr_retries: RnrRetry,
    pub(super) min_rnr_timer: MinRnrTimer,
    pub(super) initiator_depth: u8,
    pub(super) responder_resources: u8,
    pub(super) service_level: u8,
    pub(super) traffic_class: u8,
    pub(super) flow_label: u32,
    pub(super) hop_limit: u8,
    pub(super) signal_all: bool,
    pub(super) extended: bool,
}

impl Options {
    pub(super) const DEFAULT: Self = Self {
        port: None,
        gid_index: None,
        pkey_index: 0,
        qkey: 0x1111_1111,
        access: RemoteAccess::empty(),
        mtu: None,
        psn: None,
        ack_timeout: AckTimeout::DEFAULT,
        retries: RetryCount::DEFAULT,
        rnr_retries: RnrRetry::Unlimited,
        min_rnr_timer: MinRnrTimer::DEFAULT,
        initiator_depth: 16,
        responder_resources: 16,
        service_level: 0,
        traffic_class: 0,
        flow_label: 0,
        hop_limit: 64,
        signal_all: false,
        extended: true,
    };
}

impl ProtectionDomain {
    /// A queue pair whose requests complete in `completions`.
    #[must_use]
    #[doc(alias = "ibv_create_qp")]
    #[doc(alias = "ibv_create_qp_ex")]
    pub const fn queue_pair<'a, S: Service>(
        &'a self,
        completions: &'a CompletionQueue,
    ) -> QueuePairBuilder<'a, S> {
        QueuePairBuilder {
            pd: self,
            send: completions,
            receive: completions,
            shared: None,
            depths: Depths { send: 16, receive: 16, send_elements: 1, receive_elements: 1, inline: 0 },
            options: Options::DEFAULT,
            service: PhantomData,
        }
    }
}

/// Setters of plain options.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])* #[must_use] pub const fn $name(mut self, $name: $type) -> Self {
            self.options.$name = $name;
            self
        })*
    };
}
pub(super) use options;

/// Setters of what is chosen by itself otherwise.
macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $($(#[$doc])* #[must_use] pub const fn $name(mut self, $name: $type) -> Self {
            self.options.$name = Some($name);
            self
        })*
    };
}
pub(super) use choices;

impl<'a, S: Service> QueuePairBuilder<'a, S> {
    /// Receives complete in another queue than sends.
    #[must_use]
    pub const fn receive_completion_queue(mut self, queue: &'a CompletionQueue) -> Self {
        self.receive = queue;
        self
    }

    /// Receives come from a shared queue: there is no receive queue of its own. They complete in this queue pair's completion queue, which is to
    /// have room for them: that is the caller's matter.
    #[must_use]
    pub const fn shared_receive_queue(mut self, queue: &'a SharedReceiveQueue) -> Self {
        self.shared = Some(queue);
        self.depths.receive = 0;
        self
    }

    /// Requests in the send queue; 16 by default.
    #[must_use]
    pub const fn send_depth(mut self, requests: u32) -> Self {
        self.depths.send = requests;
        self
    }

    /// Requests in the receive queue; 16 by default.
    #[must_use]
    pub const fn receive_depth(mut self, requests: u32) -> Self {
        self.depths.receive = requests;
        self
    }

    /// Elements in a send request; 1 by default.
    #[must_use]
    pub const fn send_elements(mut self, elements: u32) -> Self {
        self.depths.send_elements = elements;
        self
    }

    /// Elements in a receive; 1 by default.
    #[must_use]
    pub const fn receive_elements(mut self, elements: u32) -> Self {
        self.depths.receive_elements = elements;
        self
    }

    /// Bytes that an inline request can carry; 0 by default. The device may give more.
    #[must_use]
    pub const fn inline_capacity(mut self, bytes: u32) -> Self {
        self.depths.inline = bytes;
        self
    }

    /// The port; chosen by itself by default: one that is up ([`Context::choose_gid`](crate::device::Context::choose_gid)).
    #[must_use]
    pub const fn port(mut self, port: u8) -> Self {
        self.options.port = Some(port);
        self
    }

    choices! {
        /// The place of our GID in the port's table; chosen by itself by default: a routed one.
        gid_index: u32;
        /// Number of the first packet; random by default, so that packets of a connection before are not taken for this one's.
        psn: PacketSequenceNumber;
    }

    options! {
        /// Place of the partition key in the port's table; 0 by default.
        pkey_index: u16;
        /// Queue key of datagrams, which senders must name; 0x11111111 by default.
        qkey: u32;
        /// Every send request completes visibly, signaled or not.
        signal_all: bool;
        /// Makes it for extended posting where the device can, which is the default; `false` posts by `ibv_post_send`.
        extended: bool;
    }

    /// What peers may do through it with memory that was exposed; nothing by default.
    #[must_use]
    pub const fn remote_access(mut self, access: RemoteAccess) -> Self {
        self.options.access = access;
        self
    }
}

impl<S: Connected> QueuePairBuilder<'_, S> {
    options! {
        /// Routers on the way, at most; 64 by default.
        hop_limit: u8;
        /// Traffic class (DSCP and ECN bits over RoCE v2); 0 by default.
        traffic_class: u8;
    }

    choices! {
        /// The largest packet; by default what both ports carry.
        mtu: Mtu;
    }

    /// Service level; 0 by default.
    ///
    /// # Errors
    /// [`Error::Invalid`] above 15.
    pub fn service_level(mut self, level: u8) -> Result<Self> {
        if level > 15 {
            return Err(Error::invalid(
                "service level",
                format!("{level} has more than 4 bits"),
                "take 0 to 15",
            ));
        }
        self.options.service_level = level;
        Ok(self)
    }

    /// Flow label; 0 by default.
    ///
    /// # Errors
    /// [`Error::Invalid`] above 20 bits.
    pub fn flow_label(mut self, label: u32) -> Result<Self> {
        if label > 0xf_ffff {
            return Err(Error::invalid(
                "flow label",
                format!("{label:#x} has more than 20 bits"),
                "take up to 0xfffff",
            ));
        }
        self.options.flow_label = label;
        Ok(self)
    }
}

impl<S: Atomics> QueuePairBuilder<'_, S> {
    options! {
        /// How long an acknowledgement is waited for; 67 ms by default.
        ack_timeout: AckTimeout;
        /// How often is sent again; 6 times by default.
        retries: RetryCount;
        /// How often is tried again while the receiver has no receive; for ever by default, as operations have deadlines.
        rnr_retries: RnrRetry;
        /// What senders are asked to wait that find no receive; 0.64 ms by default.
        min_rnr_timer: MinRnrTimer;
        /// Reads and atomics under way from here; 16 by default, less where the device or the peer has less.
        initiator_depth: u8;
        /// Reads and atomics under way to here; 16 by default, less where the device has less.
        responder_resources: u8;
    }
}

impl<S: Service> QueuePairBuilder<'_, S> {
    /// Makes it, and brings it to INIT: receives can be posted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a depth of nothing or beyond the device, a completion queue without room or of another device, a
    /// GID that there is not; [`Error::Call`] when the device has no more.
    pub fn build(self) -> Result<PreparedQueuePair<S>> {
        let options = self.options;
        let choice = options.choose(self.pd.context())?;
        let qp = self.build_raw()?;
        let plan = Plan { options, choice, psn: PacketSequenceNumber::default(), ready_for: None };
        let mut prepared = PreparedQueuePair { qp, plan };
        prepared.plan.init(&prepared.qp)?;
        Ok(prepared)
    }

    /// Makes it in the RESET state, to be brought up by hand (`modify`), or by a connection manager.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub fn build_raw(mut self) -> Result<QueuePair<S>> {
        let context = self.pd.context();
        let attributes = context.attributes()?;
        if S::TYPE == ServiceType::XRC_SEND {
            self.depths.receive = 0;
            if self.shared.is_some() {
                return Err(Error::invalid(
                    "shared receive queue",
                    "the sending side of an extended connection receives nothing",
                    "leave it out, and name the peer's with each request (`to_queue`)",
                ));
            }
        }
        let Depths { send, receive, send_elements, receive_elements, .. } = self.depths;
        let most = attributes.requests_max();
        if send > most || receive > most || (send == 0 && receive == 0 && self.shared.is_none()) {
            return Err(Error::invalid(
                "depth of a queue pair",
                format!("{send} sends and {receive} receives; {} has up to {most} each", context.name()),
                "take depths that the device has, and one of them at least 1",
            ));
        }
        let widest = attributes.elements_max();
        if send_elements > widest || receive_elements > widest {
            return Err(Error::invalid(
                "elements of a request",
                format!(
                    "{send_elements} to send, {receive_elements} to receive; {} has up to {widest}",
                    context.name()
                ),
                "take less, or copy the pieces together",
            ));
        }
        let fits = |shared: &SharedReceiveQueue| shared.context().is(context) && !shared.is_extended();
        if self.shared.is_some_and(|shared| !fits(shared) || receive > 0) {
            return Err(Error::invalid(
                "shared receive queue",
                "it is of another context or of extended connections, or a receive queue of its own was asked for too",
                "make a plain one from the same context, and say no `receive_depth`",
            ));
        }
        for queue in [self.send, self.receive] {
            if !queue.context().is(context) {
                return Err(Error::invalid(
                    "completion queue",
                    format!("it is of {}, the queue pair of {}", queue.context().name(), context.name()),
                    "make both from one context",
                ));
            }
        }
        if S::TYPE == ServiceType::DRIVER {
            return self.build_reliable_datagrams();
        }
        // Given back when anything below fails.
        let reservations = (self.send.reserve(send)?, self.receive.reserve(receive)?);
        let mut wanted = S::OPERATIONS;
        if attributes.atomic_reach() == crate::device::AtomicReach::NONE {
            wanted -= Operations::ATOMICS;
        }
        if !attributes.capabilities().contains(Capabilities::MEM_MGT_EXTENSIONS) {
            wanted -= Operations::KEYS;
        }
        let extended = self.options.extended && !(attributes.vendor_id() == RXE && send_elements > 1);
        let (qp, given, extended) = self.create(wanted, extended)?;
        let depths = Depths { inline: given.max_inline_data, ..self.depths };
        // SAFETY: just made with these operations.
        let extended = extended.then(|| unsafe { self.posting(qp, wanted) }).flatten();
        Ok(QueuePair::new(self.pd, qp, extended, wanted, depths, reservations, self.shared.cloned()))
    }

    /// How it posts extended requests, where it has a function for each operation.
    ///
    /// # Safety
    /// The queue pair was just made, with these operations.
    pub(super) unsafe fn posting(
        &self,
        qp: NonNull<sys::ibv_qp>,
        wanted: Operations,
    ) -> Option<NonNull<sys::ibv_qp_ex>> {
        // SAFETY: by the caller's promise.
        let extended = NonNull::new(unsafe { self.pd.table().ibv_qp_to_qp_ex?(qp.as_ptr()) })?;
        // SAFETY: the same.
        let has = unsafe { sys::supports(extended.as_ptr(), wanted.bits()) };
        (has == wanted.bits()).then_some(extended)
    }

    /// Makes it extended where the device can, legacy otherwise: what was given, and which it is.
    fn create(
        &self,
        wanted: Operations,
        extended: bool,
    ) -> Result<(NonNull<sys::ibv_qp>, sys::ibv_qp_cap, bool)> {
        let attributes = self.raw_attributes();
        let context = self.pd.context();
        let forms: &[bool] = if extended { &[true, false] } else { &[false] };
        let mut failure = sys::Errno::NOT_SUPPORTED;
        for extended in forms {
            let mut attributes = attributes;
            if *extended {
                attributes.comp_mask |= sys::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
                attributes.send_ops_flags = wanted.bits();
            }
            // SAFETY: the context is open, the attributes name live objects of it.
            match unsafe { self.pd.table().create_qp_ex(context.as_raw(), &mut attributes) } {
                Ok(qp) => {
                    let qp = NonNull::new(qp)
                        .ok_or_else(|| Error::call("ibv_create_qp", context.name(), libc::EIO))?;
                    return Ok((qp, attributes.cap, *extended));
                }
                Err(errno) => failure = errno,
            }
        }
        Err(Error::call("ibv_create_qp", format_args!("{:?} of {}", S::TYPE, context.name()), failure.0))
    }

    /// What the ABI asks, but for the operations.
    pub(super) fn raw_attributes(&self) -> sys::ibv_qp_init_attr_ex {
        let mut attributes = sys::ibv_qp_init_attr_ex::zeroed();
        attributes.send_cq = self.send.as_raw();
        if S::TYPE != ServiceType::XRC_SEND {
            attributes.recv_cq = self.receive.as_raw();
        }
        attributes.srq = self.shared.map_or(std::ptr::null_mut(), SharedReceiveQueue::as_raw);
        attributes.cap = sys::ibv_qp_cap {
            max_send_wr: self.depths.send,
            max_recv_wr: self.depths.receive,
            max_send_sge: self.depths.send_elements,
            max_recv_sge: self.depths.receive_elements,
            max_inline_data: self.depths.inline,
        };
        attributes.qp_type = sys::IbvQpType(S::TYPE.as_raw());
        attributes.sq_sig_all = i32::from(self.options.signal_all);
        attributes.pd = self.pd.as_raw();
        attributes.comp_mask = sys::IBV_QP_INIT_ATTR_PD;
        attributes
    }
}

impl Options {
    pub(super) fn choose(&self, context: &Context) -> Result<Choice> {
        let mut choice = context.choose_gid(self.port)?;
        if let Some(index) = self.gid_index {
            let mut entries = context.gid_table()?;
            entries.retain(|entry| entry.port == choice.port && entry.index == index);
            let entry = entries.pop().ok_or_else(|| {
                Error::invalid(
                    "GID index",
                    format!("port {} of {} has no GID at {index}", choice.port, context.name()),
                    "take one of its GID table",
                )
            })?;
            choice.explanation = format!("port {}, GID {} (index {index}): asked for", entry.port, entry.gid);
            choice.entry = Some(entry);
        }
        Ok(choice)
    }
}
