//! Messages that their senders take back while they are fetched: their receives wait again, in their old places and with their own memory.

use super::{Rig, Wire, Woken, eager, envelope, words};
use crate::completion::Match;
use crate::core::op::{Memory, Op, RecvState};
use crate::core::stripes::stripe_token;
use crate::core::table::Key;
use sinew_transport::Token;
use sinew_wire::frame::{Header, Kind};
use std::sync::Arc;
use std::task::Waker;

fn rig() -> (Rig, Key, Wire) {
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    (rig, lane, wire)
}

fn withdraw(number: u64) -> Header {
    Header::control(Kind::WITHDRAW, number)
}

/// A message of 1000 bytes is announced: the oldest receive fetches it.
fn announced(rig: &Rig, lane: Key, wire: &Wire, number: u64) {
    rig.comes(lane, wire, envelope(9), &words(&[number, 1000]));
}

fn fetches(rig: &Rig, key: Key) -> bool {
    rig.core(
        |core| matches!(core.ops.get(key), Some(Op::Recv(op)) if matches!(op.state, RecvState::Fetching(_))),
    )
}

/// Where a receive's memory is, and how long.
fn memory(rig: &Rig, key: Key) -> (usize, usize) {
    rig.core(|core| match core.ops.get(key) {
        Some(Op::Recv(op)) => (op.memory.data().addr().get(), op.memory.len()),
        _ => panic!("it is there"),
    })
}

#[test]
fn a_receive_whose_message_is_taken_back_has_its_old_place() {
    let (rig, lane, wire) = rig();
    let (first, mine) = (rig.post(1, 1000), rig.post(Match::any_tag(), 1000));
    let last = rig.post(Match::any_tag(), 1000);
    announced(&rig, lane, &wire, 5);
    assert!(fetches(&rig, mine));
    rig.comes(lane, &wire, withdraw(5), &[]);
    assert!([first, mine, last].iter().all(|&key| rig.is_posted(key)));
    rig.comes(lane, &wire, eager(1), b"older ones first");
    assert_eq!(rig.got(first), Some(b"older ones first".to_vec()));
    rig.comes(lane, &wire, eager(9), b"then mine");
    assert_eq!(rig.got(mine), Some(b"then mine".to_vec()));
    assert!(rig.is_posted(last));
}

#[test]
fn a_receive_gets_what_has_come_for_it_meanwhile() {
    let (rig, lane, wire) = rig();
    let mine = rig.post(9, 1000);
    announced(&rig, lane, &wire, 5);
    rig.comes(lane, &wire, eager(9), b"came behind");
    assert!(fetches(&rig, mine));
    let woken = rig.core(|core| {
        core.effects = crate::core::Effects::default();
        core.unmatch(rig.session, 5, mine);
        core.effects.any()
    });
    assert!(woken, "a call that only tries looks again");
    assert_eq!(rig.got(mine), Some(b"came behind".to_vec()));
}

#[test]
fn only_the_message_that_a_receive_fetches_is_taken_from_it() {
    let (rig, lane, wire) = rig();
    let mine = rig.post(9, 1000);
    announced(&rig, lane, &wire, 5);
    rig.core(|core| core.unmatch(Key(77 << 32), 5, mine));
    rig.core(|core| core.unmatch(rig.session, 6, mine));
    assert!(fetches(&rig, mine));
    rig.core(|core| core.unmatch(rig.session, 5, mine));
    assert!(rig.is_posted(mine));
}

#[test]
fn its_memory_is_set_aside_while_a_lane_may_write_there() {
    let (rig, lane, wire) = rig();
    let (mine, other) = (rig.post(9, 1000), rig.post(8, 10));
    let before = memory(&rig, mine);
    announced(&rig, lane, &wire, 5);
    rig.core(|core| {
        // As while it is polled.
        let mut polled = core.lanes.get_mut(lane).unwrap().lane.take().unwrap();
        core.unmatch(rig.session, 5, mine);
        assert_eq!(core.set_aside.len(), 1);
        assert_eq!(core.set_aside[0].1.data().addr().get(), before.0);
        assert!(core.is_set_aside(mine) && !core.is_set_aside(other));
        assert!(core.is_revoked_later(mine) && !core.is_revoked_later(other));
        core.forget_revoked(lane, polled.as_mut());
        assert!(core.set_aside.is_empty() && !core.is_revoked_later(mine) && !core.is_set_aside(mine));
        core.lanes.get_mut(lane).unwrap().lane = Some(polled);
    });
    assert_eq!(wire.state().revoked, [Token(mine.0), stripe_token(mine)]);
    assert_eq!(memory(&rig, mine), before);
    // Where none is being polled each forgets it at once.
    announced(&rig, lane, &wire, 6);
    rig.core(|core| {
        core.unmatch(rig.session, 6, mine);
        assert!(core.set_aside.is_empty());
    });
    assert_eq!(wire.state().revoked.len(), 4);
    assert_eq!(memory(&rig, mine), before);
}

#[test]
fn what_comes_while_its_memory_is_set_aside_is_in_it_afterwards() {
    let (rig, lane, wire) = rig();
    let mine = rig.post(9, 1000);
    let before = memory(&rig, mine);
    announced(&rig, lane, &wire, 5);
    wire.state().arriving.push_back((withdraw(5), Vec::new()));
    rig.comes(lane, &wire, eager(9), b"in the same poll");
    assert_eq!(rig.got(mine), Some(b"in the same poll".to_vec()));
    assert_eq!(memory(&rig, mine), before);
}

#[test]
fn memory_stays_aside_until_every_lane_has_forgotten_it() {
    let (rig, lane, _wire) = rig();
    let mine = rig.post(9, 1000);
    rig.core(|core| {
        let Some(Op::Recv(op)) = core.ops.get_mut(mine) else { panic!("it is there") };
        let own = std::mem::replace(&mut op.memory, Memory::Later { len_max: 1000 });
        core.set_aside.push((mine, own));
        core.revoked.push((lane, Token(mine.0)));
        core.take_up_set_aside();
        assert!(core.is_set_aside(mine));
        core.revoked.clear();
        core.take_up_set_aside();
        assert!(!core.is_set_aside(mine));
    });
    assert_eq!(memory(&rig, mine).1, 1000);
}

/// Whoever waits for it hears of its end when the memory is there, and of nothing but the end.
#[test]
fn the_end_of_a_receive_is_told_when_its_memory_is_back() {
    let (rig, ..) = rig();
    let woken = Arc::new(Woken::default());
    let mine = rig.post(9, 1000);
    rig.core(|core| core.set_waker(mine, &Waker::from(Arc::clone(&woken))));
    let aside = || {
        rig.core(|core| {
            let Some(Op::Recv(op)) = core.ops.get_mut(mine) else { panic!("it is there") };
            let own = std::mem::replace(&mut op.memory, Memory::Later { len_max: 1000 });
            core.set_aside.push((mine, own));
        });
    };
    aside();
    rig.core(|core| core.take_up_set_aside());
    assert_eq!(woken.times(), 0, "it has not ended");
    aside();
    rig.core(|core| core.finish_recv(mine, Err(crate::OpError::Cancelled)));
    assert_eq!(woken.times(), 0, "not yet");
    rig.core(|core| core.take_up_set_aside());
    assert_eq!(woken.times(), 1);
}

/// What was made for one message is too short for the next.
#[test]
fn a_receive_that_left_its_memory_to_later_does_so_again() {
    for polled in [false, true] {
        let (rig, lane, wire) = rig();
        let mine = rig.post_into(9, Memory::Later { len_max: 5000 });
        announced(&rig, lane, &wire, 5);
        assert_eq!(memory(&rig, mine).1, 1000);
        if polled {
            rig.comes(lane, &wire, withdraw(5), &[]);
        } else {
            rig.core(|core| core.unmatch(rig.session, 5, mine));
        }
        rig.core(|core| {
            assert!(core.set_aside.is_empty());
            let Some(Op::Recv(op)) = core.ops.get(mine) else { panic!("it is there") };
            assert!(matches!(op.memory, Memory::Later { len_max: 5000 }), "{:?}", op.memory);
        });
        rig.comes(lane, &wire, eager(9), &[7; 3000]);
        assert_eq!(rig.got(mine), Some(vec![7; 3000]));
    }
}
