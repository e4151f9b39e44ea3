//! Operations that nothing but their caller's promise ties to their memory.
#![allow(unsafe_code)]

use super::claims::Claim;
use super::core::{Core, CutShort};
use super::work::{Done, Places, Work};
use crate::error::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An operation on borrowed memory that is out, apart from any scope. It holds its channel's queue pair, so it can be waited for also when the
/// channel is gone. Dropped, it waits until it has ended, at most until the channel's deadline, and then cuts its peer short; it
/// must not be forgotten.
#[must_use = "it is waited for when it is dropped"]
pub struct PendingWork<'data> {
    core: Arc<Core>,
    peer: u32,
    claim: Option<Claim>,
    deadline: Option<Duration>,
    places: Option<Places<'data>>,
}

impl<'data> PendingWork<'data> {
    /// # Safety
    /// The value is not forgotten.
    pub(super) unsafe fn post(
        core: &Arc<Core>,
        peer: u32,
        deadline: Option<Duration>,
        work: Work<'data>,
    ) -> Result<Self> {
        // SAFETY: the memory is borrowed as long as this value, which waits when it is dropped, and is not forgotten.
        let claim = unsafe { core.post(peer, 0, &work) }?;
        Ok(Self { core: core.clone(), peer, claim: Some(claim), deadline, places: Some(work.into_places()) })
    }

    /// What came of it, if it has ended. Never blocks.
    ///
    /// # Errors
    /// [`Error::Work`] when it failed; [`Error::Call`] when the device did, and it is still out.
    pub fn poll(&mut self) -> Option<Result<Done<'data>>> {
        let ended = match self.core.try_take(self.claim?) {
            Ok(ended) => ended?,
            Err(error) => return Some(Err(error)),
        };
        self.claim = None;
        let places = self.places.take().unwrap_or_else(Places::none);
        Some(ended.outcome.map(|success| Done { success, places }).map_err(Error::Work))
    }

    /// Waits for it, at most until the channel's deadline; its peer is cut short then.
    ///
    /// # Errors
    /// [`Error::Work`] when it failed; [`Error::TimedOut`] when the deadline passed; [`Error::Call`] when the device failed. In every
    /// case its memory is free.
    pub fn wait(mut self) -> Result<Done<'data>> {
        let places = self.places.take().unwrap_or_else(Places::none);
        let Some(claim) = self.claim else {
            return Err(Error::invalid("operation", "its result was taken", "ask once"));
        };
        let after = self.deadline.unwrap_or_default();
        let deadline = self.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let ended = self.core.wait_out(self.peer, claim, deadline, after);
        self.claim = None;
        match ended {
            Ok(ended) => ended.outcome.map(|success| Done { success, places }).map_err(Error::Work),
            Err(CutShort(error)) => Err(error),
        }
    }
}

impl Drop for PendingWork<'_> {
    fn drop(&mut self) {
        let Some(claim) = self.claim else { return };
        // A drop does not wait for ever, also where waits may.
        let after = self.deadline.unwrap_or(super::DEADLINE);
        let wait = || self.core.wait_all(&[claim], Instant::now().checked_add(after), after);
        // A waker of somebody else's may panic meanwhile. The memory is its owner's again after this, so it goes on first.
        let mut panicked = None;
        while let Err(panic) = catch_unwind(AssertUnwindSafe(wait)) {
            match panicked {
                None => panicked = Some(panic),
                // What it carries may panic when it is dropped.
                Some(_) => std::mem::forget(panic),
            }
        }
        self.core.abandon(claim);
        if let Some(panic) = panicked
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

impl std::fmt::Debug for PendingWork<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingWork({:?})", self.claim)
    }
}

/// Posts and waits: blocking.
pub(crate) fn run<'data>(
    core: &Arc<Core>,
    peer: u32,
    deadline: Option<Duration>,
    work: Work<'data>,
) -> Result<Done<'data>> {
    // SAFETY: the value is waited for here and now, and dropped when that panics.
    unsafe { PendingWork::post(core, peer, deadline, work) }?.wait()
}

impl super::Channel {
    /// Posts an operation apart from any scope.
    ///
    /// # Errors
    /// As for [`Scope::post`](super::Scope::post), but it does not wait for a place.
    ///
    /// # Safety
    /// The value is not forgotten (`mem::forget`, a cycle of counted handles): its memory is borrowed only as long as it lives, and it waits when
    /// it is dropped.
    pub unsafe fn post_unpolled<'data>(&mut self, work: Work<'data>) -> Result<PendingWork<'data>> {
        // SAFETY: by the caller's promise.
        unsafe { PendingWork::post(&self.core, 0, self.recipe.deadline, work) }
    }
}

impl crate::MultiChannel {
    /// Posts an operation with a peer apart from any scope.
    ///
    /// # Errors
    /// As for [`Channel::post_unpolled`](super::Channel::post_unpolled); [`Error::Invalid`] for a peer that there is not.
    ///
    /// # Safety
    /// As for [`Channel::post_unpolled`](super::Channel::post_unpolled).
    pub unsafe fn post_unpolled<'data>(
        &mut self,
        peer: u32,
        work: Work<'data>,
    ) -> Result<PendingWork<'data>> {
        // SAFETY: by the caller's promise.
        unsafe { PendingWork::post(self.core(), peer, self.deadline(), work) }
    }
}
