//! The only place where the device touches memory of this process.
//!
//! Bytes go one at a time, relaxed, because the program may look at them meanwhile, as at memory that a real device writes.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

/// Copies bytes out of memory.
///
/// # Safety
/// So many bytes are registered there: whoever registered them promised that they stay.
pub(crate) unsafe fn copy_out(from: *mut u8, len: usize) -> Vec<u8> {
    fence(Ordering::Acquire);
    // SAFETY: the caller's promise; a byte is aligned everywhere.
    (0..len).map(|at| unsafe { AtomicU8::from_ptr(from.add(at)) }.load(Ordering::Relaxed)).collect()
}

/// Copies bytes into memory.
///
/// # Safety
/// As of [`copy_out`], and they may be written.
pub(crate) unsafe fn copy_in(to: *mut u8, bytes: &[u8]) {
    for (at, byte) in bytes.iter().enumerate() {
        // SAFETY: the caller's promise; a byte is aligned everywhere.
        unsafe { AtomicU8::from_ptr(to.add(at)) }.store(*byte, Ordering::Relaxed);
    }
    fence(Ordering::Release);
}

/// Changes a number in memory in one step; answers what it was.
///
/// # Safety
/// As of [`copy_in`], for eight bytes at a multiple of eight.
pub(crate) unsafe fn change(place: *mut u8, new: impl Fn(u64) -> u64) -> u64 {
    // SAFETY: the caller's promise.
    let number = unsafe { AtomicU64::from_ptr(place.cast()) };
    number.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(new(old))).unwrap_or_else(|old| old)
}
