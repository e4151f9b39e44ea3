//! What a forked child must know: that it is one, and that it must not keep the parent's connections open.
//!
//! Called by mappings, links and lanes. Lane mappings are not inherited (`MADV_DONTFORK`), so a child must not touch them:
//! a page that the kernel wipes on fork tells ([`Birth::is_here`], one load). And a child that inherited a lane's socket
//! would hide its parent's death from the peer: at `fork` (3) the child's copies are replaced by a harmless descriptor, at
//! the same number, so that no owner ever closes somebody else's. A raw `clone` (2) without `exec` escapes this; the peer
//! then learns of the death when that child ends too.
#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};

/// The process that something was made in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    word: &'static AtomicU64,
    token: u64,
}

impl Birth {
    /// The present process.
    pub(crate) fn now() -> Self {
        let word = wiped_word();
        let fresh = u64::from(std::process::id()) << 32 | u64::from(nanoseconds()) | 1;
        let token = match word.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => fresh,
            Err(there) => there,
        };
        Self { word, token }
    }

    /// Whether this still is that process and not a forked child.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        self.word.load(Ordering::Relaxed) == self.token
    }
}

fn nanoseconds() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos())
}

/// A word that reads zero in a forked child. Where the kernel cannot do that (before 4.14) it is an ordinary one.
fn wiped_word() -> &'static AtomicU64 {
    static WORD: OnceLock<&'static AtomicU64> = OnceLock::new();
    static ORDINARY: AtomicU64 = AtomicU64::new(0);
    WORD.get_or_init(|| {
        // SAFETY: a fresh private mapping at an address of the kernel's choice disturbs nothing.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return &ORDINARY;
        }
        // SAFETY: the page was just mapped and is ours. Never unmapped, so a `'static` reference to its first word is
        // valid, aligned and initialised (zero).
        unsafe {
            libc::madvise(page, 4096, libc::MADV_WIPEONFORK);
            &*page.cast::<AtomicU64>()
        }
    })
}

/// The sockets that a forked child must let go, and what it puts in their place.
struct Table {
    sockets: Vec<RawFd>,
    decoy: Option<OwnedFd>,
}

static TABLE: Mutex<Table> = Mutex::new(Table { sockets: Vec::new(), decoy: None });

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket whose copies in forked children are replaced.
#[derive(Debug)]
pub(crate) struct Guarded {
    fd: ManuallyDrop<OwnedFd>,
}

impl Guarded {
    /// Makes a socket by `make` so that no fork comes between making and guarding it.
    ///
    /// # Errors
    /// That of `make`, or no descriptor for the decoy.
    pub(crate) fn make(make: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<Self, Errno> {
        install();
        let mut table = table();
        if table.decoy.is_none() {
            table.decoy = Some(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?);
        }
        let fd = make()?;
        table.sockets.push(fd.as_raw_fd());
        Ok(Self { fd: ManuallyDrop::new(fd) })
    }
}

impl rustix::fd::AsFd for Guarded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let raw = self.fd.as_raw_fd();
        let mut table = table();
        table.sockets.retain(|&there| there != raw);
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
        let Table { sockets, decoy } = &mut *table;
        if let Some(decoy) = decoy {
            for &socket in sockets.iter() {
                // SAFETY: the number is a live `Guarded`'s, which from now on owns the copy of the decoy.
                unsafe { libc::dup3(decoy.as_raw_fd(), socket, libc::O_CLOEXEC) };
            }
        }
        sockets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_knows_that_it_is_one_and_holds_no_connection() {
        use std::io::Read;
        let birth = Birth::now();
        let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let far = Guarded::make(|| Ok(far.into())).expect("guarded");
        assert!(birth.is_here());
        // SAFETY: the child only reads its own memory and pauses until it is killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let ok = !birth.is_here() && Birth::now().is_here();
            // SAFETY: async-signal-safe calls only.
            unsafe {
                if !ok {
                    libc::_exit(1);
                }
                libc::pause();
                libc::_exit(0);
            }
        }
        assert!(birth.is_here());
        drop(far);
        near.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("timeout");
        let end = near.read(&mut [0; 1]);
        // SAFETY: our own child.
        let status = unsafe {
            let mut status = 0;
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, &raw mut status, 0);
            status
        };
        assert_eq!(end.ok(), Some(0), "the child kept the socket open");
        assert!(libc::WIFSIGNALED(status), "the child did not see that it was forked");
    }
}
