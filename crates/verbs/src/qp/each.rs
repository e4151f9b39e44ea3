//! Posting what an iterator gives, request by request: nothing lies in memory in between.
#![allow(unsafe_code)]

use super::pair::QueuePair;
use super::post::{PostError, write_request};
use super::request::SendRequest;
use super::service::Service;
use sinew_verbs_sys as sys;
use std::mem::MaybeUninit;

/// Requests of one doorbell where they are posted by a list.
const LIST: usize = 16;

/// An extended batch that was begun, taken back unless it is completed: also when the caller's iterator panics.
pub(crate) struct Begun(*mut sys::ibv_qp_ex);

impl Begun {
    /// Begins one.
    ///
    /// # Safety
    /// The queue pair is alive, posts extended batches, and is this thread's alone until the batch is completed or this is dropped.
    #[inline(always)]
    pub(crate) unsafe fn new(qp: *mut sys::ibv_qp_ex) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { sys::ibv_wr_start_unchecked(qp) };
        Self(qp)
    }

    /// Completes it. Answers as C does.
    #[inline(always)]
    pub(crate) fn complete(self) -> std::ffi::c_int {
        let qp = self.0;
        std::mem::forget(self);
        // SAFETY: begun, and completed once.
        unsafe { sys::ibv_wr_complete_unchecked(qp) }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // SAFETY: begun, and not completed: who completes it forgets this.
        unsafe { sys::ibv_wr_abort_unchecked(self.0) };
    }
}

impl<S: Service> QueuePair<S> {
    /// Posts what an iterator gives: with one doorbell where the device posts extended batches, with one for each 16 otherwise. How many. The fastest
    /// way to post many: a request goes to the device as it is made.
    ///
    /// # Errors
    /// As for [`post`](Self::post); where the device posts extended batches, all or none are posted.
    ///
    /// # Safety
    /// As for [`post`](Self::post). The iterator does nothing with this queue pair or its device: extended batches hold a lock of the driver's while it
    /// is asked. It may panic: then an extended batch is taken back, and of others what was posted stays posted.
    #[doc(alias = "ibv_wr_start")]
    #[inline(always)]
    pub unsafe fn post_each<'l>(
        &mut self,
        requests: impl IntoIterator<Item = SendRequest<'l, S>>,
    ) -> Result<usize, PostError> {
        match self.as_raw_extended() {
            // SAFETY: by the caller's promise.
            Some(extended) => unsafe { self.post_each_extended(extended, requests) },
            // SAFETY: the same.
            None => unsafe { self.post_each_by_list(requests) },
        }
    }

    #[inline(always)]
    unsafe fn post_each_extended<'l>(
        &mut self,
        extended: *mut sys::ibv_qp_ex,
        requests: impl IntoIterator<Item = SendRequest<'l, S>>,
    ) -> Result<usize, PostError> {
        let mut count = 0;
        // SAFETY: the queue pair is alive and borrowed for this thread alone.
        let begun = unsafe { Begun::new(extended) };
        for request in requests {
            if !self.takes(&request) {
                return Err(self.refused(request.needs()));
            }
            // SAFETY: the queue pair has the functions of its operations (`sys::supports`), which the request is of; a batch was begun.
            unsafe { write_request::<S>(extended, request.as_raw()) };
            count += 1;
        }
        match sys::Errno::check(begun.complete()) {
            Ok(()) => Ok(count),
            Err(errno) => Err(self.post_failed("ibv_wr_complete", 0, errno, true)),
        }
    }

    #[inline(always)]
    unsafe fn post_each_by_list<'l>(
        &mut self,
        requests: impl IntoIterator<Item = SendRequest<'l, S>>,
    ) -> Result<usize, PostError> {
        let mut requests = requests.into_iter();
        let mut posted = 0;
        loop {
            let mut list = [const { MaybeUninit::<sys::ibv_send_wr>::uninit() }; LIST];
            let first = list.as_mut_ptr().cast::<sys::ibv_send_wr>();
            let mut count = 0;
            while count < LIST
                && let Some(request) = requests.next()
            {
                if !self.takes(&request) {
                    return Err(PostError { posted, ..self.refused(request.needs()) });
                }
                // SAFETY: a place of the list, and the one behind it or its end.
                unsafe {
                    let place = first.add(count);
                    place.write(*request.as_raw());
                    (*place).next = place.add(1);
                }
                count += 1;
            }
            if count > 0 {
                // SAFETY: the first `count` were written, each linked to the next; so is the last, which has none. The operations were looked at; the
                // rest is the caller's promise.
                let answer = unsafe {
                    (*first.add(count - 1)).next = std::ptr::null_mut();
                    self.post_list(first, count)
                };
                answer.map_err(|error| PostError { posted: posted + error.posted, ..error })?;
            }
            posted += count;
            if count < LIST {
                return Ok(posted);
            }
        }
    }
}
