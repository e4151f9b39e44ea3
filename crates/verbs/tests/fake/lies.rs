//! A device that tells what is not so.

use super::Fake;
use sinew_verbs_sys as sys;
use std::ffi::c_int;

/// How a queue is polled.
pub(crate) type Poll = unsafe extern "C" fn(*mut sys::ibv_cq, c_int, *mut sys::ibv_wc) -> c_int;

/// A success, of whom the arguments say.
pub(crate) fn completion(wr_id: u64, qp_num: u32) -> sys::ibv_wc {
    let mut wc = sys::ibv_wc::zeroed();
    (wc.wr_id, wc.qp_num) = (wr_id, qp_num);
    wc
}

/// A completion of nothing is there, as often as it is asked.
///
/// # Safety
/// There are `room` places.
pub(crate) unsafe extern "C" fn endless(_: *mut sys::ibv_cq, room: c_int, places: *mut sys::ibv_wc) -> c_int {
    for place in 0..room {
        // SAFETY: there is room for so many.
        unsafe { *places.add(place as usize) = completion(0xdead_beef, 1) };
    }
    room
}

/// There are more than were asked for.
///
/// # Safety
/// Touches nothing.
pub(crate) unsafe extern "C" fn too_many(_: *mut sys::ibv_cq, room: c_int, _: *mut sys::ibv_wc) -> c_int {
    room + 1
}

/// From here on the device is polled so. How it was before.
pub(crate) fn poll_by(fake: &Fake, poll: Poll) -> Option<Poll> {
    // SAFETY: the device is open, and nobody else calls it meanwhile.
    unsafe { (*fake.context.as_raw()).ops.poll_cq.replace(poll) }
}
