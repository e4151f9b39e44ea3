//! Reads completions in batches that it owns, and lends them one by one.

use super::completion::{Fields, WorkCompletion};
use super::queue::CompletionQueue;
use crate::error::Result;
use std::fmt;
use std::ops::Deref;

/// Reads a completion queue, and holds it. `Send`. Several pollers of one queue share its completions: each goes to one of them.
///
/// The device's lock is not held while completions are looked at: polling inside of the loop, on the same queue, is fine.
pub struct Poller {
    queue: CompletionQueue,
    batch: Box<[WorkCompletion]>,
    /// As long as the batch where the queue tells times, empty otherwise.
    stamps: Box<[u64]>,
}

/// What one poll found; lent by its poller.
#[derive(Debug)]
pub struct Completions<'poller> {
    batch: std::slice::Iter<'poller, WorkCompletion>,
    stamps: std::slice::Iter<'poller, u64>,
    fields: Fields,
}

/// One completion with its time.
#[derive(Clone, Copy)]
pub struct Completion<'poller> {
    work: &'poller WorkCompletion,
    stamp: Option<u64>,
    fields: Fields,
}

impl Poller {
    pub(super) fn new(queue: CompletionQueue, batch: usize) -> Self {
        // More than the queue holds never come at once.
        let batch = batch.clamp(1, queue.entries().max(1) as usize);
        let stamps = if queue.fields().is_empty() { 0 } else { batch };
        Self {
            batch: vec![WorkCompletion::EMPTY; batch].into_boxed_slice(),
            stamps: vec![0; stamps].into_boxed_slice(),
            queue,
        }
    }

    /// The queue.
    #[must_use]
    pub const fn queue(&self) -> &CompletionQueue {
        &self.queue
    }

    /// What there is now, up to a batch; nothing when there is nothing. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`Error::Call`](crate::Error::Call) when the device failed.
    #[inline]
    pub fn poll(&mut self) -> Result<Completions<'_>> {
        let fields = self.queue.fields();
        let count = if fields.is_empty() {
            self.queue.poll_into(&mut self.batch)?
        } else {
            self.queue.poll_extended(&mut self.batch, &mut self.stamps)?
        };
        let stamps = self.stamps.get(..count).unwrap_or_default();
        Ok(Completions { batch: self.batch[..count].iter(), stamps: stamps.iter(), fields })
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Poller({:?}, {} at once)", self.queue, self.batch.len())
    }
}

impl<'poller> Iterator for Completions<'poller> {
    type Item = Completion<'poller>;

    #[inline]
    fn next(&mut self) -> Option<Completion<'poller>> {
        let work = self.batch.next()?;
        Some(Completion { work, stamp: self.stamps.next().copied(), fields: self.fields })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.batch.size_hint()
    }
}

impl ExactSizeIterator for Completions<'_> {}
impl std::iter::FusedIterator for Completions<'_> {}

impl Completion<'_> {
    /// When it completed, in ticks of the device's clock (`DeviceAttributes::clock_khz`); nothing unless the queue was made
    /// with [`Fields::TIMESTAMP`].
    #[must_use]
    pub fn timestamp(&self) -> Option<u64> {
        self.stamp.filter(|_| self.fields == Fields::TIMESTAMP)
    }

    /// When it completed, in nanoseconds since 1970; nothing unless the queue was made with [`Fields::WALL_CLOCK`].
    #[must_use]
    pub fn wall_clock_ns(&self) -> Option<u64> {
        self.stamp.filter(|_| self.fields == Fields::WALL_CLOCK)
    }
}

impl Deref for Completion<'_> {
    type Target = WorkCompletion;

    fn deref(&self) -> &WorkCompletion {
        self.work
    }
}

impl fmt::Debug for Completion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.work.fmt(f)
    }
}
