//! How a consumer goes to sleep without a producer ever missing it, and without a fence on the producer's path.
//!
//! Called by the domain (consumer of many lanes) and by lanes (producers, and consumers of room). The consumer announces
//! that it will not look any more, then makes every running producer pass a barrier (`Barrier::heavy`), then looks once
//! more. The producer publishes, then looks at the announcement, with nothing but program order between
//! ([`Barrier::light`]): either it sees the announcement, or the consumer's last look sees the frame.
//!
//! Announcements live in memory that only the consumer writes. Hints live in a page that producers of the same user write;
//! they say where to look first and carry no state: a forged one costs one look, a lost one is made up for by the domain's
//! rounds.

use super::sync::{AtomicU64, Ordering, compiler_fence, fence};

/// How the two sides of one lane order their words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barrier {
    /// The consumer's heavy side reaches this process: the producer needs no fence.
    Asymmetric,
    /// Both sides fence.
    Fences,
}

impl Barrier {
    /// The producer's side, between publishing and looking.
    #[inline]
    pub fn light(self) {
        match self {
            Self::Asymmetric => compiler_fence(Ordering::SeqCst),
            Self::Fences => fence(Ordering::SeqCst),
        }
    }
}

/// Lane state word: the consumer polls the lane.
pub const HOT: u64 = 0;
/// Lane state word: the consumer looks at the lane when it is told.
pub const COLD: u64 = 1;

/// The producer's memory of the last sleep that it has ended.
#[derive(Clone, Copy, Default, Debug)]
pub struct Waker {
    rung: u64,
}

impl Waker {
    /// Looks at the consumer's announcements; called after publishing. Says by `hint` which lane it is if the lane is cold,
    /// and answers whether to ring; at most once per sleep.
    #[inline]
    pub fn look(
        &mut self,
        barrier: Barrier,
        state: &AtomicU64,
        armed: &AtomicU64,
        hint: impl FnOnce(),
    ) -> bool {
        barrier.light();
        if state.load(Ordering::Relaxed) != HOT {
            hint();
            // A sleeper's last look is at hints, not at cold lanes: the hint is what must be seen by one side or the other.
            fence(Ordering::SeqCst);
        }
        let epoch = armed.load(Ordering::Relaxed);
        epoch & 1 == 1 && core::mem::replace(&mut self.rung, epoch) != epoch
    }

    /// Forgets the last ring, so that the next look rings again.
    pub fn forget(&mut self) {
        self.rung = 0;
    }
}

/// The consumer's announcement for all its lanes: odd while it sleeps or is about to.
#[derive(Debug, Default)]
pub struct Sleeper {
    epoch: u64,
}

impl Sleeper {
    /// Announces sleep. The heavy barrier and the last look follow.
    pub fn arm(&mut self, armed: &AtomicU64) {
        self.epoch = (self.epoch | 1).wrapping_add(if self.epoch & 1 == 1 { 2 } else { 0 });
        armed.store(self.epoch, Ordering::Relaxed);
    }

    /// Ends it.
    pub fn disarm(&mut self, armed: &AtomicU64) {
        if self.epoch & 1 == 1 {
            self.epoch = self.epoch.wrapping_add(1);
            armed.store(self.epoch, Ordering::Relaxed);
        }
    }

    /// Whether sleep is announced.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.epoch & 1 == 1
    }
}

/// Leaves of the hint page.
pub const LEAVES: usize = 64;
/// Lanes that can have a bit.
pub const HINTS_MAX: u32 = 64 * LEAVES as u32;

/// The hint page: one summary word whose bits stand for 64 words whose bits stand for lanes.
#[derive(Debug)]
#[repr(C)]
pub struct Hints {
    summary: AtomicU64,
    _line: [AtomicU64; 7],
    leaves: [AtomicU64; LEAVES],
}

impl Default for Hints {
    fn default() -> Self {
        Self {
            summary: AtomicU64::new(0),
            _line: std::array::from_fn(|_| AtomicU64::new(0)),
            leaves: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Hints {
    /// The producer's word: lane `bit` has something. Bits that do not exist are ignored.
    pub fn set(&self, bit: u32) {
        let Some(leaf) = self.leaves.get((bit / 64) as usize) else { return };
        leaf.fetch_or(1 << (bit % 64), Ordering::AcqRel);
        self.summary.fetch_or(1 << (bit / 64), Ordering::AcqRel);
    }

    /// Whether anybody has said something: one read.
    #[must_use]
    #[inline]
    pub fn any(&self) -> bool {
        self.summary.load(Ordering::Relaxed) != 0
    }

    /// Takes all bits, handing each to `each`.
    pub fn take(&self, mut each: impl FnMut(u32)) {
        let mut summary = self.summary.swap(0, Ordering::AcqRel);
        while summary != 0 {
            let word = summary.trailing_zeros();
            summary &= summary - 1;
            let mut leaf = self.leaves[word as usize].swap(0, Ordering::AcqRel);
            while leaf != 0 {
                each(word * 64 + leaf.trailing_zeros());
                leaf &= leaf - 1;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_ended_by_one_ring_and_the_next_sleep_by_another() {
        let (armed, state) = (AtomicU64::new(0), AtomicU64::new(HOT));
        let (mut sleeper, mut waker) = (Sleeper::default(), Waker::default());
        let mut look = |armed: &AtomicU64| waker.look(Barrier::Fences, &state, armed, || panic!("hot"));
        assert!(!look(&armed));
        for _ in 0..3 {
            sleeper.arm(&armed);
            assert!(look(&armed));
            assert!(!look(&armed));
            sleeper.disarm(&armed);
            assert!(!look(&armed));
        }
        sleeper.arm(&armed);
        look(&armed);
        sleeper.arm(&armed);
        assert!(look(&armed), "armed anew without disarming");
    }

    #[test]
    fn every_bit_that_was_set_is_taken_once() {
        let hints = Hints::default();
        let bits = [0, 1, 63, 64, 4095];
        bits.iter().for_each(|&bit| hints.set(bit));
        hints.set(HINTS_MAX);
        assert!(hints.any());
        let mut taken = Vec::new();
        hints.take(|bit| taken.push(bit));
        assert_eq!(taken, bits);
        assert!(!hints.any());
    }
}
