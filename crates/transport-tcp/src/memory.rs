//! A caller's memory while a lane holds it: between a borrowed post and its release, and between a placement and its end.
//!
//! Used by the lane only. The constructors are where the transport contract's promise is taken over; everything after is safe.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// Bytes of a caller that the lane may read.
#[derive(Debug)]
pub(crate) struct BorrowedBytes {
    data: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is only read, and the caller promised it to the lane, which may be moved between threads.
unsafe impl Send for BorrowedBytes {}

impl BorrowedBytes {
    /// # Safety
    /// `data` is readable for `len` bytes, and not written, until the value is dropped.
    pub(crate) unsafe fn new(data: NonNull<u8>, len: usize) -> Self {
        Self { data, len }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: promised to `new` for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.data.as_ptr()
    }
}

/// Memory of a caller that the lane fills from its first byte to its last.
#[derive(Debug)]
pub(crate) struct Target {
    data: NonNull<u8>,
    len: usize,
    filled: usize,
}

// SAFETY: the memory is only written, and the caller promised it to the lane, which may be moved between threads.
unsafe impl Send for Target {}

impl Target {
    /// # Safety
    /// `data` is writable for `len` bytes, and nothing else accesses it, until the value is dropped.
    pub(crate) unsafe fn new(data: NonNull<u8>, len: usize) -> Self {
        Self { data, len, filled: 0 }
    }

    /// Another place for the same bytes, with those that have come.
    ///
    /// # Safety
    /// As for [`Target::new`], with the length of this one.
    pub(crate) unsafe fn moved(self, data: NonNull<u8>) -> Self {
        // SAFETY: `filled <= len`, for which both are valid, and nothing else accesses either.
        unsafe { std::ptr::copy_nonoverlapping(self.data.as_ptr(), data.as_ptr(), self.filled) };
        Self { data, ..self }
    }

    /// First byte.
    pub(crate) fn data(&self) -> NonNull<u8> {
        self.data
    }

    /// What has come.
    pub(crate) fn filled(&self) -> &[u8] {
        // SAFETY: `filled <= len` bytes were written, and nothing else accesses them while `self` lives.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.filled) }
    }

    /// Bytes still missing.
    pub(crate) fn missing(&self) -> usize {
        self.len - self.filled
    }

    /// Copies from `bytes` what fits and says how much that was.
    pub(crate) fn fill(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.missing());
        // SAFETY: `filled + count <= len`; the ranges cannot overlap, as nothing else accesses the target.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.data.as_ptr().add(self.filled), count);
        }
        self.filled += count;
        count
    }

    /// The rest that is still to be filled, for a system call that writes there.
    pub(crate) fn rest(&mut self) -> (*mut u8, usize) {
        // SAFETY: `filled <= len`: inside the range or one past it.
        (unsafe { self.data.as_ptr().add(self.filled) }, self.missing())
    }

    /// A system call has written the next `count` bytes of [`Target::rest`].
    pub(crate) fn advance(&mut self, count: usize) {
        self.filled += count.min(self.missing());
    }
}
