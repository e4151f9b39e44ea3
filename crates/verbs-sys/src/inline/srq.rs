//! Shared receive queues; ibv_create_srq_ex(3), ibv_get_srq_num(3), ibv_post_srq_recv(3), ibv_post_srq_ops(3).
#![allow(unsafe_code)]

use crate::context::ibv_context;
use crate::errno::Errno;
use crate::ops::extended;
use crate::srq::{IBV_SRQ_INIT_ATTR_PD, IBV_SRQ_INIT_ATTR_TYPE, IbvSrqType, ibv_srq, ibv_srq_init_attr_ex};
use crate::symbols::VerbsTable;
use crate::wr::{ibv_ops_wr, ibv_recv_wr};
use core::ffi::c_int;

impl VerbsTable {
    /// Makes a shared receive queue. A basic one with nothing but a domain is made by the legacy function, as C does.
    ///
    /// C: null and errno.
    ///
    /// # Errors
    /// [`Errno::NOT_SUPPORTED`], and the driver's.
    ///
    /// # Safety
    /// The context is opened and of this table; the attributes name live objects of it.
    #[doc(alias = "ibv_create_srq_ex")]
    pub unsafe fn create_srq_ex(
        &self,
        context: *mut ibv_context,
        attr: &mut ibv_srq_init_attr_ex,
    ) -> Result<*mut ibv_srq, Errno> {
        let mask = attr.comp_mask;
        let has_type = mask & IBV_SRQ_INIT_ATTR_TYPE != 0;
        let is_basic = !has_type || attr.srq_type == IbvSrqType::BASIC;
        if mask & !IBV_SRQ_INIT_ATTR_TYPE == IBV_SRQ_INIT_ATTR_PD && is_basic {
            // SAFETY: the caller's promise; the extended attributes start as the legacy ones.
            let srq = unsafe { (self.ibv_create_srq)(attr.pd, core::ptr::from_mut(attr).cast()) };
            return Errno::check_pointer(srq);
        }
        // SAFETY: the caller's promise; the structure lives through the call.
        unsafe { Errno::check_pointer(extended!(context, create_srq_ex)?(context, attr)) }
    }
}

/// The number by which peers name a queue of extended connections. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The queue is alive.
pub unsafe fn ibv_get_srq_num(srq: *mut ibv_srq) -> Result<u32, Errno> {
    let mut number = 0;
    // SAFETY: the caller's promise about the queue; the number lives through the call.
    unsafe {
        Errno::check(extended!((*srq).context, get_srq_num)?(srq, &raw mut number))?;
    }
    Ok(number)
}

/// Posts a list of receive requests. After a failure `bad` is the first that was not posted; those before it were.
///
/// C: 0 or the error number, of some drivers negated or -1 and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`] with `bad` the whole list, and the driver's: `ENOMEM` when the queue is full, `EINVAL`.
///
/// # Safety
/// The queue is alive; the list and its scatter lists live through the call; nobody relies on the memory that they name until its
/// completion.
#[inline]
pub unsafe fn ibv_post_srq_recv(
    srq: *mut ibv_srq,
    list: *mut ibv_recv_wr,
    bad: &mut *mut ibv_recv_wr,
) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the queue, whose context is then alive.
    unsafe {
        let Some(post) = (*(*srq).context).ops.post_srq_recv else {
            *bad = list;
            return Err(Errno::NOT_SUPPORTED);
        };
        Errno::check(post(srq, list, bad))
    }
}

/// [`ibv_post_srq_recv`] without looking whether the function is there. Answers as C does; [`Errno::check`] judges it.
///
/// # Safety
/// As of [`ibv_post_srq_recv`]; [`missing_data_path`](crate::missing_data_path) was empty for the context.
#[inline]
pub unsafe fn ibv_post_srq_recv_unchecked(
    srq: *mut ibv_srq,
    list: *mut ibv_recv_wr,
    bad: *mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: the caller's promises: the queue is alive and its context has the function.
    unsafe { (*(*srq).context).ops.post_srq_recv.unwrap_unchecked()(srq, list, bad) }
}

/// Posts a list of requests on the list of tags. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`] with `bad` the whole list, and the driver's.
///
/// # Safety
/// As of [`ibv_post_srq_recv`].
pub unsafe fn ibv_post_srq_ops(
    srq: *mut ibv_srq,
    list: *mut ibv_ops_wr,
    bad: &mut *mut ibv_ops_wr,
) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the queue and the list.
    unsafe {
        match extended!((*srq).context, post_srq_ops) {
            Ok(post) => Errno::check(post(srq, list, bad)),
            Err(errno) => {
                *bad = list;
                Err(errno)
            }
        }
    }
}
