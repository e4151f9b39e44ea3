//! Shared receive queues.
//!
//! Read by whoever makes one; ibv_create_srq(3), ibv_create_srq_ex(3), ibv_modify_srq(3). Nothing here calls anything.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::context::ibv_context;
use crate::cq::ibv_cq;
use crate::layout::{abi, codes, constants};
use crate::pd::{ibv_pd, ibv_xrcd};
use core::ffi::c_void;

codes! {
    table CODES;

    /// Type of a shared receive queue.
    pub struct IbvSrqType(u32) as "enum ibv_srq_type", "IBV_SRQT_" {
        BASIC = 0,
        XRC = 1,
        TM = 2,
    }
}

constants! {
    table CONSTANTS;

    IBV_SRQ_MAX_WR: u32 = 1;
    IBV_SRQ_LIMIT: u32 = 1 << 1;

    IBV_SRQ_INIT_ATTR_TYPE: u32 = 1;
    IBV_SRQ_INIT_ATTR_PD: u32 = 1 << 1;
    IBV_SRQ_INIT_ATTR_XRCD: u32 = 1 << 2;
    IBV_SRQ_INIT_ATTR_CQ: u32 = 1 << 3;
    IBV_SRQ_INIT_ATTR_TM: u32 = 1 << 4;
}

abi! {
    table STRUCTURES;

    /// Size of a shared receive queue, and the number of receives below which an event is raised.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_srq_attr {
        pub max_wr: u32,
        pub max_sge: u32,
        pub srq_limit: u32,
    }

    /// How to make one.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_srq_init_attr {
        pub srq_context: *mut c_void,
        pub attr: ibv_srq_attr,
    }

    /// Size of a list of tags.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_tm_cap {
        pub max_num_tags: u32,
        pub max_ops: u32,
    }

    /// How to make one, extended.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_srq_init_attr_ex {
        pub srq_context: *mut c_void,
        pub attr: ibv_srq_attr,
        /// Bits `IBV_SRQ_INIT_ATTR_*`.
        pub comp_mask: u32,
        pub srq_type: IbvSrqType,
        pub pd: *mut ibv_pd,
        pub xrcd: *mut ibv_xrcd,
        pub cq: *mut ibv_cq,
        pub tm_cap: ibv_tm_cap,
    }

    /// A shared receive queue.
    ///
    /// The library uses `mutex`, `cond` and `events_completed`; a table from elsewhere that gives out asynchronous events does so
    /// itself.
    #[derive(Clone, Copy)]
    pub struct ibv_srq {
        pub context: *mut ibv_context,
        pub srq_context: *mut c_void,
        pub pd: *mut ibv_pd,
        pub handle: u32,
        pub mutex: libc::pthread_mutex_t,
        pub cond: libc::pthread_cond_t,
        pub events_completed: u32,
    }
}

#[cfg(target_arch = "x86_64")]
const _: () = assert!(size_of::<ibv_srq>() == 128);
