//! Work queues outside of queue pairs, and tables that spread packets over them.
//!
//! Read by whoever makes one; ibv_create_wq(3), ibv_create_rwq_ind_table(3). Nothing here calls anything.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::context::ibv_context;
use crate::cq::ibv_cq;
use crate::layout::{abi, codes, constants};
use crate::pd::ibv_pd;
use crate::wr::ibv_recv_wr;
use core::ffi::{c_int, c_void};

codes! {
    table CODES;

    /// Type of a work queue.
    pub struct IbvWqType(u32) as "enum ibv_wq_type", "IBV_WQT_" {
        RQ = 0,
    }

    /// State of a work queue.
    pub struct IbvWqState(u32) as "enum ibv_wq_state", "IBV_WQS_" {
        RESET = 0,
        RDY = 1,
        ERR = 2,
        UNKNOWN = 3,
    }
}

constants! {
    table CONSTANTS;

    IBV_WQ_INIT_ATTR_FLAGS: u32 = 1;

    IBV_WQ_FLAGS_CVLAN_STRIPPING: u32 = 1;
    IBV_WQ_FLAGS_SCATTER_FCS: u32 = 1 << 1;
    IBV_WQ_FLAGS_DELAY_DROP: u32 = 1 << 2;
    IBV_WQ_FLAGS_PCI_WRITE_END_PADDING: u32 = 1 << 3;

    IBV_WQ_ATTR_STATE: u32 = 1;
    IBV_WQ_ATTR_CURR_STATE: u32 = 1 << 1;
    IBV_WQ_ATTR_FLAGS: u32 = 1 << 2;
}

abi! {
    table STRUCTURES;

    /// How to make a work queue.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_wq_init_attr {
        pub wq_context: *mut c_void,
        pub wq_type: IbvWqType,
        pub max_wr: u32,
        pub max_sge: u32,
        pub pd: *mut ibv_pd,
        pub cq: *mut ibv_cq,
        pub comp_mask: u32,
        pub create_flags: u32,
    }

    /// A change of a work queue.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_wq_attr {
        pub attr_mask: u32,
        pub wq_state: IbvWqState,
        pub curr_wq_state: IbvWqState,
        pub flags: u32,
        pub flags_mask: u32,
    }

    /// A work queue.
    #[derive(Clone, Copy)]
    pub struct ibv_wq {
        pub context: *mut ibv_context,
        pub wq_context: *mut c_void,
        pub pd: *mut ibv_pd,
        pub cq: *mut ibv_cq,
        pub wq_num: u32,
        pub handle: u32,
        pub state: IbvWqState,
        pub wq_type: IbvWqType,
        pub post_recv: Option<unsafe extern "C" fn(*mut ibv_wq, *mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> c_int>,
        pub mutex: libc::pthread_mutex_t,
        pub cond: libc::pthread_cond_t,
        pub events_completed: u32,
        pub comp_mask: u32,
    }

    /// A table that spreads packets over work queues.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_rwq_ind_table {
        pub context: *mut ibv_context,
        pub ind_tbl_handle: c_int,
        pub ind_tbl_num: c_int,
        pub comp_mask: u32,
    }

    /// How to make one.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_rwq_ind_table_init_attr {
        pub log_ind_tbl_size: u32,
        pub ind_tbl: *mut *mut ibv_wq,
        pub comp_mask: u32,
    }
}
