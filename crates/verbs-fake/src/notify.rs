//! A descriptor that is readable while events wait.
//!
//! Used by completion channels and contexts under the world's lock; waited for without it.
#![allow(unsafe_code)]

use core::ffi::c_int;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// An event descriptor, in blocking mode until its user changes that.
#[derive(Debug)]
pub(crate) struct Notifier {
    file: File,
    readable: bool,
}

impl Notifier {
    /// The error number when descriptors have run out.
    pub(crate) fn new() -> Result<Self, c_int> {
        // SAFETY: no condition.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EMFILE));
        }
        // SAFETY: the system has just given it, and nobody else has it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { file: File::from(descriptor), readable: false })
    }

    pub(crate) fn descriptor(&self) -> c_int {
        self.file.as_raw_fd()
    }

    /// Readable or not. Never blocks: it is read only when it was written before.
    pub(crate) fn set(&mut self, readable: bool) {
        if readable == self.readable {
            return;
        }
        self.readable = readable;
        let done = if readable {
            self.file.write_all(&1u64.to_ne_bytes())
        } else {
            self.file.read_exact(&mut [0; 8])
        };
        debug_assert!(done.is_ok(), "an event descriptor refuses: {done:?}");
    }
}

/// Waits until a descriptor is readable, as a `read` of it would: EAGAIN at once where its user does not want to block.
pub(crate) fn wait_readable(descriptor: c_int) -> Result<(), c_int> {
    // SAFETY: the call takes no pointer.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    let blocks = flags >= 0 && flags & libc::O_NONBLOCK == 0;
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: the structure lives through the call, which takes one.
    match unsafe { libc::poll(&raw mut poll, 1, if blocks { -1 } else { 0 }) } {
        0 => Err(libc::EAGAIN),
        1.. => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINTR)),
    }
}
