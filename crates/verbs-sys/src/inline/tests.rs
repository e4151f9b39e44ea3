//! No inline calls what is not there: over objects made here, whose functions are null, beyond the stated size, or answer.
#![allow(unsafe_code)]

use crate::ops::extended;
use crate::*;
use core::ffi::{c_int, c_void};
use core::mem::{MaybeUninit, offset_of};
use core::ptr::{null_mut, without_provenance_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// A device of nothing but memory: every object belongs to its one context.
struct Objects {
    around: *mut verbs_context,
    context: *mut ibv_context,
    pd: *mut ibv_pd,
    qp: *mut ibv_qp,
    cq: *mut ibv_cq,
    srq: *mut ibv_srq,
    wq: *mut ibv_wq,
    mw: *mut ibv_mw,
    dm: *mut ibv_dm,
    td: *mut ibv_td,
    xrcd: *mut ibv_xrcd,
    flow: *mut ibv_flow,
    action: *mut ibv_flow_action,
    counters: *mut ibv_counters,
    spread: *mut ibv_rwq_ind_table,
}

/// What tests made: memory that lives as long as the process, and that Miri does not call lost.
static KEPT: Mutex<Vec<AtomicPtr<c_void>>> = Mutex::new(Vec::new());

fn leaked<T>(value: T) -> *mut T {
    let value = Box::into_raw(Box::new(value));
    KEPT.lock().unwrap().push(AtomicPtr::new(value.cast()));
    value
}

impl Objects {
    /// Extended, of full size, every function null.
    fn new() -> Self {
        let around = leaked(verbs_context::zeroed());
        // SAFETY: just made, and never freed. The pointer to the context is made from the one to the whole.
        let context = unsafe {
            (*around).sz = size_of::<verbs_context>();
            (*around).context.abi_compat = VERBS_ABI_IS_EXTENDED;
            &raw mut (*around).context
        };
        Self {
            around,
            context,
            pd: leaked(ibv_pd { context, ..ibv_pd::zeroed() }),
            qp: leaked(ibv_qp { context, ..ibv_qp::zeroed() }),
            cq: leaked(ibv_cq { context, ..ibv_cq::zeroed() }),
            srq: leaked(ibv_srq { context, ..ibv_srq::zeroed() }),
            wq: leaked(ibv_wq { context, ..ibv_wq::zeroed() }),
            mw: leaked(ibv_mw { context, r#type: IbvMwType::TYPE_1, ..ibv_mw::zeroed() }),
            dm: leaked(ibv_dm { context, ..ibv_dm::zeroed() }),
            td: leaked(ibv_td { context }),
            xrcd: leaked(ibv_xrcd { context }),
            flow: leaked(ibv_flow { context, ..ibv_flow::zeroed() }),
            action: leaked(ibv_flow_action { context }),
            counters: leaked(ibv_counters { context }),
            spread: leaked(ibv_rwq_ind_table { context, ..ibv_rwq_ind_table::zeroed() }),
        }
    }

    /// Writes an address that would end the process if it were called into every place before `sz`.
    fn poison(&self) {
        let words = offset_of!(verbs_context, sz) / size_of::<usize>();
        for word in 0..words {
            // SAFETY: within the structure, whose fields up to there are one word each.
            unsafe { self.around.cast::<*mut c_void>().add(word).write(without_provenance_mut(8)) };
        }
    }
}

/// An extended inline: its name, the place of its function, a call of it.
type Extended = (&'static str, usize, fn(&Objects) -> Result<(), Errno>);

/// One row per extended inline that needs no table of exported functions.
macro_rules! extended_inlines {
    ( $( $field:ident: $objects:ident => $call:expr; )* ) => { [ $(
        // SAFETY: every object lives and is of the one context; what is called is null or beyond the size.
        (stringify!($field), offset_of!(verbs_context, $field), |$objects: &Objects| unsafe { $call.map(|_| ()) }),
    )* ] };
}

const EXTENDED: [Extended; 33] = extended_inlines! {
    query_rt_values: o => ibv_query_rt_values_ex(o.context, &mut ibv_values_ex::zeroed());
    alloc_td: o => ibv_alloc_td(o.context, &mut ibv_td_init_attr::zeroed());
    dealloc_td: o => ibv_dealloc_td(o.td);
    alloc_parent_domain: o => ibv_alloc_parent_domain(o.context, &mut ibv_parent_domain_init_attr::zeroed());
    open_xrcd: o => ibv_open_xrcd(o.context, &mut ibv_xrcd_init_attr::zeroed());
    close_xrcd: o => ibv_close_xrcd(o.xrcd);
    advise_mr: o => ibv_advise_mr(o.pd, IbvAdviseMrAdvice::PREFETCH, 0, &mut []);
    alloc_null_mr: o => ibv_alloc_null_mr(o.pd);
    alloc_dm: o => ibv_alloc_dm(o.context, &mut ibv_alloc_dm_attr::zeroed());
    free_dm: o => ibv_free_dm(o.dm);
    reg_dm_mr: o => ibv_reg_dm_mr(o.pd, o.dm, 0, 0, 0);
    create_cq_ex: o => ibv_create_cq_ex(o.context, &mut ibv_cq_init_attr_ex::zeroed());
    modify_cq: o => ibv_modify_cq(o.cq, &mut ibv_modify_cq_attr::zeroed());
    create_qp_ex: o => VerbsTable::unsupported().create_qp_ex(o.context, &mut ibv_qp_init_attr_ex::zeroed());
    open_qp: o => ibv_open_qp(o.context, &mut ibv_qp_open_attr::zeroed());
    modify_qp_rate_limit: o => ibv_modify_qp_rate_limit(o.qp, &mut ibv_qp_rate_limit_attr::zeroed());
    create_srq_ex: o => VerbsTable::unsupported().create_srq_ex(o.context, &mut ibv_srq_init_attr_ex::zeroed());
    get_srq_num: o => ibv_get_srq_num(o.srq);
    post_srq_ops: o => ibv_post_srq_ops(o.srq, null_mut(), &mut null_mut());
    create_wq: o => ibv_create_wq(o.context, &mut ibv_wq_init_attr::zeroed());
    modify_wq: o => ibv_modify_wq(o.wq, &mut ibv_wq_attr::zeroed());
    destroy_wq: o => ibv_destroy_wq(o.wq);
    create_rwq_ind_table: o => ibv_create_rwq_ind_table(o.context, &mut ibv_rwq_ind_table_init_attr::zeroed());
    destroy_rwq_ind_table: o => ibv_destroy_rwq_ind_table(o.spread);
    ibv_create_flow: o => crate::ibv_create_flow(o.qp, null_mut());
    ibv_destroy_flow: o => crate::ibv_destroy_flow(o.flow);
    create_flow_action_esp: o => ibv_create_flow_action_esp(o.context, null_mut());
    modify_flow_action_esp: o => ibv_modify_flow_action_esp(o.action, null_mut());
    destroy_flow_action: o => ibv_destroy_flow_action(o.action);
    create_counters: o => ibv_create_counters(o.context);
    destroy_counters: o => ibv_destroy_counters(o.counters);
    attach_counters_point_flow: o => ibv_attach_counters_point_flow(o.counters, &mut ibv_counter_attach_attr::zeroed(), o.flow);
    read_counters: o => ibv_read_counters(o.counters, &mut [], 0);
};

#[test]
fn every_extended_function_has_a_row_here() {
    let structure = layout::all_structures().find(|structure| structure.rust == "verbs_context").unwrap();
    let functions = structure.fields.iter().filter(|field| field.written.starts_with("Option"));
    // Those in front are exported too, and called so; the two queries fall back, and have tests of their own.
    let elsewhere = [
        "free_buf",
        "alloc_buf",
        "dm_export_dmabuf_fd",
        "reg_mr_ex",
        "dealloc_dmah",
        "alloc_dmah",
        "query_port",
        "query_device_ex",
    ];
    for field in functions.filter(|field| !elsewhere.contains(&field.c)) {
        assert!(EXTENDED.iter().any(|(name, _, _)| *name == field.c), "{} has no row", field.c);
    }
}

#[test]
fn a_context_that_is_not_extended_has_no_extended_function() {
    for (name, _, call) in EXTENDED {
        let objects = Objects::new();
        objects.poison();
        // SAFETY: the context lives.
        unsafe { (*objects.context).abi_compat = null_mut() };
        assert_eq!(call(&objects), Err(Errno::NOT_SUPPORTED), "{name}");
    }
}

#[test]
fn a_function_beyond_the_size_that_the_library_knew_is_not_called() {
    for (name, offset, call) in EXTENDED {
        let objects = Objects::new();
        objects.poison();
        // SAFETY: the structure lives.
        unsafe { (*objects.around).sz = size_of::<verbs_context>() - offset - 1 };
        assert_eq!(call(&objects), Err(Errno::NOT_SUPPORTED), "{name}");
    }
}

#[test]
fn a_function_that_the_driver_lacks_is_not_called() {
    for (name, _, call) in EXTENDED {
        assert_eq!(call(&Objects::new()), Err(Errno::NOT_SUPPORTED), "{name}");
    }
}

#[test]
fn a_function_at_the_edge_of_the_size_is_called() {
    unsafe extern "C" fn free(dm: *mut ibv_dm) -> c_int {
        // SAFETY: the test's own object.
        unsafe { (*dm).handle.cast_signed() }
    }
    let objects = Objects::new();
    // SAFETY: the objects live.
    unsafe {
        (*objects.around).free_dm = Some(free);
        (*objects.around).sz = size_of::<verbs_context>() - offset_of!(verbs_context, free_dm);
        assert_eq!(ibv_free_dm(objects.dm), Ok(()));
        (*objects.dm).handle = libc::EBUSY.cast_unsigned();
        assert_eq!(ibv_free_dm(objects.dm), Err(Errno(libc::EBUSY)));
        (*objects.around).sz -= 1;
        assert_eq!(ibv_free_dm(objects.dm), Err(Errno::NOT_SUPPORTED));
    }
}

#[test]
fn a_context_of_an_older_library_is_read_within_its_object() {
    // As libibverbs of rdma-core 44 makes it: 648 bytes, and nothing of ours lies before them.
    const KNOWN: usize = 648;
    unsafe extern "C" fn query_port(
        _: *mut ibv_context,
        port: u8,
        attr: *mut ibv_port_attr,
        size: usize,
    ) -> c_int {
        assert_eq!(size, size_of::<ibv_port_attr>());
        // SAFETY: the caller's structure, of this size.
        unsafe { (*attr).lid = u16::from(port) };
        0
    }
    let words = vec![0usize; KNOWN / size_of::<usize>()].into_boxed_slice();
    let start = Box::into_raw(words).cast::<u8>();
    let context = start.wrapping_add(KNOWN - size_of::<ibv_context>()).cast::<ibv_context>();
    let newer = size_of::<verbs_context>() - KNOWN;
    assert_eq!(offset_of!(verbs_context, query_port), newer, "it is the first that such a library knows");
    // SAFETY: within the memory, which is aligned for it.
    unsafe {
        (*context).abi_compat = VERBS_ABI_IS_EXTENDED;
        start.add(offset_of!(verbs_context, sz) - newer).cast::<usize>().write(KNOWN);
        type Query = unsafe extern "C" fn(*mut ibv_context, u8, *mut ibv_port_attr, usize) -> c_int;
        start.cast::<Option<Query>>().write(Some(query_port));
        assert_eq!(VerbsTable::unsupported().query_port(context, 7).map(|attr| attr.lid), Ok(7));
        assert!(!knows_offset(context, offset_of!(verbs_context, alloc_dmah)));
        assert_eq!(extended!(context, alloc_dmah).err(), Some(Errno::NOT_SUPPORTED));
        drop(Box::from_raw(core::ptr::slice_from_raw_parts_mut(
            start.cast::<usize>(),
            KNOWN / size_of::<usize>(),
        )));
    }
}

#[test]
fn the_path_of_messages_refuses_without_its_functions() {
    let objects = Objects::new();
    let (mut send, mut receive) = (ibv_send_wr::zeroed(), ibv_recv_wr::zeroed());
    let (send, receive) = (&raw mut send, &raw mut receive);
    // SAFETY: the objects and requests live; nothing is called.
    unsafe {
        assert_eq!(
            missing_data_path(objects.context),
            ["poll_cq", "req_notify_cq", "post_srq_recv", "post_send", "post_recv"]
        );
        let mut bad = null_mut();
        assert_eq!(ibv_post_send(objects.qp, send, &mut bad), Err(Errno::NOT_SUPPORTED));
        assert_eq!(bad, send, "none was posted");
        let mut bad = null_mut();
        assert_eq!(ibv_post_recv(objects.qp, receive, &mut bad), Err(Errno::NOT_SUPPORTED));
        assert_eq!(bad, receive);
        let mut bad = null_mut();
        assert_eq!(ibv_post_srq_recv(objects.srq, receive, &mut bad), Err(Errno::NOT_SUPPORTED));
        assert_eq!(bad, receive);
        let mut bad = null_mut();
        assert_eq!(ibv_post_wq_recv(objects.wq, receive, &mut bad), Err(Errno::NOT_SUPPORTED));
        assert_eq!(bad, receive);
        let mut place = [MaybeUninit::<ibv_wc>::uninit()];
        assert_eq!(ibv_poll_cq(objects.cq, &mut place), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_req_notify_cq(objects.cq, false), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_alloc_mw(objects.pd, IbvMwType::TYPE_1), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_dealloc_mw(objects.mw), Err(Errno::NOT_SUPPORTED));
        assert_eq!(
            ibv_bind_mw(objects.qp, objects.mw, &mut ibv_mw_bind::zeroed()),
            Err(Errno::NOT_SUPPORTED)
        );
        assert_eq!(ibv_memcpy_to_dm(objects.dm, 0, &[1]), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_memcpy_from_dm(&mut [0], objects.dm, 0), Err(Errno::NOT_SUPPORTED));
    }
}

/// What the device of the next test answers.
static ANSWER: AtomicI32 = AtomicI32::new(0);

#[test]
fn a_poll_answers_a_count_or_an_error_whatever_negative_number_a_driver_has() {
    unsafe extern "C" fn poll(_: *mut ibv_cq, room: c_int, _: *mut ibv_wc) -> c_int {
        assert_eq!(room, 3);
        ANSWER.load(Ordering::Relaxed)
    }
    let objects = Objects::new();
    let mut places = [const { MaybeUninit::<ibv_wc>::uninit() }; 3];
    // SAFETY: the objects live.
    unsafe { (*objects.context).ops.poll_cq = Some(poll) };
    for (answer, expected) in [(0, Ok(0)), (3, Ok(3)), (-1, Err(Errno::UNKNOWN)), (-2, Err(Errno::UNKNOWN))] {
        ANSWER.store(answer, Ordering::Relaxed);
        // SAFETY: the queue lives.
        assert_eq!(unsafe { ibv_poll_cq(objects.cq, &mut places) }, expected);
    }
}

#[test]
fn binding_a_window_is_judged_before_the_driver_sees_it() {
    let objects = Objects::new();
    let other = Objects::new();
    let mut mr = ibv_mr { context: objects.context, pd: other.pd, ..ibv_mr::zeroed() };
    let mut bind = ibv_mw_bind::zeroed();
    // SAFETY: all objects live; no driver is called.
    unsafe {
        (*objects.mw).pd = objects.pd;
        bind.bind_info.length = 1;
        assert_eq!(
            ibv_bind_mw(objects.qp, objects.mw, &mut bind),
            Err(Errno::INVALID),
            "a range without region"
        );
        bind.bind_info.mr = &raw mut mr;
        assert_eq!(ibv_bind_mw(objects.qp, objects.mw, &mut bind), Err(Errno(libc::EPERM)), "another domain");
        (*objects.mw).r#type = IbvMwType::TYPE_2;
        assert_eq!(
            ibv_bind_mw(objects.qp, objects.mw, &mut bind),
            Err(Errno::INVALID),
            "bound by request only"
        );
    }
}

#[test]
fn an_extended_queue_without_functions_cannot_be_polled() {
    let cq = leaked(ibv_cq_ex::zeroed());
    // SAFETY: the queue lives; nothing is called.
    unsafe {
        assert!(!can_poll(cq));
        assert_eq!(ibv_start_poll(cq), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_next_poll(cq), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_end_poll(cq), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wc_read_opcode(cq), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wc_read_completion_ts(cq), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wc_read_tm_info(cq).err(), Some(Errno::NOT_SUPPORTED));
    }
}

#[test]
fn an_empty_extended_queue_is_no_error() {
    unsafe extern "C" fn empty(_: *mut ibv_cq_ex, attr: *mut ibv_poll_cq_attr) -> c_int {
        // SAFETY: the inline's own structure.
        assert_eq!(unsafe { (*attr).comp_mask }, 0);
        libc::ENOENT
    }
    unsafe extern "C" fn broken(_: *mut ibv_cq_ex) -> c_int {
        libc::EIO
    }
    let cq = leaked(ibv_cq_ex { start_poll: Some(empty), next_poll: Some(broken), ..ibv_cq_ex::zeroed() });
    // SAFETY: the queue lives.
    unsafe {
        assert_eq!(ibv_start_poll(cq), Ok(false));
        assert_eq!(ibv_next_poll(cq), Err(Errno(libc::EIO)));
    }
}

#[test]
fn r7_an_operation_that_a_queue_pair_lacks_is_an_error() {
    let qp = leaked(ibv_qp_ex::zeroed());
    // SAFETY: the queue pair lives; nothing is called.
    unsafe {
        assert_eq!(supports(qp, u64::MAX), 0);
        assert_eq!(ibv_wr_start(qp), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_abort(qp), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_complete(qp), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_atomic_cmp_swp(qp, 0, 0, 0, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_atomic_fetch_add(qp, 0, 0, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_atomic_write(qp, 0, 0, null_mut()), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_bind_mw(qp, null_mut(), 0, null_mut()), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_flush(qp, 0, 0, 0, 0, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_local_inv(qp, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_rdma_read(qp, 0, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_rdma_write(qp, 0, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_rdma_write_imm(qp, 0, 0, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_send(qp), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_send_imm(qp, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_send_inv(qp, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_send_tso(qp, null_mut(), 0, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_set_inline_data(qp, null_mut(), 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_set_inline_data_list(qp, 0, null_mut()), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_set_sge(qp, 0, 0, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_set_sge_list(qp, 0, null_mut()), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_set_ud_addr(qp, null_mut(), 0, 0), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_wr_set_xrc_srqn(qp, 0), Err(Errno::NOT_SUPPORTED));
    }
}

#[test]
fn operations_are_supported_with_all_that_they_need_and_no_others() {
    unsafe extern "C" fn plain(_: *mut ibv_qp_ex) {}
    unsafe extern "C" fn complete(_: *mut ibv_qp_ex) -> c_int {
        libc::ENOMEM
    }
    unsafe extern "C" fn sge(_: *mut ibv_qp_ex, _: u32, _: u64, _: u32) {}
    unsafe extern "C" fn sge_list(_: *mut ibv_qp_ex, _: usize, _: *const ibv_sge) {}
    unsafe extern "C" fn data(_: *mut ibv_qp_ex, _: *mut c_void, _: usize) {}
    unsafe extern "C" fn data_list(_: *mut ibv_qp_ex, _: usize, _: *const ibv_data_buf) {}
    unsafe extern "C" fn address(_: *mut ibv_qp_ex, _: *mut ibv_ah, _: u32, _: u32) {}
    let qp = leaked(ibv_qp_ex {
        wr_start: Some(plain),
        wr_complete: Some(complete),
        wr_abort: Some(plain),
        wr_set_sge: Some(sge),
        wr_set_sge_list: Some(sge_list),
        wr_set_inline_data: Some(data),
        wr_set_inline_data_list: Some(data_list),
        wr_send: Some(plain),
        ..ibv_qp_ex::zeroed()
    });
    let wanted = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_FLUSH;
    // SAFETY: the queue pair lives.
    unsafe {
        (*qp).qp_base.qp_type = IbvQpType::RC;
        assert_eq!(supports(qp, wanted), IBV_QP_EX_WITH_SEND);
        assert_eq!(supports(qp, IBV_QP_EX_WITH_RDMA_READ), 0);
        assert_eq!(ibv_wr_complete(qp), Err(Errno(libc::ENOMEM)));
        (*qp).qp_base.qp_type = IbvQpType::UD;
        assert_eq!(supports(qp, wanted), 0, "datagrams need an address");
        (*qp).wr_set_ud_addr = Some(address);
        assert_eq!(supports(qp, wanted), IBV_QP_EX_WITH_SEND);
        (*qp).wr_set_sge_list = None;
        assert_eq!(supports(qp, wanted), 0, "a setter is missing");
    }
}

mod fall_backs;
