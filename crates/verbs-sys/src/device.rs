//! Devices as they are before and after opening: `ibv_device`, `ibv_device_attr`, `ibv_device_attr_ex`, real-time values.
//!
//! Read by whoever lists or queries devices. Fields keep their C names; the manual pages are ibv_get_device_list(3),
//! ibv_query_device(3), ibv_query_device_ex(3), ibv_query_rt_values_ex(3). Nothing here calls anything.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::layout::{abi, codes, constants};
use core::ffi::{c_char, c_int, c_uint, c_void};

codes! {
    table CODES;

    /// What kind of node a device is.
    pub struct IbvNodeType(i32) as "enum ibv_node_type", "IBV_NODE_" {
        UNKNOWN = -1,
        CA = 1,
        SWITCH = 2,
        ROUTER = 3,
        RNIC = 4,
        USNIC = 5,
        USNIC_UDP = 6,
        UNSPECIFIED = 7,
    }

    /// Which transport a device speaks.
    pub struct IbvTransportType(i32) as "enum ibv_transport_type", "IBV_TRANSPORT_" {
        UNKNOWN = -1,
        IB = 0,
        IWARP = 1,
        USNIC = 2,
        USNIC_UDP = 3,
        UNSPECIFIED = 4,
    }

    /// How far atomic operations of a device are atomic.
    pub struct IbvAtomicCap(u32) as "enum ibv_atomic_cap", "IBV_ATOMIC_" {
        NONE = 0,
        HCA = 1,
        GLOB = 2,
    }

    /// What `ibv_is_fork_initialized` answers.
    pub struct IbvForkStatus(u32) as "enum ibv_fork_status", "IBV_FORK_" {
        DISABLED = 0,
        ENABLED = 1,
        /// The kernel copies pinned pages when a process forks: nothing needs to be done.
        UNNEEDED = 2,
    }
}

constants! {
    table CONSTANTS;

    IBV_SYSFS_NAME_MAX: usize = 64;
    IBV_SYSFS_PATH_MAX: usize = 256;

    IBV_DEVICE_RESIZE_MAX_WR: u64 = 1;
    IBV_DEVICE_BAD_PKEY_CNTR: u64 = 1 << 1;
    IBV_DEVICE_BAD_QKEY_CNTR: u64 = 1 << 2;
    IBV_DEVICE_RAW_MULTI: u64 = 1 << 3;
    IBV_DEVICE_AUTO_PATH_MIG: u64 = 1 << 4;
    IBV_DEVICE_CHANGE_PHY_PORT: u64 = 1 << 5;
    IBV_DEVICE_UD_AV_PORT_ENFORCE: u64 = 1 << 6;
    IBV_DEVICE_CURR_QP_STATE_MOD: u64 = 1 << 7;
    IBV_DEVICE_SHUTDOWN_PORT: u64 = 1 << 8;
    IBV_DEVICE_INIT_TYPE: u64 = 1 << 9;
    IBV_DEVICE_PORT_ACTIVE_EVENT: u64 = 1 << 10;
    IBV_DEVICE_SYS_IMAGE_GUID: u64 = 1 << 11;
    IBV_DEVICE_RC_RNR_NAK_GEN: u64 = 1 << 12;
    IBV_DEVICE_SRQ_RESIZE: u64 = 1 << 13;
    IBV_DEVICE_N_NOTIFY_CQ: u64 = 1 << 14;
    IBV_DEVICE_MEM_WINDOW: u64 = 1 << 17;
    IBV_DEVICE_UD_IP_CSUM: u64 = 1 << 18;
    IBV_DEVICE_XRC: u64 = 1 << 20;
    IBV_DEVICE_MEM_MGT_EXTENSIONS: u64 = 1 << 21;
    IBV_DEVICE_MEM_WINDOW_TYPE_2A: u64 = 1 << 23;
    IBV_DEVICE_MEM_WINDOW_TYPE_2B: u64 = 1 << 24;
    IBV_DEVICE_RC_IP_CSUM: u64 = 1 << 25;
    IBV_DEVICE_RAW_IP_CSUM: u64 = 1 << 26;
    IBV_DEVICE_MANAGED_FLOW_STEERING: u64 = 1 << 29;
    /// In `device_cap_flags_ex` only, as are the two that follow.
    IBV_DEVICE_RAW_SCATTER_FCS: u64 = 1 << 34;
    IBV_DEVICE_PCI_WRITE_END_PADDING: u64 = 1 << 36;
    IBV_DEVICE_CC_DMA_BOUNCE: u64 = 1 << 41;

    IBV_ODP_SUPPORT: u64 = 1;
    IBV_ODP_SUPPORT_IMPLICIT: u64 = 1 << 1;

    IBV_ODP_SUPPORT_SEND: u32 = 1;
    IBV_ODP_SUPPORT_RECV: u32 = 1 << 1;
    IBV_ODP_SUPPORT_WRITE: u32 = 1 << 2;
    IBV_ODP_SUPPORT_READ: u32 = 1 << 3;
    IBV_ODP_SUPPORT_ATOMIC: u32 = 1 << 4;
    IBV_ODP_SUPPORT_SRQ_RECV: u32 = 1 << 5;
    IBV_ODP_SUPPORT_FLUSH: u32 = 1 << 6;
    IBV_ODP_SUPPORT_ATOMIC_WRITE: u32 = 1 << 7;

    IBV_RX_HASH_FUNC_TOEPLITZ: u8 = 1;
    IBV_RX_HASH_SRC_IPV4: u64 = 1;
    IBV_RX_HASH_DST_IPV4: u64 = 1 << 1;
    IBV_RX_HASH_SRC_IPV6: u64 = 1 << 2;
    IBV_RX_HASH_DST_IPV6: u64 = 1 << 3;
    IBV_RX_HASH_SRC_PORT_TCP: u64 = 1 << 4;
    IBV_RX_HASH_DST_PORT_TCP: u64 = 1 << 5;
    IBV_RX_HASH_SRC_PORT_UDP: u64 = 1 << 6;
    IBV_RX_HASH_DST_PORT_UDP: u64 = 1 << 7;
    IBV_RX_HASH_IPSEC_SPI: u64 = 1 << 8;
    IBV_RX_HASH_INNER: u64 = 1 << 31;

    IBV_RAW_PACKET_CAP_CVLAN_STRIPPING: u32 = 1;
    IBV_RAW_PACKET_CAP_SCATTER_FCS: u32 = 1 << 1;
    IBV_RAW_PACKET_CAP_IP_CSUM: u32 = 1 << 2;
    IBV_RAW_PACKET_CAP_DELAY_DROP: u32 = 1 << 3;

    IBV_TM_CAP_RC: u32 = 1;

    IBV_PCI_ATOMIC_OPERATION_4_BYTE_SIZE_SUP: u16 = 1;
    IBV_PCI_ATOMIC_OPERATION_8_BYTE_SIZE_SUP: u16 = 1 << 1;
    IBV_PCI_ATOMIC_OPERATION_16_BYTE_SIZE_SUP: u16 = 1 << 2;

    IBV_VALUES_MASK_RAW_CLOCK: u32 = 1;
}

abi! {
    table STRUCTURES;

    /// Two functions that nobody calls any more, kept for their place.
    #[derive(Clone, Copy, Debug)]
    pub struct _ibv_device_ops {
        pub _dummy1: *mut c_void,
        pub _dummy2: *mut c_void,
    }

    /// A device that is listed. Valid until its list is freed, or while a context of it is open.
    ///
    /// A table from elsewhere than libibverbs fills all fields but `_ops`; the names are terminated by zero.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_device {
        pub _ops: _ibv_device_ops,
        pub node_type: IbvNodeType,
        pub transport_type: IbvTransportType,
        /// Name in the kernel, as `mlx5_0`.
        pub name: [c_char; IBV_SYSFS_NAME_MAX],
        /// Name of the character device, as `uverbs0`.
        pub dev_name: [c_char; IBV_SYSFS_NAME_MAX],
        /// Where the character device's class is in sysfs.
        pub dev_path: [c_char; IBV_SYSFS_PATH_MAX],
        /// Where the device is in sysfs, as `/sys/class/infiniband/mlx5_0`.
        pub ibdev_path: [c_char; IBV_SYSFS_PATH_MAX],
    }

    /// What a device can do and how much of it.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_device_attr {
        /// Version of the firmware, terminated by zero unless it fills all.
        pub fw_ver: [c_char; 64],
        /// Big-endian.
        pub node_guid: u64,
        /// Big-endian.
        pub sys_image_guid: u64,
        pub max_mr_size: u64,
        pub page_size_cap: u64,
        pub vendor_id: u32,
        pub vendor_part_id: u32,
        pub hw_ver: u32,
        pub max_qp: c_int,
        pub max_qp_wr: c_int,
        /// Bits `IBV_DEVICE_*`, the lower 32.
        pub device_cap_flags: c_uint,
        pub max_sge: c_int,
        pub max_sge_rd: c_int,
        pub max_cq: c_int,
        pub max_cqe: c_int,
        pub max_mr: c_int,
        pub max_pd: c_int,
        pub max_qp_rd_atom: c_int,
        pub max_ee_rd_atom: c_int,
        pub max_res_rd_atom: c_int,
        pub max_qp_init_rd_atom: c_int,
        pub max_ee_init_rd_atom: c_int,
        pub atomic_cap: IbvAtomicCap,
        pub max_ee: c_int,
        pub max_rdd: c_int,
        pub max_mw: c_int,
        pub max_raw_ipv6_qp: c_int,
        pub max_raw_ethy_qp: c_int,
        pub max_mcast_grp: c_int,
        pub max_mcast_qp_attach: c_int,
        pub max_total_mcast_qp_attach: c_int,
        pub max_ah: c_int,
        pub max_fmr: c_int,
        pub max_map_per_fmr: c_int,
        pub max_srq: c_int,
        pub max_srq_wr: c_int,
        pub max_srq_sge: c_int,
        pub max_pkeys: u16,
        /// Exponent: the delay is 4.096 µs · 2^this.
        pub local_ca_ack_delay: u8,
        pub phys_port_cnt: u8,
    }

    /// Input of `ibv_query_device_ex`; no bit of `comp_mask` is defined.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_query_device_ex_input {
        pub comp_mask: u32,
    }

    /// On-demand paging by transport, bits `IBV_ODP_SUPPORT_*`.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_odp_per_transport_caps as "__typeof__(((struct ibv_odp_caps *)0)->per_transport_caps)" {
        pub rc_odp_caps: u32,
        pub uc_odp_caps: u32,
        pub ud_odp_caps: u32,
    }

    /// On-demand paging.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_odp_caps {
        /// `IBV_ODP_SUPPORT`, `IBV_ODP_SUPPORT_IMPLICIT`.
        pub general_caps: u64,
        pub per_transport_caps: ibv_odp_per_transport_caps,
    }

    /// Segmentation of long packets by the device.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_tso_caps {
        pub max_tso: u32,
        pub supported_qpts: u32,
    }

    /// Spreading of received packets over queues.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_rss_caps {
        pub supported_qpts: u32,
        pub max_rwq_indirection_tables: u32,
        pub max_rwq_indirection_table_size: u32,
        pub rx_hash_fields_mask: u64,
        pub rx_hash_function: u8,
    }

    /// Limits of rates, in kbit/s.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_packet_pacing_caps {
        pub qp_rate_limit_min: u32,
        pub qp_rate_limit_max: u32,
        pub supported_qpts: u32,
    }

    /// Matching of tags by the device.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_tm_caps {
        pub max_rndv_hdr_size: u32,
        pub max_num_tags: u32,
        pub flags: u32,
        pub max_ops: u32,
        pub max_sge: u32,
    }

    /// Limits of moderation; the period is in microseconds.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_cq_moderation_caps {
        pub max_cq_count: u16,
        pub max_cq_period: u16,
    }

    /// Sizes of atomic operations towards the host, bits `IBV_PCI_ATOMIC_OPERATION_*`.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_pci_atomic_caps {
        pub fetch_add: u16,
        pub swap: u16,
        pub compare_swap: u16,
    }

    /// What a device can do, extended. What a driver does not know it leaves zero.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_device_attr_ex {
        pub orig_attr: ibv_device_attr,
        pub comp_mask: u32,
        pub odp_caps: ibv_odp_caps,
        /// Which bits of a completion's timestamp are valid; zero: no timestamps.
        pub completion_timestamp_mask: u64,
        /// Frequency of the device's clock in kHz.
        pub hca_core_clock: u64,
        /// Bits `IBV_DEVICE_*`, all 64.
        pub device_cap_flags_ex: u64,
        pub tso_caps: ibv_tso_caps,
        pub rss_caps: ibv_rss_caps,
        pub max_wq_type_rq: u32,
        pub packet_pacing_caps: ibv_packet_pacing_caps,
        pub raw_packet_caps: u32,
        pub tm_caps: ibv_tm_caps,
        pub cq_mod_caps: ibv_cq_moderation_caps,
        /// Bytes of device memory; zero: none.
        pub max_dm_size: u64,
        pub pci_atomic_caps: ibv_pci_atomic_caps,
        pub xrc_odp_caps: u32,
        /// Ports, also of devices with more than 255; zero: see `orig_attr.phys_port_cnt`.
        pub phys_port_cnt_ex: u32,
    }

    /// Values of a device that change: `comp_mask` says which are wanted, and then which were given.
    #[derive(Clone, Copy)]
    pub struct ibv_values_ex {
        pub comp_mask: u32,
        /// The device's clock: cycles in `tv_nsec`, `tv_sec` zero.
        pub raw_clock: libc::timespec,
    }
}

const _: () = {
    assert!(size_of::<ibv_device_attr>() == 232);
    assert!(size_of::<ibv_device_attr_ex>() == 400);
};
