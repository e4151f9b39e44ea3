//! The extended queue pair: an `ibv_qp` with the device's own functions that build work requests.
//!
//! Read by the inlines of `inline/wr.rs`, filled by drivers and by tables from elsewhere; ibv_wr_post(3). Nothing here calls
//! anything.
#![expect(missing_docs, reason = "fields carry the names under which the manual page explains them")]

use crate::ah::ibv_ah;
use crate::layout::abi;
use crate::mr::{ibv_mw, ibv_mw_bind_info};
use crate::qp::ibv_qp;
use crate::wr::{ibv_data_buf, ibv_sge};
use core::ffi::{c_int, c_uint, c_void};

abi! {
    table STRUCTURES;

    /// An extended queue pair. It exists for a queue pair that was made with `IBV_QP_INIT_ATTR_SEND_OPS_FLAGS`; a driver leaves
    /// functions null that were not asked for or that the type of queue pair does not have.
    ///
    /// `wr_flush` came after rdma-core 44: an older library's object ends before it. It is read only on a queue pair that
    /// was made with `IBV_QP_EX_WITH_FLUSH`, which such a library refuses.
    ///
    /// A table from elsewhere fills `qp_base` and every function that it supports, leaves the others null, and answers a pointer
    /// to this from `ibv_qp_to_qp_ex`. The caller sets `wr_id` and `wr_flags` before each function that starts a request.
    #[derive(Clone, Copy)]
    pub struct ibv_qp_ex {
        pub qp_base: ibv_qp,
        pub comp_mask: u64,
        pub wr_id: u64,
        /// Bits `IBV_SEND_*`.
        pub wr_flags: c_uint,
        pub wr_atomic_cmp_swp: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, u64, u64)>,
        pub wr_atomic_fetch_add: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, u64)>,
        pub wr_bind_mw: Option<unsafe extern "C" fn(*mut ibv_qp_ex, *mut ibv_mw, u32, *const ibv_mw_bind_info)>,
        pub wr_local_inv: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32)>,
        pub wr_rdma_read: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64)>,
        pub wr_rdma_write: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64)>,
        pub wr_rdma_write_imm: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, u32)>,
        pub wr_send: Option<unsafe extern "C" fn(*mut ibv_qp_ex)>,
        pub wr_send_imm: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32)>,
        pub wr_send_inv: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32)>,
        pub wr_send_tso: Option<unsafe extern "C" fn(*mut ibv_qp_ex, *mut c_void, u16, u16)>,
        pub wr_set_ud_addr: Option<unsafe extern "C" fn(*mut ibv_qp_ex, *mut ibv_ah, u32, u32)>,
        pub wr_set_xrc_srqn: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32)>,
        pub wr_set_inline_data: Option<unsafe extern "C" fn(*mut ibv_qp_ex, *mut c_void, usize)>,
        pub wr_set_inline_data_list: Option<unsafe extern "C" fn(*mut ibv_qp_ex, usize, *const ibv_data_buf)>,
        pub wr_set_sge: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, u32)>,
        pub wr_set_sge_list: Option<unsafe extern "C" fn(*mut ibv_qp_ex, usize, *const ibv_sge)>,
        pub wr_start: Option<unsafe extern "C" fn(*mut ibv_qp_ex)>,
        pub wr_complete: Option<unsafe extern "C" fn(*mut ibv_qp_ex) -> c_int>,
        pub wr_abort: Option<unsafe extern "C" fn(*mut ibv_qp_ex)>,
        pub wr_atomic_write: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, *const c_void)>,
        pub wr_flush: Option<unsafe extern "C" fn(*mut ibv_qp_ex, u32, u64, usize, u8, u8)>,
    }
}

#[cfg(target_arch = "x86_64")]
const _: () = assert!(size_of::<ibv_qp_ex>() == 360);
