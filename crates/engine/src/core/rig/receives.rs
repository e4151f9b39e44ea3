//! Messages for receives: those that go into their memory while they arrive, and those for calls that wait.

use super::{Rig, Wire, eager, envelope, words};
use crate::OpError;
use crate::batch::Receive;
use crate::completion::Match;
use crate::core::op::{Memory, Op};
use crate::core::table::Key;
use crate::core::{Core, Taken, Until};
use sinew_transport::Token;
use sinew_wire::frame::{Flags, Header, Kind};

/// A message of `len` bytes begins to arrive: the receive into whose memory it goes.
fn begins(rig: &Rig, lane: Key, header: Header, len: usize) -> Option<Key> {
    let (target, token) = rig.core(|core| core.place_message(rig.session, lane, &header, len))?;
    let key = Key(token.0);
    rig.core(|core| {
        let Some(Op::Recv(op)) = core.ops.get(key) else { panic!("it is there") };
        assert_eq!(op.memory.data(), target);
        assert_eq!(core.lanes.get(lane).unwrap().arriving, Some(key));
    });
    Some(key)
}

/// All of it has come.
fn ends(rig: &Rig, lane: Key, header: Header, len: usize) -> Result<(), &'static str> {
    rig.core(|core| core.message_placed(rig.session, lane, &header, len))
}

fn arriving(rig: &Rig, lane: Key) -> Option<Key> {
    rig.core(|core| core.lanes.get(lane).unwrap().arriving)
}

fn has_unexpected(rig: &Rig) -> bool {
    rig.core(|core| core.endpoint(1).unwrap().matcher.has_unexpected())
}

#[test]
fn a_message_goes_into_its_receive_while_it_arrives_if_that_has_room() {
    let (rig, lane, _wire) = Rig::hot();
    let ops = || rig.core(|core| core.ops.len());
    assert_eq!(begins(&rig, lane, eager(9), 10), None, "nobody waits");
    assert_eq!((ops(), arriving(&rig, lane)), (0, None));
    let key = rig.post(9, 10);
    assert_eq!(begins(&rig, lane, eager(9), 11), None, "it is too long");
    assert!(rig.is_posted(key));
    let immediate = Header { flags: Flags::IMMEDIATE, ..eager(9) };
    assert_eq!(begins(&rig, lane, immediate, 10), None);
    assert!(rig.is_posted(key));
    assert_eq!(begins(&rig, lane, eager(9), 10), Some(key), "it just fits");
    let second = rig.post(9, 10);
    assert_eq!(begins(&rig, lane, eager(9), 10), None, "one of a lane at a time");
    rig.writes(key, b"ten bytes!");
    let received = || rig.core(|core| core.sessions.get(rig.session).unwrap().received);
    let before = received();
    ends(&rig, lane, eager(9), 10).unwrap();
    assert_eq!(received(), before + 1);
    assert_eq!(rig.got(key), Some(b"ten bytes!".to_vec()));
    assert_eq!(begins(&rig, lane, eager(9), 4), Some(second));
}

#[test]
fn a_receive_without_memory_or_with_a_handler_gets_its_message_whole() {
    let (rig, lane, _wire) = Rig::hot();
    let later = rig.post_into(1, Memory::Later { len_max: 100 });
    assert_eq!(begins(&rig, lane, eager(1), 10), None);
    assert!(rig.is_posted(later));
    rig.core(|core| {
        let memory = Memory::Owned(vec![0; 100].into());
        core.start_recv(1, 2.into(), memory, Some(Key(77 << 32)));
    });
    assert_eq!(begins(&rig, lane, eager(2), 10), None);
    // A lane that is just being polled will forget it when that is over.
    let revoked = rig.post(3, 100);
    rig.core(|core| core.revoked.push((lane, Token(revoked.0))));
    assert_eq!(begins(&rig, lane, eager(3), 10), None);
    assert!(rig.is_posted(revoked));
    rig.core(|core| core.revoked.clear());
    assert_eq!(begins(&rig, lane, eager(3), 10), Some(revoked));
}

#[test]
fn a_message_that_is_placed_costs_as_if_it_had_come_whole() {
    let (rig, lane, _wire) = Rig::hot();
    let window = rig.core(|core| core.config.windows.endpoint_bytes);
    let most = (window - 64) as usize;
    for (len, well) in [(most, true), (most + 1, false)] {
        let (rig, lane, _wire) = Rig::hot();
        let key = rig.post(9, len);
        assert_eq!(begins(&rig, lane, eager(9), len), Some(key));
        assert_eq!(ends(&rig, lane, eager(9), len).is_ok(), well, "{len}");
    }
    let reserve = Header { flags: Flags::RESERVE, ..eager(9) };
    rig.post(9, 5000);
    begins(&rig, lane, reserve, 5000).expect("it has room");
    assert!(ends(&rig, lane, reserve, 5000).is_err(), "more than its reserve");
}

/// What had come, and what comes behind, is in memory of the engine's own, and whole it is for another.
#[test]
fn a_receive_that_is_given_up_in_the_middle_leaves_its_message_to_another() {
    let (rig, lane, wire) = Rig::hot();
    let key = rig.post(9, 64);
    begins(&rig, lane, eager(9), 5).expect("it has room");
    let (result, memory) = rig.core(|core| core.cancel_recv(key)).expect("it was there");
    assert!(matches!(result, Err(OpError::Cancelled)) && memory.len() == 64);
    let aside = arriving(&rig, lane).expect("it goes on");
    assert_ne!(aside, key);
    assert_eq!(wire.state().redirected, [(Token(key.0), Token(aside.0))]);
    rig.writes(aside, b"whole");
    let next = rig.post(9, 64);
    ends(&rig, lane, eager(9), 5).unwrap();
    assert_eq!(rig.got(next), Some(b"whole".to_vec()));
    assert_eq!(rig.core(|core| core.ops.len()), 1, "what stood in is gone");
    assert_eq!(arriving(&rig, lane), None);
}

#[test]
fn a_receive_whose_lane_is_lost_in_the_middle_waits_again() {
    let (rig, lane, wire) = Rig::hot();
    let (first, second) = (rig.post(9, 64), rig.post(9, 64));
    begins(&rig, lane, eager(9), 5).expect("it has room");
    let woken = rig.core(|core| {
        core.effects = crate::core::Effects::default();
        core.remove_lane(lane);
        core.effects.any()
    });
    assert!(woken, "a call that only tries looks again");
    assert_eq!(wire.state().revoked, [Token(first.0)]);
    assert!(rig.is_posted(first) && rig.is_posted(second));
    // The sender sends it again, elsewhere: it is for the same one.
    let (two, _second) = rig.lane("two", 4096);
    assert_eq!(begins(&rig, two, eager(9), 5), Some(first));
}

#[test]
fn what_stood_in_for_a_receive_ends_with_the_lane() {
    let (rig, lane, wire) = Rig::hot();
    let key = rig.post(9, 64);
    begins(&rig, lane, eager(9), 5).expect("it has room");
    rig.core(|core| core.cancel_recv(key));
    let aside = arriving(&rig, lane).expect("it goes on");
    rig.core(|core| core.remove_lane(lane));
    assert_eq!(wire.state().revoked, [Token(aside.0)]);
    assert_eq!(rig.core(|core| core.ops.len()), 0);
    assert!(!has_unexpected(&rig));
}

/// What a turn of a call that waits has brought.
fn waits(rig: &Rig, wire: &Wire, header: Header, body: &[u8]) -> &'static str {
    wire.state().arriving.push_back((header, body.to_vec()));
    rig.in_turn(Match::tag(9), &mut [0; 64], |taken| match taken {
        Some(Taken::Done(info)) if info.len == body.len() => "done",
        Some(Taken::Pending(key)) if rig.core(|core| core.is_over(key)) => "over",
        Some(Taken::Pending(_)) => "begun",
        Some(Taken::Failed(_)) => "too long",
        None => "nothing",
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_call_that_waits_gets_its_message_however_it_comes() {
    let (rig, _lane, wire) = Rig::hot();
    assert_eq!(waits(&rig, &wire, eager(9), b"whole"), "done");
    assert_eq!(waits(&rig, &wire, eager(8), b"of another"), "nothing");
    assert_eq!(waits(&rig, &wire, envelope(8), &words(&[4, 1000])), "nothing");
    assert_eq!(waits(&rig, &wire, envelope(9), &words(&[5, 1000])), "begun");
    rig.core(Core::progress);
    assert_eq!(wire.of(Kind::FETCH).iter().map(|header| header.tag).collect::<Vec<_>>(), [5]);
    let (rig, _lane, wire) = Rig::hot();
    wire.state().places = true;
    assert_eq!(waits(&rig, &wire, eager(9), b"placed"), "over");
    assert_eq!(waits(&rig, &wire, eager(8), b"of another"), "nothing");
    assert_eq!(waits(&rig, &wire, eager(9), &[1; 65]), "too long");
}

#[test]
fn a_batch_gets_its_messages_while_it_polls() {
    let (rig, _lane, wire) = Rig::hot();
    for tag in [2, 1] {
        wire.state().arriving.push_back((eager(tag), vec![tag as u8; tag as usize]));
    }
    let (mut one, mut two) = ([0; 8], [0; 8]);
    let mut receives = [Receive::new(1, &mut one), Receive::new(2, &mut two)];
    rig.core(|core| core.recv_batch_direct(1, &mut receives, Until::All, || false));
    assert_eq!(receives.each_ref().map(Receive::data), [&[1][..], &[2, 2]]);
    assert_eq!(rig.core(|core| core.counters.unexpected), 0);
}
