//! Many requests, one doorbell: what it saves to hand requests to the device in batches.
//!
//! In two terminals:
//!
//! ```sh
//! cargo run --release --example doorbell_batching
//! cargo run --release --example doorbell_batching -- localhost
//! ```
//!
//! What it shows: a [`Pipe`] posts a list of buffers with one doorbell ([`Pipe::post_all`]), where [`Pipe::post`] rings for each. Only one of 16 is signaled: its completion ends
//! those before it, and all buffers come back in one run. A device of software gains little; on a card each doorbell is a write over the bus.

mod meeting;

use clap::Parser;
use meeting::{Meeting, Options, Result};
use sinew_verbs::hub::{Pipe, Verb};
use sinew_verbs::memory::{Buffer, Memory, RemoteAccess, RemoteRegion};
use sinew_verbs::qp::{Endpoint, Rc};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Small writes, posted one by one and in batches.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(flatten)]
    common: Options,
    /// Writes of each kind
    #[arg(short = 'n', long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    writes: u64,
    /// Bytes of a write
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
}

/// Writes that can be out at once.
const DEPTH: u32 = 64;
/// One of so many is signaled.
const SIGNALED: u64 = 16;
/// Writes of one doorbell.
const BATCH: u64 = 16;

fn main() -> ExitCode {
    meeting::exit("doorbell_batching", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.common;
    let context = options.open()?;
    let pd = context.protection_domain()?;
    let mut pipe: Pipe<Rc> = Pipe::new(&pd, DEPTH, 1, |qp| Ok(qp.remote_access(RemoteAccess::WRITE)))?;

    // Both sides expose memory; the client's stays as it is.
    let exposed = pd.expose(Memory::zeroed(arguments.size as usize)?, RemoteAccess::WRITE)?;
    let mut meeting = options.meet()?;
    let theirs = meeting.swap(pipe.endpoint()?.to_bytes())?;
    pipe.connect(&Endpoint::from_bytes(&theirs)?)?;
    let remote = RemoteRegion::from_bytes(&meeting.swap(exposed.remote().to_bytes())?)?;

    if options.is_client() {
        let free = (0..DEPTH).map(|_| pd.allocate(arguments.size as usize));
        let mut writer = Writer { pipe, free: free.collect::<sinew_verbs::Result<_>>()?, remote };
        for (name, batched) in [("one by one", false), ("in batches", true)] {
            let taken = writer.write(arguments.writes, batched)?;
            let each = taken.as_nanos() / u128::from(arguments.writes);
            println!("{} writes {name}: {each} ns each", arguments.writes);
        }
    }
    finish(&mut meeting)
}

/// The server's memory stays until the client is done.
fn finish(meeting: &mut Meeting) -> Result<()> {
    meeting.wait()
}

struct Writer {
    pipe: Pipe<Rc>,
    /// As many buffers as the send queue has places: while there is a buffer, there is a place.
    free: Vec<Buffer>,
    remote: RemoteRegion,
}

impl Writer {
    /// Writes so many times, and waits for all; how long it took.
    fn write(&mut self, count: u64, batched: bool) -> Result<Duration> {
        let Self { pipe, free, remote } = self;
        let write = Verb::write(*remote);
        let verb = |number: u64| {
            let is_signaled = (number + 1).is_multiple_of(SIGNALED) || number + 1 == count;
            if is_signaled { write } else { write.unsignaled() }
        };
        let mut batch = Vec::with_capacity(BATCH as usize);
        let mut posted = 0;
        let start = Instant::now();
        while posted < count || !pipe.is_idle() {
            if batched {
                let next = (count - posted).min(BATCH).min(free.len() as u64);
                batch.extend(free.drain(..next as usize));
                let first = posted;
                posted += pipe.post_all(&mut batch, |place| verb(first + place as u64))? as u64;
            } else if posted < count
                && let Some(buffer) = free.pop()
            {
                pipe.post(buffer, verb(posted))?;
                posted += 1;
            }
            let ended = pipe.poll()?;
            ended.result()?;
            ended.append_to(free);
        }
        Ok(start.elapsed())
    }
}
