//! Connects on a machine whose processors are all busy: they take longer, and none fails.

use crate::campaign::{rounds, seed};
use crate::common::{PATIENCE, engine_with, options, spawn};
use sinew::{Engine, Progress};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

crate::on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [connects_on_a_busy_machine_take_longer_and_do_not_fail] }

/// Threads that only use processor time.
const BUSY: usize = 10;

fn connects_on_a_busy_machine_take_longer_and_do_not_fail(lane: &str) {
    // Each takes a good part of a second.
    let (rounds, seed) = (rounds().div_ceil(5), seed());
    let mut other = spawn("echo", lane, &[]);
    let address = other.line();
    let stop = AtomicBool::new(false);
    let mut taken: Vec<Duration> = std::thread::scope(|scope| {
        for _ in 0..BUSY {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
            });
        }
        let taken = std::panic::catch_unwind(|| {
            (0..rounds).map(|round| once(lane, &address, round)).collect::<Vec<_>>()
        });
        stop.store(true, Ordering::Release);
        taken.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    taken.sort();
    println!(
        "campaign starve/connects/{lane}: {rounds} rounds beside {BUSY} busy threads, 0 failed, connected after {:?}/{:?} (median/max), seed {seed}",
        taken[taken.len() / 2],
        taken[taken.len() - 1],
    );
    other.tell("end");
    other.finish();
}

/// A new engine connects, and has one message come back.
fn once(lane: &str, address: &str, round: u64) -> Duration {
    let progress = if round.is_multiple_of(2) { Progress::Caller } else { Progress::Thread { cpu: None } };
    let engine: Engine = engine_with(lane, progress, options());
    let at = engine.endpoint("").unwrap();
    let start = Instant::now();
    let peer = at.connect(address).unwrap_or_else(|error| panic!("round {round}: {error}"));
    let taken = start.elapsed();
    peer.send(round, b"hello").unwrap();
    assert_eq!(at.recv_within(round, &mut [0; 8], PATIENCE).unwrap().len, 5);
    taken
}
