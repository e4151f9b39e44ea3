//! Ports and their tables of addresses: `ibv_port_attr`, `ibv_gid_entry`.
//!
//! Read by whoever queries ports; ibv_query_port(3), ibv_query_gid_ex(3). Nothing here calls anything.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::ah::ibv_gid;
use crate::layout::{abi, codes, constants};
use core::ffi::c_int;

codes! {
    table CODES;

    /// Logical state of a port.
    pub struct IbvPortState(u32) as "enum ibv_port_state", "IBV_PORT_" {
        NOP = 0,
        DOWN = 1,
        INIT = 2,
        ARMED = 3,
        ACTIVE = 4,
        ACTIVE_DEFER = 5,
    }

    /// Longest packet, as a code.
    pub struct IbvMtu(u32) as "enum ibv_mtu", "IBV_" {
        MTU_256 = 1,
        MTU_512 = 2,
        MTU_1024 = 3,
        MTU_2048 = 4,
        MTU_4096 = 5,
    }

    /// What a GID of RoCE stands for.
    pub struct IbvGidType(u32) as "enum ibv_gid_type", "IBV_GID_TYPE_" {
        IB = 0,
        ROCE_V1 = 1,
        ROCE_V2 = 2,
    }
}

constants! {
    table CONSTANTS;

    /// In `link_layer`: an old driver; take it for InfiniBand.
    IBV_LINK_LAYER_UNSPECIFIED: u8 = 0;
    IBV_LINK_LAYER_INFINIBAND: u8 = 1;
    IBV_LINK_LAYER_ETHERNET: u8 = 2;

    /// In `flags`: every address needs a GID.
    IBV_QPF_GRH_REQUIRED: u8 = 1;

    IBV_PORT_SM: u32 = 1 << 1;
    IBV_PORT_NOTICE_SUP: u32 = 1 << 2;
    IBV_PORT_TRAP_SUP: u32 = 1 << 3;
    IBV_PORT_OPT_IPD_SUP: u32 = 1 << 4;
    IBV_PORT_AUTO_MIGR_SUP: u32 = 1 << 5;
    IBV_PORT_SL_MAP_SUP: u32 = 1 << 6;
    IBV_PORT_MKEY_NVRAM: u32 = 1 << 7;
    IBV_PORT_PKEY_NVRAM: u32 = 1 << 8;
    IBV_PORT_LED_INFO_SUP: u32 = 1 << 9;
    IBV_PORT_SYS_IMAGE_GUID_SUP: u32 = 1 << 11;
    IBV_PORT_PKEY_SW_EXT_PORT_TRAP_SUP: u32 = 1 << 12;
    IBV_PORT_EXTENDED_SPEEDS_SUP: u32 = 1 << 14;
    IBV_PORT_CAP_MASK2_SUP: u32 = 1 << 15;
    IBV_PORT_CM_SUP: u32 = 1 << 16;
    IBV_PORT_SNMP_TUNNEL_SUP: u32 = 1 << 17;
    IBV_PORT_REINIT_SUP: u32 = 1 << 18;
    IBV_PORT_DEVICE_MGMT_SUP: u32 = 1 << 19;
    IBV_PORT_VENDOR_CLASS_SUP: u32 = 1 << 20;
    IBV_PORT_DR_NOTICE_SUP: u32 = 1 << 21;
    IBV_PORT_CAP_MASK_NOTICE_SUP: u32 = 1 << 22;
    IBV_PORT_BOOT_MGMT_SUP: u32 = 1 << 23;
    IBV_PORT_LINK_LATENCY_SUP: u32 = 1 << 24;
    IBV_PORT_CLIENT_REG_SUP: u32 = 1 << 25;
    IBV_PORT_IP_BASED_GIDS: u32 = 1 << 26;

    IBV_PORT_SET_NODE_DESC_SUP: u16 = 1;
    IBV_PORT_INFO_EXT_SUP: u16 = 1 << 1;
    IBV_PORT_VIRT_SUP: u16 = 1 << 2;
    IBV_PORT_SWITCH_PORT_STATE_TABLE_SUP: u16 = 1 << 3;
    IBV_PORT_LINK_WIDTH_2X_SUP: u16 = 1 << 4;
    IBV_PORT_LINK_SPEED_HDR_SUP: u16 = 1 << 5;
    IBV_PORT_LINK_SPEED_NDR_SUP: u16 = 1 << 10;
    IBV_PORT_LINK_SPEED_XDR_SUP: u16 = 1 << 12;
}

abi! {
    table STRUCTURES;

    /// State and limits of a port. Libraries of rdma-core 44 know all but `active_speed_ex`; the exported `ibv_query_port`
    /// fills none of the last two fields (`VerbsTable::query_port` knows).
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_port_attr {
        pub state: IbvPortState,
        pub max_mtu: IbvMtu,
        pub active_mtu: IbvMtu,
        pub gid_tbl_len: c_int,
        /// Bits `IBV_PORT_*` of 32 bits.
        pub port_cap_flags: u32,
        pub max_msg_sz: u32,
        pub bad_pkey_cntr: u32,
        pub qkey_viol_cntr: u32,
        pub pkey_tbl_len: u16,
        pub lid: u16,
        pub sm_lid: u16,
        pub lmc: u8,
        pub max_vl_num: u8,
        pub sm_sl: u8,
        pub subnet_timeout: u8,
        pub init_type_reply: u8,
        /// One bit: 1 is 1x, 2 is 4x, 4 is 8x, 8 is 12x, 16 is 2x.
        pub active_width: u8,
        /// One bit; speeds from XDR on do not fit and are in `active_speed_ex` alone.
        pub active_speed: u8,
        pub phys_state: u8,
        /// `IBV_LINK_LAYER_*`.
        pub link_layer: u8,
        /// `IBV_QPF_GRH_REQUIRED`.
        pub flags: u8,
        /// Bits `IBV_PORT_*` of 16 bits.
        pub port_cap_flags2: u16,
        /// The speed with room for new ones; zero: see `active_speed`.
        pub active_speed_ex: u32,
    }

    /// One valid row of a device's table of GIDs.
    #[derive(Clone, Copy)]
    pub struct ibv_gid_entry {
        pub gid: ibv_gid,
        pub gid_index: u32,
        pub port_num: u32,
        /// The number of an [`IbvGidType`].
        pub gid_type: u32,
        /// Index of the network interface; zero: none.
        pub ndev_ifindex: u32,
    }
}

const _: () = {
    assert!(size_of::<ibv_port_attr>() == 56);
    assert!(size_of::<ibv_gid_entry>() == 32);
};
