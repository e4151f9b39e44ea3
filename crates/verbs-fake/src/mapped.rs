//! The memory behind a descriptor: what a registration of a DMA-BUF reaches.
//!
//! Made by `object/mr.rs`. Any descriptor that can be mapped will do, as an anonymous file of a test's.
#![allow(unsafe_code)]

use crate::world::Pointer;
use core::ffi::{c_int, c_void};

/// Mapped bytes of a descriptor; unmapped when it is dropped.
#[derive(Debug)]
pub(crate) struct Mapped {
    base: Pointer<c_void>,
    len: usize,
    /// Where the bytes that were asked for begin.
    skipped: usize,
}

impl Mapped {
    /// Maps so many bytes from `offset` on, which must all be there.
    pub(crate) fn new(fd: c_int, offset: u64, len: usize) -> Result<Self, c_int> {
        let errno = || std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        // SAFETY: asks for the end of the descriptor, and changes its place at most, which mappings do not look at.
        let end = unsafe { libc::lseek(fd, 0, libc::SEEK_END) };
        let end = u64::try_from(end).map_err(|_| errno())?;
        if len == 0 || offset.checked_add(len as u64).is_none_or(|last| last > end) {
            return Err(libc::EINVAL);
        }
        let skipped = (offset % 4096) as usize;
        let (from, len) =
            (libc::off_t::try_from(offset - skipped as u64).map_err(|_| libc::EINVAL)?, len + skipped);
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let base = unsafe { libc::mmap(core::ptr::null_mut(), len, rights, libc::MAP_SHARED, fd, from) };
        if base == libc::MAP_FAILED {
            return Err(errno());
        }
        Ok(Self { base: Pointer(base), len, skipped })
    }

    /// The first byte that was asked for.
    pub(crate) fn start(&self) -> Pointer<u8> {
        Pointer(self.base.0.cast::<u8>().wrapping_add(self.skipped))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping, unmapped once; its region is gone.
        unsafe { libc::munmap(self.base.0, self.len) };
    }
}
