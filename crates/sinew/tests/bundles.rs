//! Short messages that are staged, or sent in a batch, share frames; nobody can tell but by their number.

mod common;
#[path = "common/tampered.rs"]
mod tampered;

use common::{Pair, connected, content, engine_with, options, pair, pair_with, steady, until};
use sinew::frame::Flags;
use sinew::shm::{ShmOptions, ShmTransport};
use sinew::transport::{Header, Kind};
use sinew::{Match, OpError, Outgoing, Progress, Receive};
use tampered::tampered;

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    short_messages_share_frames,
    messages_are_taken_in_any_order_of_their_tags,
    what_nobody_wants_yet_waits_as_any_message,
    posted_receives_come_before_later_ones,
    what_was_staged_goes_before_what_is_sent_later,
    a_message_too_long_for_its_receive_is_cut_and_spoils_no_other,
    tagged_and_untagged_messages_keep_apart,
    a_receiver_that_rests_loses_nothing,
    what_is_staged_goes_out_when_its_sender_waits,
    frames_that_wait_for_room_are_counted_on_their_lane,
] }

fn frames(p: &Pair) -> u64 {
    p.here.lanes().iter().map(|lane| lane.frames_sent).sum()
}

fn stage(p: &Pair, tag: u64, data: &[u8]) {
    until("it is staged", || match p.to_b.stage(tag, data) {
        Ok(()) => true,
        Err(OpError::WouldBlock) => {
            p.here.progress();
            false
        }
        Err(error) => panic!("{error}"),
    });
}

fn short_messages_share_frames(lane: &str) {
    let p = pair(lane);
    p.to_b.send(u64::MAX, b"once the lane is chosen").unwrap();
    p.b.recv(u64::MAX, &mut [0; 64]).unwrap();
    let before = frames(&p);
    for tag in 0..320 {
        stage(&p, tag, &content(tag as usize % 40, tag));
    }
    p.to_b.flush().unwrap();
    let mut buf = [0; 64];
    for tag in 0..320 {
        let got = p.b.recv(tag, &mut buf).unwrap();
        assert_eq!(buf[..got.len], content(tag as usize % 40, tag));
    }
    let frames = frames(&p) - before;
    // Only a thread that has the engine for itself packs: another one may have had it for a while.
    assert!(frames < 200, "{frames} frames for 320 messages");
    assert_eq!(p.b.counters().messages_received, 321);
}

/// One at a time in another order than they were sent in, so that most are taken out of the middle.
fn messages_are_taken_in_any_order_of_their_tags(lane: &str) {
    let p = pair(lane);
    let mut buf = [0; 64];
    for round in 0..50_u64 {
        for tag in 0..64 {
            stage(&p, round << 8 | tag, &content(20, tag));
        }
        p.to_b.flush().unwrap();
        for number in 0..64 {
            let tag = (number * 37 + round) % 64;
            let got = p.b.recv(round << 8 | tag, &mut buf).unwrap();
            assert_eq!((got.len, got.tag), (20, round << 8 | tag));
            assert_eq!(buf[..20], content(20, tag));
        }
    }
    assert_eq!(p.b.counters().unexpected, 0);
}

fn what_nobody_wants_yet_waits_as_any_message(lane: &str) {
    let p = pair(lane);
    for tag in 0..96 {
        stage(&p, tag, &content(8, tag));
    }
    stage(&p, 1000, b"last");
    p.to_b.flush().unwrap();
    let mut buf = [0; 64];
    // The last one first: all others are there then, and wait.
    assert_eq!(p.b.recv(1000, &mut buf).unwrap().len, 4);
    for tag in (0..96).rev() {
        assert_eq!(p.b.try_recv(tag, &mut buf).unwrap().len, 8);
        assert_eq!(buf[..8], content(8, tag));
    }
}

/// Of two receives that want the same, the older gets the first message, though the younger one looks at the lane itself.
fn posted_receives_come_before_later_ones(lane: &str) {
    let p = pair(lane);
    for round in 0..100_u64 {
        let posted = p.b.post_recv(Match::any_tag(), vec![0; 64]).unwrap();
        for number in 0..4_u8 {
            stage(&p, round, &[number]);
        }
        p.to_b.flush().unwrap();
        let mut buf = [0; 64];
        for number in 1..4 {
            p.b.recv(round, &mut buf).unwrap();
            assert_eq!(buf[0], number, "round {round}");
        }
        let first = posted.wait().unwrap();
        assert_eq!((first.info.len, first.buf[0]), (1, 0));
    }
}

fn what_was_staged_goes_before_what_is_sent_later(lane: &str) {
    let p = pair(lane);
    let long = content(100_000, 3);
    for round in 0..30_u64 {
        stage(&p, round, b"one");
        stage(&p, round, b"two");
        p.to_b.send(round, b"three").unwrap();
        stage(&p, round, b"four");
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| p.to_b.send(round, &long));
            let mut buf = vec![0; long.len()];
            for expected in [&b"one"[..], b"two", b"three", b"four", &long] {
                let got = p.b.recv(round, &mut buf).unwrap();
                assert!(buf[..got.len] == *expected, "round {round}: {} for {}", got.len, expected.len());
            }
            sending.join().unwrap().unwrap();
        });
        if let Ok(mut loan) = p.to_b.alloc(5000) {
            stage(&p, round, b"before");
            loan.as_mut_slice().unwrap().fill(7);
            let sent = p.to_b.post_send(round, loan).unwrap();
            stage(&p, round, b"after");
            let mut buf = vec![0; 5000];
            assert_eq!(p.here_progress_until_received(round, &mut buf), 6);
            assert_eq!(p.here_progress_until_received(round, &mut buf), 5000);
            assert_eq!(p.here_progress_until_received(round, &mut buf), 5);
            sent.wait().unwrap();
        }
    }
}

trait ReceiveWithHelp {
    fn here_progress_until_received(&self, tag: u64, buf: &mut [u8]) -> usize;
}

impl ReceiveWithHelp for Pair {
    /// The sender has no thread of its own.
    fn here_progress_until_received(&self, tag: u64, buf: &mut [u8]) -> usize {
        let mut len = None;
        until("it has come", || {
            self.here.progress();
            len = self.b.try_recv(tag, buf).ok().map(|got| got.len);
            len.is_some()
        });
        len.unwrap()
    }
}

fn a_message_too_long_for_its_receive_is_cut_and_spoils_no_other(lane: &str) {
    let p = pair(lane);
    for tag in 0..8 {
        stage(&p, tag, &content(30, tag));
    }
    p.to_b.flush().unwrap();
    let mut buf = [0; 30];
    for tag in 0..8 {
        if tag % 3 == 1 {
            let cut = p.b.recv(tag, &mut buf[..10]);
            assert!(matches!(cut, Err(OpError::Truncated { .. })), "{cut:?}");
            assert_eq!(buf[..10], content(30, tag)[..10]);
        } else {
            assert_eq!(p.b.recv(tag, &mut buf).unwrap().len, 30);
            assert_eq!(buf, content(30, tag)[..]);
        }
    }
}

fn tagged_and_untagged_messages_keep_apart(lane: &str) {
    let p = pair(lane);
    let data: Vec<Vec<u8>> = (0..90).map(|number| content(12, number)).collect();
    let messages: Vec<Outgoing<'_>> = data
        .iter()
        .zip(0..)
        .map(
            |(data, number)| {
                if number % 7 < 3 { Outgoing::untagged(data) } else { Outgoing::tagged(number, data) }
            },
        )
        .collect();
    for _ in 0..20 {
        p.to_b.send_batch(&messages).unwrap();
        let mut buffers = vec![[0; 12]; 90];
        let mut receives: Vec<Receive<'_>> = buffers
            .iter_mut()
            .zip(0..)
            .map(|(buf, number)| {
                let pattern = if number % 7 < 3 { Match::untagged() } else { Match::any_tag() };
                Receive::new(pattern, buf)
            })
            .collect();
        until("all have come", || {
            let _ = p.b.recv_all(&mut receives);
            receives.iter().all(|receive| receive.result().is_some())
        });
        for (receive, data) in receives.iter().zip(&data) {
            assert_eq!(receive.data(), data);
        }
    }
}

/// The ring and the socket fill up again and again, so that bundles have to wait for room.
fn a_receiver_that_rests_loses_nothing(lane: &str) {
    const COUNT: u64 = 60_000;
    let p = pair(lane);
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            let mut buf = [0; 128];
            for number in 0..COUNT {
                if number % 10_000 == 0 {
                    // Long enough for all room to be spent: it is the pause that is tested.
                    std::thread::sleep(std::time::Duration::from_millis(30));
                }
                let got = p.b.recv(number, &mut buf).unwrap();
                assert_eq!(buf[..got.len], content(number as usize % 128, number));
            }
        });
        for number in 0..COUNT {
            if p.to_b.stage(number, &content(number as usize % 128, number)).is_err() {
                p.to_b.send(number, &content(number as usize % 128, number)).unwrap();
            }
        }
        p.to_b.flush().unwrap();
        receiving.join().unwrap();
    });
}

/// A request that is staged is answered though its sender only waits for the answer.
fn what_is_staged_goes_out_when_its_sender_waits(lane: &str) {
    let p = pair(lane);
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| {
            let mut buf = [0; 64];
            for number in 0..300_u64 {
                let got = p.b.recv(number, &mut buf).unwrap();
                let back = p.b.reply_to(got.source).unwrap();
                back.send(number, &buf[..got.len]).unwrap();
            }
        });
        let mut buf = [0; 64];
        for number in 0..300_u64 {
            stage(&p, number, &number.to_le_bytes());
            match number % 3 {
                0 => assert_eq!(p.a.recv(number, &mut buf).unwrap().len, 8),
                1 => assert_eq!(p.a.post_recv(number, vec![0; 64]).unwrap().wait().unwrap().info.len, 8),
                _ => assert_eq!(p.a.recv_message(number, 64).unwrap().len(), 8),
            }
        }
        answering.join().unwrap();
    });
}

/// Far more than a lane takes at once, of bundles and of operations.
fn frames_that_wait_for_room_are_counted_on_their_lane(lane: &str) {
    const COUNT: u64 = 2000;
    let thread = Progress::Thread { cpu: None };
    let p = pair_with(lane, thread, thread, steady());
    p.to_b.send(u64::MAX, b"once the lane is chosen").unwrap();
    p.b.recv(u64::MAX, &mut [0; 64]).unwrap();
    let before = frames(&p);
    let waiting: Vec<_> = (0..COUNT).map(|tag| p.to_b.post_send(tag, content(1000, tag)).unwrap()).collect();
    let mut buf = [0; 1000];
    std::thread::scope(|scope| {
        scope.spawn(|| waiting.into_iter().for_each(|op| drop(op.wait().unwrap())));
        for tag in 0..COUNT {
            assert_eq!(p.b.recv(tag, &mut buf).unwrap().len, 1000);
        }
    });
    p.to_b.flush().unwrap();
    let sent = frames(&p) - before;
    assert!((COUNT..COUNT + COUNT / 4).contains(&sent), "{sent} frames for {COUNT} messages");
}

/// Whatever a frame says that is no bundle ends the session with a reason; the receiver goes on.
#[test]
fn what_is_no_bundle_ends_its_session() {
    // Two lengths, two tags, the bytes of both.
    let good: Vec<u8> = [[3, 0, 3, 0, 0, 0, 0, 0], 1_u64.to_le_bytes(), 2_u64.to_le_bytes()]
        .concat()
        .into_iter()
        .chain(*b"onetwo")
        .collect();
    let breaches: [(u64, Flags, Vec<u8>); 7] = [
        (0, Flags(0), good.clone()),
        (3, Flags(0), good.clone()),
        (u64::MAX, Flags(0), good.clone()),
        (2, Flags::IMMEDIATE, good.clone()),
        (2, Flags::RESERVE, good.clone()),
        (2, Flags(0), good[..good.len() - 1].to_vec()),
        (2, Flags(0), vec![0; 3000]),
    ];
    for (tag, flags, body) in breaches {
        let (here, plan) = tampered(ShmTransport::new(ShmOptions::default()));
        let p = connected(here, engine_with("shm", Progress::Event, options()));
        let header =
            |tag, flags| Header { kind: Kind::BUNDLE, flags, dst: p.b.number(), src: p.a.number(), tag };
        plan.forged
            .lock()
            .unwrap()
            .extend([(header(2, Flags(0)), good.clone()), (header(tag, flags), body.clone())]);
        until("the session is lost", || {
            p.here.process();
            p.there.process();
            p.there.counters().sessions_lost > 0
        });
        // What came before it is delivered.
        let mut buf = [0; 8];
        assert_eq!(p.b.try_recv(1, &mut buf).unwrap().len, 3, "{tag} {flags:?}");
        assert_eq!(p.b.try_recv(2, &mut buf).unwrap().len, 3);
    }
}

/// What came before a bundle goes before what is in it, though a receive looks into the bundle first.
#[test]
fn what_waits_goes_before_what_a_bundle_brings() {
    for lane in ["shm", "uds", "tcp"] {
        let p = common::pair_with(lane, Progress::Thread { cpu: None }, Progress::Caller, options());
        for round in 0..50_u64 {
            p.to_b.send(5, b"old").unwrap();
            until("it waits", || p.b.probe(Match::tag(5)).is_some());
            p.to_b.send_batch(&[Outgoing::tagged(7, b"wanted"), Outgoing::tagged(5, b"new")]).unwrap();
            assert_eq!(p.b.post_recv(7, vec![0; 64]).unwrap().wait().unwrap().info.len, 6);
            let mut buf = [0; 64];
            for expected in [&b"old"[..], b"new"] {
                let got = p.b.recv(5, &mut buf).unwrap();
                assert_eq!(&buf[..got.len], expected, "{lane}, round {round}");
            }
        }
    }
}

/// A receive that is given up puts its message behind those that came before it in the same frame.
#[test]
fn messages_of_one_frame_keep_their_order_when_receives_are_given_up() {
    for lane in ["shm", "uds", "tcp"] {
        let p = common::pair_with(lane, Progress::Event, Progress::Event, options());
        for tags in [vec![3], vec![1, 3], vec![3, 1], vec![2, 1, 4], vec![1, 2, 3, 4]] {
            let posted: Vec<_> = tags.iter().map(|&tag| p.b.post_recv(tag, vec![0; 64]).unwrap()).collect();
            let messages = [1, 2, 3, 4].map(|tag| Outgoing::tagged(tag, b"x"));
            until("they go", || {
                p.here.process();
                p.there.process();
                let sent = p.to_b.try_send_batch(&messages);
                // All or none: what the engines say to each other may be on its way.
                assert!(sent.as_ref().err().is_none_or(|part| part.sent == 0), "{sent:?}");
                sent.is_ok()
            });
            until("they have come", || {
                p.here.process();
                p.there.process();
                p.b.counters().unexpected == 4 - tags.len() && p.b.counters().posted == 0
            });
            drop(posted);
            let mut buf = [0; 64];
            for tag in 1..=4 {
                assert_eq!(p.b.try_recv(Match::any_tag(), &mut buf).unwrap().tag, tag, "{lane}, {tags:?}");
            }
        }
    }
}
