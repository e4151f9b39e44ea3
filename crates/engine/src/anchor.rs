//! The engine that a message on loan keeps alive: [`Anchor`], a reference that is counted under the engine's lock.
//!
//! Used by [`crate::incoming`]. A loan is given back under the lock anyhow, where a count is a load and a store. An `Arc` of its own
//! would be counted down behind the frame that gives the memory back; a locked instruction waits until that frame has left the
//! processor, which takes as long as a cache line does. What this must not do: touch an engine after its count was given back.
//!
//! # Why it is right
//! [`Anchors`] lies in the core and is changed under its lock only. While its count is not 0 one `Arc` of the engine is kept in its
//! name. When the last anchor goes, that `Arc` stays if the endpoint that received the message is open: the drop of that endpoint
//! comes later, under the lock, and takes an `Arc` back that nobody needs ([`Anchor::release_idle`]). If the endpoint is closed the
//! `Arc` is taken back at once.
//!
//! An anchor that is forgotten, and one in a forked child, keeps its engine for ever.
#![allow(unsafe_code)]

use crate::core::Core;
use crate::shared::Shared;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// The anchors of an engine.
#[derive(Debug, Default)]
pub(crate) struct Anchors {
    count: usize,
    /// An `Arc` of the engine is kept in their name.
    kept: bool,
}

/// One message's hold of its engine.
pub(crate) struct Anchor {
    shared: NonNull<Shared>,
    /// The endpoint that received the message; 0: it is not counted, but has an `Arc` of its own.
    endpoint: u32,
}

// SAFETY: a reference to an engine's shared part, which is Send and Sync.
unsafe impl Send for Anchor {}
// SAFETY: as above.
unsafe impl Sync for Anchor {}

impl Deref for Anchor {
    type Target = Shared;

    #[inline(always)]
    fn deref(&self) -> &Shared {
        // SAFETY: anchored engines live (module text).
        unsafe { self.shared.as_ref() }
    }
}

impl Anchor {
    /// Holds the engine of a message that endpoint number `endpoint`, which is open, has received. `core` is that of the engine.
    #[inline(always)]
    pub(crate) fn new(shared: &Arc<Shared>, core: &mut Core, endpoint: u32) -> Self {
        let anchors = &mut core.anchors;
        if !anchors.kept {
            std::mem::forget(Arc::clone(shared));
            anchors.kept = true;
        }
        anchors.count += 1;
        // SAFETY: never null; of the `Arc`'s own provenance, so that it can be taken back.
        Self { shared: unsafe { NonNull::new_unchecked(Arc::as_ptr(shared).cast_mut()) }, endpoint }
    }

    /// The same outside of the lock.
    pub(crate) fn apart(shared: &Arc<Shared>) -> Self {
        let shared = Arc::into_raw(Arc::clone(shared)).cast_mut();
        // SAFETY: never null.
        Self { shared: unsafe { NonNull::new_unchecked(shared) }, endpoint: 0 }
    }

    /// An `Arc` of its own.
    fn keep(&self) -> Arc<Shared> {
        let shared = self.shared.as_ptr().cast_const();
        // SAFETY: made by `Arc::as_ptr` or `Arc::into_raw`, and alive while it is held.
        unsafe {
            Arc::increment_strong_count(shared);
            Arc::from_raw(shared)
        }
    }

    /// Gives the count back, under the lock of the engine. What it answers is dropped outside of the lock.
    #[inline(always)]
    fn release(self, core: &mut Core) -> Option<Arc<Shared>> {
        let this = ManuallyDrop::new(self);
        if this.endpoint != 0 {
            core.anchors.count -= 1;
            if core.anchors.count > 0 || core.endpoint(this.endpoint).is_some() {
                return None;
            }
            core.anchors.kept = false;
        }
        // SAFETY: the `Arc` that is kept for all anchors, and is no more, or that of this one, which is forgotten.
        Some(unsafe { Arc::from_raw(this.shared.as_ptr().cast_const()) })
    }

    /// Ends it when the lock can be had quickly and `quick` does all that is to be done under it; else after `slow`.
    #[inline(always)]
    pub(crate) fn end(self, quick: impl FnOnce(&mut Core) -> bool, slow: impl FnOnce(&mut Core)) {
        // SAFETY: alive while it is held; not looked at any more once the lock is left.
        let shared: &Shared = unsafe { self.shared.as_ref() };
        if shared.check_fork().is_err() {
            return;
        }
        if let Some(mut core) = shared.biased()
            && quick(&mut core)
        {
            let last = self.release(&mut core);
            drop(core);
            drop(last);
            return;
        }
        self.end_slowly(slow);
    }

    #[cold]
    #[inline(never)]
    fn end_slowly(self, slow: impl FnOnce(&mut Core)) {
        let kept = self.keep();
        let last = kept.with_in_drop(|core| {
            slow(core);
            self.release(core)
        });
        drop(last);
    }

    /// The `Arc` that is kept for anchors, if there are none: for the drop of an endpoint, under the lock. What it answers is
    /// dropped outside of it.
    pub(crate) fn release_idle(shared: &Arc<Shared>, core: &mut Core) -> Option<Arc<Shared>> {
        let idle = core.anchors.count == 0 && std::mem::take(&mut core.anchors.kept);
        // SAFETY: the `Arc` that was forgotten when it was kept, taken back once.
        idle.then(|| unsafe { Arc::from_raw(Arc::as_ptr(shared)) })
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        if self.check_fork().is_err() {
            return;
        }
        let same = Self { shared: self.shared, endpoint: self.endpoint };
        let kept = same.keep();
        drop(kept.with_in_drop(|core| same.release(core)));
    }
}
