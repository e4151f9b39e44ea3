//! A request that ended, while its payload still lies where it was kept.
//!
//! Made by the tracker's poll.
#![allow(unsafe_code)]

use super::member::{Member, Side, parts};
use super::ring::Ring;
use super::tracker::Tracker;
use crate::cq::WorkCompletion;
use crate::qp::Service;
use crate::work::WorkError;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// A request that ended. Its payload is here until it is [taken](Self::take), or this is dropped; where this is forgotten, the next poll tells of it
/// again.
///
/// Few words, and nothing that could be worked out later: polling puts it together for each completion.
#[must_use]
pub(crate) struct Ended<'t, S: Service, P: Payload> {
    /// It has read the completion, and stands at it.
    tracker: &'t mut Tracker<S, P>,
    /// Its queue, of a member of the tracker; dangling where all queue pairs share it.
    ring: NonNull<Ring<P>>,
    /// Its place there; dangling too.
    place: NonNull<Option<P>>,
    how: How,
}

/// Where a request that ended lies.
pub(super) struct Found<P> {
    pub(super) how: How,
    /// Its queue, of a member; dangling where all queue pairs share it.
    pub(super) ring: NonNull<Ring<P>>,
    /// Its place there; dangling too.
    pub(super) place: NonNull<Option<P>>,
    /// Whether it ends with a later one, which is told of instead: there is nothing in its place.
    pub(super) is_link: bool,
}

/// Which request ended. As wide as a pointer: a narrow one would be moved with the bytes beside it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum How {
    /// The oldest of its queue, by its own completion.
    Oldest,
    /// The oldest, unsignaled, by the completion of a later one, which is told last.
    Before,
    /// One of which others are older.
    Later,
    /// One that all queue pairs share.
    Shared,
}

/// What a request keeps, as far as polling has to know.
pub(crate) trait Payload {
    /// One of those failed that end with this one.
    fn fail(&mut self, _: WorkError) {}

    /// Why it did.
    #[inline]
    fn failure(&self) -> Option<WorkError> {
        None
    }
}

impl<'t, S: Service, P: Payload> Ended<'t, S, P> {
    /// What the completion says that the tracker stands at.
    ///
    /// # Safety
    /// Ring and place are of a member of the tracker, unless the request is a shared one.
    #[inline(always)]
    pub(super) const unsafe fn new(tracker: &'t mut Tracker<S, P>, found: Found<P>) -> Self {
        let Found { how, ring, place, .. } = found;
        Self { tracker, ring, place, how }
    }

    #[inline]
    fn its_completion(&self) -> &WorkCompletion {
        self.tracker.current()
    }

    /// Its queue pair.
    #[inline]
    pub(crate) fn member(&self) -> Member {
        let completion = self.its_completion();
        match self.how {
            How::Shared => self.tracker.who_took(completion),
            _ => parts(completion.wr_id()).1,
        }
    }

    /// Which of its queues.
    #[inline]
    pub(crate) fn side(&self) -> Side {
        parts(self.its_completion().wr_id()).0
    }

    /// What it kept.
    #[inline]
    pub(crate) fn payload(&self) -> Option<&P> {
        if self.how == How::Shared {
            let (_, _, number) = parts(self.its_completion().wr_id());
            return self.tracker.shared()?.get(number);
        }
        // SAFETY: of a member, which is borrowed with the tracker, for this is the only way to it meanwhile.
        unsafe { self.place.as_ref() }.as_ref()
    }

    /// Why the first of those failed that end with it.
    #[cold]
    pub(crate) fn first_failure(&self) -> Option<WorkError> {
        self.payload().and_then(Payload::failure)
    }

    /// Its completion; nothing for an unsignaled request, which a later one shows to have succeeded.
    #[inline]
    pub(crate) fn completion(&self) -> Option<&WorkCompletion> {
        if self.how == How::Before { None } else { Some(self.its_completion()) }
    }

    /// A part of what it kept, which is the caller's from here on: what `pick` takes out of its place, and nothing else, where it is the oldest of
    /// its queue; otherwise what `other` makes of all of it.
    #[inline(always)]
    pub(crate) fn pick<T>(
        self,
        pick: impl FnOnce(&mut Option<P>) -> Option<T>,
        other: impl FnOnce(P) -> Option<T>,
    ) -> Option<T> {
        let mut this = ManuallyDrop::new(self);
        if matches!(this.how, How::Oldest | How::Before) {
            // SAFETY: as of `payload`, borrowed mutably.
            if let Some(picked) = pick(unsafe { this.place.as_mut() }) {
                // SAFETY: the same; the borrow of its place has ended.
                unsafe { this.ring.as_mut() }.skip_oldest();
                if this.how == How::Oldest {
                    this.tracker.advance();
                }
                return Some(picked);
            }
        }
        let (ring, how) = (this.ring, this.how);
        // SAFETY: ended once, as this is not dropped.
        other(unsafe { end(this.tracker, ring, how) }?)
    }

    /// What it kept, which is the caller's from here on.
    #[inline]
    pub(crate) fn take(self) -> Option<P> {
        let mut this = ManuallyDrop::new(self);
        let (ring, how) = (this.ring, this.how);
        // SAFETY: ended once, as this is not dropped.
        unsafe { end(this.tracker, ring, how) }
    }
}

impl<S: Service, P: Payload> Drop for Ended<'_, S, P> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: ended once, here.
        unsafe { discard(self.tracker, self.ring, self.how) }
    }
}

/// Ends a request: what it kept. Its words one by one, so that they need not lie in memory.
///
/// # Safety
/// They are those of one [`Ended`], and are given once.
#[inline(never)]
unsafe fn end<S: Service, P: Payload>(
    tracker: &mut Tracker<S, P>,
    mut ring: NonNull<Ring<P>>,
    how: How,
) -> Option<P> {
    let (_, _, number) = parts(tracker.current().wr_id());
    if how != How::Before {
        tracker.advance();
    }
    if how == How::Shared {
        return tracker.end_shared(number);
    }
    // SAFETY: of a member, which is borrowed with the tracker, for this is the only way to it meanwhile.
    let ring = unsafe { ring.as_mut() };
    if how == How::Later { ring.end_one(number) } else { ring.end_oldest() }
}

/// The same, dropped.
///
/// # Safety
/// As of [`end`].
#[inline(never)]
unsafe fn discard<S: Service, P: Payload>(tracker: &mut Tracker<S, P>, ring: NonNull<Ring<P>>, how: How) {
    // SAFETY: by the caller's promise.
    drop(unsafe { end(tracker, ring, how) });
}
