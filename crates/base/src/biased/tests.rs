//! Promises of the lock under real threads.

use super::*;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool as Flag;
use std::time::Instant;

/// Two plain fields that are equal whenever nobody is inside, and a third that tells who is.
#[derive(Default)]
struct Account {
    left: u64,
    right: u64,
    inside: bool,
}

impl Account {
    fn step(&mut self) {
        assert!(!self.inside, "two owners");
        self.inside = true;
        let value = self.left;
        assert_eq!(value, self.right, "half a section is visible");
        self.left = std::hint::black_box(value) + 1;
        std::hint::spin_loop();
        self.right = std::hint::black_box(self.left);
        self.inside = false;
    }
}

fn take_bias<T>(lock: &BiasedLock<T>) {
    for _ in 0..STREAK_MAX {
        drop(lock.lock());
    }
    assert!(lock.is_biased_to_me());
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::yield_now();
    }
}

/// `threads` threads, each in a pattern of its own: long bursts that earn the bias, single steps that revoke it.
fn hammer(threads: u64, steps: u64, pairing: Pairing) {
    let mut lock = BiasedLock::with_streak(Account::default(), 8);
    lock.pairing = pairing;
    let lock = lock;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let lock = &lock;
            scope.spawn(move || {
                let mut done = 0;
                let mut random = thread + 1;
                while done < steps {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(thread);
                    let burst = if random >> 60 == 0 { 300 } else { 1 + (random >> 33) % 20 };
                    for _ in 0..burst.min(steps - done) {
                        if random & 0x10_0000 == 0 {
                            lock.lock().step();
                        } else {
                            wait_until("try_lock succeeds", || {
                                lock.try_lock().map(|mut guard| guard.step()).is_some()
                            });
                        }
                        done += 1;
                    }
                    if random & 0x300_0000 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    let account = lock.lock();
    assert_eq!((account.left, account.right), (threads * steps, threads * steps));
}

#[test]
fn sections_of_two_to_eight_threads_never_overlap_and_none_is_lost() {
    for threads in [2, 3, 4, 8] {
        for pairing in [barrier::pairing(), Pairing::Symmetric] {
            hammer(threads, if cfg!(miri) { 50 } else { 20_000 }, pairing);
        }
    }
}

#[test]
fn an_owner_in_full_swing_is_revoked_and_nothing_is_torn() {
    let lock = BiasedLock::with_streak(Account::default(), 1);
    let stop = Flag::new(false);
    let rounds = if cfg!(miri) { 20 } else { 3_000 };
    let by_owner = std::thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let mut steps = 0;
            while !stop.load(Ordering::Relaxed) {
                lock.lock().step();
                steps += 1;
            }
            steps
        });
        for _ in 0..rounds {
            lock.lock().step();
            std::hint::black_box([0u8; 64]);
        }
        stop.store(true, Ordering::Relaxed);
        owner.join().expect("the owner's checks hold")
    });
    assert_eq!(lock.lock().left, by_owner + rounds);
}

#[test]
fn a_thread_that_locks_in_a_loop_lets_others_in() {
    let lock = BiasedLock::new(0u64);
    let stop = Flag::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut guard = lock.lock();
                    *guard += 1;
                    for _ in 0..200 {
                        std::hint::spin_loop();
                    }
                }
            });
        }
        for _ in 0..50 {
            *lock.lock() += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_bias_comes_with_a_streak_and_goes_with_another_thread() {
    let lock = BiasedLock::new(());
    assert!(!lock.is_biased_to_me());
    for _ in 0..STREAK_FIRST - 1 {
        drop(lock.lock());
        assert!(!lock.is_biased_to_me());
    }
    drop(lock.lock());
    assert!(lock.is_biased_to_me());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(!lock.is_biased_to_me());
            drop(lock.lock());
        });
    });
    assert!(!lock.is_biased_to_me());
    for _ in 0..2 * STREAK_FIRST - 1 {
        drop(lock.lock());
    }
    assert!(!lock.is_biased_to_me(), "a revocation doubles the streak");
    drop(lock.lock());
    assert!(lock.is_biased_to_me());
}

#[test]
fn taking_it_twice_panics_with_bias_and_without_and_the_first_guard_stays_good() {
    let lock = BiasedLock::new(5);
    for biased in [false, true] {
        if biased {
            take_bias(&lock);
        }
        let guard = lock.lock();
        let panic = catch_unwind(AssertUnwindSafe(|| drop(lock.lock()))).expect_err("re-entry");
        let text = panic.downcast_ref::<&str>().copied().unwrap_or_default();
        assert!(text.contains("already holds the lock"), "{text}");
        assert!(lock.try_lock().is_none());
        assert_eq!(*guard, 5);
        drop(guard);
        assert!(lock.try_lock().is_some());
    }
}

#[test]
fn taking_it_twice_panics_also_while_another_thread_revokes_the_bias() {
    let lock = BiasedLock::new(0);
    take_bias(&lock);
    std::thread::scope(|scope| {
        let guard = lock.lock();
        scope.spawn(|| *lock.lock() += 1);
        wait_until("the other thread took the bias away", || !lock.is_biased_to_me());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(lock.lock()))).is_err());
        assert!(lock.try_lock().is_none());
        drop(guard);
        wait_until("the other thread had its turn", || *lock.lock() == 1);
    });
}

#[test]
fn a_panic_inside_releases_the_lock_without_poison() {
    let lock = BiasedLock::new(1);
    for biased in [false, true] {
        if biased {
            take_bias(&lock);
        }
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut guard = lock.lock();
            *guard += 1;
            panic!("inside");
        }));
        assert!(result.is_err());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(*lock.lock() >= 2));
        });
    }
    assert_eq!(*lock.lock(), 3);
}

#[test]
fn a_forgotten_guard_keeps_everybody_out_for_ever() {
    for biased in [false, true] {
        let lock = BiasedLock::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if biased {
                    take_bias(&lock);
                }
                std::mem::forget(lock.lock());
                assert!(catch_unwind(AssertUnwindSafe(|| drop(lock.lock()))).is_err());
            });
        });
        for _ in 0..3 {
            assert!(lock.try_lock().is_none(), "biased: {biased}");
        }
    }
}

#[test]
fn a_thread_that_ended_with_the_bias_delays_nobody() {
    let lock = BiasedLock::with_streak(0, 4);
    for round in 0..200 {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                while !lock.is_biased_to_me() {
                    *lock.lock() += 1;
                    lock.mutex.lock().expect("never poisoned").streak_wanted = 4;
                }
            });
            // The end of the scope does not wait for the end of the thread.
            thread.join().expect("no panic");
        });
        assert!(*lock.lock() >= round);
    }
    let slots = lock.mutex.lock().expect("never poisoned").slots.len();
    assert!(slots <= 2, "slots of ended threads are used again, {slots} exist");
}

#[test]
fn living_threads_never_share_a_slot() {
    let lock = BiasedLock::with_streak(0, 1);
    let (turn, others) = (std::sync::Mutex::new(()), std::sync::Barrier::new(3));
    let one_by_one = || {
        let _turn = turn.lock().expect("never poisoned");
        take_bias(&lock);
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                one_by_one();
                // Alive until all have had it.
                others.wait();
                one_by_one();
            });
        }
    });
    assert_eq!(lock.mutex.lock().expect("never poisoned").slots.len(), 3);
}

#[test]
fn a_try_while_the_favourite_is_inside_leaves_it_the_bias() {
    let lock = BiasedLock::new(0);
    take_bias(&lock);
    let guard = lock.lock();
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(lock.try_lock().is_none()));
    });
    assert!(lock.is_biased_to_me());
    drop(guard);
}

#[test]
fn two_locks_of_one_thread_know_nothing_of_each_other() {
    let (first, second) = (BiasedLock::new(1), BiasedLock::new(2));
    take_bias(&first);
    take_bias(&second);
    let outer = first.lock();
    let inner = second.lock();
    assert_eq!(*outer + *inner, 3);
    drop(outer);
    assert!(first.try_lock().is_some() && second.try_lock().is_none());
}

#[test]
fn a_waiter_is_announced_to_the_holder() {
    let lock = BiasedLock::new(());
    take_bias(&lock);
    assert!(!lock.contended());
    std::thread::scope(|scope| {
        let guard = lock.lock();
        scope.spawn(|| drop(lock.lock()));
        wait_until("the waiter shows", || lock.contended());
        drop(guard);
        wait_until("the waiter is gone", || !lock.contended());
    });
}

#[test]
fn the_lock_is_send_and_sync_though_its_content_is_only_send() {
    fn send_sync<T: Send + Sync>() {}
    send_sync::<BiasedLock<Cell<u8>>>();
}

/// Prints nanoseconds per lock and unlock: `cargo test -p sinew-base --release cost_of -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_lock_and_unlock() {
    const ROUNDS: u32 = 20_000_000;
    fn time(name: &str, mut body: impl FnMut()) {
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            for _ in 0..ROUNDS {
                body();
            }
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
        }
        println!("{name:24} {best:6.2} ns");
    }
    let biased = BiasedLock::new(0u64);
    take_bias(&biased);
    println!("{:?}", barrier::pairing());
    time("empty loop", || {
        std::hint::black_box(0);
    });
    time("biased", || *std::hint::black_box(&biased).lock() += 1);
    let plain = BiasedLock::with_streak(0u64, u32::MAX);
    time("mutex inside", || *std::hint::black_box(&plain).lock() += 1);
    let std_mutex = std::sync::Mutex::new(0u64);
    time("std::sync::Mutex", || *std::hint::black_box(&std_mutex).lock().expect("unpoisoned") += 1);
    let shared = BiasedLock::new(0u64);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..1_000_000 {
                    *shared.lock() += 1;
                }
            });
        }
    });
    println!("{:24} {:6.2} ns", "two threads, each", start.elapsed().as_nanos() as f64 / 2e6);
    time("heavy barrier / 1000", {
        let mut count = 0u32;
        move || {
            count += 1;
            if count.is_multiple_of(1000) {
                barrier::heavy(barrier::pairing()).expect("registered");
            }
        }
    });
}
