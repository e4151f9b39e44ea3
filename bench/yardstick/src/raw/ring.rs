//! A bare ring of 64-byte slots, one producer, one consumer: the floor of message rate.

use std::process::Stdio;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::RawArgs;
use super::memory::{Line, Shared};
use super::pair::{self, Second};
use crate::sample::Sample;

/// Slots of the ring.
const SLOTS: u64 = 256;
/// The consumer says how far it is once per this many slots.
const STRIDE: u64 = SLOTS / 4;
/// Lines in front of the slots; the first one holds the consumer's position.
const HEAD: usize = 64;

fn words(args: &RawArgs) -> Result<usize> {
    ensure!(args.size <= 56, "a slot carries at most 56 B");
    Ok(args.size.div_ceil(8))
}

#[inline(always)]
fn slot(slots: &[Line], sequence: u64) -> &Line {
    &slots[(sequence % SLOTS) as usize]
}

/// The producer: fills slots, reads the consumer's position only when the ring looks full.
struct Producer<'a> {
    slots: &'a [Line],
    consumed: &'a AtomicU64,
    consumed_seen: u64,
    sequence: u64,
    words: usize,
}

impl Producer<'_> {
    #[inline(always)]
    fn send(&mut self) {
        self.sequence += 1;
        while self.sequence - self.consumed_seen > SLOTS {
            self.consumed_seen = self.consumed.load(Acquire);
        }
        let line = slot(self.slots, self.sequence);
        for word in &line.words[..self.words] {
            word.store(self.sequence, Relaxed);
        }
        line.sequence.store(self.sequence, Release);
    }
}

pub(super) fn first(args: &RawArgs) -> Result<Sample> {
    let (shared, memory) = Shared::create((HEAD + SLOTS as usize) * size_of::<Line>())?;
    let words = words(args)?;
    let _second = Second::start(&args.cpus, memory, Stdio::null())?;
    let (head, slots) = shared.lines().split_at(HEAD);
    let mut producer = Producer { slots, consumed: &head[0].sequence, consumed_seen: 0, sequence: 0, words };
    let warm_up = Instant::now();
    while warm_up.elapsed() < Duration::from_secs_f64(args.seconds / 4.0) {
        for _ in 0..SLOTS {
            producer.send();
        }
    }
    let start = Instant::now();
    let before = producer.sequence;
    while start.elapsed() < Duration::from_secs_f64(args.seconds) {
        for _ in 0..SLOTS {
            producer.send();
        }
    }
    Ok(Sample::stream(producer.sequence - before, args.size, start.elapsed()))
}

pub(super) fn second(args: &RawArgs) -> Result<()> {
    let shared = Shared::map(pair::input()?)?;
    let words = words(args)?;
    let (head, slots) = shared.lines().split_at(HEAD);
    let consumed = &head[0].sequence;
    let mut wrong = 0;
    for sequence in 1.. {
        let line = slot(slots, sequence);
        while line.sequence.load(Acquire) != sequence {}
        wrong |= line.words[..words].iter().fold(0, |sum, word| sum | (word.load(Relaxed) ^ sequence));
        if sequence % STRIDE == 0 {
            ensure!(wrong == 0, "a payload arrived changed");
            consumed.store(sequence, Release);
        }
    }
    Ok(())
}
