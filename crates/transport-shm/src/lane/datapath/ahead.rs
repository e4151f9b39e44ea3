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
    /// Frames of the peer that were taken before the last long body, so that one more answers it.
    taken: u64,
    /// Looks to wait before the next step.
    rest: u8,
    /// Waits since it was looked at how far the peer is.
    waits: u8,
    /// The peer has caches of its own, as far as is known.
    far: bool,
    /// Bytes that are still to be asked for, of a body of so many.
    left: usize,
    len: usize,
}

impl Ahead {
    /// Whether a long body that is posted after `taken` frames of the peer follows an answer to the one before. One that does
    /// not belongs to a stream, whose lines the peer fetches while others are written.
    #[inline]
    pub(super) fn is_in_turn(&self, taken: u64) -> bool {
        taken != self.taken
    }

    /// A body of `len` bytes was published after `taken` frames of the peer; whether its lines are to be handed over.
    #[inline]
    pub(super) fn posted(&mut self, taken: u64, len: usize) -> bool {
        let in_turn = self.is_in_turn(taken);
        self.taken = taken;
        self.rest = LOOKS_BEFORE;
        (self.left, self.len) = (if in_turn { len } else { 0 }, len);
        in_turn && self.far && len <= HANDED_OVER_MAX
    }

    /// The first step of a wait. `is_far` finds out whether the peer is.
    #[inline]
    fn begin(&mut self, is_far: impl FnOnce() -> bool) {
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

    /// One body in turn, and the wait for its answer; whether it was handed over.
    fn turn(ahead: &mut Ahead, is_far: bool) -> bool {
        let handed_over = ahead.posted(ahead.taken + 1, 1024);
        assert_eq!(ahead.left, 1024, "lines of the next are to be asked for");
        ahead.begin(|| is_far);
        handed_over
    }

    fn far_away() -> Ahead {
        let mut ahead = Ahead::default();
        for _ in 0..WAITS_A_SAMPLE {
            assert!(!turn(&mut ahead, true), "nothing is known yet");
        }
        ahead
    }

    #[test]
    fn bodies_that_answer_each_other_are_handed_over_to_a_core_with_caches_of_its_own() {
        let mut ahead = far_away();
        assert!((0..100).all(|_| turn(&mut ahead, true)));
        let next = ahead.taken + 1;
        assert!(!ahead.posted(next, HANDED_OVER_MAX + 1), "too long to be moved");
        let mut near = Ahead::default();
        assert!((0..100).all(|_| !turn(&mut near, false)), "what both have in their cache stays there");
    }

    #[test]
    fn nothing_is_done_ahead_for_a_stream() {
        let mut ahead = far_away();
        assert!(turn(&mut ahead, true));
        let taken = ahead.taken;
        for _ in 0..10 {
            assert!(!ahead.is_in_turn(taken) && !ahead.posted(taken, 1024), "one more without an answer");
            assert_eq!(ahead.left, 0, "no step in a wait");
        }
        assert!(turn(&mut ahead, true), "in turns again");
    }

    #[test]
    fn a_peer_that_moves_is_found_out() {
        let mut ahead = far_away();
        assert!((0..WAITS_A_SAMPLE).all(|_| turn(&mut ahead, false)));
        assert!(!turn(&mut ahead, false));
    }
}
