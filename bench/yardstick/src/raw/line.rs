//! Ping-pong over a cache line each way that carries both the sequence number and the payload: the floor of latency.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use anyhow::{Result, ensure};

use super::memory::{Line, Shared};
use super::pair::{self, Second};
use super::{RawArgs, ping_pong};
use crate::sample::Sample;

/// The line that the first side writes.
const PING: usize = 0;
/// The line that the second side writes, far enough that no prefetcher drags it along.
const PONG: usize = 8;

/// Writes a message of `words` words, each different from the last message's.
#[inline(always)]
fn send(line: &Line, sequence: u64, words: usize) {
    for word in &line.words[..words] {
        word.store(sequence, Relaxed);
    }
    line.sequence.store(sequence, Release);
}

/// Waits for message `sequence` and reads its words.
#[inline(always)]
fn receive(line: &Line, sequence: u64, words: usize, pause: bool) -> u64 {
    while line.sequence.load(Acquire) != sequence {
        if pause {
            std::hint::spin_loop();
        }
    }
    line.words[..words].iter().fold(0, |sum, word| sum ^ word.load(Relaxed) ^ sequence)
}

fn words(args: &RawArgs) -> Result<usize> {
    ensure!(args.size <= 56, "a line carries at most 56 B");
    Ok(args.size.div_ceil(8))
}

pub(super) fn first(args: &RawArgs) -> Result<Sample> {
    let (shared, memory) = Shared::create(4096)?;
    let (words, pause) = (words(args)?, args.pause);
    let _second = Second::start(&args.cpus, memory, std::process::Stdio::null())?;
    let (ping, pong) = (&shared.lines()[PING], &shared.lines()[PONG]);
    let mut sequence = 0;
    let mut wrong = 0;
    let sample = ping_pong(args.seconds, || {
        sequence += 1;
        send(ping, sequence, words);
        wrong |= receive(pong, sequence, words, pause);
    });
    ensure!(wrong == 0, "a payload came back changed");
    Ok(sample)
}

pub(super) fn second(args: &RawArgs) -> Result<()> {
    let shared = Shared::map(pair::input()?)?;
    let (words, pause) = (words(args)?, args.pause);
    let (ping, pong) = (&shared.lines()[PING], &shared.lines()[PONG]);
    for sequence in 1.. {
        let wrong = receive(ping, sequence, words, pause);
        ensure!(wrong == 0, "a payload arrived changed");
        send(pong, sequence, words);
    }
    Ok(())
}
