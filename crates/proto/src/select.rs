//! Choosing a path: what a path costs, when another is better by enough, which of several, and which of the two engines
//! decides.
//!
//! Called by the engine when it dials, when a lane is proven, and now and then while traffic flows. It dials nothing and
//! measures nothing: the engine says what it has found out.

/// By how much a path must be better than the one in use before traffic moves, in percent of the better one's cost: a move
/// costs a round trip without traffic, and two paths that are as good as each other must not take turns.
pub const HYSTERESIS_PERCENT: u64 = 15;

/// What is known of a path, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// The shortest of the last round trips while it carried traffic.
    pub recent_rtt: Option<u64>,
    /// The shortest round trip when it was proven.
    pub proven_rtt: Option<u64>,
    /// What its transport expects, one way.
    pub expected: u64,
}

impl Latency {
    /// What a small message costs, one way: by the youngest measurement there is, else as expected.
    #[must_use]
    pub const fn cost_ns(&self) -> u64 {
        match (self.recent_rtt, self.proven_rtt) {
            (Some(rtt), _) | (None, Some(rtt)) => rtt / 2,
            (None, None) => self.expected,
        }
    }
}

/// Whether a path of cost `other` is better than one of cost `present` by more than [`HYSTERESIS_PERCENT`].
#[must_use]
pub const fn is_better(other: u64, present: u64) -> bool {
    other as u128 * (100 + HYSTERESIS_PERCENT) as u128 <= present as u128 * 100 && other < present
}

/// The path in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Present {
    /// What it costs, in nanoseconds.
    pub cost: u64,
    /// What it should cost, as its transport expects, in nanoseconds.
    pub expected: u64,
    /// Whether it was measured often enough since it was proven to leave it for what was measured.
    pub well_measured: bool,
}

impl Present {
    /// Whether it is left for a path of this cost and expectation, in nanoseconds. One that ought to be worse must show it: a
    /// moment in which the machine was busy is no measurement.
    #[must_use]
    pub const fn yields_to(&self, cost: u64, expected: u64) -> bool {
        (self.well_measured || expected <= self.expected) && is_better(cost, self.cost)
    }
}

/// The path to move to: the cheapest of those that stand by (of equal ones the first), if the present one yields to it. They
/// come as key, cost and expectation.
#[must_use]
pub fn better<K>(present: &Present, standing_by: impl IntoIterator<Item = (K, u64, u64)>) -> Option<K> {
    let (key, cost, expected) = standing_by.into_iter().min_by_key(|(_, cost, _)| *cost)?;
    present.yields_to(cost, expected).then_some(key)
}

/// Whether the engine `own` looks for better paths to `peer`, moves to them and closes idle ones; the other moves its sending to
/// where this one has moved its own, so that one path serves both directions. Of two engines one decides: two that choose
/// differently would move for ever.
#[must_use]
pub fn decides(own: [u8; 16], peer: [u8; 16]) -> bool {
    own >= peer
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_youngest_measurement_counts() {
        let expected = Latency { expected: 900, ..Latency::default() };
        let proven = Latency { proven_rtt: Some(400), ..expected };
        let recent = Latency { recent_rtt: Some(5000), ..proven };
        assert_eq!([expected.cost_ns(), proven.cost_ns(), recent.cost_ns()], [900, 200, 2500]);
    }

    #[test]
    fn the_margin_is_fifteen_percent() {
        assert!(is_better(1000, 1150) && !is_better(1000, 1149));
        assert!(!is_better(0, 0) && is_better(0, 1));
        assert!(is_better(u64::MAX / 2, u64::MAX) && !is_better(u64::MAX, u64::MAX));
    }

    #[test]
    fn one_that_ought_to_be_worse_must_show_it_in_measurements() {
        let busy = Present { cost: 5000, expected: 100, well_measured: false };
        assert!(!busy.yields_to(1000, 900) && busy.yields_to(1000, 100));
        assert!(Present { well_measured: true, ..busy }.yields_to(1000, 900));
    }

    #[test]
    fn of_two_engines_the_greater_decides() {
        assert!(decides([2; 16], [1; 16]) && !decides([1; 16], [2; 16]));
        assert!(decides([1; 16], [1; 16]), "an engine decides for itself");
    }

    proptest! {
        #[test]
        fn no_two_paths_take_turns(one: u64, other: u64) {
            prop_assert!(!(is_better(one, other) && is_better(other, one)));
        }

        #[test]
        fn who_moves_moves_to_the_cheapest_and_stays(present: u64, costs in prop::collection::vec(any::<u64>(), 0..8)) {
            let all = || costs.iter().copied().enumerate().map(|(at, cost)| (at, cost, 0));
            let path = |cost| Present { cost, expected: 0, well_measured: true };
            let cheapest = costs.iter().copied().min();
            match better(&path(present), all()) {
                Some(chosen) => {
                    prop_assert_eq!(Some(costs[chosen]), cheapest);
                    prop_assert!(costs[chosen] < present);
                    let back = all().filter(|(at, ..)| *at != chosen).chain([(usize::MAX, present, 0)]);
                    prop_assert_eq!(better(&path(costs[chosen]), back), None);
                }
                None => prop_assert!(cheapest.is_none_or(|cost| !is_better(cost, present))),
            }
        }

        #[test]
        fn of_two_engines_one_decides(own: [u8; 16], peer: [u8; 16]) {
            prop_assume!(own != peer);
            prop_assert_ne!(decides(own, peer), decides(peer, own));
        }
    }
}
