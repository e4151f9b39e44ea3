//! Posting to a queue pair: requests one by one, in slices, prepared; receives.
#![allow(unsafe_code)]

use super::pair::QueuePair;
use super::request::{INLINE_ELEMENTS_MAX, ReceiveRequest, SendRequest, addressed_to, link_receives};
use super::service::{Operations, Service};
use super::state::ServiceType;
use crate::error::Error;
use sinew_verbs_sys as sys;
use std::fmt;
use std::ptr::NonNull;

/// Requests that were not posted.
#[derive(Clone, Debug)]
pub struct PostError {
    /// How many of the list were posted before.
    pub posted: usize,
    /// Why the next was not.
    pub error: Error,
    /// The device failed in the call itself, and did not say which request it refused: it may have taken them all the same, and touch their
    /// memory until the queue pair is destroyed, or flushed and polled.
    pub is_uncertain: bool,
}

impl PostError {
    /// Of a list of receives, of which the device refused this one, if it is one of them.
    pub(crate) fn of_receives(
        requests: &[ReceiveRequest<'_>],
        bad: *const sys::ibv_recv_wr,
        error: Error,
    ) -> Self {
        let refused = requests.iter().position(|request| std::ptr::eq(request.as_raw(), bad));
        Self { posted: refused.unwrap_or(0), error, is_uncertain: refused.is_none() }
    }
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} posted requests: {}", self.posted, self.error)
    }
}

impl std::error::Error for PostError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<PostError> for Error {
    fn from(error: PostError) -> Self {
        error.error
    }
}

impl<S: Service> QueuePair<S> {
    /// Posts requests with one doorbell. Where the device posts extended batches, all or none are posted; otherwise those
    /// before the one that failed are.
    ///
    /// # Errors
    /// [`Error::Full`] when the send queue has no place; [`Error::Unsupported`] for an operation that the queue pair was not made for (nothing
    /// is posted then); [`Error::Call`] from the device.
    ///
    /// # Safety
    /// Until the completion of a request was polled, or the queue pair is destroyed: its memory stays registered and valid, bytes to be
    /// sent are not written, places to be filled are not touched; unless it is inline, for then its bytes are free when this returns. No element
    /// has a length of 0, which devices take for 2^31 bytes. A datagram says whom it goes to ([`to`](SendRequest::to)). An unsignaled request ends with the next signaled one of this queue pair. No more requests than the depth are out that were not
    /// polled. The completion queue is not that of a hub, pipe or channel, which would take the completion for one of its own.
    #[doc(alias = "ibv_post_send")]
    #[doc(alias = "ibv_wr_start")]
    #[inline]
    pub unsafe fn post(&mut self, requests: &mut [SendRequest<'_, S>]) -> std::result::Result<(), PostError> {
        for request in &*requests {
            if !self.can(request) {
                return Err(self.refused(request.needs()));
            }
        }
        match self.pair.extended {
            Some(extended) => {
                if let Some(request) = requests.iter().find(|request| request.has_too_many()) {
                    return Err(self.refused(request.needs()));
                }
                // SAFETY: by the caller's promise; the operations were looked at.
                unsafe { self.post_extended(extended.as_ptr(), requests) }
            }
            // SAFETY: by the caller's promise.
            None => unsafe { self.post_linked(requests) },
        }
    }

    /// Posts one request; see [`post`](Self::post).
    ///
    /// # Errors
    /// As for [`post`](Self::post).
    ///
    /// # Safety
    /// As for [`post`](Self::post).
    #[inline(always)]
    pub unsafe fn post_one(&mut self, request: SendRequest<'_, S>) -> std::result::Result<(), PostError> {
        if !self.takes(&request) {
            return Err(self.refused(request.needs()));
        }
        let Some(extended) = self.pair.extended else {
            // A copy, so that the request lies in memory only where the device asks for that.
            let mut list = *request.as_raw();
            let mut bad = std::ptr::null_mut();
            // SAFETY: the queue pair is alive, the list of one lives through the call; its memory is the caller's promise; the context
            // was looked at when it was opened.
            let answer = unsafe { sys::ibv_post_send_unchecked(self.as_raw(), &raw mut list, &raw mut bad) };
            return self.posted(answer, bad.is_null());
        };
        // SAFETY: the queue pair is alive and borrowed for this thread alone; it has the functions of its operations
        // (`sys::supports`), which the request is of; between start and completion nothing of the caller's runs and nothing panics.
        let answer = unsafe {
            sys::ibv_wr_start_unchecked(extended.as_ptr());
            write_request::<S>(extended.as_ptr(), request.as_raw());
            sys::ibv_wr_complete_unchecked(extended.as_ptr())
        };
        self.posted(answer, true)
    }

    /// What the device answered for one request.
    #[inline(always)]
    fn posted(&self, answer: std::ffi::c_int, is_uncertain: bool) -> std::result::Result<(), PostError> {
        match sys::Errno::check(answer) {
            Ok(()) => Ok(()),
            Err(errno) => Err(self.post_failed("ibv_post_send", 0, errno, is_uncertain)),
        }
    }

    /// Posts requests that are linked already, and are of these operations; see [`post`](Self::post).
    ///
    /// # Errors
    /// As for [`post`](Self::post).
    ///
    /// # Safety
    /// As for [`post`](Self::post); `count` requests lie one behind the other from the first on, each linked to the next.
    #[inline]
    pub(crate) unsafe fn post_prepared(
        &mut self,
        first: NonNull<sys::ibv_send_wr>,
        count: u32,
        needs: Operations,
    ) -> std::result::Result<(), PostError> {
        if !self.pair.operations.contains(needs) {
            let error = self.unsupported(needs - self.pair.operations);
            return Err(PostError { posted: 0, error, is_uncertain: false });
        }
        if let Some(extended) = self.pair.extended {
            // SAFETY: by the caller's promise; a request is laid out as C's.
            let requests = unsafe {
                std::slice::from_raw_parts_mut(first.cast::<SendRequest<'_, S>>().as_ptr(), count as usize)
            };
            // SAFETY: the same; the operations were looked at.
            return unsafe { self.post_extended(extended.as_ptr(), requests) };
        }
        // SAFETY: by the caller's promise.
        unsafe { self.post_list(first.as_ptr(), count as usize) }
    }

    /// Posts `count` linked requests, which lie one behind the other, by one call.
    ///
    /// # Errors
    /// As for [`post`](Self::post).
    ///
    /// # Safety
    /// As for [`post`](Self::post); the list is as it is said to be, and ends.
    #[inline(always)]
    pub(super) unsafe fn post_list(
        &mut self,
        first: *mut sys::ibv_send_wr,
        count: usize,
    ) -> std::result::Result<(), PostError> {
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue pair is alive, the list is linked and lives through the call; its memory is the caller's promise; the context
        // was looked at when it was opened.
        let answer = unsafe { sys::ibv_post_send_unchecked(self.as_raw(), first, &raw mut bad) };
        match sys::Errno::check(answer) {
            Ok(()) => Ok(()),
            Err(errno) => {
                // The first that was refused, where the driver says so.
                let refused = (0..count).find(|place| std::ptr::eq(first.wrapping_add(*place), bad));
                Err(self.post_failed("ibv_post_send", refused.unwrap_or(0), errno, refused.is_none()))
            }
        }
    }

    /// Whether the queue pair was made for a request's operation.
    #[inline(always)]
    fn can(&self, request: &SendRequest<'_, S>) -> bool {
        self.pair.operations.contains(request.needs())
    }

    /// Whether the queue pair takes a request as it posts.
    #[inline(always)]
    pub(super) fn takes(&self, request: &SendRequest<'_, S>) -> bool {
        self.can(request) && (self.pair.extended.is_none() || !request.has_too_many())
    }

    /// Why it does not take one that needs this. By what it needs alone: a request whose place is named anywhere lies in memory everywhere.
    #[cold]
    pub(super) fn refused(&self, needs: Operations) -> PostError {
        if self.pair.operations.contains(needs) {
            return self.post_failed("ibv_wr_set_inline_data_list", 0, sys::Errno::INVALID, false);
        }
        PostError { posted: 0, error: self.unsupported(needs), is_uncertain: false }
    }

    #[cold]
    fn unsupported(&self, operation: Operations) -> Error {
        let name = operation.iter_names().next().map_or("this operation", |(name, _)| name);
        Error::Unsupported { what: name, object: self.object() }
    }

    #[cold]
    pub(crate) fn post_failed(
        &self,
        call: &'static str,
        posted: usize,
        errno: sys::Errno,
        is_uncertain: bool,
    ) -> PostError {
        let error = match errno.0 {
            libc::ENOMEM => Error::Full { queue: "send queue", depth: self.pair.depths.send },
            number => Error::call(call, self.object(), number),
        };
        PostError { posted, error, is_uncertain }
    }

    #[inline]
    unsafe fn post_linked(
        &mut self,
        requests: &mut [SendRequest<'_, S>],
    ) -> std::result::Result<(), PostError> {
        let mut next = std::ptr::null_mut();
        for request in requests.iter_mut().rev() {
            let raw = request.raw_mut();
            raw.next = next;
            next = raw;
        }
        if next.is_null() {
            return Ok(());
        }
        // SAFETY: linked just now, from the first to the last, which lie one behind the other; the rest is the caller's promise.
        unsafe { self.post_list(next, requests.len()) }
    }

    unsafe fn post_extended(
        &mut self,
        qp: *mut sys::ibv_qp_ex,
        requests: &mut [SendRequest<'_, S>],
    ) -> std::result::Result<(), PostError> {
        if requests.is_empty() {
            return Ok(());
        }
        // SAFETY: the queue pair is alive and borrowed for this thread alone; it has the functions of its operations
        // (`sys::supports`), which the requests are of; between start and completion nothing of the caller's runs and nothing panics.
        let answer = unsafe {
            sys::ibv_wr_start_unchecked(qp);
            for request in &*requests {
                write_request::<S>(qp, request.as_raw());
            }
            sys::ibv_wr_complete_unchecked(qp)
        };
        sys::Errno::check(answer).map_err(|errno| self.post_failed("ibv_wr_complete", 0, errno, true))
    }

    /// Posts receives with one call; those before the one that failed are posted.
    ///
    /// # Errors
    /// [`Error::Full`] when the receive queue has no place; [`Error::Call`] from the device, with `EINVAL` for a queue pair with a shared
    /// receive queue.
    ///
    /// # Safety
    /// Until the completion of a request was polled, or the queue pair is destroyed: its places stay registered and valid and are not
    /// touched, and none has a length of 0, which devices take for 2^31 bytes. No more receives than the depth are out that were not polled. The completion queue is not that of a hub, pipe or channel.
    #[doc(alias = "ibv_post_recv")]
    #[inline]
    pub unsafe fn post_receives(
        &mut self,
        requests: &mut [ReceiveRequest<'_>],
    ) -> std::result::Result<(), PostError> {
        let list = link_receives(requests);
        if list.is_null() {
            return Ok(());
        }
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue pair is alive, the list is linked and lives through the call; its memory is the caller's promise; the
        // context was looked at when it was opened.
        let answer = unsafe { sys::ibv_post_recv_unchecked(self.as_raw(), list, &raw mut bad) };
        sys::Errno::check(answer).map_err(|errno| {
            let error = match errno.0 {
                libc::ENOMEM => Error::Full { queue: "receive queue", depth: self.pair.depths.receive },
                number => Error::call("ibv_post_recv", self.object(), number),
            };
            PostError::of_receives(requests, bad, error)
        })
    }
}

/// Writes one request into a batch that was started.
///
/// # Safety
/// As for the functions that it calls: a batch was started by this thread, and the queue pair was made for the operation.
#[inline(always)]
pub(crate) unsafe fn write_request<S: Service>(qp: *mut sys::ibv_qp_ex, wr: &sys::ibv_send_wr) {
    // SAFETY: by the promise to this function. The unions are read as the operation wrote them: writes and reads have `rdma`, atomics
    // `atomic`, datagrams `ud`; every request of extended connections has `xrc`.
    unsafe {
        (*qp).wr_id = wr.wr_id;
        (*qp).wr_flags = wr.send_flags;
        match wr.opcode {
            sys::IbvWrOpcode::SEND => sys::ibv_wr_send_unchecked(qp),
            sys::IbvWrOpcode::SEND_WITH_IMM => sys::ibv_wr_send_imm_unchecked(qp, wr.imm_data),
            sys::IbvWrOpcode::SEND_WITH_INV => sys::ibv_wr_send_inv_unchecked(qp, wr.imm_data),
            sys::IbvWrOpcode::RDMA_WRITE => {
                let rdma = wr.wr.rdma;
                sys::ibv_wr_rdma_write_unchecked(qp, rdma.rkey, rdma.remote_addr);
            }
            sys::IbvWrOpcode::RDMA_WRITE_WITH_IMM => {
                let rdma = wr.wr.rdma;
                sys::ibv_wr_rdma_write_imm_unchecked(qp, rdma.rkey, rdma.remote_addr, wr.imm_data);
            }
            sys::IbvWrOpcode::RDMA_READ => {
                let rdma = wr.wr.rdma;
                sys::ibv_wr_rdma_read_unchecked(qp, rdma.rkey, rdma.remote_addr);
            }
            sys::IbvWrOpcode::ATOMIC_CMP_AND_SWP => {
                let sys::ibv_send_wr_atomic { remote_addr, compare_add, swap, rkey } = wr.wr.atomic;
                sys::ibv_wr_atomic_cmp_swp_unchecked(qp, rkey, remote_addr, compare_add, swap);
            }
            sys::IbvWrOpcode::ATOMIC_FETCH_AND_ADD => {
                let atomic = wr.wr.atomic;
                sys::ibv_wr_atomic_fetch_add_unchecked(
                    qp,
                    atomic.rkey,
                    atomic.remote_addr,
                    atomic.compare_add,
                );
            }
            sys::IbvWrOpcode::LOCAL_INV => return sys::ibv_wr_local_inv_unchecked(qp, wr.imm_data),
            _ => {
                let bind = wr.more.bind_mw;
                return sys::ibv_wr_bind_mw_unchecked(qp, bind.mw, bind.rkey, &raw const bind.bind_info);
            }
        }
        if S::TYPE == ServiceType::XRC_SEND {
            sys::ibv_wr_set_xrc_srqn_unchecked(qp, wr.qp_type.xrc.remote_srqn);
        }
        if S::TYPE == ServiceType::UD || S::TYPE == ServiceType::DRIVER {
            let ud = addressed_to(wr);
            sys::ibv_wr_set_ud_addr_unchecked(qp, ud.ah, ud.remote_qpn, ud.remote_qkey);
        }
        let len = usize::try_from(wr.num_sge).unwrap_or(0);
        if wr.send_flags & sys::IBV_SEND_INLINE != 0 {
            write_inline(qp, wr.sg_list, len);
        } else if len == 1 {
            let sge = *wr.sg_list;
            sys::ibv_wr_set_sge_unchecked(qp, sge.lkey, sge.addr, sge.length);
        } else {
            sys::ibv_wr_set_sge_list_unchecked(qp, len, wr.sg_list);
        }
    }
}

/// Gives the data of an inline request.
///
/// # Safety
/// As for the function that it calls; `list` has `len` elements, up to [`INLINE_ELEMENTS_MAX`].
#[inline(never)]
unsafe fn write_inline(qp: *mut sys::ibv_qp_ex, list: *const sys::ibv_sge, len: usize) {
    let mut pieces = [sys::ibv_data_buf::zeroed(); INLINE_ELEMENTS_MAX];
    // SAFETY: by the promise to this function.
    unsafe {
        for (place, piece) in pieces.iter_mut().enumerate().take(len) {
            let sge = *list.add(place);
            let addr = std::ptr::with_exposed_provenance_mut(sge.addr as usize);
            *piece = sys::ibv_data_buf { addr, length: sge.length as usize };
        }
        // One piece by itself: librxe takes a list for a message of no bytes (rdma-core 44 and later).
        if let [piece] = pieces[..len] {
            return sys::ibv_wr_set_inline_data_unchecked(qp, piece.addr, piece.length);
        }
        sys::ibv_wr_set_inline_data_list_unchecked(qp, len, pieces.as_ptr());
    }
}
