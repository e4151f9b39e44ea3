//! The allocator of this test program: memory of receives that is freed is poisoned and kept, so that whoever writes it later
//! is found out.
//!
//! Memory is known by its odd size ([`room`]). It must not allocate, and does its own locking.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

const PAGE: usize = 4096;
/// Sizes with this rest over whole pages are kept.
const MARK: usize = 1017;
const POISON: u8 = 0xdd;
/// Blocks and bytes that are kept; the oldest give way, after a last look.
const BLOCKS_MAX: usize = 2048;
const BYTES_MAX: usize = 96 << 20;

/// Room for a message of `len` bytes, of a size that is kept when it is freed.
pub(crate) const fn room(len: usize) -> usize {
    (len + PAGE - MARK) / PAGE * PAGE + MARK
}

struct Quarantine {
    busy: AtomicBool,
    blocks: [(AtomicPtr<u8>, AtomicUsize); BLOCKS_MAX],
    /// Counted without end; modulo the number of blocks.
    first: AtomicUsize,
    next: AtomicUsize,
    bytes: AtomicUsize,
    /// Blocks that were written after they had been freed.
    written: AtomicUsize,
}

#[global_allocator]
static QUARANTINE: Quarantine = Quarantine {
    busy: AtomicBool::new(false),
    blocks: [const { (AtomicPtr::new(null_mut()), AtomicUsize::new(0)) }; BLOCKS_MAX],
    first: AtomicUsize::new(0),
    next: AtomicUsize::new(0),
    bytes: AtomicUsize::new(0),
    written: AtomicUsize::new(0),
};

const fn is_marked(layout: Layout) -> bool {
    layout.align() == 1 && layout.size() % PAGE == MARK
}

/// Whether every byte is as it was left. Reads words, as tests are not optimised.
fn is_untouched(data: *const u8, len: usize) -> bool {
    // SAFETY: a block of the quarantine, which is freed only by whoever holds `busy`, as the caller does. Its bytes may be
    // written by the fault that is looked for; then any answer but a crash is right.
    let bytes = unsafe { std::slice::from_raw_parts(data, len) };
    // SAFETY: every bit pattern is a number.
    let (before, words, after) = unsafe { bytes.align_to::<u64>() };
    before.iter().chain(after).all(|&byte| byte == POISON)
        && words.iter().all(|&word| word == u64::from_ne_bytes([POISON; 8]))
}

impl Quarantine {
    fn lock(&self) {
        while self.busy.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    fn unlock(&self) {
        self.busy.store(false, Ordering::Release);
    }

    /// Really frees the oldest block. The caller holds `busy`.
    fn release_oldest(&self) {
        let first = self.first.fetch_add(1, Ordering::Relaxed);
        let (data, len) = &self.blocks[first % BLOCKS_MAX];
        let (data, len) = (data.load(Ordering::Relaxed), len.load(Ordering::Relaxed));
        if !is_untouched(data, len) {
            self.written.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        // SAFETY: came from `System` with this size and alignment 1, and is in no other place of the ring.
        unsafe { System.dealloc(data, Layout::from_size_align_unchecked(len, 1)) };
    }

    fn keep(&self, data: *mut u8, len: usize) {
        // SAFETY: the block is the caller's to free, so to write.
        unsafe { data.write_bytes(POISON, len) };
        self.lock();
        while self.next.load(Ordering::Relaxed) > self.first.load(Ordering::Relaxed)
            && (self.next.load(Ordering::Relaxed) - self.first.load(Ordering::Relaxed) == BLOCKS_MAX
                || self.bytes.load(Ordering::Relaxed) + len > BYTES_MAX)
        {
            self.release_oldest();
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let (slot, slot_len) = &self.blocks[next % BLOCKS_MAX];
        slot.store(data, Ordering::Relaxed);
        slot_len.store(len, Ordering::Relaxed);
        self.bytes.fetch_add(len, Ordering::Relaxed);
        self.unlock();
    }
}

// SAFETY: memory comes from the system's allocator and goes back to it, some of it later.
unsafe impl GlobalAlloc for Quarantine {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        if is_marked(layout) {
            self.keep(data, layout.size());
        } else {
            // SAFETY: the caller's contract is the same.
            unsafe { System.dealloc(data, layout) };
        }
    }

    unsafe fn realloc(&self, data: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(data, layout, len) }
    }
}

/// Looks at all memory that was freed: nobody has written it since. At least one block must be there to be looked at.
pub(crate) fn check() {
    QUARANTINE.lock();
    let (first, next) = (QUARANTINE.first.load(Ordering::Relaxed), QUARANTINE.next.load(Ordering::Relaxed));
    let written = QUARANTINE.written.load(Ordering::Relaxed)
        + (first..next)
            .filter(|at| {
                let (data, len) = &QUARANTINE.blocks[at % BLOCKS_MAX];
                !is_untouched(data.load(Ordering::Relaxed), len.load(Ordering::Relaxed))
            })
            .count();
    QUARANTINE.unlock();
    assert_eq!(written, 0, "blocks of memory that were written after their receive had ended");
    assert!(next > 0, "no memory of a receive was ever freed: nothing was looked at");
}

#[test]
fn the_quarantine_finds_what_is_written_late() {
    // A block of its own: the others are looked at by other tests of this process.
    let mut block = vec![POISON; room(100)];
    assert!(block.len() >= 100 && is_untouched(block.as_ptr(), block.len()));
    for at in [0, 500, block.len() - 1] {
        block[at] = 0;
        assert!(!is_untouched(block.as_ptr(), block.len()), "byte {at}");
        block[at] = POISON;
    }
    drop(block);
    check();
}
