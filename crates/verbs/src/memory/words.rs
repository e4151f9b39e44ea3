//! Bytes of exposed memory, moved by atomics: threads that read and write the same ones at once do not race.
//!
//! Called by exposed regions; what is here knows no device.
//!
//! Two atomic accesses of different sizes to the same bytes are a data race as two plain ones are, when one of them writes. So each byte has one
//! size: a word of eight at a multiple of eight is touched as one [`AtomicU64`] and in no other way, where all of it lies in the region; the up to
//! seven bytes before the first and behind the last such word are touched one by one. A write of a part of a word changes the word in one
//! step, so that what another thread, or a peer's device, writes to its other bytes meanwhile stays.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

const WORD: usize = size_of::<u64>();

/// A range of memory that nobody in this process touches otherwise. Ranges of the same memory agree about where they begin and end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'memory> {
    start: NonNull<u8>,
    len: usize,
    memory: PhantomData<&'memory [AtomicU8]>,
}

/// How many bytes of a range are touched how, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cut {
    /// One by one.
    before: usize,
    /// In a word that begins before the range.
    opening: usize,
    /// In words of their own.
    whole: usize,
    /// In a word that ends behind the range.
    closing: usize,
    /// One by one.
    behind: usize,
}

impl Cut {
    /// Where all but the first begin.
    const fn places(self, offset: usize) -> [usize; 4] {
        let opening = offset + self.before;
        let whole = opening + self.opening;
        let closing = whole + self.whole;
        [opening, whole, closing, closing + self.closing]
    }
}

impl<'memory> Words<'memory> {
    /// # Safety
    /// For `'memory` the bytes are valid for reads and writes, initialised, and touched only through values that were made of these very arguments, or
    /// by devices.
    pub(super) const unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, memory: PhantomData }
    }

    /// Where the first whole word begins and the last one ends.
    fn whole(self) -> (usize, usize) {
        let first = (self.start.addr().get().wrapping_neg() % WORD).min(self.len);
        (first, self.len - (self.len - first) % WORD)
    }

    /// `None` where the range does not lie inside.
    fn cut(self, offset: usize, len: usize) -> Option<Cut> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len)?;
        let (first, last) = self.whole();
        let from = first.clamp(offset, end);
        let to = last.clamp(from, end);
        let opening = match from.wrapping_sub(first) % WORD {
            0 => 0,
            begun => (WORD - begun).min(to - from),
        };
        let closing = (to - from - opening) % WORD;
        let whole = to - from - opening - closing;
        Some(Cut { before: from - offset, opening, whole, closing, behind: end - to })
    }

    fn at(self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.len, "{offset} of {}", self.len);
        self.start.as_ptr().wrapping_add(offset)
    }

    /// The word at `offset`; nothing where it is not whole, inside and at a multiple of eight.
    pub(super) fn word(self, offset: usize) -> Option<&'memory AtomicU64> {
        let cut = self.cut(offset, WORD)?;
        // SAFETY: a whole word, says the cut: inside, at a multiple of eight, and touched in no other way (module head).
        (cut.whole == WORD).then(|| unsafe { AtomicU64::from_ptr(self.at(offset).cast()) })
    }

    /// The word that encloses the byte at `offset`, which is a part of one, and which byte of it that is.
    fn around(self, offset: usize) -> (&'memory AtomicU64, usize) {
        let (first, last) = self.whole();
        assert!((first..last).contains(&offset), "{offset} is in no word from {first} to {last}");
        let byte = (offset - first) % WORD;
        // SAFETY: whole words lie from `first` to `last`, one behind the other.
        (unsafe { AtomicU64::from_ptr(self.at(offset - byte).cast()) }, byte)
    }

    /// The byte at `offset`, which is in no whole word.
    fn byte(self, offset: usize) -> &'memory AtomicU8 {
        let (first, last) = self.whole();
        assert!(offset < self.len && !(first..last).contains(&offset), "{offset} from {first} to {last}");
        // SAFETY: inside, and touched in no other way (module head).
        unsafe { AtomicU8::from_ptr(self.at(offset)) }
    }

    /// Copies bytes from `offset` on out of it; nothing where they are not all inside.
    pub(super) fn read(self, offset: usize, into: &mut [u8]) -> Option<()> {
        let cut = self.cut(offset, into.len())?;
        let (before, into) = into.split_at_mut(cut.before);
        let (opening, into) = into.split_at_mut(cut.opening);
        let (whole, into) = into.split_at_mut(cut.whole);
        let (closing, behind) = into.split_at_mut(cut.closing);
        let [at_opening, at_whole, at_closing, at_behind] = cut.places(offset);
        self.read_bytes(offset, before);
        self.read_part(at_opening, opening);
        // SAFETY: so many whole words begin there.
        unsafe { load(self.at(at_whole).cast(), whole) };
        self.read_part(at_closing, closing);
        self.read_bytes(at_behind, behind);
        Some(())
    }

    fn read_bytes(self, at: usize, into: &mut [u8]) {
        for (at, byte) in (at..).zip(into) {
            *byte = self.byte(at).load(Relaxed);
        }
    }

    fn read_part(self, at: usize, into: &mut [u8]) {
        if !into.is_empty() {
            let (word, byte) = self.around(at);
            into.copy_from_slice(&word.load(Relaxed).to_ne_bytes()[byte..byte + into.len()]);
        }
    }

    /// Copies bytes into it from `offset` on; nothing where they are not all inside.
    pub(super) fn write(self, offset: usize, from: &[u8]) -> Option<()> {
        let cut = self.cut(offset, from.len())?;
        let (before, from) = from.split_at(cut.before);
        let (opening, from) = from.split_at(cut.opening);
        let (whole, from) = from.split_at(cut.whole);
        let (closing, behind) = from.split_at(cut.closing);
        let [at_opening, at_whole, at_closing, at_behind] = cut.places(offset);
        self.write_bytes(offset, before);
        self.write_part(at_opening, opening);
        // SAFETY: so many whole words begin there.
        unsafe { store(whole, self.at(at_whole).cast()) };
        self.write_part(at_closing, closing);
        self.write_bytes(at_behind, behind);
        Some(())
    }

    fn write_bytes(self, at: usize, from: &[u8]) {
        for (at, byte) in (at..).zip(from) {
            self.byte(at).store(*byte, Relaxed);
        }
    }

    fn write_part(self, at: usize, from: &[u8]) {
        if from.is_empty() {
            return;
        }
        let (word, byte) = self.around(at);
        let changed = |old: u64| {
            let mut bytes = old.to_ne_bytes();
            bytes[byte..byte + from.len()].copy_from_slice(from);
            u64::from_ne_bytes(bytes)
        };
        let mut old = word.load(Relaxed);
        while let Err(now) = word.compare_exchange_weak(old, changed(old), Relaxed, Relaxed) {
            old = now;
        }
    }
}

/// Loads as many words as `into` has room for.
///
/// # Safety
/// So many words begin at `from`, valid, and touched by atomics of their size only.
unsafe fn load(from: *const AtomicU64, into: &mut [u8]) {
    // SAFETY: the caller's promise.
    let done = unsafe { wide::load(from.cast(), into) };
    let (words, _) = into[done..].as_chunks_mut::<WORD>();
    for (at, place) in (done / WORD..).zip(words) {
        // SAFETY: inside of the words of the caller's promise.
        *place = unsafe { &*from.add(at) }.load(Relaxed).to_ne_bytes();
    }
}

/// Stores all words of `from`.
///
/// # Safety
/// So many words begin at `to`, valid, and touched by atomics of their size only.
unsafe fn store(from: &[u8], to: *const AtomicU64) {
    // SAFETY: the caller's promise.
    let done = unsafe { wide::store(from, to.cast_mut().cast()) };
    let (words, _) = from[done..].as_chunks::<WORD>();
    for (at, word) in (done / WORD..).zip(words) {
        // SAFETY: inside of the words of the caller's promise.
        unsafe { &*to.add(at) }.store(u64::from_ne_bytes(*word), Relaxed);
    }
}

/// Two words at once, where the processor does that as one access: where it has AVX, aligned moves of 16 bytes are atomic (Intel's manual, volume 3,
/// section 9.1.1; AMD's, volume 2, section 7.3.2). So each is what two relaxed accesses of a word each may be, and is told to the compiler as
/// something that touches memory. Longer moves have no such promise.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod wide {
    use std::arch::asm;

    const STEP: usize = 64;
    /// Below this, words are as fast.
    const FROM: usize = 128;

    /// How many of `len` bytes go by words before the exposed side is at a multiple of 16, and how many go wide behind them.
    fn split(exposed: *const u8, len: usize) -> Option<(usize, usize)> {
        if len < FROM || !is_x86_feature_detected!("avx") {
            return None;
        }
        let lead = exposed.addr().wrapping_neg() % 16;
        Some((lead, (len - lead) / STEP * STEP))
    }

    /// Copies from the first byte on as many as it says; whole words.
    ///
    /// # Safety
    /// As many bytes as `into` has are valid at `from`, which is at a multiple of eight, and touched by atomics of words only.
    pub(super) unsafe fn load(from: *const u8, into: &mut [u8]) -> usize {
        let Some((lead, len)) = split(from, into.len()) else { return 0 };
        let to = into.as_mut_ptr();
        // SAFETY: `lead` is 0 or 8; the pieces lie inside of `into.len()` bytes, those of `from` at multiples of 16, and the processor has AVX.
        unsafe {
            if lead > 0 {
                let word = (*from.cast::<std::sync::atomic::AtomicU64>()).load(super::Relaxed);
                to.cast::<[u8; super::WORD]>().write(word.to_ne_bytes());
            }
            for at in (lead..lead + len).step_by(STEP) {
                asm!("vmovdqa {a}, [{s}]", "vmovdqa {b}, [{s} + 16]", "vmovdqa {c}, [{s} + 32]", "vmovdqa {e}, [{s} + 48]",
                    "vmovdqu [{d}], {a}", "vmovdqu [{d} + 16], {b}", "vmovdqu [{d} + 32], {c}", "vmovdqu [{d} + 48], {e}",
                    s = in(reg) from.add(at), d = in(reg) to.add(at), a = out(xmm_reg) _, b = out(xmm_reg) _,
                    c = out(xmm_reg) _, e = out(xmm_reg) _, options(nostack, preserves_flags));
            }
        }
        lead + len
    }

    /// The same the other way.
    ///
    /// # Safety
    /// As many bytes as `from` has are valid at `to`, which is at a multiple of eight, and touched by atomics of words only.
    pub(super) unsafe fn store(from: &[u8], to: *mut u8) -> usize {
        let Some((lead, len)) = split(to, from.len()) else { return 0 };
        let from = from.as_ptr();
        // SAFETY: as of `load`; those of `to` are at multiples of 16.
        unsafe {
            if lead > 0 {
                let word = u64::from_ne_bytes(from.cast::<[u8; super::WORD]>().read());
                (*to.cast::<std::sync::atomic::AtomicU64>()).store(word, super::Relaxed);
            }
            for at in (lead..lead + len).step_by(STEP) {
                asm!("vmovdqu {a}, [{s}]", "vmovdqu {b}, [{s} + 16]", "vmovdqu {c}, [{s} + 32]", "vmovdqu {e}, [{s} + 48]",
                    "vmovdqa [{d}], {a}", "vmovdqa [{d} + 16], {b}", "vmovdqa [{d} + 32], {c}", "vmovdqa [{d} + 48], {e}",
                    s = in(reg) from.add(at), d = in(reg) to.add(at), a = out(xmm_reg) _, b = out(xmm_reg) _,
                    c = out(xmm_reg) _, e = out(xmm_reg) _, options(nostack, preserves_flags));
            }
        }
        lead + len
    }
}

/// Nothing wider than words.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod wide {
    pub(super) const unsafe fn load(_: *const u8, _: &mut [u8]) -> usize {
        0
    }

    pub(super) const unsafe fn store(_: &[u8], _: *mut u8) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of so many bytes from the `shift`th of a memory on, which is at a multiple of 16.
    fn words(memory: &mut [u128], shift: usize, len: usize) -> Words<'_> {
        assert!(shift + len <= size_of_val(memory));
        let start = NonNull::from(memory).cast::<u8>();
        // SAFETY: inside of the memory, which is borrowed for as long as the value is there.
        unsafe { Words::new(start.add(shift), len) }
    }

    #[test]
    fn any_range_comes_out_as_it_went_in_and_nothing_beside_it_changes() {
        let given: Vec<u8> = (1..=255).cycle().take(400).collect();
        let (shifts, offsets, lens) = match cfg!(miri) {
            true => (vec![0, 3], 0..4, vec![0, 1, 8, 17, 30]),
            false => ((0..17).collect(), 0..18, (0..50).chain(120..300).collect()),
        };
        for shift in shifts {
            for offset in offsets.clone() {
                for &len in &lens {
                    // Up to seven bytes more, which make the last word whole, or are in none.
                    let more = (shift * 5 + offset * 3 + len) % 8;
                    let mut memory = vec![0_u128; 24];
                    let memory = words(&mut memory, shift, offset + len + more);
                    memory.write(offset, &given[..len]).unwrap();
                    let mut all = vec![9; offset + len + more];
                    memory.read(0, &mut all).unwrap();
                    let mut expected = vec![0; offset];
                    expected.extend_from_slice(&given[..len]);
                    expected.resize(offset + len + more, 0);
                    assert_eq!(all, expected, "{shift} {offset} {len} {more}");
                    let mut part = vec![9; len];
                    memory.read(offset, &mut part).unwrap();
                    assert_eq!(part, given[..len], "{shift} {offset} {len} {more}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_inside_is_neither_read_nor_written() {
        let mut memory = [0_u128; 2];
        let memory = words(&mut memory, 3, 20);
        for (offset, len) in [(0, 21), (20, 1), (21, 0), (usize::MAX, 1), (19, 2), (1, usize::MAX)] {
            assert_eq!(memory.cut(offset, len), None, "{offset} {len}");
        }
        assert_eq!(memory.read(19, &mut [0; 2]), None);
        assert_eq!(memory.write(19, &[1; 2]), None);
        let mut all = [1; 20];
        memory.read(0, &mut all).unwrap();
        assert_eq!(all, [0; 20]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "numbers alone, and many")]
    fn a_byte_is_touched_by_one_size_only_whatever_range_it_is_touched_in() {
        for shift in 0..8 {
            for size in 0..40 {
                let mut memory = [0_u128; 3];
                let memory = words(&mut memory, shift, size);
                // Of each byte, whether it is touched in a word.
                let mut sizes = vec![None; size];
                for offset in 0..=size {
                    for len in 0..=size - offset {
                        let cut = memory.cut(offset, len).unwrap();
                        let inner = cut.opening + cut.whole + cut.closing;
                        assert_eq!((cut.before + inner + cut.behind, cut.whole % WORD), (len, 0));
                        for (at, known) in sizes.iter_mut().enumerate().take(offset + len).skip(offset) {
                            let in_word = (cut.before..cut.before + inner).contains(&(at - offset));
                            assert_eq!(*known.get_or_insert(in_word), in_word, "{shift} {size} {at}");
                        }
                    }
                    let word = memory.word(offset).is_some();
                    assert_eq!(
                        word,
                        (shift + offset) % 8 == 0 && offset + 8 <= size,
                        "{shift} {size} {offset}"
                    );
                    assert!(
                        !word || sizes[offset..offset + 8].iter().all(|size| size.is_none_or(|word| word))
                    );
                }
            }
        }
    }

    /// Writers of neighbouring bytes of a word, which nobody else writes.
    #[test]
    fn writes_to_different_bytes_of_a_word_lose_nothing() {
        let mut memory = [0_u128; 1];
        let memory = words(&mut memory, 0, 16);
        let rounds = if cfg!(miri) { 10 } else { 20_000 };
        std::thread::scope(|scope| {
            for (offset, len) in [(0, 3), (3, 1), (4, 9), (13, 3)] {
                scope.spawn(move || {
                    let mut mine = vec![0; len];
                    for round in 0..rounds {
                        memory.read(offset, &mut mine).unwrap();
                        assert!(mine.iter().all(|byte| *byte == round as u8), "{mine:?} in round {round}");
                        memory.write(offset, &vec![(round + 1) as u8; len]).unwrap();
                    }
                });
            }
        });
    }

    // SAFETY: for tests: all access is atomic.
    unsafe impl Send for Words<'_> {}

    /// Copies in both directions beside words that are loaded and stored: an interpreter sees a race, a processor a word that is half of two.
    #[test]
    fn copies_and_words_at_once_are_no_race_and_tear_no_word() {
        let (len, rounds) = if cfg!(miri) { (33, 6) } else { (517, 20_000) };
        let mut memory = vec![0_u128; 40];
        let memory = words(&mut memory, 5, len);
        std::thread::scope(|scope| {
            for fill in 1..3_u8 {
                scope.spawn(move || {
                    for round in 0..rounds {
                        memory.write(0, &vec![fill + (round % 50 * 4) as u8; len]).unwrap();
                        memory.word(11).unwrap().store(u64::from_ne_bytes([fill; 8]), Relaxed);
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(move || {
                    let mut seen = vec![0; len];
                    for _ in 0..rounds {
                        memory.read(0, &mut seen).unwrap();
                        let (words, _) = seen[3..].as_chunks::<WORD>();
                        for word in words {
                            assert_eq!(*word, [word[0]; 8]);
                        }
                        let word = memory.word(19).unwrap().load(Relaxed).to_ne_bytes();
                        assert_eq!(word, [word[0]; 8]);
                        // Inside of words, from either side.
                        memory.read(6, &mut seen[..20]).unwrap();
                    }
                });
            }
        });
    }
}
