//! Frames that are copied: content, order, limits, fullness, acknowledgement.

use crate::Fixture;
use crate::harness::{DEADLINE, Got, LANE, Pair, Random, Side, connect, exchange, into_lane};
use sinew_transport::{ListenScope, Peek, Peeked, PostError, RECORD_LEN, Role};
use sinew_wire::frame::{Header, Kind};
use std::io::IoSlice;
use std::time::{Duration, Instant};

/// Bodies from nothing to the largest arrive byte for byte, in the order posted, with every field of the header.
pub fn bodies_of_all_sizes_arrive_exact_and_in_order(make: &dyn Fn() -> Fixture) {
    let mut pair = Pair::new(&make());
    let frame_max = pair.a.lane().info().limits.frame_max;
    let mut random = Random(2);
    let mut sizes = vec![0, 1, 7, 8, 32, 39, 40, 41, 48, 63, 64, 65, 255, 1500, 4095, 4096, 4097];
    sizes.extend([frame_max - 1, frame_max, 0, frame_max]);
    sizes.extend((0..300).map(|_| random.below(200)));
    sizes.extend((0..60).map(|_| random.below(frame_max + 1)));
    sizes.retain(|&size| size <= frame_max);
    let mut sent = Vec::new();
    for (number, size) in sizes.into_iter().enumerate() {
        let mut header = random.header(random.clone().next());
        header.kind = Kind([1, 2, 6, 9, 13, 18, 77][number % 7]);
        let body = random.bytes(size);
        pair.send(&header, &body);
        sent.push(Got { header, body: Some(body) });
    }
    pair.drive("all arrived", |_, b| b.seen.got.len() >= sent.len());
    assert_same(&pair.b.seen.got, &sent);
}

/// One byte too many is `TooLarge`, and leaves no trace.
pub fn a_body_above_the_limit_is_refused_and_nothing_is_taken(make: &dyn Fn() -> Fixture) {
    let mut pair = Pair::new(&make());
    let frame_max = pair.a.lane().info().limits.frame_max;
    let (header, body) = (Random(3).header(1), vec![1; frame_max + 1]);
    pair.stand();
    let halves = body.split_at(frame_max / 2);
    let gathered = [IoSlice::new(halves.0), IoSlice::new(halves.1)];
    assert_eq!(pair.a.lane().try_post(&header, &[IoSlice::new(&body)]), Err(PostError::TooLarge));
    assert_eq!(pair.a.lane().try_post(&header, &gathered), Err(PostError::TooLarge));
    assert_eq!(pair.a.lane().unacknowledged(), 0);
    pair.send(&header, b"after");
    pair.drive("the next frame arrived", |_, b| !b.seen.got.is_empty());
    assert_eq!(pair.b.seen.got, [Got { header, body: Some(b"after".to_vec()) }]);
}

/// A body in many parts, some empty, arrives as their concatenation.
pub fn gathered_bodies_arrive_as_one(make: &dyn Fn() -> Fixture) {
    let mut pair = Pair::new(&make());
    let mut random = Random(4);
    let mut sent = Vec::new();
    for round in 0..40 {
        let parts: Vec<Vec<u8>> = (0..round % 20)
            .map(|_| {
                let len = random.below(300);
                random.bytes(len)
            })
            .collect();
        let body: Vec<u8> = parts.concat();
        if body.len() > pair.a.lane().info().limits.frame_max {
            continue;
        }
        let header = random.header(round);
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        pair.drive("the lane has room", |a, _| match a.lane().try_post(&header, &slices) {
            Ok(()) => true,
            Err(PostError::Full) => false,
            Err(error) => panic!("{error:?}"),
        });
        sent.push(Got { header, body: Some(body) });
    }
    pair.drive("all arrived", |_, b| b.seen.got.len() >= sent.len());
    assert_same(&pair.b.seen.got, &sent);
}

/// Frames that are looked at, read, taken, left and polled in any mixture come once and in order, and what is shown stays
/// the same until it is taken. A lane that never shows any passes as one that is polled.
pub fn what_was_peeked_and_taken_is_handed_up_by_no_poll(make: &dyn Fn() -> Fixture) {
    const FRAMES: u64 = 4000;
    let mut pair = Pair::new(&make());
    let frame_max = pair.a.lane().info().limits.frame_max;
    let mut random = Random(8);
    let (mut sent, mut posted) = (Vec::new(), 0);
    let mut next = |random: &mut Random, number: u64| {
        let mut header = random.header(number);
        header.kind = Kind([1, 1, 1, 2, 5, 13][random.below(6)]);
        let len = if random.below(40) == 0 { random.below(frame_max + 1) } else { random.below(200) };
        let got = Got { header, body: Some(random.bytes(len)) };
        sent.push(got.clone());
        got
    };
    let mut waiting = next(&mut random, 0);
    let (mut shown, mut taken) = (0, 0);
    pair.drive("all arrived", |a, b| {
        while posted < FRAMES && a.post(&waiting.header, waiting.body.as_deref().unwrap_or_default()) {
            posted += 1;
            waiting = next(&mut random, posted);
        }
        for _ in 0..100 {
            let choice = random.below(5);
            if choice == 0 {
                b.progress(1 + random.below(3));
                // What was shown before the poll is not there to be taken.
                b.lane().take_peeked();
                continue;
            }
            let (reads, looks) = (random.below(2) == 0, 1 + choice as u32);
            let look = |b: &mut Side, take: bool| {
                let lane = b.lane();
                match if reads { lane.read(take, looks) } else { lane.peek(take, looks) } {
                    Peek::Frame(Peeked { header, body }) => Some(Got { header, body: Some(body.to_vec()) }),
                    Peek::Nothing | Peek::Poll => None,
                }
            };
            let Some(got) = look(b, false) else { continue };
            shown += 1;
            if choice == 1 {
                assert_eq!(look(b, false).as_ref(), Some(&got), "another one, and the first was not taken");
            } else if choice > 2 {
                if choice == 3 {
                    b.lane().take_peeked();
                } else {
                    look(b, true);
                }
                b.seen.got.push(got);
                taken += 1;
            }
        }
        b.seen.got.len() as u64 >= FRAMES
    });
    sent.truncate(FRAMES as usize);
    assert_same(&pair.b.seen.got, &sent);
    assert!(shown == 0 || taken > 100, "{shown} were shown and only {taken} taken");
}

/// A peer that takes nothing makes the lane `Full` within bounds; when it takes again, everything arrives once.
pub fn a_full_lane_takes_more_after_progress(make: &dyn Fn() -> Fixture) {
    /// More than any lane may hold back.
    const BOUND: usize = 256 << 20;
    let mut pair = Pair::new(&make());
    for size in [16, 4096] {
        let mut random = Random(5);
        pair.b.seen.got.clear();
        let body = |number: u64| [&number.to_le_bytes()[..], &vec![number as u8; size]].concat();
        let (mut posted, mut bytes) = (0, 0);
        // The peer's lane may still have to say hello; from the first refusal on after that only `a` moves.
        pair.stand();
        let mut refusals = 0;
        while refusals < 3 {
            if pair.a.post(&random.clone().header(posted), &body(posted)) {
                random.next();
                posted += 1;
                bytes += size;
                refusals = 0;
                assert!(bytes < BOUND, "{bytes} bytes under way and never full");
            } else {
                // Its own turn may find room in the system, but not for ever.
                pair.a.turn(64);
                refusals += 1;
            }
        }
        let goal = posted + 100;
        pair.drive("all arrived", |a, b| {
            while posted < goal && a.post(&random.clone().header(posted), &body(posted)) {
                random.next();
                posted += 1;
            }
            b.seen.got.len() as u64 >= goal
        });
        let mut random = Random(5);
        for (number, got) in pair.b.seen.got.iter().enumerate() {
            let number = number as u64;
            assert_eq!(got.header, random.clone().header(number));
            random.next();
            assert!(got.body.as_ref() == Some(&body(number)), "frame {number}");
        }
    }
}

/// Both sides post at once; neither order suffers.
pub fn both_directions_at_once_stay_in_order(make: &dyn Fn() -> Fixture) {
    const FRAMES: u64 = 3_000;
    let mut pair = Pair::new(&make());
    let mut random = Random(6);
    let sizes: Vec<usize> = (0..FRAMES).map(|_| random.below(600)).collect();
    let body = |tag: u64, side: u8| vec![tag as u8 ^ side; sizes[tag as usize]];
    let (mut from_a, mut from_b) = (0, 0);
    pair.drive("all arrived on both sides", |a, b| {
        while from_a < FRAMES && a.post(&Header::control(Kind::EAGER, from_a), &body(from_a, 0)) {
            from_a += 1;
        }
        while from_b < FRAMES && b.post(&Header::control(Kind::EAGER, from_b), &body(from_b, 0xff)) {
            from_b += 1;
        }
        a.seen.got.len() as u64 >= FRAMES && b.seen.got.len() as u64 >= FRAMES
    });
    for (side, seen) in [(0, &pair.b.seen.got), (0xff, &pair.a.seen.got)] {
        for (tag, got) in seen.iter().enumerate() {
            assert_eq!(got.header.tag, tag as u64);
            assert!(got.body.as_ref() == Some(&body(tag as u64, side)), "frame {tag}");
        }
    }
}

/// Several lanes between two domains carry their own frames only.
pub fn lanes_between_the_same_domains_do_not_mix(make: &dyn Fn() -> Fixture) {
    const LANES: u32 = 8;
    let fixture = make();
    let mut a = Side::open(&fixture, ListenScope::Nobody);
    let mut b = Side::open(&fixture, ListenScope::ThisUser);
    let mut lanes = Vec::new();
    for owner in LANE..LANE + LANES {
        let (mut dialled, mut accepted) = connect(&mut a, &mut b, owner);
        exchange(&mut a, &mut *dialled, &mut b, &mut *accepted, &[[owner as u8; RECORD_LEN]]);
        lanes.push((
            into_lane(dialled, Role::Dialer, owner, DEADLINE),
            into_lane(accepted, Role::Acceptor, owner, DEADLINE),
            owner,
        ));
    }
    let mut posted = vec![0u64; lanes.len()];
    let mut pairs: Vec<Pair> = Vec::new();
    // Each lane is driven with its own share of the two domains' events: level-triggered readiness is told to all in turn.
    for (dialled, accepted, owner) in lanes {
        let mut pair = Pair {
            a: Side::open(&fixture, ListenScope::Nobody),
            b: Side::open(&fixture, ListenScope::Nobody),
        };
        (pair.a.lane, pair.b.lane) = (Some(dialled), Some(accepted));
        (pair.a.owner, pair.b.owner) = (owner, owner);
        pairs.push(pair);
    }
    let deadline = Instant::now() + DEADLINE;
    while pairs.iter().any(|pair| pair.b.seen.got.len() < 100) {
        let (events_a, events_b) = (a.events(Duration::ZERO), b.events(Duration::ZERO));
        for (number, pair) in pairs.iter_mut().enumerate() {
            let owner = pair.a.owner;
            for &event in events_a.iter().filter(|event| event.key.owner == owner) {
                pair.a.lane().handle_event(event);
            }
            for &event in events_b.iter().filter(|event| event.key.owner == owner) {
                pair.b.lane().handle_event(event);
            }
            let body = vec![number as u8; 50 + number];
            while posted[number] < 100 && pair.a.post(&Header::control(Kind::EAGER, posted[number]), &body) {
                posted[number] += 1;
            }
            pair.a.progress(16);
            pair.b.progress(16);
            assert!(pair.a.over.is_none() && pair.b.over.is_none());
        }
        assert!(Instant::now() < deadline, "frames are missing");
    }
    for (number, pair) in pairs.iter().enumerate() {
        for (tag, got) in pair.b.seen.got.iter().enumerate() {
            assert_eq!(got.header.tag, tag as u64);
            assert_eq!(got.body, Some(vec![number as u8; 50 + number]));
        }
    }
}

/// What the peer has is known after asking, and an idle lane wants no timer.
pub fn unacknowledged_goes_to_zero_and_the_timer_with_it(make: &dyn Fn() -> Fixture) {
    let mut pair = Pair::new(&make());
    pair.stand();
    for number in 0..50 {
        pair.send(&Random(number).header(number), &[1; 100]);
    }
    pair.drive("all arrived", |_, b| b.seen.got.len() >= 50);
    pair.a.lane().request_acknowledgement();
    pair.drive("everything is acknowledged", |a, _| a.lane().unacknowledged() == 0);
    pair.drive("idle lanes want no timer", |a, b| {
        a.lane().next_timer().is_none() && b.lane().next_timer().is_none()
    });
}

/// As `assert_eq`, but says only where they differ.
fn assert_same(got: &[Got], sent: &[Got]) {
    for (number, (got, sent)) in got.iter().zip(sent).enumerate() {
        assert_eq!(got.header, sent.header, "header of frame {number}");
        assert!(
            got.body == sent.body,
            "body of frame {number}, {:?} bytes",
            sent.body.as_ref().map(Vec::len)
        );
    }
    assert_eq!(got.len(), sent.len());
}
