//! How many threads sleep, or are about to: what whoever ends something must look at after it, so that no sleep is missed.
//!
//! Used by the engine beside its lock. The count is changed under that lock and may be read without it: a thread that has ended
//! something under the lock sees every sleeper that had looked before it, and one that looks later sees what was ended. It wakes
//! nobody itself.

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module. `Send` and `Sync`.
#[derive(Debug)]
pub struct Sleepers(AtomicUsize);

impl Default for Sleepers {
    fn default() -> Self {
        Self::new()
    }
}

impl Sleepers {
    /// Nobody sleeps.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// The caller has looked and found nothing, and will sleep. Under the lock.
    #[inline]
    pub fn enter(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The caller is awake again; whether it was the last one. Under the lock.
    #[inline]
    pub fn leave(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Whether somebody must be woken. After what was ended under the lock.
    #[must_use]
    #[inline]
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_to_leave_knows_it() {
        let sleepers = Sleepers::default();
        assert!(!sleepers.any());
        sleepers.enter();
        sleepers.enter();
        assert!(sleepers.any() && !sleepers.leave() && sleepers.any());
        assert!(sleepers.leave() && !sleepers.any());
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
