//! Promises about messages, on each lane: matching, order, sizes, truncation, credit, fairness.

mod common;

use common::{PATIENCE, content, explicit, options, pair, pair_with, resident_bytes, until};
use sinew::{Match, OpError, Progress};
use std::io::IoSlice;
use std::time::Duration;

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp", own = "self"; [
    tags_untagged_masks_and_sources_choose_the_message,
    immediate_data_arrives_with_messages_of_all_sizes,
    truncation_loses_nothing_else,
    messages_of_length_zero_arrive,
    gathered_slices_arrive_as_one_message,
    probe_shows_a_message_without_taking_it,
    messages_of_one_pair_arrive_in_order_whatever_their_size,
    behind_65536_unmatched_messages_a_receive_finds_its_own,
    try_send_to_one_that_never_receives_blocks_in_bounded_memory,
    an_endpoint_that_never_receives_delays_no_other,
    a_message_may_be_sent_before_its_receive_and_after,
    what_is_staged_goes_out_by_the_background_thread_though_it_sleeps,
] }

/// More than the streak after which the engine's lock favours a thread, however often it was taken away from it before.
const LOOKS: usize = sinew_base::biased::STREAK_MAX as usize + 64;

/// The staging thread makes no call that sends: what it staged is sent by the thread that it wakes.
fn what_is_staged_goes_out_by_the_background_thread_though_it_sleeps(lane: &str) {
    let thread = Progress::Thread { cpu: None };
    let mut p = pair_with(lane, thread, Progress::Caller, options().spin(Duration::ZERO));
    if lane != "self" {
        // Of a choice that is fixed no timer asks whether another one were better: nothing else wakes the thread.
        p.to_b = std::thread::scope(|scope| {
            let connecting = scope.spawn(|| p.a.connect(explicit(&p.b.address(), lane)).expect("a path"));
            while !connecting.is_finished() {
                p.there.progress();
            }
            connecting.join().unwrap()
        });
    }
    let mut buf = [0; 8];
    for number in 0..100u64 {
        // So many looks in a row that the staging thread has the engine for itself, and the other one sleeps meanwhile.
        for _ in 0..LOOKS {
            let _ = p.a.counters();
        }
        for part in 0..number % 3 + 1 {
            // While the session leaves one of two lanes for the other nothing can be staged.
            until("there is room", || match p.to_b.stage(number * 4 + part, &number.to_le_bytes()) {
                Err(OpError::WouldBlock) => false,
                staged => staged.map(|()| true).unwrap(),
            });
        }
        for part in 0..number % 3 + 1 {
            p.b.recv_within(number * 4 + part, &mut buf, PATIENCE).unwrap();
            assert_eq!(buf, number.to_le_bytes());
        }
    }
}

fn tags_untagged_masks_and_sources_choose_the_message(lane: &str) {
    let p = pair(lane);
    let other = p.here.endpoint("c").unwrap();
    let from_c = other.connect(p.b.address()).unwrap();
    p.to_b.send(0x10, b"ten").unwrap();
    p.to_b.send(0x21, b"twenty-one").unwrap();
    p.to_b.send_untagged(b"untagged").unwrap();
    from_c.send(0x10, b"ten of c").unwrap();
    from_c.send(0, b"zero of c").unwrap();
    let mut buf = [0; 64];
    let got = p.b.recv(Match::untagged(), &mut buf).unwrap();
    assert_eq!((&buf[..got.len], got.tag), (&b"untagged"[..], 0));
    let a_source = got.source;
    let got = p.b.recv(0, &mut buf).unwrap();
    assert_eq!(&buf[..got.len], b"zero of c", "tag 0 is no untagged message");
    let c_source = got.source;
    assert_ne!(a_source, c_source);
    let got = p.b.recv(Match::tag(0x10).from(c_source), &mut buf).unwrap();
    assert_eq!(&buf[..got.len], b"ten of c");
    let got = p.b.recv(Match::tag(0x20).ignoring(0xf), &mut buf).unwrap();
    assert_eq!((&buf[..got.len], got.tag, got.source), (&b"twenty-one"[..], 0x21, a_source));
    let got = p.b.recv(Match::any_tag(), &mut buf).unwrap();
    assert_eq!(&buf[..got.len], b"ten");
    assert!(matches!(p.b.try_recv(Match::any_tag(), &mut buf), Err(OpError::WouldBlock)));
    assert!(matches!(p.b.try_recv(Match::untagged(), &mut buf), Err(OpError::WouldBlock)));
    assert_eq!(c_source.endpoint(), other.number());
}

const THREAD: Progress = Progress::Thread { cpu: None };
const SIZES: [usize; 12] = [0, 1, 39, 40, 41, 48, 1000, 4096, 16_384, 16_385, 70_000, 600_000];

fn immediate_data_arrives_with_messages_of_all_sizes(lane: &str) {
    let p = pair(lane);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (at, len) in SIZES.into_iter().enumerate() {
                let data = content(len, at as u64);
                p.to_b.message(at as u64).immediate(!(at as u64)).send(&data).unwrap();
                p.to_b.message(at as u64).send(&data).unwrap();
                p.to_b.message(0).untagged().immediate(at as u64).send(&data).unwrap();
            }
        });
        let mut buf = vec![0; 600_001];
        for (at, len) in SIZES.into_iter().enumerate() {
            for immediate in [Some(!(at as u64)), None] {
                let got = p.b.recv(at as u64, &mut buf).unwrap();
                assert_eq!((got.len, got.immediate), (len, immediate));
                assert!(buf[..len] == content(len, at as u64), "content of {len} bytes");
            }
            let got = p.b.recv(Match::untagged(), &mut buf).unwrap();
            assert_eq!((got.len, got.immediate), (len, Some(at as u64)));
            assert!(buf[..len] == content(len, at as u64), "content of {len} bytes");
        }
    });
}

fn truncation_loses_nothing_else(lane: &str) {
    let p = pair(lane);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (at, len) in SIZES.into_iter().enumerate() {
                let tag = at as u64;
                p.to_b.send(tag, b"before").unwrap();
                p.to_b.send(tag, &content(len, tag)).unwrap();
                p.to_b.send(tag, b"after").unwrap();
            }
        });
        for (at, len) in SIZES.into_iter().enumerate() {
            let tag = at as u64;
            let mut buf = vec![0xee; len + 16];
            let got = p.b.recv(tag, &mut buf).unwrap();
            assert_eq!(&buf[..got.len], b"before");
            buf.fill(0xee);
            let room = len / 2;
            match p.b.recv(tag, &mut buf[..room]) {
                Ok(got) => assert_eq!((got.len, len), (0, 0)),
                Err(OpError::Truncated { message_len, buffer_len, tag: of, .. }) => {
                    assert_eq!((message_len, buffer_len, of), (len as u64, room, tag));
                    assert!(len > 0);
                }
                Err(other) => panic!("{other}"),
            }
            assert!(buf[..room] == content(len, tag)[..room], "the beginning is there");
            assert!(buf[room..].iter().all(|&byte| byte == 0xee), "nothing is written beyond the buffer");
            let got = p.b.recv(tag, &mut buf).unwrap();
            assert_eq!(&buf[..got.len], b"after");
        }
    });
}

fn messages_of_length_zero_arrive(lane: &str) {
    let p = pair(lane);
    for round in 0..100u64 {
        p.to_b.send(round, b"").unwrap();
        if round % 3 == 0 {
            p.to_b.message(round).immediate(round).send(b"").unwrap();
        }
        let got = p.b.recv(round, &mut []).unwrap();
        assert_eq!((got.len, got.tag, got.immediate), (0, round, None));
        if round % 3 == 0 {
            assert_eq!(p.b.recv(round, &mut []).unwrap().immediate, Some(round));
        }
    }
    assert!(matches!(p.b.try_recv(Match::any_tag(), &mut []), Err(OpError::WouldBlock)));
}

fn gathered_slices_arrive_as_one_message(lane: &str) {
    let p = pair(lane);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (at, len) in SIZES.into_iter().enumerate() {
                let data = content(len, at as u64);
                let cut = |part: usize| len * part / 3;
                let parts = [
                    IoSlice::new(&data[..cut(1)]),
                    IoSlice::new(&[]),
                    IoSlice::new(&data[cut(1)..cut(2)]),
                    IoSlice::new(&data[cut(2)..]),
                ];
                p.to_b.message(7).immediate(at as u64).send_slices(&parts).unwrap();
            }
            p.to_b.message(7).send_slices(&[]).unwrap();
        });
        let mut buf = vec![0; 600_001];
        for (at, len) in SIZES.into_iter().enumerate() {
            let got = p.b.recv(7, &mut buf).unwrap();
            assert_eq!((got.len, got.immediate), (len, Some(at as u64)));
            assert!(buf[..len] == content(len, at as u64));
        }
        assert_eq!(p.b.recv(7, &mut buf).unwrap().len, 0);
    });
}

fn probe_shows_a_message_without_taking_it(lane: &str) {
    let p = pair(lane);
    assert!(p.b.probe(Match::any_tag()).is_none());
    let error = p.b.wait_probe(5, Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, OpError::TimedOut { .. }), "{error}");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            p.to_b.message(5).immediate(55).send(b"first").unwrap();
            p.to_b.send(6, &content(100_000, 6)).unwrap();
        });
        let seen = p.b.wait_probe(6, PATIENCE).unwrap();
        assert_eq!((seen.len, seen.tag), (100_000, 6));
        for _ in 0..3 {
            let seen = p.b.probe(Match::any_tag()).expect("it is still there");
            assert_eq!((seen.len, seen.tag, seen.immediate), (5, 5, Some(55)), "the oldest is shown");
        }
        let mut buf = vec![0; 100_000];
        assert_eq!(p.b.recv(6, &mut buf).unwrap(), seen);
        assert!(buf == content(100_000, 6));
        assert_eq!(p.b.recv(5, &mut buf).unwrap().len, 5);
        assert!(p.b.probe(Match::any_tag()).is_none());
    });
}

fn messages_of_one_pair_arrive_in_order_whatever_their_size(lane: &str) {
    // What was sent and not taken yet is fetched from the sender later: its engine needs a thread of its own.
    let p = pair_with(lane, THREAD, THREAD, common::options());
    let count = 400u64;
    let size = |round: u64| match round % 7 {
        0 => 20_000 + round as usize,
        3 => 100_000,
        other => other as usize * 200,
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..count {
                let data = content(size(round), round);
                if round % 2 == 0 {
                    p.to_b.message(round % 5).immediate(round).send(&data).unwrap();
                } else {
                    // Posted, not waited for: it must not be overtaken either.
                    drop(p.to_b.message(round % 5).immediate(round).post(data).unwrap());
                }
            }
            p.to_b.flush().unwrap();
        });
        let mut buf = vec![0; 200_000];
        for round in 0..count {
            let got = p.b.recv(Match::any_tag(), &mut buf).unwrap();
            assert_eq!((got.immediate, got.tag, got.len), (Some(round), round % 5, size(round)));
            assert!(buf[..got.len] == content(got.len, round), "content of message {round}");
        }
    });
}

fn behind_65536_unmatched_messages_a_receive_finds_its_own(lane: &str) {
    // What was sent and not taken yet is fetched from the sender later: its engine needs a thread of its own.
    let p = pair_with(lane, THREAD, THREAD, common::options());
    const COUNT: u64 = 65_536;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..COUNT {
                p.to_b.send(1, &number.to_le_bytes()).unwrap();
            }
            p.to_b.send(2, b"the one").unwrap();
            p.to_b.flush().unwrap();
        });
        let mut buf = [0; 8];
        let got = p.b.recv_within(2, &mut buf, PATIENCE).unwrap();
        assert_eq!(&buf[..got.len], b"the one");
        for number in 0..COUNT {
            let got = p.b.recv_within(1, &mut buf, PATIENCE).unwrap();
            assert_eq!((got.len, u64::from_le_bytes(buf)), (8, number));
        }
    });
    assert!(p.b.probe(Match::any_tag()).is_none());
}

fn try_send_to_one_that_never_receives_blocks_in_bounded_memory(lane: &str) {
    let options = common::options().send_buffer(256usize << 10).endpoint_window(256usize << 10);
    let p = pair_with(lane, THREAD, THREAD, options);
    let data = content(1000, 1);
    let before = resident_bytes();
    let (mut sent, mut blocked) = (0u64, 0);
    // Blocked so often in a row that it is for good.
    while blocked < 2000 {
        match p.to_b.try_send(sent, &data) {
            Ok(()) => (sent, blocked) = (sent + 1, 0),
            Err(OpError::WouldBlock) => {
                blocked += 1;
                std::thread::yield_now();
            }
            Err(other) => panic!("{other}"),
        }
        assert!(sent < 100_000, "it never blocks");
    }
    let grown = resident_bytes().saturating_sub(before);
    println!("{lane}: {sent} messages of 1000 bytes were taken; {grown} bytes more are resident");
    assert!(grown < 64 << 20, "{grown} bytes");
    // What was taken is not lost, and room comes back.
    let mut buf = [0; 1000];
    for number in 0..sent {
        let got = p.b.recv_within(Match::any_tag(), &mut buf, PATIENCE);
        let got = got.unwrap_or_else(|error| panic!("message {number} of {sent}: {error}"));
        assert_eq!(got.tag, number);
        assert!(buf[..] == data[..]);
    }
    until("there is room again", || p.to_b.try_send(7, &data).is_ok());
}

fn an_endpoint_that_never_receives_delays_no_other(lane: &str) {
    let options = common::options().send_buffer(256usize << 10).endpoint_window(256usize << 10);
    let p = pair_with(lane, Progress::Caller, THREAD, options);
    let deaf = p.there.endpoint("deaf").unwrap();
    let to_deaf = p.a.connect(deaf.address()).unwrap();
    // All that the deaf one takes, then owned sends that hang, short and long.
    let mut blocked = 0;
    while blocked < 200 {
        match to_deaf.try_send(1, &[7; 1000]) {
            Ok(()) => blocked = 0,
            Err(OpError::WouldBlock) => blocked += 1,
            Err(other) => panic!("{other}"),
        }
    }
    let hanging: Vec<_> =
        (0..40).map(|at| to_deaf.post_send(2, vec![at as u8; 100 + at * 10_000]).unwrap()).collect();
    let mut buf = vec![0; 300_000];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..300u64 {
                let len = if round % 10 == 0 { 200_000 } else { 500 };
                p.to_b.send(round, &content(len, round)).unwrap();
            }
        });
        for round in 0..300u64 {
            let got = p.b.recv_within(round, &mut buf, PATIENCE).unwrap();
            assert!(buf[..got.len] == content(got.len, round));
        }
    });
    drop(hanging);
}

fn a_message_may_be_sent_before_its_receive_and_after(lane: &str) {
    let p = pair(lane);
    for len in SIZES {
        let data = content(len, len as u64);
        let op = p.b.post_recv(9, vec![0; len + 1]).unwrap();
        p.to_b.send(9, &data).unwrap();
        let got = op.wait().unwrap();
        assert_eq!(got.info.len, len);
        assert!(got.buf.as_slice() == data);
        let send = p.to_b.post_send(10, data).unwrap();
        p.here.progress();
        p.b.wait_probe(10, PATIENCE).unwrap();
        let mut buf = vec![0; len];
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| send.wait().unwrap());
            assert_eq!(p.b.recv(10, &mut buf).unwrap().len, len);
            assert!(waiting.join().unwrap().as_slice() == buf, "the buffer comes back");
        });
    }
}

/// Needs about 5 GiB of free memory and some seconds: `cargo test -p sinew --test messages -- --ignored`.
#[test]
#[ignore = "needs 5 GiB of memory"]
fn a_message_longer_than_4_gib_arrives() {
    for lane in ["shm", "uds", "tcp"] {
        let p = pair(lane);
        let len = (1usize << 32) + 4097;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut data = vec![0u8; len];
                for at in (0..len).step_by(64 << 20).chain([len - 1]) {
                    data[at] = 1 + (at >> 26) as u8;
                }
                p.to_b.message(1).timeout(Duration::from_secs(300)).send(&data).unwrap();
            });
            let op = p.b.post_recv(1, vec![0u8; len + 1]).unwrap();
            let got = op.wait_within(Duration::from_secs(300)).unwrap();
            assert_eq!(got.info.len, len);
            for at in (0..len).step_by(64 << 20).chain([len - 1]) {
                assert_eq!(got.buf[at], 1 + (at >> 26) as u8, "at {at}");
            }
        });
    }
}
