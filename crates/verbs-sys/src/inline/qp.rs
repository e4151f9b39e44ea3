//! Queue pairs: making extended ones, posting by lists of requests; ibv_create_qp_ex(3), ibv_open_qp(3), ibv_post_send(3),
//! ibv_post_recv(3), ibv_modify_qp_rate_limit(3).
#![allow(unsafe_code)]

use crate::context::ibv_context;
use crate::errno::Errno;
use crate::ops::extended;
use crate::qp::{IBV_QP_INIT_ATTR_PD, ibv_qp, ibv_qp_init_attr_ex, ibv_qp_open_attr, ibv_qp_rate_limit_attr};
use crate::symbols::VerbsTable;
use crate::wr::{ibv_recv_wr, ibv_send_wr};
use core::ffi::c_int;

impl VerbsTable {
    /// Makes a queue pair. With nothing but a domain it is made by the legacy function, as C does. Writes the sizes that were given.
    ///
    /// C: null and errno.
    ///
    /// # Errors
    /// [`Errno::NOT_SUPPORTED`], also from drivers that lack an operation that was asked for, and the driver's.
    ///
    /// # Safety
    /// The context is opened and of this table; the attributes name live objects of it.
    #[doc(alias = "ibv_create_qp_ex")]
    pub unsafe fn create_qp_ex(
        &self,
        context: *mut ibv_context,
        attr: &mut ibv_qp_init_attr_ex,
    ) -> Result<*mut ibv_qp, Errno> {
        if attr.comp_mask == IBV_QP_INIT_ATTR_PD {
            // SAFETY: the caller's promise; the extended attributes start as the legacy ones.
            let qp = unsafe { (self.ibv_create_qp)(attr.pd, core::ptr::from_mut(attr).cast()) };
            return Errno::check_pointer(qp);
        }
        // SAFETY: the caller's promise; the structure lives through the call.
        unsafe { Errno::check_pointer(extended!(context, create_qp_ex)?(context, attr)) }
    }
}

/// Opens a queue pair that another made to be shared. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The context is opened; the attributes name live objects of it.
pub unsafe fn ibv_open_qp(
    context: *mut ibv_context,
    attr: &mut ibv_qp_open_attr,
) -> Result<*mut ibv_qp, Errno> {
    // SAFETY: the caller's promise; the structure lives through the call.
    unsafe { Errno::check_pointer(extended!(context, open_qp)?(context, attr)) }
}

/// Limits the rate of a queue pair. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The queue pair is alive.
pub unsafe fn ibv_modify_qp_rate_limit(
    qp: *mut ibv_qp,
    attr: &mut ibv_qp_rate_limit_attr,
) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the queue pair; the structure lives through the call.
    unsafe { Errno::check(extended!((*qp).context, modify_qp_rate_limit)?(qp, attr)) }
}

/// Posts a list of send requests. After a failure `bad` is the first that was not posted; those before it were.
///
/// C: 0 or the error number, of some drivers negated or -1 and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`] with `bad` the whole list, and the driver's: `ENOMEM` when the queue is full, `EINVAL`.
///
/// # Safety
/// The queue pair is alive; the list and its scatter lists live through the call; the memory that they name is not touched against
/// the rules of the operation until its completion.
#[inline]
pub unsafe fn ibv_post_send(
    qp: *mut ibv_qp,
    list: *mut ibv_send_wr,
    bad: &mut *mut ibv_send_wr,
) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the queue pair, whose context is then alive.
    unsafe {
        let Some(post) = (*(*qp).context).ops.post_send else {
            *bad = list;
            return Err(Errno::NOT_SUPPORTED);
        };
        Errno::check(post(qp, list, bad))
    }
}

/// [`ibv_post_send`] without looking whether the function is there. Answers as C does; [`Errno::check`] judges it.
///
/// # Safety
/// As of [`ibv_post_send`]; [`missing_data_path`](crate::missing_data_path) was empty for the context.
#[inline]
pub unsafe fn ibv_post_send_unchecked(
    qp: *mut ibv_qp,
    list: *mut ibv_send_wr,
    bad: *mut *mut ibv_send_wr,
) -> c_int {
    // SAFETY: the caller's promises: the queue pair is alive and its context has the function.
    unsafe { (*(*qp).context).ops.post_send.unwrap_unchecked()(qp, list, bad) }
}

/// Posts a list of receive requests. After a failure `bad` is the first that was not posted; those before it were.
///
/// C: 0 or the error number, of some drivers negated or -1 and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`] with `bad` the whole list, and the driver's: `ENOMEM` when the queue is full, `EINVAL`.
///
/// # Safety
/// The queue pair is alive; the list and its scatter lists live through the call; nobody relies on the memory that they name until
/// its completion.
#[inline]
pub unsafe fn ibv_post_recv(
    qp: *mut ibv_qp,
    list: *mut ibv_recv_wr,
    bad: &mut *mut ibv_recv_wr,
) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the queue pair, whose context is then alive.
    unsafe {
        let Some(post) = (*(*qp).context).ops.post_recv else {
            *bad = list;
            return Err(Errno::NOT_SUPPORTED);
        };
        Errno::check(post(qp, list, bad))
    }
}

/// [`ibv_post_recv`] without looking whether the function is there. Answers as C does; [`Errno::check`] judges it.
///
/// # Safety
/// As of [`ibv_post_recv`]; [`missing_data_path`](crate::missing_data_path) was empty for the context.
#[inline]
pub unsafe fn ibv_post_recv_unchecked(
    qp: *mut ibv_qp,
    list: *mut ibv_recv_wr,
    bad: *mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: the caller's promises: the queue pair is alive and its context has the function.
    unsafe { (*(*qp).context).ops.post_recv.unwrap_unchecked()(qp, list, bad) }
}
