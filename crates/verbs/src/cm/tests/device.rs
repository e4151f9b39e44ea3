//! A device that does nothing: it is opened once per thread, and notes what queue pairs are changed to.
#![allow(unsafe_code)]

use super::fake::{called, note};
use sinew_verbs_sys as sys;
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

thread_local! {
    static CONTEXT: Cell<*mut sys::ibv_context> = const { Cell::new(null_mut()) };
    static STATE: Cell<sys::IbvQpState> = const { Cell::new(sys::IbvQpState::RESET) };
    static NUMBER: Cell<u32> = const { Cell::new(5) };
}

/// The number of the queue pairs that are made from here on.
pub(super) fn number(number: u32) {
    NUMBER.set(number);
}

/// The device of this thread, opened.
pub(super) fn context() -> *mut sys::ibv_context {
    if CONTEXT.get().is_null() {
        let mut context = sys::ibv_context::zeroed();
        context.num_comp_vectors = 1;
        context.ops.poll_cq = Some(poll);
        context.ops.req_notify_cq = Some(arm);
        context.ops.post_srq_recv = Some(post_srq);
        context.ops.post_send = Some(post_send);
        context.ops.post_recv = Some(post_receive);
        CONTEXT.set(Box::into_raw(Box::new(context)));
    }
    CONTEXT.get()
}

/// How it speaks from here on.
pub(super) fn speaks(transport: sys::IbvTransportType) {
    let mut device = sys::ibv_device::zeroed();
    device.transport_type = transport;
    // SAFETY: this thread's, which nobody has opened yet.
    unsafe { (*context()).device = Box::into_raw(Box::new(device)) };
}

unsafe extern "C" fn poll(_: *mut sys::ibv_cq, _: c_int, _: *mut sys::ibv_wc) -> c_int {
    0
}

unsafe extern "C" fn arm(_: *mut sys::ibv_cq, _: c_int) -> c_int {
    0
}

unsafe extern "C" fn post_srq(
    _: *mut sys::ibv_srq,
    _: *mut sys::ibv_recv_wr,
    _: *mut *mut sys::ibv_recv_wr,
) -> c_int {
    libc::ENOMEM
}

unsafe extern "C" fn post_send(
    _: *mut sys::ibv_qp,
    _: *mut sys::ibv_send_wr,
    _: *mut *mut sys::ibv_send_wr,
) -> c_int {
    libc::ENOMEM
}

unsafe extern "C" fn post_receive(
    _: *mut sys::ibv_qp,
    _: *mut sys::ibv_recv_wr,
    _: *mut *mut sys::ibv_recv_wr,
) -> c_int {
    libc::ENOMEM
}

unsafe extern "C" fn device_name(_: *mut sys::ibv_device) -> *const c_char {
    c"fake0".as_ptr()
}

unsafe extern "C" fn query_device(_: *mut sys::ibv_context, attributes: *mut sys::ibv_device_attr) -> c_int {
    // SAFETY: a place of the caller's.
    unsafe {
        (*attributes).max_qp_wr = 1024;
        (*attributes).max_sge = 4;
        (*attributes).max_qp_rd_atom = 8;
        (*attributes).max_qp_init_rd_atom = 4;
        (*attributes).phys_port_cnt = 1;
    }
    0
}

unsafe extern "C" fn alloc_pd(context: *mut sys::ibv_context) -> *mut sys::ibv_pd {
    let mut pd = sys::ibv_pd::zeroed();
    pd.context = context;
    Box::into_raw(Box::new(pd))
}

unsafe extern "C" fn dealloc_pd(pd: *mut sys::ibv_pd) -> c_int {
    // SAFETY: made above, given back once.
    drop(unsafe { Box::from_raw(pd) });
    0
}

unsafe extern "C" fn create_cq(
    context: *mut sys::ibv_context,
    cqe: c_int,
    _: *mut c_void,
    _: *mut sys::ibv_comp_channel,
    _: c_int,
) -> *mut sys::ibv_cq {
    let mut cq = sys::ibv_cq::zeroed();
    cq.context = context;
    cq.cqe = cqe;
    Box::into_raw(Box::new(cq))
}

unsafe extern "C" fn destroy_cq(cq: *mut sys::ibv_cq) -> c_int {
    // SAFETY: made above, given back once.
    drop(unsafe { Box::from_raw(cq) });
    0
}

unsafe extern "C" fn create_qp(pd: *mut sys::ibv_pd, _: *mut sys::ibv_qp_init_attr) -> *mut sys::ibv_qp {
    let mut qp = sys::ibv_qp::zeroed();
    // SAFETY: a domain of ours.
    qp.context = unsafe { (*pd).context };
    qp.qp_num = NUMBER.get();
    STATE.set(sys::IbvQpState::RESET);
    Box::into_raw(Box::new(qp))
}

unsafe extern "C" fn destroy_qp(qp: *mut sys::ibv_qp) -> c_int {
    note("destroy_qp");
    // SAFETY: made above, given back once.
    drop(unsafe { Box::from_raw(qp) });
    0
}

unsafe extern "C" fn modify_qp(_: *mut sys::ibv_qp, attributes: *mut sys::ibv_qp_attr, mask: c_int) -> c_int {
    // SAFETY: the caller's.
    let attributes = unsafe { &*attributes };
    let mut more = format!("{:?}", attributes.qp_state);
    if mask & (1 << 3) != 0 {
        more += &format!(" access {}", attributes.qp_access_flags);
    }
    if mask & (1 << 17) != 0 {
        more += &format!(" answers {}", attributes.max_dest_rd_atomic);
    }
    if mask & (1 << 13) != 0 {
        more += &format!(" asks {}", attributes.max_rd_atomic);
    }
    let answer = called("modify_qp", &more);
    if answer == 0 {
        STATE.set(attributes.qp_state);
    }
    answer
}

unsafe extern "C" fn query_qp(
    _: *mut sys::ibv_qp,
    attributes: *mut sys::ibv_qp_attr,
    _: c_int,
    _: *mut sys::ibv_qp_init_attr,
) -> c_int {
    // SAFETY: a place of the caller's.
    unsafe { (*attributes).qp_state = STATE.get() };
    0
}

pub(super) fn table() -> sys::VerbsTable {
    let mut table = sys::VerbsTable::unsupported();
    table.ibv_get_device_name = device_name;
    table.ibv_query_device = query_device;
    table.ibv_alloc_pd = alloc_pd;
    table.ibv_dealloc_pd = dealloc_pd;
    table.ibv_create_cq = create_cq;
    table.ibv_destroy_cq = destroy_cq;
    table.ibv_create_qp = create_qp;
    table.ibv_destroy_qp = destroy_qp;
    table.ibv_modify_qp = modify_qp;
    table.ibv_query_qp = query_qp;
    table
}
