//! A wrapper around other tables that writes down every call with all its arguments.
//!
//! Called by tests that compare what a safe call passes with what a program in C passes to the same provider. A line is a function's
//! name in C and its arguments in order; structures are written out field by field, objects by kind and order of appearance
//! (`pd#1`), addresses by a name that the test gave to its memory and the offset in it (`buffer+0x10`), or by region (`mr#1+0x10`),
//! so that two processes write the same lines.
//!
//! Not written down: what functions answer, the bytes between fields, members of unions that an operation does not name, and pure
//! functions (texts and rates).

mod answer;
mod argument;
mod context;
mod functions;
mod memory;
mod polling;
mod posting;
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
        Self::start_with(inner, None)
    }

    /// The same with the functions of libefa.
    #[must_use]
    pub fn start_with(inner: sys::VerbsTable, efa: Option<sys::EfaTable>) -> (sys::Library, Self) {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        (functions::wrapped(inner, efa), Self { _one: one })
    }

    /// Gives memory a name, under which its addresses are written from now on.
    pub fn name<T>(&self, name: &'static str, memory: core::ops::Range<*const T>) {
        let (start, end) = (memory.start.addr() as u64, memory.end.addr() as u64);
        tape::lock().name(name, start, end.saturating_sub(start));
    }

    /// The lines so far, which are then forgotten; names of objects stay.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        core::mem::take(&mut tape::lock().lines)
    }
}
