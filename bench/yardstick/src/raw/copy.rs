//! Two copies through shared memory: as a ping-pong of one message, and as a stream of large ones through a
//! cache-sized window of chunks.

use std::process::Stdio;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::memory::{Private, Shared};
use super::pair::{self, Second};
use super::{RawArgs, ping_pong};
use crate::sample::Sample;

/// Lines of the head: sequence number there, and back.
const PING: usize = 0;
const PONG: usize = 8;
/// Where the areas start.
const HEAD_BYTES: usize = 4096;
/// The window of the stream: chunks that fit the second-level cache together.
const CHUNK_BYTES: usize = 16 << 10;
const CHUNKS: usize = 8;

fn area_bytes(args: &RawArgs) -> usize {
    args.size.next_multiple_of(4096)
}

pub(super) fn first(args: &RawArgs) -> Result<Sample> {
    let area = area_bytes(args);
    let (shared, memory) = Shared::create(HEAD_BYTES + 2 * area)?;
    let mut mine = Private::new(args.size, 1)?;
    let _second = Second::start(&args.cpus, memory, Stdio::null())?;
    let (ping, pong) = (&shared.lines()[PING].sequence, &shared.lines()[PONG].sequence);
    let mut sequence = 0;
    let sample = ping_pong(args.seconds, || {
        sequence += 1;
        shared.copy_in(HEAD_BYTES, &mine);
        ping.store(sequence, Release);
        while pong.load(Acquire) != sequence {}
        shared.copy_out(HEAD_BYTES + area, &mut mine);
    });
    ensure!(mine.iter().all(|byte| *byte == 1), "a payload came back changed");
    Ok(sample)
}

pub(super) fn second(args: &RawArgs) -> Result<()> {
    let shared = Shared::map(pair::input()?)?;
    let mut mine = Private::new(args.size, 2)?;
    let (ping, pong) = (&shared.lines()[PING].sequence, &shared.lines()[PONG].sequence);
    for sequence in 1.. {
        while ping.load(Acquire) != sequence {}
        shared.copy_out(HEAD_BYTES, &mut mine);
        shared.copy_in(HEAD_BYTES + area_bytes(args), &mine);
        pong.store(sequence, Release);
    }
    Ok(())
}

/// Position of chunk number `chunk` in the window.
fn slot(chunk: u64) -> usize {
    HEAD_BYTES + (chunk as usize % CHUNKS) * CHUNK_BYTES
}

pub(super) fn window_first(args: &RawArgs) -> Result<Sample> {
    ensure!(args.size > 0, "a stream needs a size");
    let (shared, memory) = Shared::create(HEAD_BYTES + CHUNKS * CHUNK_BYTES)?;
    let mine = Private::new(args.size, 1)?;
    let _second = Second::start(&args.cpus, memory, Stdio::null())?;
    let (filled, emptied) = (&shared.lines()[PING].sequence, &shared.lines()[PONG].sequence);
    let mut chunk = 0u64;
    let mut send = || {
        for piece in mine.chunks(CHUNK_BYTES) {
            while chunk - emptied.load(Acquire) == CHUNKS as u64 {}
            shared.copy_in(slot(chunk), piece);
            chunk += 1;
            filled.store(chunk, Release);
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
        messages += 1;
    }
    while emptied.load(Acquire) != chunk {}
    Ok(Sample::stream(messages, args.size, start.elapsed()))
}

pub(super) fn window_second(args: &RawArgs) -> Result<()> {
    let shared = Shared::map(pair::input()?)?;
    let mut mine = Private::new(args.size, 2)?;
    let (filled, emptied) = (&shared.lines()[PING].sequence, &shared.lines()[PONG].sequence);
    let mut chunk = emptied.load(Relaxed);
    loop {
        for piece in mine.chunks_mut(CHUNK_BYTES) {
            while filled.load(Acquire) == chunk {}
            shared.copy_out(slot(chunk), piece);
            chunk += 1;
            emptied.store(chunk, Release);
        }
    }
}
