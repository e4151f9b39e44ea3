//! Memory: registration with optional access bits, windows, device memory, advice; ibv_reg_mr(3), ibv_bind_mw(3), ibv_alloc_dm(3),
//! ibv_advise_mr(3), ibv_alloc_null_mr(3).
#![allow(unsafe_code)]

use crate::context::ibv_context;
use crate::errno::Errno;
use crate::mr::{
    IBV_ACCESS_OPTIONAL_RANGE, IbvAdviseMrAdvice, IbvMwType, ibv_alloc_dm_attr, ibv_dm, ibv_mr, ibv_mw,
    ibv_mw_bind,
};
use crate::ops::extended;
use crate::pd::ibv_pd;
use crate::qp::ibv_qp;
use crate::symbols::VerbsTable;
use crate::wr::ibv_sge;
use core::ffi::{c_int, c_void};

impl VerbsTable {
    /// Registers memory. C's macro `ibv_reg_mr`: with optional access bits (`IBV_ACCESS_OPTIONAL_RANGE`, as relaxed ordering) it
    /// takes the way that drops those bits where the kernel does not know them; a library without that way gets them dropped here.
    ///
    /// C: null and errno.
    ///
    /// # Errors
    /// The driver's: `EINVAL` for access bits that contradict each other, `ENOMEM` also for the limit of locked memory, `EFAULT`.
    ///
    /// # Safety
    /// The domain is alive and of this table. The memory stays mapped until the region is gone, and nobody relies on what is in it
    /// while the device may write it.
    #[doc(alias = "ibv_reg_mr")]
    pub unsafe fn reg_mr(
        &self,
        pd: *mut ibv_pd,
        addr: *mut c_void,
        length: usize,
        access: u32,
    ) -> Result<*mut ibv_mr, Errno> {
        let optional = access & IBV_ACCESS_OPTIONAL_RANGE != 0;
        let mr = match self.ibv_reg_mr_iova2 {
            // SAFETY: the caller's promise.
            Some(register) if optional => unsafe { register(pd, addr, length, addr.addr() as u64, access) },
            // SAFETY: the caller's promise. The bits that remain fit into an int.
            _ => unsafe { (self.ibv_reg_mr)(pd, addr, length, without_optional(access)) },
        };
        Errno::check_pointer(mr)
    }

    /// Registers memory that requests address from `iova` on. C's macro `ibv_reg_mr_iova`, see [`reg_mr`](Self::reg_mr).
    ///
    /// # Errors
    /// [`Errno::NOT_SUPPORTED`] before rdma-core 25, and the driver's.
    ///
    /// # Safety
    /// As of [`reg_mr`](Self::reg_mr).
    #[doc(alias = "ibv_reg_mr_iova")]
    pub unsafe fn reg_mr_iova(
        &self,
        pd: *mut ibv_pd,
        addr: *mut c_void,
        length: usize,
        iova: u64,
        access: u32,
    ) -> Result<*mut ibv_mr, Errno> {
        let optional = access & IBV_ACCESS_OPTIONAL_RANGE != 0;
        let mr = match (self.ibv_reg_mr_iova2, self.ibv_reg_mr_iova) {
            // SAFETY: the caller's promise.
            (Some(register), _) if optional => unsafe { register(pd, addr, length, iova, access) },
            // SAFETY: the caller's promise. The bits that remain fit into an int.
            (_, Some(register)) => unsafe { register(pd, addr, length, iova, without_optional(access)) },
            _ => return Err(Errno::NOT_SUPPORTED),
        };
        Errno::check_pointer(mr)
    }
}

/// Access bits without those that a kernel may ignore.
fn without_optional(access: u32) -> c_int {
    (access & !IBV_ACCESS_OPTIONAL_RANGE).cast_signed()
}

/// Makes a memory window. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The domain is alive.
pub unsafe fn ibv_alloc_mw(pd: *mut ibv_pd, mw_type: IbvMwType) -> Result<*mut ibv_mw, Errno> {
    // SAFETY: the caller's promise about the domain, whose context is then alive.
    unsafe {
        let alloc = (*(*pd).context).ops.alloc_mw.ok_or(Errno::NOT_SUPPORTED)?;
        Errno::check_pointer(alloc(pd, mw_type))
    }
}

/// Frees a memory window. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The window is alive.
pub unsafe fn ibv_dealloc_mw(mw: *mut ibv_mw) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the window, whose context is then alive.
    unsafe {
        let dealloc = (*(*mw).context).ops.dealloc_mw.ok_or(Errno::NOT_SUPPORTED)?;
        Errno::check(dealloc(mw))
    }
}

/// Binds a window of type 1, as a request of the queue pair. C: 0 or the error number.
///
/// # Errors
/// [`Errno::INVALID`] for a window of another type or a range without region, `EPERM` for a region of another domain,
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// Queue pair, window and region are alive.
pub unsafe fn ibv_bind_mw(qp: *mut ibv_qp, mw: *mut ibv_mw, bind: &mut ibv_mw_bind) -> Result<(), Errno> {
    let info = &bind.bind_info;
    // SAFETY: the caller's promise about the objects.
    unsafe {
        if (*mw).r#type != IbvMwType::TYPE_1 {
            return Err(Errno::INVALID);
        }
        if info.mr.is_null() {
            if info.addr != 0 || info.length != 0 {
                return Err(Errno::INVALID);
            }
        } else if (*mw).pd != (*info.mr).pd {
            return Err(Errno(libc::EPERM));
        }
        let bind_mw = (*(*mw).context).ops.bind_mw.ok_or(Errno::NOT_SUPPORTED)?;
        Errno::check(bind_mw(qp, mw, bind))
    }
}

/// Gives advice about registered memory. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The domain is alive; the pieces name regions of it.
pub unsafe fn ibv_advise_mr(
    pd: *mut ibv_pd,
    advice: IbvAdviseMrAdvice,
    flags: u32,
    pieces: &mut [ibv_sge],
) -> Result<(), Errno> {
    let count = u32::try_from(pieces.len()).map_err(|_| Errno::INVALID)?;
    // SAFETY: the caller's promise about the domain; the pieces live through the call.
    unsafe {
        let advise = extended!((*pd).context, advise_mr)?;
        Errno::check(advise(pd, advice, flags, pieces.as_mut_ptr(), count))
    }
}

/// Makes a region of which writes are dropped and reads are zero. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The domain is alive.
pub unsafe fn ibv_alloc_null_mr(pd: *mut ibv_pd) -> Result<*mut ibv_mr, Errno> {
    // SAFETY: the caller's promise about the domain, whose context is then alive.
    unsafe { Errno::check_pointer(extended!((*pd).context, alloc_null_mr)?(pd)) }
}

/// Allocates device memory. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The context is opened.
pub unsafe fn ibv_alloc_dm(
    context: *mut ibv_context,
    attr: &mut ibv_alloc_dm_attr,
) -> Result<*mut ibv_dm, Errno> {
    // SAFETY: the caller's promise about the context; the structure lives through the call.
    unsafe { Errno::check_pointer(extended!(context, alloc_dm)?(context, attr)) }
}

/// Frees device memory. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The memory is alive and no region is registered on it.
pub unsafe fn ibv_free_dm(dm: *mut ibv_dm) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the memory, whose context is then alive.
    unsafe { Errno::check(extended!((*dm).context, free_dm)?(dm)) }
}

/// Registers device memory; requests address it from 0 on. C: null and errno.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// Domain and memory are alive and of one device.
pub unsafe fn ibv_reg_dm_mr(
    pd: *mut ibv_pd,
    dm: *mut ibv_dm,
    dm_offset: u64,
    length: usize,
    access: u32,
) -> Result<*mut ibv_mr, Errno> {
    // SAFETY: the caller's promise about domain and memory.
    unsafe { Errno::check_pointer(extended!((*pd).context, reg_dm_mr)?(pd, dm, dm_offset, length, access)) }
}

/// Copies bytes into device memory. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The memory is alive.
pub unsafe fn ibv_memcpy_to_dm(dm: *mut ibv_dm, dm_offset: u64, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the memory; the bytes live through the call.
    unsafe {
        let copy = (*dm).memcpy_to_dm.ok_or(Errno::NOT_SUPPORTED)?;
        Errno::check(copy(dm, dm_offset, bytes.as_ptr().cast(), bytes.len()))
    }
}

/// Copies bytes out of device memory. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The memory is alive.
pub unsafe fn ibv_memcpy_from_dm(bytes: &mut [u8], dm: *mut ibv_dm, dm_offset: u64) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the memory; the bytes live through the call.
    unsafe {
        let copy = (*dm).memcpy_from_dm.ok_or(Errno::NOT_SUPPORTED)?;
        Errno::check(copy(bytes.as_mut_ptr().cast(), dm, dm_offset, bytes.len()))
    }
}
