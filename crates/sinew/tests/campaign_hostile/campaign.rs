//! What every campaign has: how many rounds, luck that can be had again, and one line of result.

use std::time::{SystemTime, UNIX_EPOCH};

/// Rounds of a campaign: `SINEW_CAMPAIGN_ROUNDS`, or what a run in CI does.
pub(crate) fn rounds() -> u64 {
    number("SINEW_CAMPAIGN_ROUNDS").unwrap_or(50).max(1)
}

/// What the luck of a campaign starts from: `SINEW_SEED`, or the clock.
pub(crate) fn seed() -> u64 {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
    number("SINEW_SEED").unwrap_or_else(|| clock() % 1_000_000)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A small generator of numbers.
#[derive(Clone)]
pub(crate) struct Luck(u64);

impl Luck {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let first = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let second = (first ^ first >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        second ^ second >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() % limit as u64) as usize }
    }
}
