//! What has ended of a pipe's sends.
#![allow(unsafe_code)]

use super::inline::INLINE;
use super::places::Places;
use super::{Pipe, Reader};
use crate::cq::WorkCompletion;
use crate::error::{Error, Result};
use crate::memory::Buffer;
use crate::qp::Connected;
use crate::work::WorkError;
use std::iter::FusedIterator;
use std::mem::ManuallyDrop;

/// Operations that ended one after the other, all with success, or one that failed; none when nothing has ended. Their buffers, in the order posted: what is not taken is dropped with
/// this, and told again by the next poll where this is forgotten. Inline ones have no buffer: a failure of theirs comes without one, and is told once.
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

/// Which send a completion is of.
pub(super) enum Of {
    /// One with a buffer, by its number.
    Buffer(u64),
    /// An inline one, by its own.
    Inline(u64),
}

impl<S: Connected, E> Pipe<S, E> {
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
            // A device may say anything: one that is not out is judged apart, and so is what failed, or is inline.
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

    /// The same where a run was forgotten, a request failed or is inline, or a completion is of none that is out.
    #[cold]
    fn poll_otherwise(&mut self) -> Result<Run<'_>> {
        let mut failure = None;
        while self.sends.ended() == 0
            && failure.is_none()
            && let Some((completion, of)) = self.next_sent()?
        {
            failure = self.end(&completion, &of);
        }
        // What has ended well behind one that did is told with it, as far as it was read.
        while self.failed.is_none_or(|(number, _)| number < self.sends.first_ended())
            && failure.is_none()
            && self.sent.left > 0
            && let Some((completion, of)) = self.next_sent()?
            && completion.ok().is_ok()
        {
            failure = self.end(&completion, &of);
        }
        self.count_inlines();
        let first = self.sends.first_ended();
        let of_first = self.failed.filter(|(number, _)| *number == first && self.sends.ended() > 0);
        let failure = failure.or(of_first.map(|(_, error)| error));
        Ok(Run { places: &mut self.sends, failure })
    }

    /// Ends what a completion says, unless it failed and others that ended well are to be told before. The failure of an inline one.
    fn end(&mut self, completion: &WorkCompletion, of: &Of) -> Option<WorkError> {
        let before = match of {
            Of::Buffer(number) => *number,
            Of::Inline(number) => self.inlines.before(*number).max(self.sends.oldest()),
        };
        // SAFETY: requests of a connection end in the order posted, so the device is done with all before one that completed, also with an error; the number is of one that is out, or the
        // next.
        unsafe { self.sends.end_before(before) };
        let failure = completion.ok().err();
        if failure.is_some() && self.sends.ended() > 0 {
            return None;
        }
        self.sent.skip();
        match of {
            Of::Inline(number) => {
                self.inlines.end(*number);
                failure
            }
            Of::Buffer(number) => {
                self.failed = failure.map(|error| (*number, error));
                // SAFETY: as above; it is out, and the device is done with it too.
                unsafe { self.sends.end_before(number + 1) };
                None
            }
        }
    }

    /// The completion of a send that comes next, and whose it is. It stays the next.
    pub(super) fn next_sent(&mut self) -> Result<Option<(WorkCompletion, Of)>> {
        // A device that makes completions up keeps nobody here.
        for _ in 0..self.sent.queue.entries() {
            let Some(completion) = self.sent.peek()? else { break };
            let number = completion.wr_id();
            if completion.qp_num() == self.number {
                if number.wrapping_sub(self.sends.oldest()) < self.sends.out() {
                    return Ok(Some((completion, Of::Buffer(number))));
                }
                if number & INLINE != 0 && self.inlines.is_out(number & !INLINE) {
                    return Ok(Some((completion, Of::Inline(number & !INLINE))));
                }
            }
            self.strays += 1;
            self.sent.skip();
        }
        Ok(None)
    }
}
