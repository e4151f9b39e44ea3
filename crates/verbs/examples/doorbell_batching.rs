//! Many requests, one doorbell: what it saves to hand requests to the device in batches.
//!
//! In two terminals:
//!
//! ```sh
//! cargo run --release --example doorbell_batching
//! cargo run --release --example doorbell_batching -- localhost
//! ```
//!
//! What it shows: [`Hub::post_batch`] takes operations of an iterator and rings the device's doorbell once for each 16 of them, where [`Hub::post`] rings
//! for each. Only one of 16 is signaled: its completion ends those before it, and their buffers come back with it. A device of software gains little; on a
//! card each doorbell is a write over the bus.

mod meeting;

use clap::Parser;
use meeting::{Meeting, Options, Result};
use sinew_verbs::hub::{Hub, Member, Operation};
use sinew_verbs::memory::{BufferPool, Memory, RemoteAccess, RemoteRegion};
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

fn main() -> ExitCode {
    meeting::exit("doorbell_batching", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.common;
    let context = options.open()?;
    let pd = context.protection_domain()?;
    let mut hub: Hub<Rc> = Hub::new(&context, DEPTH + 1)?;
    let builder = hub.queue_pair(&pd).send_depth(DEPTH).receive_depth(1);
    let prepared = builder.remote_access(RemoteAccess::WRITE).build()?;
    let member = hub.add(prepared)?;

    // Both sides expose memory; the client's stays as it is.
    let exposed = pd.expose(Memory::zeroed(arguments.size as usize)?, RemoteAccess::WRITE)?;
    let mut meeting = options.meet()?;
    let theirs = meeting.swap(hub.endpoint(member)?.to_bytes())?;
    hub.connect(member, &Endpoint::from_bytes(&theirs)?)?;
    let remote = RemoteRegion::from_bytes(&meeting.swap(exposed.remote().to_bytes())?)?;

    if options.is_client() {
        let pool = pd.pool(DEPTH as usize, arguments.size as usize)?;
        let mut writer = Writer { hub, member, pool, remote };
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
    hub: Hub<Rc>,
    member: Member,
    /// As many buffers as the send queue has places: while there is a buffer, there is a place.
    pool: BufferPool,
    remote: RemoteRegion,
}

impl Writer {
    /// Writes so many times, and waits for all; how long it took.
    fn write(&mut self, count: u64, batched: bool) -> Result<Duration> {
        let Self { hub, member, pool, remote } = self;
        let next = |number: u64| {
            let write = Operation::write(pool.take()?, *remote);
            let is_signaled = (number + 1).is_multiple_of(SIGNALED) || number + 1 == count;
            Some(if is_signaled { write } else { write.unsignaled() })
        };
        let (mut posted, mut ended) = (0, 0);
        let start = Instant::now();
        while ended < count {
            if batched && pool.available() > 0 {
                posted += hub.post_batch(*member, &mut (posted..count).map_while(next))? as u64;
            }
            while !batched
                && posted < count
                && let Some(write) = next(posted)
            {
                hub.post(*member, write)?;
                posted += 1;
            }
            while let Some(completed) = hub.poll()? {
                completed.result()?;
                ended += 1;
                // Its buffer goes back to the pool here.
            }
        }
        Ok(start.elapsed())
    }
}
