//! The short way of waits: looks of a thread that has the bias, one after the other under one quick lock, and how they end.
//!
//! Called by the operations and calls that wait for something of their own; what a look does is the core's (`core::quick`). What it
//! must not do: take anything out of the engine while code of the application is about to run.

use super::Shared;
use crate::anchor::Anchor;
use crate::completion::{Completion, Match};
use crate::core::table::Key;
use crate::core::{Core, Look, Shown};
use sinew_base::biased::BiasedGuard;
use sinew_proto::matching::Wanted;
use std::sync::Arc;

/// Turns that a direct receive takes before it is posted: longer than a round trip over shared memory, and short enough
/// for others who want the lock and for the clock.
pub(crate) const TURNS_DIRECT: u32 = 64;
/// The same for the poll of a future: under a microsecond, as other tasks wait for its thread.
pub(crate) const TURNS_POLL: u32 = 2;

impl Shared {
    /// Quick looks of a thread that has the bias: whether they are done. `None`: there may be none.
    #[inline(always)]
    pub(crate) fn look_quick(
        self: &Arc<Self>,
        may: impl FnOnce(&mut Core) -> bool,
        mut look: impl FnMut(&mut Core) -> Look,
    ) -> Option<bool> {
        let mut core = self.core.lock_if_biased()?;
        if !may(&mut core) {
            return None;
        }
        // What was staged goes out before anybody waits for an answer; a turn of progress sees to it where there is no room.
        core.flush_bundle();
        loop {
            match look(&mut core) {
                Look::Done => {
                    self.leave_quick(core, true);
                    return Some(true);
                }
                // It may panic: nothing must be taken out of the engine before that.
                Look::More if !core.effects.must_run() => {}
                _ => break,
            }
        }
        self.leave_quick(core, false);
        Some(false)
    }

    /// Ends quick looks. One who is done stops polling: whoever sleeps takes over.
    #[inline(always)]
    pub(crate) fn leave_quick(self: &Arc<Self>, core: BiasedGuard<'_, Core>, done: bool) {
        if core.effects.any() || (done && self.sleepers.any()) {
            self.leave_slowly(core, done);
        }
    }

    #[inline(never)]
    fn leave_slowly(self: &Arc<Self>, mut core: BiasedGuard<'_, Core>, done: bool) {
        let sleepers = self.sleepers.any();
        if core.effects.must_run() || (sleepers && (done || core.effects.any())) {
            // Taken out here: whoever has the lock next would run them, and lose by a panic of theirs what it takes out.
            let effects = std::mem::take(&mut core.effects);
            drop(core);
            self.hand_over();
            if effects.must_run() {
                self.run(effects);
            }
        } else {
            core.effects.clear();
        }
    }

    /// Waits for a posted operation for a while, the short way: messages go from the lane to the endpoint's receives as they
    /// come. `true`: it is over. Else it takes longer, or this thread is not the one that may.
    #[inline(never)]
    pub(crate) fn wait_quick(self: &Arc<Self>, endpoint: u32, key: Key, turns: u32) -> bool {
        for _ in 0..turns {
            let Some(mut core) = self.biased() else { return false };
            let over = core.deliver_until(endpoint, key);
            self.leave_quick(core, over);
            if over {
                return true;
            }
            let over = self.with(|core| {
                core.turn(1);
                core.is_over(key)
            });
            if over || self.core.contended() {
                return over;
            }
        }
        false
    }

    /// Waits for a message without memory for it for a while, the short way. `None`: it takes longer, or this thread is not
    /// the one that may.
    #[inline(always)]
    pub(crate) fn view_quick(
        self: &Arc<Self>,
        endpoint: u32,
        pattern: &Match,
        len_max: usize,
    ) -> Option<(Completion, Shown, Option<Anchor>)> {
        let (mut got, mut anchor) = (None, None);
        self.view_for_a_while(endpoint, pattern, len_max, &mut got, &mut anchor);
        got.map(|(info, shown)| (info, shown, anchor))
    }

    #[inline(never)]
    fn view_for_a_while(
        self: &Arc<Self>,
        endpoint: u32,
        pattern: &Match,
        len_max: usize,
        got: &mut Option<(Completion, Shown)>,
        anchor: &mut Option<Anchor>,
    ) {
        let wanted = Wanted::new(&(*pattern).into());
        for _ in 0..TURNS_DIRECT {
            let may = |core: &mut Core| core.may_receive_quick(endpoint, pattern);
            let look = |core: &mut Core| {
                let look = core.view_quick(endpoint, &wanted, len_max, got);
                if let (Look::Done, Some((_, Shown::Lent(..)))) = (&look, &*got) {
                    *anchor = Some(Anchor::new(self, core, endpoint));
                }
                look
            };
            match self.look_quick(may, look) {
                Some(false) => {}
                Some(true) | None => return,
            }
            self.with(|core| core.turn(1));
            if self.core.contended() {
                return;
            }
        }
    }

    /// The caller has got what it waited for and stops polling: whoever sleeps takes over, and sees to what is left of bundles.
    #[cold]
    #[inline(never)]
    fn hand_over(self: &Arc<Self>) {
        self.with_aside(|core| core.effects.finish());
    }
}
