//! What has ended of a pipe's sends.
#![allow(unsafe_code)]

use super::places::Places;
use super::{Pipe, Reader};
use crate::error::{Error, Result};
use crate::memory::Buffer;
use crate::qp::Connected;
use crate::work::WorkError;
use std::iter::FusedIterator;
use std::mem::ManuallyDrop;

/// Operations that ended one after the other, all with success, or one that failed; none when nothing has ended. Their buffers, in the order posted: what is not taken is dropped with
/// this, and told again by the next poll where this is forgotten.
#[must_use = "the buffers are in here"]
#[derive(Debug)]
pub struct Run<'pipe> {
    places: &'pipe mut Places,
    failure: Option<WorkError>,
}

impl Run<'_> {
    /// How they ended.
    ///
    /// # Errors
    /// Why the device did not do the one that failed.
    #[inline(always)]
    pub const fn result(&self) -> std::result::Result<(), WorkError> {
        match self.failure {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Moves the buffers to the end of a list: less work than one by one. Allocates nothing where the list has room.
    #[inline(always)]
    pub fn append_to(self, list: &mut Vec<Buffer>) {
        // Nothing is left to be dropped; where the list cannot grow, the next poll tells of all again.
        ManuallyDrop::new(self).places.pop_all(list);
    }
}

impl Iterator for Run<'_> {
    type Item = Buffer;

    #[inline(always)]
    fn next(&mut self) -> Option<Buffer> {
        self.places.pop()
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.places.ended() as usize;
        (count, Some(count))
    }
}

impl ExactSizeIterator for Run<'_> {}
impl FusedIterator for Run<'_> {}

impl Drop for Run<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.places.ended() > 0 {
            drop_all(self.places);
        }
    }
}

#[cold]
fn drop_all(places: &mut Places) {
    while let Some(buffer) = places.pop() {
        drop(buffer);
    }
}

impl<S: Connected> Pipe<S> {
    /// What has ended of the sends, writes and reads since the last poll. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`Error::Call`] when the device failed: what is out stays with the pipe.
    #[inline(always)]
    pub fn poll(&mut self) -> Result<Run<'_>> {
        // Nothing is left of a run that was forgotten, nor of what was read.
        if self.sends.ended() + self.sent.left as u64 > 0 {
            return self.poll_otherwise();
        }
        let Reader { queue, batch, .. } = &mut self.sent;
        let Some(count) = queue.poll_legacy(&mut batch[..]) else {
            return Err(self.poll_failed());
        };
        let (oldest, out) = (self.sends.oldest(), self.sends.out());
        let mut before = oldest;
        let mut rest = &batch[..count];
        while let [completion, others @ ..] = rest {
            let number = completion.wr_id();
            // A device may say anything: one that is not out is judged apart, and so is what failed.
            if completion.ok().is_err()
                || completion.qp_num() != self.number
                || number.wrapping_sub(oldest) >= out
            {
                (self.sent.next, self.sent.left) = (count - rest.len(), rest.len());
                // SAFETY: as below.
                unsafe { self.sends.end_before(before) };
                return self.poll_otherwise();
            }
            before = number + 1;
            rest = others;
        }
        // SAFETY: requests of a connection end in the order posted, so the device is done with all before one that completed; the last number was one that is out.
        unsafe { self.sends.end_before(before) };
        Ok(Run { places: &mut self.sends, failure: None })
    }

    #[cold]
    fn poll_failed(&self) -> Error {
        *self.sent.queue.failed()
    }

    /// The same where a run was forgotten, a request failed, or a completion is of none that is out.
    #[cold]
    fn poll_otherwise(&mut self) -> Result<Run<'_>> {
        // A device that makes completions up keeps nobody here.
        let mut patience = self.sent.queue.entries();
        while self.sends.ended() == 0
            && patience > 0
            && let Some(completion) = self.sent.peek()?
        {
            let (number, oldest) = (completion.wr_id(), self.sends.oldest());
            if completion.qp_num() != self.number || number.wrapping_sub(oldest) >= self.sends.out() {
                self.strays += 1;
                self.sent.skip();
                patience -= 1;
                continue;
            }
            // Those before one that failed have ended well: they are told first, and it by the next poll.
            let is_told_later = completion.ok().is_err() && number > oldest;
            if !is_told_later {
                self.sent.skip();
                self.failed = completion.ok().err().map(|error| (number, error));
            }
            // SAFETY: as above; the number is one that is out.
            unsafe { self.sends.end_before(if is_told_later { number } else { number + 1 }) };
        }
        let first = self.sends.first_ended();
        let failure = self.failed.filter(|(number, _)| *number == first).map(|(_, error)| error);
        Ok(Run { places: &mut self.sends, failure })
    }
}
