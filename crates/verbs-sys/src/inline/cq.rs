//! Completion queues: making extended ones, polling and arming legacy ones; ibv_create_cq_ex(3), ibv_poll_cq(3),
//! ibv_req_notify_cq(3), ibv_modify_cq(3).
#![allow(unsafe_code)]

use crate::context::ibv_context;
use crate::cq::{ibv_cq, ibv_cq_ex, ibv_cq_init_attr_ex, ibv_modify_cq_attr};
use crate::errno::Errno;
use crate::ops::extended;
use crate::wc::ibv_wc;
use core::ffi::c_int;
use core::mem::MaybeUninit;

/// Makes an extended completion queue; destroyed by `ibv_destroy_cq`. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], also from drivers that lack a flag, and the driver's.
///
/// # Safety
/// The context is opened; the attributes name live objects of it.
pub unsafe fn ibv_create_cq_ex(
    context: *mut ibv_context,
    attr: &mut ibv_cq_init_attr_ex,
) -> Result<*mut ibv_cq_ex, Errno> {
    // SAFETY: the caller's promise; the structure lives through the call.
    unsafe { Errno::check_pointer(extended!(context, create_cq_ex)?(context, attr)) }
}

/// The legacy view of an extended completion queue: they start alike.
#[must_use]
pub const fn ibv_cq_ex_to_cq(cq: *mut ibv_cq_ex) -> *mut ibv_cq {
    cq.cast()
}

/// Takes completions out of a queue, as many as there are and fit. The first so many places hold them.
///
/// C: a count, or a negative number that says nothing more.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`] where there is no such function; [`Errno::UNKNOWN`] when the driver failed.
///
/// # Safety
/// The queue is alive, and no other thread polls it that relies on the same completions.
#[inline]
pub unsafe fn ibv_poll_cq(cq: *mut ibv_cq, places: &mut [MaybeUninit<ibv_wc>]) -> Result<usize, Errno> {
    // SAFETY: the caller's promise about the queue, whose context is then alive.
    let Some(poll) = (unsafe { (*(*cq).context).ops.poll_cq }) else {
        return Err(Errno::NOT_SUPPORTED);
    };
    let room = c_int::try_from(places.len()).unwrap_or(c_int::MAX);
    // SAFETY: as above; there is room for so many.
    let returned = unsafe { poll(cq, room, places.as_mut_ptr().cast()) };
    usize::try_from(returned).map_err(|_| Errno::UNKNOWN)
}

/// [`ibv_poll_cq`] without looking whether the function is there. Answers as C does: a count, or a negative number.
///
/// # Safety
/// As of [`ibv_poll_cq`]; [`missing_data_path`](crate::missing_data_path) was empty for the context; there is room for so many.
#[inline]
pub unsafe fn ibv_poll_cq_unchecked(cq: *mut ibv_cq, room: c_int, places: *mut ibv_wc) -> c_int {
    // SAFETY: the caller's promises: the queue is alive and its context has the function.
    unsafe { (*(*cq).context).ops.poll_cq.unwrap_unchecked()(cq, room, places) }
}

/// Asks for one event at the next completion (of a solicited message, or one that failed, with `solicited_only`).
///
/// What completed before this call raises no event: poll once more after it. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The queue is alive.
#[inline]
pub unsafe fn ibv_req_notify_cq(cq: *mut ibv_cq, solicited_only: bool) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the queue, whose context is then alive.
    unsafe {
        let request = (*(*cq).context).ops.req_notify_cq.ok_or(Errno::NOT_SUPPORTED)?;
        Errno::check(request(cq, c_int::from(solicited_only)))
    }
}

/// Changes a completion queue: its moderation. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The queue is alive.
pub unsafe fn ibv_modify_cq(cq: *mut ibv_cq, attr: &mut ibv_modify_cq_attr) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the queue; the structure lives through the call.
    unsafe { Errno::check(extended!((*cq).context, modify_cq)?(cq, attr)) }
}
