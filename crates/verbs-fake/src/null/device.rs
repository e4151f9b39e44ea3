//! The objects of the null device: made for Rust through the table, for C through four functions.
//!
//! Everything that is not posting or polling answers that it is done.
#![allow(unsafe_code)]

use super::data_path::{self as path, NullCq, NullQp, Ring};
use core::ffi::{c_char, c_int, c_void};
use core::ptr::{null_mut, without_provenance_mut};
use sinew_verbs_sys as sys;

/// Makes the library of the null device.
#[derive(Clone, Copy, Debug)]
pub struct NullDevice;

impl NullDevice {
    /// A library with one device, `null0`, whose queue pairs complete what they post at once. Queue pairs complete into the send queue that
    /// they are made with; each context, and what is made of it, belongs to one thread, and nothing is freed before the process ends.
    #[must_use]
    pub fn library() -> sys::Library {
        let mut table = sys::VerbsTable::unsupported();
        table.ibv_get_device_list = get_device_list;
        table.ibv_free_device_list = free_device_list;
        table.ibv_get_device_name = device_name;
        table.ibv_open_device = open;
        table.ibv_close_device = close;
        table.ibv_query_device = query_device;
        table.ibv_query_port = query_port;
        table.ibv_query_gid = query_gid;
        table.ibv_query_pkey = query_pkey;
        table.ibv_alloc_pd = alloc_pd;
        table.ibv_dealloc_pd = dealloc_pd;
        table.ibv_reg_mr = reg_mr;
        table.ibv_dereg_mr = dereg_mr;
        table.ibv_create_cq = create_cq;
        table.ibv_destroy_cq = destroy_cq;
        table.ibv_create_qp = create_qp;
        table.ibv_modify_qp = modify_qp;
        table.ibv_query_qp = query_qp;
        table.ibv_destroy_qp = destroy_qp;
        table.ibv_qp_to_qp_ex = Some(to_ex);
        // SAFETY: the functions live for ever and do what posting and polling ask for; the rest answers that it is done.
        unsafe { sys::Library::from_table(table, None) }
    }
}

fn leak<T>(object: T) -> *mut T {
    Box::into_raw(Box::new(object))
}

fn device() -> *mut sys::ibv_device {
    let mut device = sys::ibv_device::zeroed();
    device.node_type = sys::IbvNodeType::CA;
    device.transport_type = sys::IbvTransportType::IB;
    crate::object::device::write_text(&mut device.name, "null0");
    leak(device)
}

unsafe extern "C" fn get_device_list(count: *mut c_int) -> *mut *mut sys::ibv_device {
    if !count.is_null() {
        // SAFETY: the caller's promise: a place for the count.
        unsafe { count.write(1) };
    }
    leak([device(), null_mut()]).cast()
}

unsafe extern "C" fn free_device_list(_: *mut *mut sys::ibv_device) {}

unsafe extern "C" fn device_name(device: *mut sys::ibv_device) -> *const c_char {
    // SAFETY: the caller's promise: a device of the list.
    unsafe { (&raw const (*device).name).cast() }
}

unsafe extern "C" fn open(device: *mut sys::ibv_device) -> *mut sys::ibv_context {
    let mut whole = sys::verbs_context::zeroed();
    whole.sz = size_of::<sys::verbs_context>();
    whole.create_cq_ex = Some(create_cq_ex);
    whole.create_qp_ex = Some(create_qp_ex);
    let context = &mut whole.context;
    (context.device, context.cmd_fd, context.async_fd, context.num_comp_vectors) = (device, -1, -1, 1);
    context.abi_compat = sys::VERBS_ABI_IS_EXTENDED;
    context.ops.post_send = Some(path::post_send);
    context.ops.post_recv = Some(path::post_recv);
    context.ops.post_srq_recv = Some(path::post_srq_recv);
    context.ops.poll_cq = Some(path::poll_cq);
    context.ops.req_notify_cq = Some(path::req_notify);
    let whole = leak(whole);
    // SAFETY: it was just made, and the pointer is made from one to the whole.
    unsafe { &raw mut (*whole).context }
}

unsafe extern "C" fn close(_: *mut sys::ibv_context) -> c_int {
    0
}

unsafe extern "C" fn query_device(_: *mut sys::ibv_context, attr: *mut sys::ibv_device_attr) -> c_int {
    let mut all = sys::ibv_device_attr::zeroed();
    (all.max_qp, all.max_qp_wr, all.max_sge, all.max_cq, all.max_cqe) = (1024, 4096, 16, 1024, 1 << 16);
    (all.max_mr, all.max_pd, all.max_mr_size, all.phys_port_cnt, all.max_pkeys) =
        (1024, 1024, u64::MAX, 1, 1);
    (all.max_qp_rd_atom, all.max_qp_init_rd_atom, all.page_size_cap) = (16, 16, 4096);
    all.atomic_cap = sys::IbvAtomicCap::HCA;
    // SAFETY: the caller's promise: a place for the attributes.
    unsafe { attr.write(all) };
    0
}

unsafe extern "C" fn query_port(_: *mut sys::ibv_context, _: u8, attr: *mut sys::ibv_port_attr) -> c_int {
    // SAFETY: the caller's promise: a place for the attributes, of which only those of the legacy structure are written.
    unsafe {
        (*attr).state = sys::IbvPortState::ACTIVE;
        ((*attr).max_mtu, (*attr).active_mtu) = (sys::IbvMtu::MTU_4096, sys::IbvMtu::MTU_4096);
        ((*attr).gid_tbl_len, (*attr).pkey_tbl_len, (*attr).lid) = (1, 1, 1);
        ((*attr).max_msg_sz, (*attr).link_layer) = (1 << 30, sys::IBV_LINK_LAYER_INFINIBAND);
    }
    0
}

unsafe extern "C" fn query_gid(
    _: *mut sys::ibv_context,
    _: u8,
    index: c_int,
    gid: *mut sys::ibv_gid,
) -> c_int {
    if index != 0 {
        sys::Errno::INVALID.set();
        return -1;
    }
    // SAFETY: the caller's promise: a place for the answer.
    unsafe { gid.write(sys::ibv_gid::from_bytes([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])) };
    0
}

unsafe extern "C" fn query_pkey(_: *mut sys::ibv_context, _: u8, _: c_int, pkey: *mut u16) -> c_int {
    // SAFETY: the caller's promise: a place for the answer.
    unsafe { pkey.write(0xffff) };
    0
}

unsafe extern "C" fn alloc_pd(context: *mut sys::ibv_context) -> *mut sys::ibv_pd {
    leak(sys::ibv_pd { context, handle: 1 })
}

unsafe extern "C" fn dealloc_pd(_: *mut sys::ibv_pd) -> c_int {
    0
}

unsafe extern "C" fn reg_mr(
    pd: *mut sys::ibv_pd,
    addr: *mut c_void,
    length: usize,
    _: c_int,
) -> *mut sys::ibv_mr {
    // SAFETY: the caller's promise: a domain of this device.
    let context = unsafe { (*pd).context };
    leak(sys::ibv_mr { context, pd, addr, length, handle: 1, lkey: 1, rkey: 1 })
}

unsafe extern "C" fn dereg_mr(_: *mut sys::ibv_mr) -> c_int {
    0
}

fn null_cq(context: *mut sys::ibv_context, cq_context: *mut c_void, cqe: u32) -> *mut NullCq {
    let mut ex = sys::ibv_cq_ex::zeroed();
    (ex.context, ex.cq_context, ex.handle) = (context, cq_context, 1);
    ex.cqe = c_int::try_from(cqe).unwrap_or(c_int::MAX);
    ex.start_poll = Some(path::start_poll);
    ex.next_poll = Some(path::next_poll);
    ex.end_poll = Some(path::end_poll);
    ex.read_opcode = Some(path::read_opcode);
    ex.read_vendor_err = Some(path::read_zero);
    ex.read_byte_len = Some(path::read_zero);
    ex.read_imm_data = Some(path::read_zero);
    ex.read_qp_num = Some(path::read_qp_num);
    ex.read_src_qp = Some(path::read_zero);
    ex.read_wc_flags = Some(path::read_zero as path::ReadFlags);
    ex.read_slid = Some(path::read_zero);
    ex.read_sl = Some(path::read_zero_byte);
    ex.read_dlid_path_bits = Some(path::read_zero_byte);
    ex.read_completion_ts = Some(path::read_zero_long);
    ex.read_completion_wallclock_ns = Some(path::read_zero_long);
    leak(NullCq { ex, ring: leak(Ring::new()), qp_num: 0 })
}

unsafe extern "C" fn create_cq(
    context: *mut sys::ibv_context,
    cqe: c_int,
    cq_context: *mut c_void,
    _: *mut sys::ibv_comp_channel,
    _: c_int,
) -> *mut sys::ibv_cq {
    null_cq(context, cq_context, cqe.unsigned_abs()).cast()
}

unsafe extern "C" fn create_cq_ex(
    context: *mut sys::ibv_context,
    attr: *mut sys::ibv_cq_init_attr_ex,
) -> *mut sys::ibv_cq_ex {
    // SAFETY: the caller's promise: the attributes.
    let attr = unsafe { &*attr };
    null_cq(context, attr.cq_context, attr.cqe).cast()
}

unsafe extern "C" fn destroy_cq(_: *mut sys::ibv_cq) -> c_int {
    0
}

/// # Safety
/// The completion queue is of this device.
unsafe fn null_qp(pd: *mut sys::ibv_pd, init: &sys::ibv_qp_init_attr) -> *mut sys::ibv_qp {
    static LAST: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
    let number = LAST.fetch_add(1, core::sync::atomic::Ordering::Relaxed) + 1;
    let cq = init.send_cq.cast::<NullCq>();
    let mut ex = sys::ibv_qp_ex::zeroed();
    let base = &mut ex.qp_base;
    // SAFETY: the caller's promise; the context comes from the queue, as a program in C may have no domain.
    base.context = unsafe { (*cq).ex.context };
    (base.pd, base.qp_context, base.srq) = (pd, init.qp_context, init.srq);
    (base.send_cq, base.recv_cq, base.qp_type) = (init.send_cq, init.recv_cq, init.qp_type);
    (base.handle, base.qp_num) = (number, number);
    ex.wr_start = Some(path::wr_start);
    ex.wr_complete = Some(path::wr_complete);
    ex.wr_abort = Some(path::wr_abort);
    ex.wr_send = Some(path::wr_send);
    ex.wr_send_imm = Some(path::wr_send_imm);
    ex.wr_send_inv = Some(path::wr_send_inv);
    ex.wr_rdma_write = Some(path::wr_write);
    ex.wr_rdma_write_imm = Some(path::wr_write_imm);
    ex.wr_rdma_read = Some(path::wr_read);
    ex.wr_atomic_cmp_swp = Some(path::wr_compare_swap);
    ex.wr_atomic_fetch_add = Some(path::wr_fetch_add);
    ex.wr_set_sge = Some(path::set_sge);
    ex.wr_set_sge_list = Some(path::set_sge_list);
    ex.wr_set_inline_data = Some(path::set_inline);
    ex.wr_set_inline_data_list = Some(path::set_inline_list);
    ex.wr_set_ud_addr = Some(path::set_ud_addr);
    // SAFETY: as above.
    unsafe {
        (*cq).qp_num = number;
        leak(NullQp { ex, ring: (*cq).ring }).cast()
    }
}

unsafe extern "C" fn create_qp(pd: *mut sys::ibv_pd, init: *mut sys::ibv_qp_init_attr) -> *mut sys::ibv_qp {
    // SAFETY: the caller's promise: attributes that name queues of this device.
    unsafe { null_qp(pd, &*init) }
}

unsafe extern "C" fn create_qp_ex(
    _: *mut sys::ibv_context,
    init: *mut sys::ibv_qp_init_attr_ex,
) -> *mut sys::ibv_qp {
    // SAFETY: the caller's promise: as above; the extended attributes start as the legacy ones.
    unsafe { null_qp((*init).pd, &*init.cast::<sys::ibv_qp_init_attr>()) }
}

unsafe extern "C" fn to_ex(qp: *mut sys::ibv_qp) -> *mut sys::ibv_qp_ex {
    qp.cast()
}

unsafe extern "C" fn modify_qp(qp: *mut sys::ibv_qp, attr: *mut sys::ibv_qp_attr, mask: c_int) -> c_int {
    if mask.cast_unsigned() & sys::IBV_QP_STATE != 0 {
        // SAFETY: the caller's promise: a queue pair of this device, and its attributes.
        unsafe { (*qp).state = (*attr).qp_state };
    }
    0
}

unsafe extern "C" fn query_qp(
    qp: *mut sys::ibv_qp,
    attr: *mut sys::ibv_qp_attr,
    _: c_int,
    init: *mut sys::ibv_qp_init_attr,
) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device, and places for its attributes.
    unsafe {
        attr.write(sys::ibv_qp_attr::zeroed());
        init.write(sys::ibv_qp_init_attr::zeroed());
        ((*attr).qp_state, (*attr).cur_qp_state) = ((*qp).state, (*qp).state);
        ((*init).send_cq, (*init).recv_cq, (*init).qp_type) = ((*qp).send_cq, (*qp).recv_cq, (*qp).qp_type);
    }
    0
}

unsafe extern "C" fn destroy_qp(_: *mut sys::ibv_qp) -> c_int {
    0
}

/// What a program in C holds.
#[repr(C)]
struct NullPair {
    cq: *mut NullCq,
    qp: *mut sys::ibv_qp,
}

/// Makes a null queue pair and its completion queue, for a program in C. Null never.
///
/// ```c
/// void *sinew_null_new(void);
/// struct ibv_qp *sinew_null_queue_pair(void *);        // also a struct ibv_qp_ex *
/// struct ibv_cq *sinew_null_completion_queue(void *);  // also a struct ibv_cq_ex *
/// void sinew_null_free(void *);
/// ```
#[unsafe(no_mangle)]
pub extern "C" fn sinew_null_new() -> *mut c_void {
    // SAFETY: the functions are called in their order with what they have made.
    unsafe {
        let context = open(device());
        let cq = null_cq(context, null_mut(), 4096);
        let mut init = sys::ibv_qp_init_attr::zeroed();
        (init.send_cq, init.recv_cq, init.qp_type) = (cq.cast(), cq.cast(), sys::IbvQpType::RC);
        // A domain that nobody follows, so that it is not null.
        let qp = null_qp(without_provenance_mut(align_of::<sys::ibv_pd>()), &init);
        leak(NullPair { cq, qp }).cast()
    }
}

/// The queue pair, which is an extended one too.
///
/// # Safety
/// The pointer is from [`sinew_null_new`] and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_null_queue_pair(pair: *mut c_void) -> *mut sys::ibv_qp {
    // SAFETY: the caller's promise.
    unsafe { (*pair.cast::<NullPair>()).qp }
}

/// The completion queue, which is an extended one too.
///
/// # Safety
/// As of [`sinew_null_queue_pair`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_null_completion_queue(pair: *mut c_void) -> *mut sys::ibv_cq {
    // SAFETY: the caller's promise.
    unsafe { (*pair.cast::<NullPair>()).cq.cast() }
}

/// Ends the use of a pair. Its objects stay until the process ends.
///
/// # Safety
/// As of [`sinew_null_queue_pair`]; the pointer is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_null_free(pair: *mut c_void) {
    // SAFETY: the caller's promise; it was made by `leak`.
    drop(unsafe { Box::from_raw(pair.cast::<NullPair>()) });
}
