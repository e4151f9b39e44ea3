//! What an idle moment is good for: the lines of the own window that the next long body will go to are taken from the peer's
//! cache while this side waits, and those of a body that the peer waits for are handed over when it is published.
//!
//! Called by polls that find nothing, and by posts. It changes nothing but caches: no word of the peer is believed for it, and nothing of the
//! protocol depends on it.

use super::Open;
use sinew_base::copy::is_far;

/// Looks that find nothing before lines are asked for: an answer that is on its way comes first.
const LOOKS_BEFORE: u8 = 4;
/// Bytes asked for between two looks: half of what a core can wait for at a time, so that a look waits for one line at most.
const STEP: usize = 8 * 64;
/// Bodies up to so long are handed over: longer ones are copied out while they are moved, at the cost of the sender.
const HANDED_OVER_MAX: usize = 8 << 10;

/// Waits from one look at how far the peer is to the next: machines move processes, and processors of virtual ones.
const WAITS_A_SAMPLE: u8 = 8;

/// What the last long body says of the next.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Looks to wait before the next step.
    rest: u8,
    /// Long bodies since this side last waited for a frame, and whether it was one before that: then each has its answer.
    bodies: u32,
    in_turns: bool,
    /// The peer has caches of its own, as far as is known.
    far: bool,
    /// Waits since that was looked at.
    waits: u8,
    /// Bytes that are still to be asked for, of a body of so many.
    left: usize,
    len: usize,
}

impl Ahead {
    /// A body of `len` bytes was published; whether its lines are to be handed over.
    #[inline]
    pub(super) fn posted(&mut self, len: usize) -> bool {
        // Lines of a stream are fetched while others are written: to move them only takes time.
        let hand_over = self.in_turns && self.far && self.bodies == 0 && len <= HANDED_OVER_MAX;
        self.bodies = self.bodies.saturating_add(1);
        self.rest = LOOKS_BEFORE;
        (self.left, self.len) = (len, len);
        hand_over
    }

    /// The first step of a wait. `is_far` finds out whether the peer is.
    #[inline]
    fn begin(&mut self, is_far: impl FnOnce() -> bool) {
        self.in_turns = self.bodies == 1;
        self.bodies = 0;
        self.waits += 1;
        if self.waits == WAITS_A_SAMPLE {
            self.waits = 0;
            self.far = is_far();
        }
    }
}

impl Open {
    /// Uses a look that found nothing. While this side waits for room, lines of the window are not what it lacks.
    #[inline(always)]
    pub(super) fn look_ahead(&mut self) {
        if self.ahead.left > 0 && !self.starving {
            self.step_ahead();
        }
    }

    #[inline(never)]
    fn step_ahead(&mut self) {
        if self.ahead.rest > 0 {
            self.ahead.rest -= 1;
            return;
        }
        let len = self.ahead.len;
        if self.ahead.left == len {
            // A word that the peer writes when it has taken what was sent.
            let word = &self.watch.peer.control().consumed;
            self.ahead.begin(|| is_far(word));
            if self.window.small_is_full(len) || self.window.next(len).is_none() {
                // What came back is read now, not when a body waits for it. A forged index is found by the next post.
                let _ = self.refresh();
            }
        }
        let Some(next) = self.window.next(len) else {
            self.ahead.left = 0;
            return;
        };
        let step = self.ahead.left.min(STEP);
        self.watch.own.ask_for_lines(next + len - self.ahead.left, step);
        self.ahead.left -= step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: fn() -> bool = || true;

    /// Turns of one body and one wait, until it is known how far the peer is.
    fn in_turns(is_far: fn() -> bool) -> Ahead {
        let mut ahead = Ahead::default();
        for _ in 0..WAITS_A_SAMPLE {
            assert!(!ahead.posted(1024), "nothing is known yet");
            ahead.begin(is_far);
        }
        ahead
    }

    #[test]
    fn bodies_that_answer_each_other_are_handed_over_to_a_core_with_caches_of_its_own() {
        let mut ahead = in_turns(FAR);
        for _ in 0..100 {
            assert!(ahead.posted(1024));
            ahead.begin(FAR);
        }
        assert!(!ahead.posted(HANDED_OVER_MAX + 1), "too long to be moved");
        let mut near = in_turns(|| false);
        assert!(!near.posted(1024), "what both cores have in their cache stays there");
    }

    #[test]
    fn a_stream_is_not_handed_over() {
        let mut ahead = in_turns(FAR);
        assert!(ahead.posted(1024));
        for _ in 0..10 {
            assert!(!ahead.posted(1024), "one more without a wait");
        }
        ahead.begin(FAR);
        assert!(!ahead.posted(1024), "the wait was for several");
        ahead.begin(FAR);
        assert!(ahead.posted(1024), "in turns again");
    }

    #[test]
    fn a_peer_that_moves_is_found_out() {
        let mut ahead = in_turns(FAR);
        for _ in 0..WAITS_A_SAMPLE {
            assert!(ahead.posted(1024));
            ahead.begin(|| false);
        }
        assert!(!ahead.posted(1024));
    }
}
