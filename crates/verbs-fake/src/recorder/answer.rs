//! What is done with what a function answered: objects get functions that record, regions are remembered.
#![allow(unsafe_code)]

use super::tape::{Own, Tape};
use super::{context, memory, polling, posting};
use core::ffi::{c_char, c_int};
use sinew_verbs_sys as sys;

/// What a recorded function answers.
pub(super) trait Answer: Copy {
    /// # Safety
    /// It is what the function answered just now.
    unsafe fn after(self, _: &mut Tape) {}
}

macro_rules! plain {
    ( $( $type:ty ),* $(,)? ) => { $( impl Answer for $type {} )* };
}

plain! {
    (), c_int, isize, u64, u32, *const c_char, *mut *mut sys::ibv_device, *mut sys::ibv_pd, *mut sys::ibv_td, *mut sys::ibv_mw, *mut sys::ibv_xrcd,
    *mut sys::ibv_flow,
    *mut sys::ibv_cq, *mut sys::ibv_srq, *mut sys::ibv_ah, *mut sys::ibv_comp_channel,
}

impl Answer for *mut sys::ibv_mr {
    unsafe fn after(self, tape: &mut Tape) {
        if !self.is_null() {
            // SAFETY: the caller's promise: a region that was just made.
            let (start, len) = unsafe { ((*self).addr.addr() as u64, (*self).length as u64) };
            // Memory that is not of this process has no address here.
            tape.region(self.addr(), start, if start == 0 { 0 } else { len });
        }
    }
}

impl Answer for *mut sys::ibv_context {
    unsafe fn after(self, tape: &mut Tape) {
        if !self.is_null() {
            // SAFETY: the caller's promise: a context that was just opened, and that nobody else has seen.
            let opened = unsafe { context::patch(self) };
            tape.opened.insert(self.addr(), opened);
        }
    }
}

impl Answer for *mut sys::ibv_qp {
    unsafe fn after(self, tape: &mut Tape) {
        let find = tape.inner.and_then(|inner| inner.ibv_qp_to_qp_ex);
        let Some(find) = find.filter(|_| !self.is_null()) else { return };
        // SAFETY: the caller's promise: a queue pair that was just made.
        unsafe {
            let ex = find(self);
            if !ex.is_null() {
                tape.own.insert(ex.addr(), Own::Posting(*ex));
                posting::patch(&mut *ex);
            }
        }
    }
}

/// The same queue pair: it got its functions when it was made.
impl Answer for *mut sys::ibv_qp_ex {}

impl Answer for *mut sys::ibv_cq_ex {
    unsafe fn after(self, tape: &mut Tape) {
        if !self.is_null() {
            // SAFETY: the caller's promise: a queue that was just made, and that nobody else has seen.
            unsafe {
                tape.own.insert(self.addr(), Own::Polling(*self));
                polling::patch(&mut *self);
            }
        }
    }
}

impl Answer for *mut sys::ibv_dm {
    unsafe fn after(self, tape: &mut Tape) {
        if !self.is_null() {
            // SAFETY: the caller's promise: memory that was just allocated, and that nobody else has seen.
            unsafe {
                tape.own.insert(self.addr(), Own::Memory(*self));
                memory::patch(&mut *self);
            }
        }
    }
}
