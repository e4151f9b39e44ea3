//! Segments: memory of this domain that one peer may read, and memory of a peer that this side may read.
//!
//! Called by the domain (allocation) and by lanes (describing, pulling, viewing). A segment is passed to the first lane
//! that describes a buffer of it, and to no other: what lies in it is for that peer's eyes.
//!
//! # Memory safety
//! The own mapping is written through [`sinew_transport::Buf`]s alone, which own disjoint ranges. The foreign mapping is
//! read through `sinew_base::copy` and [`View`], never through a reference.
#![allow(unsafe_code)]

use crate::sys::memory::{self, Made, Mapping, PAGE, Wish, Writers};
use crate::sys::placement::HUGE;
use rustix::fd::OwnedFd;
use sinew_transport::{Segment, TransportError, View};
use std::any::Any;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Memory that this process writes and one peer may read.
#[derive(Debug)]
pub(crate) struct ShmSegment {
    mapping: Mapping,
    /// Until it was passed.
    fd: Mutex<Option<OwnedFd>>,
    bound: OnceLock<Binding>,
}

/// Which lane a segment was passed to, and under which number.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) freed: Arc<Freed>,
    pub(crate) id: u32,
}

/// Numbers of passed segments that are no more; one list for each lane, which tells the peer.
#[derive(Debug, Default)]
pub(crate) struct Freed {
    some: AtomicBool,
    ids: Mutex<Vec<u32>>,
}

impl Freed {
    /// Takes the numbers, if there are any.
    #[inline]
    pub(crate) fn take(&self) -> Vec<u32> {
        if !self.some.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.some.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts numbers back that could not be told now.
    pub(crate) fn put(&self, ids: impl IntoIterator<Item = u32>) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
        self.some.store(true, Ordering::Relaxed);
    }
}

impl ShmSegment {
    /// Memory of at least `len` bytes, reserved, zeroed and mapped at once; and what pages it has got, for people.
    pub(crate) fn create(len: usize, wish: Wish) -> Result<(Self, String), TransportError> {
        // Whole huge pages, so that they can be had.
        let unit = if len >= HUGE { HUGE } else { PAGE };
        let len = len.max(1).checked_next_multiple_of(unit).ok_or_else(|| {
            TransportError::new(sinew_transport::ErrorKind::Limit, "memfd_create", format!("{len} bytes"))
        })?;
        let Made { fd, mapping, got } = memory::create_as("sinew-segment", len, len, Writers::Owner, wish)?;
        Ok((Self { mapping, fd: Mutex::new(Some(fd)), bound: OnceLock::new() }, got))
    }

    /// To whom it was passed.
    pub(crate) fn binding(&self) -> Option<&Binding> {
        self.bound.get()
    }

    /// Passes it by `pass`, once; whether it is passed now. Nobody else may have done so before.
    pub(crate) fn bind<E>(
        &self,
        binding: Binding,
        pass: impl FnOnce(&OwnedFd) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let mut place = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(fd) = place.as_ref() else { return Ok(false) };
        if !pass(fd)? {
            return Ok(false);
        }
        // The peer maps it; the descriptor has done its work.
        *place = None;
        Ok(self.bound.set(binding).is_ok())
    }
}

// SAFETY: a mapping of its own, writable and zeroed, that others can map for reading only, and that lives as long as `self`.
unsafe impl Segment for ShmSegment {
    fn data(&self) -> NonNull<u8> {
        self.mapping.base()
    }

    fn len(&self) -> usize {
        self.mapping.len()
    }

    fn is_shown(&self) -> bool {
        self.bound.get().is_some()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for ShmSegment {
    fn drop(&mut self) {
        if let Some(binding) = self.bound.get() {
            binding.freed.put([binding.id]);
        }
    }
}

/// A segment of the peer, mapped for reading.
#[derive(Debug)]
pub(crate) struct ForeignSegment {
    mapping: Mapping,
}

impl ForeignSegment {
    /// Maps what the peer passed.
    pub(crate) fn adopt(fd: &OwnedFd, len: u64) -> Result<Self, TransportError> {
        Ok(Self { mapping: memory::adopt(fd, len, usize::MAX, Writers::Owner)? })
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.mapping.len()
    }

    /// First byte of a range, if it lies inside.
    fn range(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        if offset > self.mapping.len() || len > self.mapping.len() - offset {
            return None;
        }
        // SAFETY: inside the mapping.
        Some(unsafe { self.mapping.base().add(offset) })
    }

    /// A range to look at; `None` when it does not lie inside.
    pub(crate) fn view(self: Arc<Self>, offset: usize, len: usize) -> Option<View> {
        let data = self.range(offset, len)?;
        // Whoever looks at a message begins at one of its ends: both are on their way while the rest of its receipt goes on.
        sinew_base::copy::soon(data.as_ptr());
        sinew_base::copy::soon(data.as_ptr().wrapping_add(len.saturating_sub(1)));
        // SAFETY: readable while the mapping lives, which the view keeps.
        Some(unsafe { View::new(data, len, self) })
    }
}

/// Bytes under way from a peer's segment to the caller's memory.
#[derive(Debug)]
pub(crate) struct Fetch {
    from: Arc<ForeignSegment>,
    offset: usize,
    target: NonNull<u8>,
    len: usize,
    done: usize,
}

// SAFETY: the target is the caller's until `Lane::revoke` or `Sink::pulled`, whatever thread the lane is used on.
unsafe impl Send for Fetch {}

impl Fetch {
    /// `None` when the range does not lie inside the segment.
    ///
    /// # Safety
    /// `target` is writable for `len` bytes, and nothing else accesses it, while the value is stepped.
    pub(crate) unsafe fn new(
        from: Arc<ForeignSegment>,
        offset: usize,
        target: NonNull<u8>,
        len: usize,
    ) -> Option<Self> {
        from.range(offset, len)?;
        Some(Self { from, offset, target, len, done: 0 })
    }

    /// Copies up to `piece` bytes more; whether all is there.
    pub(crate) fn step(&mut self, piece: usize) -> bool {
        let piece = piece.min(self.len - self.done);
        if let Some(source) = self.from.range(self.offset + self.done, piece) {
            // SAFETY: the source lies inside the mapping, the target inside what `new` was promised.
            unsafe {
                let target = self.target.add(self.done);
                sinew_base::copy::from_shared_part(source.as_ptr(), target.as_ptr(), piece, self.len);
            }
        }
        self.done += piece;
        self.done == self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{HugePages, Numa};

    const LEN: usize = 2 * HUGE;

    fn made(huge: HugePages, len: usize) -> (ShmSegment, String) {
        ShmSegment::create(len, Wish { huge, numa: Numa::Auto }).expect("memory")
    }

    /// Kilobytes of the mapping in huge pages, as the kernel counts them.
    fn huge_kb(segment: &ShmSegment) -> u64 {
        let start = format!("{:x}-", segment.data().addr());
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("proc");
        let of_it = maps.lines().skip_while(|line| !line.starts_with(&start));
        of_it
            .take_while(|line| !line.starts_with("VmFlags"))
            .filter(|line| {
                ["Shared_Hugetlb", "Private_Hugetlb", "ShmemPmdMapped"]
                    .iter()
                    .any(|key| line.starts_with(key))
            })
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum()
    }

    #[test]
    fn segments_get_huge_pages_where_there_are_some_and_the_peer_maps_them() {
        let (segment, got) = made(HugePages::Auto, LEN - 5);
        assert_eq!(Segment::len(&segment), LEN, "whole huge pages");
        let fd = segment.fd.lock().unwrap().as_ref().expect("not passed").try_clone().expect("a descriptor");
        // SAFETY: the segment is this test's alone.
        unsafe { segment.data().as_ptr().add(LEN - 1).write(7) };
        let foreign =
            Arc::new(ForeignSegment::adopt(&fd, LEN as u64).expect("what we make is what we accept"));
        assert_eq!(foreign.clone().view(LEN - 1, 1).expect("inside").body().to_vec(), [7]);
        if got.starts_with("ordinary") {
            return println!("SKIP huge pages: {got}");
        }
        assert!(!got.starts_with("reserved") || huge_kb(&segment) == (LEN >> 10) as u64, "{got}");
        drop(segment);
        assert_eq!(
            foreign.clone().view(LEN - 1, 1).expect("inside").body().to_vec(),
            [7],
            "the peer keeps it"
        );
    }

    #[test]
    fn without_huge_pages_segments_are_as_long_as_before_and_say_why() {
        let (segment, got) = made(HugePages::Off, 100_000);
        assert_eq!(Segment::len(&segment), 100_000usize.next_multiple_of(PAGE));
        assert!(got.contains("switched off"), "{got}");
        assert_eq!(huge_kb(&segment), 0);
        assert!(made(HugePages::Auto, PAGE).1.contains("shorter than a huge page"));
    }
}
