//! What campaigns share: how many rounds, from which seed, and one line of result.

use std::time::{SystemTime, UNIX_EPOCH};

/// Rounds of a campaign: `SINEW_CAMPAIGN_ROUNDS`, or 50.
pub(crate) fn rounds() -> u64 {
    let set = std::env::var("SINEW_CAMPAIGN_ROUNDS").ok();
    set.map_or(50, |text| text.parse().expect("SINEW_CAMPAIGN_ROUNDS is a number"))
}

/// `SINEW_SEED`, or one of this moment. Printed with the result.
pub(crate) fn seed() -> u64 {
    if let Ok(text) = std::env::var("SINEW_SEED") {
        return text.parse().expect("SINEW_SEED is a number");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
    now % 1_000_000_007
}

/// Numbers that look random, the same for the same seed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) const fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) const fn in_thousand(&mut self, chance: u32) -> bool {
        chance > 0 && self.below(1000) < chance as u64
    }
}
