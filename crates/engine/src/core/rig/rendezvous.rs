//! Messages whose data is fetched: what a receive asks for, what it takes, what a sender answers, and what lies where it is.

use super::{Rig, Wire, envelope, words};
use crate::OpError;
use crate::core::Core;
use crate::core::op::{Memory, Op, RecvState};
use crate::core::rendezvous::Status;
use crate::core::table::Key;
use sinew_transport::{Body, Placement, Pull, Token};
use sinew_wire::frame::{Flags, Header, Kind};
use std::sync::Arc;

pub(super) fn rig() -> (Rig, Key, Wire) {
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    (rig, lane, wire)
}

/// Message 5 is announced; what the engine answers.
fn announced(rig: &Rig, lane: Key, wire: &Wire, numbers: &[u64]) -> Vec<(Header, Vec<u8>)> {
    wire.take();
    rig.comes(lane, wire, envelope(9), &words(numbers));
    rig.core(Core::progress);
    wire.take()
}

/// What was asked for: the receive, the first byte, how many.
fn asked(said: &[(Header, Vec<u8>)]) -> Option<[u64; 3]> {
    let (_, body) = said.iter().find(|(header, _)| header == &Header::control(Kind::FETCH, 5))?;
    Some([0, 8, 16].map(|at| u64::from_le_bytes(body[at..at + 8].try_into().unwrap())))
}

/// How message 5 was answered.
fn status(said: &[(Header, Vec<u8>)]) -> Option<u8> {
    said.iter().find(|(header, _)| header == &Header::control(Kind::DONE, 5)).map(|(_, body)| body[0])
}

const TAKEN: Option<u8> = Some(Status::Taken as u8);

fn is_over(rig: &Rig, key: Key) -> bool {
    rig.core(|core| core.is_over(key))
}

/// A part of the message comes; what the engine answers.
pub(super) fn part(rig: &Rig, lane: Key, wire: &Wire, header: Header, body: &[u8]) -> Vec<(Header, Vec<u8>)> {
    wire.take();
    rig.comes(lane, wire, header, body);
    rig.core(Core::progress);
    wire.take()
}

#[test]
fn a_receive_asks_for_what_has_room_and_does_not_come_unasked() {
    for (room, numbers, from, len) in [
        (2000, &[5, 1000][..], 0, 1000),
        (400, &[5, 1000], 0, 400),
        (2000, &[5, 1000, 300], 300, 700),
        (400, &[5, 1000, 300], 300, 100),
        // What is pushed comes in pieces that are taken whole.
        (200, &[5, 1000, 300], 0, 200),
        (2000, &[5, 1000, 1001], 0, 1000),
    ] {
        let (rig, lane, wire) = rig();
        let key = rig.post(9, room);
        let said = announced(&rig, lane, &wire, numbers);
        assert_eq!(asked(&said), Some([key.0, from, len]), "{room} {numbers:?}");
        assert_eq!(said.len(), 1);
    }
    // All of it comes unasked.
    let (rig, lane, wire) = rig();
    let key = rig.post(9, 1000);
    assert!(announced(&rig, lane, &wire, &[5, 1000, 1000]).is_empty());
    assert!(!is_over(&rig, key) && !rig.is_posted(key));
    // Of one that a lane will forget, nothing that comes unasked would arrive.
    let (rig, lane, wire) = self::rig();
    let key = rig.post(9, 1000);
    rig.core(|core| core.revoked.push((Key(77 << 32), Token(key.0))));
    assert_eq!(asked(&announced(&rig, lane, &wire, &[5, 1000, 300])), Some([key.0, 0, 1000]));
}

#[test]
fn a_message_without_bytes_or_a_receive_without_room_is_over_at_once() {
    let (rig, lane, wire) = rig();
    let key = rig.post(9, 100);
    assert_eq!(status(&announced(&rig, lane, &wire, &[5, 0])), TAKEN);
    assert_eq!(rig.got(key), Some(Vec::new()));
    let key = rig.post(9, 0);
    assert_eq!(status(&announced(&rig, lane, &wire, &[5, 1000])), TAKEN);
    let (result, _) = rig.core(|core| core.collect_recv(key)).expect("it is over");
    assert!(matches!(result, Err(OpError::Truncated { message_len: 1000, buffer_len: 0, .. })));
}

#[test]
fn each_byte_of_a_message_is_taken_once_and_none_beyond() {
    let (rig, lane, wire) = rig();
    let key = rig.post(9, 1000);
    announced(&rig, lane, &wire, &[5, 1000]);
    let data = |at: u64, body: &[u8]| part(&rig, lane, &wire, Header::data(key.0, at), body);
    assert!(data(400, &[4; 601]).is_empty(), "beyond the end");
    assert!(data(400, &[3; 600]).is_empty());
    assert!(data(700, &[9; 100]).is_empty(), "again");
    assert!(data(0, &[]).is_empty(), "nothing");
    assert!(data(300, &[9; 101]).is_empty(), "again in part");
    assert!(part(&rig, lane, &wire, Header::push(5, 0), &[9; 100]).is_empty(), "not announced so");
    rig.core(|core| core.handle_data(Key(77 << 32), &Header::data(key.0, 0), Body::from_slice(&[9; 100])))
        .unwrap();
    assert!(!is_over(&rig, key));
    assert!(data(0, &[1; 100]).is_empty());
    assert!(data(0, &[9; 100]).is_empty(), "again");
    assert!(!is_over(&rig, key));
    assert_eq!(status(&data(100, &[1; 300])), TAKEN);
    assert_eq!(rig.got(key), Some([vec![1; 400], vec![3; 600]].concat()));
    assert!(data(0, &[9; 400]).is_empty(), "it is over");
    assert_eq!(rig.got(key), Some([vec![1; 400], vec![3; 600]].concat()));
}

#[test]
fn what_is_longer_than_its_receive_is_cut_there() {
    for (room, whole) in [(999, false), (1000, true)] {
        let (rig, lane, wire) = rig();
        let key = rig.post(9, room);
        announced(&rig, lane, &wire, &[5, 1000]);
        assert_eq!(status(&part(&rig, lane, &wire, Header::data(key.0, 0), &vec![1; room])), TAKEN);
        let (result, _) = rig.core(|core| core.collect_recv(key)).expect("it is over");
        assert_eq!(result.is_ok(), whole);
    }
}

#[test]
fn what_comes_unasked_is_of_the_beginning_and_the_rest_is_not() {
    let (rig, lane, wire) = rig();
    let key = rig.post(9, 1000);
    announced(&rig, lane, &wire, &[5, 1000, 300]);
    part(&rig, lane, &wire, Header::data(key.0, 0), &[9; 300]);
    part(&rig, lane, &wire, Header::push(5, 300), &[9; 700]);
    part(&rig, lane, &wire, Header::push(6, 0), &[9; 300]);
    assert!(!is_over(&rig, key));
    part(&rig, lane, &wire, Header::push(5, 0), &[1; 300]);
    assert_eq!(status(&part(&rig, lane, &wire, Header::data(key.0, 300), &[2; 700])), TAKEN);
    assert_eq!(rig.got(key), Some([vec![1; 300], vec![2; 700]].concat()));
}

#[test]
fn a_part_that_is_placed_counts_as_a_frame() {
    let (rig, lane, wire) = rig();
    let key = rig.post(9, 1000);
    announced(&rig, lane, &wire, &[5, 1000]);
    let counted = || {
        rig.core(|core| {
            let session = core.sessions.get(rig.session).unwrap();
            (session.received, session.traffic)
        })
    };
    let before = counted();
    for (at, len, placed) in [(0, 1001, false), (0, 1000, true)] {
        let header = Header::data(key.0, at);
        let placement = rig.core(|core| core.place_data(rig.session, &header, len));
        match placement {
            Placement::Into { target, token } => {
                assert!(placed && token == Token(key.0));
                assert_eq!(
                    rig.core(|core| core.ops.get(key).map(|op| match op {
                        Op::Recv(op) => op.memory.data(),
                        Op::Send(_) => panic!("a receive"),
                    })),
                    Some(target)
                );
                rig.writes(key, &[3; 1000]);
            }
            Placement::Discard => assert!(!placed),
        }
        rig.core(|core| core.handle_placed(rig.session, &header, len));
        assert_eq!(is_over(&rig, key), placed);
    }
    assert_eq!(counted(), (before.0 + 2, before.1 + 2));
    assert_eq!(rig.got(key), Some(vec![3; 1000]));
}

/// A lane that the peer has left may be in the middle of a part that has come by another.
#[test]
fn all_lanes_of_a_session_forget_a_receive_that_is_whole_if_there_are_several() {
    for several in [false, true] {
        let (rig, lane, wire) = rig();
        let second = several.then(|| rig.lane("two", 4096).1);
        let key = rig.post(9, 1000);
        announced(&rig, lane, &wire, &[5, 1000]);
        part(&rig, lane, &wire, Header::data(key.0, 0), &[1; 1000]);
        assert!(is_over(&rig, key));
        assert_eq!(wire.state().revoked.contains(&Token(key.0)), several);
        if let Some(second) = second {
            assert!(second.state().revoked.contains(&Token(key.0)));
        }
    }
}

fn described(rig: &Rig, lane: Key, wire: &Wire, len: u64) -> Vec<(Header, Vec<u8>)> {
    let header = Header { flags: Flags::DESCRIPTOR, ..envelope(9) };
    part(rig, lane, wire, header, &[words(&[5, len]), vec![1; 24]].concat())
}

#[test]
fn described_memory_is_pulled_at_once_later_or_not_at_all() {
    for (pulls, ends) in [
        (Some(Pull::Done), None),
        (Some(Pull::Pending), Some(true)),
        (Some(Pull::Pending), Some(false)),
        (Some(Pull::Declined), None),
        (None, None),
    ] {
        let (rig, lane, wire) = rig();
        let key = rig.post(9, 1000);
        wire.state().pulls = pulls.clone();
        let mut said = described(&rig, lane, &wire, 1000);
        assert_eq!(wire.state().pulled, [(Token(key.0), 1000)]);
        if let Some(well) = ends {
            assert!(said.is_empty() && !is_over(&rig, key));
            // What comes another way meanwhile is a forgery.
            part(&rig, lane, &wire, Header::data(key.0, 0), &[9; 1000]);
            assert!(!is_over(&rig, key));
            wire.state().pull_ends.push((Token(key.0), well));
            rig.core(|core| core.poll_lane(lane, 64));
            rig.core(Core::progress);
            said = wire.take();
        }
        if pulls == Some(Pull::Done) || ends == Some(true) {
            assert_eq!(status(&said), TAKEN, "{pulls:?} {ends:?}");
            assert_eq!(rig.got(key), Some(vec![7; 1000]));
        } else {
            assert_eq!(asked(&said), Some([key.0, 0, 1000]), "{pulls:?} {ends:?}");
            assert!(!is_over(&rig, key));
            // It is asked for: the end of a pull says nothing any more.
            wire.state().pull_ends.push((Token(key.0), true));
            rig.core(|core| core.poll_lane(lane, 64));
            assert!(!is_over(&rig, key));
            assert_eq!(status(&part(&rig, lane, &wire, Header::data(key.0, 0), &[1; 1000])), TAKEN);
        }
    }
}

#[test]
fn what_a_lost_lane_was_pulling_is_asked_for() {
    let (rig, one, first) = rig();
    let (two, second) = rig.lane("two", 4096);
    first.state().pulls = Some(Pull::Pending);
    let pulled = rig.post(9, 1000);
    described(&rig, one, &first, 1000);
    let fetched = rig.post(9, 1000);
    rig.comes(one, &first, envelope(9), &words(&[6, 1000]));
    rig.core(|core| {
        core.pulls_lost(two);
        assert!(core.pulls.is_empty());
        core.pulls_lost(one);
        core.pulls_lost(one);
        assert_eq!(core.pulls, [pulled], "once, and no other than {fetched:?}");
        core.pulls.clear();
    });
    first.state().over = Some(sinew_transport::ErrorKind::Broken);
    rig.core(|core| core.poll_lane(one, 64));
    rig.resumes(two, &second, 1, 0);
    rig.core(Core::progress);
    assert_eq!(asked(&second.take()), Some([pulled.0, 0, 1000]));
}

#[test]
fn a_message_is_shown_where_it_lies_if_it_is_all_wanted_and_as_long_as_it_says() {
    let shown = |len_max: usize, len: u64, lies: usize| {
        let (rig, lane, wire) = rig();
        wire.state().views = Some(Arc::new(vec![8; lies]));
        wire.state().pulls = Some(Pull::Done);
        let key = rig.post_into(9, Memory::Later { len_max });
        let said = described(&rig, lane, &wire, len);
        assert!(is_over(&rig, key));
        let (_, memory) = rig.core(|core| core.collect_recv(key)).expect("it is over");
        let Memory::Viewed { view, loan } = memory else {
            assert_eq!(status(&said), TAKEN);
            return false;
        };
        assert_eq!((view.body().to_vec(), loan.sender_op), (vec![8; lies], 5));
        assert!(said.is_empty(), "the sender's memory is not given back yet");
        rig.core(|core| core.return_loan(loan));
        rig.core(Core::progress);
        assert_eq!(status(&wire.take()), TAKEN);
        true
    };
    assert!(shown(2000, 1000, 1000) && shown(1000, 1000, 1000));
    assert!(!shown(999, 1000, 1000), "it is longer than wanted");
    assert!(!shown(2000, 1000, 999) && !shown(2000, 1000, 1001), "it is not what was announced");
    // A receive with memory of its own has it there.
    let (rig, lane, wire) = rig();
    wire.state().views = Some(Arc::new(vec![8; 1000]));
    wire.state().pulls = Some(Pull::Done);
    let key = rig.post(9, 1000);
    described(&rig, lane, &wire, 1000);
    assert_eq!(rig.got(key), Some(vec![7; 1000]));
}

#[test]
fn a_receive_that_is_given_up_is_pulled_for_no_more_and_others_are() {
    let (rig, ..) = rig();
    rig.core(|core| {
        core.pulls = vec![Key(1), Key(2)];
        core.revoke_everywhere(rig.session, Key(1));
        assert_eq!(core.pulls, [Key(2)]);
        core.pulls.clear();
    });
}

#[test]
fn an_announced_message_that_a_receive_gives_up_waits_for_another_and_costs_nothing_twice() {
    let (rig, lane, wire) = rig();
    let credit = || {
        rig.core(|core| {
            let windows = core.config.windows;
            let endpoint = core.endpoint(1).unwrap();
            endpoint.inflow(rig.session, &windows).envelopes.announce()
        })
    };
    // Another one holds its credit.
    rig.comes(lane, &wire, envelope(8), &words(&[4, 1000]));
    let key = rig.post(9, 1000);
    announced(&rig, lane, &wire, &[5, 1000]);
    let before = credit();
    rig.core(|core| core.cancel_recv(key));
    let next = rig.post(9, 1000);
    rig.core(Core::progress);
    assert_eq!(asked(&wire.take()), Some([next.0, 0, 1000]));
    assert_eq!(credit(), before);
    // One that waits has it at once.
    let third = rig.post(9, 1000);
    rig.core(|core| core.cancel_recv(next));
    rig.core(Core::progress);
    assert_eq!(asked(&wire.take()), Some([third.0, 0, 1000]));
    // Of a session that is over nothing can be fetched.
    rig.core(|core| {
        let Some(Op::Recv(op)) = core.ops.get(third) else { panic!("it is there") };
        let RecvState::Fetching(fetch) = &op.state else { panic!("it fetches") };
        let (envelope, arrival) = (fetch.envelope, fetch.arrival);
        core.lose_session(rig.session, "a test");
        core.put_back(1, envelope, arrival, None);
        assert!(!core.endpoint(1).unwrap().matcher.has_unexpected());
    });
}
