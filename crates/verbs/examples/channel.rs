//! A channel: one connection with blocking calls, and a scope in which a ring of buffers is always under way.
//!
//! In two terminals:
//!
//! ```sh
//! cargo run --example channel
//! cargo run --example channel -- localhost
//! ```
//!
//! What it shows: a channel is built, tells its endpoint, and is connected by the other's ([`Channel::builder`] → `endpoint` → `handshake`). Blocking calls
//! borrow memory while they run. In a [`scope`](Channel::scope) an operation takes its place *by value* and gives it back with its result: each buffer of the
//! ring is used again as soon as its own operation has ended, while the others are still with the device.

mod meeting;

use clap::Parser;
use meeting::{Options, Result};
use sinew_verbs::channel::{Pending, Work};
use sinew_verbs::qp::Endpoint;
use sinew_verbs::{Channel, Error, ProtectionDomain};
use std::collections::VecDeque;
use std::process::ExitCode;

/// A connection with blocking calls, and a scope with a ring of buffers.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(flatten)]
    common: Options,
}

/// Buffers of the ring.
const RING: usize = 4;
/// Bytes of a buffer.
const LEN: usize = 4096;
/// Messages that go through the ring.
const MESSAGES: u64 = 100;

fn main() -> ExitCode {
    meeting::exit("channel", run(&Arguments::parse().common))
}

fn run(options: &Options) -> Result<()> {
    let pd = options.open()?.protection_domain()?;
    let prepared = Channel::builder(&pd).build()?;
    let theirs = options.meet()?.swap(prepared.endpoint()?.to_bytes())?;
    let mut channel = prepared.handshake(&Endpoint::from_bytes(&theirs)?).map_err(|(_, error)| error)?;
    if options.is_client() {
        greet(&pd, &mut channel)?;
        let sum = send_numbers(&pd, &mut channel)?;
        println!("sent {MESSAGES} messages, their numbers add up to {sum}");
    } else {
        answer(&pd, &mut channel)?;
        let sum = receive_numbers(&pd, &mut channel)?;
        println!("received {MESSAGES} messages, their numbers add up to {sum}");
    }
    Ok(())
}

/// A question and its answer, by calls that block.
fn greet(pd: &ProtectionDomain, channel: &mut Channel) -> Result<()> {
    let mut question = pd.allocate(LEN)?;
    let text = b"who is there?";
    question[..text.len()].copy_from_slice(text);
    channel.send(&[question.gather(text.len())?])?;
    let mut place = pd.allocate(LEN)?;
    let len = channel.receive(place.scatter()?)?.len.unwrap_or(0) as usize;
    println!("the answer: {}", String::from_utf8_lossy(&place[..len]));
    Ok(())
}

/// The other side of it.
fn answer(pd: &ProtectionDomain, channel: &mut Channel) -> Result<()> {
    let mut place = pd.allocate(LEN)?;
    let len = channel.receive(place.scatter()?)?.len.unwrap_or(0) as usize;
    println!("the question: {}", String::from_utf8_lossy(&place[..len]));
    let text = b"a channel";
    place[..text.len()].copy_from_slice(text);
    channel.send(&[place.gather(text.len())?])?;
    Ok(())
}

/// Sends numbers from a ring of buffers; answers their sum.
fn send_numbers(pd: &ProtectionDomain, channel: &mut Channel) -> Result<u64> {
    // The program's own memory, registered for as long as it is borrowed.
    let mut memory = vec![0; RING * LEN];
    let mut region = pd.borrow(&mut memory)?;
    let (key, bytes) = region.split();
    let mut free: Vec<&mut [u8]> = bytes.chunks_exact_mut(LEN).collect();
    let sum = channel.scope(move |scope| {
        let mut out = VecDeque::new();
        let mut sum = 0;
        for number in 0..MESSAGES {
            let place = match free.pop() {
                Some(place) => place,
                // None is free: the oldest comes back with its result.
                None => oldest(&mut out)?,
            };
            place[..8].copy_from_slice(&number.to_be_bytes());
            sum += number;
            out.push_back(scope.post(Work::send_lent(key.scatter(place)?))?);
        }
        // What is still under way is waited for by the scope.
        Ok::<_, Error>(sum)
    })?;
    Ok(sum)
}

/// Receives them into a ring of places; answers their sum.
fn receive_numbers(pd: &ProtectionDomain, channel: &mut Channel) -> Result<u64> {
    let mut memory = vec![0; RING * LEN];
    let mut region = pd.borrow(&mut memory)?;
    let (key, bytes) = region.split();
    let places = bytes.chunks_exact_mut(LEN);
    let sum = channel.scope(move |scope| {
        let mut out = VecDeque::new();
        for place in places {
            out.push_back(scope.post(Work::receive(key.scatter(place)?))?);
        }
        let mut sum = 0;
        for number in 0..MESSAGES {
            let place = oldest(&mut out)?;
            sum += place.first_chunk().map_or(0, |word| u64::from_be_bytes(*word));
            if number + (RING as u64) < MESSAGES {
                out.push_back(scope.post(Work::receive(key.scatter(place)?))?);
            }
        }
        Ok::<_, Error>(sum)
    })?;
    Ok(sum)
}

/// Waits for the oldest operation under way; its place comes back.
fn oldest<'env>(out: &mut VecDeque<Pending<'_, 'env>>) -> std::result::Result<&'env mut [u8], Error> {
    let oldest = out.pop_front().expect("every buffer that is not free is under way");
    Ok(oldest.wait()?.places.into_bytes())
}
