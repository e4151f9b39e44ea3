//! How lanes end: by death, by a break, in order; and what is known afterwards.

use crate::Fixture;
use crate::harness::{Got, Pair, Random, Side, Target, borrowed_header};
use sinew_transport::{ErrorKind, LaneError, PostError, Token, UnacknowledgedBody};
use sinew_wire::frame::{Header, Kind};
use std::io::IoSlice;

/// The peer dies at many points: what its sink had, followed by what the lane gives back, is everything that was posted. The
/// lane may give back frames that had arrived, it never leaves a gap.
pub fn what_the_peer_saw_and_what_is_recovered_is_everything_in_order(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    for turns in [0, 1, 2, 3, 5, 8, 20] {
        let mut pair = Pair::new(&fixture);
        pair.stand();
        let mut random = Random(30 + turns);
        let limits = pair.a.lane().info().limits;
        let most = limits.borrowed_max.min(300_000);
        let mut posted: Vec<Got> = Vec::new();
        let mut kept = Vec::new();
        for number in 0..200u64 {
            if number % 40 == 20 {
                for _ in 0..turns {
                    pair.a.turn(4);
                    pair.b.turn(4);
                }
            }
            let (mut header, size) = (random.header(number), random.below(most));
            let taken = if number % 3 == 0 {
                header = borrowed_header(number, size, limits.frame_max);
                let body = Target::filled(size, number as u8);
                let taken = pair.a.post_borrowed(&header, &body, Token(number));
                let got = Got { header, body: Some(body.to_vec()) };
                kept.push(body);
                taken.then_some(got)
            } else {
                let body = random.bytes(size % 4000);
                pair.a.post(&header, &body).then_some(Got { header, body: Some(body) })
            };
            posted.extend(taken);
        }
        assert!(!posted.is_empty());
        pair.b.die();
        let error = to_the_end(&mut pair.a);
        assert!(matches!(error.kind, ErrorKind::Broken | ErrorKind::PeerDead), "{error}");
        let recovered = recover(&mut pair.a);
        let seen = &pair.b.seen.got;
        assert!(posted.starts_with(seen), "after {turns} turns the peer saw {} frames", seen.len());
        assert!(posted.ends_with(&recovered), "after {turns} turns {} are recovered", recovered.len());
        assert!(
            seen.len() + recovered.len() >= posted.len(),
            "after {turns} turns: {} seen, {} recovered, {} posted",
            seen.len(),
            recovered.len(),
            posted.len()
        );
        assert!(pair.a.lane().recover().is_empty(), "recovered twice");
        pair.a.die();
    }
}

/// After its end every call on the lane answers the same error.
pub fn a_dead_lane_answers_the_same_for_ever(make: &dyn Fn() -> Fixture) {
    let mut pair = Pair::new(&make());
    pair.b.die();
    let error = to_the_end(&mut pair.a);
    let header = Header::control(Kind::EAGER, 1);
    for _ in 0..3 {
        let Pair { a: Side { lane, seen, .. }, .. } = &mut pair;
        let lane = lane.as_mut().expect("the dead lane is kept");
        assert_eq!(lane.poll(seen, 8), Err(error.clone()));
        assert_eq!(lane.try_post(&header, &[IoSlice::new(b"x")]), Err(PostError::Dead(error.clone())));
        assert_eq!(lane.flush(), Err(error.clone()));
        assert!(!lane.cool());
        lane.revoke(Token(1));
        lane.reclaim(Token(1));
    }
    pair.a.lane().recover();
}

/// Memory that was posted and is given back comes with its place and token, or as a copy, and is never reported again.
pub fn recovered_borrows_are_not_released(make: &dyn Fn() -> Fixture) {
    let mut pair = Pair::new(&make());
    pair.stand();
    let limits = pair.a.lane().info().limits;
    let most = limits.borrowed_max.min(1 << 20);
    let bodies: Vec<Target> = (0..40).map(|number| Target::filled(most, number)).collect();
    let mut taken = 0;
    for (number, body) in bodies.iter().enumerate() {
        let number = number as u64;
        if pair.a.post_borrowed(&borrowed_header(number, most, limits.frame_max), body, Token(number)) {
            taken += 1;
        } else {
            break;
        }
    }
    pair.b.die();
    to_the_end(&mut pair.a);
    let released = pair.a.seen.released.clone();
    let mut back = 0;
    for frame in pair.a.lane().recover() {
        let number = frame.header.tag as usize;
        if let UnacknowledgedBody::Borrowed { data, len, token } = frame.body {
            assert_eq!((data, len), (bodies[number].data().as_ptr().cast_const(), most));
            assert_eq!(token, Token(number as u64));
            assert!(!released.contains(&token), "{token:?} was released and is given back borrowed");
        }
        back += 1;
    }
    assert!(back + pair.b.seen.got.len() >= taken, "{back} of {taken} given back");
    assert_eq!(pair.a.seen.released, released);
    pair.a.die();
}

/// `close` lets what was posted arrive, also when the lane is dropped at once; then the peer's lane is over.
pub fn a_closed_lane_drains_and_ends_its_peer(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    for borrowed in [false, true] {
        let mut pair = Pair::new(&fixture);
        // The first frame makes sure that both lanes stand; before that nothing can be promised.
        pair.stand();
        let bodies: Vec<Target> = (1..30u8).map(|number| Target::filled(500, number)).collect();
        for (number, body) in bodies.iter().enumerate() {
            let header = Header::control(Kind::EAGER, number as u64 + 1);
            if borrowed {
                pair.send_borrowed(&header, body, Token(number as u64));
            } else {
                pair.send(&header, &body.to_vec());
            }
        }
        pair.a.lane().close();
        pair.a.die();
        let error = to_the_end(&mut pair.b);
        assert_eq!(error.kind, ErrorKind::Broken, "{error}");
        assert_eq!(pair.b.seen.got.len(), bodies.len(), "all arrived before the end");
        for (got, body) in pair.b.seen.got.iter().zip(&bodies) {
            assert!(got.body == Some(body.to_vec()), "frame {}", got.header.tag);
        }
    }
}

/// Turns the side until its lane is over.
pub(crate) fn to_the_end(side: &mut Side) -> LaneError {
    let deadline = std::time::Instant::now() + crate::harness::DEADLINE;
    loop {
        side.turn(64);
        if let Some(error) = &side.over {
            return error.clone();
        }
        assert!(std::time::Instant::now() < deadline, "the lane lives on without its peer");
        std::thread::yield_now();
    }
}

/// What the lane gives back.
pub(crate) fn recover(side: &mut Side) -> Vec<Got> {
    let recovered = side.lane().recover();
    recovered
        .into_iter()
        .map(|frame| Got { header: frame.header, body: Some(crate::harness::copy_of(frame.body)) })
        .collect()
}
