//! Completion queues, legacy and extended.
//!
//! Read by whoever makes or polls one; ibv_create_cq(3), ibv_create_cq_ex(3), ibv_modify_cq(3). Nothing here calls anything: the
//! functions of an extended queue are called in `inline/cq_ex.rs`.
#![expect(missing_docs, reason = "fields carry the names under which the manual pages explain them")]

use crate::channel::ibv_comp_channel;
use crate::context::ibv_context;
use crate::layout::{abi, constants};
use crate::pd::ibv_pd;
use crate::wc::{IbvWcOpcode, IbvWcStatus};
use core::ffi::{c_int, c_uint, c_void};

constants! {
    table CONSTANTS;

    IBV_WC_EX_WITH_BYTE_LEN: u64 = 1;
    IBV_WC_EX_WITH_IMM: u64 = 1 << 1;
    IBV_WC_EX_WITH_QP_NUM: u64 = 1 << 2;
    IBV_WC_EX_WITH_SRC_QP: u64 = 1 << 3;
    IBV_WC_EX_WITH_SLID: u64 = 1 << 4;
    IBV_WC_EX_WITH_SL: u64 = 1 << 5;
    IBV_WC_EX_WITH_DLID_PATH_BITS: u64 = 1 << 6;
    IBV_WC_EX_WITH_COMPLETION_TIMESTAMP: u64 = 1 << 7;
    IBV_WC_EX_WITH_CVLAN: u64 = 1 << 8;
    IBV_WC_EX_WITH_FLOW_TAG: u64 = 1 << 9;
    IBV_WC_EX_WITH_TM_INFO: u64 = 1 << 10;
    IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK: u64 = 1 << 11;
    /// What a legacy completion tells too.
    IBV_WC_STANDARD_FLAGS: u64 = 0x7f;
    /// All that are defined.
    IBV_CREATE_CQ_SUP_WC_FLAGS: u64 = 0xfff;

    IBV_CQ_INIT_ATTR_MASK_FLAGS: u32 = 1;
    IBV_CQ_INIT_ATTR_MASK_PD: u32 = 1 << 1;

    IBV_CREATE_CQ_ATTR_SINGLE_THREADED: u32 = 1;
    IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN: u32 = 1 << 1;

    IBV_CQ_ATTR_MODERATE: u32 = 1;
}

abi! {
    table STRUCTURES;

    /// A completion queue.
    ///
    /// A table from elsewhere fills `context`, `channel`, `cq_context`, `handle`, `cqe`; `ibv_get_cq_event` and
    /// `ibv_ack_cq_events` are functions of that table, so the rest is its own.
    #[derive(Clone, Copy)]
    pub struct ibv_cq {
        pub context: *mut ibv_context,
        pub channel: *mut ibv_comp_channel,
        pub cq_context: *mut c_void,
        pub handle: u32,
        /// Entries that it has room for.
        pub cqe: c_int,
        pub mutex: libc::pthread_mutex_t,
        pub cond: libc::pthread_cond_t,
        pub comp_events_completed: u32,
        pub async_events_completed: u32,
    }

    /// Input of `ibv_start_poll`; no bit of `comp_mask` is defined.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_poll_cq_attr {
        pub comp_mask: u32,
    }

    /// What a message with a tag carried.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_wc_tm_info {
        pub tag: u64,
        pub r#priv = "priv": u32,
    }

    /// An extended completion queue. Starts as [`ibv_cq`].
    ///
    /// Between `start_poll` and `end_poll`, `status` and `wr_id` are of the completion that is looked at; the other values are
    /// read by functions. A driver leaves those null whose values were not asked for when the queue was made.
    ///
    /// A table from elsewhere that offers `create_cq_ex` fills `start_poll`, `next_poll`, `end_poll`, `read_opcode`,
    /// `read_vendor_err`, `read_wc_flags` always, and of the others those that `wc_flags` asked for.
    #[derive(Clone, Copy)]
    pub struct ibv_cq_ex {
        pub context: *mut ibv_context,
        pub channel: *mut ibv_comp_channel,
        pub cq_context: *mut c_void,
        pub handle: u32,
        pub cqe: c_int,
        pub mutex: libc::pthread_mutex_t,
        pub cond: libc::pthread_cond_t,
        pub comp_events_completed: u32,
        pub async_events_completed: u32,
        pub comp_mask: u32,
        pub status: IbvWcStatus,
        pub wr_id: u64,
        pub start_poll: Option<unsafe extern "C" fn(*mut ibv_cq_ex, *mut ibv_poll_cq_attr) -> c_int>,
        pub next_poll: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> c_int>,
        pub end_poll: Option<unsafe extern "C" fn(*mut ibv_cq_ex)>,
        pub read_opcode: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> IbvWcOpcode>,
        pub read_vendor_err: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_byte_len: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_imm_data: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_qp_num: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_src_qp: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_wc_flags: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> c_uint>,
        pub read_slid: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_sl: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u8>,
        pub read_dlid_path_bits: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u8>,
        pub read_completion_ts: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u64>,
        pub read_cvlan: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u16>,
        pub read_flow_tag: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u32>,
        pub read_tm_info: Option<unsafe extern "C" fn(*mut ibv_cq_ex, *mut ibv_wc_tm_info)>,
        pub read_completion_wallclock_ns: Option<unsafe extern "C" fn(*mut ibv_cq_ex) -> u64>,
    }

    /// How to make an extended completion queue.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_cq_init_attr_ex {
        pub cqe: u32,
        pub cq_context: *mut c_void,
        /// May be null: no events.
        pub channel: *mut ibv_comp_channel,
        pub comp_vector: u32,
        /// Bits `IBV_WC_EX_*`.
        pub wc_flags: u64,
        /// Bits `IBV_CQ_INIT_ATTR_MASK_*`.
        pub comp_mask: u32,
        /// Bits `IBV_CREATE_CQ_ATTR_*`.
        pub flags: u32,
        pub parent_domain: *mut ibv_pd,
    }

    /// After how many completions, or after how many microseconds, an event is raised.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_moderate_cq {
        pub cq_count: u16,
        pub cq_period: u16,
    }

    /// A change of a completion queue.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_modify_cq_attr {
        /// `IBV_CQ_ATTR_MODERATE`.
        pub attr_mask: u32,
        pub moderate: ibv_moderate_cq,
    }
}

#[cfg(target_arch = "x86_64")]
const _: () = {
    assert!(size_of::<ibv_cq>() == 128);
    assert!(size_of::<ibv_cq_ex>() == 288);
};
