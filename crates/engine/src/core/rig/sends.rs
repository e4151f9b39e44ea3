//! Sends as operations: what they count against, how they end, and what lanes give up then.

use super::{Rig, Wire, Woken, eager};
use crate::OpError;
use crate::core::op::{Memory, Op, SendOp, SendState};
use crate::core::session::Push;
use crate::core::stripes::stripe_token;
use crate::core::table::Key;
use sinew_transport::{Token, Unacknowledged, UnacknowledgedBody};
use sinew_wire::frame::{Header, Kind};
use std::sync::Arc;
use std::task::Waker;

fn rig() -> (Rig, Key, Wire) {
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    (rig, lane, wire)
}

fn owned(len: usize) -> Memory {
    Memory::Owned(vec![1; len].into())
}

/// Starts a send of endpoint 1.
fn start(rig: &Rig, header: Header, len: usize, detached: bool) -> Key {
    rig.core(|core| {
        let flow = core.sessions.get_mut(rig.session).unwrap().flow_to(5);
        core.start_send(rig.session, flow, Header { src: 1, ..header }, None, owned(len), detached)
    })
}

/// Puts a send into the table that stands where `change` says.
fn put(rig: &Rig, len: usize, change: impl FnOnce(&mut SendOp)) -> Key {
    rig.core(|core| {
        let flow = core.sessions.get_mut(rig.session).unwrap().flow_to(5);
        let mut op = SendOp::new((rig.session, flow), eager(9), None, owned(len));
        change(&mut op);
        core.ops.insert(Op::Send(op))
    })
}

fn op<R>(rig: &Rig, key: Key, look: impl FnOnce(&mut SendOp) -> R) -> Option<R> {
    rig.core(|core| match core.ops.get_mut(key) {
        Some(Op::Send(op)) => Some(look(op)),
        _ => None,
    })
}

fn buffered(rig: &Rig) -> usize {
    rig.core(|core| core.sessions.get(rig.session).unwrap().buffered)
}

#[test]
fn messages_are_counted_at_their_endpoint_and_requests_are_not() {
    let (rig, ..) = rig();
    for _ in 0..3 {
        start(&rig, eager(9), 10, false);
    }
    start(&rig, Header::control(Kind::LOOKUP, 0), 10, false);
    let sent =
        rig.core(|core| core.endpoint(1).map(|endpoint| (endpoint.messages_sent, endpoint.bytes_sent)));
    assert_eq!(sent, Some((3, 30)));
}

#[test]
fn copies_count_against_the_send_buffer_until_they_have_gone() {
    let (rig, _lane, wire) = rig();
    wire.state().full = true;
    let copies = [start(&rig, eager(9), 10, true), start(&rig, eager(9), 30, true)];
    assert_eq!(buffered(&rig), 10 + 30 + 2 * 256);
    let lent = start(&rig, eager(9), 50, false);
    assert_eq!(buffered(&rig), 10 + 30 + 2 * 256);
    rig.core(|core| core.finish_send(lent, Ok(())));
    assert_eq!(buffered(&rig), 10 + 30 + 2 * 256);
    rig.core(|core| core.finish_send(copies[0], Ok(())));
    assert_eq!(buffered(&rig), 30 + 256);
    wire.state().full = false;
    rig.core(|core| core.progress());
    assert_eq!(buffered(&rig), 0);
    let gone = copies.map(|key| op(&rig, key, |_| ()).is_none());
    assert_eq!(gone, [true; 2], "nobody collects them");
    assert!(matches!(rig.core(|core| core.collect_send(lent)), Some((Ok(()), _))));
}

#[test]
fn what_was_sent_unasked_is_answered_by_the_end() {
    let (rig, ..) = rig();
    let key = put(&rig, 1000, |op| op.pushed = 200);
    rig.core(|core| {
        let session = core.sessions.get_mut(rig.session).unwrap();
        session.pushed = 500;
        session.to_push = Some(Push { op: key, next: 100, end: 200 });
        core.finish_send(key, Ok(()));
        let session = core.sessions.get(rig.session).unwrap();
        assert_eq!((session.pushed, session.flows[0].shy), (300, 0));
    });
}

#[test]
fn who_waits_for_a_send_is_told_of_its_end() {
    let (rig, ..) = rig();
    let woken = Arc::new(Woken::default());
    for detached in [false, true] {
        let key = put(&rig, 10, |op| op.detached = detached);
        rig.core(|core| core.set_waker(key, &Waker::from(Arc::clone(&woken))));
        rig.core(|core| core.finish_send(key, Ok(())));
        assert!(op(&rig, key, |_| ()).is_some(), "it is collected by whoever was told");
    }
    assert_eq!(woken.times(), 2);
}

#[test]
fn a_send_that_waits_for_its_turn_is_taken_out_and_no_other() {
    let (rig, _lane, wire) = rig();
    wire.state().full = true;
    let (first, second) = (start(&rig, eager(1), 10, false), start(&rig, eager(2), 10, false));
    assert!(matches!(rig.core(|core| core.cancel_send(first)), Some((Err(OpError::Cancelled), _))));
    wire.state().full = false;
    rig.core(|core| core.progress());
    assert_eq!(wire.of(Kind::EAGER).iter().map(|header| header.tag).collect::<Vec<_>>(), [2]);
    assert!(matches!(rig.core(|core| core.cancel_send(second)), Some((Ok(()), _))), "it had gone");
}

#[test]
fn the_receiver_is_told_that_a_message_is_taken_back_and_reads_it_no_more() {
    let states = || {
        let moving = SendState::Moving { receiver: 1, next: 0, end: 10, turn: None };
        [SendState::Announced, SendState::Posted, moving]
    };
    for (len, recalls) in [(4096, 1), (4095, 0)] {
        for state in states() {
            let (rig, _lane, wire) = rig();
            let (shown, key) = (format!("{state:?}"), put(&rig, len, |op| op.state = state));
            rig.core(|core| core.end_send(key, OpError::Cancelled));
            assert_eq!(wire.state().recalled, recalls, "{shown}, {len}: memory that may be lent");
            rig.core(|core| core.progress());
            assert_eq!(wire.of(Kind::WITHDRAW), [Header::control(Kind::WITHDRAW, key.0)], "{shown}");
            assert!(matches!(rig.core(|core| core.collect_send(key)), Some((Err(OpError::Cancelled), _))));
        }
    }
    // Of a request there is nothing to take back.
    let (rig, _lane, wire) = rig();
    let key = put(&rig, 10, |op| {
        (op.header, op.state) = (Header::control(Kind::LOOKUP, 0), SendState::Posted);
    });
    rig.core(|core| core.end_send(key, OpError::Cancelled));
    rig.core(|core| core.progress());
    assert!(wire.take().is_empty());
}

/// A message whose receiver has it is sent, whatever ends it while a lane still has its memory.
#[test]
fn what_the_receiver_has_said_stands() {
    let (rig, lane, wire) = rig();
    let key = put(&rig, 10, |op| (op.state, op.references) = (SendState::Releasing(Ok(())), 2));
    rig.core(|core| {
        // As while it is being polled.
        let polled = core.lanes.get_mut(lane).unwrap().lane.take();
        core.end_send(key, OpError::Cancelled);
        assert!(core.collect_send(key).is_none());
        core.lanes.get_mut(lane).unwrap().lane = polled;
    });
    assert_eq!(op(&rig, key, |op| op.references), Some(2));
    assert!(wire.state().reclaimed.is_empty());
    rig.core(|core| core.end_send(key, OpError::Cancelled));
    assert_eq!(wire.state().reclaimed, [Token(key.0), stripe_token(key)]);
    assert!(matches!(rig.core(|core| core.collect_send(key)), Some((Ok(()), _))));
}

#[test]
fn a_send_to_which_no_lane_refers_ends_while_one_is_polled() {
    let (rig, lane, wire) = rig();
    let key = put(&rig, 10, |op| op.state = SendState::Posted);
    rig.core(|core| {
        let polled = core.lanes.get_mut(lane).unwrap().lane.take();
        core.end_send(key, OpError::Cancelled);
        assert!(core.collect_send(key).is_some());
        core.lanes.get_mut(lane).unwrap().lane = polled;
    });
    assert!(wire.state().reclaimed.is_empty());
}

/// What waits to be sent again refers to the memory, too: in the sequence it is copied, beside it it is not needed any more.
#[test]
fn what_is_to_be_sent_again_leaves_the_memory_of_a_send_that_ends() {
    let (rig, lane, _wire) = rig();
    let mine = put(&rig, 10, |op| (op.state, op.references, op.stripes) = (SendState::Posted, 3, 1));
    let other = put(&rig, 10, |op| (op.state, op.references) = (SendState::Posted, 2));
    let frame = |key: Key, token: Token, header: Header| {
        let data = op(&rig, key, |op| op.memory.data().as_ptr().cast_const()).unwrap();
        Unacknowledged { header, body: UnacknowledgedBody::Borrowed { data, len: 4, token } }
    };
    let frames = [mine, other].map(|key| {
        let data = frame(key, Token(key.0), Header::data(7, 0));
        (data, frame(key, stripe_token(key), Header::stripe(7, 0, 0)))
    });
    rig.core(|core| {
        let session = core.sessions.get_mut(rig.session).unwrap();
        for (data, stripe) in frames {
            session.replay.push_back(data);
            session.again.push_back(stripe);
        }
        core.lanes.get_mut(lane).unwrap().stripes = vec![stripe_token(mine), stripe_token(other)];
        core.end_send(mine, OpError::Cancelled);
        let session = core.sessions.get(rig.session).unwrap();
        let borrowed = |frame: &Unacknowledged| match &frame.body {
            UnacknowledgedBody::Borrowed { token, .. } => Some(*token),
            UnacknowledgedBody::Owned(bytes) => {
                assert_eq!(bytes, &[1; 4]);
                None
            }
        };
        assert_eq!(session.replay.iter().map(borrowed).collect::<Vec<_>>(), [None, Some(Token(other.0))]);
        assert_eq!(session.again.iter().map(borrowed).collect::<Vec<_>>(), [Some(stripe_token(other))]);
        assert_eq!(core.lanes.get(lane).unwrap().stripes, [stripe_token(other)]);
    });
    assert!(rig.core(|core| core.collect_send(mine)).is_some());
    assert_eq!(op(&rig, other, |op| (op.references, op.stripes)), Some((2, 0)));
    // The sessions ends before the memory that its frames lie in.
    rig.core(|core| core.lose_session(rig.session, "a test"));
}

#[test]
fn a_send_whose_result_nobody_wants_goes_on_and_its_buffer_is_dropped() {
    let (rig, _lane, wire) = rig();
    wire.state().full = true;
    let woken = Arc::new(Woken::default());
    let (waits, done) = (start(&rig, eager(1), 10, false), put(&rig, 10, |_| ()));
    rig.core(|core| {
        core.set_waker(waits, &Waker::from(Arc::clone(&woken)));
        core.finish_send(done, Ok(()));
    });
    rig.core(|core| {
        core.detach_send(waits);
        core.detach_send(done);
        assert!(core.effects.must_run(), "a buffer and a waker are to be dropped");
    });
    assert!(op(&rig, done, |_| ()).is_none());
    assert_eq!(op(&rig, waits, |op| (op.detached, op.waiter.is_none())), Some((true, true)));
    assert_eq!(Arc::strong_count(&woken), 1);
    wire.state().full = false;
    rig.core(|core| core.progress());
    assert_eq!(wire.of(Kind::EAGER).len(), 1);
    assert!(op(&rig, waits, |_| ()).is_none());
    assert_eq!(woken.times(), 0);
}

#[test]
fn so_much_may_be_copied_as_the_send_buffer_and_a_frame_hold() {
    let (rig, ..) = rig();
    let may = |len: usize| rig.core(|core| core.may_buffer(rig.session, len));
    assert!(may(4096) && !may(4097), "the lane's frame");
    let limit = rig.core(|core| core.config.send_buffer);
    let has = |buffered: usize| {
        rig.core(|core| core.sessions.get_mut(rig.session).unwrap().buffered = buffered);
    };
    has(limit - 1000 - 256);
    assert!(may(1000) && !may(1001), "the buffer");
    has(limit);
    assert!(!may(0));
    has(0);
    // Without a lane it is what may travel at once.
    rig.core(|core| core.sessions.get_mut(rig.session).unwrap().active = None);
    let eager_max = rig.core(|core| core.config.eager_max);
    assert!(may(eager_max) && !may(eager_max + 1));
    assert!(!rig.core(|core| core.may_buffer(Key(77 << 32), 0)), "no such session");
}
