//! The functions that are counted: posting and polling, as of old and extended.
//!
//! Called through the objects of `device.rs`. No check, no lock, no allocation.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_uint, c_void};
use sinew_verbs_sys as sys;

/// Places of the ring; a power of two.
const PLACES: usize = 1 << 12;

/// Numbers of requests that have completed. More than its places must not be unpolled.
pub(super) struct Ring {
    numbers: [u64; PLACES],
    head: usize,
    tail: usize,
    /// Where the batch that is being built begins.
    mark: usize,
}

impl Ring {
    pub(super) const fn new() -> Self {
        Self { numbers: [0; PLACES], head: 0, tail: 0, mark: 0 }
    }

    #[inline(always)]
    fn push(&mut self, number: u64) {
        self.numbers[self.tail % PLACES] = number;
        self.tail = self.tail.wrapping_add(1);
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<u64> {
        if self.head == self.tail {
            return None;
        }
        let number = self.numbers[self.head % PLACES];
        self.head = self.head.wrapping_add(1);
        Some(number)
    }
}

/// A queue pair and the ring that it completes into.
#[repr(C)]
pub(super) struct NullQp {
    pub(super) ex: sys::ibv_qp_ex,
    pub(super) ring: *mut Ring,
}

/// A completion queue and its ring.
#[repr(C)]
pub(super) struct NullCq {
    pub(super) ex: sys::ibv_cq_ex,
    pub(super) ring: *mut Ring,
    pub(super) qp_num: u32,
}

/// The ring of a queue pair.
///
/// # Safety
/// The queue pair is a [`NullQp`], and nobody else uses its device meanwhile.
#[inline(always)]
unsafe fn ring_of<'ring, T>(qp: *mut T) -> &'ring mut Ring {
    // SAFETY: the caller's promise; the ring lives as long as its objects.
    unsafe { &mut *(*qp.cast::<NullQp>()).ring }
}

pub(super) unsafe extern "C" fn post_send(
    qp: *mut sys::ibv_qp,
    list: *mut sys::ibv_send_wr,
    _bad: *mut *mut sys::ibv_send_wr,
) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device, used by one thread.
    let ring = unsafe { ring_of(qp) };
    let mut next = list;
    while !next.is_null() {
        // SAFETY: the caller's promise: a list of requests.
        let wr = unsafe { &*next };
        if wr.send_flags & sys::IBV_SEND_SIGNALED != 0 {
            ring.push(wr.wr_id);
        }
        next = wr.next;
    }
    0
}

pub(super) unsafe extern "C" fn post_recv(
    _qp: *mut sys::ibv_qp,
    _list: *mut sys::ibv_recv_wr,
    _bad: *mut *mut sys::ibv_recv_wr,
) -> c_int {
    0
}

pub(super) unsafe extern "C" fn post_srq_recv(
    _srq: *mut sys::ibv_srq,
    _list: *mut sys::ibv_recv_wr,
    _bad: *mut *mut sys::ibv_recv_wr,
) -> c_int {
    0
}

pub(super) unsafe extern "C" fn poll_cq(
    cq: *mut sys::ibv_cq,
    room: c_int,
    places: *mut sys::ibv_wc,
) -> c_int {
    let cq = cq.cast::<NullCq>();
    // SAFETY: the caller's promise: a queue of this device, used by one thread.
    let (ring, qp_num) = unsafe { (&mut *(*cq).ring, (*cq).qp_num) };
    let mut count = 0;
    while count < room {
        let Some(wr_id) = ring.pop() else { break };
        // SAFETY: the caller's promise: there is room for so many.
        unsafe {
            let place = &mut *places.add(count as usize);
            place.wr_id = wr_id;
            place.status = sys::IbvWcStatus::SUCCESS;
            place.opcode = sys::IbvWcOpcode::SEND;
            place.vendor_err = 0;
            place.byte_len = 0;
            place.qp_num = qp_num;
            place.wc_flags = 0;
        }
        count += 1;
    }
    count
}

pub(super) unsafe extern "C" fn req_notify(_cq: *mut sys::ibv_cq, _solicited_only: c_int) -> c_int {
    0
}

/// Goes to the next completion.
///
/// # Safety
/// The queue is a [`NullCq`], used by one thread.
#[inline(always)]
unsafe fn advance(cq: *mut sys::ibv_cq_ex) -> c_int {
    let null = cq.cast::<NullCq>();
    // SAFETY: the caller's promise.
    unsafe {
        match (*(*null).ring).pop() {
            Some(number) => {
                (*null).ex.wr_id = number;
                (*null).ex.status = sys::IbvWcStatus::SUCCESS;
                0
            }
            None => libc::ENOENT,
        }
    }
}

pub(super) unsafe extern "C" fn start_poll(
    cq: *mut sys::ibv_cq_ex,
    _attr: *mut sys::ibv_poll_cq_attr,
) -> c_int {
    // SAFETY: the caller's promise: a queue of this device, used by one thread.
    unsafe { advance(cq) }
}

pub(super) unsafe extern "C" fn next_poll(cq: *mut sys::ibv_cq_ex) -> c_int {
    // SAFETY: as above.
    unsafe { advance(cq) }
}

pub(super) unsafe extern "C" fn end_poll(_cq: *mut sys::ibv_cq_ex) {}

pub(super) unsafe extern "C" fn read_opcode(_cq: *mut sys::ibv_cq_ex) -> sys::IbvWcOpcode {
    sys::IbvWcOpcode::SEND
}

pub(super) unsafe extern "C" fn read_zero(_cq: *mut sys::ibv_cq_ex) -> u32 {
    0
}

pub(super) unsafe extern "C" fn read_zero_byte(_cq: *mut sys::ibv_cq_ex) -> u8 {
    0
}

pub(super) unsafe extern "C" fn read_zero_long(_cq: *mut sys::ibv_cq_ex) -> u64 {
    0
}

pub(super) unsafe extern "C" fn read_qp_num(cq: *mut sys::ibv_cq_ex) -> u32 {
    // SAFETY: the caller's promise: a queue of this device.
    unsafe { (*cq.cast::<NullCq>()).qp_num }
}

pub(super) unsafe extern "C" fn wr_start(qp: *mut sys::ibv_qp_ex) {
    // SAFETY: the caller's promise: a queue pair of this device, used by one thread.
    let ring = unsafe { ring_of(qp) };
    ring.mark = ring.tail;
}

pub(super) unsafe extern "C" fn wr_complete(_qp: *mut sys::ibv_qp_ex) -> c_int {
    0
}

pub(super) unsafe extern "C" fn wr_abort(qp: *mut sys::ibv_qp_ex) {
    // SAFETY: as above.
    let ring = unsafe { ring_of(qp) };
    ring.tail = ring.mark;
}

/// Takes the number of the request that begins.
///
/// # Safety
/// The queue pair is of this device, used by one thread.
#[inline(always)]
unsafe fn begin(qp: *mut sys::ibv_qp_ex) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*qp).wr_flags & sys::IBV_SEND_SIGNALED != 0 {
            let number = (*qp).wr_id;
            ring_of(qp).push(number);
        }
    }
}

macro_rules! begins {
    ( $( $name:ident ( $( $type:ty ),* ); )* ) => { $(
        pub(super) unsafe extern "C" fn $name(qp: *mut sys::ibv_qp_ex $(, _: $type )*) {
            // SAFETY: the caller's promise: a queue pair of this device, used by one thread.
            unsafe { begin(qp) };
        }
    )* };
}

begins! {
    wr_send();
    wr_send_imm(u32);
    wr_send_inv(u32);
    wr_write(u32, u64);
    wr_write_imm(u32, u64, u32);
    wr_read(u32, u64);
    wr_compare_swap(u32, u64, u64, u64);
    wr_fetch_add(u32, u64, u64);
}

pub(super) unsafe extern "C" fn set_sge(_qp: *mut sys::ibv_qp_ex, _lkey: u32, _addr: u64, _len: u32) {}

pub(super) unsafe extern "C" fn set_sge_list(
    _qp: *mut sys::ibv_qp_ex,
    _count: usize,
    _list: *const sys::ibv_sge,
) {
}

pub(super) unsafe extern "C" fn set_inline(_qp: *mut sys::ibv_qp_ex, _addr: *mut c_void, _len: usize) {}

pub(super) unsafe extern "C" fn set_inline_list(
    _qp: *mut sys::ibv_qp_ex,
    _count: usize,
    _list: *const sys::ibv_data_buf,
) {
}

pub(super) unsafe extern "C" fn set_ud_addr(
    _qp: *mut sys::ibv_qp_ex,
    _ah: *mut sys::ibv_ah,
    _qp_num: u32,
    _qkey: u32,
) {
}

/// The type of the readers of flags.
pub(super) type ReadFlags = unsafe extern "C" fn(*mut sys::ibv_cq_ex) -> c_uint;
