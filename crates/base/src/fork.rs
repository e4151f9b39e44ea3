//! Whether this process is a fork of the one that made something: [`ForkGuard`], and [`SmallForkGuard`] in four bytes.
//!
//! Used by engines, so that handles in a child answer `Forked` instead of talking over the parent's connections. Asking costs
//! one load: the kernel zeroes a marked page in the child (`MADV_WIPEONFORK`, Linux 4.14). Where it cannot, asking costs a
//! `getpid` (2). Children that share memory (`vfork`, threads) are the same process here. No lock, so that a child that was
//! forked beside a thread at work here finds nothing half done.
#![allow(unsafe_code)]

use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// Remembers the process that made it. `Send`, `Sync`, `Copy`.
#[derive(Clone, Copy, Debug)]
pub struct ForkGuard {
    mark: Mark,
}

#[derive(Clone, Copy, Debug)]
enum Mark {
    /// The page's word and what it was; a fork makes it 0, a guard made in the child something new.
    Page(&'static AtomicU32, u32),
    Pid(rustix::process::Pid),
}

impl ForkGuard {
    /// Remembers this process. The first call of a process maps a page.
    #[must_use]
    pub fn new() -> Self {
        let mark = match page() {
            Some(word) => Mark::Page(word, generation(word)),
            None => Mark::Pid(rustix::process::getpid()),
        };
        Self { mark }
    }

    /// Whether the asking process is another one, a child of the one that made the guard.
    #[must_use]
    #[inline]
    pub fn forked(&self) -> bool {
        match self.mark {
            Mark::Page(word, made_in) => word.load(Ordering::Relaxed) != made_in,
            Mark::Pid(made_by) => rustix::process::getpid() != made_by,
        }
    }

    #[cfg(test)]
    fn by_pid() -> Self {
        Self { mark: Mark::Pid(rustix::process::getpid()) }
    }
}

impl Default for ForkGuard {
    fn default() -> Self {
        Self::new()
    }
}

/// A [`ForkGuard`] of four bytes, for what there is much of; asking costs a load more. `Send`, `Sync`, `Copy`.
#[derive(Clone, Copy, Debug)]
pub struct SmallForkGuard(u32);

impl SmallForkGuard {
    /// Remembers this process. The first call of a process maps a page.
    #[must_use]
    pub fn new() -> Self {
        Self(page().map_or_else(own_pid, generation))
    }

    /// Whether the asking process is another one, a child of the one that made the guard.
    #[must_use]
    #[inline]
    pub fn forked(&self) -> bool {
        page().map_or_else(own_pid, |word| word.load(Ordering::Relaxed)) != self.0
    }
}

impl Default for SmallForkGuard {
    fn default() -> Self {
        Self::new()
    }
}

fn own_pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()
}

/// The word's value in this process: a new one if the fork has wiped it.
fn generation(word: &AtomicU32) -> u32 {
    /// Copied by fork, so a child counts on from its parent.
    static LAST: AtomicU32 = AtomicU32::new(0);
    let found = word.load(Ordering::Relaxed);
    if found != 0 {
        return found;
    }
    let mut next = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    if next == 0 {
        next = LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    }
    match word.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => next,
        Err(found) => found,
    }
}

/// The wiped page's word, mapped once for each process and its children; `None` where the kernel has no such pages.
fn page() -> Option<&'static AtomicU32> {
    static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
    /// Stands in `PAGE` for "there is none".
    static NONE: AtomicU32 = AtomicU32::new(0);
    let none = ptr::from_ref(&NONE).cast_mut();
    let mut found = PAGE.load(Ordering::Acquire);
    if found.is_null() {
        let made = map_wiped().map_or(none, NonNull::as_ptr);
        match PAGE.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => found = made,
            Err(other) => {
                if made != none {
                    // SAFETY: mapped just now, with this length, and known to nobody else.
                    let _ = unsafe { rustix::mm::munmap(made.cast(), page_len()) };
                }
                found = other;
            }
        }
    }
    // SAFETY: a page that stays mapped for ever, or `NONE`.
    (found != none).then(|| unsafe { &*found })
}

fn page_len() -> usize {
    rustix::param::page_size()
}

fn map_wiped() -> Option<NonNull<AtomicU32>> {
    if cfg!(miri) {
        // An interpreter has no such pages, and no children.
        return None;
    }
    let len = page_len();
    // SAFETY: a new private mapping at a place of the kernel's choice.
    let at = unsafe {
        rustix::mm::mmap_anonymous(
            ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .ok()?;
    // SAFETY: the mapping made above, which holds nothing yet.
    if unsafe { rustix::mm::madvise(at, len, Advice::LinuxWipeOnFork) }.is_err() {
        // SAFETY: as above; nobody knows it.
        let _ = unsafe { rustix::mm::munmap(at, len) };
        return None;
    }
    NonNull::new(at.cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `check` in a fork of this process and returns its answer. `check` may only do what a signal handler may.
    fn in_child(check: impl FnOnce() -> u8) -> i32 {
        // SAFETY: the child only loads and stores atomics, calls getpid, forks likewise, and ends by `_exit`.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
        if child == 0 {
            let answer = check();
            // SAFETY: ends the child without running anything of the test harness.
            unsafe { libc::_exit(i32::from(answer)) };
        }
        let mut status = 0;
        // SAFETY: waits for our own child; `status` is ours.
        let waited = unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(waited, child);
        assert!(libc::WIFEXITED(status), "child ended by a signal");
        libc::WEXITSTATUS(status)
    }

    #[test]
    fn a_child_is_told_from_its_parent_and_guards_made_in_it_are_its_own() {
        let guard = ForkGuard::new();
        assert!(matches!(guard.mark, Mark::Page(..)), "this kernel has MADV_WIPEONFORK");
        assert!(!guard.forked());
        let small = SmallForkGuard::new();
        let answer = in_child(|| {
            let own = ForkGuard::new();
            let grandchild = in_child(|| u8::from(guard.forked()) | u8::from(own.forked()) << 1);
            let small = u8::from(small.forked()) | u8::from(SmallForkGuard::new().forked()) << 1;
            u8::from(guard.forked()) | u8::from(own.forked()) << 1 | (grandchild as u8) << 2 | small << 4
        });
        assert_eq!(answer, 0b01_1101, "parent's guard, own guard, both in a grandchild, and small ones");
        assert!(!small.forked());
        assert!(!guard.forked() && !ForkGuard::new().forked());
    }

    #[test]
    fn without_such_pages_the_process_number_tells() {
        let guard = ForkGuard::by_pid();
        assert!(!guard.forked());
        assert_eq!(in_child(|| u8::from(guard.forked())), 1);
    }

    #[test]
    fn guards_made_by_threads_at_once_agree() {
        let guards: Vec<ForkGuard> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ForkGuard::new)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert!(guards.iter().all(|guard| !guard.forked()));
    }
}
