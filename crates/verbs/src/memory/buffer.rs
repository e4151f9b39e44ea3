//! Owned, registered bytes: what moves into an operation and comes back with its completion.
#![allow(unsafe_code)]

use super::element::{Gather, Scatter};
use super::pool::Home;
use super::region::Registered;
use crate::error::{Error, Result};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// A range of registered memory that nobody else has: readable and writable as `[u8]` while no operation has it.
///
/// Made by [`ProtectionDomain::allocate`](crate::ProtectionDomain::allocate), [`adopt`](crate::ProtectionDomain::adopt), a
/// [`BufferPool`](super::BufferPool), or by splitting another. The region stays registered until its last part is dropped.
/// Peers can never reach it. `Send` and `Sync` as a `Box<[u8]>` is; dropping it never blocks, except that the last part tells the device to end the
/// registration. Region and memory hold their domain, and outlive every operation that has the buffer, as that owns it.
#[doc(alias = "ibv_mr")]
pub struct Buffer {
    start: NonNull<u8>,
    len: usize,
    region: Arc<Registered>,
    home: Option<Arc<Home>>,
}

// SAFETY: the range is this value's alone, as that of a `Box<[u8]>`; the region behind it is a counted handle of any thread.
unsafe impl Send for Buffer {}
// SAFETY: shared references reach the bytes for reading only.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// All of a region of owned, writable memory without remote access that nobody else has a part of.
    pub(crate) fn whole(region: Arc<Registered>) -> Self {
        debug_assert!(region.is_private());
        Self { start: region.start(), len: region.len(), region, home: None }
    }

    /// Divides it at `middle`: bytes before it, and from it on. Both stay registered as they are.
    ///
    /// # Errors
    /// [`Error::Invalid`] with a `middle` beyond the end; the buffer is dropped then only if the caller drops the error's
    /// buffer.
    pub fn split_at(mut self, middle: usize) -> std::result::Result<(Self, Self), (Self, Error)> {
        if middle > self.len {
            let cause = format!("{middle} is beyond its {} bytes", self.len);
            return Err((self, Error::invalid("split of a buffer", cause, "take a place inside")));
        }
        if self.home.is_some() {
            return Err((
                self,
                Error::invalid("split of a buffer", "it belongs to a pool", "make a pool of smaller buffers"),
            ));
        }
        // SAFETY: `middle` is inside the range or at its end.
        let start = unsafe { self.start.add(middle) };
        let rest = Self { start, len: self.len - middle, region: self.region.clone(), home: None };
        self.len = middle;
        Ok((self, rest))
    }

    /// A place of a pool, which comes back there when it is dropped.
    ///
    /// # Safety
    /// The range lies in the region, and no other buffer has any part of it.
    pub(super) unsafe fn of_pool(
        start: NonNull<u8>,
        len: usize,
        region: Arc<Registered>,
        home: Arc<Home>,
    ) -> Self {
        Self { start, len, region, home: Some(home) }
    }

    /// The key that the device asks for.
    #[must_use]
    pub fn lkey(&self) -> u32 {
        self.region.lkey()
    }

    /// The first `len` bytes as what a send or write takes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more bytes than it has, or than an element can name (2^32 - 1).
    pub fn gather(&self, len: usize) -> Result<Gather<'_>> {
        let bytes = self.get(..len).ok_or_else(|| too_long(len, self.len))?;
        Gather::new(bytes, &self.region)
    }

    /// All of it as what a receive or read fills.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more bytes than an element can name (2^32 - 1).
    pub fn scatter(&mut self) -> Result<Scatter<'_>> {
        // SAFETY: the range is this value's alone, and borrowed for as long as the element.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) };
        Scatter::new(bytes, &self.region)
    }

    /// Address, length and key of the first `len` bytes, for a request.
    #[inline]
    pub(crate) fn sge(&self, len: u32) -> sinew_verbs_sys::ibv_sge {
        sinew_verbs_sys::ibv_sge { addr: self.start.as_ptr() as u64, length: len, lkey: self.region.lkey() }
    }

    pub(super) fn region(&self) -> &Registered {
        &self.region
    }

    /// Whether it was registered in that protection domain.
    #[inline]
    pub(crate) fn is_of(&self, pd: &crate::ProtectionDomain) -> bool {
        self.region.is_of(pd)
    }

    /// The memory that it was made of, unregistered, when this is all of it and not of a pool. Nothing, when the device refuses to
    /// forget it: then it is the device's for ever, and counted (`Library::leaked_objects`).
    ///
    /// # Errors
    /// Itself.
    pub fn into_memory(self) -> std::result::Result<Option<super::Memory>, Self> {
        if self.home.is_some() || self.len != self.region.len() {
            return Err(self);
        }
        let (start, len) = (self.start, self.len);
        let region = {
            let this = std::mem::ManuallyDrop::new(self);
            // SAFETY: read out of a value that is not dropped, once; its pool is none and needs no drop.
            unsafe { std::ptr::read(&raw const this.region) }
        };
        match Registered::into_memory(region) {
            Ok(memory) => Ok(memory),
            Err(region) => Err(Self { start, len, region, home: None }),
        }
    }
}

/// The reason when a length exceeds what there is.
pub(super) fn too_long(len: usize, there: usize) -> Error {
    Error::invalid("length", format!("{len} bytes of a buffer of {there}"), "take at most its length")
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.back(self.start);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range is initialised, this value's alone, and no device has it while this value is not in an operation.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed by this call's caller alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes at {:p})", self.len, self.start)
    }
}
