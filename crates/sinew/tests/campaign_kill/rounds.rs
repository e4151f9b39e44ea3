//! How many rounds a campaign has, where its chance comes from, and how its figures are printed.
//!
//! Used by every campaign of this program.

use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

/// Rounds of a campaign: `SINEW_CAMPAIGN_ROUNDS`, or 50.
pub(crate) fn rounds() -> u64 {
    std::env::var("SINEW_CAMPAIGN_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(50)
}

/// `SINEW_SEED`, or a new one.
pub(crate) fn seed() -> u64 {
    let new = || std::collections::hash_map::RandomState::new().build_hasher().finish() % 1_000_000_000;
    std::env::var("SINEW_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(new)
}

/// Numbers by chance, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Times that were measured.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// `0.8/1.2/2.1/9.7 ms (median/p90/p99/max)`.
    pub(crate) fn row(&mut self) -> String {
        if self.0.is_empty() {
            return "nothing measured".to_owned();
        }
        self.0.sort();
        let at = |percent: usize| self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)];
        let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
        let figures = [at(50), at(90), at(99), at(100)].map(ms).join("/");
        format!("{figures} ms (median/p90/p99/max)")
    }
}

/// The middle of several ratios.
pub(crate) fn middle(ratios: &mut [f64]) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Longest that a campaign may take before it is ended as wedged: far beyond what it needs.
pub(crate) fn patience() -> Duration {
    (Duration::from_secs(170) + Duration::from_secs(5) * rounds() as u32) * sinew_testing::SLOWNESS as u32
}

/// Waits until `condition` holds; `what` is asked for when it does not.
pub(crate) fn until(mut condition: impl FnMut() -> bool, what: impl Fn() -> String) {
    let start = Instant::now();
    let mut turns = 0u32;
    while !condition() {
        assert!(start.elapsed() < crate::common::PATIENCE, "waited in vain: {}", what());
        turns += 1;
        if turns > 50 {
            std::thread::sleep(Duration::from_micros(200));
        } else {
            std::thread::yield_now();
        }
    }
}
