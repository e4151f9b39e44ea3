//! A ring of slots of any size, each with its sequence number in front of the payload, both copied from and to private
//! memory: the limit of a stream of messages longer than a cache line and shorter than a chunk of the window.

use std::process::Stdio;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::RawArgs;
use super::memory::{Private, Shared};
use super::pair::{self, Second};
use crate::sample::Sample;

/// Bytes of a cache line, and of the sequence number at the start of a slot.
const LINE: usize = 64;
const NUMBER: usize = 8;
/// Bytes of all slots together, and how many there are at most: enough that neither side waits for the other's hiccups. A
/// ring in the second-level cache is faster on some days (see the window of chunks) and slower on others.
const RING_BYTES: usize = SLOTS_MAX * (65 << 10);
const SLOTS_MAX: usize = 64;
/// Room in front of the slots; its first line is the consumer's position.
const HEAD: usize = 4096;

/// Where the slots lie.
struct Slots<'a> {
    shared: &'a Shared,
    stride: usize,
    count: u64,
}

/// Bytes from slot to slot, and how many there are.
fn shape(args: &RawArgs) -> (usize, u64) {
    let stride = (args.size + NUMBER).next_multiple_of(LINE);
    let count = (RING_BYTES / stride).clamp(8, SLOTS_MAX);
    // A power of two, so that finding a slot costs no division.
    (stride, 1 << count.ilog2())
}

impl Slots<'_> {
    fn offset(&self, sequence: u64) -> usize {
        HEAD + (sequence & (self.count - 1)) as usize * self.stride
    }

    fn number(&self, sequence: u64) -> &AtomicU64 {
        &self.shared.lines()[self.offset(sequence) / LINE].sequence
    }

    fn consumed(&self) -> &AtomicU64 {
        &self.shared.lines()[0].sequence
    }
}

pub(super) fn first(args: &RawArgs) -> Result<Sample> {
    let (stride, count) = shape(args);
    let (shared, memory) = Shared::create(HEAD + count as usize * stride)?;
    let mine = Private::new(args.size, 1)?;
    let _second = Second::start(&args.cpus, memory, Stdio::null())?;
    let slots = Slots { shared: &shared, stride, count };
    let (mut sequence, mut consumed) = (0, 0);
    let mut send = || {
        for _ in 0..count {
            sequence += 1;
            while sequence - consumed > count {
                consumed = slots.consumed().load(Acquire);
            }
            shared.copy_in(slots.offset(sequence) + NUMBER, &mine);
            slots.number(sequence).store(sequence, Release);
        }
    };
    let warm_up = Instant::now();
    while warm_up.elapsed() < Duration::from_secs_f64(args.seconds / 4.0) {
        send();
    }
    let start = Instant::now();
    let mut messages = 0;
    while start.elapsed() < Duration::from_secs_f64(args.seconds) {
        send();
        messages += count;
    }
    Ok(Sample::stream(messages, args.size, start.elapsed()))
}

pub(super) fn second(args: &RawArgs) -> Result<()> {
    let shared = Shared::map(pair::input()?)?;
    let (stride, count) = shape(args);
    let mut mine = Private::new(args.size, 2)?;
    let slots = Slots { shared: &shared, stride, count };
    for sequence in 1.. {
        while slots.number(sequence).load(Acquire) != sequence {}
        shared.copy_out(slots.offset(sequence) + NUMBER, &mut mine);
        if sequence % (count / 4) == 0 {
            ensure!(mine.iter().take(1).all(|byte| *byte == 1), "a payload arrived changed");
            slots.consumed().store(sequence, Release);
        }
    }
    Ok(())
}
