//! Queue pairs: how they are made, their attributes and states.
//!
//! Read by whoever makes or changes one; ibv_create_qp(3), ibv_create_qp_ex(3), ibv_modify_qp(3), ibv_query_qp(3). Nothing here
//! calls anything; the queue pair with its functions of posting is in `qp_ex.rs`.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::ah::ibv_ah_attr;
use crate::context::ibv_context;
use crate::cq::ibv_cq;
use crate::layout::{abi, codes, constants};
use crate::pd::{ibv_pd, ibv_xrcd};
use crate::port::IbvMtu;
use crate::srq::ibv_srq;
use crate::wq::ibv_rwq_ind_table;
use core::ffi::{c_int, c_uint, c_void};

codes! {
    table CODES;

    /// Type of a queue pair.
    pub struct IbvQpType(u32) as "enum ibv_qp_type", "IBV_QPT_" {
        RC = 2,
        UC = 3,
        UD = 4,
        RAW_PACKET = 8,
        XRC_SEND = 9,
        XRC_RECV = 10,
        DRIVER = 0xff,
    }

    /// State of a queue pair.
    pub struct IbvQpState(u32) as "enum ibv_qp_state", "IBV_QPS_" {
        RESET = 0,
        INIT = 1,
        RTR = 2,
        RTS = 3,
        SQD = 4,
        SQE = 5,
        ERR = 6,
        UNKNOWN = 7,
    }

    /// State of migration to the other path.
    pub struct IbvMigState(u32) as "enum ibv_mig_state", "IBV_MIG_" {
        MIGRATED = 0,
        REARM = 1,
        ARMED = 2,
    }
}

constants! {
    table CONSTANTS;

    IBV_QP_INIT_ATTR_PD: u32 = 1;
    IBV_QP_INIT_ATTR_XRCD: u32 = 1 << 1;
    IBV_QP_INIT_ATTR_CREATE_FLAGS: u32 = 1 << 2;
    IBV_QP_INIT_ATTR_MAX_TSO_HEADER: u32 = 1 << 3;
    IBV_QP_INIT_ATTR_IND_TABLE: u32 = 1 << 4;
    IBV_QP_INIT_ATTR_RX_HASH: u32 = 1 << 5;
    IBV_QP_INIT_ATTR_SEND_OPS_FLAGS: u32 = 1 << 6;

    IBV_QP_CREATE_BLOCK_SELF_MCAST_LB: u32 = 1 << 1;
    IBV_QP_CREATE_SCATTER_FCS: u32 = 1 << 8;
    IBV_QP_CREATE_CVLAN_STRIPPING: u32 = 1 << 9;
    IBV_QP_CREATE_SOURCE_QPN: u32 = 1 << 10;
    IBV_QP_CREATE_PCI_WRITE_END_PADDING: u32 = 1 << 11;

    IBV_QP_EX_WITH_RDMA_WRITE: u64 = 1;
    IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM: u64 = 1 << 1;
    IBV_QP_EX_WITH_SEND: u64 = 1 << 2;
    IBV_QP_EX_WITH_SEND_WITH_IMM: u64 = 1 << 3;
    IBV_QP_EX_WITH_RDMA_READ: u64 = 1 << 4;
    IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP: u64 = 1 << 5;
    IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD: u64 = 1 << 6;
    IBV_QP_EX_WITH_LOCAL_INV: u64 = 1 << 7;
    IBV_QP_EX_WITH_BIND_MW: u64 = 1 << 8;
    IBV_QP_EX_WITH_SEND_WITH_INV: u64 = 1 << 9;
    IBV_QP_EX_WITH_TSO: u64 = 1 << 10;
    IBV_QP_EX_WITH_FLUSH: u64 = 1 << 11;
    IBV_QP_EX_WITH_ATOMIC_WRITE: u64 = 1 << 12;

    IBV_QP_OPEN_ATTR_NUM: u32 = 1;
    IBV_QP_OPEN_ATTR_XRCD: u32 = 1 << 1;
    IBV_QP_OPEN_ATTR_CONTEXT: u32 = 1 << 2;
    IBV_QP_OPEN_ATTR_TYPE: u32 = 1 << 3;

    IBV_QP_STATE: u32 = 1;
    IBV_QP_CUR_STATE: u32 = 1 << 1;
    IBV_QP_EN_SQD_ASYNC_NOTIFY: u32 = 1 << 2;
    IBV_QP_ACCESS_FLAGS: u32 = 1 << 3;
    IBV_QP_PKEY_INDEX: u32 = 1 << 4;
    IBV_QP_PORT: u32 = 1 << 5;
    IBV_QP_QKEY: u32 = 1 << 6;
    IBV_QP_AV: u32 = 1 << 7;
    IBV_QP_PATH_MTU: u32 = 1 << 8;
    IBV_QP_TIMEOUT: u32 = 1 << 9;
    IBV_QP_RETRY_CNT: u32 = 1 << 10;
    IBV_QP_RNR_RETRY: u32 = 1 << 11;
    IBV_QP_RQ_PSN: u32 = 1 << 12;
    IBV_QP_MAX_QP_RD_ATOMIC: u32 = 1 << 13;
    IBV_QP_ALT_PATH: u32 = 1 << 14;
    IBV_QP_MIN_RNR_TIMER: u32 = 1 << 15;
    IBV_QP_SQ_PSN: u32 = 1 << 16;
    IBV_QP_MAX_DEST_RD_ATOMIC: u32 = 1 << 17;
    IBV_QP_PATH_MIG_STATE: u32 = 1 << 18;
    IBV_QP_CAP: u32 = 1 << 19;
    IBV_QP_DEST_QPN: u32 = 1 << 20;
    IBV_QP_RATE_LIMIT: u32 = 1 << 25;

    IBV_QUERY_QP_DATA_IN_ORDER_RETURN_CAPS: u32 = 1;
    IBV_QUERY_QP_DATA_IN_ORDER_DEVICE_ONLY: u32 = 1 << 1;
    IBV_QUERY_QP_DATA_IN_ORDER_WHOLE_MSG: u32 = 1;
    IBV_QUERY_QP_DATA_IN_ORDER_ALIGNED_128_BYTES: u32 = 1 << 1;
}

abi! {
    table STRUCTURES;

    /// Sizes of a queue pair: what is asked for, and then what was given.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_qp_cap {
        pub max_send_wr: u32,
        pub max_recv_wr: u32,
        pub max_send_sge: u32,
        pub max_recv_sge: u32,
        pub max_inline_data: u32,
    }

    /// How to make a queue pair.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_qp_init_attr {
        pub qp_context: *mut c_void,
        pub send_cq: *mut ibv_cq,
        pub recv_cq: *mut ibv_cq,
        pub srq: *mut ibv_srq,
        pub cap: ibv_qp_cap,
        pub qp_type: IbvQpType,
        /// Not zero: every send request completes visibly.
        pub sq_sig_all: c_int,
    }

    /// How packets are spread.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_rx_hash_conf {
        pub rx_hash_function: u8,
        pub rx_hash_key_len: u8,
        pub rx_hash_key: *mut u8,
        pub rx_hash_fields_mask: u64,
    }

    /// How to make a queue pair, extended. Starts as [`ibv_qp_init_attr`].
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_qp_init_attr_ex {
        pub qp_context: *mut c_void,
        pub send_cq: *mut ibv_cq,
        pub recv_cq: *mut ibv_cq,
        pub srq: *mut ibv_srq,
        pub cap: ibv_qp_cap,
        pub qp_type: IbvQpType,
        pub sq_sig_all: c_int,
        /// Bits `IBV_QP_INIT_ATTR_*`.
        pub comp_mask: u32,
        pub pd: *mut ibv_pd,
        pub xrcd: *mut ibv_xrcd,
        /// Bits `IBV_QP_CREATE_*`.
        pub create_flags: u32,
        pub max_tso_header: u16,
        pub rwq_ind_tbl: *mut ibv_rwq_ind_table,
        pub rx_hash_conf: ibv_rx_hash_conf,
        pub source_qpn: u32,
        /// Bits `IBV_QP_EX_WITH_*`.
        pub send_ops_flags: u64,
    }

    /// How to open a queue pair that is shared.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_qp_open_attr {
        /// Bits `IBV_QP_OPEN_ATTR_*`.
        pub comp_mask: u32,
        pub qp_num: u32,
        pub xrcd: *mut ibv_xrcd,
        pub qp_context: *mut c_void,
        pub qp_type: IbvQpType,
    }

    /// Attributes of a queue pair; a mask of bits `IBV_QP_*` beside it says which count.
    #[derive(Clone, Copy)]
    pub struct ibv_qp_attr {
        pub qp_state: IbvQpState,
        pub cur_qp_state: IbvQpState,
        pub path_mtu: IbvMtu,
        pub path_mig_state: IbvMigState,
        pub qkey: u32,
        pub rq_psn: u32,
        pub sq_psn: u32,
        pub dest_qp_num: u32,
        /// Bits `IBV_ACCESS_*`.
        pub qp_access_flags: c_uint,
        pub cap: ibv_qp_cap,
        pub ah_attr: ibv_ah_attr,
        pub alt_ah_attr: ibv_ah_attr,
        pub pkey_index: u16,
        pub alt_pkey_index: u16,
        pub en_sqd_async_notify: u8,
        pub sq_draining: u8,
        pub max_rd_atomic: u8,
        pub max_dest_rd_atomic: u8,
        /// A code of 5 bits from the specification's table, not a number of milliseconds.
        pub min_rnr_timer: u8,
        pub port_num: u8,
        /// Exponent: 4.096 µs · 2^this; zero: for ever.
        pub timeout: u8,
        pub retry_cnt: u8,
        /// 7: for ever.
        pub rnr_retry: u8,
        pub alt_port_num: u8,
        pub alt_timeout: u8,
        /// In kbit/s.
        pub rate_limit: u32,
    }

    /// Limit of a queue pair's rate.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_qp_rate_limit_attr {
        /// In kbit/s.
        pub rate_limit: u32,
        /// In bytes.
        pub max_burst_sz: u32,
        /// In bytes.
        pub typical_pkt_sz: u16,
        pub comp_mask: u32,
    }

    /// A queue pair. `state` is what the library believes; `ibv_query_qp` asks the device.
    ///
    /// A table from elsewhere fills `context`, `qp_context`, `pd`, the queues, `handle`, `qp_num`, `state`, `qp_type`; the rest is
    /// the library's own.
    #[derive(Clone, Copy)]
    pub struct ibv_qp {
        pub context: *mut ibv_context,
        pub qp_context: *mut c_void,
        pub pd: *mut ibv_pd,
        pub send_cq: *mut ibv_cq,
        pub recv_cq: *mut ibv_cq,
        pub srq: *mut ibv_srq,
        pub handle: u32,
        pub qp_num: u32,
        pub state: IbvQpState,
        pub qp_type: IbvQpType,
        pub mutex: libc::pthread_mutex_t,
        pub cond: libc::pthread_cond_t,
        pub events_completed: u32,
    }

    /// Extensions of a connection that two devices agree on.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_ece {
        pub vendor_id: u32,
        pub options: u32,
        pub comp_mask: u32,
    }
}

/// Whether a bit mask of types, as in `ibv_tso_caps`, has this type.
#[must_use]
pub const fn ibv_is_qpt_supported(caps: u32, qpt: IbvQpType) -> bool {
    match 1u32.checked_shl(qpt.0) {
        Some(bit) => caps & bit != 0,
        None => false,
    }
}

const _: () = {
    assert!(size_of::<ibv_qp_attr>() == 144);
    assert!(size_of::<ibv_qp_init_attr>() == 64);
    assert!(size_of::<ibv_qp_init_attr_ex>() == 136);
};

#[cfg(target_arch = "x86_64")]
const _: () = assert!(size_of::<ibv_qp>() == 160);
