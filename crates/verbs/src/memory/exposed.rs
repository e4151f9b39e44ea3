//! Memory that peers may read or write: copied in and out, never a slice.
#![allow(unsafe_code)]

use super::region::Registered;
use super::remote::RemoteRegion;
use super::words::Words;
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Owned memory with remote access. `Clone` is another handle to the same memory; `Send` and `Sync`.
///
/// Whoever knows [`remote`](Self::remote) and has a queue pair of the same protection domain can reach it, at any time, until the last
/// handle is dropped. So its bytes are never a slice: they are copied in and out, or loaded and stored as whole words. What a peer wrote before
/// it told so (by a message, or by a word that is loaded with `Acquire`) is seen.
///
/// Threads may do all of that at once, on the same bytes: nothing here is a data race. Whole words at addresses that are multiples of eight are
/// moved whole by copies too, in no order; beside a thread or a peer that writes meanwhile, a copy may be old in one word and new in the next. A
/// copy into a part of a word leaves the rest of it as it is.
#[derive(Clone, Debug)]
#[doc(alias = "ibv_mr")]
pub struct ExposedRegion {
    region: Arc<Registered>,
}

/// A range of exposed memory, as what an operation sends from or receives into. Keeps the region. A handle of one word, counted; made with one
/// allocation.
#[derive(Clone, Debug)]
pub struct ExposedPart(Arc<Part>);

#[derive(Debug)]
struct Part {
    region: Arc<Registered>,
    offset: usize,
    len: usize,
}

impl ExposedRegion {
    pub(crate) const fn new(region: Arc<Registered>) -> Self {
        Self { region }
    }

    /// How many bytes; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.region.len()
    }

    /// What a peer names to reach it. Giving it away is giving access.
    #[must_use]
    pub fn remote(&self) -> RemoteRegion {
        self.region.remote()
    }

    fn words(&self) -> Words<'_> {
        // SAFETY: exposed memory is owned by its registration, which is alive as long as `self`; its bytes are not reached but by devices and through
        // here, always with the same arguments.
        unsafe { Words::new(self.region.start(), self.region.len()) }
    }

    /// Copies bytes from `offset` on out of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the region does not enclose them.
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        self.words().read(offset, into).ok_or_else(|| outside(&self.region, offset, into.len()))
    }

    /// Copies bytes into it from `offset` on.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the region does not enclose them.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.words().write(offset, bytes).ok_or_else(|| outside(&self.region, offset, bytes.len()))
    }

    fn word(&self, offset: usize) -> Result<&AtomicU64> {
        within(&self.region, offset, 8)?;
        self.words().word(offset).ok_or_else(|| {
            Error::invalid(
                "word of exposed memory",
                format!("offset {offset} is not at a multiple of 8 bytes"),
                "take an offset that is",
            )
        })
    }

    /// The word of 8 bytes at `offset`, in the machine's order.
    ///
    /// With `Acquire`, what a peer wrote before it wrote this word is seen by what follows.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside of the region, or not at a multiple of 8.
    ///
    /// # Panics
    /// With `Release` or `AcqRel`, as every load.
    pub fn load(&self, offset: usize, order: Ordering) -> Result<u64> {
        self.word(offset).map(|word| word.load(order))
    }

    /// Stores a word of 8 bytes at `offset`, in the machine's order. Not atomic towards a device's atomics unless the device says
    /// that its atomics are global.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    ///
    /// # Panics
    /// With `Acquire` or `AcqRel`, as every store.
    pub fn store(&self, offset: usize, value: u64, order: Ordering) -> Result<()> {
        self.word(offset).map(|word| word.store(value, order))
    }

    /// A range, for an operation.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the region does not enclose it, or for more than 2^32 - 1 bytes.
    pub fn part(&self, range: Range<usize>) -> Result<ExposedPart> {
        ExposedPart::new(&self.region, range)
    }

    pub(crate) const fn region(&self) -> &Arc<Registered> {
        &self.region
    }
}

/// Memory that this process does not reach through the region: of another device (DMA-BUF), or registered by its address.
/// `Clone` is another handle; `Send` and `Sync`.
#[derive(Clone, Debug)]
#[doc(alias = "ibv_mr")]
pub struct ForeignRegion {
    region: Arc<Registered>,
}

impl ForeignRegion {
    pub(crate) const fn new(region: Arc<Registered>) -> Self {
        Self { region }
    }

    /// How many bytes; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.region.len()
    }

    /// What a peer names to reach it, as far as it was registered for peers.
    #[must_use]
    pub fn remote(&self) -> RemoteRegion {
        self.region.remote()
    }

    /// The key for this process's own requests.
    #[must_use]
    pub fn lkey(&self) -> u32 {
        self.region.lkey()
    }

    /// A range, for an operation; offsets count from the region's beginning.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the region does not enclose it, or for more than 2^32 - 1 bytes.
    pub fn part(&self, range: Range<usize>) -> Result<ExposedPart> {
        ExposedPart::new(&self.region, range)
    }

    /// The raw region; it stays as long as a handle is there.
    #[must_use]
    pub fn as_raw(&self) -> *mut sinew_verbs_sys::ibv_mr {
        self.region.as_raw()
    }
}

fn within(region: &Registered, offset: usize, len: usize) -> Result<()> {
    if offset.checked_add(len).is_some_and(|end| end <= region.len()) {
        return Ok(());
    }
    Err(outside(region, offset, len))
}

#[cold]
fn outside(region: &Registered, offset: usize, len: usize) -> Error {
    Error::invalid(
        "range of exposed memory",
        format!("{len} bytes at offset {offset} of {}", region.len()),
        "stay inside of the region",
    )
}

impl ExposedPart {
    fn new(region: &Arc<Registered>, range: Range<usize>) -> Result<Self> {
        let len = range.end.checked_sub(range.start).ok_or_else(|| {
            Error::invalid("range of a region", format!("{range:?} ends before it begins"), "swap its ends")
        })?;
        within(region, range.start, len)?;
        if u32::try_from(len).is_err() {
            return Err(Error::invalid(
                "range of a region",
                format!("{len} bytes; one element names up to 4294967295"),
                "divide it into several",
            ));
        }
        Ok(Self(Arc::new(Part { region: region.clone(), offset: range.start, len })))
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    pub(super) fn region(&self) -> &Registered {
        &self.0.region
    }

    /// Whether it was registered in that protection domain.
    pub(crate) fn is_of(&self, pd: &crate::ProtectionDomain) -> bool {
        self.0.region.is_of(pd)
    }

    /// Address, length and key of its first `len` bytes, which it has.
    pub(crate) fn first(&self, len: u32) -> sinew_verbs_sys::ibv_sge {
        sinew_verbs_sys::ibv_sge {
            addr: self.0.region.iova() + self.0.offset as u64,
            length: len,
            lkey: self.0.region.lkey(),
        }
    }
}
