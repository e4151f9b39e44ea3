//! Ping-pong of tagged messages with the blocking calls, and the waking of a receiver that sleeps.

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit};
use sinew::{Engine, Peer, Progress};

use super::OursArgs;
use super::pairing::{self, Side, check, stamp};
use sinew_yardstick::raw::ping_pong::ping_pong;
use sinew_yardstick::raw::wake::wakes;
use sinew_yardstick::sample::Sample;

/// The tag of the one message that comes by each idle lane.
const IDLE: u64 = 1 << 59;

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
    let _idle = idle_lanes(args, &side)?;
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

/// Engines with a lane each to the first side's, which nobody uses any more.
pub(super) fn idle_lanes(args: &OursArgs, side: &Side) -> Result<Vec<(Engine, Peer)>> {
    if args.idle_lanes == 0 {
        return Ok(Vec::new());
    }
    raise_descriptor_limit();
    let before = side.engine.counters().lanes;
    let address = side.endpoint.address();
    let idle = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            (0..args.idle_lanes)
                .map(|_| {
                    let engine = Engine::builder().domain("bench").transports([args.transport.as_str()]);
                    let engine = engine.listen(false).build()?;
                    let peer = engine.endpoint("")?.connect(&address)?;
                    peer.send(IDLE, b"here")?;
                    Ok((engine, peer))
                })
                .collect::<Result<Vec<_>>>()
        });
        for _ in 0..args.idle_lanes {
            if let Err(error) = side.endpoint.recv(IDLE, &mut [0; 8]) {
                return Err(connecting.join().ok().and_then(Result::err).unwrap_or(error.into()));
            }
        }
        connecting.join().ok().context("the connecting thread panicked")?
    })?;
    let lanes = side.engine.counters().lanes - before;
    // An engine that was slow to answer may have been dialled at a second address beside the first.
    ensure!(lanes >= args.idle_lanes, "{lanes} idle lanes");
    Ok(idle)
}

/// Each lane has a few descriptors at both ends.
pub(super) fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // If it is too low even so, the engine says what to do.
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
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
