//! One that leads and several that work: numbers are spread over their memory, each adds up its part, and all learn the total.
//!
//! In four terminals, or on four machines:
//!
//! ```sh
//! cargo run --example multi_channel -- --workers 3
//! cargo run --example multi_channel -- localhost      # three times
//! ```
//!
//! What it shows: a [`MultiChannel`] has a connection to each of several peers, one completion queue for all of them, and calls that begin an operation
//! with each before they wait for any. They answer for each peer by itself. The workers need nothing of the kind: to them it is a [`Channel`].

mod meeting;

use clap::Parser;
use meeting::{Options, Result};
use sinew_verbs::channel::Done;
use sinew_verbs::memory::{Memory, RemoteAccess, RemoteRegion};
use sinew_verbs::multi_channel::PeerRegion;
use sinew_verbs::qp::Endpoint;
use sinew_verbs::{Channel, MultiChannel, ProtectionDomain};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// One that leads, and several that work.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(flatten)]
    common: Options,
    /// How many workers the leader waits for
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
}

/// Numbers in a worker's part.
const PART: usize = 1000;
const WORD: usize = size_of::<u64>();

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = &arguments.common;
    let done = if options.is_client() { work(options) } else { lead(options, arguments.workers) };
    meeting::exit("multi_channel", done)
}

fn lead(options: &Options, workers: u32) -> Result<()> {
    let pd = options.open()?.protection_domain()?;
    let prepared = MultiChannel::builder(&pd, workers).build()?;

    // Each worker is told its own endpoint: there is a queue pair for each.
    let (mut meetings, mut theirs) = (Vec::new(), Vec::new());
    for (endpoint, meeting) in prepared.endpoints()?.into_iter().zip(options.listen()?) {
        let mut meeting = meeting?;
        theirs.push(Endpoint::from_bytes(&meeting.swap(endpoint.to_bytes())?)?);
        meetings.push(meeting);
    }
    let mut channels = prepared.handshake(&theirs).map_err(|(_, error)| error)?;
    let mut parts = Vec::new();
    for (peer, meeting) in (0..).zip(&mut meetings) {
        let region = RemoteRegion::from_bytes(&meeting.swap([0; RemoteRegion::PACKED_LEN])?)?;
        parts.push(PeerRegion { peer, region });
    }

    // To each its own numbers, written to its memory: parts of ours, which is registered for as long as it is borrowed.
    let count = workers as usize * PART;
    let mut numbers: Vec<u8> = (1..=count as u64).flat_map(u64::to_ne_bytes).collect();
    let mut region = pd.borrow(&mut numbers)?;
    let (key, bytes) = region.split();
    let writes = parts.into_iter().zip(bytes.chunks_exact(PART * WORD));
    let writes = writes.map(|(part, bytes)| Ok((part, key.gather(bytes)?.into())));
    all(channels.scatter_write(writes.collect::<Result<Vec<_>>>()?))?;

    // The same word to all: what was written before is there when it comes.
    let go = pd.allocate(WORD)?;
    all(channels.multicast_send(0..workers, go.gather(WORD)?))?;

    // From each its sum.
    let mut sums = (0..workers).map(|_| pd.allocate(WORD)).collect::<sinew_verbs::Result<Vec<_>>>()?;
    let places = (0..).zip(&mut sums).map(|(peer, place)| Ok((peer, place.scatter()?.into())));
    all(channels.gather_receive(places.collect::<Result<Vec<_>>>()?))?;
    let total: u64 = sums.iter().map(|sum| word(sum)).sum();
    println!("{workers} workers added up the numbers from 1 to {count}: {total}");

    let told = pd.adopt(total.to_ne_bytes().to_vec())?;
    all(channels.multicast_send(0..workers, told.gather(WORD)?))?;
    // Nobody leaves before all have heard.
    meetings.iter_mut().try_for_each(meeting::Meeting::wait)
}

/// What became of an operation with each worker: one that fails hides nothing of the others.
fn all(answers: Vec<sinew_verbs::Result<Done<'_>>>) -> Result<()> {
    let failures =
        answers.into_iter().enumerate().filter_map(|(worker, answer)| Some((worker, answer.err()?)));
    let failures: Vec<_> = failures.map(|(worker, error)| format!("worker {worker}: {error}")).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ").into()) }
}

fn work(options: &Options) -> Result<()> {
    let pd = options.open()?.protection_domain()?;
    let part = pd.expose(Memory::zeroed(PART * WORD)?, RemoteAccess::WRITE)?;
    let prepared = Channel::builder(&pd).remote_access(RemoteAccess::WRITE).build()?;
    let mut meeting = options.meet()?;
    let theirs = meeting.swap(prepared.endpoint()?.to_bytes())?;
    let mut channel = prepared.handshake(&Endpoint::from_bytes(&theirs)?).map_err(|(_, error)| error)?;
    meeting.swap(part.remote().to_bytes())?;

    receive_word(&pd, &mut channel)?;
    let numbers = (0..PART).map(|place| part.load(place * WORD, Ordering::Acquire));
    let sum = numbers.sum::<sinew_verbs::Result<u64>>()?;
    let answer = pd.adopt(sum.to_ne_bytes().to_vec())?;
    channel.send(&[answer.gather(WORD)?])?;
    let total = receive_word(&pd, &mut channel)?;
    println!("my part adds up to {sum}, all together to {total}");
    meeting.wait()
}

fn receive_word(pd: &ProtectionDomain, channel: &mut Channel) -> Result<u64> {
    let mut place = pd.allocate(WORD)?;
    channel.receive(place.scatter()?)?;
    Ok(word(&place))
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word))
}
