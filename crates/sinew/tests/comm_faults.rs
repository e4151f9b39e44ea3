//! The faults that were found in the predecessor `comm` (C1 to C10), each with a test that it is not here.

mod common;

use common::{PATIENCE, content, engine, options, pair_with};
use sinew::{Engine, Match, OpError, Progress};
use std::time::Duration;

const THREAD: Progress = Progress::Thread { cpu: None };
const LANES: [&str; 3] = ["shm", "uds", "tcp"];

/// The receive path was dead: its thread started before any transport was there and never looped.
#[test]
fn c1_the_receive_path_lives_before_and_after_lanes_come() {
    for lane in LANES {
        let there = engine(lane, THREAD);
        let b = there.endpoint("b").unwrap();
        let early = b.post_recv(1, vec![0; 8]).unwrap();
        for _ in 0..3 {
            let here = engine(lane, THREAD);
            let peer = here.endpoint("").unwrap().connect(b.address()).unwrap();
            peer.send(2, b"again").unwrap();
            assert_eq!(b.recv(2, &mut [0; 8]).unwrap().len, 5);
        }
        let here = engine(lane, THREAD);
        here.endpoint("").unwrap().connect(b.address()).unwrap().send(1, b"early").unwrap();
        assert_eq!(early.wait_within(PATIENCE).unwrap().info.len, 5);
    }
}

/// A connect that had failed was reported as success.
#[test]
fn c2_a_failed_connect_is_an_error_with_reasons() {
    let here = Engine::builder()
        .domain("faults")
        .options(options().connect_timeout(Duration::from_secs(3)))
        .build()
        .unwrap();
    let a = here.endpoint("a").unwrap();
    for target in ["tcp://127.0.0.1:1/x", "uds:///nowhere/at-all.uds#x", "shm:///nowhere/at-all.sock#x", "?"]
    {
        let error = a.connect(target).expect_err(target).to_string();
        println!("{error}");
        assert!(!error.is_empty());
    }
}

/// No framing: one read was one message.
#[test]
fn c3_messages_keep_their_bounds_whatever_the_reads_are() {
    for lane in LANES {
        let p = pair_with(lane, THREAD, THREAD, options());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..2000u64 {
                    p.to_b.send(number, &content((number as usize * 131) % 9000, number)).unwrap();
                }
            });
            let mut buf = vec![0; 9000];
            for number in 0..2000u64 {
                let got = p.b.recv(Match::any_tag(), &mut buf).unwrap();
                assert_eq!((got.tag, got.len), (number, (number as usize * 131) % 9000));
                assert!(buf[..got.len] == content(got.len, number));
            }
        });
    }
}

/// A receive buffer was returned twice, and leaked on close.
#[test]
fn c4_each_buffer_comes_back_once_also_on_close() {
    for lane in LANES {
        let p = pair_with(lane, THREAD, THREAD, options());
        let mut ops: Vec<_> =
            (0..100u64).map(|number| p.b.post_recv(number, vec![number as u8; 50]).unwrap()).collect();
        for number in 0..50u64 {
            p.to_b.send(number, &content(50, number)).unwrap();
        }
        for (number, op) in ops.drain(..50).enumerate() {
            let got = op.wait().unwrap();
            assert!(got.buf.as_slice() == content(50, number as u64), "another's bytes");
        }
        p.there.close(Duration::from_secs(1)).unwrap();
        for (number, op) in ops.into_iter().enumerate() {
            let failed = op.wait().unwrap_err();
            assert_eq!(failed.buf.as_slice(), [number as u8 + 50; 50], "its own buffer, untouched");
        }
        assert_eq!(p.there.counters().operations, 0);
    }
}

/// Multiplexing, and the choice of the transport, were constants only.
#[test]
fn c5_endpoints_share_one_session_and_the_transport_is_a_choice() {
    for lane in LANES {
        let (here, there) = (engine(lane, THREAD), engine(lane, THREAD));
        let far: Vec<_> = (0..50).map(|_| there.endpoint("").unwrap()).collect();
        let near: Vec<_> = (0..50).map(|_| here.endpoint("").unwrap()).collect();
        for (number, (near, far)) in near.iter().zip(&far).enumerate() {
            let peer = near.connect(far.address()).unwrap();
            assert!(peer.path().starts_with(lane));
            peer.send(number as u64, b"x").unwrap();
        }
        for (number, far) in far.iter().enumerate() {
            assert_eq!(far.recv(number as u64, &mut [0; 1]).unwrap().len, 1);
        }
        assert_eq!((here.counters().sessions, there.counters().sessions), (1, 1));
    }
}

/// The automatic mode listened on everything and connected to nothing.
#[test]
fn c6_addresses_name_where_the_engine_listens_and_nothing_wider() {
    let here = engine("tcp", THREAD);
    let address = here.endpoint("a").unwrap().address();
    assert!(!address.locators().is_empty());
    for locator in address.locators() {
        let text = locator.to_string();
        assert!(text.starts_with("tcp:127.") || text.starts_with("tcp:[::1]"), "without a secret: {text}");
    }
}

/// Ending always failed, and leaked. (Descriptors and threads are counted in `processes.rs`, in a process of their own.)
#[test]
fn c7_close_works_and_says_where_a_message_came_from() {
    for lane in LANES {
        let p = pair_with(lane, THREAD, THREAD, options());
        p.to_b.send(1, b"x").unwrap();
        let got = p.b.recv(1, &mut [0; 1]).unwrap();
        assert_eq!(got.source.endpoint(), p.a.number());
        assert!(p.here.close(PATIENCE).unwrap());
        assert!(matches!(p.to_b.send(1, b"x"), Err(OpError::PeerLost { .. } | OpError::EngineClosed)));
        assert_eq!((p.here.counters().lanes, p.here.counters().sessions), (0, 0));
    }
}

// C8 (a whole MTU and two copies for each message, 8 MiB for each transport) is about speed and size: the bench has it.

/// Identity was a seeded guess, nothing was proven, and most calls answered success whatever happened.
#[test]
fn c9_identities_differ_and_strangers_are_refused() {
    let engines: Vec<_> = (0..20).map(|_| engine("uds", Progress::Caller)).collect();
    let mut addresses: Vec<_> =
        engines.iter().map(|engine| engine.endpoint("").unwrap().address().to_string()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20);
    let stranger = Engine::builder().domain("stranger").transports(["uds"]).build().unwrap();
    let friend = engine("uds", THREAD);
    let door = friend.endpoint("door").unwrap();
    let refused = stranger.endpoint("s").unwrap().connect(door.address());
    assert!(refused.is_err());
}

// C10 (no InfiniBand, shared memory, UDP or HTTP): shared memory is in every test here; verbs and others are issues of their own.
