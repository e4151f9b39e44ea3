//! A frame's body as a lane hands it up: readable for the duration of the call, and possibly written by the peer meanwhile.
#![allow(unsafe_code)]

use core::marker::PhantomData;

/// Bytes that may change while they are read. There is no way to a `&[u8]` in safe code; copy out, then look.
#[derive(Clone, Copy)]
pub struct Body<'a> {
    data: *const u8,
    len: usize,
    _lifetime: PhantomData<&'a [u8]>,
}

impl<'a> Body<'a> {
    /// A body over private memory.
    #[must_use]
    #[inline]
    pub const fn from_slice(bytes: &'a [u8]) -> Self {
        Self { data: bytes.as_ptr(), len: bytes.len(), _lifetime: PhantomData }
    }

    /// A body over memory that a peer may write.
    ///
    /// # Safety
    /// `data` is readable for `len` bytes for all of `'a`. Others may write it meanwhile.
    #[must_use]
    #[inline]
    pub const unsafe fn from_raw(data: *const u8, len: usize) -> Self {
        Self { data, len, _lifetime: PhantomData }
    }

    /// Whether it begins in the `len` bytes at `place`.
    #[must_use]
    #[inline]
    pub fn lies_in(&self, place: *const u8, len: usize) -> bool {
        self.data.addr().wrapping_sub(place.addr()) < len
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The body without its first `count` bytes; empty when it has fewer.
    #[must_use]
    #[inline]
    pub fn skip(&self, count: usize) -> Self {
        let count = count.min(self.len);
        // SAFETY: `count <= len`, so the result stays inside (or one past) the same readable range.
        unsafe { Self::from_raw(self.data.add(count), self.len - count) }
    }

    /// The first `count` bytes, or all when there are fewer.
    #[must_use]
    #[inline]
    pub fn take(&self, count: usize) -> Self {
        Self { data: self.data, len: self.len.min(count), _lifetime: PhantomData }
    }

    /// Copies the first bytes into `target` and says how many: the smaller of both lengths.
    #[inline]
    pub fn copy_to(&self, target: &mut [u8]) -> usize {
        let len = self.len.min(target.len());
        // SAFETY: the body is readable for `len` bytes by construction, `target` is exclusive.
        unsafe { sinew_base::copy::from_shared(self.data, target.as_mut_ptr(), len) };
        len
    }

    /// Copies the first `len` bytes to raw memory.
    ///
    /// # Safety
    /// `target` is writable for `len` bytes and nothing else accesses it during the call.
    ///
    /// # Panics
    /// When the body has fewer than `len` bytes.
    #[inline(always)]
    pub unsafe fn copy_to_raw(&self, target: *mut u8, len: usize) {
        assert!(len <= self.len, "copy of {len} bytes out of a body of {}", self.len);
        // SAFETY: checked above and by the caller.
        unsafe { sinew_base::copy::from_shared(self.data, target, len) };
    }

    /// [`Body::copy_to_raw`] of private memory that `target` may overlap, or be: then nothing is copied.
    ///
    /// # Safety
    /// As for [`Body::copy_to_raw`], but for the body itself, which is not used any more.
    ///
    /// # Panics
    /// When the body has fewer than `len` bytes.
    #[inline]
    pub unsafe fn move_to_raw(self, target: *mut u8, len: usize) {
        assert!(len <= self.len, "move of {len} bytes out of a body of {}", self.len);
        if !std::ptr::eq(self.data, target) {
            // SAFETY: checked above and by the caller; both may overlap.
            unsafe { std::ptr::copy(self.data, target, len) };
        }
    }

    /// [`Body::copy_to_raw`] of all bytes, as a piece of a copy of `whole` bytes: long ones go past the caches.
    ///
    /// # Safety
    /// `target` is writable for [`Body::len`] bytes and nothing else accesses it during the call.
    #[inline]
    pub unsafe fn copy_part_to_raw(&self, target: *mut u8, whole: usize) {
        // SAFETY: the body is readable for its length by construction, the target says the caller.
        unsafe { sinew_base::copy::from_shared_part(self.data, target, self.len, whole) };
    }

    /// The first `N` bytes, or `None` when there are fewer.
    #[must_use]
    #[inline]
    pub fn prefix<const N: usize>(&self) -> Option<[u8; N]> {
        if self.len < N {
            return None;
        }
        let mut out = [0; N];
        self.copy_to(&mut out);
        Some(out)
    }

    /// The little-endian `u64` at byte `at`, or `None` when the body ends before it does.
    #[must_use]
    #[inline]
    pub fn u64_at(&self, at: usize) -> Option<u64> {
        if at > self.len {
            return None;
        }
        self.skip(at).prefix().map(u64::from_le_bytes)
    }

    /// A private copy of all bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.len];
        self.copy_to(&mut out);
        out
    }
}

impl core::fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Body({} bytes)", self.len)
    }
}
