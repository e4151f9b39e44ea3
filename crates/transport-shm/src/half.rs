//! The two halves of a lane's shared memory: the one that this side writes, and the peer's, which it only reads.
//!
//! Called by the lane and the domain. Each half is one sealed memfd: a control page, the ring of what its owner sends, and
//! the window for bodies that do not fit a slot. Turns offsets into pointers, and does so only after checking them: what a
//! peer says is never used unbounded.
//!
//! # Memory safety
//! References go only to atomics (control words, slots). Window bytes are touched through `sinew_base::copy` and
//! [`Body`] alone, never through a reference.
#![allow(unsafe_code)]

use crate::options::{SLOTS, WINDOW_MAX};
use crate::shared::ring::Slot;
use crate::shared::sleep::Hints;
use crate::shared::sync::AtomicU64;
use crate::sys::memory::{self, Made, Mapping, PAGE, Wish, Writers};
use rustix::fd::OwnedFd;
use sinew_transport::{Body, TransportError};
use std::io::IoSlice;
use std::sync::atomic::Ordering;

/// How a half is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    /// Slots of the ring.
    pub(crate) slots: usize,
    /// Bytes of the window.
    pub(crate) window: usize,
}

impl Geometry {
    /// A layout, if its sizes are allowed.
    pub(crate) fn checked(slots: usize, window: usize) -> Option<Self> {
        let fine = slots.is_power_of_two()
            && SLOTS.contains(&slots)
            && window > 0
            && window.is_multiple_of(PAGE)
            && window <= 2 * WINDOW_MAX;
        fine.then_some(Self { slots, window })
    }

    const fn window_at(&self) -> usize {
        PAGE + (self.slots * size_of::<Slot>()).next_multiple_of(PAGE)
    }

    /// Bytes to have ready from the start: control page, ring, and what small bodies use.
    const fn ready(&self) -> usize {
        self.window_at() + if self.window < SMALL { self.window } else { SMALL }
    }

    /// Bytes in all.
    pub(crate) const fn len(&self) -> usize {
        self.window_at() + self.window
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// What small bodies use of a window by default.
const SMALL: usize = 16 << 10;

/// First word of a half's and of a domain's page.
const MAGIC: u64 = u64::from_le_bytes(*b"SINEWSHM");
/// Second word: layout version 1, no features.
const VERSION: u64 = 1;

/// The words by which the owner of a half speaks to the peer's producer. Offsets are part of the wire.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Control {
    magic: AtomicU64,
    version: AtomicU64,
    _first: [AtomicU64; 6],
    /// Frames of the peer's ring that the owner is done with.
    pub(crate) consumed: AtomicU64,
    _second: [AtomicU64; 7],
    /// Hot or cold: see `shared::sleep`.
    pub(crate) state: AtomicU64,
    /// Zero, or why the owner has ended the lane: [`CLOSED`], [`REFUSED`].
    pub(crate) closed: AtomicU64,
    /// Non-zero while the owner waits for room in its own ring or window.
    pub(crate) starving: AtomicU64,
    /// How often the owner has taken memory back that it had described: descriptors say how often it had before.
    pub(crate) recalled: AtomicU64,
    /// Which messages of lent memory the owner wants to be described, as it reads them across: bit *k* for those of 2^k to
    /// 2^(k+1) − 1 bytes.
    pub(crate) reads: AtomicU64,
    _third: [AtomicU64; 3],
}

/// Ended in order.
pub(crate) const CLOSED: u64 = 1;
/// Ended because the peer broke the protocol.
pub(crate) const REFUSED: u64 = 2;

/// The page by which a domain tells all its peers whether it sleeps.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct DomainControl {
    magic: AtomicU64,
    version: AtomicU64,
    _first: [AtomicU64; 6],
    /// Odd while the domain's engine sleeps: see `shared::sleep`.
    pub(crate) armed: AtomicU64,
}

/// A mapping that starts with a `T` made of atomics.
#[derive(Debug)]
pub(crate) struct Page<T> {
    mapping: Mapping,
    _what: std::marker::PhantomData<fn() -> T>,
}

impl<T: Atomics> Page<T> {
    /// A page of our own.
    pub(crate) fn create(what: &'static str, writers: Writers) -> Result<(OwnedFd, Self), TransportError> {
        let (fd, mapping) = memory::create(what, PAGE, PAGE, writers)?;
        Ok((fd, Self { mapping, _what: std::marker::PhantomData }))
    }

    /// A peer's page.
    pub(crate) fn adopt(fd: &OwnedFd, writers: Writers) -> Result<Self, TransportError> {
        let mapping = memory::adopt(fd, PAGE as u64, PAGE, writers)?;
        Ok(Self { mapping, _what: std::marker::PhantomData })
    }
}

impl<T: Atomics> std::ops::Deref for Page<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is page-aligned, at least as long as `T`, lives as long as `self`, and `Atomics` says that
        // any bytes are a valid `T` that others may write.
        unsafe { self.mapping.base().cast::<T>().as_ref() }
    }
}

/// Types that are nothing but atomics and at most a page long.
///
/// # Safety
/// Any bytes are valid, and every byte may be written by others at any time.
pub(crate) unsafe trait Atomics {}

// SAFETY: `repr(C)` of `AtomicU64`s; 192 bytes.
unsafe impl Atomics for Control {}
// SAFETY: `repr(C)` of `AtomicU64`s; 72 bytes.
unsafe impl Atomics for DomainControl {}
// SAFETY: `repr(C)` of `AtomicU64`s; 576 bytes.
unsafe impl Atomics for Hints {}

const _: () = {
    assert!(std::mem::offset_of!(Control, consumed) == 64);
    assert!(std::mem::offset_of!(Control, state) == 128);
    assert!(std::mem::offset_of!(Control, closed) == 136);
    assert!(std::mem::offset_of!(Control, starving) == 144);
    assert!(std::mem::offset_of!(Control, recalled) == 152);
    assert!(std::mem::offset_of!(Control, reads) == 160);
    assert!(std::mem::offset_of!(DomainControl, armed) == 64);
    assert!(size_of::<Control>() <= PAGE && size_of::<Hints>() <= PAGE);
};

/// A domain's page, made.
pub(crate) fn create_domain_page() -> Result<(OwnedFd, Page<DomainControl>), TransportError> {
    let (fd, page) = Page::<DomainControl>::create("sinew-domain", Writers::Owner)?;
    page.version.store(VERSION, Ordering::Relaxed);
    page.magic.store(MAGIC, Ordering::Release);
    Ok((fd, page))
}

/// A peer's domain page.
pub(crate) fn adopt_domain_page(fd: &OwnedFd) -> Result<Page<DomainControl>, TransportError> {
    let page = Page::<DomainControl>::adopt(fd, Writers::Owner)?;
    check_version(&page.magic, &page.version)?;
    Ok(page)
}

fn check_version(magic: &AtomicU64, version: &AtomicU64) -> Result<(), TransportError> {
    if magic.load(Ordering::Relaxed) != MAGIC {
        return Err(crate::note::broken("shared memory without its magic"));
    }
    match version.load(Ordering::Relaxed) {
        VERSION => Ok(()),
        other => Err(crate::note::broken("version of the shared memory")
            .hint(format!("the peer's layout is version {other}, this engine's {VERSION}"))),
    }
}

/// What both halves have in common.
#[derive(Debug)]
struct Half {
    mapping: Mapping,
    geometry: Geometry,
}

impl Half {
    #[inline]
    fn control(&self) -> &Control {
        // SAFETY: as in `Page`: the mapping starts with a whole page for it.
        unsafe { self.mapping.base().cast::<Control>().as_ref() }
    }

    #[inline]
    fn ring(&self) -> &[Slot] {
        // SAFETY: the mapping has `geometry.len()` bytes, so the slots lie inside; they are page-aligned atomics.
        unsafe {
            let first = self.mapping.base().add(PAGE).cast::<Slot>();
            std::slice::from_raw_parts(first.as_ptr(), self.geometry.slots)
        }
    }

    /// A pointer to `len` bytes at `offset` of the window, if they lie inside.
    #[inline]
    fn window(&self, offset: usize, len: usize) -> Option<*mut u8> {
        if offset > self.geometry.window || len > self.geometry.window - offset {
            return None;
        }
        // SAFETY: inside the mapping, by the check and `Geometry::len`.
        Some(unsafe { self.mapping.base().add(self.geometry.window_at() + offset) }.as_ptr())
    }
}

/// The half that this side writes.
#[derive(Debug)]
pub(crate) struct OwnHalf(Half);

impl OwnHalf {
    /// Makes one; the descriptor is for the peer, the text about its pages for people.
    pub(crate) fn create(geometry: Geometry, wish: Wish) -> Result<(OwnedFd, Self, String), TransportError> {
        let (len, ready) = (geometry.len(), geometry.ready());
        let Made { fd, mapping, got } = memory::create_as("sinew-lane", len, ready, Writers::Owner, wish)?;
        let half = Half { mapping, geometry };
        half.control().version.store(VERSION, Ordering::Relaxed);
        half.control().magic.store(MAGIC, Ordering::Release);
        Ok((fd, Self(half), got))
    }

    /// The control words, for writing.
    #[inline]
    pub(crate) fn control(&self) -> &Control {
        self.0.control()
    }

    /// Bytes of the window.
    pub(crate) fn window_len(&self) -> usize {
        self.0.geometry.window
    }

    /// The ring of what this side sends.
    #[inline]
    pub(crate) fn ring(&self) -> &[Slot] {
        self.0.ring()
    }

    /// Copies `parts` one after the other to `offset` of the window.
    ///
    /// # Panics
    /// When they do not fit: the caller's allocator is wrong.
    #[inline]
    pub(crate) fn fill(&self, offset: usize, parts: &[IoSlice<'_>]) {
        let mut at = offset;
        for part in parts {
            let target = self.0.window(at, part.len()).expect("allocated inside the window");
            // SAFETY: `part` is readable, the target lies inside the mapping, to which no reference exists.
            unsafe { sinew_base::copy::to_shared(part.as_ptr(), target, part.len()) };
            at += part.len();
        }
    }

    /// Copies `len` bytes to `offset` of the window.
    ///
    /// # Safety
    /// `data` is readable for `len` bytes during the call.
    ///
    /// # Panics
    /// When they do not fit: the caller's allocator is wrong.
    pub(crate) unsafe fn fill_raw(&self, offset: usize, data: *const u8, len: usize) {
        let target = self.0.window(offset, len).expect("allocated inside the window");
        // SAFETY: readable, says the caller; the target lies inside the mapping, to which no reference exists.
        unsafe { sinew_base::copy::to_shared(data, target, len) };
    }

    /// Asks for the lines of `len` bytes at `offset` of the window as to be written; what lies outside is let be.
    #[inline]
    pub(crate) fn ask_for_lines(&self, offset: usize, len: usize) {
        if let Some(first) = self.0.window(offset, len) {
            (0..len).step_by(LINE).for_each(|at| sinew_base::copy::soon_written(first.wrapping_add(at)));
        }
    }

    /// Says that the peer reads `len` bytes at `offset` of the window next.
    #[inline]
    pub(crate) fn hand_lines_over(&self, offset: usize, len: usize) {
        if let Some(first) = self.0.window(offset, len) {
            (0..len).step_by(LINE).for_each(|at| sinew_base::copy::handed_over(first.wrapping_add(at)));
        }
    }

    /// Reads back what was filled in.
    pub(crate) fn read_back(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        let source = self.0.window(offset, len)?;
        // SAFETY: inside the mapping; nobody else writes our half, and we do not write it meanwhile.
        Some(unsafe { Body::from_raw(source, len) }.to_vec())
    }
}

/// The peer's half, mapped for reading only: storing into its words would be a fault.
#[derive(Debug)]
pub(crate) struct PeerHalf(Half);

impl PeerHalf {
    /// Maps what the peer passed.
    pub(crate) fn adopt(fd: &OwnedFd, geometry: Geometry) -> Result<Self, TransportError> {
        let mapping = memory::adopt(fd, geometry.len() as u64, geometry.ready(), Writers::Owner)?;
        let half = Half { mapping, geometry };
        check_version(&half.control().magic, &half.control().version)?;
        Ok(Self(half))
    }

    /// The control words, for loading.
    #[inline]
    pub(crate) fn control(&self) -> &Control {
        self.0.control()
    }

    /// The ring of what the peer sends.
    #[inline]
    pub(crate) fn ring(&self) -> &[Slot] {
        self.0.ring()
    }

    /// Bytes of the peer's window.
    pub(crate) fn window_len(&self) -> usize {
        self.0.geometry.window
    }

    /// A body in the peer's window, if it lies inside.
    #[inline]
    pub(crate) fn window_body(&self, offset: usize, len: usize) -> Option<Body<'_>> {
        let data = self.0.window(offset, len)?;
        // SAFETY: inside the mapping, which lives as long as `self`.
        Some(unsafe { Body::from_raw(data, len) })
    }

    /// A body in a slot of the peer's ring; `len` is cut to what a slot holds.
    #[inline]
    pub(crate) fn slot_body<'a>(&self, slot: &'a Slot, len: usize) -> Body<'a> {
        // SAFETY: a slot has that many payload bytes, and lives for `'a`.
        unsafe { Body::from_raw(slot.payload(), len.min(crate::shared::ring::PAYLOAD_LEN)) }
    }
}
