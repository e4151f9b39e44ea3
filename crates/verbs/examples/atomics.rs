//! Atomics on a peer's memory: tickets that nobody gets twice, and a lock, without the peer's processor.
//!
//! In two terminals:
//!
//! ```sh
//! cargo run --example atomics
//! cargo run --example atomics -- localhost
//! ```
//!
//! What it shows: memory is open to peers only where it is *exposed* by name, and then it is never a slice, as a peer may write it at any
//! time: its owner loads whole words. A peer names it by a [`RemoteRegion`], and a field of it by `element`.

mod meeting;

use clap::Parser;
use meeting::{Meeting, Options, Result};
use sinew_verbs::channel::PreparedChannel;
use sinew_verbs::memory::{Memory, RemoteAccess, RemoteRegion};
use sinew_verbs::qp::Endpoint;
use sinew_verbs::{Channel, ProtectionDomain};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

/// Tickets and a lock in a peer's memory.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(flatten)]
    common: Options,
}

/// Tickets that the client draws.
const TICKETS: u64 = 100;

/// What the server's memory holds: words of 8 bytes.
const NEXT_TICKET: u64 = 0;
const LOCK: u64 = 1;
const GUARDED: u64 = 2;
const WORDS: usize = 3;

fn main() -> ExitCode {
    meeting::exit("atomics", run(&Arguments::parse().common))
}

fn run(options: &Options) -> Result<()> {
    let pd = options.open()?.protection_domain()?;
    let prepared = Channel::builder(&pd).remote_access(RemoteAccess::ATOMIC | RemoteAccess::READ).build()?;
    let mut meeting = options.meet()?;
    if options.is_client() { draw(prepared, &mut meeting) } else { serve(&pd, prepared, &mut meeting) }
}

/// Lends the words, and looks at them when the client is done.
fn serve(pd: &ProtectionDomain, prepared: PreparedChannel, meeting: &mut Meeting) -> Result<()> {
    let words = pd.expose(Memory::zeroed(WORDS * 8)?, RemoteAccess::ATOMIC | RemoteAccess::READ)?;
    let channel = connect(prepared, meeting)?;
    meeting.swap(words.remote().to_bytes())?;
    // Nothing to do here: the device answers. The client says when it is done.
    meeting.wait()?;
    let word = |index: u64| words.load(index as usize * 8, Ordering::Acquire);
    println!("{} tickets were drawn, and {} times the lock was held", word(NEXT_TICKET)?, word(GUARDED)?);
    drop(channel);
    Ok(())
}

/// Draws tickets, and counts under a lock.
fn draw(prepared: PreparedChannel, meeting: &mut Meeting) -> Result<()> {
    let mut channel = connect(prepared, meeting)?;
    let remote = RemoteRegion::from_bytes(&meeting.swap([0; RemoteRegion::PACKED_LEN])?)?;
    let word = |index| remote.element::<u64>(index).ok_or("the server's memory is shorter than agreed");

    let mut last = None;
    for _ in 0..TICKETS {
        let ticket = channel.fetch_add(word(NEXT_TICKET)?, 1)?;
        if last.is_some_and(|last| ticket <= last) {
            return Err(format!("ticket {ticket} was drawn after {last:?}").into());
        }
        last = Some(ticket);
    }
    println!("drew {TICKETS} tickets, the last is {}", last.unwrap_or(0));

    // A lock is a word that is 0 when nobody holds it.
    while channel.compare_swap(word(LOCK)?, 0, 1)? != 0 {
        std::thread::yield_now();
    }
    let before = channel.fetch_add(word(GUARDED)?, 1)?;
    if channel.compare_swap(word(LOCK)?, 1, 0)? != 1 {
        return Err("somebody else took the lock while it was held".into());
    }
    println!("held the lock; {before} did before");
    meeting.wait()
}

fn connect(prepared: PreparedChannel, meeting: &mut Meeting) -> Result<Channel> {
    let theirs = meeting.swap(prepared.endpoint()?.to_bytes())?;
    Ok(prepared.handshake(&Endpoint::from_bytes(&theirs)?).map_err(|(_, error)| error)?)
}
