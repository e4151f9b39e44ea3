//! How fast it is: latency of sends and writes, bandwidth of writes.
//!
//! In two terminals, or on two machines:
//!
//! ```sh
//! cargo run --release --example perf -- send-lat --events
//! cargo run --release --example perf -- send-lat --events localhost
//! ```
//!
//! The tests are those of `ib_send_lat`, `ib_write_lat` and `ib_write_bw` (perftest), by the safe hub; `perf_against_perftest` compares the two.
//!
//! What it shows: buffers go round between the program and the hub, so that nothing is allocated while it measures; a hub with a channel
//! sleeps until its device raises an event; memory that a peer writes is looked at by whole words.

mod meeting;

use clap::{Parser, ValueEnum};
use meeting::{Meeting, Options, Result};
use sinew_verbs::cq::CompletionChannel;
use sinew_verbs::hub::{Completed, Hub, Member, Operation, Side};
use sinew_verbs::memory::{Buffer, ExposedRegion, Memory, RemoteAccess, RemoteRegion};
use sinew_verbs::qp::{Endpoint, Rc};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Latency and bandwidth by the safe hub.
#[derive(Parser, Debug)]
struct Arguments {
    /// What is measured
    test: Test,
    #[command(flatten)]
    common: Options,
    /// Bytes of a message; 2 for latency, 65536 for bandwidth by default
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    size: Option<u32>,
    /// Messages
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    iters: u64,
    /// Sleep until the device raises an event, instead of asking all the time
    #[arg(short, long)]
    events: bool,
    /// Place of the local GID in the port's table; chosen by itself by default
    #[arg(short = 'x', long)]
    gid_index: Option<u32>,
    /// One of so many sends is signaled: the others end with it, without an event of their own
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=64))]
    signal_every: u64,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Test {
    /// A message there and back, half the time of it
    SendLat,
    /// A write there and back, seen in memory, half the time of it
    WriteLat,
    /// Writes in one direction, as many as are taken
    WriteBw,
}

/// Requests that can be out at once.
const DEPTH: u32 = 128;
/// Receives that wait for messages.
const RECEIVES: u32 = 64;
/// One of so many writes is signaled when bandwidth is measured.
const SIGNALED: u64 = 32;
/// Longest wait for the other side.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages of up to so many bytes go inline, as perftest's.
const INLINE: u32 = 220;

fn main() -> ExitCode {
    meeting::exit("perf", run(&Arguments::parse()))
}

struct Party {
    hub: Hub<Rc>,
    member: Member,
    events: Option<CompletionChannel>,
    size: u32,
    iters: u64,
    signal_every: u64,
    is_client: bool,
}

fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.common;
    let context = options.open()?;
    let pd = context.protection_domain()?;
    let size = arguments.size.unwrap_or(if arguments.test == Test::WriteBw { 65536 } else { 2 });
    let entries = DEPTH + RECEIVES;
    let events = arguments.events.then(|| context.completion_channel()).transpose()?;
    let mut hub = match &events {
        Some(events) => Hub::with_channel(&context, entries, events, 0)?,
        None => Hub::new(&context, entries)?,
    };
    let mut builder = hub.queue_pair(&pd).send_depth(DEPTH).receive_depth(RECEIVES);
    builder = builder.inline_capacity(INLINE).remote_access(RemoteAccess::WRITE);
    if let Some(index) = arguments.gid_index {
        builder = builder.gid_index(index);
    }
    let prepared = builder.build()?;
    let member = hub.add(prepared)?;
    for _ in 0..RECEIVES {
        hub.post_receive(member, pd.allocate(size as usize)?, 0)?;
    }
    // A word after the message says which one it is.
    let exposed = pd.expose(Memory::zeroed((size as usize).next_multiple_of(8) + 8)?, RemoteAccess::WRITE)?;
    let mut meeting = options.meet()?;
    let theirs = meeting.swap(hub.endpoint(member)?.to_bytes())?;
    hub.connect(member, &Endpoint::from_bytes(&theirs)?)?;
    let remote = RemoteRegion::from_bytes(&meeting.swap(exposed.remote().to_bytes())?)?;
    let is_client = options.is_client();
    let mut side = Party {
        hub,
        member,
        events,
        size,
        iters: arguments.iters,
        signal_every: arguments.signal_every,
        is_client,
    };
    match arguments.test {
        Test::SendLat => side.send_latency(&mut || pd.allocate(size as usize))?,
        Test::WriteLat => {
            let len = exposed.len();
            side.write_latency(&exposed, remote, &mut || pd.allocate(len))?;
        }
        Test::WriteBw if is_client => side.write_bandwidth(remote, &mut || pd.allocate(size as usize))?,
        Test::WriteBw => {}
    }
    finish(&mut meeting)
}

/// Nobody leaves before the other side is done.
fn finish(meeting: &mut Meeting) -> Result<()> {
    meeting.wait()
}

type Allocate<'a> = &'a mut dyn FnMut() -> sinew_verbs::Result<Buffer>;

impl Party {
    /// The next operation that ends.
    fn next(&mut self) -> Result<Completed> {
        if let Some(completed) = self.hub.poll()? {
            return Ok(completed.take());
        }
        let Some(events) = &self.events else {
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline {
                if let Some(completed) = self.hub.poll()? {
                    return Ok(completed.take());
                }
            }
            return Err("nothing came from the other side".into());
        };
        loop {
            // What ended before the queue was armed raises no event: it is asked once more.
            self.hub.arm(false)?;
            if let Some(completed) = self.hub.poll()? {
                return Ok(completed.take());
            }
            if events.wait(Some(PATIENCE))?.is_none() {
                return Err("nothing came from the other side".into());
            }
            if let Some(completed) = self.hub.poll()? {
                return Ok(completed.take());
            }
        }
    }

    fn send_latency(&mut self, allocate: Allocate<'_>) -> Result<()> {
        let mut free: Vec<Buffer> = (0..DEPTH).map(|_| allocate()).collect::<sinew_verbs::Result<_>>()?;
        let mut times = Vec::with_capacity(self.iters as usize);
        let (mut sent, mut received) = (0, 0);
        let mut last = Instant::now();
        while received < self.iters || sent < self.iters {
            if sent < self.iters && sent < received + u64::from(self.is_client) {
                let buffer = free.pop().ok_or("more sends are out than there are buffers")?;
                let mut send = Operation::send(buffer);
                if self.size <= INLINE {
                    send = send.inline();
                }
                sent += 1;
                let is_signaled = sent.is_multiple_of(self.signal_every) || sent == self.iters;
                self.hub.post(self.member, if is_signaled { send } else { send.unsignaled() })?;
            }
            if received == self.iters {
                break;
            }
            let completed = self.next()?;
            completed.result?;
            let Some(buffer) = completed.held.into_buffer() else { continue };
            match completed.side {
                Side::Send => free.push(buffer),
                Side::Receive => {
                    received += 1;
                    // Once for each message: on some machines it is a system call to ask for the time.
                    if self.is_client {
                        let now = Instant::now();
                        times.push(now - last);
                        last = now;
                    }
                    self.hub.post_receive(self.member, buffer, 0)?;
                }
            }
        }
        // The last message is acknowledged before this side leaves.
        while self.hub.in_flight(self.member)?.0 > 0 {
            self.next()?.result?;
        }
        if self.is_client {
            latency("send", self.size, times);
        }
        Ok(())
    }

    /// The word after the message tells its number; each side waits for the other's.
    fn write_latency(
        &mut self,
        own: &ExposedRegion,
        remote: RemoteRegion,
        allocate: Allocate<'_>,
    ) -> Result<()> {
        let mut free: Vec<Buffer> = (0..DEPTH).map(|_| allocate()).collect::<sinew_verbs::Result<_>>()?;
        let mut times = Vec::with_capacity(self.iters as usize);
        let word = own.len() - 8;
        for number in 1..=self.iters {
            if !self.is_client {
                await_word(own, word, number)?;
            }
            while free.is_empty() {
                let completed = self.next()?;
                completed.result?;
                free.extend(completed.held.into_buffer());
            }
            let Some(mut buffer) = free.pop() else { continue };
            buffer[word..].copy_from_slice(&number.to_ne_bytes());
            let start = Instant::now();
            let write = Operation::write(buffer, remote);
            let write = if number.is_multiple_of(SIGNALED) { write } else { write.unsignaled() };
            self.hub.post(self.member, write)?;
            if self.is_client {
                await_word(own, word, number)?;
                times.push(start.elapsed());
            }
        }
        if self.is_client {
            latency("write", self.size, times);
        }
        Ok(())
    }

    fn write_bandwidth(&mut self, remote: RemoteRegion, allocate: Allocate<'_>) -> Result<()> {
        let mut free: Vec<Buffer> = (0..DEPTH).map(|_| allocate()).collect::<sinew_verbs::Result<_>>()?;
        let (mut posted, mut ended) = (0, 0);
        let start = Instant::now();
        while ended < self.iters {
            while posted < self.iters
                && let Some(buffer) = free.pop()
            {
                posted += 1;
                let write = Operation::write(buffer, remote);
                let is_signaled = posted % SIGNALED == 0 || posted == self.iters;
                self.hub.post(self.member, if is_signaled { write } else { write.unsignaled() })?;
            }
            let completed = self.next()?;
            completed.result?;
            ended += 1;
            free.extend(completed.held.into_buffer());
        }
        let mebibytes = self.iters as f64 * f64::from(self.size) / f64::from(1 << 20);
        println!("write {} bytes: {:.2} MiB/s", self.size, mebibytes / start.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Waits until a word that the peer writes has a value.
fn await_word(own: &ExposedRegion, offset: usize, value: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while own.load(offset, Ordering::Acquire)? != value {
        if Instant::now() > deadline {
            return Err("nothing came from the other side".into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// Says how long one way took, from times of there and back.
fn latency(what: &str, size: u32, mut times: Vec<Duration>) {
    times.sort_unstable();
    let half = |time: Duration| time.as_secs_f64() * 1e6 / 2.0;
    let at = |part: f64| half(times[((times.len() - 1) as f64 * part) as usize]);
    let average = half(times.iter().sum()) / times.len() as f64;
    println!(
        "{what} {size} bytes, one way: {:.2} us median, {average:.2} average, {:.2} least, {:.2} of 99 in 100, {:.2} most",
        at(0.5),
        at(0.0),
        at(0.99),
        at(1.0)
    );
}
