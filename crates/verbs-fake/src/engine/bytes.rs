//! The only place where the device touches memory of this process.
//!
//! Words of eight bytes go whole where they lie at a multiple of eight, as a real device writes them, and other bytes one at a time. Relaxed, because
//! the program may look at them meanwhile.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

/// Copies bytes out of memory.
///
/// # Safety
/// So many bytes are registered there: whoever registered them promised that they stay.
pub(crate) unsafe fn copy_out(from: *mut u8, len: usize) -> Vec<u8> {
    fence(Ordering::Acquire);
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        // SAFETY: inside of the bytes of the caller's promise.
        let place = unsafe { from.add(bytes.len()) };
        if is_word(place, len - bytes.len()) {
            // SAFETY: the same; a word at its place.
            let word = unsafe { AtomicU64::from_ptr(place.cast()) }.load(Ordering::Relaxed);
            bytes.extend_from_slice(&word.to_ne_bytes());
        } else {
            // SAFETY: the same; a byte is aligned everywhere.
            bytes.push(unsafe { AtomicU8::from_ptr(place) }.load(Ordering::Relaxed));
        }
    }
    bytes
}

/// Whether a word begins there, of so many bytes that are left.
fn is_word(place: *mut u8, left: usize) -> bool {
    left >= 8 && place.cast::<AtomicU64>().is_aligned()
}

/// Copies bytes into memory.
///
/// # Safety
/// As of [`copy_out`], and they may be written.
pub(crate) unsafe fn copy_in(to: *mut u8, bytes: &[u8]) {
    let mut left = bytes;
    while let [byte, rest @ ..] = left {
        // SAFETY: inside of the bytes of the caller's promise.
        let place = unsafe { to.add(bytes.len() - left.len()) };
        match left.split_first_chunk() {
            Some((word, rest)) if is_word(place, left.len()) => {
                // SAFETY: the same; a word at its place.
                let place = unsafe { AtomicU64::from_ptr(place.cast()) };
                place.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
                left = rest;
            }
            _ => {
                // SAFETY: the same; a byte is aligned everywhere.
                unsafe { AtomicU8::from_ptr(place) }.store(*byte, Ordering::Relaxed);
                left = rest;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_wherever_they_begin_and_end() {
        let given: Vec<u8> = (1..=40).collect();
        for start in 0..9 {
            for len in 0..given.len() {
                let mut memory = [0_u64; 8];
                let place = memory.as_mut_ptr().cast::<u8>();
                // SAFETY: inside of the memory, which nobody else has.
                let got = unsafe {
                    copy_in(place.add(start), &given[..len]);
                    copy_out(place, 64)
                };
                assert_eq!(got[start..start + len], given[..len], "{start} {len}");
                assert!(
                    got[..start].iter().chain(&got[start + len..]).all(|byte| *byte == 0),
                    "{start} {len}"
                );
            }
        }
    }
}
