//! Buffers of one size, registered once: taken without allocation, back when they are dropped.
#![allow(unsafe_code)]

use super::buffer::{Buffer, Range};
use super::region::Registered;
use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers of one region. `Clone` is another handle to the same; `Send` and `Sync`. The region ends with the last of the pool's handles and
/// buffers.
///
/// Taking and giving back cost a lock that nobody holds for longer than a push. A buffer that an operation has is not here: a pool
/// bounds what is out.
#[derive(Clone, Debug)]
pub struct BufferPool {
    home: Arc<Home>,
    buffer_len: usize,
    count: usize,
}

/// Where buffers of a pool go back to.
#[derive(Debug)]
pub(super) struct Home {
    /// Boxed, as buffers are: one goes and comes without allocation.
    #[expect(clippy::vec_box, reason = "the boxes are what goes in and out")]
    free: Mutex<Vec<Box<Range>>>,
}

impl Home {
    pub(super) fn back(&self, range: Box<Range>) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(range);
    }
}

impl BufferPool {
    /// Divides a private region into buffers of `buffer_len` bytes, at most `most` of them; what is left at its end is not used.
    ///
    /// # Errors
    /// [`Error::Invalid`] when not even one fits.
    pub(crate) fn new(region: &Arc<Registered>, buffer_len: usize, most: usize) -> Result<Self> {
        let count = region.len().checked_div(buffer_len).unwrap_or(0).min(most);
        if count == 0 {
            return Err(Error::invalid(
                "pool of buffers",
                format!("no buffer of {buffer_len} bytes fits {region:?}"),
                "take at least one buffer of at least 1 byte",
            ));
        }
        // The last one first, so that the first is taken first.
        let places = (0..count).rev().map(|index| {
            // SAFETY: `index` is less than the number of buffers that fit, and their ranges do not overlap.
            Box::new(unsafe {
                Range::new(region.start().add(index * buffer_len), buffer_len, region.clone())
            })
        });
        let free = Mutex::new(places.collect());
        Ok(Self { home: Arc::new(Home { free }), buffer_len, count })
    }

    /// A buffer, with whatever bytes its last user left in it, or nothing while all are out.
    #[must_use]
    pub fn take(&self) -> Option<Buffer> {
        let range = self.home.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Buffer::of_pool(range, self.home.clone()))
    }

    /// How many are here.
    #[must_use]
    pub fn available(&self) -> usize {
        self.home.free.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many there are, here and out.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Bytes of each.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        self.buffer_len
    }
}
