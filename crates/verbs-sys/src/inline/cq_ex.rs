//! Polling an extended completion queue; ibv_create_cq_ex(3).
//!
//! `ibv_start_poll` → values → `ibv_next_poll` → values → … → `ibv_end_poll`. The end is called exactly when the start said that
//! there is a completion. One thread at a time, unless the queue was made otherwise. A value that was not asked for when the queue
//! was made is [`Errno::NOT_SUPPORTED`].
#![allow(unsafe_code)]

use crate::cq::{ibv_cq_ex, ibv_poll_cq_attr, ibv_wc_tm_info};
use crate::errno::Errno;
use crate::wc::IbvWcOpcode;
use core::ffi::{c_int, c_uint};

/// Goes to the first completion. `false`: there is none, and `ibv_end_poll` is not called.
///
/// C: 0, or `ENOENT` for none, or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's; then `ibv_end_poll` is not called either.
///
/// # Safety
/// The queue is alive, and no poll of it is under way.
#[inline]
pub unsafe fn ibv_start_poll(cq: *mut ibv_cq_ex) -> Result<bool, Errno> {
    let mut attr = ibv_poll_cq_attr { comp_mask: 0 };
    // SAFETY: the caller's promise about the queue; the structure lives through the call.
    unsafe {
        let start = (*cq).start_poll.ok_or(Errno::NOT_SUPPORTED)?;
        is_there(start(cq, &raw mut attr))
    }
}

/// Goes to the next completion. `false`: there is none; `ibv_end_poll` is called in every case.
///
/// C: 0, or `ENOENT` for none, or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the driver's.
///
/// # Safety
/// The queue is alive, and a poll of it is under way.
#[inline]
pub unsafe fn ibv_next_poll(cq: *mut ibv_cq_ex) -> Result<bool, Errno> {
    // SAFETY: the caller's promise about the queue.
    unsafe {
        let next = (*cq).next_poll.ok_or(Errno::NOT_SUPPORTED)?;
        is_there(next(cq))
    }
}

/// Ends a poll: the completions that were looked at are gone.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`].
///
/// # Safety
/// The queue is alive, and a poll of it is under way.
#[inline]
pub unsafe fn ibv_end_poll(cq: *mut ibv_cq_ex) -> Result<(), Errno> {
    // SAFETY: the caller's promise about the queue.
    unsafe {
        (*cq).end_poll.ok_or(Errno::NOT_SUPPORTED)?(cq);
    }
    Ok(())
}

#[inline]
fn is_there(returned: c_int) -> Result<bool, Errno> {
    match returned {
        0 => Ok(true),
        libc::ENOENT => Ok(false),
        failure => Err(Errno::of_failure(failure)),
    }
}

/// Whether every function is there that a poll of any queue needs: the three steps, opcode, vendor code and flags.
///
/// # Safety
/// The queue is alive.
#[must_use]
pub unsafe fn can_poll(cq: *mut ibv_cq_ex) -> bool {
    // SAFETY: the caller's promise about the queue.
    let cq = unsafe { &*cq };
    cq.start_poll.is_some()
        && cq.next_poll.is_some()
        && cq.end_poll.is_some()
        && cq.read_opcode.is_some()
        && cq.read_vendor_err.is_some()
        && cq.read_wc_flags.is_some()
}

macro_rules! readers {
    ( $( $(#[$meta:meta])* $name:ident = $field:ident -> $type:ty; )* ) => { $(
        $(#[$meta])*
        ///
        /// # Errors
        /// [`Errno::NOT_SUPPORTED`] when the queue was not made for it.
        ///
        /// # Safety
        /// The queue is alive, and a poll of it is under way that stands at a completion.
        #[inline]
        pub unsafe fn $name(cq: *mut ibv_cq_ex) -> Result<$type, Errno> {
            // SAFETY: the caller's promise about the queue.
            unsafe {
                match (*cq).$field {
                    Some(read) => Ok(read(cq)),
                    None => Err(Errno::NOT_SUPPORTED),
                }
            }
        }
    )* };
}

readers! {
    /// What completed; valid on success only.
    ibv_wc_read_opcode = read_opcode -> IbvWcOpcode;
    /// The vendor's own code of a failure.
    ibv_wc_read_vendor_err = read_vendor_err -> u32;
    /// Bytes that were received or read.
    ibv_wc_read_byte_len = read_byte_len -> u32;
    /// Immediate data, big-endian, or the key that was invalidated, in the order of this machine: the flags say which.
    ibv_wc_read_imm_data = read_imm_data -> u32;
    /// The key that was invalidated: the same place as the immediate data.
    ibv_wc_read_invalidated_rkey = read_imm_data -> u32;
    /// Number of the queue pair.
    ibv_wc_read_qp_num = read_qp_num -> u32;
    /// Number of the sender's queue pair, of datagrams.
    ibv_wc_read_src_qp = read_src_qp -> u32;
    /// Bits `IBV_WC_*`.
    ibv_wc_read_wc_flags = read_wc_flags -> c_uint;
    /// Local identifier of the sender.
    ibv_wc_read_slid = read_slid -> u32;
    /// Service level.
    ibv_wc_read_sl = read_sl -> u8;
    /// Lower bits of the local identifier that was addressed.
    ibv_wc_read_dlid_path_bits = read_dlid_path_bits -> u8;
    /// When it completed, in cycles of the device's clock.
    ibv_wc_read_completion_ts = read_completion_ts -> u64;
    /// When it completed, in nanoseconds of the real-time clock.
    ibv_wc_read_completion_wallclock_ns = read_completion_wallclock_ns -> u64;
    /// Tag of the virtual network.
    ibv_wc_read_cvlan = read_cvlan -> u16;
    /// Tag of the rule that matched.
    ibv_wc_read_flow_tag = read_flow_tag -> u32;
}

/// What a message with a tag carried.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`] when the queue was not made for it.
///
/// # Safety
/// The queue is alive, and a poll of it is under way that stands at a completion.
#[inline]
pub unsafe fn ibv_wc_read_tm_info(cq: *mut ibv_cq_ex) -> Result<ibv_wc_tm_info, Errno> {
    let mut info = ibv_wc_tm_info::zeroed();
    // SAFETY: the caller's promise about the queue; the structure lives through the call.
    unsafe {
        (*cq).read_tm_info.ok_or(Errno::NOT_SUPPORTED)?(cq, &raw mut info);
    }
    Ok(info)
}
