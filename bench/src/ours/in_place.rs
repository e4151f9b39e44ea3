//! Messages that the receiver reads where they are: sent from buffers of the engine's pool, with one copy into such a buffer
//! or with none.

use std::collections::VecDeque;

use anyhow::{Context, Result, ensure};
use sinew::{Buf, Incoming, Peer, Progress, SendOp};

use super::OursArgs;
use super::pairing::{self, Side, check_ends, check_lines, stamp};
use super::stream::{await_go, timed, window};
use sinew_yardstick::raw::ping_pong::ping_pong;
use sinew_yardstick::sample::Sample;

/// Buffers that a ping-pong sends in turn: while one is read by the peer, another can be filled.
const IN_TURN: usize = 4;

/// Pool buffers that go out and come back in the order in which they went.
struct Buffers {
    peer: Peer,
    idle: Vec<Buf>,
    under_way: VecDeque<SendOp>,
}

impl Buffers {
    fn new(peer: &Peer, size: usize, count: usize) -> Result<Self> {
        let idle = (0..count)
            .map(|_| {
                let mut buffer = peer.alloc(size)?;
                // Touched once, as a program that fills its buffers has.
                buffer.as_mut_slice().context("a pool buffer is read-only")?.fill(1);
                Ok(buffer)
            })
            .collect::<Result<_>>()?;
        Ok(Self { peer: peer.clone(), idle, under_way: VecDeque::with_capacity(count) })
    }

    /// Sends message `number`, which `fill` writes into a buffer that nobody reads any more.
    #[inline]
    fn send(&mut self, number: u64, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        let mut buffer = match self.idle.pop() {
            Some(buffer) => buffer,
            None => self.under_way.pop_front().context("no buffer")?.wait()?,
        };
        fill(buffer.as_mut_slice().context("a pool buffer is read-only")?);
        self.under_way.push_back(self.peer.post_send(number, buffer)?);
        Ok(())
    }
}

/// Receives message `number` without a copy.
#[inline]
fn receive(side: &Side, size: usize, number: u64) -> Result<Incoming> {
    let message = side.endpoint.recv_message(number, size)?;
    ensure!(message.len() == size && message.is_lent(), "message {number}: {message:?}");
    Ok(message)
}

/// What a side does with a message: every line of it is looked at, or the first and the last.
#[inline]
fn look(args: &OursArgs, message: &Incoming, number: u64) -> Result<()> {
    if args.case == super::Case::Loan { check_ends(message, number) } else { check_lines(message, number) }
}

pub(super) fn ping_pong_first(args: &OursArgs) -> Result<Sample> {
    let side = pairing::first(args, Progress::Caller)?;
    let mut buffers = Buffers::new(&side.peer, args.size, IN_TURN)?;
    let mut number = 0;
    let mut outcome = Ok(());
    let mut round_trip = || {
        number += 1;
        buffers.send(number, |bytes| stamp(bytes, number))?;
        look(args, &receive(&side, args.size, number)?, number)
    };
    let sample = ping_pong(args.seconds, || {
        if outcome.is_ok() {
            outcome = round_trip();
        }
    });
    outcome.map(|()| sample)
}

pub(super) fn ping_pong_second(args: &OursArgs) -> Result<()> {
    let side = pairing::second(args, Progress::Caller)?;
    let mut buffers = Buffers::new(&side.peer, args.size, IN_TURN)?;
    for number in 1.. {
        look(args, &receive(&side, args.size, number)?, number)?;
        buffers.send(number, |bytes| stamp(bytes, number))?;
    }
    Ok(())
}

/// The receiver of a stream with one copy: it looks at both ends of each message.
pub(super) fn bandwidth_first(args: &OursArgs) -> Result<Sample> {
    let side = pairing::first(args, Progress::Caller)?;
    side.peer.send(0, b"go")?;
    let mut number = 0;
    timed(args, || {
        check_ends(&receive(&side, args.size, number)?, number)?;
        number += 1;
        Ok(1)
    })
}

/// The sender: private memory is copied into a pool buffer, once.
pub(super) fn bandwidth_second(args: &OursArgs) -> Result<()> {
    let side = await_go(args)?;
    let mut private = vec![1; args.size];
    let mut buffers = Buffers::new(&side.peer, args.size, window(args))?;
    for number in 0.. {
        stamp(&mut private, number);
        buffers.send(number, |bytes| bytes.copy_from_slice(&private))?;
    }
    Ok(())
}
