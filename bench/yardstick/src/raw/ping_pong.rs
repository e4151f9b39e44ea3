//! The clock of every ping-pong: warm-up, batches, mean and median of one way.
//! The first sides of latency programs call it. It must add nothing to the round trip itself.

use std::time::{Duration, Instant};

use crate::sample::{Sample, median};

/// Round trips before the clock starts.
const WARM_UP: usize = 500;
/// Round trips between two looks at the clock: 16 make its 20 ns vanish beside the shortest.
const BATCH: u32 = 16;

/// Calls `round_trip` for `seconds` and counts half of it as one way.
pub fn ping_pong(seconds: f64, mut round_trip: impl FnMut()) -> Sample {
    let mut clock = Clock::new(seconds);
    while let Some(batch) = clock.next_batch() {
        for _ in 0..batch {
            round_trip();
        }
    }
    clock.sample()
}

/// The clock by itself, for round trips that are awaited.
#[derive(Debug)]
pub struct Clock {
    limit: Duration,
    /// Round trips that still warm up.
    cold: usize,
    /// Of the warm-up, then of what counts.
    start: Instant,
    last: Instant,
    rounds: u64,
    batches: Vec<f64>,
}

impl Clock {
    /// A clock for `seconds`, behind a warm-up of at most a quarter of that.
    #[must_use]
    pub fn new(seconds: f64) -> Self {
        let now = Instant::now();
        Self {
            limit: Duration::from_secs_f64(seconds),
            cold: WARM_UP,
            start: now,
            last: now,
            rounds: 0,
            batches: Vec::with_capacity(1 << 20),
        }
    }

    /// How many round trips to make before it is asked again. `None`: the time is up.
    pub fn next_batch(&mut self) -> Option<u32> {
        let now = Instant::now();
        if self.cold > 0 {
            if now - self.start <= self.limit / 4 {
                self.cold -= 1;
                return Some(1);
            }
            self.cold = 0;
        }
        if self.rounds == 0 {
            self.start = now;
        } else if self.batches.len() < self.batches.capacity() {
            self.batches.push((now - self.last).as_nanos() as f64 / f64::from(2 * BATCH));
        }
        self.last = now;
        if self.rounds > 0 && now - self.start >= self.limit {
            return None;
        }
        self.rounds += u64::from(BATCH);
        Some(BATCH)
    }

    /// What it has counted when the time was up.
    #[must_use]
    pub fn sample(&self) -> Sample {
        Sample {
            latency_ns: Some((self.last - self.start).as_nanos() as f64 / self.rounds as f64 / 2.0),
            latency_p50_ns: median(&self.batches),
            ..Sample::default()
        }
    }
}
