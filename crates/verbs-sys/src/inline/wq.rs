//! Work queues and tables that spread packets over them; ibv_create_wq(3), ibv_modify_wq(3), ibv_create_rwq_ind_table(3).
#![allow(unsafe_code)]

use crate::context::ibv_context;
use crate::errno::Errno;
use crate::ops::extended;
use crate::wq::{ibv_rwq_ind_table, ibv_rwq_ind_table_init_attr, ibv_wq, ibv_wq_attr, ibv_wq_init_attr};
use crate::wr::ibv_recv_wr;

/// Makes a work queue. C: null and errno.
///
/// The lock and the condition of the queue, which C's inline sets up after the driver has made it, are set up here too.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The context is opened; the attributes name live objects of it.
pub unsafe fn ibv_create_wq(
    context: *mut ibv_context,
    attr: &mut ibv_wq_init_attr,
) -> Result<*mut ibv_wq, Errno> {
    // SAFETY: the caller's promise; the structure lives through the call. The queue is new: nobody else looks at it yet.
    unsafe {
        let wq = Errno::check_pointer(extended!(context, create_wq)?(context, attr))?;
        (*wq).wq_context = attr.wq_context;
        (*wq).events_completed = 0;
        libc::pthread_mutex_init(&raw mut (*wq).mutex, core::ptr::null());
        libc::pthread_cond_init(&raw mut (*wq).cond, core::ptr::null());
        Ok(wq)
    }
}

/// Changes a work queue. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The queue is alive.
pub unsafe fn ibv_modify_wq(wq: *mut ibv_wq, attr: &mut ibv_wq_attr) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the queue; the structure lives through the call.
    unsafe { Errno::check(extended!((*wq).context, modify_wq)?(wq, attr)) }
}

/// Destroys a work queue. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The queue is alive and nothing uses it.
pub unsafe fn ibv_destroy_wq(wq: *mut ibv_wq) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the queue, whose context is then alive.
    unsafe { Errno::check(extended!((*wq).context, destroy_wq)?(wq)) }
}

/// Posts a list of receive requests. After a failure `bad` is the first that was not posted. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`] with `bad` the whole list, and the driver's.
///
/// # Safety
/// The queue is alive; the list and its scatter lists live through the call; nobody relies on the memory that they name until its
/// completion.
pub unsafe fn ibv_post_wq_recv(
    wq: *mut ibv_wq,
    list: *mut ibv_recv_wr,
    bad: &mut *mut ibv_recv_wr,
) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the queue and the list.
    unsafe {
        let Some(post) = (*wq).post_recv else {
            *bad = list;
            return Err(Errno::NOT_SUPPORTED);
        };
        Errno::check(post(wq, list, bad))
    }
}

/// Makes a table that spreads packets over work queues. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The context is opened; the attributes name live queues of it, as many as they say.
pub unsafe fn ibv_create_rwq_ind_table(
    context: *mut ibv_context,
    attr: &mut ibv_rwq_ind_table_init_attr,
) -> Result<*mut ibv_rwq_ind_table, Errno> {
    // SAFETY: the caller's promise; the structure lives through the call.
    unsafe { Errno::check_pointer(extended!(context, create_rwq_ind_table)?(context, attr)) }
}

/// Destroys such a table. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The table is alive and nothing uses it.
pub unsafe fn ibv_destroy_rwq_ind_table(table: *mut ibv_rwq_ind_table) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the table, whose context is then alive.
    unsafe { Errno::check(extended!((*table).context, destroy_rwq_ind_table)?(table)) }
}
