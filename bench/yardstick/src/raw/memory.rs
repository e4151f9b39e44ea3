//! Memory for the raw programs: a mapping that both sides see, and private buffers on huge pages.
//! Copies in and out of the shared mapping go through raw pointers; everything else in it is atomic.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use anyhow::{Context, Result, ensure};
use rustix::fs::MemfdFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// The size of a huge page; private buffers are aligned to it.
const HUGE: usize = 2 << 20;

/// One cache line: sequence number and 56 B of payload.
#[repr(C, align(64))]
pub(super) struct Line {
    /// The sequence number, written last.
    pub(super) sequence: AtomicU64,
    /// The payload.
    pub(super) words: [AtomicU64; 7],
}

/// A mapping shared by the two sides.
pub(super) struct Shared {
    base: NonNull<u8>,
    len: usize,
}

impl Shared {
    /// Makes zeroed shared memory of `len` bytes (rounded up to whole pages) and its descriptor.
    pub(super) fn create(len: usize) -> Result<(Self, OwnedFd)> {
        let memory = rustix::fs::memfd_create("sinew-bench", MemfdFlags::CLOEXEC).context("memfd_create")?;
        rustix::fs::ftruncate(&memory, len.next_multiple_of(4096) as u64).context("ftruncate")?;
        Ok((Self::map(&memory)?, memory))
    }

    /// Maps what [`Shared::create`] made.
    pub(super) fn map(memory: impl AsFd) -> Result<Self> {
        let len = usize::try_from(rustix::fs::fstat(memory.as_fd()).context("fstat")?.st_size)?;
        ensure!(len > 0, "an empty shared mapping");
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of this process; it is shared,
        // readable and writable, and stays mapped until `drop`. Nobody truncates the memfd: both sides are this program.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                memory,
                0,
            )
        }
        .context("mmap")?;
        Ok(Self { base: NonNull::new(base.cast()).context("mmap at 0")?, len })
    }

    /// The whole mapping as cache lines.
    pub(super) fn lines(&self) -> &[Line] {
        // SAFETY: the mapping is page-aligned, `len` bytes long and initialised (zeroes); a `Line` is all atomics, so
        // any bytes are valid and changes by the other side are allowed.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast::<Line>(), self.len / size_of::<Line>()) }
    }

    /// The whole mapping as futex words.
    pub(super) fn futex_words(&self) -> &[AtomicU32] {
        // SAFETY: as in `lines`, with the smaller alignment of a word; the kernel, too, takes the words as atomics.
        unsafe {
            std::slice::from_raw_parts(self.base.as_ptr().cast::<AtomicU32>(), self.len / size_of::<u32>())
        }
    }

    /// Copies `from` into the mapping at `offset`. The protocol of the caller keeps the other side away meanwhile.
    #[inline]
    pub(super) fn copy_in(&self, offset: usize, from: &[u8]) {
        assert!(offset <= self.len && from.len() <= self.len - offset);
        // SAFETY: the range was just checked to lie in the mapping, and `from` is another object of this process.
        unsafe { self.base.as_ptr().add(offset).copy_from_nonoverlapping(from.as_ptr(), from.len()) }
    }

    /// Copies from the mapping at `offset` into `to`. The protocol of the caller keeps the other side away meanwhile.
    #[inline]
    pub(super) fn copy_out(&self, offset: usize, to: &mut [u8]) {
        assert!(offset <= self.len && to.len() <= self.len - offset);
        // SAFETY: the range was just checked to lie in the mapping, and `to` is another object of this process.
        unsafe { self.base.as_ptr().add(offset).copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `map` mapped; borrows of it have ended with `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// A private buffer, touched, on huge pages where the system gives them.
pub(super) struct Private {
    mapping: NonNull<c_void>,
    mapped: usize,
    base: NonNull<u8>,
    len: usize,
}

impl Private {
    /// A buffer of `len` bytes, every byte `fill`.
    pub(super) fn new(len: usize, fill: u8) -> Result<Self> {
        let mapped = len.next_multiple_of(HUGE) + HUGE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping at an address of the kernel's choice aliases nothing.
        let mapping =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), mapped, access, MapFlags::PRIVATE) }
                .context("mmap")?;
        let skip = mapping.cast::<u8>().align_offset(HUGE);
        ensure!(skip <= HUGE, "a mapping that cannot be aligned");
        // SAFETY: skip <= HUGE and mapped >= len + HUGE, so the result and `len` bytes behind it lie in the mapping.
        let base = unsafe { mapping.cast::<u8>().add(skip) };
        // SAFETY: advice about our own mapping; a kernel without huge pages refuses it, which changes nothing else.
        let _ = unsafe { rustix::mm::madvise(base.cast(), mapped - HUGE, Advice::LinuxHugepage) };
        let mut buffer = Self {
            mapping: NonNull::new(mapping).context("mmap at 0")?,
            mapped,
            base: NonNull::new(base).context("mmap at 0")?,
            len,
        };
        buffer.fill(fill);
        Ok(buffer)
    }
}

impl Deref for Private {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `base` lie in our private mapping, initialised by the kernel, borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl DerefMut for Private {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes it the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped; borrows of it have ended with `self`.
        let _ = unsafe { rustix::mm::munmap(self.mapping.as_ptr(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mappings_of_one_memory_see_the_same_bytes() {
        let (first, memory) = Shared::create(8192).expect("shared memory");
        let second = Shared::map(&memory).expect("second mapping");
        first.copy_in(100, b"sinew");
        let mut got = [0; 5];
        second.copy_out(100, &mut got);
        assert_eq!(&got, b"sinew");
        assert_eq!(second.lines().len(), 128);
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn a_copy_beyond_the_mapping_is_refused() {
        let (shared, _memory) = Shared::create(4096).expect("shared memory");
        shared.copy_in(4090, &[0; 7]);
    }

    #[test]
    fn a_private_buffer_holds_its_fill() {
        let buffer = Private::new(5000, 7).expect("buffer");
        assert_eq!(buffer.len(), 5000);
        assert!(buffer.iter().all(|byte| *byte == 7));
    }
}
