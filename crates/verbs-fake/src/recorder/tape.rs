//! What a recording keeps: lines, names of objects, regions, the functions behind those that record.

#![allow(unsafe_code)]

use core::fmt::Write as _;
use sinew_verbs_sys as sys;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The functions of an opened device, as they were before they recorded.
#[derive(Clone, Copy)]
pub(super) struct Opened {
    pub(super) ops: sys::ibv_context_ops,
    /// Zero where the context has no extended functions.
    pub(super) whole: sys::verbs_context,
}

/// Those of an object: an extended queue pair, an extended completion queue, device memory.
#[derive(Clone, Copy)]
pub(super) enum Own {
    Posting(sys::ibv_qp_ex),
    Polling(sys::ibv_cq_ex),
    Memory(sys::ibv_dm),
}

// SAFETY: functions may be called from any thread, and the places that the library keeps for itself are not followed.
unsafe impl Send for Opened {}
// SAFETY: only its functions are used.
unsafe impl Send for Own {}

#[derive(Default)]
pub(super) struct Tape {
    pub(super) inner: Option<sys::VerbsTable>,
    pub(super) efa: Option<sys::EfaTable>,
    pub(super) lines: Vec<String>,
    names: BTreeMap<usize, (&'static str, usize)>,
    counts: BTreeMap<&'static str, usize>,
    /// Start, length, number.
    regions: Vec<(u64, u64, usize)>,
    /// Start, length, name.
    memory: Vec<(u64, u64, &'static str)>,
    /// By the address of the context, and of the object.
    pub(super) opened: BTreeMap<usize, Opened>,
    pub(super) own: BTreeMap<usize, Own>,
}

/// Shared by all functions that record.
static TAPE: Mutex<Option<Box<Tape>>> = Mutex::new(None);

/// Access to the tape.
pub(super) struct Locked(MutexGuard<'static, Option<Box<Tape>>>);

pub(super) fn lock() -> Locked {
    let mut guard = TAPE.lock().unwrap_or_else(PoisonError::into_inner);
    guard.get_or_insert_default();
    Locked(guard)
}

/// An empty tape for other tables.
pub(super) fn begin(inner: sys::VerbsTable, efa: Option<sys::EfaTable>) {
    *lock() = Tape { inner: Some(inner), efa, ..Tape::default() };
}

impl core::ops::Deref for Locked {
    type Target = Tape;

    fn deref(&self) -> &Tape {
        self.0.as_deref().expect("it was put there when it was locked")
    }
}

impl core::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Tape {
        self.0.as_deref_mut().expect("it was put there when it was locked")
    }
}

impl Tape {
    /// Writes an object's name; the first time that it is seen it gets one.
    pub(super) fn object(&mut self, kind: &'static str, addr: usize, out: &mut String) {
        if addr == 0 {
            out.push_str("null");
            return;
        }
        let (kind, number) = match self.names.get(&addr) {
            Some(known) if known.0 == kind => *known,
            _ => {
                let count = self.counts.entry(kind).or_default();
                *count += 1;
                self.names.insert(addr, (kind, *count));
                (kind, *count)
            }
        };
        let _ = write!(out, "{kind}#{number}");
    }

    /// The name that an object has.
    pub(super) fn known(&self, addr: usize) -> Option<(&'static str, usize)> {
        self.names.get(&addr).copied()
    }

    /// Memory has a name from now on.
    pub(super) fn name(&mut self, name: &'static str, start: u64, len: u64) {
        self.memory.push((start, len, name));
    }

    /// Writes an address of memory that has a name. `false`: it has none.
    pub(super) fn named(&self, addr: u64, out: &mut String) -> bool {
        let inside = |(start, len, _): &&(u64, u64, _)| addr >= *start && addr - start < *len;
        let Some((start, _, name)) = self.memory.iter().find(inside) else { return false };
        write!(out, "{name}+{:#x}", addr - start).is_ok()
    }

    /// Writes a number; an address of memory that has a name by that, of other registered memory by its region.
    pub(super) fn address(&self, addr: u64, out: &mut String) {
        if self.named(addr, out) {
            return;
        }
        let inside = |(start, len, _): &&(u64, u64, usize)| addr >= *start && addr - start < *len;
        let _ = match self.regions.iter().rev().find(inside) {
            Some((start, _, number)) => write!(out, "mr#{number}+{:#x}", addr - start),
            None => write!(out, "{addr:#x}"),
        };
    }

    /// A region is there from now on.
    pub(super) fn region(&mut self, object: usize, start: u64, len: u64) {
        let mut name = String::new();
        self.object("mr", object, &mut name);
        let number = self.counts.get("mr").copied().unwrap_or(0);
        self.regions.push((start, len, number));
    }
}
