//! Descriptors that a forked child must not keep: [`GuardedFd`].
//!
//! Used by transports. A child that inherits a connection hides its parent's death from the peer, and dropping its copy would
//! end the connection under the parent's hands. At `fork` (3) the child's copies are replaced by a harmless descriptor, at
//! the same number, so that no owner ever closes somebody else's. A raw `clone` (2) without `exec` escapes this.
#![allow(unsafe_code)]

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// The descriptors that a forked child must let go, and what it puts in their place.
struct Table {
    guarded: Vec<RawFd>,
    decoy: Option<OwnedFd>,
}

static TABLE: Mutex<Table> = Mutex::new(Table { guarded: Vec::new(), decoy: None });

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An owned descriptor whose copies in forked children are replaced by one that does nothing. `Send` and `Sync`; making and
/// dropping one takes a lock of the process for a moment.
#[derive(Debug)]
pub struct GuardedFd {
    fd: ManuallyDrop<OwnedFd>,
}

impl GuardedFd {
    /// Makes a descriptor by `make` so that no fork comes between making and guarding it. `make` must not block, and must
    /// make no other guarded descriptor.
    ///
    /// # Errors
    /// That of `make`, or no descriptor for the decoy, of which a process has one.
    pub fn make(make: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<Self, Errno> {
        install();
        let mut table = table();
        if table.decoy.is_none() {
            table.decoy = Some(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?);
        }
        let fd = make()?;
        table.guarded.push(fd.as_raw_fd());
        Ok(Self { fd: ManuallyDrop::new(fd) })
    }
}

impl AsFd for GuardedFd {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for GuardedFd {
    fn drop(&mut self) {
        let raw = self.fd.as_raw_fd();
        let mut table = table();
        if let Some(at) = table.guarded.iter().rposition(|&there| there == raw) {
            table.guarded.swap_remove(at);
        }
        // Closed under the lock, so that no fork comes between.
        // SAFETY: dropped once, here, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.fd) };
    }
}

/// The lock that `fork` holds from before until after, so that the child finds the table whole.
struct Held(UnsafeCell<Option<MutexGuard<'static, Table>>>);

// SAFETY: only the fork handlers touch it, and between `before` and `after` the table's lock keeps every other thread's
// handlers out.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

fn install() {
    static ONCE: Once = Once::new();
    // SAFETY: the handlers are plain functions that live as long as the program.
    ONCE.call_once(|| unsafe {
        libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child));
    });
}

extern "C" fn before() {
    let guard = table();
    // SAFETY: the lock is held, so no other thread is between its handlers.
    unsafe { *HELD.0.get() = Some(guard) };
}

extern "C" fn after_in_parent() {
    // SAFETY: as in `before`; the same thread, still holding the lock until the guard drops.
    drop(unsafe { (*HELD.0.get()).take() });
}

extern "C" fn after_in_child() {
    // SAFETY: as above; the child has one thread, the one that holds the lock.
    let guard = unsafe { (*HELD.0.get()).take() };
    if let Some(mut table) = guard {
        let Table { guarded, decoy } = &mut *table;
        if let Some(decoy) = decoy {
            for &fd in guarded.iter() {
                // SAFETY: the number is a live `GuardedFd`'s, which from now on owns the copy of the decoy.
                unsafe { libc::dup3(decoy.as_raw_fd(), fd, libc::O_CLOEXEC) };
            }
        }
        guarded.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_forked_child_holds_no_guarded_descriptor_and_closing_its_copy_harms_nobody() {
        let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let far = GuardedFd::make(|| Ok(far.into())).expect("guarded");
        // SAFETY: the child only shuts its own descriptor down and pauses until it is killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: async-signal-safe calls only.
            unsafe {
                libc::shutdown(far.as_fd().as_raw_fd(), libc::SHUT_RDWR);
                libc::pause();
                libc::_exit(0);
            }
        }
        rustix::io::write(&far, b"x").expect("the connection still stands");
        near.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("timeout");
        let first = near.read(&mut [0; 1]);
        drop(far);
        let end = near.read(&mut [0; 1]);
        // SAFETY: our own child.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        assert_eq!((first.ok(), end.ok()), (Some(1), Some(0)), "the child kept the connection open");
    }

    #[test]
    fn a_number_that_is_somebody_elses_by_now_stays_the_childs() {
        // A number that no other thread of this process gets meanwhile.
        let high = |fd: OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 700).expect("a number");
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let guarded = GuardedFd::make(|| Ok(high(one.into()))).expect("guarded");
        let number = guarded.as_fd().as_raw_fd();
        drop(guarded);
        let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let far = high(far.into());
        assert_eq!(far.as_raw_fd(), number, "the first that is free");
        // SAFETY: the child only writes and ends, both async-signal-safe.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe {
                libc::write(number, b"x".as_ptr().cast(), 1);
                libc::_exit(0);
            }
        }
        drop(far);
        let got = near.read(&mut [0; 2]);
        // SAFETY: our own child.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        assert_eq!(got.ok(), Some(1), "the child's copy was exchanged");
    }
}
