//! A lock that is nearly free for the thread that uses it all the time: [`BiasedLock`].
//!
//! Used by the engine for its core. It knows nothing of what it protects, never runs code of the caller, and never
//! allocates but when it changes its favourite thread.
//!
//! # How it works
//! A thread that has taken the lock [`STREAK_FIRST`] times in a row gets the *bias*: a `Slot` of its own, to which `bias`
//! points. From then on it locks by storing `busy = true` into its slot and looking whether `bias` still points there, and
//! unlocks by storing `busy = false`: no read-modify-write, no fence. Everybody else takes the mutex, sets `bias` to null,
//! executes the heavy barrier and waits until the slot is no longer busy.
//!
//! # Why it is right
//! * *Exclusion.* The owner stores `busy`, then loads `bias`; the revoker stores `bias`, then loads `busy`; the asymmetric
//!   barrier lies between on both sides. So either the owner sees that it lost the bias and backs out, or the revoker sees
//!   `busy` and waits.
//! * *A late owner.* A thread may sleep between its two loads of `bias` while the bias goes to somebody else. What it
//!   then stores goes into its own slot, which nobody else uses; that is why `busy` is not a field of the lock. A slot
//!   changes hands only when its thread is gone.
//! * *Owner → revoker.* `busy = false` is stored with Release and loaded with Acquire.
//! * *Mutex holder → owner.* The bias is given by the new owner itself while it holds the mutex, so it has seen everything
//!   before; from then until revocation nobody else enters. Its own earlier sections are its own program order.
//! * *Slots.* They are freed with the lock, so a pointer read from `bias` is good while the lock is borrowed; Release on
//!   storing it and Acquire on loading it make the slot's content visible.
//!
//! # Panics, `forget`, exits
//! A panic inside a section releases the lock; there is no poisoning. A forgotten guard keeps the lock for ever: others
//! wait, [`BiasedLock::try_lock`] answers `None`. A thread that ends outside a section needs no notice.
#![allow(unsafe_code)]

mod guard;
mod thread;

use crate::barrier::{self, Pairing};
use guard::Hold;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;
use sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Mutex, MutexGuard, Ordering};
use thread::{Alive, me, me_biased, me_biased_registered, my_alive};

#[cfg(not(loom))]
mod sync {
    pub(super) use std::hint::spin_loop as relax;
    pub(super) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
    pub(super) use std::sync::{Mutex, MutexGuard};
    pub(super) use std::thread::yield_now;
}
#[cfg(loom)]
mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};
    pub(super) use loom::thread::{yield_now, yield_now as relax};
}

pub use guard::{BiasedGuard, Guard};

/// So many times in a row a thread takes the lock before it gets the bias for the first time. Each revocation, which
/// costs about as much as 200 uncontended uses of a mutex, doubles the number, up to [`STREAK_MAX`].
pub const STREAK_FIRST: u32 = 32;
/// Longest streak that is asked for.
pub const STREAK_MAX: u32 = 4096;
/// So many times in a row a thread may take the mutex while others wait; then it waits until one of them had it.
pub const TURNS_MAX: u32 = 16;
/// So many living threads may have had the bias; further ones use the mutex.
const SLOTS_MAX: usize = 64;

/// A mutual-exclusion lock biased towards one thread. `Send` and `Sync` when `T` is `Send`; dropping it drops `T`.
///
/// Locking costs the favoured thread a few plain loads and stores, everybody else a mutex, and the first other thread in
/// between a revocation. Not fair, but nobody starves: see [`TURNS_MAX`]. Taking it twice from one thread panics.
pub struct BiasedLock<T> {
    /// Slot of the favoured thread, or null. Changed only by a holder of the mutex.
    bias: AtomicPtr<Slot>,
    pairing: Pairing,
    /// Threads inside `lock` that do not have it yet.
    waiters: AtomicUsize,
    /// A slot that lost the bias and that nobody has seen idle since.
    draining: AtomicPtr<Slot>,
    /// Thread that holds the mutex as its way of holding the lock, or 0.
    holder: AtomicUsize,
    /// Thread that took the mutex last, and how often in a row.
    last: AtomicUsize,
    streak: AtomicU32,
    mutex: Mutex<Inner>,
    data: UnsafeCell<T>,
}

// SAFETY: a guard gives access to `T` to one thread at a time (module text), with all that earlier ones did visible.
unsafe impl<T: Send> Sync for BiasedLock<T> {}
// SAFETY: the raw pointers lead to slots that the lock owns; they are `Sync` and are freed with it.
unsafe impl<T: Send> Send for BiasedLock<T> {}

/// What a thread that has had the bias writes to. On its own cache line: only its owner writes it while biased.
#[repr(align(64))]
struct Slot {
    busy: AtomicBool,
    /// The thread, by its number.
    owner: AtomicUsize,
}

struct Inner {
    slots: Vec<(NonNull<Slot>, Arc<Alive>)>,
    streak_wanted: u32,
    /// `bias` was taken away and the heavy barrier that must follow has not succeeded yet.
    barrier_due: bool,
}

impl<T> BiasedLock<T> {
    /// A lock that is free and biased to nobody.
    #[must_use]
    pub fn new(data: T) -> Self {
        Self::with_streak(data, STREAK_FIRST)
    }

    fn with_streak(data: T, streak_wanted: u32) -> Self {
        Self {
            bias: AtomicPtr::new(ptr::null_mut()),
            pairing: barrier::pairing(),
            waiters: AtomicUsize::new(0),
            draining: AtomicPtr::new(ptr::null_mut()),
            holder: AtomicUsize::new(0),
            last: AtomicUsize::new(0),
            streak: AtomicU32::new(0),
            mutex: Mutex::new(Inner { slots: Vec::new(), streak_wanted, barrier_due: false }),
            data: UnsafeCell::new(data),
        }
    }

    /// Takes the lock, waiting as long as it is held.
    ///
    /// # Panics
    /// When this thread holds it already, and when the kernel refuses `membarrier` (2) after having granted it (a
    /// system-call filter installed after the lock was made must allow it); the lock is not taken then.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        match self.enter_biased() {
            Ok(slot) => self.guard(Hold::Biased(slot)),
            Err(Missed::Reentry) => reentered(),
            Err(Missed::NotBiased) => self.lock_slow(),
        }
    }

    /// Takes the lock if this thread has the bias, for the few loads and stores that this costs; `None` otherwise, at once.
    ///
    /// # Panics
    /// When this thread holds it already.
    #[inline(always)]
    pub fn lock_if_biased(&self) -> Option<BiasedGuard<'_, T>> {
        match self.enter_biased() {
            Ok(slot) => Some(BiasedGuard { lock: self, slot, _stays: PhantomData }),
            Err(Missed::Reentry) => reentered(),
            Err(Missed::NotBiased) => None,
        }
    }

    /// Takes the lock if it is free; `None` when anybody holds it, this thread included. Never waits, but may take the bias
    /// from another thread, which costs some microseconds.
    ///
    /// # Panics
    /// As [`BiasedLock::lock`] when `membarrier` is lost.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        match self.enter_biased() {
            Ok(slot) => Some(self.guard(Hold::Biased(slot))),
            Err(Missed::Reentry) => None,
            Err(Missed::NotBiased) => self.try_lock_slow(),
        }
    }

    /// Whether this thread has the bias now. It may lose it at any time.
    #[must_use]
    #[inline]
    pub fn is_biased_to_me(&self) -> bool {
        self.my_slot().is_some()
    }

    /// Whether somebody waits for the lock now. A thread that locks in a loop, or holds it long, may step aside then.
    #[must_use]
    #[inline]
    pub fn contended(&self) -> bool {
        self.waiters.load(Ordering::Relaxed) > 0
    }

    /// The content, as nobody else can have a reference.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    #[inline]
    fn guard<'a>(&'a self, hold: Hold<'a>) -> Guard<'a, T> {
        Guard { lock: self, hold, _stays: PhantomData }
    }

    /// This thread's slot while it has the bias.
    #[inline(always)]
    fn my_slot(&self) -> Option<&Slot> {
        // SAFETY: null, or a slot that is freed with the lock, which `self` borrows.
        let slot = unsafe { self.bias.load(Ordering::Acquire).as_ref() }?;
        (slot.owner.load(Ordering::Relaxed) == me_biased()).then_some(slot)
    }

    #[inline(always)]
    fn enter_biased(&self) -> Result<&Slot, Missed> {
        let Some(slot) = self.my_slot() else {
            return Err(Missed::NotBiased);
        };
        if slot.busy.load(Ordering::Relaxed) {
            return Err(Missed::Reentry);
        }
        slot.busy.store(true, Ordering::Relaxed);
        barrier::light(self.pairing);
        if ptr::eq(self.bias.load(Ordering::Relaxed), slot) {
            return Ok(slot);
        }
        slot.busy.store(false, Ordering::Release);
        Err(Missed::NotBiased)
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self) -> Guard<'_, T> {
        let me = me();
        self.refuse_reentry(me);
        self.give_way(me);
        let mut waiting = None;
        let mut inner = match self.try_mutex() {
            Some(inner) => inner,
            None => {
                waiting = Some(Waiting::new(&self.waiters));
                self.mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
            }
        };
        self.revoke(&mut inner);
        let mut round = 0;
        while !self.is_drained() {
            waiting.get_or_insert_with(|| Waiting::new(&self.waiters));
            pause(&mut round);
        }
        drop(waiting);
        self.settle(inner, me)
    }

    #[cold]
    #[inline(never)]
    fn try_lock_slow(&self) -> Option<Guard<'_, T>> {
        let me = me();
        let mut inner = self.try_mutex()?;
        // SAFETY: null, or a slot that is freed with the lock.
        let favoured = unsafe { self.bias.load(Ordering::Acquire).as_ref() };
        if favoured.is_some_and(|slot| slot.busy.load(Ordering::Relaxed)) {
            return None;
        }
        self.revoke(&mut inner);
        self.is_drained().then(|| self.settle(inner, me))
    }

    fn try_mutex(&self) -> Option<MutexGuard<'_, Inner>> {
        match self.mutex.try_lock() {
            Ok(inner) => Some(inner),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// Takes the bias away from whoever has it.
    fn revoke(&self, inner: &mut Inner) {
        let slot = self.bias.load(Ordering::Relaxed);
        if !slot.is_null() {
            // Before `bias`, so that an owner that finds its bias gone finds here that it is still inside.
            self.draining.store(slot, Ordering::Relaxed);
            inner.barrier_due = true;
            inner.streak_wanted = inner.streak_wanted.saturating_mul(2).min(STREAK_MAX);
            self.last.store(0, Ordering::Relaxed);
            self.bias.store(ptr::null_mut(), Ordering::Release);
        }
        if inner.barrier_due {
            assert!(
                barrier::heavy(self.pairing).is_ok(),
                "the kernel refuses membarrier now and allowed it before: let the system-call filter pass it"
            );
            inner.barrier_due = false;
        }
    }

    /// Whether the former favourite is outside. Called with the mutex held and the barrier done.
    fn is_drained(&self) -> bool {
        // SAFETY: null, or a slot that is freed with the lock.
        let Some(slot) = (unsafe { self.draining.load(Ordering::Relaxed).as_ref() }) else {
            return true;
        };
        if slot.busy.load(Ordering::Acquire) {
            return false;
        }
        self.draining.store(ptr::null_mut(), Ordering::Relaxed);
        true
    }

    fn refuse_reentry(&self, me: usize) {
        if self.holder.load(Ordering::Relaxed) == me {
            reentered();
        }
        // SAFETY: null, or a slot that is freed with the lock. A thread that is inside with its bias taken away finds its own
        // slot here: it is stored before `bias` is cleared, and cleared only after the thread has left.
        if let Some(slot) = unsafe { self.draining.load(Ordering::Acquire).as_ref() }
            && slot.owner.load(Ordering::Relaxed) == me
            && slot.busy.load(Ordering::Relaxed)
        {
            reentered();
        }
    }

    /// Waits until another thread had its turn, when this one had [`TURNS_MAX`] in a row and somebody waits. Gives up after some
    /// milliseconds: the waiter may be stopped by a debugger.
    fn give_way(&self, me: usize) {
        let mut round = 0;
        while self.last.load(Ordering::Relaxed) == me
            && self.streak.load(Ordering::Relaxed) >= TURNS_MAX
            && self.waiters.load(Ordering::Relaxed) > 0
            && round < PATIENCE
        {
            pause(&mut round);
        }
        if round >= PATIENCE {
            self.streak.store(0, Ordering::Relaxed);
        }
    }

    /// This thread has the mutex and is alone: counts its streak, and turns the mutex into the bias when it is long enough.
    fn settle<'a>(&'a self, mut inner: MutexGuard<'a, Inner>, me: usize) -> Guard<'a, T> {
        let streak = if self.last.load(Ordering::Relaxed) == me {
            self.streak.load(Ordering::Relaxed).saturating_add(1)
        } else {
            self.last.store(me, Ordering::Relaxed);
            1
        };
        self.streak.store(streak, Ordering::Relaxed);
        if streak >= inner.streak_wanted
            && self.waiters.load(Ordering::Relaxed) == 0
            && let Some(slot) = inner.slot_for_this_thread()
        {
            // SAFETY: slots are freed with the lock, which outlives `'a`.
            let slot: &'a Slot = unsafe { slot.as_ref() };
            // Busy from the start: whoever takes the mutex next finds this thread inside.
            slot.busy.store(true, Ordering::Relaxed);
            self.bias.store(ptr::from_ref(slot).cast_mut(), Ordering::Release);
            drop(inner);
            return self.guard(Hold::Biased(slot));
        }
        self.holder.store(me, Ordering::Relaxed);
        self.guard(Hold::Mutex(Some(inner)))
    }
}

impl<T> Drop for BiasedLock<T> {
    fn drop(&mut self) {
        #[cfg(not(loom))]
        let inner = self.mutex.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        #[cfg(loom)]
        let mut inner = self.mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (slot, _) in inner.slots.drain(..) {
            // SAFETY: made by `Box::leak` in `slot_for_this_thread`, freed here only; nobody borrows the lock.
            drop(unsafe { Box::from_raw(slot.as_ptr()) });
        }
    }
}

impl<T: Default> Default for BiasedLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> std::fmt::Debug for BiasedLock<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BiasedLock")
            .field("biased", &!self.bias.load(Ordering::Relaxed).is_null())
            .field("waiters", &self.waiters.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// This thread's slot, idle: its own, one of a thread that is gone, or a new one. `None` when there are too many, or
    /// when this thread is ending.
    fn slot_for_this_thread(&mut self) -> Option<NonNull<Slot>> {
        let me = me_biased_registered()?;
        let mut of_the_gone = None;
        for (at, (slot, alive)) in self.slots.iter().enumerate() {
            // SAFETY: slots live as long as the lock that owns `self`.
            let slot_ref = unsafe { slot.as_ref() };
            if slot_ref.owner.load(Ordering::Relaxed) == me {
                return Some(*slot);
            }
            // Acquire: what the thread did with its slot lies before its end. A slot that a forgotten guard keeps busy stays.
            if !alive.load(std::sync::atomic::Ordering::Acquire) && !slot_ref.busy.load(Ordering::Acquire) {
                of_the_gone = Some(at);
            }
        }
        if let Some(at) = of_the_gone {
            let (slot, alive) = &mut self.slots[at];
            *alive = my_alive()?;
            // SAFETY: as above.
            unsafe { slot.as_ref() }.owner.store(me, Ordering::Relaxed);
            return Some(*slot);
        }
        if self.slots.len() == SLOTS_MAX {
            return None;
        }
        let alive = my_alive()?;
        let slot = Box::new(Slot { busy: AtomicBool::new(false), owner: AtomicUsize::new(me) });
        let slot = NonNull::from(Box::leak(slot));
        self.slots.push((slot, alive));
        Some(slot)
    }
}

enum Missed {
    NotBiased,
    Reentry,
}

#[cold]
#[inline(never)]
fn reentered() -> ! {
    panic!("this thread already holds the lock: a call came back into what it was made from");
}

/// Counts a waiter for as long as it lives, also when its wait ends by a panic.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Rounds of [`pause`] after which [`BiasedLock`] no longer gives way: about 10 ms.
const PATIENCE: u32 = if cfg!(loom) { 2 } else { 400 };

/// One step of waiting for another thread: first in place, then to the scheduler, then asleep for 50 µs, so that a thread of
/// lower priority gets a processor.
fn pause(round: &mut u32) {
    *round += 1;
    match *round {
        1..=100 => sync::relax(),
        101..=200 => sync::yield_now(),
        _ if cfg!(loom) => sync::yield_now(),
        _ => std::thread::sleep(Duration::from_micros(50)),
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
