//! Owned, registered bytes: what moves into an operation and comes back with its completion.
#![allow(unsafe_code)]

use super::element::{Gather, Scatter};
use super::pool::Home;
use super::region::Registered;
use crate::error::{Error, Result};
use sinew_verbs_sys as sys;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// A range of registered memory that nobody else has: readable and writable as `[u8]` while no operation has it.
///
/// Made by [`ProtectionDomain::allocate`](crate::ProtectionDomain::allocate), [`adopt`](crate::ProtectionDomain::adopt), a
/// [`BufferPool`](super::BufferPool), or by splitting another. The region stays registered until its last part is dropped.
/// Peers can never reach it. `Send` and `Sync` as a `Box<[u8]>` is; dropping it never blocks, except that the last part tells the device to end the
/// registration. Region and memory hold their domain, and outlive every operation that has the buffer, as that owns it.
///
/// A handle of one word: its place in the region lies apart, so that moving it into an operation and back moves eight bytes. That place is
/// allocated when a buffer is made or split, and not by a pool, which keeps it.
#[doc(alias = "ibv_mr")]
pub struct Buffer(ManuallyDrop<Box<Range>>);

/// A range of a region that nobody else has.
#[derive(Debug)]
pub(super) struct Range {
    /// As requests name it.
    element: sys::ibv_sge,
    /// Its protection domain, by its identity; null for what no element can be: no bytes, which devices take for 2^31, and more than 2^32 - 1. So
    /// that one comparison says that the element may go to the device.
    domain: *const (),
    start: NonNull<u8>,
    len: usize,
    region: Arc<Registered>,
    /// Where it goes when it is dropped; nothing while it is there.
    home: Option<Arc<Home>>,
}

// SAFETY: the range is its owner's alone, as that of a `Box<[u8]>`; the region behind it is a counted handle of any thread.
unsafe impl Send for Range {}
// SAFETY: shared references reach the bytes for reading only.
unsafe impl Sync for Range {}

impl Range {
    /// A range of a region.
    ///
    /// # Safety
    /// It lies in the region, and no other range has any part of it.
    pub(super) unsafe fn new(start: NonNull<u8>, len: usize, region: Arc<Registered>) -> Self {
        let length = u32::try_from(len).ok().filter(|len| *len > 0);
        let domain = if length.is_some() { region.domain() } else { std::ptr::null() };
        let element =
            sys::ibv_sge { addr: start.as_ptr() as u64, length: length.unwrap_or(0), lkey: region.lkey() };
        Self { element, domain, start, len, region, home: None }
    }
}

impl Buffer {
    fn of(range: Range) -> Self {
        Self(ManuallyDrop::new(Box::new(range)))
    }

    /// All of a region of owned, writable memory without remote access that nobody else has a part of.
    pub(crate) fn whole(region: Arc<Registered>) -> Self {
        debug_assert!(region.is_private());
        // SAFETY: all of the region, of which nobody else has a part.
        Self::of(unsafe { Range::new(region.start(), region.len(), region) })
    }

    /// Divides it at `middle`: bytes before it, and from it on. Both stay registered as they are.
    ///
    /// # Errors
    /// [`Error::Invalid`] with a `middle` beyond the end; the buffer is dropped then only if the caller drops the error's
    /// buffer.
    pub fn split_at(mut self, middle: usize) -> std::result::Result<(Self, Self), (Self, Error)> {
        if middle > self.0.len {
            let cause = format!("{middle} is beyond its {} bytes", self.0.len);
            return Err((self, Error::invalid("split of a buffer", cause, "take a place inside")));
        }
        if self.0.home.is_some() {
            return Err((
                self,
                Error::invalid("split of a buffer", "it belongs to a pool", "make a pool of smaller buffers"),
            ));
        }
        let Range { start, len, ref region, .. } = **self.0;
        // SAFETY: `middle` is inside the range or at its end; the two halves share nothing, and the whole is no range any more.
        let (first, rest) = unsafe {
            let first = Range::new(start, middle, region.clone());
            (first, Range::new(start.add(middle), len - middle, region.clone()))
        };
        **self.0 = first;
        Ok((self, Self::of(rest)))
    }

    /// A place of a pool, which comes back there when it is dropped.
    pub(super) fn of_pool(mut range: Box<Range>, home: Arc<Home>) -> Self {
        range.home = Some(home);
        Self(ManuallyDrop::new(range))
    }

    /// The key that the device asks for.
    #[must_use]
    pub fn lkey(&self) -> u32 {
        self.0.element.lkey
    }

    /// The first `len` bytes as what a send or write takes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more bytes than it has, or than an element can name (2^32 - 1).
    pub fn gather(&self, len: usize) -> Result<Gather<'_>> {
        let bytes = self.get(..len).ok_or_else(|| too_long(len, self.0.len))?;
        Gather::new(bytes, &self.0.region)
    }

    /// All of it as what a receive or read fills.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more bytes than an element can name (2^32 - 1).
    pub fn scatter(&mut self) -> Result<Scatter<'_>> {
        // SAFETY: the range is this value's alone, and borrowed for as long as the element.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.len) };
        Scatter::new(bytes, &self.0.region)
    }

    /// Address, length and key of all of it, for a request to a queue pair of the domain of this identity; nothing when it is of another, longer than
    /// an element can be, or empty.
    #[inline]
    pub(crate) fn element_in(&self, domain: *const ()) -> Option<&sys::ibv_sge> {
        if self.0.domain == domain { Some(&self.0.element) } else { None }
    }

    /// The same, whatever its domain; of no bytes where it cannot be an element.
    #[inline]
    pub(crate) fn element(&self) -> &sys::ibv_sge {
        &self.0.element
    }

    /// The same of the first `len` bytes, which it has.
    pub(crate) fn first(&self, len: u32) -> sys::ibv_sge {
        sys::ibv_sge { length: len, ..self.0.element }
    }

    pub(super) fn region(&self) -> &Registered {
        &self.0.region
    }

    /// Whether it was registered in that protection domain.
    #[inline]
    pub(crate) fn is_of(&self, pd: &crate::ProtectionDomain) -> bool {
        self.0.region.is_of(pd)
    }

    /// The memory that it was made of, unregistered, when this is all of it and not of a pool. Nothing, when the device refuses to
    /// forget it: then it is the device's for ever, and counted (`Library::leaked_objects`).
    ///
    /// # Errors
    /// Itself.
    pub fn into_memory(self) -> std::result::Result<Option<super::Memory>, Self> {
        if self.0.home.is_some() || self.0.len != self.0.region.len() {
            return Err(self);
        }
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken once, as `this` is not dropped; it is of no pool, so its drop would do nothing else.
        let range = *unsafe { ManuallyDrop::take(&mut this.0) };
        // SAFETY: the range that it was.
        Registered::into_memory(range.region)
            .map_err(|region| Self::of(unsafe { Range::new(range.start, range.len, region) }))
    }
}

/// The reason when a length exceeds what there is.
pub(super) fn too_long(len: usize, there: usize) -> Error {
    Error::invalid("length", format!("{len} bytes of a buffer of {there}"), "take at most its length")
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        let mut range = unsafe { ManuallyDrop::take(&mut self.0) };
        if let Some(home) = range.home.take() {
            home.back(range);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range is initialised, this value's alone, and no device has it while this value is not in an operation.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.len) }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed by this call's caller alone.
        unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes at {:p})", self.0.len, self.0.start)
    }
}
