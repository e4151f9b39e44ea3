//! Attributes of a queue pair: those to change, with the mask that says which, and those that a device tells.

use super::config::{AckTimeout, MinRnrTimer, Mtu, PacketSequenceNumber, RetryCount, RnrRetry};
use super::state::{AttributeMask, State};
use crate::device::Gid;
use crate::memory::RemoteAccess;
use sinew_verbs_sys as sys;
use std::fmt;

/// Attributes of a queue pair. Setters say which are meant; getters answer only for those.
#[derive(Clone, Copy)]
#[doc(alias = "ibv_qp_attr")]
pub struct Attributes {
    raw: sys::ibv_qp_attr,
    mask: AttributeMask,
}

/// The way to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// The port of this side.
    pub port: u8,
    /// The peer's local identifier; 0 over Ethernet.
    pub lid: u16,
    /// Its GID, the place of ours in the port's table; nothing where the way is by local identifier.
    pub route: Option<Route>,
    /// Service level, 0 to 15.
    pub service_level: u8,
    /// Low bits of our local identifier.
    pub path_bits: u8,
}

/// The global part of a way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The peer's GID.
    pub gid: Gid,
    /// The place of ours in the port's table; tables of hardware have up to 255.
    pub gid_index: u8,
    /// Routers on the way, at most.
    pub hop_limit: u8,
    /// Traffic class (DSCP and ECN bits over RoCE v2).
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
}

impl Path {
    pub(crate) fn to_raw(self) -> sys::ibv_ah_attr {
        let mut raw = sys::ibv_ah_attr::zeroed();
        raw.dlid = self.lid;
        raw.sl = self.service_level;
        raw.src_path_bits = self.path_bits;
        raw.port_num = self.port;
        if let Some(route) = self.route {
            raw.is_global = 1;
            raw.grh.dgid.raw = route.gid.bytes();
            raw.grh.sgid_index = route.gid_index;
            raw.grh.hop_limit = route.hop_limit;
            raw.grh.traffic_class = route.traffic_class;
            raw.grh.flow_label = route.flow_label;
        }
        raw
    }
}

/// Getters of what has a type of its own; a number that the type does not have is nothing.
macro_rules! typed {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $mask:ident, |$raw:ident| $value:expr;)*) => {
        $(
            $(#[$doc])*
            /// Nothing when it is not among these attributes.
            #[must_use]
            pub fn $name(&self) -> Option<$type> {
                let $raw = &self.raw;
                if self.mask.contains(AttributeMask::$mask) { $value } else { None }
            }
        )*
    };
}

/// A setter and, with a second name, a getter.
macro_rules! plain {
    ($($(#[$doc:meta])* $set:ident, $get:ident: $type:ty = $field:ident, $mask:ident;)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub const fn $set(mut self, value: $type) -> Self {
                self.raw.$field = value;
                self.mask = self.mask.union(AttributeMask::$mask);
                self
            }

            $(#[$doc])*
            /// Nothing when it is not among these attributes.
            #[must_use]
            pub const fn $get(&self) -> Option<$type> {
                if self.mask.contains(AttributeMask::$mask) { Some(self.raw.$field) } else { None }
            }
        )*
    };
}

impl Attributes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { raw: sys::ibv_qp_attr::zeroed(), mask: AttributeMask::empty() }
    }

    /// Raw attributes, and which of them are meant.
    #[must_use]
    pub const fn from_raw(raw: sys::ibv_qp_attr, mask: AttributeMask) -> Self {
        Self { raw, mask }
    }

    /// As the ABI has them.
    #[must_use]
    pub const fn as_raw(&self) -> &sys::ibv_qp_attr {
        &self.raw
    }

    /// Which are meant.
    #[must_use]
    pub const fn mask(&self) -> AttributeMask {
        self.mask
    }

    const fn with(mut self, mask: AttributeMask) -> Self {
        self.mask = self.mask.union(mask);
        self
    }

    plain! {
        /// Place of the partition key in the port's table.
        set_pkey_index, pkey_index: u16 = pkey_index, PKEY_INDEX;
        /// The port, from 1.
        set_port, port: u8 = port_num, PORT;
        /// Queue key of datagrams.
        set_qkey, qkey: u32 = qkey, QKEY;
        /// Number of the peer's queue pair.
        set_peer_qp_num, peer_qp_num: u32 = dest_qp_num, DEST_QPN;
        /// Reads and atomics under way from here.
        set_initiator_depth, initiator_depth: u8 = max_rd_atomic, MAX_QP_RD_ATOMIC;
        /// Reads and atomics under way to here.
        set_responder_resources, responder_resources: u8 = max_dest_rd_atomic, MAX_DEST_RD_ATOMIC;
        /// Rate limit of raw packets, in kbit/s.
        set_rate_limit_kbps, rate_limit_kbps: u32 = rate_limit, RATE_LIMIT;
    }

    typed! {
        /// The state.
        state: State = STATE, |raw| Some(State::from_raw(raw.qp_state.0));
        /// The state that it is believed to be in.
        current_state: State = CUR_STATE, |raw| Some(State::from_raw(raw.cur_qp_state.0));
        /// What peers may do through it.
        access: RemoteAccess = ACCESS_FLAGS, |raw| Some(RemoteAccess::from_bits_truncate(raw.qp_access_flags));
        /// The way to the peer.
        path: Path = AV, |raw| Some(Path::from_raw(&raw.ah_attr));
        /// Largest packet on the way.
        mtu: Mtu = PATH_MTU, |raw| Some(Mtu::from_raw(raw.path_mtu.0));
        /// Number of the first packet from the peer.
        receive_psn: PacketSequenceNumber = RQ_PSN, |raw| PacketSequenceNumber::new(raw.rq_psn).ok();
        /// Number of the first packet to the peer.
        send_psn: PacketSequenceNumber = SQ_PSN, |raw| PacketSequenceNumber::new(raw.sq_psn).ok();
        /// How long an acknowledgement is waited for.
        ack_timeout: AckTimeout = TIMEOUT, |raw| AckTimeout::from_code(raw.timeout).ok();
        /// How often is sent again.
        retries: RetryCount = RETRY_CNT, |raw| RetryCount::new(raw.retry_cnt).ok();
        /// How often is tried again while the receiver has no receive.
        rnr_retries: RnrRetry = RNR_RETRY, |raw| RnrRetry::from_code(raw.rnr_retry).ok();
        /// What senders are asked to wait that find no receive.
        min_rnr_timer: MinRnrTimer = MIN_RNR_TIMER, |raw| MinRnrTimer::from_code(raw.min_rnr_timer).ok();
        /// The alternate way.
        alternate_path: Path = ALT_PATH, |raw| Some(Path::from_raw(&raw.alt_ah_attr));
        /// State of the migration (`enum ibv_mig_state`).
        migration: u32 = PATH_MIG_STATE, |raw| Some(raw.path_mig_state.0);
    }

    /// The state to go to.
    #[must_use]
    pub const fn set_state(mut self, state: State) -> Self {
        self.raw.qp_state = sys::IbvQpState(state.as_raw());
        self.with(AttributeMask::STATE)
    }

    /// The state that it is believed to be in.
    #[must_use]
    pub const fn set_current_state(mut self, state: State) -> Self {
        self.raw.cur_qp_state = sys::IbvQpState(state.as_raw());
        self.with(AttributeMask::CUR_STATE)
    }

    /// What peers may do through it.
    #[must_use]
    pub const fn set_access(mut self, access: RemoteAccess) -> Self {
        self.raw.qp_access_flags = access.bits();
        self.with(AttributeMask::ACCESS_FLAGS)
    }

    /// The way to the peer.
    #[must_use]
    pub fn set_path(mut self, path: Path) -> Self {
        self.raw.ah_attr = path.to_raw();
        self.with(AttributeMask::AV)
    }

    /// Whether the way is by GID.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        self.mask.contains(AttributeMask::AV) && self.raw.ah_attr.is_global != 0
    }

    /// Largest packet on the way.
    #[must_use]
    pub const fn set_mtu(mut self, mtu: Mtu) -> Self {
        self.raw.path_mtu = sys::IbvMtu(mtu.as_raw());
        self.with(AttributeMask::PATH_MTU)
    }

    /// Number of the first packet from the peer.
    #[must_use]
    pub const fn set_receive_psn(mut self, psn: PacketSequenceNumber) -> Self {
        self.raw.rq_psn = psn.get();
        self.with(AttributeMask::RQ_PSN)
    }

    /// Number of the first packet to the peer.
    #[must_use]
    pub const fn set_send_psn(mut self, psn: PacketSequenceNumber) -> Self {
        self.raw.sq_psn = psn.get();
        self.with(AttributeMask::SQ_PSN)
    }

    /// How long an acknowledgement is waited for.
    #[must_use]
    pub const fn set_ack_timeout(mut self, timeout: AckTimeout) -> Self {
        self.raw.timeout = timeout.code();
        self.with(AttributeMask::TIMEOUT)
    }

    /// How often is sent again.
    #[must_use]
    pub const fn set_retries(mut self, retries: RetryCount) -> Self {
        self.raw.retry_cnt = retries.get();
        self.with(AttributeMask::RETRY_CNT)
    }

    /// How often is tried again while the receiver has no receive.
    #[must_use]
    pub const fn set_rnr_retries(mut self, retries: RnrRetry) -> Self {
        self.raw.rnr_retry = retries.code();
        self.with(AttributeMask::RNR_RETRY)
    }

    /// What senders are asked to wait that find no receive.
    #[must_use]
    pub const fn set_min_rnr_timer(mut self, timer: MinRnrTimer) -> Self {
        self.raw.min_rnr_timer = timer.code();
        self.with(AttributeMask::MIN_RNR_TIMER)
    }

    /// Tells by an event when the send queue is drained.
    #[must_use]
    pub const fn notify_drained(mut self) -> Self {
        self.raw.en_sqd_async_notify = 1;
        self.with(AttributeMask::EN_SQD_ASYNC_NOTIFY)
    }

    /// The alternate way, to which the queue pair migrates when the first fails.
    #[must_use]
    pub fn set_alternate_path(mut self, path: Path, pkey_index: u16, timeout: AckTimeout) -> Self {
        self.raw.alt_ah_attr = path.to_raw();
        self.raw.alt_pkey_index = pkey_index;
        self.raw.alt_port_num = path.port;
        self.raw.alt_timeout = timeout.code();
        self.with(AttributeMask::ALT_PATH)
    }

    /// State of the migration (`enum ibv_mig_state`): 0 migrated, 1 to be armed, 2 armed.
    #[must_use]
    pub const fn set_migration(mut self, state: u32) -> Self {
        self.raw.path_mig_state = sys::IbvMigState(state);
        self.with(AttributeMask::PATH_MIG_STATE)
    }
}

impl Default for Attributes {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Attributes");
        macro_rules! tell {
            ($($name:ident)*) => {
                $(if let Some(value) = self.$name() {
                    out.field(stringify!($name), &value);
                })*
            };
        }
        tell! {
            state current_state access port pkey_index qkey mtu peer_qp_num
            path receive_psn send_psn initiator_depth responder_resources min_rnr_timer ack_timeout retries
            rnr_retries
        }
        out.field("mask", &self.mask).finish_non_exhaustive()
    }
}
