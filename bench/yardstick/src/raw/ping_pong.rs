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
    let limit = Duration::from_secs_f64(seconds);
    let warm_up = Instant::now();
    for _ in 0..WARM_UP {
        round_trip();
        if warm_up.elapsed() > limit / 4 {
            break;
        }
    }
    let mut batches = Vec::with_capacity(1 << 20);
    let start = Instant::now();
    let mut last = start;
    let mut rounds = 0u64;
    while last - start < limit {
        for _ in 0..BATCH {
            round_trip();
        }
        let now = Instant::now();
        if batches.len() < batches.capacity() {
            batches.push((now - last).as_nanos() as f64 / f64::from(2 * BATCH));
        }
        rounds += u64::from(BATCH);
        last = now;
    }
    Sample {
        latency_ns: Some((last - start).as_nanos() as f64 / rounds as f64 / 2.0),
        latency_p50_ns: median(&batches),
        ..Sample::default()
    }
}
