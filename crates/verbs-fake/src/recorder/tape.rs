//! What a recording keeps: lines, names of objects, regions, the functions behind those that record.

use core::fmt::Write as _;
use sinew_verbs_sys as sys;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The functions of an opened device that are recorded.
#[derive(Clone, Copy)]
pub(super) struct Opened {
    pub(super) ops: sys::ibv_context_ops,
    pub(super) create_cq_ex: Option<
        unsafe extern "C" fn(*mut sys::ibv_context, *mut sys::ibv_cq_init_attr_ex) -> *mut sys::ibv_cq_ex,
    >,
    pub(super) create_qp_ex: Option<
        unsafe extern "C" fn(*mut sys::ibv_context, *mut sys::ibv_qp_init_attr_ex) -> *mut sys::ibv_qp,
    >,
}

/// The functions by which an extended queue pair posts.
#[derive(Clone, Copy)]
pub(super) struct Posting(pub(super) sys::ibv_qp_ex);

#[derive(Default)]
pub(super) struct Tape {
    pub(super) inner: Option<sys::VerbsTable>,
    pub(super) lines: Vec<String>,
    names: BTreeMap<usize, (&'static str, usize)>,
    counts: BTreeMap<&'static str, usize>,
    /// Start, length, number.
    regions: Vec<(u64, u64, usize)>,
    /// By the address of the context, and of the queue pair.
    pub(super) opened: BTreeMap<usize, Opened>,
    pub(super) posting: BTreeMap<usize, Posting>,
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

/// An empty tape for another table.
pub(super) fn begin(inner: sys::VerbsTable) {
    *lock() = Tape { inner: Some(inner), ..Tape::default() };
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

    /// Writes a number; an address of registered memory by its region.
    pub(super) fn address(&self, addr: u64, out: &mut String) {
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
