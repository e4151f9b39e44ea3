//! A request that ended, while its payload still lies where it was kept.
//!
//! Made by the tracker's poll.

use super::member::{Member, Side, parts};
use super::ring::Ring;
use super::shared::Shared;
use crate::cq::WorkCompletion;
use std::mem::ManuallyDrop;

/// A request that ended. Its payload is here until it is [taken](Self::take), or this is dropped; where this is forgotten, the next poll tells of it
/// again.
#[must_use]
pub(crate) struct Ended<'t, P> {
    pub(crate) member: Member,
    pub(crate) side: Side,
    pub(super) how: How,
    /// Its queue; nothing where all queue pairs share it.
    pub(super) ring: Option<&'t mut Ring<P>>,
    pub(super) shared: &'t mut Option<Shared<P>>,
    pub(super) completion: &'t WorkCompletion,
    /// Which completion comes next.
    pub(super) next: &'t mut usize,
}

/// Which request of its queue ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The oldest, by its own completion.
    Oldest,
    /// The oldest, unsignaled, by the completion of a later one, which is told last.
    Before,
    /// One of which others are older.
    Later,
}

impl<P> Ended<'_, P> {
    const fn number(&self) -> u32 {
        parts(self.completion.wr_id()).2
    }

    /// What it kept.
    #[inline]
    pub(crate) fn payload(&self) -> Option<&P> {
        match (&self.ring, self.how) {
            (Some(ring), How::Oldest | How::Before) => ring.get(ring.oldest()),
            (Some(ring), How::Later) => ring.get(self.number()),
            (None, _) => self.shared.as_ref()?.get(self.number()),
        }
    }

    /// Its completion; nothing for an unsignaled request, which a later one shows to have succeeded.
    #[inline]
    pub(crate) fn completion(&self) -> Option<&WorkCompletion> {
        if self.how == How::Before { None } else { Some(self.completion) }
    }

    /// A part of what it kept, which is the caller's from here on, if `pick` finds it in the place of the oldest request and takes it all out.
    /// Otherwise this again.
    #[inline]
    pub(crate) fn pick<T>(self, pick: impl FnOnce(&mut Option<P>) -> Option<T>) -> Result<T, Self> {
        let mut this = ManuallyDrop::new(self);
        if this.how != How::Later
            && let Some(ring) = &mut this.ring
            && let Some(picked) = ring.pick_oldest(pick)
        {
            *this.next += usize::from(this.how != How::Before);
            return Ok(picked);
        }
        Err(ManuallyDrop::into_inner(this))
    }

    /// What it kept, which is the caller's from here on.
    #[inline]
    pub(crate) fn take(self) -> Option<P> {
        ManuallyDrop::new(self).end()
    }

    #[inline]
    fn end(&mut self) -> Option<P> {
        *self.next += usize::from(self.how != How::Before);
        match (&mut self.ring, self.how) {
            (Some(ring), How::Oldest | How::Before) => ring.end_oldest(),
            (ring, _) => end_other(ring.as_deref_mut(), self.shared, parts(self.completion.wr_id()).2),
        }
    }
}

/// Ends a request that is not the oldest of its queue, or of none.
#[inline(never)]
fn end_other<P>(ring: Option<&mut Ring<P>>, shared: &mut Option<Shared<P>>, number: u32) -> Option<P> {
    match ring {
        Some(ring) => ring.end_one(number),
        None => shared.as_mut()?.end(number),
    }
}

impl<P> Drop for Ended<'_, P> {
    #[inline]
    fn drop(&mut self) {
        drop(self.end());
    }
}
