//! The functions that copy to and from device memory, which record.
#![allow(unsafe_code)]

use super::argument::{Argument, Bytes, Place};
use super::functions::{note, noted};
use super::tape::{Own, Tape};
use core::ffi::{c_int, c_void};
use sinew_verbs_sys as sys;

/// Puts functions that record where there are functions.
pub(super) fn patch(dm: &mut sys::ibv_dm) {
    dm.memcpy_to_dm = dm.memcpy_to_dm.map(|_| copy_to as _);
    dm.memcpy_from_dm = dm.memcpy_from_dm.map(|_| copy_from as _);
}

/// The functions that the memory had.
fn behind(tape: &Tape, dm: *mut sys::ibv_dm) -> sys::ibv_dm {
    match tape.own.get(&dm.addr()) {
        Some(Own::Memory(own)) => *own,
        _ => panic!("its functions record since it was allocated"),
    }
}

unsafe extern "C" fn copy_to(dm: *mut sys::ibv_dm, offset: u64, from: *const c_void, len: usize) -> c_int {
    // SAFETY: the caller's promise: memory that is alive, and so many bytes.
    unsafe {
        let tape = note("ibv_memcpy_to_dm", |tape, line| {
            noted!(tape, line, [dm, offset, from, len] [dm, offset, Bytes(from, len)]);
        });
        let inner = behind(&tape, dm).memcpy_to_dm;
        drop(tape);
        inner.expect("it was there when it was wrapped")(dm, offset, from, len)
    }
}

unsafe extern "C" fn copy_from(to: *mut c_void, dm: *mut sys::ibv_dm, offset: u64, len: usize) -> c_int {
    // SAFETY: the caller's promise: memory that is alive, and room for so many bytes.
    unsafe {
        let tape = note("ibv_memcpy_from_dm", |tape, line| {
            noted!(tape, line, [to, dm, offset, len] [Place(to), dm, offset, len]);
        });
        let inner = behind(&tape, dm).memcpy_from_dm;
        drop(tape);
        inner.expect("it was there when it was wrapped")(to, dm, offset, len)
    }
}
