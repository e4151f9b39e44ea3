//! The rights to use what the lock protects, and how they end.

use super::sync::{MutexGuard, Ordering};
use super::{BiasedLock, Inner, Slot};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// The right to use what the lock protects, until dropped. Stays on its thread:
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// let lock = sinew_base::biased::BiasedLock::new(1);
/// send(lock.lock());
/// ```
#[must_use = "the lock is released at once"]
pub struct Guard<'a, T> {
    pub(super) lock: &'a BiasedLock<T>,
    pub(super) hold: Hold<'a>,
    pub(super) _stays: PhantomData<*const ()>,
}

/// [`Guard`] of the thread that has the bias: ends by one store. Stays on its thread.
#[must_use = "the lock is released at once"]
pub struct BiasedGuard<'a, T> {
    pub(super) lock: &'a BiasedLock<T>,
    pub(super) slot: &'a Slot,
    pub(super) _stays: PhantomData<*const ()>,
}

pub(super) enum Hold<'a> {
    Biased(&'a Slot),
    Mutex(Option<MutexGuard<'a, Inner>>),
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while a guard exists its thread is alone inside (module text).
        unsafe { &*self.lock.data.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and one thread has at most one guard of a lock: re-entry is refused.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T> Deref for BiasedGuard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: as for `Guard`.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T> DerefMut for BiasedGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `Guard`.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T> Drop for BiasedGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.slot.busy.store(false, Ordering::Release);
    }
}

impl<T> Guard<'_, T> {
    #[cold]
    #[inline(never)]
    fn release_mutex(&mut self) {
        if let Hold::Mutex(inner) = &mut self.hold {
            self.lock.holder.store(0, Ordering::Relaxed);
            drop(inner.take());
        }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Hold::Biased(slot) = &self.hold {
            slot.busy.store(false, Ordering::Release);
        } else {
            self.release_mutex();
        }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}
