//! The owned buffer that operations take and give back.
//!
//! A `Buf` moves into an operation and comes back with its completion. It is a `Vec<u8>`, a `Box<[u8]>`, `Bytes` (for
//! sending only), memory of an engine's pool, or foreign memory that somebody vouches for.
#![allow(unsafe_code)]

use crate::Segment;
use bytes::Bytes;
use core::fmt;
use sinew_base::fork::SmallForkGuard;
use std::ptr::NonNull;
use std::sync::Arc;

/// Where a pooled buffer goes when it is dropped.
pub trait Pool: Send + Sync {
    /// Takes the range back; called once for each [`Buf::from_pool`].
    fn release(&self, segment: &Arc<dyn Segment>, offset: usize, capacity: usize);

    /// Whether a peer may be shown the segments of the pool. `peer` is the number that the pool's maker has for it. Whatever
    /// else lies in a segment is shown with it.
    fn may_be_shown(&self, peer: u64) -> bool;
}

/// Owned bytes with a length of at most their capacity. `Send` and `Sync`; dropping it frees or returns the memory.
///
/// A forked child has no memory of its parent's pools: there such a buffer is empty, and dropping it changes nothing for the
/// parent. A slice that was borrowed before the fork must not be looked at in the child; that is the duty of whoever calls
/// `fork`, which is `unsafe`. Buffers of the heap are the child's own copy, as all of its heap.
pub struct Buf {
    data: NonNull<u8>,
    len: usize,
    capacity: usize,
    owner: Owner,
}

enum Owner {
    Vec,
    Bytes(Bytes),
    Pool { pool: Arc<dyn Pool>, segment: Arc<dyn Segment>, fork: SmallForkGuard },
    Foreign { release: Option<Box<dyn FnOnce() + Send + Sync>> },
}

// SAFETY: `data` is exclusively owned (or shared read-only for `Bytes`), like a `Vec<u8>`; every owner is Send + Sync.
unsafe impl Send for Buf {}
// SAFETY: `&Buf` only reads.
unsafe impl Sync for Buf {}

impl Buf {
    /// A zeroed buffer of `len` bytes on the heap. Aborts like `Vec` when there is no memory.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        vec![0; len].into()
    }

    /// A range of a segment, which goes back to `pool` on drop. The content is whatever is there.
    ///
    /// # Safety
    /// `offset + capacity` lies inside the segment, the range is initialised memory, and nothing else reads or writes it
    /// until `pool.release`, but peers that were given read access.
    #[must_use]
    pub unsafe fn from_pool(
        pool: Arc<dyn Pool>,
        segment: Arc<dyn Segment>,
        offset: usize,
        capacity: usize,
    ) -> Self {
        // SAFETY: inside the segment, says the caller.
        let data = unsafe { segment.data().add(offset) };
        Self {
            data,
            len: capacity,
            capacity,
            owner: Owner::Pool { pool, segment, fork: SmallForkGuard::new() },
        }
    }

    /// Memory that somebody else owns, as a mapping; `release` is called on drop.
    ///
    /// # Safety
    /// `data` is readable and writable for `len` initialised bytes, from any thread, until `release` is called, and nothing
    /// else accesses it.
    #[must_use]
    pub unsafe fn from_foreign(
        data: NonNull<u8>,
        len: usize,
        release: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        Self { data, len, capacity: len, owner: Owner::Foreign { release: Some(Box::new(release)) } }
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        if self.is_elsewhere() { 0 } else { self.len }
    }

    /// Whether the memory is that of the process that this one was forked from.
    #[inline]
    fn is_elsewhere(&self) -> bool {
        matches!(&self.owner, Owner::Pool { fork, .. } if fork.forked())
    }

    /// Whether it has no byte.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long it can become by [`Buf::set_len`].
    #[must_use]
    #[inline]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Changes the length. All bytes up to the capacity are initialised, so this only moves the end.
    ///
    /// # Panics
    /// When `len` exceeds the capacity.
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "length {len} beyond the capacity {}", self.capacity);
        self.len = len;
    }

    /// Whether bytes can be written: all but `Bytes`.
    #[must_use]
    #[inline]
    pub fn is_writable(&self) -> bool {
        !matches!(self.owner, Owner::Bytes(_))
    }

    /// The bytes.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: initialised, owned, and not written while `self` is borrowed; in a forked child that lacks it, no byte.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len()) }
    }

    /// The bytes, for writing; `None` for `Bytes`, which others may share.
    #[must_use]
    #[inline]
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        // SAFETY: as above, and exclusive.
        self.is_writable().then(|| unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len()) })
    }

    /// First byte. Stable for the life of the buffer, also when the `Buf` moves.
    #[must_use]
    #[inline]
    pub fn data(&self) -> NonNull<u8> {
        self.data
    }

    /// The segment and offset of a pooled buffer.
    #[must_use]
    pub fn segment(&self) -> Option<(&Arc<dyn Segment>, usize)> {
        match &self.owner {
            Owner::Pool { segment, .. } => Some((segment, offset_in(segment, self.data))),
            _ => None,
        }
    }

    /// Whether it is pooled, and the pool lets this peer see the segment: see [`Pool::may_be_shown`].
    #[must_use]
    pub fn may_be_shown(&self, peer: u64) -> bool {
        matches!(&self.owner, Owner::Pool { pool, .. } if pool.may_be_shown(peer))
    }

    /// The bytes as a `Vec`: without a copy when it was made of a `Vec` or `Box<[u8]>`, else by copying.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        if matches!(self.owner, Owner::Vec) {
            let this = std::mem::ManuallyDrop::new(self);
            // SAFETY: made by `From<Vec<u8>>` from exactly these parts; `this` is not dropped.
            return unsafe { Vec::from_raw_parts(this.data.as_ptr(), this.len, this.capacity) };
        }
        self.as_slice().to_vec()
    }
}

/// Where in a segment a byte of it lies.
fn offset_in(segment: &Arc<dyn Segment>, data: NonNull<u8>) -> usize {
    data.as_ptr().addr() - segment.data().as_ptr().addr()
}

impl Drop for Buf {
    fn drop(&mut self) {
        match &mut self.owner {
            // SAFETY: made by `From<Vec<u8>>` from exactly these parts; dropped once.
            Owner::Vec => drop(unsafe { Vec::from_raw_parts(self.data.as_ptr(), 0, self.capacity) }),
            Owner::Bytes(bytes) => drop(std::mem::take(bytes)),
            // What a child is told of the parent's pool is a copy, perhaps in the middle of a change.
            Owner::Pool { fork, .. } if fork.forked() => {}
            Owner::Pool { pool, segment, .. } => {
                pool.release(segment, offset_in(segment, self.data), self.capacity);
            }
            Owner::Foreign { release } => {
                if let Some(release) = release.take() {
                    release();
                }
            }
        }
    }
}

impl From<Vec<u8>> for Buf {
    fn from(mut vec: Vec<u8>) -> Self {
        let len = vec.len();
        // All bytes up to the capacity are initialised from here on, so that `set_len` is safe.
        let capacity = vec.capacity();
        vec.resize(capacity, 0);
        let mut vec = std::mem::ManuallyDrop::new(vec);
        let data = NonNull::new(vec.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Self { data, len, capacity, owner: Owner::Vec }
    }
}

impl From<Box<[u8]>> for Buf {
    fn from(bytes: Box<[u8]>) -> Self {
        Vec::from(bytes).into()
    }
}

impl From<Bytes> for Buf {
    fn from(bytes: Bytes) -> Self {
        let data = NonNull::new(bytes.as_ptr().cast_mut()).unwrap_or(NonNull::dangling());
        Self { data, len: bytes.len(), capacity: bytes.len(), owner: Owner::Bytes(bytes) }
    }
}

impl From<&[u8]> for Buf {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl From<&str> for Buf {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::ops::Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = match self.owner {
            Owner::Vec => "heap",
            Owner::Bytes(_) => "bytes",
            Owner::Pool { .. } => "pool",
            Owner::Foreign { .. } => "foreign",
        };
        write!(f, "Buf({} of {} bytes, {owner})", self.len(), self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vec_goes_in_and_comes_back_without_a_copy() {
        let vec = vec![1, 2, 3];
        let place = vec.as_ptr();
        let buf = Buf::from(vec);
        assert_eq!(&*buf, [1, 2, 3]);
        let back = buf.into_vec();
        assert_eq!((back.as_ptr(), &*back), (place, &[1, 2, 3][..]));
    }

    #[test]
    fn growing_shows_initialised_bytes_only() {
        let mut vec = Vec::with_capacity(64);
        vec.push(9);
        let mut buf = Buf::from(vec);
        let capacity = buf.capacity();
        buf.set_len(capacity);
        assert!(buf[1..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn bytes_cannot_be_written() {
        let mut buf = Buf::from(Bytes::from_static(b"shared"));
        assert!(buf.as_mut_slice().is_none());
        assert_eq!(buf.into_vec(), b"shared");
    }
}
