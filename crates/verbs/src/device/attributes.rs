//! What a device says it can do, and how much of it.
//!
//! One type for the plain and the extended query: where library or driver lack the extended one, what only it tells (timestamps,
//! paging, pacing, PCI atomics, device memory) is shown as none.

use super::gid::Guid;
use crate::number::named_number;
use crate::qp::state::ServiceType;
use sinew_verbs_sys as sys;
use std::fmt;
use std::time::Duration;

bitflags::bitflags! {
    /// What a device can do besides (`IBV_DEVICE_*`). Unknown bits are kept.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Capabilities: u64 {
        /// Queues can be resized.
        const RESIZE_MAX_WR = 1;
        /// Counts refused partition keys.
        const BAD_PKEY_CNTR = 1 << 1;
        /// Counts refused queue keys.
        const BAD_QKEY_CNTR = 1 << 2;
        /// Raw multicast.
        const RAW_MULTI = 1 << 3;
        /// Paths can migrate by themselves.
        const AUTO_PATH_MIG = 1 << 4;
        /// A queue pair's port can change.
        const CHANGE_PHY_PORT = 1 << 5;
        /// Checks the port of address handles.
        const UD_AV_PORT_ENFORCE = 1 << 6;
        /// Changes of state may name the current one.
        const CURR_QP_STATE_MOD = 1 << 7;
        /// A port can be shut down.
        const SHUTDOWN_PORT = 1 << 8;
        /// Says how ports are initialised.
        const INIT_TYPE = 1 << 9;
        /// Raises an event when a port becomes active.
        const PORT_ACTIVE_EVENT = 1 << 10;
        /// Has a GUID of the whole system.
        const SYS_IMAGE_GUID = 1 << 11;
        /// Answers receiver-not-ready.
        const RC_RNR_NAK_GEN = 1 << 12;
        /// Shared receive queues can be resized.
        const SRQ_RESIZE = 1 << 13;
        /// Notifies for the n-th completion.
        const N_NOTIFY_CQ = 1 << 14;
        /// Has memory windows.
        const MEM_WINDOW = 1 << 17;
        /// Checks sums of IP in datagrams.
        const UD_IP_CSUM = 1 << 18;
        /// Extended reliable connections.
        const XRC = 1 << 20;
        /// Invalidates keys by requests.
        const MEM_MGT_EXTENSIONS = 1 << 21;
        /// Memory windows of type 2A.
        const MEM_WINDOW_TYPE_2A = 1 << 23;
        /// Memory windows of type 2B.
        const MEM_WINDOW_TYPE_2B = 1 << 24;
        /// Checks sums of IP in connections.
        const RC_IP_CSUM = 1 << 25;
        /// Checks sums of IP in raw packets.
        const RAW_IP_CSUM = 1 << 26;
        /// Steers flows.
        const MANAGED_FLOW_STEERING = 1 << 29;
        /// Leaves the check sequence on raw packets.
        const RAW_SCATTER_FCS = 1 << 34;
        /// Pads writes to cache lines.
        const PCI_WRITE_END_PADDING = 1 << 36;
        const _ = !0;
    }
}

named_number! {
    /// How far atomics of a device reach (`enum ibv_atomic_cap`).
    AtomicReach: u32 {
        /// There are none.
        NONE = 0 => "none",
        /// Atomic among the queue pairs of this device.
        DEVICE = 1 => "device",
        /// Atomic towards processors and other devices too.
        GLOBAL = 2 => "global",
    }
}

/// On-demand paging: whether, and for which operations (`IBV_ODP_SUPPORT_*`) of each service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OnDemandPaging {
    /// Bit 0: at all; bit 1: for the whole address space.
    pub general: u64,
    /// Operations of reliable connections.
    pub rc: u32,
    /// Operations of unreliable connections.
    pub uc: u32,
    /// Operations of datagrams.
    pub ud: u32,
    /// Operations of extended connections.
    pub xrc: u32,
}

/// Limits of packet pacing, in kbit/s, and for which services.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PacketPacing {
    /// The slowest.
    pub rate_min_kbps: u32,
    /// The fastest; 0: there is no pacing.
    pub rate_max_kbps: u32,
    /// Bit for each service type.
    pub services: u32,
}

/// What a device says it can do.
#[derive(Clone, Copy)]
#[doc(alias = "ibv_device_attr")]
#[doc(alias = "ibv_device_attr_ex")]
pub struct DeviceAttributes {
    raw: sys::ibv_device_attr_ex,
}

/// Getters of counts, which the ABI has as C `int`: what is negative there is none.
macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $field:ident;)*) => {
        $($(#[$doc])* #[must_use] pub fn $name(&self) -> u32 {
            u32::try_from(self.raw.orig_attr.$field).unwrap_or(0)
        })*
    };
}

impl DeviceAttributes {
    pub(crate) const fn new(raw: sys::ibv_device_attr_ex) -> Self {
        Self { raw }
    }

    /// Version of the firmware.
    #[must_use]
    pub fn firmware(&self) -> String {
        let bytes: Vec<u8> =
            self.raw.orig_attr.fw_ver.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Name of the device, given by its maker.
    #[must_use]
    pub const fn node_guid(&self) -> Guid {
        Guid::from_be(self.raw.orig_attr.node_guid)
    }

    /// Name of the system that the device is part of.
    #[must_use]
    pub const fn system_image_guid(&self) -> Guid {
        Guid::from_be(self.raw.orig_attr.sys_image_guid)
    }

    /// The maker's number.
    #[must_use]
    pub const fn vendor_id(&self) -> u32 {
        self.raw.orig_attr.vendor_id
    }

    /// The maker's number of the model.
    #[must_use]
    pub const fn vendor_part_id(&self) -> u32 {
        self.raw.orig_attr.vendor_part_id
    }

    /// The maker's number of the revision.
    #[must_use]
    pub const fn hardware_version(&self) -> u32 {
        self.raw.orig_attr.hw_ver
    }

    /// Longest region in bytes.
    #[must_use]
    pub const fn region_len_max(&self) -> u64 {
        self.raw.orig_attr.max_mr_size
    }

    /// Sizes of pages, a bit for each power of two.
    #[must_use]
    pub const fn page_sizes(&self) -> u64 {
        self.raw.orig_attr.page_size_cap
    }

    /// What it can do besides; all 64 bits where the extended query was answered.
    #[must_use]
    pub const fn capabilities(&self) -> Capabilities {
        Capabilities::from_bits_retain(
            self.raw.orig_attr.device_cap_flags as u64 | self.raw.device_cap_flags_ex,
        )
    }

    /// How far its atomics reach.
    #[must_use]
    pub const fn atomic_reach(&self) -> AtomicReach {
        AtomicReach::from_raw(self.raw.orig_attr.atomic_cap.0)
    }

    limits! {
        /// Queue pairs.
        queue_pairs_max = max_qp;
        /// Requests in one queue of a queue pair.
        requests_max = max_qp_wr;
        /// Elements in one request.
        elements_max = max_sge;
        /// Elements in one read.
        read_elements_max = max_sge_rd;
        /// Completion queues.
        completion_queues_max = max_cq;
        /// Entries of one completion queue.
        completions_max = max_cqe;
        /// Memory regions.
        regions_max = max_mr;
        /// Protection domains.
        protection_domains_max = max_pd;
        /// Reads and atomics under way to one queue pair, from peers.
        responder_resources_max = max_qp_rd_atom;
        /// Reads and atomics under way to the whole device.
        responder_resources_total_max = max_res_rd_atom;
        /// Reads and atomics under way from one queue pair.
        initiator_depth_max = max_qp_init_rd_atom;
        /// Memory windows.
        windows_max = max_mw;
        /// Multicast groups.
        multicast_groups_max = max_mcast_grp;
        /// Queue pairs in one multicast group.
        multicast_members_max = max_mcast_qp_attach;
        /// Address handles; 0: no limit said.
        address_handles_max = max_ah;
        /// Shared receive queues.
        shared_receive_queues_max = max_srq;
        /// Receives in one of them.
        shared_receives_max = max_srq_wr;
        /// Elements in one of those.
        shared_receive_elements_max = max_srq_sge;
    }

    /// Entries of a partition-key table.
    #[must_use]
    pub const fn pkeys_max(&self) -> u16 {
        self.raw.orig_attr.max_pkeys
    }

    /// What the device itself adds to an acknowledgement timeout.
    #[must_use]
    pub const fn ack_delay(&self) -> Duration {
        Duration::from_nanos(4096u64 << (self.raw.orig_attr.local_ca_ack_delay & 31))
    }

    /// How many ports it has.
    #[must_use]
    pub const fn port_count(&self) -> u32 {
        match self.raw.phys_port_cnt_ex {
            0 => self.raw.orig_attr.phys_port_cnt as u32,
            extended => extended,
        }
    }

    /// Which bits of a completion's timestamp are valid; 0: there are none.
    #[must_use]
    pub const fn timestamp_mask(&self) -> u64 {
        self.raw.completion_timestamp_mask
    }

    /// Frequency of the device's clock in kHz; 0: unknown.
    #[must_use]
    pub const fn clock_khz(&self) -> u64 {
        self.raw.hca_core_clock
    }

    /// On-demand paging.
    #[must_use]
    pub const fn on_demand_paging(&self) -> OnDemandPaging {
        let caps = &self.raw.odp_caps;
        OnDemandPaging {
            general: caps.general_caps,
            rc: caps.per_transport_caps.rc_odp_caps,
            uc: caps.per_transport_caps.uc_odp_caps,
            ud: caps.per_transport_caps.ud_odp_caps,
            xrc: self.raw.xrc_odp_caps,
        }
    }

    /// Packet pacing.
    #[must_use]
    pub const fn packet_pacing(&self) -> PacketPacing {
        let caps = &self.raw.packet_pacing_caps;
        PacketPacing {
            rate_min_kbps: caps.qp_rate_limit_min,
            rate_max_kbps: caps.qp_rate_limit_max,
            services: caps.supported_qpts,
        }
    }

    /// Whether packets of a service can be paced.
    #[must_use]
    pub fn can_pace(&self, service: ServiceType) -> bool {
        let bit = 1u32.checked_shl(service.as_raw()).unwrap_or(0);
        self.raw.packet_pacing_caps.qp_rate_limit_max > 0
            && self.raw.packet_pacing_caps.supported_qpts & bit != 0
    }

    /// Sizes of atomics towards the host's memory over PCI: fetch-add, swap, compare-swap; bit 0 is 4 bytes, 1 is 8, 2 is 16.
    #[must_use]
    pub const fn pci_atomics(&self) -> (u16, u16, u16) {
        let caps = &self.raw.pci_atomic_caps;
        (caps.fetch_add, caps.swap, caps.compare_swap)
    }

    /// Bytes of memory on the device; 0: none.
    #[must_use]
    pub const fn device_memory_len(&self) -> u64 {
        self.raw.max_dm_size
    }

    /// Limits of completion moderation: completions, and microseconds.
    #[must_use]
    pub const fn moderation_max(&self) -> (u16, u16) {
        (self.raw.cq_mod_caps.max_cq_count, self.raw.cq_mod_caps.max_cq_period)
    }

    /// What it can do with raw packets (`IBV_RAW_PACKET_CAP_*`).
    #[must_use]
    pub const fn raw_packets(&self) -> u32 {
        self.raw.raw_packet_caps
    }

    /// The raw attributes.
    #[must_use]
    pub const fn as_raw(&self) -> &sys::ibv_device_attr_ex {
        &self.raw
    }
}

impl fmt::Debug for DeviceAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("firmware", &self.firmware())
            .field("node_guid", &self.node_guid())
            .field("system_image_guid", &self.system_image_guid())
            .field("vendor_id", &format_args!("{:#06x}", self.vendor_id()))
            .field("vendor_part_id", &self.vendor_part_id())
            .field("hardware_version", &format_args!("{:#x}", self.hardware_version()))
            .field("port_count", &self.port_count())
            .field("capabilities", &self.capabilities())
            .field("atomics", &self.atomic_reach())
            .field("region_len_max", &format_args!("{:#x}", self.region_len_max()))
            .field("page_sizes", &format_args!("{:#x}", self.page_sizes()))
            .field("queue_pairs_max", &self.queue_pairs_max())
            .field("requests_max", &self.requests_max())
            .field("elements_max", &self.elements_max())
            .field("read_elements_max", &self.read_elements_max())
            .field("completion_queues_max", &self.completion_queues_max())
            .field("completions_max", &self.completions_max())
            .field("regions_max", &self.regions_max())
            .field("protection_domains_max", &self.protection_domains_max())
            .field("responder_resources_max", &self.responder_resources_max())
            .field("responder_resources_total_max", &self.responder_resources_total_max())
            .field("initiator_depth_max", &self.initiator_depth_max())
            .field("windows_max", &self.windows_max())
            .field("multicast_groups_max", &self.multicast_groups_max())
            .field("multicast_members_max", &self.multicast_members_max())
            .field("address_handles_max", &self.address_handles_max())
            .field("shared_receive_queues_max", &self.shared_receive_queues_max())
            .field("shared_receives_max", &self.shared_receives_max())
            .field("shared_receive_elements_max", &self.shared_receive_elements_max())
            .field("pkeys_max", &self.pkeys_max())
            .field("ack_delay", &self.ack_delay())
            .field("timestamp_mask", &format_args!("{:#x}", self.timestamp_mask()))
            .field("clock_khz", &self.clock_khz())
            .field("on_demand_paging", &self.on_demand_paging())
            .field("packet_pacing", &self.packet_pacing())
            .field("pci_atomics", &self.pci_atomics())
            .field("device_memory_len", &self.device_memory_len())
            .field("moderation_max", &self.moderation_max())
            .field("raw_packets", &format_args!("{:#x}", self.raw_packets()))
            .finish_non_exhaustive()
    }
}
