//! Streams in one direction: small messages counted, large ones weighed. The first side receives, so only what arrived,
//! matched and was checked counts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sinew::{Buf, Endpoint, Match, OpError, Outgoing, Progress, Receive, RecvOp};

use super::OursArgs;
use super::pairing::{self, Side, check, stamp};
use sinew_yardstick::sample::{self, Sample};

/// Messages between two looks at the clock, in a stream of small ones.
const BATCH: u64 = 256;
/// Messages under way at most, as `ucx_perftest` has them.
const WINDOW: usize = 32;
/// Bytes under way at most, so that a window's buffers stay in the cache; but always two messages.
const WINDOW_BYTES: usize = 256 << 10;
/// The order in which each eight tags are sent under `--permute`.
const PERMUTATION: [u64; 8] = [3, 0, 6, 1, 7, 4, 2, 5];

/// Calls `batch` for a quarter of the time, then counts what it returns.
pub(super) fn timed(args: &OursArgs, mut batch: impl FnMut() -> Result<u64>) -> Result<Sample> {
    let warm_up = Instant::now();
    while warm_up.elapsed() < sample::stream_warm_up(args.seconds) {
        batch()?;
    }
    let start = Instant::now();
    let mut messages = 0;
    while start.elapsed() < Duration::from_secs_f64(args.seconds) {
        messages += batch()?;
    }
    Ok(Sample::stream(messages, args.size, start.elapsed()))
}

/// The number in message `order` of the stream.
#[inline]
pub(super) fn tag_of(args: &OursArgs, order: u64) -> u64 {
    if args.permute { order & !7 | PERMUTATION[(order & 7) as usize] } else { order }
}

pub(super) fn rate_first(args: &OursArgs) -> Result<Sample> {
    let side = pairing::first(args, Progress::Caller)?;
    side.peer.send(0, b"go")?;
    if args.batch > 1 {
        return batch_first(args, &side);
    }
    if args.window > 0 {
        let mut receiver = Receiver::new(&side.endpoint, args.size, args.window)?;
        return timed(args, || {
            for _ in 0..BATCH {
                receiver.next()?;
            }
            Ok(BATCH)
        });
    }
    let mut buffer = vec![0; args.size];
    let mut number = 0;
    timed(args, || {
        for _ in 0..BATCH {
            let pattern = if args.untagged { Match::untagged() } else { Match::tag(number) };
            let got = side.endpoint.recv(pattern, &mut buffer)?;
            ensure!(got.len == args.size, "message {number}: {got:?}");
            check(&buffer, number)?;
            number += 1;
        }
        Ok(BATCH)
    })
}

pub(super) fn rate_second(args: &OursArgs) -> Result<()> {
    let side = await_go(args)?;
    if args.batch > 1 {
        return batch_second(args, &side);
    }
    let mut buffer = vec![0; args.size];
    for order in 0.. {
        let number = tag_of(args, order);
        stamp(&mut buffer, number);
        let message = side.peer.message(number);
        let message = if args.untagged { message.untagged() } else { message };
        if let Err(OpError::WouldBlock) = message.stage(&buffer) {
            message.send(&buffer)?;
        }
    }
    Ok(())
}

/// Receives batch by batch, each message with a tag of its own, or all untagged.
fn batch_first(args: &OursArgs, side: &Side) -> Result<Sample> {
    let pattern = |number| if args.untagged { Match::untagged() } else { Match::tag(number) };
    let mut buffers = vec![0; args.size * args.batch];
    let mut receives: Vec<Receive<'_>> = buffers
        .chunks_mut(args.size)
        .zip(0..)
        .map(|(buffer, number)| Receive::new(pattern(number), buffer))
        .collect();
    let mut number = 0;
    timed(args, || {
        let mut messages = 0;
        while messages < BATCH {
            side.endpoint.recv_all(&mut receives)?;
            for receive in &mut receives {
                check(receive.data(), number)?;
                ensure!(receive.data().len() == args.size, "message {number}: {:?}", receive.result());
                receive.again(pattern(number + args.batch as u64));
                number += 1;
            }
            messages += args.batch as u64;
        }
        Ok(messages)
    })
}

fn batch_second(args: &OursArgs, side: &Side) -> Result<()> {
    let mut buffers = vec![0; args.size * args.batch];
    let mut number = 0;
    loop {
        for (place, buffer) in buffers.chunks_mut(args.size).enumerate() {
            stamp(buffer, number + place as u64);
        }
        let messages = buffers.chunks(args.size).zip(number..).map(|(buffer, number)| {
            if args.untagged { Outgoing::untagged(buffer) } else { Outgoing::tagged(number, buffer) }
        });
        side.peer.send_batch(&messages.collect::<Vec<_>>())?;
        number += args.batch as u64;
    }
}

/// The sending side, once the first has told it to begin.
pub(super) fn await_go(args: &OursArgs) -> Result<Side> {
    let side = pairing::second(args, Progress::Caller)?;
    side.endpoint.recv(0, &mut [0; 8])?;
    Ok(side)
}

/// Receives kept posted, taken in order.
struct Receiver<'a> {
    endpoint: &'a Endpoint,
    posted: VecDeque<RecvOp>,
    taken: u64,
    size: usize,
}

impl<'a> Receiver<'a> {
    fn new(endpoint: &'a Endpoint, size: usize, window: usize) -> Result<Self> {
        let posted = (0..window as u64)
            .map(|number| Ok(endpoint.post_recv(number, Buf::zeroed(size))?))
            .collect::<Result<_>>()?;
        Ok(Self { endpoint, posted, taken: 0, size })
    }

    /// Waits for the next message, checks it, posts its buffer again.
    fn next(&mut self) -> Result<()> {
        let Some(operation) = self.posted.pop_front() else { return Ok(()) };
        let received = operation.wait()?;
        ensure!(received.info.len == self.size, "message {}: {:?}", self.taken, received.info);
        check(received.buf.as_slice(), self.taken)?;
        self.taken += 1;
        let number = self.taken + self.posted.len() as u64;
        self.posted.push_back(self.endpoint.post_recv(number, received.buf)?);
        Ok(())
    }
}

pub(super) fn window(args: &OursArgs) -> usize {
    if args.window > 0 { args.window } else { (WINDOW_BYTES / args.size.max(1)).clamp(2, WINDOW) }
}

pub(super) fn bandwidth_first(args: &OursArgs) -> Result<Sample> {
    let side = pairing::first(args, Progress::Caller)?;
    let mut receiver = Receiver::new(&side.endpoint, args.size, window(args))?;
    side.peer.send(0, b"go")?;
    timed(args, || receiver.next().map(|()| 1))
}

pub(super) fn bandwidth_second(args: &OursArgs) -> Result<()> {
    let side = await_go(args)?;
    let mut idle: Vec<Buf> = (0..window(args)).map(|_| Buf::zeroed(args.size)).collect();
    let mut under_way = VecDeque::new();
    for number in 0.. {
        let mut buffer = match idle.pop() {
            Some(buffer) => buffer,
            None => {
                let Some(oldest) = under_way.pop_front() else { return Ok(()) };
                sinew::SendOp::wait(oldest)?
            }
        };
        if let Some(bytes) = buffer.as_mut_slice() {
            stamp(bytes, number);
        }
        under_way.push_back(side.peer.post_send(number, buffer)?);
    }
    Ok(())
}
