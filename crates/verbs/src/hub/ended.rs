//! A request that ended, while its payload still lies where it was kept.
//!
//! Made by the tracker's poll.
#![allow(unsafe_code)]

use super::member::{Member, Side, parts};
use super::ring::Ring;
use super::tracker::Tracker;
use crate::cq::WorkCompletion;
use crate::qp::Service;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// A request that ended. Its payload is here until it is [taken](Self::take), or this is dropped; where this is forgotten, the next poll tells of it
/// again.
///
/// Few words, and nothing that could be worked out later: polling puts it together for each completion.
#[must_use]
pub(crate) struct Ended<'t, S: Service, P> {
    /// It has read the completion, and stands at it.
    tracker: &'t mut Tracker<S, P>,
    /// Its queue, of a member of the tracker; dangling where all queue pairs share it.
    ring: NonNull<Ring<P>>,
    how: How,
}

/// Which request ended.
#[derive(Clone, Copy, PartialEq, Eq)]
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

impl<'t, S: Service, P> Ended<'t, S, P> {
    /// What the completion says that the tracker stands at.
    ///
    /// # Safety
    /// The ring is of a member of the tracker, unless the request is a shared one.
    #[inline(always)]
    pub(super) const unsafe fn new(
        tracker: &'t mut Tracker<S, P>,
        how: How,
        ring: NonNull<Ring<P>>,
    ) -> Self {
        Self { tracker, ring, how }
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
        let (_, _, number) = parts(self.its_completion().wr_id());
        if self.how == How::Shared {
            return self.tracker.shared()?.get(number);
        }
        // SAFETY: of a member, which is borrowed with the tracker, for this is the only way to it meanwhile.
        let ring = unsafe { self.ring.as_ref() };
        ring.get(if self.how == How::Later { number } else { ring.oldest() })
    }

    /// Its completion; nothing for an unsignaled request, which a later one shows to have succeeded.
    #[inline]
    pub(crate) fn completion(&self) -> Option<&WorkCompletion> {
        if self.how == How::Before { None } else { Some(self.its_completion()) }
    }

    /// A part of what it kept, which is the caller's from here on, if it is the oldest of its queue, and `pick` finds that part in its place
    /// and takes it all out. Otherwise this again.
    #[inline(always)]
    pub(crate) fn pick<T>(self, pick: impl FnOnce(&mut Option<P>) -> Option<T>) -> Result<T, Self> {
        let mut this = ManuallyDrop::new(self);
        if matches!(this.how, How::Oldest | How::Before) {
            // SAFETY: as of `payload`, borrowed mutably.
            if let Some(picked) = unsafe { this.ring.as_mut() }.pick_oldest(pick) {
                if this.how == How::Oldest {
                    this.tracker.advance();
                }
                return Ok(picked);
            }
        }
        Err(ManuallyDrop::into_inner(this))
    }

    /// What it kept, which is the caller's from here on.
    #[inline]
    pub(crate) fn take(self) -> Option<P> {
        let mut this = ManuallyDrop::new(self);
        this.end()
    }

    fn end(&mut self) -> Option<P> {
        let (_, _, number) = parts(self.its_completion().wr_id());
        if self.how != How::Before {
            self.tracker.advance();
        }
        if self.how == How::Shared {
            return self.tracker.end_shared(number);
        }
        // SAFETY: as of `payload`, borrowed mutably.
        let ring = unsafe { self.ring.as_mut() };
        if self.how == How::Later { ring.end_one(number) } else { ring.end_oldest() }
    }
}

impl<S: Service, P> Drop for Ended<'_, S, P> {
    fn drop(&mut self) {
        drop(self.end());
    }
}
