//! The only place where the device touches memory of this process.
//!
//! Words of eight bytes go whole where they lie at a multiple of eight, as a real device writes them. Relaxed, because the program may look at them
//! meanwhile: in memory that peers may touch it does, word by word, so there a part of a word is touched as a part of that word, and never as
//! bytes ([`Words`]). What is private goes byte by byte where it is no whole word: the other bytes may be other memory.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

/// Addresses of words that are touched in no other size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Words {
    first: usize,
    last: usize,
}

impl Words {
    /// All that lie whole in a piece of memory.
    pub(crate) fn of(start: *mut u8, len: usize) -> Self {
        let first = start.addr().next_multiple_of(8);
        let last = start.addr().saturating_add(len) & !7;
        Self { first, last: last.max(first) }
    }

    /// The word around a byte, and which byte of it that is.
    fn around(self, place: *mut u8) -> Option<(*mut u64, usize)> {
        let byte = place.addr() % 8;
        (self.first..self.last).contains(&place.addr()).then(|| (place.wrapping_sub(byte).cast(), byte))
    }
}

/// Copies bytes out of memory.
///
/// # Safety
/// So many bytes are registered there, and the words too: whoever registered them promised that they stay.
pub(crate) unsafe fn copy_out(from: *mut u8, len: usize, words: Words) -> Vec<u8> {
    fence(Ordering::Acquire);
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let left = len - bytes.len();
        // SAFETY: inside of the bytes of the caller's promise.
        let place = unsafe { from.add(bytes.len()) };
        let word = if is_word(place, left) { Some((place.cast(), 0)) } else { words.around(place) };
        if let Some((word, byte)) = word {
            // SAFETY: the same; a word at its place.
            let word = unsafe { AtomicU64::from_ptr(word) }.load(Ordering::Relaxed);
            bytes.extend(word.to_ne_bytes().iter().skip(byte).take(left));
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
pub(crate) unsafe fn copy_in(to: *mut u8, bytes: &[u8], words: Words) {
    let mut left = bytes;
    while let [byte, rest @ ..] = left {
        // SAFETY: inside of the bytes of the caller's promise.
        let place = unsafe { to.add(bytes.len() - left.len()) };
        left = match left.split_first_chunk() {
            Some((word, rest)) if is_word(place, left.len()) => {
                // SAFETY: the same; a word at its place.
                let place = unsafe { AtomicU64::from_ptr(place.cast()) };
                place.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
                rest
            }
            _ => match words.around(place) {
                Some((word, byte)) => {
                    let (part, rest) = left.split_at(left.len().min(8 - byte));
                    // SAFETY: the same; a word at its place.
                    unsafe { change_part(word, byte, part) };
                    rest
                }
                None => {
                    // SAFETY: the same; a byte is aligned everywhere.
                    unsafe { AtomicU8::from_ptr(place) }.store(*byte, Ordering::Relaxed);
                    rest
                }
            },
        };
    }
    fence(Ordering::Release);
}

/// Writes a part of a word in one step: the rest of it stays as it is.
///
/// # Safety
/// As of [`copy_in`], for the eight bytes of the word.
unsafe fn change_part(word: *mut u64, byte: usize, part: &[u8]) {
    let changed = |old: u64| {
        let mut bytes = old.to_ne_bytes();
        bytes[byte..byte + part.len()].copy_from_slice(part);
        u64::from_ne_bytes(bytes)
    };
    // SAFETY: the caller's promise.
    let word = unsafe { AtomicU64::from_ptr(word) };
    let mut old = word.load(Ordering::Relaxed);
    while let Err(now) = word.compare_exchange_weak(old, changed(old), Ordering::Relaxed, Ordering::Relaxed) {
        old = now;
    }
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
                let end = (start + len).min(64);
                for words in [
                    Words::default(),
                    Words::of(place.wrapping_add(start), end - start),
                    Words::of(place, 64),
                ] {
                    // SAFETY: inside of the memory, which nobody else has.
                    let got = unsafe {
                        copy_in(place, &[0; 64], words);
                        copy_in(place.add(start), &given[..len], words);
                        let part = copy_out(place.add(start), len, words);
                        assert_eq!(part, given[..len], "{start} {len} {words:?}");
                        copy_out(place, 64, words)
                    };
                    assert_eq!(got[start..start + len], given[..len], "{start} {len} {words:?}");
                    assert!(
                        got[..start].iter().chain(&got[start + len..]).all(|byte| *byte == 0),
                        "{start} {len} {words:?}"
                    );
                }
            }
        }
    }
}
