//! Ping-pong with futures on a tokio current-thread runtime: polled without sleep, or asleep in the reactor.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sinew::{Buf, Progress};
use tokio::runtime::Runtime;

use super::OursArgs;
use super::pairing::{self, Side, check, stamp};
use sinew_yardstick::raw::ping_pong::Clock;
use sinew_yardstick::raw::wake::wakes;
use sinew_yardstick::sample::Sample;

fn progress(args: &OursArgs) -> Progress {
    if args.busy { Progress::Caller } else { Progress::Event }
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio runtime")
}

/// Sends the first buffer as message `number` and receives the answer into the second.
async fn round_trip(side: &Side, (mut buf, answer): (Buf, Buf), number: u64) -> Result<(Buf, Buf)> {
    if let Some(bytes) = buf.as_mut_slice() {
        stamp(bytes, number);
    }
    let receive = side.endpoint.post_recv(number, answer)?;
    let buf = side.peer.post_send(number, buf)?.await?;
    let received = receive.await?;
    check(received.buf.as_slice(), number)?;
    Ok((buf, received.buf))
}

pub(super) fn first(args: &OursArgs) -> Result<Sample> {
    let side = pairing::first(args, progress(args))?;
    let runtime = runtime()?;
    let _guard = runtime.enter();
    let driver =
        (!args.busy).then(|| sinew::on_tokio::drive(&side.engine)).transpose().context("tokio driver")?;
    let mut buffers = (Buf::zeroed(args.size), Buf::zeroed(args.size));
    let mut number = 0;
    let sample = if args.busy {
        runtime.block_on(async {
            let mut clock = Clock::new(args.seconds);
            while let Some(batch) = clock.next_batch() {
                for _ in 0..batch {
                    number += 1;
                    buffers = round_trip(&side, buffers, number).await?;
                }
            }
            Ok(clock.sample())
        })
    } else {
        // Each from outside of the runtime, which rests meanwhile as everything else does.
        let mut buffers = Some(buffers);
        wakes(args.seconds, || {
            number += 1;
            let resting = buffers.take().context("an earlier round failed")?;
            buffers = Some(runtime.block_on(round_trip(&side, resting, number))?);
            Ok(())
        })
    };
    if let Some(driver) = driver {
        driver.abort();
    }
    sample
}

pub(super) fn second(args: &OursArgs) -> Result<()> {
    let side = pairing::second(args, progress(args))?;
    let runtime = runtime()?;
    let _guard = runtime.enter();
    let _driver =
        (!args.busy).then(|| sinew::on_tokio::drive(&side.engine)).transpose().context("tokio driver")?;
    runtime.block_on(async {
        let started = Instant::now();
        let mut buf = Buf::zeroed(args.size);
        for number in 1.. {
            let received = side.endpoint.post_recv(number, buf)?.await?;
            ensure!(received.info.len == args.size, "message {number} after {:?}", started.elapsed());
            check(received.buf.as_slice(), number)?;
            buf = side.peer.post_send(number, received.buf)?.await?;
        }
        Ok(())
    })
}
