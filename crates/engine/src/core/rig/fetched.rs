//! Messages that a receiver fetches from this engine: what goes, what is answered when it cannot, and how they end.

use super::rendezvous::{part, rig};
use super::{Rig, eager, numbered_bytes, words};
use crate::OpError;
use crate::core::Core;
use crate::core::op::{Memory, Op, SendOp, SendState};
use crate::core::session::Push;
use crate::core::table::Key;
use sinew_transport::Token;
use sinew_wire::frame::{Header, Kind};

/// A send of `len` bytes that stands where `change` says.
fn sends(rig: &Rig, len: usize, change: impl FnOnce(&mut SendOp)) -> Key {
    rig.core(|core| {
        let flow = core.sessions.get_mut(rig.session).unwrap().flow_to(5);
        let bytes = numbered_bytes(len);
        let mut op = SendOp::new((rig.session, flow), eager(9), None, Memory::Owned(bytes.into()));
        op.state = SendState::Announced;
        change(&mut op);
        core.ops.insert(Op::Send(op))
    })
}

fn fetch(key: Key) -> Header {
    Header::control(Kind::FETCH, key.0)
}

fn is_up(rig: &Rig) -> bool {
    rig.core(|core| core.sessions.get(rig.session).is_some_and(|session| session.is_up()))
}

#[test]
fn what_is_fetched_goes_in_parts_up_to_its_end() {
    let (rig, lane, wire) = rig();
    let key = sends(&rig, 10_000, |_| ());
    let sent = || rig.core(|core| core.sessions.get(rig.session).unwrap().sent);
    let before = sent();
    let parts: Vec<(u64, u64, usize)> = part(&rig, lane, &wire, fetch(key), &words(&[77, 1000, 9000]))
        .iter()
        .map(|(header, body)| {
            assert_eq!(header.kind, Kind::DATA);
            assert!(
                body.iter()
                    .enumerate()
                    .all(|(at, &byte)| byte == ((header.offset() as usize + at) / 1000) as u8)
            );
            (header.tag, header.offset(), body.len())
        })
        .collect();
    assert_eq!(parts, [(77, 1000, 4096), (77, 5096, 4096), (77, 9192, 808)]);
    assert_eq!(sent(), before + 3);
    let stands = || {
        rig.core(|core| match core.ops.get(key) {
            Some(Op::Send(op)) => (op.references, matches!(op.state, SendState::Posted)),
            _ => panic!("it is there"),
        })
    };
    assert_eq!(stands(), (3, true));
    // It may be fetched again, as when the receive has gone to another.
    let again = part(&rig, lane, &wire, fetch(key), &words(&[78, 2000, 500]));
    assert_eq!(again, [(Header::data(78, 2000), vec![2; 500])]);
    assert_eq!(stands(), (4, true));
    assert!(is_up(&rig));
}

#[test]
fn a_fetch_that_comes_while_one_is_answered_takes_its_place() {
    let (rig, lane, wire) = rig();
    let key = sends(&rig, 10_000, |_| ());
    wire.state().full = true;
    rig.comes(lane, &wire, fetch(key), &words(&[77, 0, 10_000]));
    rig.comes(lane, &wire, fetch(key), &words(&[78, 8000, 2000]));
    wire.state().full = false;
    rig.core(Core::progress);
    let parts: Vec<(u64, u64)> =
        wire.take().iter().map(|(header, _)| (header.tag, header.offset())).collect();
    assert_eq!(parts, [(78, 8000)]);
    assert!(rig.core(|core| core.sessions.get(rig.session).unwrap().transfers.is_empty()));
}

#[test]
fn a_fetch_of_what_is_not_there_is_answered_and_of_what_cannot_be_ends_the_session() {
    let (rig, lane, wire) = rig();
    let gone = fetch(Key(4711 << 32));
    let said = part(&rig, lane, &wire, gone, &words(&[77, 0, 10]));
    assert_eq!(said, [(Header::control(Kind::WITHDRAW, gone.tag), Vec::new())]);
    // One that is over, or has not been announced: nothing.
    for state in [SendState::Queued, SendState::Releasing(Ok(()))] {
        let key = sends(&rig, 10, |op| (op.state, op.references) = (state, 1));
        assert!(part(&rig, lane, &wire, fetch(key), &words(&[77, 0, 10])).is_empty());
    }
    assert!(is_up(&rig));
    let whole = words(&[77, 0, 10]);
    type Change = fn(&mut SendOp);
    let cases: [(Change, Vec<u8>, bool); 6] = [
        (|_| (), whole.clone(), true),
        (|_| (), whole[..23].to_vec(), false),
        (|_| (), words(&[77, 1, 10]), false),
        (|_| (), words(&[77, u64::MAX, 10]), false),
        (|op| op.session = Key(77 << 32), whole.clone(), false),
        (|op| op.header.kind = Kind::LOOKUP, whole, false),
    ];
    for (at, (change, body, well)) in cases.into_iter().enumerate() {
        let (rig, lane, wire) = self::rig();
        let key = sends(&rig, 10, change);
        rig.comes(lane, &wire, fetch(key), &body);
        assert_eq!(is_up(&rig), well, "{at}");
    }
}

#[test]
fn a_receiver_that_asks_for_what_was_pushed_was_not_waiting() {
    for (from, shy) in [(299, true), (300, false)] {
        let (rig, lane, wire) = rig();
        let key = sends(&rig, 1000, |op| op.pushed = 300);
        rig.core(|core| {
            let session = core.sessions.get_mut(rig.session).unwrap();
            session.pushed = 500;
            session.to_push = Some(Push { op: key, next: 300, end: 300 });
        });
        part(&rig, lane, &wire, fetch(key), &words(&[77, from, 1000 - from]));
        let session = |look: fn(&crate::core::Session) -> u64| {
            rig.core(|core| look(core.sessions.get(rig.session).unwrap()))
        };
        assert_eq!(session(|session| session.pushed), 200);
        assert_eq!(session(|session| u64::from(session.flows[0].shy)) > 0, shy, "{from}");
    }
}

#[test]
fn the_word_of_a_receiver_ends_a_send_that_is_out_and_no_other() {
    let (rig, lane, wire) = rig();
    let done = |key: Key, status: u8| {
        part(&rig, lane, &wire, Header::control(Kind::DONE, key.0), &[status, 0, 0, 0])
    };
    let result = |key: Key| rig.core(|core| core.collect_send(key)).map(|(result, _)| result);
    for state in [SendState::Announced, SendState::Posted] {
        let key = sends(&rig, 10, |op| op.state = state);
        done(key, 0);
        assert!(matches!(result(key), Some(Ok(()))));
    }
    let key = sends(&rig, 10, |_| ());
    done(key, 1);
    assert!(matches!(result(key), Some(Err(OpError::EndpointClosed))));
    let queued = sends(&rig, 10, |op| op.state = SendState::Queued);
    let other = sends(&rig, 10, |op| op.session = Key(77 << 32));
    done(queued, 0);
    done(other, 0);
    assert!(result(queued).is_none() && result(other).is_none());
    assert!(is_up(&rig));
    rig.comes(lane, &wire, Header::control(Kind::DONE, queued.0), &[0; 3]);
    assert!(!is_up(&rig));
}

/// The word that it is over does not say that lanes have let go of the memory.
#[test]
fn a_send_to_which_lanes_refer_ends_when_they_have_let_go() {
    for stripes in [0, 1] {
        let (rig, lane, wire) = rig();
        let (beside, second) = rig.lane("one", 4096);
        rig.core(|core| {
            let slot = core.lanes.get_mut(beside).unwrap();
            (slot.joins, slot.listening) = (true, true);
        });
        let key = sends(&rig, 10, |op| {
            (op.state, op.references, op.stripes) = (SendState::Posted, 2, stripes);
        });
        rig.comes(lane, &wire, Header::control(Kind::DONE, key.0), &[0; 4]);
        let over = || rig.core(|core| core.is_over(key));
        assert!(!over());
        rig.core(Core::progress);
        assert_eq!((wire.state().asked, second.state().asked), (1, stripes), "and those with stripes");
        rig.core(|core| core.handle_released(Token(key.0)));
        assert!(!over());
        rig.core(|core| core.handle_released(Token(key.0)));
        assert!(over());
    }
}
