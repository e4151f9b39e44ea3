//! All interleavings of small cases. Run with `RUSTFLAGS="--cfg loom" cargo test -p sinew-base --release loom`.

use super::*;
use loom::cell::UnsafeCell as Checked;
use loom::thread;

/// A counter whose accesses loom checks for races: two at once, or one without an edge from the last, fails the model.
struct Account(Checked<u32>);

fn step(lock: &BiasedLock<Account>) {
    let guard = lock.lock();
    // SAFETY: loom checks that nothing else accesses the cell.
    guard.0.with_mut(|value| unsafe { *value += 1 });
}

fn total(lock: &BiasedLock<Account>) -> u32 {
    let guard = lock.lock();
    // SAFETY: as above.
    guard.0.with(|value| unsafe { *value })
}

fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

fn lock() -> loom::sync::Arc<BiasedLock<Account>> {
    loom::sync::Arc::new(BiasedLock::with_streak(Account(Checked::new(0)), 1))
}

#[test]
fn loom_owner_against_revoker() {
    model(3, || {
        let lock = lock();
        step(&lock);
        assert!(lock.is_biased_to_me());
        let other = lock.clone();
        let revoker = thread::spawn(move || step(&other));
        step(&lock);
        revoker.join().unwrap();
        assert_eq!(total(&lock), 3);
    });
}

#[test]
fn loom_the_bias_moves_while_the_old_owner_is_late() {
    model(3, || {
        let lock = lock();
        lock.mutex.lock().unwrap().streak_wanted = 0;
        step(&lock);
        assert!(lock.is_biased_to_me());
        let other = lock.clone();
        let taker = thread::spawn(move || {
            // The first takes the bias away and, asked for no streak, over; the second enters by it.
            step(&other);
            step(&other);
        });
        step(&lock);
        taker.join().unwrap();
        assert_eq!(total(&lock), 4);
    });
}

#[test]
fn loom_three_threads() {
    model(2, || {
        let lock = lock();
        step(&lock);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let other = lock.clone();
                thread::spawn(move || step(&other))
            })
            .collect();
        step(&lock);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(total(&lock), 4);
    });
}

#[test]
fn loom_try_lock_never_enters_beside_the_owner() {
    model(3, || {
        let lock = lock();
        step(&lock);
        let other = lock.clone();
        let tried = thread::spawn(move || {
            let Some(guard) = other.try_lock() else {
                return 0;
            };
            // SAFETY: loom checks that nothing else accesses the cell.
            guard.0.with_mut(|value| unsafe { *value += 1 });
            1
        });
        step(&lock);
        let tried = tried.join().unwrap();
        assert_eq!(total(&lock), 2 + tried);
    });
}

#[test]
fn loom_the_short_way_in_against_a_revoker() {
    model(3, || {
        let lock = lock();
        step(&lock);
        assert!(lock.is_biased_to_me());
        let other = lock.clone();
        let revoker = thread::spawn(move || step(&other));
        let mut entered = 0;
        if let Some(guard) = lock.lock_if_biased() {
            // SAFETY: loom checks that nothing else accesses the cell.
            guard.0.with_mut(|value| unsafe { *value += 1 });
            entered = 1;
        }
        revoker.join().unwrap();
        assert_eq!(total(&lock), 2 + entered);
    });
}
