//! Extended polling: a completion after the other, under a lock that is held from start to end.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::Fault;
use crate::object::cq::wait_for_poller;
use crate::object::handle::{enter, find};
use crate::request::Completion;
use crate::world::State;
use core::ffi::{c_int, c_uint};
use sinew_verbs_sys as sys;

/// Bits `IBV_WC_EX_*` that a queue may be made with.
pub(crate) const fn known_flags(timestamps: bool) -> u64 {
    if timestamps {
        sys::IBV_WC_STANDARD_FLAGS
            | sys::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP
            | sys::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK
    } else {
        sys::IBV_WC_STANDARD_FLAGS
    }
}

/// The functions of a queue that was made with these flags; other fields are zero.
pub(crate) fn functions(flags: u64) -> sys::ibv_cq_ex {
    let with = |bit| flags & bit != 0;
    let mut cq = sys::ibv_cq_ex::zeroed();
    cq.start_poll = Some(start);
    cq.next_poll = Some(next);
    cq.end_poll = Some(end);
    cq.read_opcode = Some(opcode);
    cq.read_vendor_err = Some(vendor_err);
    cq.read_wc_flags = Some(wc_flags);
    cq.read_byte_len = with(sys::IBV_WC_EX_WITH_BYTE_LEN).then_some(byte_len as _);
    cq.read_imm_data = with(sys::IBV_WC_EX_WITH_IMM).then_some(imm_data as _);
    cq.read_qp_num = with(sys::IBV_WC_EX_WITH_QP_NUM).then_some(qp_num as _);
    cq.read_src_qp = with(sys::IBV_WC_EX_WITH_SRC_QP).then_some(src_qp as _);
    cq.read_slid = with(sys::IBV_WC_EX_WITH_SLID).then_some(slid as _);
    cq.read_sl = with(sys::IBV_WC_EX_WITH_SL).then_some(sl as _);
    cq.read_dlid_path_bits = with(sys::IBV_WC_EX_WITH_DLID_PATH_BITS).then_some(dlid_path_bits as _);
    cq.read_completion_ts = with(sys::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP).then_some(timestamp as _);
    cq.read_completion_wallclock_ns =
        with(sys::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK).then_some(timestamp as _);
    cq
}

/// Goes to the next completion; the object then shows its status and number.
///
/// # Safety
/// The queue is of this device.
unsafe fn advance(state: &mut State, handle: u32, cq: *mut sys::ibv_cq_ex) -> c_int {
    let completion = state.take_completion(handle);
    let Some(queue) = state.cqs.get_mut(&handle) else { return libc::EINVAL };
    let Some(completion) = completion else { return libc::ENOENT };
    // SAFETY: the caller's promise; between start and end these fields belong to the poller.
    unsafe { ((*cq).status, (*cq).wr_id) = (completion.wc.status, completion.wc.wr_id) };
    queue.current = Some(completion);
    0
}

unsafe extern "C" fn start(cq: *mut sys::ibv_cq_ex, attr: *mut sys::ibv_poll_cq_attr) -> c_int {
    // SAFETY: the caller's promise: a queue of this device, and the attributes of a poll.
    let result = unsafe { enter(cq, Call::StartPoll) }.and_then(|entered| {
        // SAFETY: as above.
        if unsafe { !attr.is_null() && (*attr).comp_mask != 0 } {
            return Err(libc::EINVAL);
        }
        let handle = entered.id;
        let mut state = wait_for_poller(entered.world, entered.state, handle, Call::StartPoll)?;
        state.before_poll(handle);
        // SAFETY: as above.
        let found = unsafe { advance(&mut state, handle, cq) };
        if found == 0
            && let Some(queue) = state.cqs.get_mut(&handle)
        {
            queue.poller = Some(std::thread::current().id());
        }
        Ok(found)
    });
    result.unwrap_or_else(|errno| errno)
}

unsafe extern "C" fn next(cq: *mut sys::ibv_cq_ex) -> c_int {
    // SAFETY: the caller's promise: a queue of this device.
    let result = unsafe { enter(cq, Call::NextPoll) }.and_then(|mut entered| {
        let handle = entered.id;
        entered.state.check_poller(handle, Call::NextPoll)?;
        // SAFETY: as above.
        Ok(unsafe { advance(&mut entered.state, handle, cq) })
    });
    result.unwrap_or_else(|errno| errno)
}

unsafe extern "C" fn end(cq: *mut sys::ibv_cq_ex) {
    // SAFETY: the caller's promise: a queue of this device.
    let Ok(mut entered) = (unsafe { enter(cq, Call::EndPoll) }) else { return };
    let handle = entered.id;
    if entered.state.check_poller(handle, Call::EndPoll).is_err() {
        return;
    }
    if let Some(queue) = entered.state.cqs.get_mut(&handle) {
        (queue.poller, queue.current) = (None, None);
    }
    entered.state.run();
    entered.world.changed.notify_all();
}

impl State {
    fn check_poller(&mut self, handle: u32, call: Call) -> Result<(), c_int> {
        let owner = self.cqs.get(&handle).and_then(|cq| cq.poller);
        if owner == Some(std::thread::current().id()) {
            return Ok(());
        }
        self.faults.push(Fault::NotBegun { call, handle });
        Err(libc::EINVAL)
    }
}

/// A value of the completion that the poll stands at; zero where it stands at none.
///
/// # Safety
/// The queue is of this device.
unsafe fn value<T: Default>(cq: *mut sys::ibv_cq_ex, of: impl Fn(&Completion) -> T) -> T {
    // SAFETY: the caller's promise.
    let (world, handle) = unsafe { find(cq) };
    let state = world.lock();
    let current = state.cqs.get(&handle).and_then(|cq| cq.current.as_ref());
    current.map_or_else(T::default, of)
}

macro_rules! readers {
    ( $( $name:ident -> $type:ty = $value:expr; )* ) => { $(
        unsafe extern "C" fn $name(cq: *mut sys::ibv_cq_ex) -> $type {
            // SAFETY: the caller's promise: a queue of this device.
            unsafe { value(cq, $value) }
        }
    )* };
}

unsafe extern "C" fn opcode(cq: *mut sys::ibv_cq_ex) -> sys::IbvWcOpcode {
    // SAFETY: the caller's promise: a queue of this device.
    sys::IbvWcOpcode(unsafe { value(cq, |one| one.wc.opcode.0) })
}

readers! {
    vendor_err -> u32 = |one| one.wc.vendor_err;
    wc_flags -> c_uint = |one| one.wc.wc_flags;
    byte_len -> u32 = |one| one.wc.byte_len;
    imm_data -> u32 = |one| one.wc.imm_data;
    qp_num -> u32 = |one| one.wc.qp_num;
    src_qp -> u32 = |one| one.wc.src_qp;
    slid -> u32 = |one| u32::from(one.wc.slid);
    sl -> u8 = |one| one.wc.sl;
    dlid_path_bits -> u8 = |one| one.wc.dlid_path_bits;
    timestamp -> u64 = |one| one.at;
}
