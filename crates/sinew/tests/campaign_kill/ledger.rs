//! What a process holds: descriptors, threads, mappings, files, and bytes of its heap, counted before and after a fault.
//!
//! Used by survivors. The allocator of this test program counts and does nothing else.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(data, layout) }
    }

    unsafe fn realloc(&self, data: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        LIVE.fetch_add(len as i64 - layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(data, layout, len) }
    }
}

/// Bytes of the heap in use.
pub(crate) fn heap() -> i64 {
    LIVE.load(Ordering::Relaxed)
}

/// What this process holds beside its heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ledger {
    descriptors: usize,
    threads: usize,
    /// Mappings of memory files: rings, windows, segments.
    shared: usize,
    /// Files in `/dev/shm` with our name: others work there too.
    named: usize,
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

impl Ledger {
    pub(crate) fn take() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            shared: maps.lines().filter(|line| line.contains("memfd:sinew")).count(),
            named: names("/dev/shm").iter().filter(|name| name.contains("sinew")).count(),
        }
    }

    /// Waits until this process holds no more than this.
    pub(crate) fn expect(&self, after: &str) {
        let leaked = |now: &Self| {
            now.descriptors > self.descriptors
                || now.threads > self.threads
                || now.shared > self.shared
                || now.named > self.named
        };
        crate::rounds::until(
            || !leaked(&Self::take()),
            || format!("leaked after {after}: {self:?} before, {:?} now; {}", Self::take(), held()),
        );
    }
}

/// Descriptors by what they are, for the report of a leak.
fn held() -> String {
    let links = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.map(|link| link.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Names in the folder of sockets.
pub(crate) fn sockets(folder: &Path) -> Vec<String> {
    let mut names = names(folder);
    names.retain(|name| name.contains('.'));
    names.sort();
    names
}
