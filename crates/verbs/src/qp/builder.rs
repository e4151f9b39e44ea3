//! Making a queue pair: options with their checks, then the way to the peer.
#![allow(unsafe_code)]

use super::attributes::{Attributes, Path, Route};
use super::config::{AckTimeout, MinRnrTimer, Mtu, PacketSequenceNumber, RetryCount, RnrRetry};
use super::endpoint::Endpoint;
use super::pair::{Depths, PostError, QueuePair};
use super::request::ReceiveRequest;
use super::service::{Atomics, Connected, Datagram, Operations, Service};
use super::state::{ServiceType, State};
use crate::cq::CompletionQueue;
use crate::device::{Capabilities, Choice, LinkLayer};
use crate::error::{Error, Result};
use crate::memory::RemoteAccess;
use crate::pd::ProtectionDomain;
use sinew_verbs_sys as sys;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// How to make a queue pair of service `S`. Every option has a default that works.
#[derive(Clone)]
#[doc(alias = "ibv_qp_init_attr")]
pub struct QueuePairBuilder<'a, S: Service> {
    pd: &'a ProtectionDomain,
    send: &'a CompletionQueue,
    receive: &'a CompletionQueue,
    depths: Depths,
    options: Options,
    service: PhantomData<fn() -> S>,
}

/// What a queue pair keeps for its ways up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    port: Option<u8>,
    gid_index: Option<u32>,
    pkey_index: u16,
    qkey: u32,
    access: RemoteAccess,
    mtu: Option<Mtu>,
    psn: Option<PacketSequenceNumber>,
    ack_timeout: AckTimeout,
    retries: RetryCount,
    rnr_retries: RnrRetry,
    min_rnr_timer: MinRnrTimer,
    initiator_depth: u8,
    responder_resources: u8,
    service_level: u8,
    traffic_class: u8,
    flow_label: u32,
    hop_limit: u8,
    signal_all: bool,
    extended: bool,
}

impl Options {
    const DEFAULT: Self = Self {
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

impl<'a, S: Service> QueuePairBuilder<'a, S> {
    /// Receives complete in another queue than sends.
    #[must_use]
    pub const fn receive_completion_queue(mut self, queue: &'a CompletionQueue) -> Self {
        self.receive = queue;
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

    /// The place of our GID in the port's table; chosen by itself by default: a routed one.
    #[must_use]
    pub const fn gid_index(mut self, index: u32) -> Self {
        self.options.gid_index = Some(index);
        self
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

    /// The largest packet; by default what both ports carry.
    #[must_use]
    pub const fn mtu(mut self, mtu: Mtu) -> Self {
        self.options.mtu = Some(mtu);
        self
    }

    /// Number of the first packet; random by default, so that packets of a connection before are not taken for this one's.
    #[must_use]
    pub const fn psn(mut self, psn: PacketSequenceNumber) -> Self {
        self.options.psn = Some(psn);
        self
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
        /// How often is sent again; 7 times by default.
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
        let choice = self.choose()?;
        let options = self.options;
        let qp = self.build_raw()?;
        let prepared = PreparedQueuePair {
            qp,
            options,
            choice,
            psn: options.psn.unwrap_or_else(PacketSequenceNumber::random),
        };
        prepared.init()?;
        Ok(prepared)
    }

    /// Makes it in the RESET state, to be brought up by hand (`modify`), or by a connection manager.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub fn build_raw(self) -> Result<QueuePair<S>> {
        let context = self.pd.context();
        let attributes = context.attributes()?;
        let Depths { send, receive, send_elements, receive_elements, .. } = self.depths;
        let most = attributes.requests_max();
        if send > most || receive > most || (send == 0 && receive == 0) {
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
        for queue in [self.send, self.receive] {
            if !queue.context().is(context) {
                return Err(Error::invalid(
                    "completion queue",
                    format!("it is of {}, the queue pair of {}", queue.context().name(), context.name()),
                    "make both from one context",
                ));
            }
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
        let (qp, given, extended) = self.create(wanted)?;
        // SAFETY: just made with these operations.
        let extended =
            extended.then(|| unsafe { (self.pd.table().ibv_qp_to_qp_ex.map(|to| to(qp.as_ptr()))) });
        let extended = extended.flatten().and_then(NonNull::new);
        // SAFETY: the queue pair is alive and was made with these operations.
        let extended = extended
            .filter(|extended| unsafe { sys::supports(extended.as_ptr(), wanted.bits()) } == wanted.bits());
        let depths = Depths { inline: given.max_inline_data, ..self.depths };
        Ok(QueuePair::new(self.pd, qp, extended, wanted, depths, reservations))
    }

    /// Makes it extended where the device can, legacy otherwise: what was given, and which it is.
    fn create(&self, wanted: Operations) -> Result<(NonNull<sys::ibv_qp>, sys::ibv_qp_cap, bool)> {
        let mut attributes = sys::ibv_qp_init_attr_ex::zeroed();
        attributes.send_cq = self.send.as_raw();
        attributes.recv_cq = self.receive.as_raw();
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
        let context = self.pd.context();
        let forms = [self.options.extended, false];
        let mut failure = sys::Errno::NOT_SUPPORTED;
        for extended in if forms[0] { &forms[..] } else { &forms[1..] } {
            let mut attributes = attributes;
            attributes.comp_mask = sys::IBV_QP_INIT_ATTR_PD;
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

    fn choose(&self) -> Result<Choice> {
        let context = self.pd.context();
        let mut choice = context.choose_gid(self.options.port)?;
        if let Some(index) = self.options.gid_index {
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

/// A queue pair that can receive requests, but is not connected. What it tells the peer is its [`endpoint`](Self::endpoint).
pub struct PreparedQueuePair<S: Service> {
    qp: QueuePair<S>,
    options: Options,
    choice: Choice,
    psn: PacketSequenceNumber,
}

impl<S: Service> PreparedQueuePair<S> {
    fn init(&self) -> Result<()> {
        let mut attributes = Attributes::new()
            .set_state(State::INIT)
            .set_pkey_index(self.options.pkey_index)
            .set_port(self.choice.port);
        attributes = match S::TYPE {
            ServiceType::UD | ServiceType::DRIVER => attributes.set_qkey(self.options.qkey),
            _ => attributes.set_access(self.options.access),
        };
        self.qp.modify(&attributes)
    }

    /// Which port and GID it uses, and why.
    #[must_use]
    pub const fn choice(&self) -> &Choice {
        &self.choice
    }

    /// What the other side needs to know.
    ///
    /// # Errors
    /// [`Error::Call`] when the port cannot be asked.
    pub fn endpoint(&self) -> Result<Endpoint> {
        let port = self.qp.protection_domain().context().port(self.choice.port)?;
        Ok(Endpoint {
            qp_num: self.qp.number(),
            lid: port.lid(),
            gid: self.choice.entry.as_ref().map(|entry| entry.gid),
            psn: self.psn,
            mtu: self.options.mtu.unwrap_or(port.mtu_active()).min(port.mtu_active()),
            responder_resources: self.responder_resources()?,
        })
    }

    fn responder_resources(&self) -> Result<u8> {
        let most = self.qp.protection_domain().context().attributes()?.responder_resources_max();
        Ok(self.options.responder_resources.min(u8::try_from(most).unwrap_or(u8::MAX)))
    }

    /// Posts receives before the peer can send.
    ///
    /// # Errors
    /// As for [`QueuePair::post_receives`].
    ///
    /// # Safety
    /// As for [`QueuePair::post_receives`].
    pub unsafe fn post_receives(
        &mut self,
        requests: &mut [ReceiveRequest<'_>],
    ) -> std::result::Result<(), PostError> {
        // SAFETY: by the caller's promise.
        unsafe { self.qp.post_receives(requests) }
    }

    /// The queue pair in INIT, to be brought up by hand.
    #[must_use]
    pub fn into_queue_pair(self) -> QueuePair<S> {
        self.qp
    }
}

impl<S: Connected> PreparedQueuePair<S> {
    /// Connects to the peer whose endpoint this is: to RTR, then to RTS. The peer connects to ours at its own time: what is sent before
    /// it did is sent again until the acknowledgement timeout and the retries are used up.
    ///
    /// # Errors
    /// Itself with [`Error::Peer`] when the endpoint cannot be connected to (it has no GID where ours needs one, or the other way
    /// round), and [`Error::Transition`] when the device refuses, with the route's hint where the peer's GID cannot be reached. It is
    /// in INIT or ERR then.
    pub fn connect(self, peer: &Endpoint) -> std::result::Result<QueuePair<S>, (Self, Error)> {
        match self.bring_up(peer) {
            Ok(()) => Ok(self.qp),
            Err(error) => Err((self, error)),
        }
    }

    fn bring_up(&self, peer: &Endpoint) -> Result<()> {
        let context = self.qp.protection_domain().context();
        let port = context.port(self.choice.port)?;
        let route = match (&self.choice.entry, peer.gid) {
            (Some(own), Some(gid)) => Some(Route {
                gid,
                gid_index: u8::try_from(own.index).map_err(|_| {
                    Error::invalid(
                        "GID index",
                        format!("{} does not fit the 8 bits of an address", own.index),
                        "take one up to 255",
                    )
                })?,
                hop_limit: self.options.hop_limit,
                traffic_class: self.options.traffic_class,
                flow_label: self.options.flow_label,
            }),
            (None, Some(gid)) => {
                return Err(Error::Peer {
                    cause: format!("it has GID {gid}, but our port {} has none", self.choice.port),
                });
            }
            (Some(_), None) if port.link_layer() == LinkLayer::ETHERNET => {
                return Err(Error::Peer {
                    cause: "it has no GID, and our port is an Ethernet port, which needs one".to_owned(),
                });
            }
            (_, None) => None,
        };
        let path = Path {
            port: self.choice.port,
            lid: peer.lid,
            route,
            service_level: self.options.service_level,
            path_bits: 0,
        };
        let reliable = S::TYPE == ServiceType::RC;
        let mtu = self.options.mtu.unwrap_or(port.mtu_active()).min(port.mtu_active()).min(peer.mtu);
        let mut ready = Attributes::new()
            .set_state(State::RTR)
            .set_path(path)
            .set_mtu(mtu)
            .set_peer_qp_num(peer.qp_num)
            .set_receive_psn(peer.psn);
        let mut sending = Attributes::new().set_state(State::RTS).set_send_psn(self.psn);
        if reliable {
            let most = context.attributes()?.initiator_depth_max();
            let depth = self
                .options
                .initiator_depth
                .min(peer.responder_resources)
                .min(u8::try_from(most).unwrap_or(u8::MAX));
            ready = ready
                .set_responder_resources(self.responder_resources()?)
                .set_min_rnr_timer(self.options.min_rnr_timer);
            sending = sending
                .set_ack_timeout(self.options.ack_timeout)
                .set_retries(self.options.retries)
                .set_rnr_retries(self.options.rnr_retries)
                .set_initiator_depth(depth);
        }
        self.qp.modify(&ready)?;
        self.qp.modify(&sending)
    }
}

impl<S: Datagram> PreparedQueuePair<S> {
    /// Brings it up: it can send to and receive from anybody who names its queue key.
    ///
    /// # Errors
    /// Itself with [`Error::Transition`] when the device refuses.
    pub fn activate(self) -> std::result::Result<QueuePair<S>, (Self, Error)> {
        let up = self
            .qp
            .modify(&Attributes::new().set_state(State::RTR))
            .and_then(|()| self.qp.modify(&Attributes::new().set_state(State::RTS).set_send_psn(self.psn)));
        match up {
            Ok(()) => Ok(self.qp),
            Err(error) => Err((self, error)),
        }
    }
}

impl<S: Service> fmt::Debug for PreparedQueuePair<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prepared{:?}", self.qp)
    }
}
