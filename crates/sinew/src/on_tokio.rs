//! Sinew on tokio: one task watches the engine's descriptor, so that futures of the engine are woken by tokio's reactor.
#![allow(unsafe_code)]

use crate::Engine;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

struct EngineFd(Engine);

impl AsRawFd for EngineFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.event_fd().as_fd().as_raw_fd()
    }
}

/// Polls the engine, in turn with the other tasks, until nothing has come for the option `spin`.
async fn poll_for_a_while(engine: &Engine) {
    let mut idle = Duration::ZERO;
    let mut last = Instant::now();
    while idle < engine.spin() {
        let now = Instant::now();
        if engine.progress() > 0 {
            idle = Duration::ZERO;
        } else {
            // What other tasks, or a runtime at rest, have taken is no time in which this one has looked.
            idle += (now - last).min(LOOK_MAX);
        }
        last = now;
        tokio::task::yield_now().await;
    }
}

/// Longest time between two looks that counts as polling.
const LOOK_MAX: Duration = Duration::from_micros(5);

/// Drives an engine that was built with [`crate::Progress::Event`] from the current tokio runtime until the handle is
/// aborted. After each arrival it polls for the option `spin`, in turn with the runtime's other tasks, before it sleeps;
/// an idle engine costs nothing.
///
/// # Errors
/// When there is no runtime with I/O, or the descriptor cannot be watched.
pub fn drive(engine: &Engine) -> std::io::Result<JoinHandle<()>> {
    // SAFETY: `EngineFd` owns a handle of the engine, whose descriptor is open and the same for as long as a handle lives.
    let fd = unsafe { AsyncFd::register_with_interest(EngineFd(engine.clone()), Interest::READABLE) }
        .map_err(|error| error.into_parts().1)?;
    Ok(tokio::spawn(async move {
        loop {
            poll_for_a_while(&fd.get_ref().0).await;
            let Some(armed) = fd.get_ref().0.arm() else {
                continue;
            };
            let readable = fd.readable();
            match armed.timeout() {
                Some(limit) => {
                    if let Ok(Ok(mut guard)) = tokio::time::timeout(limit, readable).await {
                        guard.clear_ready();
                    }
                }
                None => {
                    if let Ok(mut guard) = readable.await {
                        guard.clear_ready();
                    }
                }
            }
            armed.process();
        }
    }))
}
