//! Records of paths, as the subnet administration and rdma cm give them.
//!
//! Read by whoever looks at the route of an `rdma_cm_id`. Nothing here calls anything.
#![expect(missing_docs, reason = "fields carry the names of the specification's path record")]

use crate::ah::ibv_gid;
use crate::layout::{abi, constants};
use core::ffi::c_int;

constants! {
    table CONSTANTS;

    IBV_PATH_RECORD_REVERSIBLE: u8 = 0x80;
    IBV_PATH_FLAG_GMP: u32 = 1;
    IBV_PATH_FLAG_PRIMARY: u32 = 1 << 1;
    IBV_PATH_FLAG_ALTERNATE: u32 = 1 << 2;
    IBV_PATH_FLAG_OUTBOUND: u32 = 1 << 3;
    IBV_PATH_FLAG_INBOUND: u32 = 1 << 4;
    IBV_PATH_FLAG_INBOUND_REVERSE: u32 = 1 << 5;
    IBV_PATH_FLAG_BIDIRECTIONAL: u32 = (1 << 3) | (1 << 5);
}

abi! {
    table STRUCTURES;

    /// A path, unpacked. Keys and local identifiers are big-endian.
    #[derive(Clone, Copy)]
    pub struct ibv_sa_path_rec {
        pub dgid: ibv_gid,
        pub sgid: ibv_gid,
        pub dlid: u16,
        pub slid: u16,
        pub raw_traffic: c_int,
        pub flow_label: u32,
        pub hop_limit: u8,
        pub traffic_class: u8,
        pub reversible: c_int,
        pub numb_path: u8,
        pub pkey: u16,
        pub sl: u8,
        pub mtu_selector: u8,
        pub mtu: u8,
        pub rate_selector: u8,
        pub rate: u8,
        pub packet_life_time_selector: u8,
        pub packet_life_time: u8,
        pub preference: u8,
    }

    /// A path as it travels, big-endian; what `RDMA_OPTION_IB_PATH` sets.
    #[derive(Clone, Copy)]
    pub struct ibv_path_record {
        pub service_id: u64,
        pub dgid: ibv_gid,
        pub sgid: ibv_gid,
        pub dlid: u16,
        pub slid: u16,
        pub flowlabel_hoplimit: u32,
        pub tclass: u8,
        pub reversible_numpath: u8,
        pub pkey: u16,
        pub qosclass_sl: u16,
        pub mtu: u8,
        pub rate: u8,
        pub packetlifetime: u8,
        pub preference: u8,
        pub reserved: [u8; 6],
    }

    /// A path and what it is for.
    #[derive(Clone, Copy)]
    pub struct ibv_path_data {
        pub flags: u32,
        pub reserved: u32,
        pub path: ibv_path_record,
    }
}
