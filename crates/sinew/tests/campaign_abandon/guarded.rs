//! The allocator of this test program: memory of receives lies between pages that nobody may touch, and nobody may touch the
//! memory itself any more once it is freed. Whoever reaches beyond a buffer, or writes it late, ends the process by SIGSEGV.
//!
//! Memory is known by its odd size ([`room`]). Before and behind the buffer, in its own pages, lie canaries that are looked at
//! when it is freed. It must not allocate.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

const PAGE: usize = 4096;
/// Sizes with this rest over whole pages are guarded.
const MARK: usize = 1017;
const CANARY: u8 = 0xa5;
/// Freed buffers whose addresses stay taken, so that a late write meets a page without rights and not somebody else's.
const KEPT: usize = 4096;

/// Room for a message of `len` bytes, of a size that is guarded.
pub(crate) const fn room(len: usize) -> usize {
    (len + PAGE - MARK) / PAGE * PAGE + MARK
}

pub(crate) struct Guarded {
    kept: [(AtomicPtr<u8>, AtomicUsize); KEPT],
    next: AtomicUsize,
    freed: AtomicU64,
    /// Buffers around which something was written.
    overrun: AtomicU64,
}

#[global_allocator]
static GUARDED: Guarded = Guarded {
    kept: [const { (AtomicPtr::new(null_mut()), AtomicUsize::new(0)) }; KEPT],
    next: AtomicUsize::new(0),
    freed: AtomicU64::new(0),
    overrun: AtomicU64::new(0),
};

const fn is_marked(layout: Layout) -> bool {
    layout.align() == 1 && layout.size() % PAGE == MARK
}

/// Bytes of the mapping: the buffer's pages and a page on each side.
const fn mapped(len: usize) -> usize {
    len.next_multiple_of(PAGE) + 2 * PAGE
}

/// The canaries of a buffer: before and behind it, in its own pages. One of the two is as long as the rest of a page.
unsafe fn canaries(data: *mut u8, len: usize) -> [(*mut u8, usize); 2] {
    let first = data.align_offset(PAGE);
    let before = if first == 0 { 0 } else { PAGE - first };
    let behind = len.next_multiple_of(PAGE) - len - before;
    // SAFETY: both stay in the pages of the buffer, as the caller says that it is one of ours.
    unsafe { [(data.sub(before), before), (data.add(len), behind)] }
}

impl Guarded {
    fn map(&self, len: usize) -> *mut u8 {
        let size = mapped(len);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(null_mut(), size, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return null_mut();
        }
        let pages = base.cast::<u8>().wrapping_add(PAGE);
        // SAFETY: the middle of the new mapping.
        let rc = unsafe { libc::mprotect(pages.cast(), size - 2 * PAGE, libc::PROT_READ | libc::PROT_WRITE) };
        if rc != 0 {
            return null_mut();
        }
        // In turn at the end of its pages, against the page behind, and at their beginning, against the one before.
        let slack = len.next_multiple_of(PAGE) - len;
        let at_end = self.next.load(Ordering::Relaxed).is_multiple_of(2);
        let data = if at_end { pages.wrapping_add(slack) } else { pages };
        // SAFETY: the canaries lie in the new pages.
        unsafe { canaries(data, len).into_iter().for_each(|(at, len)| at.write_bytes(CANARY, len)) };
        data
    }

    fn unmap(&self, data: *mut u8, len: usize) {
        // SAFETY: one of our buffers, which is whole until its rights are taken below.
        let written = unsafe {
            canaries(data, len)
                .into_iter()
                .any(|(at, len)| std::slice::from_raw_parts(at, len).iter().any(|&byte| byte != CANARY))
        };
        self.overrun.fetch_add(u64::from(written), Ordering::Relaxed);
        self.freed.fetch_add(1, Ordering::Relaxed);
        let pages = data.wrapping_sub(data as usize % PAGE);
        let base = pages.wrapping_sub(PAGE);
        // SAFETY: the mapping is the buffer's alone. Its memory goes, its address stays taken and without rights.
        unsafe {
            libc::madvise(pages.cast(), mapped(len) - 2 * PAGE, libc::MADV_DONTNEED);
            libc::mprotect(pages.cast(), mapped(len) - 2 * PAGE, libc::PROT_NONE);
        }
        let (place, size) = &self.kept[self.next.fetch_add(1, Ordering::Relaxed) % KEPT];
        let old = place.swap(base, Ordering::AcqRel);
        let old_size = size.swap(mapped(len), Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: the oldest mapping, taken out of its place by this thread alone.
            unsafe { libc::munmap(old.cast(), old_size) };
        }
    }
}

// SAFETY: memory comes from the system's allocator and goes back to it, or is a mapping of its own.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_marked(layout) {
            return self.map(layout.size());
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_marked(layout) {
            return self.map(layout.size());
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        if is_marked(layout) {
            return self.unmap(data, layout.size());
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(data, layout) };
    }

    unsafe fn realloc(&self, data: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        // SAFETY: the size that the caller answers for, with the same alignment.
        let new = unsafe { Layout::from_size_align_unchecked(len, layout.align()) };
        if !is_marked(layout) && !is_marked(new) {
            // SAFETY: the caller's contract is the same.
            return unsafe { System.realloc(data, layout, len) };
        }
        // SAFETY: as `GlobalAlloc::realloc` does by default.
        unsafe {
            let to = self.alloc(new);
            if !to.is_null() {
                to.copy_from_nonoverlapping(data, layout.size().min(len));
                self.dealloc(data, layout);
            }
            to
        }
    }
}

/// How many guarded buffers were freed, none of which was written around.
pub(crate) fn check() -> u64 {
    assert_eq!(GUARDED.overrun.load(Ordering::Relaxed), 0, "buffers around which something was written");
    GUARDED.freed.load(Ordering::Relaxed)
}

/// Writes a buffer after it was freed, or the byte behind one: the fault that the guards are for.
pub(crate) fn break_the_rules(how: &str) {
    let mut buf = vec![0u8; room(100)];
    let len = buf.len();
    let data = buf.as_mut_ptr();
    match how {
        "late" => drop(buf),
        _ => std::mem::forget(buf),
    }
    // SAFETY: none. The process is to end here.
    unsafe {
        match how {
            "late" => data.write_volatile(1),
            "before" => data.sub(PAGE).write_volatile(1),
            _ => data.add(len.next_multiple_of(PAGE)).write_volatile(1),
        }
    }
}
