//! Ping-pong of tagged messages with the blocking calls, and the waking of a receiver that sleeps.

use anyhow::{Result, ensure};
use sinew::Progress;

use super::OursArgs;
use super::pairing::{self, Side, check, stamp};
use crate::raw::ping_pong::ping_pong;
use crate::raw::wake::wakes;
use crate::sample::Sample;

/// One round trip of message `number`.
#[inline]
fn round_trip(side: &Side, buffer: &mut [u8], number: u64) -> Result<()> {
    stamp(buffer, number);
    side.peer.send(number, buffer)?;
    let got = side.endpoint.recv(number, buffer)?;
    ensure!(got.len == buffer.len() && got.tag == number, "answer {number}: {got:?}");
    check(buffer, number)
}

pub(super) fn first(args: &OursArgs) -> Result<Sample> {
    let side = pairing::first(args, Progress::Caller)?;
    let mut buffer = vec![0; args.size];
    let mut number = 0;
    let mut outcome = Ok(());
    let sample = ping_pong(args.seconds, || {
        if outcome.is_ok() {
            number += 1;
            outcome = round_trip(&side, &mut buffer, number);
        }
    });
    outcome.map(|()| sample)
}

pub(super) fn wake_first(args: &OursArgs) -> Result<Sample> {
    let side = pairing::first(args, Progress::Caller)?;
    let mut buffer = vec![0; args.size];
    let mut number = 0;
    wakes(args.seconds, || {
        number += 1;
        round_trip(&side, &mut buffer, number)
    })
}

pub(super) fn second(args: &OursArgs) -> Result<()> {
    let side = pairing::second(args, Progress::Caller)?;
    let mut buffer = vec![0; args.size];
    for number in 1.. {
        let got = side.endpoint.recv(number, &mut buffer)?;
        ensure!(got.len == args.size, "message {number}: {got:?}");
        check(&buffer, number)?;
        side.peer.send(number, &buffer)?;
    }
    Ok(())
}
