//! Endpoints that never receive delay no other of their session, however many they are: each has a reserve of credit and of
//! envelopes beside what all share, and what is kept for them is bounded.

mod common;

use common::{PATIENCE, content, options, pair_with, resident_bytes};
use sinew::{Endpoint, EngineOptions, OpError, Peer, Progress};
use std::time::Duration;

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    twenty_endpoints_that_never_receive_delay_no_other,
    what_is_sent_to_endpoints_that_never_receive_is_bounded_and_arrives,
    a_short_send_that_was_copied_is_drained_by_close,
] }

const THREAD: Progress = Progress::Thread { cpu: None };
const DEAF: usize = 20;

/// Small enough that a flood is over soon; the shares are those of the defaults.
fn narrow() -> EngineOptions {
    options()
        .endpoint_window(64usize << 10)
        .session_window(256usize << 10)
        .endpoint_envelopes(2048usize)
        .session_envelopes(4096usize)
}

/// Sends until the sender would block for good, and says how many messages went.
fn flood(peer: &Peer, data: &[u8]) -> u64 {
    let (mut sent, mut blocked) = (0, 0);
    let mut since = std::time::Instant::now();
    // Credit that is missing for 200 ms turns messages into envelopes: it is over when that brings nothing either.
    while blocked < 100 || since.elapsed() < Duration::from_millis(300) {
        match peer.try_send(sent, data) {
            Ok(()) => (sent, blocked, since) = (sent + 1, 0, std::time::Instant::now()),
            Err(OpError::WouldBlock) => {
                blocked += 1;
                std::thread::yield_now();
            }
            Err(other) => panic!("{other}"),
        }
    }
    sent
}

/// Messages of all kinds run to an endpoint that receives, in order.
fn runs(to: &Peer, at: &Endpoint, count: u64) {
    let size = |round: u64| match round % 16 {
        15 => 150_000,
        7 => 20_000,
        other => other as usize * 40,
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..count {
                to.message(round % 3).immediate(round).send(&content(size(round), round)).unwrap();
            }
        });
        let mut buf = vec![0; 200_000];
        for round in 0..count {
            let got = at.recv_within(round % 3, &mut buf, PATIENCE).unwrap();
            assert_eq!((got.immediate, got.len), (Some(round), size(round)));
            assert!(buf[..got.len] == content(got.len, round), "content of {round}");
        }
    });
}

fn twenty_endpoints_that_never_receive_delay_no_other(lane: &str) {
    let p = pair_with(lane, THREAD, THREAD, narrow().send_buffer(64usize << 20));
    let deaf: Vec<(Endpoint, Peer)> = (0..DEAF)
        .map(|_| {
            let endpoint = p.there.endpoint("").unwrap();
            let peer = p.a.connect(endpoint.address()).unwrap();
            (endpoint, peer)
        })
        .collect();
    for (_, peer) in &deaf {
        // More than it may have under way: they spend the bytes, then the envelopes.
        let hanging: Vec<_> = (0..2100).map(|_| peer.post_send(1, vec![1; 9000])).collect();
        drop(hanging);
    }
    // Nothing moves for any of the deaf ones.
    runs(&p.to_b, &p.b, 2000);
    // One that nobody has talked to yet.
    let late = p.there.endpoint("late").unwrap();
    runs(&p.a.connect(late.address()).unwrap(), &late, 300);
}

fn what_is_sent_to_endpoints_that_never_receive_is_bounded_and_arrives(lane: &str) {
    let p = pair_with(lane, THREAD, THREAD, narrow().send_buffer(4usize << 20));
    let before = resident_bytes();
    let deaf: Vec<(Endpoint, Peer, u64)> = (0..DEAF)
        .map(|_| {
            let endpoint = p.there.endpoint("").unwrap();
            let peer = p.a.connect(endpoint.address()).unwrap();
            let sent = flood(&peer, b"short");
            (endpoint, peer, sent)
        })
        .collect();
    let total: u64 = deaf.iter().map(|(_, _, sent)| sent).sum();
    let grown = resident_bytes().saturating_sub(before);
    println!("{lane}: {total} messages to {DEAF} endpoints; {grown} bytes more are resident in both engines");
    // The window of the session and the reserves, the copies of the sender, the envelopes.
    let messages = ((256 << 10) + DEAF as u64 * (4 << 10)) / 69 + (4 << 20) / 261;
    assert!(total <= messages + DEAF as u64, "{total} messages, {messages} are the bound");
    // Empty messages take their part of the bound, too.
    let empty: u64 = deaf.iter().map(|(_, peer, _)| flood(peer, b"")).sum();
    assert!(total + empty <= messages + DEAF as u64, "{empty} more than {total}");
    runs(&p.to_b, &p.b, 500);
    let mut buf = [0; 8];
    for (endpoint, _, sent) in &deaf {
        for number in 0..*sent {
            let got = endpoint.recv_within(number, &mut buf, PATIENCE).unwrap();
            assert_eq!(&buf[..got.len], b"short");
        }
    }
}

/// With progress by its caller alone a short message whose credit is spent stays with its engine as a copy.
fn a_short_send_that_was_copied_is_drained_by_close(lane: &str) {
    let p = pair_with(lane, Progress::Caller, THREAD, narrow());
    const COUNT: u64 = 2000;
    for number in 0..COUNT {
        p.to_b.message(1).immediate(number).send(&number.to_le_bytes()).unwrap();
    }
    assert!(p.here.counters().operations > 0, "not all of it has gone");
    let mut buf = [0; 8];
    std::thread::scope(|scope| {
        let close = scope.spawn(|| p.here.close(PATIENCE));
        for number in 0..COUNT {
            let got = p.b.recv_within(1, &mut buf, PATIENCE).unwrap();
            assert_eq!((got.immediate, u64::from_le_bytes(buf)), (Some(number), number));
        }
        assert!(close.join().unwrap().unwrap(), "everything was drained");
    });
}
