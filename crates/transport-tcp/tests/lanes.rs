//! What a stream lane promises, over loopback IPv4, IPv6 and Unix-domain sockets.
#![allow(unsafe_code)]

mod common;

use common::*;
use sinew_transport::{ErrorKind, Peek, PostError, Token, UnacknowledgedBody};
use sinew_transport_tcp::{BORROWED_MAX, FRAME_MAX, StreamOptions};
use sinew_wire::frame::{Header, Kind};
use std::io::IoSlice;
use std::ptr::NonNull;
use std::time::Duration;

/// Posts `body` borrowed; it must live until released.
fn post_borrowed(end: &mut End, header: &Header, body: &[u8], token: u64) -> Result<(), PostError> {
    let data = NonNull::new(body.as_ptr().cast_mut()).unwrap();
    // SAFETY: the tests keep `body` unchanged until it is released, reclaimed, recovered or the lane is dropped.
    unsafe { end.lane.try_post_borrowed(header, data, body.len(), Token(token)) }
}

#[test]
fn frames_of_all_sizes_arrive_whole_and_in_order_in_both_directions() {
    for family in families() {
        for stream in [StreamOptions::default(), small_buffers()] {
            let mut net = Net::new(family, stream);
            let (mut one, mut other) = ends(&mut net);
            let mut random = Random(0x1234_5678);
            let bodies: Vec<Vec<u8>> = (0..400)
                .map(|i| {
                    let len = match i % 5 {
                        0 => 0,
                        1 => random.below(64),
                        2 => random.below(4096),
                        3 => random.below(FRAME_MAX as u64 + 1),
                        _ => random.below(300 << 10),
                    };
                    random.bytes(len as usize)
                })
                .collect();
            let mut posted = [0, 0];
            wait("all frames", || {
                for (end, posted) in [&mut one, &mut other].into_iter().zip(&mut posted) {
                    while *posted < bodies.len() && post(end, *posted, &bodies[*posted]) {
                        *posted += 1;
                    }
                    end.turn();
                }
                let all = |end: &End| end.sink.frames.len() == bodies.len() && end.lane.unacknowledged() == 0;
                all(&one) && all(&other)
            });
            for end in [&one, &other] {
                for (at, (header, body)) in end.sink.frames.iter().enumerate() {
                    assert_eq!(body, &bodies[at], "{family:?} frame {at}");
                    let expected =
                        if at % 5 == 4 { Header::data(at as u64, 5 << 32) } else { eager(at as u64) };
                    assert_eq!(*header, expected);
                }
                let borrowed: Vec<u64> = (0..bodies.len() as u64).filter(|at| at % 5 == 4).collect();
                let released: Vec<u64> = end.sink.released.iter().map(|token| token.0).collect();
                assert_eq!(released, borrowed, "{family:?}");
            }
        }
    }

    fn post(end: &mut End, at: usize, body: &[u8]) -> bool {
        let result = if at % 5 == 4 {
            post_borrowed(end, &Header::data(at as u64, 5 << 32), body, at as u64)
        } else {
            let (front, back) = body.split_at(body.len() / 3);
            end.lane.try_post(&eager(at as u64), &[IoSlice::new(front), IoSlice::new(back)])
        };
        match result {
            Ok(()) => true,
            Err(PostError::Full) => false,
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Words of the lanes' own stand wherever the system stops taking bytes: what is left of them goes first.
#[test]
fn frames_and_words_between_them_arrive_through_sockets_that_take_little_at_a_time() {
    for family in families() {
        let mut options = StreamOptions::default();
        options.socket_send_bytes = Some(4608);
        options.socket_receive_bytes = Some(4608);
        let mut net = Net::new(family, options);
        let (mut one, mut other) = ends(&mut net);
        let mut random = Random(21);
        // About as long as what a Unix-domain socket of this size takes at a time, which is where writes end, and others.
        let body = |number| {
            let len = if number % 4 == 0 { 1 + random.below(7000) } else { 4480 + random.below(64) };
            random.bytes(len as usize)
        };
        let bodies: Vec<Vec<u8>> = (0..1500).map(body).collect();
        let mut posted = [0; 2];
        wait("all frames of both", || {
            for (end, posted) in [&mut one, &mut other].into_iter().zip(&mut posted) {
                for _ in 0..random.below(4) {
                    let Some(body) = bodies.get(*posted) else { break };
                    if end.lane.try_post(&eager(*posted as u64), &[IoSlice::new(body)]).is_ok() {
                        *posted += 1;
                    }
                }
                if random.below(2) == 0 {
                    end.lane.request_acknowledgement();
                }
                if random.below(2) == 0 {
                    end.lane.acknowledge();
                }
                end.turn();
            }
            one.sink.frames.len() == bodies.len() && other.sink.frames.len() == bodies.len()
        });
        for end in [&one, &other] {
            assert!(end.sink.frames.iter().map(|(_, body)| body).eq(&bodies), "{family:?}");
        }
    }
}

#[test]
fn a_peer_that_reads_nothing_makes_posts_full_and_room_comes_back_with_its_acknowledgements() {
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let (mut one, mut other) = ends(&mut net);
        let body = [7; 1000];
        let mut posted = 0u64;
        loop {
            match one.lane.try_post(&eager(posted), &[IoSlice::new(&body)]) {
                Ok(()) => posted += 1,
                Err(error) => {
                    assert_eq!(error, PostError::Full);
                    break;
                }
            }
            one.lane.flush().unwrap();
        }
        assert!(posted * 1024 <= 1 << 20 && posted * 1024 > 900 << 10, "{posted} frames");
        assert_eq!(one.lane.unacknowledged(), posted);
        let mut said = 0;
        wait("room", || {
            other.turn();
            said += one.turn();
            said > 0
        });
        one.lane.try_post(&eager(posted), &[IoSlice::new(&body)]).unwrap();
        wait("everything", || {
            one.turn();
            other.turn();
            other.sink.frames.len() as u64 == posted + 1 && one.lane.unacknowledged() == 0
        });
        assert_eq!(other.sink.frames.last().unwrap().0.tag, posted);
    }
}

#[test]
fn frames_beyond_the_limits_are_too_large_and_nothing_of_them_is_sent() {
    let mut net = Net::new(Family::Uds, StreamOptions::default());
    let (mut one, mut other) = ends(&mut net);
    let body = vec![1; BORROWED_MAX + 1];
    let large = [IoSlice::new(&body[..FRAME_MAX]), IoSlice::new(&body[..1])];
    assert_eq!(one.lane.try_post(&eager(0), &large), Err(PostError::TooLarge));
    assert_eq!(post_borrowed(&mut one, &Header::data(1, 0), &body, 1), Err(PostError::TooLarge));
    assert_eq!(post_borrowed(&mut one, &eager(2), &body[..=FRAME_MAX], 2), Err(PostError::TooLarge));
    post_borrowed(&mut one, &Header::data(3, 0), &body[..BORROWED_MAX], 3).unwrap();
    one.lane.try_post(&eager(4), &[IoSlice::new(&body[..FRAME_MAX])]).unwrap();
    wait("the ones that fit", || {
        one.turn();
        other.turn();
        other.sink.frames.len() == 2 && one.lane.unacknowledged() == 0
    });
    let sizes: Vec<(u64, usize)> =
        other.sink.frames.iter().map(|(header, body)| (header.tag, body.len())).collect();
    assert_eq!(sizes, [(3, BORROWED_MAX), (4, FRAME_MAX)]);
    assert_eq!(one.sink.released, [Token(3)]);
}

#[test]
fn the_window_of_frames_is_bounded_also_for_empty_ones() {
    let mut stream = StreamOptions::default();
    stream.retention_frames = 64;
    let mut net = Net::new(Family::V4, stream);
    let (mut one, mut other) = ends(&mut net);
    for at in 0..64 {
        one.lane.try_post(&eager(at), &[]).unwrap();
    }
    assert_eq!(one.lane.try_post(&eager(64), &[]), Err(PostError::Full));
    wait("an acknowledgement", || {
        one.turn();
        other.turn();
        one.lane.unacknowledged() < 64
    });
    one.lane.try_post(&eager(64), &[]).unwrap();
}

#[test]
fn a_revoked_placement_is_never_written_again_and_the_lane_goes_on() {
    for family in families() {
        let mut net = Net::new(family, small_buffers());
        let (mut one, mut other) = ends(&mut net);
        let body = Random(5).bytes(900 << 10);
        post_borrowed(&mut one, &Header::data(1, 0), &body, 1).unwrap();
        one.lane.try_post(&eager(2), &[IoSlice::new(b"after")]).unwrap();
        wait("a part of the body", || {
            one.turn();
            other.turn();
            other.sink.open_placement().is_some()
        });
        let token = other.sink.open_placement().unwrap();
        other.lane.revoke(token);
        let seen = other.sink.targets[&token.0].clone();
        assert!(seen.ends_with(&[0xee; 1000]), "the end has not arrived yet");
        // The target stays allocated, so that a late write would be seen.
        wait("the frame behind it", || {
            one.turn();
            other.turn();
            if let Some(target) = other.sink.targets.get(&token.0) {
                assert!(*target == seen);
            }
            other.sink.frames.len() == 2
        });
        assert_eq!(other.sink.frames[0].1, seen.to_vec());
        assert_eq!(other.sink.frames[1], (eager(2), b"after".to_vec()));
        wait("the release", || {
            one.turn();
            other.turn();
            one.sink.released == [Token(1)]
        });
    }
}

#[test]
fn a_stripe_is_put_to_its_place_and_the_backlog_of_tcp_says_when_it_is_across() {
    for family in families() {
        let mut net = Net::new(family, small_buffers());
        let (mut one, mut other) = ends(&mut net);
        let body = Random(8).bytes(BORROWED_MAX);
        let header = Header::stripe(1, 77, (1 << 40) + 5);
        assert_eq!(header.stripe_place(), (77, (1 << 40) + 5));
        let before = one.lane.backlog();
        post_borrowed(&mut one, &header, &body, 1).unwrap();
        one.lane.flush().unwrap();
        assert_eq!(before.is_some(), one.lane.remark().starts_with("congestion control "), "{family:?}");
        if let Some(backlog) = one.lane.backlog() {
            assert!(
                backlog.queued >= BORROWED_MAX as u64 / 2,
                "little buffers take a part of it: {backlog:?}"
            );
        }
        let mut placed = false;
        wait("the stripe", || {
            one.turn();
            other.turn();
            placed |= other.sink.open_placement().is_some();
            !other.sink.frames.is_empty()
        });
        assert!(placed && other.sink.frames == [(header, body)], "{family:?}");
        if let Some(before) = before {
            wait("an empty backlog", || one.lane.backlog().is_some_and(|backlog| backlog.queued == 0));
            let arrived = one.lane.backlog().unwrap().arrived - before.arrived;
            assert!((BORROWED_MAX as u64..BORROWED_MAX as u64 + 4096).contains(&arrived), "{arrived} bytes");
        }
    }
}

#[test]
fn a_discarded_body_is_read_aside_and_counts_as_arrived() {
    for family in families() {
        let mut net = Net::new(family, small_buffers());
        let (mut one, mut other) = ends(&mut net);
        other.sink.policy = Policy::Discard;
        let body = Random(6).bytes(BORROWED_MAX);
        post_borrowed(&mut one, &Header::data(1, 0), &body, 1).unwrap();
        one.lane.try_post(&eager(2), &[IoSlice::new(b"after")]).unwrap();
        wait("both", || {
            one.turn();
            other.turn();
            other.sink.frames.len() == 2 && one.lane.unacknowledged() == 0
        });
        assert_eq!(other.sink.frames[1], (eager(2), b"after".to_vec()));
    }
}

#[test]
fn what_is_reclaimed_midway_arrives_all_the_same_though_its_memory_is_overwritten() {
    for family in families() {
        let mut net = Net::new(family, small_buffers());
        let (mut one, mut other) = ends(&mut net);
        let original = Random(7).bytes(700 << 10);
        let mut body = original.clone();
        post_borrowed(&mut one, &Header::data(1, 0), &body, 1).unwrap();
        post_borrowed(&mut one, &Header::data(2, 0), &body, 2).unwrap();
        one.lane.flush().unwrap();
        wait("a part of the body", || {
            one.turn();
            other.turn();
            other.sink.open_placement().is_some()
        });
        one.lane.reclaim(Token(1));
        one.lane.reclaim(Token(2));
        body.fill(0);
        wait("both frames", || {
            one.turn();
            other.turn();
            other.sink.frames.len() == 2 && one.lane.unacknowledged() == 0
        });
        assert!(other.sink.frames.iter().all(|(_, got)| *got == original), "{family:?}");
        assert!(one.sink.released.is_empty(), "a reclaimed token is not released");
    }
}

#[test]
fn a_borrowed_body_is_released_only_when_the_peer_has_handed_it_up() {
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let (mut one, mut other) = ends(&mut net);
        let body = vec![3; 2000];
        post_borrowed(&mut one, &eager(1), &body, 1).unwrap();
        one.lane.request_acknowledgement();
        for _ in 0..50 {
            one.turn();
        }
        assert!(one.sink.released.is_empty(), "the peer was not polled yet");
        wait("the release", || {
            other.turn();
            one.turn();
            !one.sink.released.is_empty()
        });
        assert_eq!(other.sink.frames, [(eager(1), body.clone())]);
        assert_eq!(one.sink.released, [Token(1)]);
    }
}

#[test]
fn an_idle_lane_arms_no_timer_and_watches_for_nothing_to_write() {
    for family in families() {
        let mut net = Net::new(family, small_buffers());
        let (mut one, mut other) = ends(&mut net);
        assert_eq!((one.lane.next_timer(), other.lane.next_timer()), (None, None));
        let body = vec![1; 500 << 10];
        post_borrowed(&mut one, &Header::data(1, 0), &body, 1).unwrap();
        wait("everything to be acknowledged", || {
            one.turn();
            other.turn();
            sleep_on(&net.poller, &mut [(10, &mut one), (11, &mut other)], Duration::ZERO);
            one.lane.unacknowledged() == 0
        });
        one.turn();
        other.turn();
        assert_eq!((one.lane.next_timer(), other.lane.next_timer()), (None, None), "{family:?}");
        let events = sleep_on(&net.poller, &mut [], Duration::from_millis(50));
        assert_eq!(events, 0, "{family:?}: an idle pair of lanes wakes nobody");
    }
}

#[test]
fn a_lane_that_is_only_woken_by_the_poller_and_its_timers_gets_everything_across() {
    for family in families() {
        let mut net = Net::new(family, small_buffers());
        let (mut one, mut other) = ends(&mut net);
        let body = Random(8).bytes(800 << 10);
        post_borrowed(&mut one, &Header::data(1, 0), &body, 1).unwrap();
        one.lane.flush().unwrap();
        wait("the release", || {
            let now = std::time::Instant::now();
            let timer = [&one, &other].iter().filter_map(|end| end.lane.next_timer()).min();
            let timeout = timer.map_or(Duration::from_secs(5), |at| at.saturating_duration_since(now));
            let mut events = Vec::new();
            net.poller.wait(Some(timeout), &mut events).unwrap();
            assert!(
                !events.is_empty() || timer.is_some(),
                "nobody wakes the lanes although something is left"
            );
            for event in events {
                let end = if event.key.owner == 10 { &mut one } else { &mut other };
                end.lane.handle_event(event);
                end.lane.poll(&mut end.sink, 64).unwrap();
                end.lane.flush().unwrap();
            }
            let now = std::time::Instant::now();
            for end in [&mut one, &mut other] {
                if end.lane.next_timer().is_some_and(|at| at <= now) {
                    end.lane.handle_timer(now).unwrap();
                }
            }
            !one.sink.released.is_empty()
        });
        assert_eq!(other.sink.frames, [(Header::data(1, 0), body.clone())]);
    }
}

#[test]
fn close_lets_everything_posted_arrive_and_then_ends_the_peers_lane() {
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let (mut one, mut other) = ends(&mut net);
        for at in 0..100 {
            one.lane.try_post(&eager(at), &[IoSlice::new(&[at as u8; 100])]).unwrap();
        }
        // Something unread on the closing side must not destroy what is under way.
        other.lane.try_post(&eager(7), &[IoSlice::new(&[1; 5000])]).unwrap();
        other.lane.flush().unwrap();
        one.lane.close();
        assert!(matches!(one.lane.try_post(&eager(0), &[]), Err(PostError::Dead(_))));
        drop(one);
        let error = other.error();
        assert_eq!(error.kind, ErrorKind::Broken, "{error}");
        assert_eq!(other.sink.frames.len(), 100, "{family:?}");
        assert_eq!(other.lane.recover().len(), 1);
    }
}

#[test]
fn recover_gives_back_every_frame_that_the_peer_has_not_handed_up() {
    for family in families() {
        for seed in 1..20u64 {
            let mut net = Net::new(family, small_buffers());
            let (mut one, mut other) = ends(&mut net);
            let mut random = Random(seed);
            let bodies: Vec<Vec<u8>> = (0..200)
                .map(|_| {
                    let limit = if random.below(8) == 0 { 200 << 10 } else { 3000 };
                    let len = random.below(limit);
                    random.bytes(len as usize)
                })
                .collect();
            let mut posted = 0;
            let stop = random.below(150) as usize;
            while other.sink.frames.len() < stop {
                while posted < bodies.len() {
                    let body = &bodies[posted];
                    let result = if body.len() > 3000 {
                        post_borrowed(&mut one, &Header::data(posted as u64, 0), body, posted as u64)
                    } else {
                        one.lane.try_post(&eager(posted as u64), &[IoSlice::new(body)])
                    };
                    if result.is_err() {
                        break;
                    }
                    posted += 1;
                }
                one.turn();
                other.lane.poll(&mut other.sink, 1 + random.below(4) as usize).unwrap();
                other.lane.flush().unwrap();
            }
            if random.below(2) == 0 {
                one.lane.reclaim(Token(random.below(200)));
            }
            let seen = other.sink.frames.len();
            drop(other.lane);
            let error = one.error();
            assert_eq!(error.kind, ErrorKind::Broken, "{error}");
            let rest = one.lane.recover();
            assert_eq!(one.lane.unacknowledged(), 0);
            let first = posted - rest.len();
            assert!(first <= seen, "{family:?}: a gap between {seen} seen and {first} recovered");
            for (frame, at) in rest.iter().zip(first..) {
                assert_eq!(frame.header.tag, at as u64);
                assert_eq!(frame.header.flags.0, 0);
                match &frame.body {
                    UnacknowledgedBody::Owned(body) => assert_eq!(*body, bodies[at]),
                    UnacknowledgedBody::Borrowed { data, len, token } => {
                        assert_eq!((*data, *len), (bodies[at].as_ptr(), bodies[at].len()));
                        assert_eq!(token.0, at as u64);
                    }
                }
            }
            for (at, (header, body)) in other.sink.frames.iter().enumerate() {
                assert_eq!((header.tag, body), (at as u64, &bodies[at]));
            }
        }
    }
}

#[test]
fn a_kind_this_version_does_not_know_passes_through() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let (mut one, mut other) = ends(&mut net);
    let header = Header { kind: Kind(191), flags: sinew_wire::frame::Flags(0x0f), ..eager(1) };
    one.lane.try_post(&header, &[IoSlice::new(b"x")]).unwrap();
    wait("it", || {
        one.turn();
        other.turn();
        !other.sink.frames.is_empty()
    });
    assert_eq!(other.sink.frames, [(header, b"x".to_vec())]);
}

#[test]
fn a_lane_that_is_polled_for_long_leaves_the_poller_and_is_back_before_anybody_sleeps() {
    for family in families() {
        for way in ["arm", "look", "drop"] {
            let mut net = Net::new(family, StreamOptions::default());
            let (mut one, mut other) = ends(&mut net);
            let readable = |net: &Net| {
                let mut events = Vec::new();
                net.poller.wait(Some(Duration::ZERO), &mut events).unwrap();
                events.iter().any(|event| event.key.owner == 11)
            };
            for _ in 0..2000 {
                other.lane.poll(&mut other.sink, 64).unwrap();
            }
            one.lane.try_post(&eager(1), &[]).unwrap();
            one.lane.flush().unwrap();
            assert!(!readable(&net), "{family:?}: outside the poller nothing is reported");
            match way {
                "arm" => assert!(net.server.arm()),
                "look" => (0..200).for_each(|_| net.server.poll_warm(&mut Vec::new())),
                _ => {
                    let nobody = sinew_transport_tcp::TcpTransport::default();
                    let context = context(&net.poller, sinew_transport::ListenScope::Nobody, 9);
                    net.server = sinew_transport::Transport::open(&nobody, context).unwrap();
                }
            }
            assert!(readable(&net), "{family:?} {way}: it is back and what had arrived is reported");
            other.turn();
            assert_eq!(other.sink.frames.len(), 1);
        }
    }
}

#[test]
fn what_answers_a_large_body_brings_its_release_along() {
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let (mut one, mut other) = ends(&mut net);
        let body = vec![9; 100 << 10];
        post_borrowed(&mut one, &Header::data(1, 0), &body, 1).unwrap();
        wait("the body", || {
            one.lane.flush().unwrap();
            one.lane.poll(&mut one.sink, 64).unwrap();
            other.lane.poll(&mut other.sink, 64).unwrap();
            !other.sink.frames.is_empty()
        });
        other.lane.try_post(&eager(2), &[]).unwrap();
        other.lane.flush().unwrap();
        wait("the answer", || {
            one.lane.poll(&mut one.sink, 64).unwrap();
            !one.sink.frames.is_empty()
        });
        assert_eq!(one.sink.released, [Token(1)], "{family:?}: no further exchange is needed");
    }
}

/// Frames whose lengths divide that of the receive buffer, so that it is full to its last byte when they are all taken.
#[test]
fn frames_that_are_taken_where_they_lie_leave_room_for_the_next_ones() {
    const FRAMES: u64 = 100_000;
    for family in families() {
        let mut net = Net::new(family, StreamOptions::default());
        let (mut one, mut other) = ends(&mut net);
        let (mut posted, mut next, mut taken) = (0u64, 0u64, 0u64);
        wait("all frames", || {
            while posted < FRAMES
                && one.lane.try_post(&eager(posted), &[IoSlice::new(&posted.to_le_bytes())]).is_ok()
            {
                posted += 1;
            }
            one.turn();
            let before = other.sink.frames.len();
            other.lane.poll(&mut other.sink, 1).expect("the lane lives");
            for (header, body) in &other.sink.frames[before..] {
                assert_eq!((header.tag, body.as_slice()), (next, &next.to_le_bytes()[..]));
                next += 1;
            }
            let mut take = false;
            while let Peek::Frame(frame) = other.lane.peek(take, 1) {
                assert_eq!((frame.header.tag, frame.body.to_vec()), (next, next.to_le_bytes().to_vec()));
                (next, taken, take) = (next + 1, taken + 1, true);
            }
            other.lane.flush().expect("the lane lives");
            next == FRAMES
        });
        assert!(taken > FRAMES / 2, "{family:?}: only {taken} were shown");
    }
}
