//! What the ping-pong programs share: their options, the exchange of addresses over TCP, and the wait for a completion.
//!
//! Options and exchange are those of libibverbs' programs of the same names (`ibv_rc_pingpong`, …), so that either side can be the C
//! program: `exchange` says what goes over the wire.
#![allow(dead_code, reason = "each program uses a part")]

mod exchange;

pub(crate) use exchange::{Address, Exchange};
use sinew_verbs::Hub;
use sinew_verbs::cq::CompletionChannel;
use sinew_verbs::device::Context;
use sinew_verbs::hub::Completed;
use sinew_verbs::qp::config::Mtu;
use sinew_verbs::qp::{QueuePairBuilder, Service};
use std::fmt::Display;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What an example ends with when it fails: a text for people.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Longest wait for the other side.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What messages are made of, here and in C's programs.
pub(crate) const FILL: u8 = 0x7b;

/// Options that all have; the letters are those of C's programs.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Name or address of the server. Without one, this side is the server
    pub(crate) server: Option<String>,
    /// TCP port on which addresses are exchanged
    #[arg(short, long, default_value_t = 18515)]
    pub(crate) port: u16,
    /// Name of the RDMA device; the first one by default
    #[arg(short = 'd', long = "ib-dev", value_name = "DEVICE")]
    device: Option<String>,
    /// Port of the device; one that is up by default
    #[arg(short = 'i', long = "ib-port", value_name = "PORT", value_parser = clap::value_parser!(u8).range(1..))]
    device_port: Option<u8>,
    /// Receives that wait for messages
    #[arg(short, long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub(crate) rx_depth: u32,
    /// Messages in each direction
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) iters: u64,
    /// Sleep until the device raises an event, instead of asking all the time
    #[arg(short, long)]
    pub(crate) events: bool,
    /// Place of the local GID in the port's table; chosen by itself by default
    #[arg(short, long, value_name = "INDEX")]
    gid_idx: Option<u32>,
    /// Compare every byte that arrives (C's other side without its own `-c`)
    #[arg(short, long)]
    pub(crate) chk: bool,
}

impl Options {
    /// Opens the device.
    pub(crate) fn open(&self) -> Result<Context> {
        match &self.device {
            Some(name) => Ok(sinew_verbs::open_device(name)?),
            None => {
                let devices = sinew_verbs::devices()?;
                let first = devices.get(0).ok_or(
                    "this machine has no RDMA device; `rdma link add rxe0 type rxe netdev INTERFACE` makes one of software",
                )?;
                Ok(first.open()?)
            }
        }
    }

    /// A hub for so many requests, and the channel that raises its events where they are asked for.
    pub(crate) fn hub<S: Service>(
        &self,
        context: &Context,
        requests: u32,
    ) -> Result<(Hub<S>, Option<CompletionChannel>)> {
        if !self.events {
            return Ok((Hub::new(context, requests)?, None));
        }
        let events = context.completion_channel()?;
        Ok((Hub::with_channel(context, requests, &events, 0)?, Some(events)))
    }

    /// Names the port and the GID, where they were given.
    pub(crate) fn place<'a, S: Service>(
        &self,
        mut builder: QueuePairBuilder<'a, S>,
    ) -> QueuePairBuilder<'a, S> {
        if let Some(port) = self.device_port {
            builder = builder.port(port);
        }
        if let Some(index) = self.gid_idx {
            builder = builder.gid_index(index);
        }
        builder
    }

    /// Whether this side begins.
    pub(crate) const fn is_client(&self) -> bool {
        self.server.is_some()
    }

    /// A message must be what the other side was to send.
    pub(crate) fn check(&self, message: &[u8], len: u32) -> Result<()> {
        if message.len() != len as usize {
            let arrived = message.len();
            return Err(format!(
                "a message of {arrived} bytes came instead of {len}: give both sides the same -s"
            )
            .into());
        }
        match message.iter().position(|byte| *byte != FILL) {
            Some(place) if self.chk => {
                Err(format!("byte {place} of a message is {:#04x} instead of {FILL:#04x}", message[place])
                    .into())
            }
            _ => Ok(()),
        }
    }
}

/// The largest packet, by its bytes.
pub(crate) fn mtu(text: &str) -> std::result::Result<Mtu, String> {
    let sizes = [Mtu::B256, Mtu::B512, Mtu::B1024, Mtu::B2048, Mtu::B4096];
    sizes
        .into_iter()
        .find(|mtu| mtu.to_string() == text)
        .ok_or_else(|| "packets have 256, 512, 1024, 2048 or 4096 bytes".to_owned())
}

/// Waits for the next operation that ends: asleep where there are events, awake otherwise.
pub(crate) fn next<S: Service>(hub: &mut Hub<S>, events: Option<&CompletionChannel>) -> Result<Completed> {
    let began = Instant::now();
    loop {
        if let Some(completed) = hub.poll()? {
            return Ok(completed.take());
        }
        let left = PATIENCE.checked_sub(began.elapsed()).ok_or_else(|| {
            format!("nothing came for {} s: the other side ended, or a message was lost", PATIENCE.as_secs())
        })?;
        let Some(events) = events else {
            std::thread::yield_now();
            continue;
        };
        // What ended before the queue was armed raises no event: it is asked once more.
        hub.arm(false)?;
        if let Some(completed) = hub.poll()? {
            return Ok(completed.take());
        }
        events.wait(Some(left))?;
    }
}

/// Says how fast it was, as C's programs do.
pub(crate) fn report(bytes: u64, iters: u64, taken: Duration) {
    let seconds = taken.as_secs_f64();
    println!("{bytes} bytes in {seconds:.2} seconds = {:.2} Mbit/sec", bytes as f64 * 8.0 / 1e6 / seconds);
    println!("{iters} iters in {seconds:.2} seconds = {:.2} usec/iter", seconds * 1e6 / iters as f64);
}

/// The status that a program ends with; says why it failed.
pub(crate) fn exit(program: &str, result: Result<()>) -> ExitCode {
    fn say(program: &str, what: &dyn Display) -> ExitCode {
        eprintln!("{program}: {what}");
        ExitCode::FAILURE
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(program, &error),
    }
}
