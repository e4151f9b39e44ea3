//! A wrapper around another table that writes down every call that makes, changes, posts or destroys something, with all its
//! arguments.
//!
//! Called by tests that compare what a safe call passes with what a program in C passes to the same provider. A line is a function's
//! name in C and its arguments in order; structures are written out field by field, objects by kind and order of appearance
//! (`pd#1`), addresses inside registered memory as region and offset (`mr#1+0x10`), so that two processes write the same lines.
//!
//! Not written down: queries, polls, events, and what they answer.

mod argument;
mod functions;
mod tape;

use sinew_verbs_sys as sys;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One recording at a time in a process; a second waits.
static ONE: Mutex<()> = Mutex::new(());

/// What was written down since it began. The library of a recording is used while that is there.
#[derive(Debug)]
pub struct Recording {
    _one: MutexGuard<'static, ()>,
}

impl Recording {
    /// Begins to record calls of a table. Waits for the recording that another thread of this process has.
    #[must_use]
    pub fn start(inner: sys::VerbsTable) -> (sys::Library, Self) {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        (functions::wrapped(inner), Self { _one: one })
    }

    /// The lines so far, which are then forgotten; names of objects stay.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        core::mem::take(&mut tape::lock().lines)
    }
}
