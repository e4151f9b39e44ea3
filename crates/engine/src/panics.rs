//! What is left of a panic of the application: its payload is the application's too, and its drop may panic again.
//!
//! Called wherever the engine runs code of the application and goes on after a panic in it. It must not unwind.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code of the application. `false`: it panicked, and nothing is left of that.
pub(crate) fn survives(f: impl FnOnce()) -> bool {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => true,
        Err(payload) => {
            discard(payload);
            false
        }
    }
}

/// Keeps the first panic of several.
pub(crate) fn keep(first: &mut std::thread::Result<()>, next: std::thread::Result<()>) {
    match (next, &first) {
        (Err(panic), Ok(())) => *first = Err(panic),
        (Err(second), Err(_)) => discard(second),
        (Ok(()), _) => {}
    }
}

/// Drops what a panic carried. What a panic of that drop carries is leaked.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}
