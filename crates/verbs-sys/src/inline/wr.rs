//! Extended posting; ibv_wr_post(3).
//!
//! Order: [`ibv_wr_start`] → for each request: set `wr_id` and `wr_flags`, one function that starts it, the setters of its address and
//! its data → [`ibv_wr_complete`] (one doorbell for all of them) or [`ibv_wr_abort`]. A failure in between is reported by
//! `ibv_wr_complete`, and then none was posted. Between start and completion the queue pair belongs to one thread.
//!
//! A driver has those functions that the queue pair was made for. Each inline looks, and answers [`Errno::NOT_SUPPORTED`]; each
//! has an `*_unchecked` form for callers who have asked [`supports`] once for the operations that they use.
#![allow(unsafe_code)]

use crate::ah::ibv_ah;
use crate::errno::Errno;
use crate::mr::{ibv_mw, ibv_mw_bind_info};
use crate::qp::{
    IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP, IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD, IBV_QP_EX_WITH_ATOMIC_WRITE,
    IBV_QP_EX_WITH_BIND_MW, IBV_QP_EX_WITH_FLUSH, IBV_QP_EX_WITH_LOCAL_INV, IBV_QP_EX_WITH_RDMA_READ,
    IBV_QP_EX_WITH_RDMA_WRITE, IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM, IBV_QP_EX_WITH_SEND,
    IBV_QP_EX_WITH_SEND_WITH_IMM, IBV_QP_EX_WITH_SEND_WITH_INV, IBV_QP_EX_WITH_TSO, IbvQpType,
};
use crate::qp_ex::ibv_qp_ex;
use crate::wr::{ibv_data_buf, ibv_sge};
use core::ffi::{c_int, c_void};

/// Which of these operations (bits `IBV_QP_EX_WITH_*`, those that the queue pair was made with) it has functions for, if it has also
/// those that every request needs. Zero: extended posting is not possible.
///
/// A bit that is answered means: the function that starts the request is there, and so are start, completion, abort, and every
/// setter of data (and of the address, for datagrams and extended connections).
///
/// # Safety
/// The queue pair is alive and was made with these operations.
#[must_use]
pub unsafe fn supports(qp: *mut ibv_qp_ex, operations: u64) -> u64 {
    // SAFETY: the caller's promise. The last field is not looked at here: an older library's object may end before it.
    let (base, start, complete, abort) =
        unsafe { (&(*qp).qp_base, (*qp).wr_start, (*qp).wr_complete, (*qp).wr_abort) };
    // SAFETY: as above.
    let setters = unsafe {
        (*qp).wr_set_sge.is_some()
            && (*qp).wr_set_sge_list.is_some()
            && (*qp).wr_set_inline_data.is_some()
            && (*qp).wr_set_inline_data_list.is_some()
    };
    // SAFETY: as above.
    let addressed = unsafe {
        match base.qp_type {
            IbvQpType::UD => (*qp).wr_set_ud_addr.is_some(),
            IbvQpType::XRC_SEND => (*qp).wr_set_xrc_srqn.is_some(),
            _ => true,
        }
    };
    if start.is_none() || complete.is_none() || abort.is_none() || !setters || !addressed {
        return 0;
    }
    // SAFETY: as above; `wr_flush` is read only where the queue pair was made with it.
    unsafe {
        let there = [
            (IBV_QP_EX_WITH_RDMA_WRITE, (*qp).wr_rdma_write.is_some()),
            (IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM, (*qp).wr_rdma_write_imm.is_some()),
            (IBV_QP_EX_WITH_SEND, (*qp).wr_send.is_some()),
            (IBV_QP_EX_WITH_SEND_WITH_IMM, (*qp).wr_send_imm.is_some()),
            (IBV_QP_EX_WITH_RDMA_READ, (*qp).wr_rdma_read.is_some()),
            (IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP, (*qp).wr_atomic_cmp_swp.is_some()),
            (IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD, (*qp).wr_atomic_fetch_add.is_some()),
            (IBV_QP_EX_WITH_LOCAL_INV, (*qp).wr_local_inv.is_some()),
            (IBV_QP_EX_WITH_BIND_MW, (*qp).wr_bind_mw.is_some()),
            (IBV_QP_EX_WITH_SEND_WITH_INV, (*qp).wr_send_inv.is_some()),
            (IBV_QP_EX_WITH_TSO, (*qp).wr_send_tso.is_some()),
            (IBV_QP_EX_WITH_FLUSH, operations & IBV_QP_EX_WITH_FLUSH != 0 && (*qp).wr_flush.is_some()),
            (
                IBV_QP_EX_WITH_ATOMIC_WRITE,
                operations & IBV_QP_EX_WITH_ATOMIC_WRITE != 0 && (*qp).wr_atomic_write.is_some(),
            ),
        ];
        there
            .into_iter()
            .filter(|(bit, there)| *there && operations & bit != 0)
            .fold(0, |all, (bit, _)| all | bit)
    }
}

macro_rules! requests {
    ( $( $(#[$meta:meta])* $name:ident, $unchecked:ident = $field:ident ( $( $arg:ident : $type:ty ),* ); )* ) => { $(
        $(#[$meta])*
        ///
        /// # Errors
        /// [`Errno::NOT_SUPPORTED`] when the queue pair does not have it; nothing happened then.
        ///
        /// # Safety
        /// The queue pair is alive and belongs to this thread; the order is that of the head of this module; memory that is named
        /// is not touched against the rules of the operation until its completion.
        #[inline]
        pub unsafe fn $name(qp: *mut ibv_qp_ex $(, $arg: $type )*) -> Result<(), Errno> {
            // SAFETY: the caller's promise.
            unsafe {
                match (*qp).$field {
                    Some(function) => {
                        function(qp $(, $arg )*);
                        Ok(())
                    }
                    None => Err(Errno::NOT_SUPPORTED),
                }
            }
        }

        #[doc = concat!("[`", stringify!($name), "`] without looking whether the function is there.")]
        ///
        /// # Safety
        #[doc = concat!("As of [`", stringify!($name), "`], and [`supports`] has said that the function is there.")]
        #[inline]
        pub unsafe fn $unchecked(qp: *mut ibv_qp_ex $(, $arg: $type )*) {
            // SAFETY: the caller's promises: the queue pair is alive and has the function.
            unsafe { (*qp).$field.unwrap_unchecked()(qp $(, $arg )*) }
        }
    )* };
}

requests! {
    /// Starts a batch.
    ibv_wr_start, ibv_wr_start_unchecked = wr_start();
    /// Drops a batch: nothing of it was posted.
    ibv_wr_abort, ibv_wr_abort_unchecked = wr_abort();

    /// Compares and swaps 8 bytes of the peer's.
    ibv_wr_atomic_cmp_swp, ibv_wr_atomic_cmp_swp_unchecked = wr_atomic_cmp_swp(rkey: u32, remote_addr: u64, compare: u64, swap: u64);
    /// Adds to 8 bytes of the peer's.
    ibv_wr_atomic_fetch_add, ibv_wr_atomic_fetch_add_unchecked = wr_atomic_fetch_add(rkey: u32, remote_addr: u64, add: u64);
    /// Binds a window of type 2.
    ibv_wr_bind_mw, ibv_wr_bind_mw_unchecked = wr_bind_mw(mw: *mut ibv_mw, rkey: u32, bind_info: *const ibv_mw_bind_info);
    /// Invalidates a key of one's own.
    ibv_wr_local_inv, ibv_wr_local_inv_unchecked = wr_local_inv(invalidate_rkey: u32);
    /// Reads memory of the peer's.
    ibv_wr_rdma_read, ibv_wr_rdma_read_unchecked = wr_rdma_read(rkey: u32, remote_addr: u64);
    /// Writes memory of the peer's.
    ibv_wr_rdma_write, ibv_wr_rdma_write_unchecked = wr_rdma_write(rkey: u32, remote_addr: u64);
    /// Writes memory of the peer's and completes a receive of it. The data is big-endian.
    ibv_wr_rdma_write_imm, ibv_wr_rdma_write_imm_unchecked = wr_rdma_write_imm(rkey: u32, remote_addr: u64, imm_data: u32);
    /// Writes 8 bytes of the peer's at once: only of a queue pair that was made with `IBV_QP_EX_WITH_ATOMIC_WRITE`, as the next.
    ibv_wr_atomic_write, ibv_wr_atomic_write_unchecked = wr_atomic_write(rkey: u32, remote_addr: u64, atomic_wr: *const c_void);
    /// Makes earlier writes visible or lasting: bits `IBV_FLUSH_*` and an [`IbvSelectivityLevel`](crate::IbvSelectivityLevel). It came
    /// after rdma-core 44: only of a queue pair that was made with `IBV_QP_EX_WITH_FLUSH`, as an older library's object ends before the
    /// function's place.
    ibv_wr_flush, ibv_wr_flush_unchecked = wr_flush(rkey: u32, remote_addr: u64, len: usize, kind: u8, level: u8);
    /// Sends.
    ibv_wr_send, ibv_wr_send_unchecked = wr_send();
    /// Sends with immediate data, big-endian.
    ibv_wr_send_imm, ibv_wr_send_imm_unchecked = wr_send_imm(imm_data: u32);
    /// Sends and invalidates a key of the peer's.
    ibv_wr_send_inv, ibv_wr_send_inv_unchecked = wr_send_inv(invalidate_rkey: u32);
    /// Sends a long packet in segments.
    ibv_wr_send_tso, ibv_wr_send_tso_unchecked = wr_send_tso(hdr: *mut c_void, hdr_sz: u16, mss: u16);

    /// Addresses a datagram.
    ibv_wr_set_ud_addr, ibv_wr_set_ud_addr_unchecked = wr_set_ud_addr(ah: *mut ibv_ah, remote_qpn: u32, remote_qkey: u32);
    /// Names the shared receive queue of an extended connection.
    ibv_wr_set_xrc_srqn, ibv_wr_set_xrc_srqn_unchecked = wr_set_xrc_srqn(remote_srqn: u32);
    /// Gives the data itself, which is copied.
    ibv_wr_set_inline_data, ibv_wr_set_inline_data_unchecked = wr_set_inline_data(addr: *mut c_void, length: usize);
    /// Gives the data itself in pieces, which are copied.
    ibv_wr_set_inline_data_list, ibv_wr_set_inline_data_list_unchecked = wr_set_inline_data_list(num_buf: usize, buf_list: *const ibv_data_buf);
    /// Names one piece of registered memory.
    ibv_wr_set_sge, ibv_wr_set_sge_unchecked = wr_set_sge(lkey: u32, addr: u64, length: u32);
    /// Names pieces of registered memory. The list is copied.
    ibv_wr_set_sge_list, ibv_wr_set_sge_list_unchecked = wr_set_sge_list(num_sge: usize, sg_list: *const ibv_sge);
}

/// Posts a batch with one doorbell. C: 0 or the error number.
///
/// # Errors
/// [`Errno::NOT_SUPPORTED`], and the first failure since the start (`ENOMEM` when the queue is full); then none was posted.
///
/// # Safety
/// The queue pair is alive and belongs to this thread; a batch was started.
#[inline]
pub unsafe fn ibv_wr_complete(qp: *mut ibv_qp_ex) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    unsafe {
        match (*qp).wr_complete {
            Some(complete) => Errno::check(complete(qp)),
            None => Err(Errno::NOT_SUPPORTED),
        }
    }
}

/// [`ibv_wr_complete`] without looking whether the function is there. Answers as C does; [`Errno::check`] judges it.
///
/// # Safety
/// As of [`ibv_wr_complete`], and [`supports`] has said that the function is there.
#[inline]
pub unsafe fn ibv_wr_complete_unchecked(qp: *mut ibv_qp_ex) -> c_int {
    // SAFETY: the caller's promises: the queue pair is alive and has the function.
    unsafe { (*qp).wr_complete.unwrap_unchecked()(qp) }
}
