//! Ends identifiers whose end waits in the kernel, on a thread that may wait.
//!
//! Over iWARP the kernel lets go of an identifier that has asked for a connection only when the peer has answered or the device has given it up (`siw`: 10 s).
//! Who drops one has a deadline, or many others to serve. So such an identifier goes here, and with it what it needs until its end: its channel, and by that the library.
//!
//! One thread for the process, there as long as there is something to end, and joined by nobody: what it waits for ends by itself. It ends one identifier after the other; the timers of
//! those that wait behind it run meanwhile. Where too many wait, or there is no thread to be had, who drops one ends it, and waits. A process that ends meanwhile is kept by the kernel
//! as long as the thread is. A child of a fork has a thread of its own, and leaves to its parent what that has handed over.

use super::base::Dying;
use sinew_base::fork::ForkGuard;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How many may wait to be ended.
const WAITING_MAX: usize = 1024;
/// How long the lock is tried for: much longer than anybody holds it.
const PATIENCE: Duration = Duration::from_millis(100);

struct Reaper {
    /// The process whose thread it is.
    process: Option<ForkGuard>,
    is_running: bool,
    waiting: VecDeque<Dying>,
}

static REAPER: Mutex<Reaper> =
    Mutex::new(Reaper { process: None, is_running: false, waiting: VecDeque::new() });

fn lock() -> MutexGuard<'static, Reaper> {
    REAPER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same; nothing where it cannot be had for a while. It is held for moments, but in the child of a process that forked in such a moment for ever.
fn lock_soon() -> Option<MutexGuard<'static, Reaper>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match REAPER.try_lock() {
            Ok(reaper) => return Some(reaper),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::yield_now(),
            Err(TryLockError::WouldBlock) => return None,
        }
    }
}

/// Ends it later.
///
/// # Errors
/// Itself, where the caller is to end it.
pub(super) fn hand_over(dying: Dying) -> Result<(), Dying> {
    let Some(mut reaper) = lock_soon() else { return Err(dying) };
    if reaper.process.is_none_or(|process| process.forked()) {
        // What waits there is the parent's.
        std::mem::forget(std::mem::take(&mut reaper.waiting));
        (reaper.process, reaper.is_running) = (Some(ForkGuard::new()), false);
    }
    if reaper.waiting.len() >= WAITING_MAX {
        return Err(dying);
    }
    if !reaper.is_running {
        let thread = std::thread::Builder::new().name("sinew-cm-reaper".to_owned());
        if let Err(error) = thread.spawn(run) {
            // A subscriber is the user's, and may drop identifiers too.
            drop(reaper);
            tracing::debug!(%error, "no thread to end an identifier");
            return Err(dying);
        }
        reaper.is_running = true;
    }
    reaper.waiting.push_back(dying);
    Ok(())
}

/// Ends them one by one, until none waits. The first one is there when the lock can be had.
fn run() {
    loop {
        let mut reaper = lock();
        let Some(dying) = reaper.waiting.pop_front() else {
            reaper.is_running = false;
            return;
        };
        drop(reaper);
        // A subscriber's panic, when it is told of a refusal, is no reason to leave the others.
        let _ = catch_unwind(AssertUnwindSafe(|| dying.end()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_nobody_gives_back_is_not_waited_for_for_ever() {
        let held = lock();
        let other = std::thread::spawn(|| lock_soon().is_some());
        assert!(!other.join().unwrap());
        drop(held);
        assert!(lock_soon().is_some());
    }
}
