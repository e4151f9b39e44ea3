//! What a completion queue of EFA tells besides; efadv_create_cq(3).
#![allow(unsafe_code)]

use crate::ah::ibv_gid;
use crate::efa::efadv_cq;
use crate::errno::Errno;

/// The sender's GID, of a message from a sender whose address the queue pair does not know.
///
/// C: 0, or `ENODATA` when it is known, or the error number negated.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`] when the queue was not made for it, and the driver's.
///
/// # Safety
/// The queue is alive, and a poll of it is under way that stands at a completion.
pub unsafe fn efadv_wc_read_sgid(cq: *mut efadv_cq) -> Result<ibv_gid, Errno> {
    let mut gid = ibv_gid::zeroed();
    // SAFETY: the caller's promise about the queue; the place lives through the call.
    unsafe {
        let read = (*cq).wc_read_sgid.ok_or(Errno::NOT_SUPPORTED)?;
        Errno::check(read(cq, &raw mut gid))?;
    }
    Ok(gid)
}

/// Whether a write with immediate data came without using up a receive.
///
/// The function came after rdma-core 44: it is read only of a queue that was made with `EFADV_WC_EX_WITH_IS_UNSOLICITED`, which older
/// libraries refuse.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`].
///
/// # Safety
/// The queue is alive, was made with that flag, and a poll of it is under way that stands at a completion.
pub unsafe fn efadv_wc_is_unsolicited(cq: *mut efadv_cq) -> Result<bool, Errno> {
    // SAFETY: the caller's promise about the queue.
    unsafe {
        let is_unsolicited = (*cq).wc_is_unsolicited.ok_or(Errno::NOT_SUPPORTED)?;
        Ok(is_unsolicited(cq))
    }
}
