//! The cost of waking a sleeping process: eventfd and futex ping-pongs with both sides asleep, and a receiver that has
//! been asleep for a while, answers through a cache line, and so shows one wake-up alone.

use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::EventfdFlags;
use rustix::thread::futex;

use super::memory::Shared;
use super::pair::{self, Second};
use super::{RawArgs, ping_pong};
use crate::sample::{Sample, median};

/// How long the receiver sleeps before each message of `wake_first`: longer than any sensible spinning before sleep.
pub const REST: Duration = Duration::from_millis(1);

fn ring_bell(bell: impl AsFd) -> Result<()> {
    rustix::io::write(bell, &1u64.to_ne_bytes()).context("eventfd write")?;
    Ok(())
}

fn await_bell(bell: impl AsFd) -> Result<()> {
    rustix::io::read(bell, &mut [0u8; 8]).context("eventfd read")?;
    Ok(())
}

pub(super) fn eventfd_first(args: &RawArgs) -> Result<Sample> {
    let there = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).context("eventfd")?;
    let back = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).context("eventfd")?;
    let _second = Second::start(&args.cpus, there.try_clone()?, back.try_clone()?)?;
    let mut outcome = Ok(());
    let sample = ping_pong(args.seconds, || {
        if outcome.is_ok() {
            outcome = ring_bell(&there).and_then(|()| await_bell(&back));
        }
    });
    outcome.map(|()| sample)
}

pub(super) fn eventfd_second() -> Result<()> {
    let (there, back) = (pair::input()?, pair::output()?);
    loop {
        await_bell(&there)?;
        ring_bell(&back)?;
    }
}

/// The first word of cache line `line`.
fn word(shared: &Shared, line: usize) -> &AtomicU32 {
    &shared.futex_words()[line * 16]
}

fn await_word(word: &AtomicU32, wanted: u32) {
    loop {
        let now = word.load(Acquire);
        if now == wanted {
            return;
        }
        // Interrupted, or changed already: the loop looks again.
        let _ = futex::wait(word, futex::Flags::empty(), now, None);
    }
}

fn wake_word(word: &AtomicU32, value: u32) {
    word.store(value, Release);
    // A word of our own mapping cannot be refused, and nobody waiting is no error.
    let _ = futex::wake(word, futex::Flags::empty(), 1);
}

pub(super) fn futex_first(args: &RawArgs) -> Result<Sample> {
    let (shared, memory) = Shared::create(4096)?;
    let _second = Second::start(&args.cpus, memory, Stdio::null())?;
    let (there, back) = (word(&shared, 0), word(&shared, 8));
    let mut sequence = 0;
    Ok(ping_pong(args.seconds, || {
        sequence += 1;
        wake_word(there, sequence);
        await_word(back, sequence);
    }))
}

pub(super) fn futex_second() -> Result<()> {
    let shared = Shared::map(pair::input()?)?;
    let (there, back) = (word(&shared, 0), word(&shared, 8));
    for sequence in 1.. {
        await_word(there, sequence);
        wake_word(back, sequence);
    }
    Ok(())
}

pub(super) fn wake_first(args: &RawArgs) -> Result<Sample> {
    let (shared, memory) = Shared::create(4096)?;
    let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).context("eventfd")?;
    let _second = Second::start(&args.cpus, bell.try_clone()?, memory)?;
    let answer = &shared.lines()[8].sequence;
    let mut sequence = 0;
    wakes(args.seconds, || {
        sequence += 1;
        ring_bell(&bell)?;
        await_answer(answer, sequence);
        Ok(())
    })
}

fn await_answer(answer: &AtomicU64, sequence: u64) {
    while answer.load(Acquire) != sequence {}
}

pub(super) fn wake_second() -> Result<()> {
    let (bell, memory) = (pair::input()?, pair::output()?);
    let shared = Shared::map(memory)?;
    let answer = &shared.lines()[8].sequence;
    for sequence in 1.. {
        await_bell(&bell)?;
        answer.store(sequence, Relaxed);
    }
    Ok(())
}

/// Calls `wake` for `seconds`, each time after the other side has had [`REST`] to fall asleep; the result is the time
/// from the call to its end (the answer comes through a cache line and costs nothing beside a wake-up).
pub fn wakes(seconds: f64, mut wake: impl FnMut() -> Result<()>) -> Result<Sample> {
    let mut latencies = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs_f64(seconds) {
        let rest = Instant::now();
        while rest.elapsed() < REST {
            std::hint::spin_loop();
        }
        let begin = Instant::now();
        wake()?;
        latencies.push(begin.elapsed().as_nanos() as f64);
    }
    ensure!(!latencies.is_empty(), "no time to measure in");
    // The first wakes meet a second side that is still starting. The median, not the mean: somebody else's time slice on
    // the sleeper's core costs a hundred wake-ups.
    let middle = median(&latencies[latencies.len() / 10..]);
    Ok(Sample { latency_ns: middle, latency_p50_ns: middle, ..Sample::default() })
}
