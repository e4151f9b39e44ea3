//! The posts of a hub: where its promise to the device is made.
#![allow(unsafe_code)]

use super::operation::{Elements, Kept, NO_ELEMENTS};
use super::{Held, Hub, Member, Operation};
use crate::error::Error;
use crate::pd::ProtectionDomain;
use crate::qp::{ReceiveRequest, Service};
use std::fmt;

/// Operations of one doorbell, at most.
const BATCH: usize = 16;

/// An operation that was not posted, with its memory.
#[derive(Debug)]
pub struct Rejected<T> {
    /// What was not posted.
    pub operation: T,
    /// Why.
    pub error: Error,
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T: fmt::Debug> std::error::Error for Rejected<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// The part of a batch that was not posted.
#[derive(Debug)]
pub struct BatchRejected {
    /// How many were posted before.
    pub posted: usize,
    /// The memory of those that were handed to the device's queue and refused, in order. What the iterator had not given yet stays
    /// with the caller.
    pub held: Vec<Held>,
    /// Why.
    pub error: Error,
}

impl fmt::Display for BatchRejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} posted operations: {}", self.posted, self.error)
    }
}

impl std::error::Error for BatchRejected {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<S: Service> Hub<S> {
    /// Posts an operation. Never blocks, never allocates.
    ///
    /// # Errors
    /// With the operation: [`Error::Full`] when the send queue has no place; [`Error::Invalid`] for memory of another domain, lengths that
    /// it does not have, or a member that was removed; [`Error::Unsupported`] for what the device lacks.
    #[inline]
    pub fn post(&mut self, member: Member, operation: Operation<S>) -> Result<(), Rejected<Operation<S>>> {
        let Operation { shape, kept } = operation;
        let mut elements = NO_ELEMENTS;
        let place = &mut elements;
        // SAFETY: the payload is the operation's memory: owned, registered in the queue pair's domain, and reached by nobody else until it
        // comes back (a buffer), or never a slice (a part). The tracker lets it go only when the device is done.
        let posted = unsafe {
            self.tracker.post_send(member, |kept, wr_id, pd| shape.request(kept, wr_id, pd, place), kept)
        };
        match posted {
            Ok(()) => Ok(()),
            Err((kept, error)) => {
                // What the device may have taken comes by `poll`.
                let kept = kept.unwrap_or_else(|| Kept::new(Held::Nothing, 0));
                Err(Rejected { operation: Operation { shape, kept }, error: *error })
            }
        }
    }

    /// Posts operations with one doorbell for each 16 of them, as many as the send queue has room for; an operation that is not asked for
    /// stays in the iterator. How many were posted: none of an iterator that says to be empty (`size_hint`). Never blocks, never allocates.
    ///
    /// # Errors
    /// As for [`post`](Self::post), with the memory of what was refused; [`Error::Full`] when the send queue had no place at all.
    pub fn post_batch(
        &mut self,
        member: Member,
        operations: &mut (impl Iterator<Item = Operation<S>> + ?Sized),
    ) -> Result<usize, BatchRejected> {
        let mut posted = 0;
        // A full queue asks for no operation, and so cannot see that there is none.
        if operations.size_hint().1 == Some(0) {
            return self.tracker.qp(member).map(|_| 0).map_err(|error| BatchRejected {
                posted,
                held: Vec::new(),
                error,
            });
        }
        loop {
            match self.post_some(member, operations) {
                Ok(BATCH) => posted += BATCH,
                Ok(count) => return Ok(posted + count),
                // What was posted fills the queue: the rest stays in the iterator.
                Err(rejected) if posted > 0 && rejected.held.is_empty() && rejected.error.is_retryable() => {
                    return Ok(posted);
                }
                Err(rejected) => return Err(BatchRejected { posted: posted + rejected.posted, ..rejected }),
            }
        }
    }

    #[inline]
    fn post_some(
        &mut self,
        member: Member,
        operations: &mut (impl Iterator<Item = Operation<S>> + ?Sized),
    ) -> Result<usize, BatchRejected> {
        let mut elements = [NO_ELEMENTS; BATCH];
        let mut places = elements.iter_mut();
        let mut refused = None;
        let next = |wr_id, pd: &ProtectionDomain, keep: &mut Option<Kept<S>>| {
            let place = places.next()?;
            let Operation { shape, kept } = operations.next()?;
            match shape.request(keep.insert(kept), wr_id, pd, place) {
                Ok(request) => Some(request),
                Err(error) => {
                    refused = keep.take().map(|kept| (kept.into_held(), error));
                    None
                }
            }
        };
        // SAFETY: as for one operation, of each.
        let answer = unsafe { self.tracker.post_sends::<BATCH>(member, next) };
        match (answer, refused) {
            (Ok(count), None) => Ok(count),
            (Ok(posted), Some((held, error))) => {
                Err(BatchRejected { posted, held: vec![held], error: *error })
            }
            (Err(failed), refused) => {
                let held =
                    failed.payloads.into_iter().map(Kept::into_held).chain(refused.map(|(held, _)| held));
                Err(BatchRejected { posted: failed.posted, held: held.collect(), error: failed.error })
            }
        }
    }

    /// Posts a receive that the next message takes, to whichever queue pair it comes: [`Completed::member`](super::Completed) says to which; when that was removed
    /// meanwhile, it names nothing. Never blocks, never allocates.
    ///
    /// # Errors
    /// With the memory: [`Error::Full`] when the shared queue has no place; [`Error::Invalid`] without
    /// [`share_receives`](Self::share_receives), or for memory of another domain than was given there.
    pub fn post_shared_receive(&mut self, held: impl Into<Held>, tag: u64) -> Result<(), Rejected<Held>> {
        let mut elements = NO_ELEMENTS;
        // SAFETY: as for an operation.
        let posted = unsafe {
            self.tracker.post_shared_receive(receive::<S>(&mut elements), Kept::new(held.into(), tag))
        };
        posted.map_err(rejected)
    }

    /// Posts a receive: a message of up to the memory's length goes there. Never blocks, never allocates.
    ///
    /// # Errors
    /// With the memory, as for [`post`](Self::post).
    #[inline]
    pub fn post_receive(
        &mut self,
        member: Member,
        held: impl Into<Held>,
        tag: u64,
    ) -> Result<(), Rejected<Held>> {
        let mut elements = NO_ELEMENTS;
        // SAFETY: as for an operation.
        let posted = unsafe {
            self.tracker.post_receive(member, receive::<S>(&mut elements), Kept::new(held.into(), tag))
        };
        posted.map_err(rejected)
    }
}

/// A receive that was not posted, or that the device may have taken all the same: then its memory comes by `poll`.
#[cold]
fn rejected<S: Service>((kept, error): (Option<Kept<S>>, Box<Error>)) -> Rejected<Held> {
    Rejected { operation: kept.map_or(Held::Nothing, Kept::into_held), error: *error }
}

/// How a receive into the memory that it keeps is made.
#[inline]
fn receive<'l, S: Service>(
    elements: &'l mut Elements,
) -> impl FnOnce(&Kept<S>, u64, &ProtectionDomain) -> Result<ReceiveRequest<'l>, Box<Error>> {
    move |kept, wr_id, pd| {
        let count = kept.held().elements(None, pd, elements)?;
        Ok(ReceiveRequest::of(wr_id, elements.as_ptr().cast(), count as usize))
    }
}
