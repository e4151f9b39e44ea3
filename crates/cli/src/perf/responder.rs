//! The side that is measured against: does what the initiator asks for, one request at a time, and checks every byte.

use super::pattern::{check, fill, seed};
use super::protocol::{BACK, REPLY, REQUEST, REQUEST_LEN, Reply, Request, Task};
use crate::failure::Failure;
use sinew::{Endpoint, Match, OpError, Peer, Source, Timeout};
use std::time::Duration;

/// How long the other side may take for a short message.
const PATIENCE: Duration = Duration::from_secs(10);
/// Slower than this many bytes a second, made, sent and checked, nothing that lives is expected to be.
const SLOWEST: u64 = 10 << 20;

/// How long the other side may take for `count` messages of `size` bytes.
pub(crate) fn patience(size: usize, count: u64) -> Duration {
    PATIENCE + Duration::from_secs((size as u64).saturating_mul(count) / SLOWEST)
}

/// From here on a message is fetched by its receiver, which is quicker when its buffer is there first.
pub(crate) const POSTED_FROM: usize = 16 << 10;

/// Whether to go on after an initiator has said goodbye.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum After {
    End,
    GoOn,
}

/// Answers initiators. What goes wrong with one of them ends its measurement only.
pub(crate) fn serve(endpoint: &Endpoint, after: After, mut tell: impl FnMut(&str)) -> Result<(), Failure> {
    let mut bytes = [0; REQUEST_LEN];
    loop {
        let got = match endpoint.recv_within(REQUEST, &mut bytes, Timeout::Never) {
            Ok(got) => got,
            Err(OpError::Truncated { source, .. }) => {
                let _ = reply(
                    endpoint,
                    source,
                    &Reply::Refused("not a request of this version of sinew perf".into()),
                );
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match Request::from_bytes(&bytes[..got.len]) {
            Ok(Request { task: Task::Bye, .. }) if after == After::End => return Ok(()),
            Ok(Request { task: Task::Bye, .. }) => tell("measured; waiting for the next"),
            Ok(request) => {
                if let Err(error) = answer(endpoint, got.source, &request) {
                    tell(&format!("a measurement ended early: {error}"));
                }
            }
            Err(cause) => {
                let _ = reply(endpoint, got.source, &Reply::Refused(cause.into()));
            }
        }
    }
}

fn reply(endpoint: &Endpoint, to: Source, what: &Reply) -> Result<(), OpError> {
    endpoint.reply_to(to)?.send(REPLY, &what.to_bytes())
}

fn answer(endpoint: &Endpoint, source: Source, request: &Request) -> Result<(), OpError> {
    let back = endpoint.reply_to(source)?;
    let verdict = match request.task {
        Task::PingPong => ping_pong(endpoint, &back, request)?,
        Task::Stream => stream(endpoint, &back, request)?,
        Task::Bye => return Ok(()),
    };
    let verdict = verdict.map_or(Reply::Verified, Reply::Wrong);
    back.send(REPLY, &verdict.to_bytes())
}

/// What is wrong with message `number`, if anything is.
pub(crate) fn wrong(request: &Request, way: u64, number: u64, data: &[u8]) -> Option<String> {
    if data.len() != request.size {
        return Some(format!("message {number} has {} bytes instead of {}", data.len(), request.size));
    }
    let at = check(seed(request.seed ^ way, number), data).err()?;
    Some(format!("byte {at} of message {number} ({} bytes) is wrong", data.len()))
}

/// Answers before it checks, and prepares the next answer before the next message: only the way is measured.
fn ping_pong(endpoint: &Endpoint, back: &Peer, request: &Request) -> Result<Option<String>, OpError> {
    let patience = patience(request.size, request.count);
    let (mut ping, mut pong) = (vec![0; request.size], vec![0; request.size]);
    let mut verdict = None;
    fill(seed(request.seed ^ BACK, 0), &mut pong);
    back.send(REPLY, &Reply::Ready.to_bytes())?;
    for number in 0..request.count {
        let tag = request.base + number;
        let got = endpoint.recv_within(Match::tag(tag).from(back.source()), &mut ping, patience)?;
        back.message(tag | BACK).timeout(patience).send(&pong)?;
        verdict = verdict.or_else(|| wrong(request, 0, number, &ping[..got.len]));
        fill(seed(request.seed ^ BACK, number + 1), &mut pong);
    }
    back.send(REPLY, &Reply::Done.to_bytes())?;
    Ok(verdict)
}

/// Receives everything into memory of its own and checks it afterwards.
fn stream(endpoint: &Endpoint, back: &Peer, request: &Request) -> Result<Option<String>, OpError> {
    let count = usize::try_from(request.count).unwrap_or(0);
    let mut memory = vec![0; request.size * count];
    let mut empty = vec![[0u8; 0]; if request.size == 0 { count } else { 0 }];
    let slots: Vec<&mut [u8]> = if request.size == 0 {
        empty.iter_mut().map(|slot| &mut slot[..]).collect()
    } else {
        memory.chunks_exact_mut(request.size).collect()
    };
    let lens = if request.size > POSTED_FROM {
        receive_posted(endpoint, back, request, slots)?
    } else {
        receive_in_turn(endpoint, back, request, slots)?
    };
    back.send(REPLY, &Reply::Done.to_bytes())?;
    Ok((0..count).find_map(|number| {
        let start = number * request.size;
        let got = lens[number].min(request.size);
        wrong(request, 0, number as u64, &memory[start..start + got])
    }))
}

fn receive_in_turn(
    endpoint: &Endpoint,
    back: &Peer,
    request: &Request,
    slots: Vec<&mut [u8]>,
) -> Result<Vec<usize>, OpError> {
    let source = back.source();
    let mut lens = Vec::with_capacity(slots.len());
    back.send(REPLY, &Reply::Ready.to_bytes())?;
    for (slot, tag) in slots.into_iter().zip(request.base..) {
        lens.push(
            endpoint
                .recv_within(Match::tag(tag).from(source), slot, patience(request.size, request.count))?
                .len,
        );
    }
    Ok(lens)
}

fn receive_posted(
    endpoint: &Endpoint,
    back: &Peer,
    request: &Request,
    slots: Vec<&mut [u8]>,
) -> Result<Vec<usize>, OpError> {
    let source = back.source();
    endpoint.scope(|scope| {
        let posted = slots
            .into_iter()
            .zip(request.base..)
            .map(|(slot, tag)| scope.recv(Match::tag(tag).from(source), slot))
            .collect::<Result<Vec<_>, _>>()?;
        back.send(REPLY, &Reply::Ready.to_bytes())?;
        posted
            .into_iter()
            .map(|receive| receive.wait_within(patience(request.size, request.count)).0.map(|got| got.len))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::protocol::{ENDPOINT, REPLY_MAX};
    use sinew::Engine;

    fn reply(endpoint: &Endpoint) -> Reply {
        let mut bytes = [0; REPLY_MAX];
        let got = endpoint.recv_within(REPLY, &mut bytes, PATIENCE).expect("a reply");
        Reply::from_bytes(&bytes[..got.len]).expect("one that is known")
    }

    #[test]
    fn the_largest_messages_are_given_time_and_short_ones_are_not() {
        assert_eq!(patience(8, 10_000), PATIENCE);
        assert!(patience(1 << 30, 1) > 10 * PATIENCE);
        assert!(patience(1 << 30, 4) > 3 * patience(1 << 30, 1));
    }

    #[test]
    fn one_wrong_byte_or_length_in_a_stream_is_found() {
        let domain = format!("responder-{}", std::process::id());
        let make =
            || Engine::builder().domain(domain.as_str()).transports(["uds"]).build().expect("an engine");
        let (here, there) = (make(), make());
        let serving = there.endpoint(ENDPOINT).expect("an endpoint");
        let address = serving.address();
        let server = std::thread::spawn(move || serve(&serving, After::End, |_| ()).is_ok());
        let endpoint = here.endpoint("").expect("an endpoint");
        let peer = endpoint.connect(address).expect("a path");
        for (round, (wrong_byte, short)) in [(None, 0), (Some(3), 0), (None, 1)].into_iter().enumerate() {
            let base = 1 + 10 * round as u64;
            let request = Request { task: Task::Stream, size: 64, count: 2, base, seed: 99 };
            peer.send(REQUEST, &request.to_bytes()).expect("a request");
            assert_eq!(reply(&endpoint), Reply::Ready);
            for number in 0..2 {
                let mut data = [0; 64];
                fill(seed(request.seed, number), &mut data);
                if let Some(at) = wrong_byte.filter(|_| number == 1) {
                    data[at as usize] ^= 1;
                }
                peer.send(base + number, &data[..64 - short]).expect("a message");
            }
            assert_eq!(reply(&endpoint), Reply::Done);
            let expected = match (wrong_byte, short) {
                (Some(at), _) => Reply::Wrong(format!("byte {at} of message 1 (64 bytes) is wrong")),
                (None, 0) => Reply::Verified,
                (None, short) => Reply::Wrong(format!("message 0 has {} bytes instead of 64", 64 - short)),
            };
            assert_eq!(reply(&endpoint), expected);
        }
        let bye = Request { task: Task::Bye, size: 0, count: 0, base: 0, seed: 0 };
        peer.send(REQUEST, &bye.to_bytes()).expect("a request");
        assert!(server.join().expect("a thread"));
    }
}
