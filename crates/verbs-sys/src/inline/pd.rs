//! Thread domains, parent domains, domains of extended connections; ibv_alloc_td(3), ibv_alloc_parent_domain(3), ibv_open_xrcd(3).
#![allow(unsafe_code)]

use crate::context::ibv_context;
use crate::errno::Errno;
use crate::ops::extended;
use crate::pd::{
    ibv_parent_domain_init_attr, ibv_pd, ibv_td, ibv_td_init_attr, ibv_xrcd, ibv_xrcd_init_attr,
};

/// Makes a thread domain. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The context is opened.
pub unsafe fn ibv_alloc_td(
    context: *mut ibv_context,
    init_attr: &mut ibv_td_init_attr,
) -> Result<*mut ibv_td, Errno> {
    // SAFETY: the caller's promise about the context; the structure lives through the call.
    unsafe { Errno::check_pointer(extended!(context, alloc_td)?(context, init_attr)) }
}

/// Frees a thread domain. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The domain is alive and nothing uses it.
pub unsafe fn ibv_dealloc_td(td: *mut ibv_td) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the domain, whose context is then alive.
    unsafe { Errno::check(extended!((*td).context, dealloc_td)?(td)) }
}

/// Makes a parent domain, freed by `ibv_dealloc_pd`. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The context is opened; the attributes name live objects of it, and functions that keep the contract of an allocator.
pub unsafe fn ibv_alloc_parent_domain(
    context: *mut ibv_context,
    attr: &mut ibv_parent_domain_init_attr,
) -> Result<*mut ibv_pd, Errno> {
    // SAFETY: the caller's promise; the structure lives through the call.
    unsafe { Errno::check_pointer(extended!(context, alloc_parent_domain)?(context, attr)) }
}

/// Opens a domain of extended connections. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The context is opened.
pub unsafe fn ibv_open_xrcd(
    context: *mut ibv_context,
    attr: &mut ibv_xrcd_init_attr,
) -> Result<*mut ibv_xrcd, Errno> {
    // SAFETY: the caller's promise about the context; the structure lives through the call.
    unsafe { Errno::check_pointer(extended!(context, open_xrcd)?(context, attr)) }
}

/// Closes a domain of extended connections. C: 0 or the error number; there a null function is called.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The domain is alive and nothing of this process uses it.
pub unsafe fn ibv_close_xrcd(xrcd: *mut ibv_xrcd) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the domain, whose context is then alive.
    unsafe { Errno::check(extended!((*xrcd).context, close_xrcd)?(xrcd)) }
}
