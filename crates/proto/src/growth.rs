//! How many lanes of one transport a session should have: begins with few, adds one while that measures faster.
//!
//! Fed by the engine with what arrived so far, a look every [`LOOK_EVERY`] while long messages go. No clock, no lanes of its own.
//! A trial compares a stretch with one lane more to the stretch before it; a lane that does not bring at least half of an equal
//! share is given up again, and the next trial comes later and later.

use std::fmt;
use std::time::{Duration, Instant};

/// Between two looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long a queue must last, and a rate be measured, before one lane more is tried.
const STRETCH: Duration = Duration::from_millis(200);
/// What a new lane has to fill its buffers, which measures nothing.
const SETTLE: Duration = Duration::from_millis(100);
/// How long a new lane may take to be there.
const TRIAL_MAX: Duration = Duration::from_secs(3);
/// Waits between trials that brought nothing.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
const PATIENCE_MAX: Duration = Duration::from_secs(64);
/// Bytes per second from which on no further lane is tried: one thread, which fills and empties them all, moves hardly more.
pub const ENOUGH: u64 = 4_000_000_000;
/// The same within one machine, where nothing but a limit that somebody has set is slower than the processors: there one lane more
/// than is of use costs up to half of the rate while it is tried.
pub const ENOUGH_LOCAL: u64 = 1_000_000_000;
/// How long a rate must be low before a lane is given up.
const LOW_FOR: Duration = Duration::from_secs(2);

/// What one look sees.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// When.
    pub now: Instant,
    /// Lanes that carry long messages now.
    pub lanes: usize,
    /// Bytes that have arrived at the peer's system, over all lanes, ever.
    pub arrived: u64,
    /// More waits than the lanes take at once.
    pub queue: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing to measure.
    Rests,
    /// Counts what the present lanes carry, from `bytes` at `since` on.
    Measures { since: Instant, bytes: u64 },
    /// Waits for one lane more, beside which `before` bytes per second were carried without it.
    Waits { since: Instant, before: u64 },
    /// Has it; what it does before `from` does not count.
    Tries { from: Instant, bytes: u64, before: u64 },
}

/// Why there are as many as there are, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Why {
    /// Nothing has been tried.
    #[default]
    Begun,
    /// The last one that was added carries more: bytes per second with and without it.
    Faster {
        /// With it.
        with: u64,
        /// Without it.
        without: u64,
    },
    /// One more did not carry more: bytes per second with and without it.
    NotFaster {
        /// With it.
        with: u64,
        /// Without it.
        without: u64,
    },
    /// One more could not be had.
    NotHad,
    /// What there is to carry needs fewer.
    Idle,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |rate: &u64| *rate as f64 / 1e6;
        match self {
            Self::Begun => f.write_str("no long queue was seen"),
            Self::Faster { with, without } => {
                write!(
                    f,
                    "the last one added carries more: {:.1} MB/s, {:.1} without it",
                    mb(with),
                    mb(without)
                )
            }
            Self::NotFaster { with, without } => {
                write!(f, "one more did not carry more: {:.1} MB/s, {:.1} without it", mb(with), mb(without))
            }
            Self::NotHad => f.write_str("one more was wanted and could not be had"),
            Self::Idle => f.write_str("what there is to carry needs no more"),
        }
    }
}

/// See the module. Feed it with [`Growth::handle_look`]; read [`Growth::wanted`].
#[derive(Debug)]
pub struct Growth {
    min: usize,
    max: usize,
    wanted: usize,
    enough: u64,
    phase: Phase,
    why: Why,
    patience: Duration,
    not_before: Option<Instant>,
    /// Bytes per second that were carried with one lane less, when the last one was added.
    without_last: u64,
    /// Since when less than half of that, and what had arrived then.
    low: Option<(Instant, u64)>,
}

impl Growth {
    /// Between `min` and `max` lanes, of which no further one is tried from `enough` bytes per second on.
    #[must_use]
    pub fn new(min: usize, max: usize, enough: u64) -> Self {
        let min = min.max(1);
        Self {
            min,
            max: max.max(min),
            wanted: min,
            enough,
            phase: Phase::Rests,
            why: Why::Begun,
            patience: PATIENCE_MIN,
            not_before: None,
            without_last: 0,
            low: None,
        }
    }

    /// How many lanes there should be.
    #[must_use]
    pub const fn wanted(&self) -> usize {
        self.wanted
    }

    /// Why so many.
    #[must_use]
    pub const fn why(&self) -> Why {
        self.why
    }

    /// Whether looks can change anything without new traffic: there is more than the least.
    #[must_use]
    pub const fn is_grown(&self) -> bool {
        self.wanted > self.min
    }

    /// A lane more cannot be had now.
    pub fn handle_refusal(&mut self, now: Instant) {
        if let Phase::Waits { .. } = self.phase {
            self.give_up(now, Why::NotHad);
        }
    }

    fn give_up(&mut self, now: Instant, why: Why) {
        self.wanted = self.wanted.saturating_sub(1).max(self.min);
        self.why = why;
        self.not_before = Some(now + self.patience);
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
        self.phase = Phase::Rests;
    }

    /// One look.
    pub fn handle_look(&mut self, look: Look) {
        let Look { now, lanes, arrived, queue } = look;
        match self.phase {
            Phase::Rests if queue && lanes == self.wanted => {
                self.phase = Phase::Measures { since: now, bytes: arrived };
            }
            Phase::Rests => {}
            Phase::Measures { .. } if !queue || lanes != self.wanted => self.phase = Phase::Rests,
            Phase::Measures { since, bytes } => {
                let patient = self.not_before.is_none_or(|at| now >= at);
                let before = rate(arrived - bytes, now - since);
                if now - since >= STRETCH && self.wanted < self.max && patient && before < self.enough {
                    self.wanted += 1;
                    self.phase = Phase::Waits { since: now, before };
                } else if now - since >= 2 * STRETCH {
                    // What was long ago says little of what there is now.
                    self.phase = Phase::Measures { since: now, bytes: arrived };
                }
            }
            Phase::Waits { since, .. } if now - since > TRIAL_MAX => self.give_up(now, Why::NotHad),
            Phase::Waits { before, .. } if lanes >= self.wanted => {
                self.phase = Phase::Tries { from: now + SETTLE, bytes: arrived, before };
            }
            Phase::Waits { .. } => {}
            Phase::Tries { .. } if lanes < self.wanted => self.give_up(now, Why::NotHad),
            Phase::Tries { from, before, .. } if now <= from => {
                self.phase = Phase::Tries { from, bytes: arrived, before };
            }
            Phase::Tries { from, bytes, before } if now - from >= STRETCH => {
                self.judge(now, before, rate(arrived - bytes, now - from));
            }
            Phase::Tries { .. } => {}
        }
        self.shrink(look);
    }

    /// A stretch with one lane more is over.
    fn judge(&mut self, now: Instant, before: u64, with: u64) {
        // With `n` lanes before, an equal share is a further `n`th.
        let half_a_share = before / (2 * (self.wanted as u64 - 1).max(1));
        if with >= before + half_a_share.max(1) {
            self.why = Why::Faster { with, without: before };
            self.without_last = before;
            self.patience = PATIENCE_MIN;
            self.not_before = None;
            self.phase = Phase::Rests;
        } else {
            self.give_up(now, Why::NotFaster { with, without: before });
        }
    }

    /// Gives lanes up that what there is to carry does not need.
    fn shrink(&mut self, look: Look) {
        let Look { now, arrived, queue, .. } = look;
        let trying = matches!(self.phase, Phase::Waits { .. } | Phase::Tries { .. });
        if queue || trying || !self.is_grown() {
            self.low = None;
            return;
        }
        let (since, bytes) = *self.low.get_or_insert((now, arrived));
        if now - since < LOW_FOR {
            return;
        }
        let carried = rate(arrived - bytes, now - since);
        self.low = None;
        if carried < self.without_last / 2 {
            // Of nothing at all, one lane carries as much as many.
            let next = if carried < self.without_last / 64 { self.min } else { self.wanted - 1 };
            self.wanted = next.max(self.min);
            self.without_last = self.without_last / self.wanted as u64 * (self.wanted as u64 - 1).max(1);
            self.why = Why::Idle;
            self.phase = Phase::Rests;
        }
    }
}

/// Bytes per second.
fn rate(bytes: u64, took: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / took.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network in which each lane carries `each` bytes per second, all together at most `all`, and a sender that has
    /// `offered` bytes per second to send.
    struct Net {
        growth: Growth,
        now: Instant,
        arrived: u64,
        each: u64,
        all: u64,
        offered: u64,
        /// Lanes that there are; the engine makes one that is wanted after two looks.
        lanes: usize,
        most: usize,
    }

    impl Net {
        fn new(growth: Growth, each: u64, all: u64) -> Self {
            let lanes = growth.wanted();
            Self { growth, now: Instant::now(), arrived: 0, each, all, offered: u64::MAX, lanes, most: lanes }
        }

        fn run(&mut self, time: Duration) -> usize {
            for turn in 0..time.as_millis() / LOOK_EVERY.as_millis() {
                if turn % 2 == 0 {
                    self.lanes = self.growth.wanted();
                }
                self.most = self.most.max(self.growth.wanted());
                let can = (self.each * self.lanes as u64).min(self.all);
                self.arrived += can.min(self.offered) / 40;
                self.now += LOOK_EVERY;
                let queue = self.offered > can;
                let look = Look { now: self.now, lanes: self.lanes, arrived: self.arrived, queue };
                self.growth.handle_look(look);
            }
            self.growth.wanted()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn grows_while_each_lane_is_limited_and_no_further_than_it_may() {
        let mut net = Net::new(Growth::new(1, 8, ENOUGH), 10_000_000, u64::MAX);
        assert_eq!(net.run(10 * SECOND), 8);
        assert!(matches!(net.growth.why(), Why::Faster { with, without } if with > without));
    }

    #[test]
    fn stops_where_all_lanes_together_are_limited() {
        let mut net = Net::new(Growth::new(1, 8, ENOUGH), 10_000_000, 31_000_000);
        net.run(20 * SECOND);
        assert!((3..=4).contains(&net.growth.wanted()), "{:?}", net.growth);
    }

    #[test]
    fn one_lane_that_carries_all_there_is_stays_alone_but_for_ever_rarer_trials() {
        let mut net = Net::new(Growth::new(1, 8, ENOUGH), 5_000_000_000, u64::MAX);
        assert_eq!((net.run(60 * SECOND), net.most), (1, 1), "more than a thread moves");
        let mut net = Net::new(Growth::new(1, 8, ENOUGH), 3_000_000_000, 3_000_000_000);
        net.run(60 * SECOND);
        assert_eq!(net.most, 2, "one is tried at a time");
        let mut trials = 0;
        for _ in 0..2400 {
            let before = net.growth.wanted();
            net.run(LOOK_EVERY);
            trials += usize::from(net.growth.wanted() > before);
        }
        assert!(trials <= 2, "{trials} trials in the second minute");
    }

    #[test]
    fn without_a_queue_nothing_is_tried() {
        let mut net = Net::new(Growth::new(1, 8, ENOUGH), 10_000_000, u64::MAX);
        net.offered = 9_000_000;
        assert_eq!((net.run(60 * SECOND), net.most), (1, 1));
    }

    #[test]
    fn what_is_not_needed_any_more_is_given_up_and_what_is_needed_is_not() {
        let mut net = Net::new(Growth::new(1, 8, ENOUGH), 10_000_000, u64::MAX);
        net.run(10 * SECOND);
        net.offered = 75_000_000;
        assert_eq!(net.run(30 * SECOND), 8, "they carry it without a queue, and fewer would not");
        net.offered = 15_000_000;
        let few = net.run(60 * SECOND);
        assert!((2..=4).contains(&few), "{few}");
        net.offered = 0;
        assert_eq!(net.run(5 * SECOND), 1);
    }

    #[test]
    fn one_that_cannot_be_had_is_not_waited_for() {
        let mut growth = Growth::new(1, 8, ENOUGH);
        let mut now = Instant::now();
        let mut arrived = 0;
        let mut look = |growth: &mut Growth| {
            now += LOOK_EVERY;
            arrived += 1000;
            growth.handle_look(Look { now, lanes: 1, arrived, queue: true });
            now
        };
        while growth.wanted() == 1 {
            look(&mut growth);
        }
        let at = look(&mut growth);
        growth.handle_refusal(at);
        assert_eq!((growth.wanted(), growth.why()), (1, Why::NotHad));
        for _ in 0..1000 {
            look(&mut growth);
        }
        assert!(growth.wanted() <= 2);
    }

    #[test]
    fn a_fixed_number_stays_what_it_is() {
        let mut net = Net::new(Growth::new(4, 4, ENOUGH), 10_000_000, u64::MAX);
        assert_eq!((net.run(10 * SECOND), net.most), (4, 4));
        net.offered = 0;
        assert_eq!(net.run(10 * SECOND), 4);
    }

    /// Looks one by one, each with the bytes that came since the last.
    struct Script {
        growth: Growth,
        now: Instant,
        arrived: u64,
    }

    /// Bytes between two looks of ten million a second.
    const TEN: u64 = 250_000;

    impl Script {
        fn new() -> Self {
            Self { growth: Growth::new(1, 8, ENOUGH), now: Instant::now(), arrived: 0 }
        }

        /// Looks until `time` has passed. How many lanes are wanted then.
        fn looks(&mut self, time: u64, lanes: usize, bytes: u64, queue: bool) -> usize {
            for _ in 0..time / 25 {
                self.now += LOOK_EVERY;
                self.arrived += bytes;
                self.growth.handle_look(Look { now: self.now, lanes, arrived: self.arrived, queue });
            }
            self.growth.wanted()
        }

        /// Grows to so many, each of which carries as much as the first.
        fn grown(lanes: usize) -> Self {
            let mut script = Self::new();
            for has in 1..lanes {
                assert_eq!(script.looks(225, has, has as u64 * TEN, true), has + 1);
                script.looks(25 + 100 + 200, has + 1, (has as u64 + 1) * TEN, true);
                assert!(matches!(script.growth.why(), Why::Faster { .. }), "{:?}", script.growth);
                assert!(script.growth.is_grown());
            }
            script
        }
    }

    #[test]
    fn a_lane_more_is_wanted_after_a_stretch_with_a_queue_and_all_lanes() {
        for (lanes, queue) in [(1, false), (2, true)] {
            let mut script = Script::new();
            assert!(!script.growth.is_grown());
            script.looks(25, lanes, TEN, queue);
            assert_eq!(script.looks(200, 1, TEN, true), 1, "what cannot begin the stretch does not");
            assert_eq!(script.looks(25, 1, TEN, true), 2);
            let mut script = Script::new();
            script.looks(200, 1, TEN, true);
            assert_eq!(script.looks(25, lanes, TEN, queue), 1, "what ends the stretch ends it");
            assert_eq!(script.looks(200, 1, TEN, true), 1);
            assert_eq!(script.looks(25, 1, TEN, true), 2);
        }
    }

    #[test]
    fn what_is_enough_is_enough() {
        let mut script = Script::new();
        assert_eq!(script.looks(1000, 1, ENOUGH / 40, true), 1);
        assert_eq!(script.looks(1000, 1, ENOUGH / 40 - 1, true), 2);
    }

    #[test]
    fn a_lane_that_does_not_come_or_goes_again_could_not_be_had() {
        let mut script = Script::new();
        script.looks(225, 1, TEN, true);
        assert_eq!(script.looks(3000, 1, TEN, true), 2);
        assert_eq!((script.looks(25, 1, TEN, true), script.growth.why()), (1, Why::NotHad));
        let mut script = Script::new();
        script.looks(225, 1, TEN, true);
        script.looks(50, 2, 2 * TEN, true);
        assert_eq!((script.looks(25, 1, TEN, true), script.growth.why()), (1, Why::NotHad));
    }

    #[test]
    fn a_trial_is_judged_after_a_stretch_by_half_of_an_equal_share() {
        let judged = |has: usize, bytes: u64| {
            let mut script = Script::grown(has);
            script.looks(225, has, has as u64 * 4 * TEN, true);
            assert_eq!(script.growth.wanted(), has + 1, "{:?}", script.growth);
            script.looks(25 + 100, has + 1, bytes, true);
            let why = script.growth.why();
            script.looks(175, has + 1, bytes, true);
            assert_eq!(script.growth.why(), why, "not judged yet");
            script.looks(25, has + 1, bytes, true);
            assert_ne!(script.growth.why(), why, "judged now");
            matches!(script.growth.why(), Why::Faster { .. })
        };
        assert!(judged(1, 6 * TEN) && !judged(1, 6 * TEN - 1), "half of what one carries");
        assert!(judged(2, 10 * TEN) && !judged(2, 10 * TEN - 1), "a quarter of what two carry");
        assert!(judged(3, 14 * TEN) && !judged(3, 14 * TEN - 1), "a sixth of what three carry");
    }

    #[test]
    fn lanes_are_given_up_after_two_seconds_of_little() {
        let low = |bytes: u64| {
            let mut script = Script::grown(3);
            assert_eq!(script.looks(2000, 3, bytes, false), 3);
            (script.looks(25, 3, bytes, false), script)
        };
        // Two carried 20 MB/s, of which half is ten and a sixty-fourth 312,500 a second.
        assert_eq!(low(TEN).0, 3);
        assert_eq!(low(TEN - 1).0, 2);
        assert_eq!(low(312_500 / 40 + 1).0, 2);
        assert_eq!(low(312_500 / 40 - 1).0, 1);
        assert_eq!(low(0).1.growth.why(), Why::Idle);
        // Just as much: two looks make the odd byte even.
        let mut script = Script::grown(3);
        let wanted: Vec<usize> = (0..81).map(|at| script.looks(25, 3, 7812 + at % 2, false)).collect();
        assert_eq!(wanted[79..], [3, 2]);
        // One lane is taken to have carried half of what two did: 10 MB/s, of which half is five.
        let (two, mut script) = low(TEN - 1);
        assert_eq!((two, script.looks(2100, 2, TEN / 2, false)), (2, 2));
        assert_eq!(script.looks(4100, 2, TEN / 2 - 1, false), 1);
    }

    #[test]
    fn a_queue_or_a_trial_between_begins_the_two_seconds_anew() {
        let mut script = Script::grown(3);
        script.looks(1900, 3, 0, false);
        script.looks(25, 3, 0, true);
        assert_eq!(script.looks(2000, 3, 0, false), 3);
        assert_eq!(script.looks(25, 3, 0, false), 1);
        let mut script = Script::grown(2);
        assert_eq!(script.looks(225, 2, 2 * TEN, true), 3);
        assert_eq!(script.looks(2900, 2, 0, false), 3, "a lane more is waited for");
    }

    #[test]
    fn why_is_said_in_megabytes() {
        let faster = Why::Faster { with: 31_000_000, without: 20_540_000 };
        assert_eq!(faster.to_string(), "the last one added carries more: 31.0 MB/s, 20.5 without it");
        let not = Why::NotFaster { with: 20_000_000, without: 20_540_000 };
        assert_eq!(not.to_string(), "one more did not carry more: 20.0 MB/s, 20.5 without it");
    }
}
