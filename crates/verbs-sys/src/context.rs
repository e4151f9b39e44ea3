//! An opened device: `ibv_context`, its table of functions, and `verbs_context`, which lies around it.
//!
//! Read by `ops.rs` and the inlines, filled by drivers and by tables from elsewhere. Nothing here calls anything.
#![expect(missing_docs, reason = "fields carry the names of the functions that the manual pages explain")]

use crate::counters::{ibv_counter_attach_attr, ibv_counters, ibv_counters_init_attr};
use crate::cq::{ibv_cq, ibv_cq_ex, ibv_cq_init_attr_ex, ibv_modify_cq_attr};
use crate::device::{ibv_device, ibv_device_attr_ex, ibv_query_device_ex_input, ibv_values_ex};
use crate::flow::{ibv_flow, ibv_flow_action, ibv_flow_action_esp_attr, ibv_flow_attr};
use crate::layout::abi;
use crate::mr::{
    IbvAdviseMrAdvice, IbvMwType, ibv_alloc_dm_attr, ibv_buf, ibv_dm, ibv_dmah, ibv_dmah_init_attr, ibv_mr,
    ibv_mr_init_attr, ibv_mw, ibv_mw_bind,
};
use crate::pd::{
    ibv_parent_domain_init_attr, ibv_pd, ibv_td, ibv_td_init_attr, ibv_xrcd, ibv_xrcd_init_attr,
};
use crate::port::ibv_port_attr;
use crate::qp::{ibv_qp, ibv_qp_init_attr_ex, ibv_qp_open_attr, ibv_qp_rate_limit_attr};
use crate::srq::{ibv_srq, ibv_srq_init_attr_ex};
use crate::wc::ibv_wc;
use crate::wq::{ibv_rwq_ind_table, ibv_rwq_ind_table_init_attr, ibv_wq, ibv_wq_attr, ibv_wq_init_attr};
use crate::wr::{ibv_ops_wr, ibv_recv_wr, ibv_send_wr, ibv_sge};
use core::ffi::{c_int, c_uint, c_void};

/// What `abi_compat` of a context holds around which a [`verbs_context`] lies.
pub const VERBS_ABI_IS_EXTENDED: *mut c_void = core::ptr::without_provenance_mut(usize::MAX);

/// A place of the table that the library keeps for itself.
pub type Reserved = *mut c_void;

abi! {
    table STRUCTURES;

    /// The functions of an opened device that are not exported. Those named `_compat_*` are the library's own.
    ///
    /// libibverbs fills every place: with a function that answers `EOPNOTSUPP` where a driver has none. A table from elsewhere
    /// must fill `poll_cq`, `req_notify_cq`, `post_send`, `post_recv`, `post_srq_recv`; null in `alloc_mw`, `bind_mw`,
    /// `dealloc_mw` says that there are no memory windows.
    #[derive(Clone, Copy)]
    pub struct ibv_context_ops {
        pub _compat_query_device: Reserved,
        pub _compat_query_port: Reserved,
        pub _compat_alloc_pd: Reserved,
        pub _compat_dealloc_pd: Reserved,
        pub _compat_reg_mr: Reserved,
        pub _compat_rereg_mr: Reserved,
        pub _compat_dereg_mr: Reserved,
        pub alloc_mw: Option<unsafe extern "C" fn(*mut ibv_pd, IbvMwType) -> *mut ibv_mw>,
        pub bind_mw: Option<unsafe extern "C" fn(*mut ibv_qp, *mut ibv_mw, *mut ibv_mw_bind) -> c_int>,
        pub dealloc_mw: Option<unsafe extern "C" fn(*mut ibv_mw) -> c_int>,
        pub _compat_create_cq: Reserved,
        pub poll_cq: Option<unsafe extern "C" fn(*mut ibv_cq, c_int, *mut ibv_wc) -> c_int>,
        pub req_notify_cq: Option<unsafe extern "C" fn(*mut ibv_cq, c_int) -> c_int>,
        pub _compat_cq_event: Reserved,
        pub _compat_resize_cq: Reserved,
        pub _compat_destroy_cq: Reserved,
        pub _compat_create_srq: Reserved,
        pub _compat_modify_srq: Reserved,
        pub _compat_query_srq: Reserved,
        pub _compat_destroy_srq: Reserved,
        pub post_srq_recv:
            Option<unsafe extern "C" fn(*mut ibv_srq, *mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> c_int>,
        pub _compat_create_qp: Reserved,
        pub _compat_query_qp: Reserved,
        pub _compat_modify_qp: Reserved,
        pub _compat_destroy_qp: Reserved,
        pub post_send: Option<unsafe extern "C" fn(*mut ibv_qp, *mut ibv_send_wr, *mut *mut ibv_send_wr) -> c_int>,
        pub post_recv: Option<unsafe extern "C" fn(*mut ibv_qp, *mut ibv_recv_wr, *mut *mut ibv_recv_wr) -> c_int>,
        pub _compat_create_ah: Reserved,
        pub _compat_destroy_ah: Reserved,
        pub _compat_attach_mcast: Reserved,
        pub _compat_detach_mcast: Reserved,
        pub _compat_async_event: Reserved,
    }

    /// An opened device.
    ///
    /// A table from elsewhere fills `device`, `ops`, `async_fd` (a descriptor that is readable when an asynchronous event waits,
    /// or -1), `num_comp_vectors` and, when it has extended functions, `abi_compat`.
    #[derive(Clone, Copy)]
    pub struct ibv_context {
        pub device: *mut ibv_device,
        pub ops: ibv_context_ops,
        pub cmd_fd: c_int,
        pub async_fd: c_int,
        pub num_comp_vectors: c_int,
        pub mutex: libc::pthread_mutex_t,
        /// [`VERBS_ABI_IS_EXTENDED`]: this is the last field of a [`verbs_context`].
        pub abi_compat: *mut c_void,
    }

    /// The extended functions of an opened device. The structure grows at its front: `sz` says how much of it the library that
    /// made it knew, counted from the end, and a function is there only within that (`ops.rs`).
    ///
    /// A table from elsewhere that offers one of these fills `sz` with `size_of::<verbs_context>()`, the functions that it has, null
    /// in the others, and `context.abi_compat` with [`VERBS_ABI_IS_EXTENDED`]; its contexts are pointers to `context` that were
    /// made from a pointer to the whole. The six front ones belong to the library (the exported functions of the same names are
    /// called instead).
    #[derive(Clone, Copy)]
    pub struct verbs_context {
        pub free_buf: Option<unsafe extern "C" fn(*mut ibv_buf)>,
        pub alloc_buf: Option<unsafe extern "C" fn(*mut ibv_pd, usize, *mut *mut ibv_buf) -> *mut c_void>,
        pub dm_export_dmabuf_fd: Option<unsafe extern "C" fn(*mut ibv_dm) -> c_int>,
        pub reg_mr_ex: Option<unsafe extern "C" fn(*mut ibv_pd, *mut ibv_mr_init_attr) -> *mut ibv_mr>,
        pub dealloc_dmah: Option<unsafe extern "C" fn(*mut ibv_dmah) -> c_int>,
        pub alloc_dmah:
            Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_dmah_init_attr) -> *mut ibv_dmah>,
        pub query_port: Option<unsafe extern "C" fn(*mut ibv_context, u8, *mut ibv_port_attr, usize) -> c_int>,
        pub advise_mr:
            Option<unsafe extern "C" fn(*mut ibv_pd, IbvAdviseMrAdvice, u32, *mut ibv_sge, u32) -> c_int>,
        pub alloc_null_mr: Option<unsafe extern "C" fn(*mut ibv_pd) -> *mut ibv_mr>,
        pub read_counters: Option<unsafe extern "C" fn(*mut ibv_counters, *mut u64, u32, u32) -> c_int>,
        pub attach_counters_point_flow: Option<
            unsafe extern "C" fn(*mut ibv_counters, *mut ibv_counter_attach_attr, *mut ibv_flow) -> c_int,
        >,
        pub create_counters:
            Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_counters_init_attr) -> *mut ibv_counters>,
        pub destroy_counters: Option<unsafe extern "C" fn(*mut ibv_counters) -> c_int>,
        pub reg_dm_mr:
            Option<unsafe extern "C" fn(*mut ibv_pd, *mut ibv_dm, u64, usize, c_uint) -> *mut ibv_mr>,
        pub alloc_dm: Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_alloc_dm_attr) -> *mut ibv_dm>,
        pub free_dm: Option<unsafe extern "C" fn(*mut ibv_dm) -> c_int>,
        pub modify_flow_action_esp:
            Option<unsafe extern "C" fn(*mut ibv_flow_action, *mut ibv_flow_action_esp_attr) -> c_int>,
        pub destroy_flow_action: Option<unsafe extern "C" fn(*mut ibv_flow_action) -> c_int>,
        pub create_flow_action_esp: Option<
            unsafe extern "C" fn(*mut ibv_context, *mut ibv_flow_action_esp_attr) -> *mut ibv_flow_action,
        >,
        pub modify_qp_rate_limit: Option<unsafe extern "C" fn(*mut ibv_qp, *mut ibv_qp_rate_limit_attr) -> c_int>,
        pub alloc_parent_domain:
            Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_parent_domain_init_attr) -> *mut ibv_pd>,
        pub dealloc_td: Option<unsafe extern "C" fn(*mut ibv_td) -> c_int>,
        pub alloc_td: Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_td_init_attr) -> *mut ibv_td>,
        pub modify_cq: Option<unsafe extern "C" fn(*mut ibv_cq, *mut ibv_modify_cq_attr) -> c_int>,
        pub post_srq_ops:
            Option<unsafe extern "C" fn(*mut ibv_srq, *mut ibv_ops_wr, *mut *mut ibv_ops_wr) -> c_int>,
        pub destroy_rwq_ind_table: Option<unsafe extern "C" fn(*mut ibv_rwq_ind_table) -> c_int>,
        pub create_rwq_ind_table: Option<
            unsafe extern "C" fn(*mut ibv_context, *mut ibv_rwq_ind_table_init_attr) -> *mut ibv_rwq_ind_table,
        >,
        pub destroy_wq: Option<unsafe extern "C" fn(*mut ibv_wq) -> c_int>,
        pub modify_wq: Option<unsafe extern "C" fn(*mut ibv_wq, *mut ibv_wq_attr) -> c_int>,
        pub create_wq: Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_wq_init_attr) -> *mut ibv_wq>,
        pub query_rt_values: Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_values_ex) -> c_int>,
        pub create_cq_ex:
            Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_cq_init_attr_ex) -> *mut ibv_cq_ex>,
        pub r#priv = "priv": Reserved,
        pub query_device_ex: Option<
            unsafe extern "C" fn(
                *mut ibv_context,
                *const ibv_query_device_ex_input,
                *mut ibv_device_attr_ex,
                usize,
            ) -> c_int,
        >,
        pub ibv_destroy_flow: Option<unsafe extern "C" fn(*mut ibv_flow) -> c_int>,
        pub abi_placeholder2 = "ABI_placeholder2": Reserved,
        pub ibv_create_flow: Option<unsafe extern "C" fn(*mut ibv_qp, *mut ibv_flow_attr) -> *mut ibv_flow>,
        pub abi_placeholder1 = "ABI_placeholder1": Reserved,
        pub open_qp: Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_qp_open_attr) -> *mut ibv_qp>,
        pub create_qp_ex: Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_qp_init_attr_ex) -> *mut ibv_qp>,
        pub get_srq_num: Option<unsafe extern "C" fn(*mut ibv_srq, *mut u32) -> c_int>,
        pub create_srq_ex:
            Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_srq_init_attr_ex) -> *mut ibv_srq>,
        pub open_xrcd: Option<unsafe extern "C" fn(*mut ibv_context, *mut ibv_xrcd_init_attr) -> *mut ibv_xrcd>,
        pub close_xrcd: Option<unsafe extern "C" fn(*mut ibv_xrcd) -> c_int>,
        pub _abi_placeholder3 = "_ABI_placeholder3": u64,
        /// Bytes of this structure that the library which made it knew, counted from the end.
        pub sz: usize,
        pub context: ibv_context,
    }
}

const _: () = assert!(size_of::<ibv_context_ops>() == 256);

#[cfg(target_arch = "x86_64")]
const _: () = {
    assert!(size_of::<ibv_context>() == 328);
    assert!(size_of::<verbs_context>() == 696);
};
