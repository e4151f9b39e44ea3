//! Ping-pong with futures on a tokio current-thread runtime: polled without sleep, or asleep in the reactor.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sinew::{Buf, Progress};
use tokio::runtime::Runtime;

use super::OursArgs;
use super::pairing::{self, Side, check, stamp};
use sinew_yardstick::raw::ping_pong::ping_pong;
use sinew_yardstick::raw::wake::wakes;
use sinew_yardstick::sample::Sample;

fn progress(args: &OursArgs) -> Progress {
    if args.busy { Progress::Caller } else { Progress::Event }
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio runtime")
}

/// Sends `buf` as message `number` and receives the answer into `answer`.
async fn round_trip(side: &Side, buf: Buf, answer: Buf, number: u64) -> Result<(Buf, Buf)> {
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
    let mut buffers = Some((Buf::zeroed(args.size), Buf::zeroed(args.size)));
    let mut number = 0;
    let mut once = || -> Result<()> {
        number += 1;
        let (mut buf, answer) = buffers.take().context("an earlier round failed")?;
        if let Some(bytes) = buf.as_mut_slice() {
            stamp(bytes, number);
        }
        buffers = Some(runtime.block_on(round_trip(&side, buf, answer, number))?);
        Ok(())
    };
    let sample = if args.busy {
        let mut outcome = Ok(());
        let sample = ping_pong(args.seconds, || {
            if outcome.is_ok() {
                outcome = once();
            }
        });
        outcome.map(|()| sample)
    } else {
        wakes(args.seconds, once)
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
