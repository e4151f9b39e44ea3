//! Receives as operations, and endpoints: what is given up, what waits, what is collected, and whose names are taken.

use super::{Rig, Wire, Woken, eager, envelope, words};
use crate::OpError;
use crate::completion::{Match, Source};
use crate::core::op::{Charge, Memory, Op, SendOp, SendState, Unexpected};
use crate::core::session::Session;
use crate::core::table::Key;
use crate::core::{Core, Owner, SELF_OWNER, Started, Taken};
use sinew_transport::{Body, Buf};
use sinew_wire::frame::{Flags, Header, Kind};
use std::sync::Arc;
use std::task::Waker;

fn rig() -> (Rig, Key, Wire) {
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    (rig, lane, wire)
}

/// A receive of any message that waits.
fn take(rig: &Rig, room: usize) -> Option<(Result<usize, OpError>, Vec<u8>)> {
    let memory = Memory::Owned(vec![0; room].into());
    match rig.core(|core| core.start_recv(1, Match::any_tag(), memory, None)) {
        Started::Done(result, Memory::Owned(buf), _) => Some((result.map(|info| info.len), buf.to_vec())),
        Started::Done(..) => panic!("its buffer comes back"),
        Started::Pending(key) => {
            rig.core(|core| core.cancel_recv(key));
            None
        }
    }
}

#[test]
fn a_message_that_just_fits_is_whole_and_a_longer_one_is_cut() {
    for (len, fits) in [(7, true), (8, true), (9, false)] {
        let (rig, lane, wire) = rig();
        let key = rig.post(9, 8);
        rig.comes(lane, &wire, eager(9), &vec![3; len]);
        let (result, memory) = rig.core(|core| core.collect_recv(key)).expect("it is over");
        let Memory::Owned(buf) = memory else { panic!("its own") };
        match result {
            Ok(info) => assert!(fits && info.len == len && buf.as_slice() == vec![3; len]),
            Err(OpError::Truncated { message_len, buffer_len: 8, tag: 9, .. }) => {
                assert!(!fits && message_len == len as u64 && buf.as_slice() == [3; 8]);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_receive_that_is_given_up_leaves_its_message_to_another_in_its_old_place() {
    let (rig, lane, wire) = rig();
    let keys = [rig.post(9, 8), rig.post(9, 8)];
    for bytes in [&b"one"[..], b"two", b"three"] {
        rig.comes(lane, &wire, eager(9), bytes);
    }
    // The newest first, as a handler does that ends.
    for key in [keys[1], keys[0]] {
        assert!(rig.core(|core| core.give_up_recv(key)).is_some());
        assert!(rig.core(|core| core.ops.get(key).is_none()));
    }
    let order = [(); 3].map(|()| take(&rig, 8).expect("it waits").1);
    assert_eq!(order, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    // One that had none gives its memory back and no message.
    let key = rig.post(9, 8);
    assert!(rig.core(|core| core.give_up_recv(key)).is_some());
    assert!(take(&rig, 8).is_none());
    assert!(rig.core(|core| core.give_up_recv(key)).is_none(), "once");
}

#[test]
fn a_message_that_was_cut_and_that_nobody_saw_is_counted() {
    let (rig, lane, wire) = rig();
    for count in 1..=3 {
        let key = rig.post(9, 8);
        rig.comes(lane, &wire, eager(9), &[1; 9]);
        rig.core(|core| core.give_up_recv(key));
        assert_eq!(rig.core(|core| core.counters.truncated_unseen), count);
    }
    rig.core(|core| core.note_unseen(&OpError::Cancelled));
    assert_eq!(rig.core(|core| core.counters.truncated_unseen), 3);
}

#[test]
fn what_waits_is_shown_without_being_taken() {
    let (rig, lane, wire) = rig();
    let probe = |tag: u64| rig.core(|core| core.probe(1, Match::tag(tag))).map(|info| info.len);
    assert_eq!(probe(9), None);
    rig.comes(lane, &wire, eager(9), b"here");
    rig.comes(lane, &wire, eager(8), &[1; 100]);
    rig.comes(lane, &wire, envelope(7), &words(&[5, 1000]));
    assert_eq!([9, 8, 7, 9, 6].map(probe), [Some(4), Some(100), Some(1000), Some(4), None]);
    let closed = |number: u32, pattern: Match| {
        rig.core(|core| core.probe_or_closed(number, pattern)).map(|found| found.map(|info| info.len))
    };
    assert!(matches!(closed(1, Match::tag(9)), Some(Ok(4))));
    assert!(closed(1, Match::tag(6)).is_none());
    assert!(matches!(closed(2, Match::tag(9)), Some(Err(OpError::EngineClosed))));
    let lost = Match::tag(6).from(Source::new(rig.session.0, 1, 3));
    assert!(closed(1, lost).is_none());
    rig.core(|core| core.lose_session(rig.session, "a test"));
    assert!(matches!(closed(1, lost), Some(Err(OpError::PeerLost { .. }))));
}

/// Two sessions with one engine, of which a source may name either.
#[test]
fn a_source_is_lost_when_no_session_with_its_engine_is_left() {
    let (rig, ..) = rig();
    let beside = rig.core(|core| {
        let (peer, windows) = (core.sessions.get(rig.session).unwrap().peer.clone(), core.config.windows);
        core.sessions.insert(Session::new(peer, Some("tcp"), 0, windows, windows))
    });
    let lost =
        |session: Key, engine: u32| rig.core(|core| core.source_lost(Source::new(session.0, engine, 3)));
    let wrong =
        |session: Key, engine: u32| rig.core(|core| core.source_error(Source::new(session.0, engine, 3)));
    assert!(lost(rig.session, 1).is_none() && wrong(rig.session, 1).is_ok());
    assert!(matches!(lost(rig.session, 77), Some(OpError::OtherEngine)));
    assert!(matches!(wrong(rig.session, 77), Err(OpError::OtherEngine)));
    rig.core(|core| core.lose_session(rig.session, "a test"));
    assert!(lost(rig.session, 1).is_none(), "the other one lives");
    assert!(matches!(wrong(rig.session, 1), Err(OpError::PeerLost { .. })));
    rig.core(|core| core.lose_session(beside, "a test"));
    assert!(matches!(lost(rig.session, 1), Some(OpError::PeerLost { .. })));
    assert!(matches!(lost(Key(77 << 32), 1), Some(OpError::PeerLost { .. })));
    // A receive from it alone does not begin to wait.
    let pattern = Match::any_tag().from(Source::new(rig.session.0, 1, 3));
    let started = rig.core(|core| core.start_recv(1, pattern, Memory::Owned(vec![0; 8].into()), None));
    assert!(matches!(started, Started::Done(Err(OpError::PeerLost { .. }), ..)));
}

#[test]
fn who_waits_is_told_and_the_quick_way_leaves_it_to_them() {
    let (rig, lane, wire) = rig();
    let woken = Arc::new(Woken::default());
    let (watched, plain, short) = (rig.post(1, 8), rig.post(2, 8), rig.post(3, 2));
    rig.core(|core| core.set_waker(watched, &Waker::from(Arc::clone(&woken))));
    assert!(rig.core(|core| core.collect_received(plain).is_none()), "nothing has come");
    for tag in 1..=3 {
        rig.comes(lane, &wire, eager(tag), &[tag as u8; 4]);
    }
    assert_eq!(woken.times(), 1);
    let ends = rig.post(4, 8);
    rig.core(|core| core.set_waker(ends, &Waker::from(Arc::clone(&woken))));
    rig.core(|core| core.finish_recv(ends, Err(OpError::Cancelled)));
    assert_eq!(woken.times(), 2);
    let got = rig.core(|core| core.collect_received(plain)).expect("it has come");
    assert_eq!((got.buf.as_slice(), got.info.tag), (&[2; 4][..], 2));
    assert!(rig.core(|core| core.collect_received(plain).is_none()), "once");
    assert!(rig.core(|core| core.collect_received(short).is_none()), "it was cut");
    assert!(rig.core(|core| core.collect_recv(short)).is_some());
    // Sends alike.
    let send = |state: SendState| {
        let op = SendOp {
            state,
            ..SendOp::new((rig.session, 0), eager(9), None, Memory::Owned(vec![5; 4].into()))
        };
        rig.core(|core| core.ops.insert(Op::Send(op)))
    };
    let (done, failed) =
        (send(SendState::Finished(Ok(()))), send(SendState::Finished(Err(OpError::Cancelled))));
    assert_eq!(rig.core(|core| core.collect_sent(done)).map(|buf| buf.to_vec()), Some(vec![5; 4]));
    assert!(rig.core(|core| core.collect_sent(done).is_none() && core.collect_sent(failed).is_none()));
}

#[test]
fn buffers_come_out_of_memory_that_is_one() {
    let mut owned = Memory::Owned(vec![1; 4].into());
    assert_eq!(owned.take_buf().map(|buf| buf.len()), Some(4));
    assert!(owned.take_buf().is_none() && owned.into_buf().is_none());
    assert_eq!(Memory::Owned(vec![1; 4].into()).into_buf().map(|buf: Buf| buf.len()), Some(4));
    let (rig, _lane, _wire) = rig();
    let memory = Memory::Owned(vec![1; 4].into());
    rig.core(|core| core.effects.discard(memory.into_buf()));
}

#[test]
fn messages_of_a_session_came_one_after_the_other() {
    let (mine, other) = (Key(1 << 32), Key(2 << 32));
    for len in [4, 400] {
        let bytes = vec![3; len];
        let message = Unexpected::whole(Body::from_slice(&bytes), None, (mine, 100), Charge::Shared);
        assert_eq!(message.number(), (mine, 100));
        assert_eq!([99, 100, 101].map(|at| message.came_before(mine, at)), [false, false, true]);
        assert_eq!([99, 100, 101].map(|at| message.came_behind(mine, at)), [true, false, false]);
        assert!(!message.came_before(other, 101) && !message.came_behind(other, 99));
    }
}

#[test]
fn a_receive_is_fetched_into_by_fragments_of_its_session_only() {
    let (rig, lane, wire) = rig();
    let fetches = |key: Key, session: Key| {
        rig.core(|core| matches!(core.ops.get(key), Some(Op::Recv(op)) if op.fetches_from(session)))
    };
    let (key, described) = (rig.post(9, 1000), rig.post(8, 1000));
    assert!(!fetches(key, rig.session), "it waits");
    rig.comes(lane, &wire, envelope(9), &words(&[5, 1000]));
    let header = Header { flags: Flags::DESCRIPTOR, ..envelope(8) };
    rig.comes(lane, &wire, header, &[words(&[6, 1000]), vec![1; 24]].concat());
    assert!(fetches(key, rig.session) && !fetches(key, Key(77 << 32)));
    assert!(!fetches(described, rig.session), "it is pulled");
}

#[test]
fn a_call_that_waits_finds_what_came_before_or_that_nothing_will() {
    let (rig, lane, wire) = rig();
    let mut buf = [0; 8];
    let before = |core: &mut Core, number: u32, pattern: Match, buf: &mut [u8]| {
        let data = std::ptr::NonNull::from(&mut *buf).cast();
        core.recv_before(&crate::core::Receiving { endpoint: number, pattern, data, room: buf.len() })
    };
    assert!(rig.core(|core| before(core, 1, Match::any_tag(), &mut buf)).is_none());
    assert!(matches!(
        rig.core(|core| before(core, 2, Match::any_tag(), &mut buf)),
        Some(Taken::Failed(error)) if matches!(*error, OpError::EngineClosed)
    ));
    rig.comes(lane, &wire, eager(9), b"here");
    rig.comes(lane, &wire, eager(8), b"too");
    assert!(rig.core(|core| before(core, 1, Match::tag(7), &mut buf)).is_none());
    let number = rig.core(|core| {
        assert!(matches!(before(core, 1, Match::tag(8), &mut buf), Some(Taken::Done(info)) if info.len == 3));
        core.direct.number()
    });
    assert_eq!((&buf[..3], number), (&b"too"[..], 2 * 32), "its place in the session");
    let source = Source::new(rig.session.0, 1, 3);
    assert!(rig.core(|core| before(core, 1, Match::tag(7).from(source), &mut buf)).is_none());
    rig.core(|core| core.lose_session(rig.session, "a test"));
    assert!(matches!(
        rig.core(|core| before(core, 1, Match::tag(7).from(source), &mut buf)),
        Some(Taken::Failed(error)) if matches!(*error, OpError::PeerLost { .. })
    ));
}

/// A session that ends while a call waits for what comes from it alone.
#[test]
fn a_call_ends_with_the_last_session_of_whom_it_waits_for() {
    for (number, body, ends) in [(1, vec![], true), (2, vec![], false)] {
        let (rig, _lane, wire) = Rig::hot();
        wire.state().arriving.push_back((Header::control(Kind::GOODBYE, 0), body));
        // Of another engine: nothing is known of it, and nothing ends.
        let pattern = Match::any_tag().from(Source::new(rig.session.0, number, 3));
        rig.in_turn(pattern, &mut [0; 8], |taken| match taken {
            Some(Taken::Failed(error)) => assert!(ends && matches!(*error, OpError::PeerLost { .. })),
            None => assert!(!ends),
            other => panic!("{other:?}"),
        });
    }
    let (rig, _lane, wire) = Rig::hot();
    wire.state().arriving.push_back((Header::control(Kind::GOODBYE, 0), Vec::new()));
    rig.in_turn(Match::any_tag(), &mut [0; 8], |taken| assert!(taken.is_none(), "others may still send"));
}

/// The memory of a call is known to the core while it is inside only.
#[test]
fn nothing_of_a_call_is_known_when_it_has_returned() {
    let (rig, lane, wire) = Rig::hot();
    rig.in_turn(Match::tag(9), &mut [0; 8], |taken| assert!(taken.is_none()));
    assert!(rig.core(|core| core.direct.memory().is_none()));
    rig.comes(lane, &wire, eager(9), b"waits");
    assert_eq!(take(&rig, 8).map(|(_, bytes)| bytes), Some(b"waits".to_vec()));
}

#[test]
fn names_of_endpoints_are_short_and_plain_and_each_is_taken_once() {
    let (rig, ..) = rig();
    let make = |name: &str| rig.core(|core| core.create_endpoint(Some(name)).is_ok());
    let long = "x".repeat(64);
    for name in ["worker-7", "A.b_c", "0x1", &long] {
        assert!(make(name), "{name}");
        assert!(!make(name), "{name} is taken");
    }
    let longer = "x".repeat(65);
    for name in ["", "a b", "a/b", "\u{e4}", "123", &longer] {
        assert!(!make(name), "{name}");
    }
    rig.core(|core| core.close_endpoint(2, &OpError::Cancelled));
    assert!(make("worker-7"), "it is free again");
}

#[test]
fn an_endpoint_that_closes_gives_back_what_others_share_and_says_so() {
    let (rig, lane, wire) = rig();
    let key = rig.post(1, 8);
    rig.comes(lane, &wire, eager(9), &[1; 1000]);
    rig.comes(lane, &wire, Header { flags: Flags::RESERVE, ..eager(9) }, &[1; 1000]);
    rig.comes(lane, &wire, envelope(9), &words(&[5, 1000]));
    wire.take();
    let granted = || {
        rig.core(|core| {
            let session = core.sessions.get_mut(rig.session).unwrap();
            [session.granted_bytes.announce(), session.granted_envelopes.announce()]
        })
    };
    let before = granted();
    rig.core(|core| {
        core.close_endpoint(1, &OpError::Cancelled);
        core.close_endpoint(1, &OpError::EngineClosed);
        core.progress();
    });
    assert_eq!(granted(), [before[0] + 1064, before[1] + 1]);
    assert!(matches!(rig.core(|core| core.collect_recv(key)), Some((Err(OpError::Cancelled), _))));
    let closed = Header { src: 1, ..Header::control(Kind::ENDPOINT_CLOSED, 0) };
    assert_eq!(wire.take().iter().filter(|(header, _)| *header == closed).count(), 1);
}

/// Each session has counts of its own at an endpoint.
#[test]
fn what_one_session_may_send_to_an_endpoint_is_nothing_to_another() {
    let (rig, ..) = rig();
    rig.core(|core| {
        let windows = core.config.windows;
        let endpoint = core.endpoint(1).unwrap();
        let (one, two) = (Key(1 << 32), Key(2 << 32));
        for (session, bytes) in [(one, 100), (two, 200), (one, 300)] {
            endpoint.inflow(session, &windows).bytes.receive(bytes).unwrap();
        }
        assert_eq!(endpoint.inflows.len(), 2);
        let left = [one, two].map(|session| {
            let credit = endpoint.inflow(session, &windows).bytes;
            let fits = |more: &u64| credit.clone().receive(windows.endpoint_bytes - 800 + more).is_ok();
            (0..=8).map(|more| 800 - more * 100).find(fits)
        });
        assert_eq!(left, [Some(400), Some(600)]);
    });
}

/// A receive of a handler is told to that, whenever its message has come.
#[test]
fn a_receive_of_a_handler_is_left_to_it() {
    let (rig, lane, wire) = rig();
    rig.comes(lane, &wire, eager(9), b"waits");
    rig.core(|core| {
        let memory = Memory::Owned(vec![0; 8].into());
        let handler = Key(77 << 32);
        let started = core.start_recv(1, Match::tag(9), memory, Some(handler));
        let Started::Pending(key) = started else { panic!("it is the handler's") };
        assert!(core.is_over(key) && core.effects.has_handlers());
        assert_eq!(core.ready_handlers, [handler]);
        core.ready_handlers.clear();
    });
}

/// Numbers of what descriptors are for, and what timers look at.
#[test]
fn numbers_are_used_again_and_lanes_looked_at_once() {
    let (rig, lane, _wire) = rig();
    rig.core(|core| {
        let (one, two) = (core.new_owner(Owner::Domain(1)), core.new_owner(Owner::Domain(2)));
        assert_eq!([one, two].map(|at| core.owners[at as usize]), [Owner::Domain(1), Owner::Domain(2)]);
        core.free_owner(one);
        core.free_owner(one);
        core.free_owner(SELF_OWNER);
        assert_eq!([one, two].map(|at| core.owners[at as usize]), [Owner::Free, Owner::Domain(2)]);
        let next = [core.new_owner(Owner::Domain(3)), core.new_owner(Owner::Domain(4))];
        assert!(next[0] == one && next[1] > two, "each once");
        core.astir.clear();
        core.lively.clear();
        core.lanes.get_mut(lane).unwrap().astir = false;
        core.sessions.get_mut(rig.session).unwrap().lively = false;
        core.stir(lane);
        core.stir(lane);
        assert_eq!((&core.astir[..], &core.lively[..]), (&[lane][..], &[rig.session][..]));
        core.lanes.get_mut(lane).unwrap().astir = false;
        core.stir(lane);
        assert_eq!(core.lively, [rig.session]);
    });
}
