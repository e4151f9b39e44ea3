//! The endpoint that an operation keeps alive: [`Held`], a reference that is counted under the engine's lock.
//!
//! Used by the operations of [`crate::op`], which take the lock to begin and to end anyhow: there a count is a load and a store,
//! where an `Arc` of each operation's own costs two of the slowest instructions that there are. What it must not do: touch an
//! endpoint after its count was given back.
//!
//! # Why it is right
//! [`EndpointInner::operations`] counts the living [`Held`] of an endpoint. It is changed under the lock of the endpoint's engine
//! only. While it is not 0 an `Arc` of the endpoint is kept in its name: made with the first, taken back with the last. So an
//! endpoint that is held lives. Whoever gives the count back under the quick lock touches the endpoint no more after it has left
//! it, as another thread may then end the last one; all others have an `Arc` of their own meanwhile.
//!
//! A [`Held`] that is forgotten, and one in a forked child, keeps its endpoint for ever.
#![allow(unsafe_code)]

use crate::core::Core;
use crate::core::table::Key;
use crate::endpoint::EndpointInner;
use crate::shared::Shared;
use sinew_base::biased::BiasedGuard;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the end of an operation brings. A trait, and no closure, so that it is always in line: what it answers is long, and would go
/// through memory once more.
pub(crate) trait Ending: Sized {
    /// Takes it out of the engine, if it is there: a quick call.
    fn look(core: &mut Core, key: Key) -> Option<Self>;
}

/// One operation's hold of its endpoint. It has no drop of its own: [`Held::end`] and [`Held::end_quick`] give it back.
pub(crate) struct Held(NonNull<EndpointInner>);

// SAFETY: a reference to an endpoint, which is Send and Sync.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Deref for Held {
    type Target = EndpointInner;

    #[inline(always)]
    fn deref(&self) -> &EndpointInner {
        // SAFETY: held endpoints live (module text).
        unsafe { self.0.as_ref() }
    }
}

impl Held {
    /// Holds `endpoint`. `core` is that of its engine.
    #[inline(always)]
    pub(crate) fn new(endpoint: &Arc<EndpointInner>, _core: &mut Core) -> Self {
        let count = endpoint.operations.load(Ordering::Relaxed);
        if count == 0 {
            // For as long as the count is not 0 again.
            std::mem::forget(Arc::clone(endpoint));
        }
        endpoint.operations.store(count + 1, Ordering::Relaxed);
        // SAFETY: never null; of the `Arc`'s own provenance, so that it can be taken back.
        Self(unsafe { NonNull::new_unchecked(Arc::as_ptr(endpoint).cast_mut()) })
    }

    /// An `Arc` of its own.
    fn keep(&self) -> Arc<EndpointInner> {
        let endpoint = self.0.as_ptr().cast_const();
        // SAFETY: made by `Arc::as_ptr`, and alive while it is held.
        unsafe {
            Arc::increment_strong_count(endpoint);
            Arc::from_raw(endpoint)
        }
    }

    /// Gives the count back, under the lock of the endpoint's engine. What it answers is dropped outside of the lock.
    fn release(self) -> Option<Arc<EndpointInner>> {
        let count = self.operations.load(Ordering::Relaxed);
        self.operations.store(count - 1, Ordering::Relaxed);
        // SAFETY: the `Arc` that was forgotten when the count rose from 0, taken back once.
        (count == 1).then(|| unsafe { Arc::from_raw(self.0.as_ptr().cast_const()) })
    }

    /// Ends it, after `f` under the lock, for the drop of an operation. In a forked child nothing happens.
    pub(crate) fn end(self, f: impl FnOnce(&mut Core)) {
        if self.shared.check_fork().is_err() {
            return;
        }
        let kept = self.keep();
        let last = kept.shared.with_in_drop(|core| {
            f(core);
            self.release()
        });
        drop(last);
    }

    /// Looks for the end of operation `key` if this thread has the bias; what is found ends the hold in `place`, too.
    #[inline(always)]
    pub(crate) fn end_quick<T: Ending>(place: &mut Option<Self>, key: Key) -> Option<T> {
        Self::end_looking(place, key, false)
    }

    /// The same. If it is not over and `looks`, messages go from the lane to the endpoint's receives first, as far as they are there.
    #[inline(always)]
    pub(crate) fn end_looking<T: Ending>(place: &mut Option<Self>, key: Key, looks: bool) -> Option<T> {
        // SAFETY: alive while it is held; not looked at any more once the lock is left.
        let endpoint: &EndpointInner = unsafe { place.as_ref()?.0.as_ref() };
        let shared = &endpoint.shared;
        if shared.check_fork().is_err() {
            return None;
        }
        let mut core = shared.biased()?;
        if core.effects.must_run() {
            // It may panic: nothing must be taken out of the engine before that.
            return None;
        }
        let mut looks = looks;
        let found = loop {
            if let Some(found) = T::look(&mut core, key) {
                break found;
            }
            if !std::mem::take(&mut looks) {
                return None;
            }
            if !core.deliver_until(endpoint.number, key) || core.effects.must_run() {
                shared.leave_quick(core, false);
                return None;
            }
        };
        let held = place.take()?;
        let count = endpoint.operations.load(Ordering::Relaxed);
        if count == 1 || core.effects.must_run() || shared.sleepers.any() {
            held.end_slowly(shared, core);
        } else {
            // Without sleepers there is nobody to tell.
            core.effects.clear();
            endpoint.operations.store(count - 1, Ordering::Relaxed);
        }
        Some(found)
    }

    #[cold]
    #[inline(never)]
    fn end_slowly(self, shared: &Arc<Shared>, core: BiasedGuard<'_, Core>) {
        let kept = self.keep();
        let last = self.release();
        shared.leave_quick(core, true);
        drop(last);
        drop(kept);
    }
}
