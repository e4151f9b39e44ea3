//! Frames between two domains in one process: order, sizes, credit, borrowed bodies, ends, sleep.
#![cfg(all(target_os = "linux", not(loom)))]

mod common;

use common::{Engine, Scratch, Seen, body_of, frame, options, pair, post, wait};
use sinew_transport::{
    Body, ErrorKind, Lane, LaneError, Peek, Placement, PostError, Sink, Token, UnacknowledgedBody,
};
use sinew_wire::frame::Header;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::time::Duration;

fn engines(scratch: &Scratch) -> (Engine, Engine) {
    (Engine::open(options(&scratch.0), 1), Engine::open(options(&scratch.0), 2))
}

/// Posts, polling the receiver while there is no room.
/// Posts frames until there is no room for one more. How many there are.
fn fill(lane: &mut dyn Lane, body: &[u8]) -> u64 {
    let mut posted = 0;
    while post(lane, &frame(posted, 0), body).is_ok() {
        posted += 1;
    }
    posted
}

fn send(from: &mut dyn Lane, to: &mut dyn Lane, seen: &mut Seen, number: u64, body: &[u8]) {
    wait("room", || match post(from, &frame(number, 9), body) {
        Ok(()) => Some(()),
        Err(PostError::Full) => {
            to.poll(seen, 7).expect("receiver");
            from.poll(&mut Seen::default(), 7).expect("sender");
            None
        }
        Err(error) => panic!("{error:?}"),
    });
}

#[test]
fn records_arrive_whole_and_in_order_before_the_lane() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, near_owner) = left.dial(&right.locator());
    let (mut far, far_owner) = right.accept();
    common::wait_ready(&mut *near);
    common::wait_ready(&mut *far);
    for number in 0..3u8 {
        assert!(near.try_send(&[number; 512]).expect("sent"));
    }
    // The dialler's lane may begin before the acceptor has read its last record.
    let mut near = common::lane(near, sinew_transport::Role::Dialer, near_owner);
    let mut record = [0; 512];
    for number in 0..3u8 {
        wait("a record", || far.try_recv(&mut record).expect("received").then_some(()));
        assert_eq!(record, [number; 512]);
    }
    let mut far = common::lane(far, sinew_transport::Role::Acceptor, far_owner);
    let mut seen = Seen::default();
    wait("the first frame", || {
        near.poll(&mut seen, 1).expect("near");
        let _ = post(&mut *near, &frame(1, 1), b"after the records");
        far.poll(&mut seen, 1).expect("far");
        seen.frames.first().map(|(_, body)| assert_eq!(body, b"after the records"))
    });
}

#[test]
fn every_body_size_arrives_in_order_and_unchanged() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    let frame_max = near.info().limits.frame_max;
    let sizes: Vec<usize> =
        (0..130).chain([1000, 1024, 4095, 4096, 4097, frame_max - 1, frame_max]).collect();
    let mut seen = Seen::default();
    for round in 0..5 {
        for (number, &len) in sizes.iter().enumerate() {
            let number = (round * sizes.len() + number) as u64;
            send(&mut *near, &mut *far, &mut seen, number, &body_of(number, len));
        }
    }
    wait("all frames", || {
        far.poll(&mut seen, 100).expect("receiver");
        (seen.frames.len() == 5 * sizes.len()).then_some(())
    });
    for (number, (header, body)) in seen.frames.iter().enumerate() {
        let number = number as u64;
        assert_eq!(*header, frame(number, 9));
        assert!(*body == body_of(number, sizes[number as usize % sizes.len()]), "frame {number}");
    }
    assert_eq!(post(&mut *near, &frame(0, 0), &vec![0; frame_max + 1]), Err(PostError::TooLarge));
    assert_eq!(near.unacknowledged(), 0);
}

#[test]
fn gathered_bodies_are_joined() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    let mut seen = Seen::default();
    for parts in [[3, 0, 5], [20, 1, 19], [30, 30, 30], [0, 0, 0]] {
        let bodies: Vec<Vec<u8>> = parts.iter().map(|&len| body_of(len as u64, len)).collect();
        let slices: Vec<IoSlice<'_>> = bodies.iter().map(|body| IoSlice::new(body)).collect();
        near.try_post(&frame(1, 1), &slices).expect("room");
        far.poll(&mut seen, 1).expect("receiver");
        assert_eq!(seen.frames.pop().expect("arrived").1, bodies.concat());
    }
}

#[test]
fn room_that_a_question_for_acknowledgement_finds_is_told_by_the_next_poll() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    // All taken by the time of the question, then some.
    for taken in [u64::MAX, 100] {
        let posted = fill(&mut *near, &[]);
        let mut seen = Seen::default();
        wait("frames", || {
            far.poll(&mut seen, 1).expect("receiver");
            (seen.frames.len() as u64 >= posted.min(taken)).then_some(())
        });
        near.request_acknowledgement();
        assert!(near.unacknowledged() < posted);
        let told = near.poll(&mut Seen::default(), 8).expect("sender");
        assert!(told > 0, "{taken} frames were taken");
        post(&mut *near, &frame(posted, 0), &[]).expect("room");
        far.poll(&mut seen, 1000).expect("receiver");
        assert!(near.poll(&mut Seen::default(), 8).is_ok());
    }
}

/// One body of `len` bytes to a receiver that looks while it waits.
fn to_one_that_waits(from: &mut dyn Lane, to: &mut dyn Lane, number: u64, len: usize) {
    // More looks than are left alone, and more than the lines of most bodies need.
    for _ in 0..3 {
        assert!(matches!(to.peek(false, 16), Peek::Nothing));
    }
    let body = body_of(number, len);
    assert!(from.post_short(&frame(number, 9), &body), "room for {len} bytes");
    match to.peek(false, 16) {
        Peek::Frame(shown) => assert!(shown.header == frame(number, 9) && shown.body.to_vec() == body),
        _ => panic!("no frame {number} of {len} bytes"),
    }
    to.take_peeked();
}

#[test]
fn long_bodies_that_answer_each_other_arrive_unchanged_round_after_round() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    let frame_max = near.info().limits.frame_max;
    // Several times through each ring of the window, with sizes that leave a rest before its end.
    for len in [41, 1000, 3000, 4096, 5000, 8192, 8193, 60_000, frame_max] {
        for number in 0..40 {
            to_one_that_waits(&mut *near, &mut *far, number, len);
            to_one_that_waits(&mut *far, &mut *near, number, len);
        }
    }
}

#[test]
fn a_full_lane_takes_nothing_and_says_when_to_go_on() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    let posted = fill(&mut *near, &[]);
    assert!(posted >= 200, "{posted}");
    assert_eq!(near.unacknowledged(), posted);
    let mut nothing = Seen::default();
    assert_eq!(near.poll(&mut nothing, 8).expect("sender"), 0);
    let mut seen = Seen::default();
    wait("all frames", || {
        far.poll(&mut seen, 8).expect("receiver");
        (seen.frames.len() as u64 == posted).then_some(())
    });
    assert!(near.poll(&mut nothing, 8).expect("sender") > 0, "the poll tells that there is room");
    assert_eq!(near.poll(&mut nothing, 8).expect("sender"), 0);
    post(&mut *near, &frame(posted, 0), &[]).expect("room");
    far.poll(&mut seen, 8).expect("receiver");
    let numbers: Vec<u64> = seen.frames.iter().map(|(header, _)| header.tag).collect();
    assert_eq!(numbers, (0..=posted).collect::<Vec<_>>());
}

#[test]
fn borrowed_bodies_arrive_and_are_released_unless_reclaimed() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    let len = near.info().limits.borrowed_max;
    let bodies = [body_of(1, len), body_of(2, len), body_of(3, 17)];
    for (number, body) in bodies.iter().enumerate() {
        let data = NonNull::new(body.as_ptr().cast_mut()).expect("not null");
        // SAFETY: `bodies` outlives the lane's use of it.
        let posted = unsafe {
            near.try_post_borrowed(&frame(number as u64, 0), data, body.len(), Token(number as u64))
        };
        assert_eq!(posted, Ok(()));
    }
    near.reclaim(Token(1));
    let mut released = Seen::default();
    assert_eq!(near.poll(&mut released, 8).expect("sender"), 2);
    assert_eq!(released.released, [Token(0), Token(2)]);
    let mut seen = Seen::default();
    wait("all frames", || {
        far.poll(&mut seen, 8).expect("receiver");
        (seen.frames.len() == 3).then_some(())
    });
    assert!(seen.frames.iter().map(|(_, body)| body).eq(bodies.iter()));
}

/// Panics at the first frame.
struct Panics(Seen);

// SAFETY: it names no memory.
unsafe impl Sink for Panics {
    fn frame(&mut self, header: &Header, body: Body<'_>) {
        self.0.frame(header, body);
        assert!(self.0.frames.len() != 1, "as planned");
    }
    fn place(&mut self, _header: &Header, _len: usize) -> Placement {
        Placement::Discard
    }
    fn placed(&mut self, _header: &Header, _len: usize) {}
    fn released(&mut self, _token: Token) {}
    fn pulled(&mut self, _token: Token, _result: Result<(), LaneError>) {}
}

#[test]
fn a_frame_that_made_its_receiver_panic_is_not_handed_up_twice() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    for number in 0..3 {
        post(&mut *near, &frame(number, 0), &body_of(number, 100)).expect("room");
    }
    let mut seen = Panics(Seen::default());
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| far.poll(&mut seen, 4)));
    assert!(polled.is_err());
    assert_eq!(far.poll(&mut seen, 4), Ok(2));
    let numbers: Vec<u64> = seen.0.frames.iter().map(|(header, _)| header.tag).collect();
    assert_eq!(numbers, [0, 1, 2]);
}

#[test]
fn looks_give_back_what_they_take_when_much_was_taken_and_when_nothing_is_left() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    let body = vec![1; 16 << 10];
    let posted = fill(&mut *near, &body);
    assert!(posted > 8, "{posted}");
    for number in 0..posted / 2 {
        match far.peek(number > 0, 1) {
            Peek::Frame(shown) => assert_eq!(shown.header.tag, number),
            other => panic!("{other:?}"),
        }
    }
    post(&mut *near, &frame(posted, 0), &body).expect("room before all is taken");
    while matches!(far.peek(true, 1), Peek::Frame(_)) {}
    assert_eq!(near.unacknowledged(), 0, "the peer knows that all has come");
}

#[test]
fn a_domain_does_not_sleep_over_room_that_came_while_it_lay_down() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    fill(&mut *near, &[]);
    assert!(left.domain.arm(), "there is nothing to be done");
    left.domain.disarm();
    assert!(near.cool());
    let mut owners = Vec::new();
    left.domain.poll_warm(&mut owners);
    owners.clear();
    // Nobody sleeps now, so nobody is woken.
    far.poll(&mut Seen::default(), 1000).expect("receiver");
    assert!(!left.domain.arm(), "there is room");
    left.domain.disarm();
    left.domain.poll_warm(&mut owners);
    assert_eq!(owners, [1]);
    assert!(!near.cool(), "there is room");
    assert_eq!(near.poll(&mut Seen::default(), 4), Ok(1));
    assert!(left.domain.arm());
    left.domain.disarm();
}

#[test]
fn a_closed_lane_hands_up_everything_and_then_ends_as_broken() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    for number in 0..50 {
        post(&mut *near, &frame(number, 0), &body_of(number, 100)).expect("room");
    }
    near.close();
    assert!(matches!(post(&mut *near, &frame(0, 0), &[]), Err(PostError::Dead(_))));
    drop(near);
    let mut seen = Seen::default();
    let error = wait("the end", || far.poll(&mut seen, 3).err());
    assert_eq!(error.kind, ErrorKind::Broken);
    assert_eq!(seen.frames.len(), 50);
    assert_eq!(far.poll(&mut seen, 3).expect_err("over"), error);
}

#[test]
fn frames_not_taken_can_be_recovered_from_own_memory() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    for number in 0..20 {
        post(&mut *near, &frame(number, 7), &body_of(number, number as usize * 10)).expect("room");
    }
    let mut seen = Seen::default();
    assert_eq!(far.poll(&mut seen, 5).expect("receiver"), 5);
    far.close();
    drop(far);
    wait("the end", || near.poll(&mut Seen::default(), 1).err());
    let left = near.recover();
    // The index is published lazily: what was handed up may come back too, what was not must.
    let first = 20 - left.len() as u64;
    assert!(first <= 5, "{first}");
    for (number, frame_left) in (first..20).zip(left) {
        assert_eq!(frame_left.header, frame(number, 7));
        let UnacknowledgedBody::Owned(body) = frame_left.body else { panic!("borrowed") };
        assert_eq!(body, body_of(number, number as usize * 10));
    }
    assert!(near.recover().is_empty(), "given back once");
}

#[test]
fn a_live_lane_is_ended_by_recovering_and_its_peer_hears_of_it_when_it_is_dropped() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    post(&mut *near, &frame(1, 0), b"kept").expect("room");
    assert_eq!(near.recover().len(), 1);
    assert!(matches!(post(&mut *near, &frame(2, 0), &[]), Err(PostError::Dead(_))));
    let mut seen = Seen::default();
    far.poll(&mut seen, 4).expect("no word of it yet");
    drop(near);
    let error = wait("the end", || far.poll(&mut seen, 4).err());
    assert_eq!(error.kind, ErrorKind::Broken);
}

#[test]
fn a_frame_to_a_sleeping_domain_rings_its_doorbell_and_none_is_lost() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    let rounds = 2000u64;
    let sender = std::thread::spawn(move || {
        let mut seen = Seen::default();
        for number in 0..rounds {
            wait("room", || post(&mut *near, &frame(number, 0), &[]).ok());
            // An answer now and then, so that the receiver sleeps at many different moments.
            if number % 3 == 0 {
                wait("an answer", || {
                    near.poll(&mut seen, 1).expect("sender");
                    seen.frames.pop()
                });
            }
        }
        near
    });
    let mut seen = Seen::default();
    while (seen.frames.len() as u64) < rounds {
        if far.poll(&mut seen, 8).expect("receiver") > 0 {
            if seen.frames.last().is_some_and(|(header, _)| header.tag % 3 == 0) {
                post(&mut *far, &frame(0, 0), &[]).expect("room");
            }
            continue;
        }
        if right.domain.arm() {
            let before = seen.frames.len();
            right.turn(common::DEADLINE, &mut []);
            right.domain.disarm();
            assert!(!right.events.is_empty(), "slept through with {before} frames");
        }
    }
    sender.join().expect("sender");
}

#[test]
fn room_for_a_sleeping_sender_rings_its_doorbell() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    let body = vec![1; 16 << 10];
    while post(&mut *near, &frame(0, 0), &body).is_ok() {}
    assert!(left.domain.arm());
    left.turn(Duration::ZERO, &mut []);
    assert!(left.events.is_empty());
    far.poll(&mut Seen::default(), 100).expect("receiver");
    left.turn(common::DEADLINE, &mut []);
    left.domain.disarm();
    assert!(near.poll(&mut Seen::default(), 1).expect("sender") > 0);
    post(&mut *near, &frame(0, 0), &body).expect("room");
}

#[test]
fn a_domain_does_not_sleep_over_releases_and_a_cold_lane_tells_of_them() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, _far) = pair(&mut left, &mut right);
    let body = [1; 100];
    let data = NonNull::new(body.as_ptr().cast_mut()).expect("not null");
    let mut owners = Vec::new();
    for cold in [false, true] {
        if cold {
            assert!(near.cool());
        }
        // SAFETY: `body` outlives the lane.
        unsafe { near.try_post_borrowed(&frame(1, 0), data, body.len(), Token(1)) }.expect("room");
        assert!(!left.domain.arm(), "there is a release to report");
        left.domain.poll_warm(&mut owners);
        assert_eq!(owners.pop(), cold.then_some(1));
        assert!(!near.cool(), "there is a release to report");
        let mut seen = Seen::default();
        assert_eq!(near.poll(&mut seen, 4).expect("alive"), 1);
        assert_eq!(seen.released, [Token(1)]);
        assert!(left.domain.arm());
        left.domain.disarm();
    }
}

#[test]
fn a_cold_lane_that_found_no_room_is_polled_again() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, _far) = pair(&mut left, &mut right);
    assert!(near.cool());
    while post(&mut *near, &frame(1, 0), &[]).is_ok() {}
    let mut owners = Vec::new();
    left.domain.poll_warm(&mut owners);
    assert_eq!(owners, [1]);
}

#[test]
fn a_sender_that_asked_for_an_acknowledgement_is_woken_by_it() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    post(&mut *near, &frame(1, 0), &[]).expect("room");
    near.request_acknowledgement();
    assert!(left.domain.arm());
    far.poll(&mut Seen::default(), 4).expect("receiver");
    left.turn(common::DEADLINE, &mut []);
    left.domain.disarm();
    assert!(!left.events.is_empty());
    assert_eq!(near.poll(&mut Seen::default(), 4).expect("sender"), 1);
    assert_eq!(near.unacknowledged(), 0);
}

#[test]
fn a_cooled_lane_is_told_about_by_poll_warm() {
    let scratch = Scratch::new();
    let (mut left, mut right) = engines(&scratch);
    let (mut near, mut far) = pair(&mut left, &mut right);
    let (mut other_near, mut other_far) = pair(&mut left, &mut right);
    let mut owners = Vec::new();
    assert!(far.cool() && other_far.cool());
    right.domain.poll_warm(&mut owners);
    assert!(owners.is_empty());
    post(&mut *other_near, &frame(5, 0), &[]).expect("room");
    right.domain.poll_warm(&mut owners);
    assert_eq!(owners, [2], "the second lane's owner");
    let mut seen = Seen::default();
    assert_eq!(other_far.poll(&mut seen, 8).expect("receiver"), 1);
    post(&mut *other_near, &frame(6, 0), &[]).expect("room");
    assert!(!other_far.cool(), "something is there");
    post(&mut *near, &frame(7, 0), &[]).expect("room");
    assert!(!right.domain.arm(), "something is there");
    owners.clear();
    right.domain.poll_warm(&mut owners);
    assert_eq!(owners, [1]);
    assert_eq!(far.poll(&mut seen, 8).expect("receiver"), 1);
}
