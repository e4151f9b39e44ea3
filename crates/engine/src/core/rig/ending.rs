//! How a session ends: what is unknown then, what it takes with it, and what stays.

use super::{Rig, Wire};
use crate::OpError;
use crate::completion::{Match, Source};
use crate::core::bundle::{Packing, messages_in};
use crate::core::op::{Memory, Op, RecvState, SendState};
use crate::core::session::{Control, ControlBody, Standing};
use crate::core::table::Key;
use crate::core::{Core, Session, Started};
use sinew_transport::{ErrorKind, LaneError, Unacknowledged, UnacknowledgedBody};
use sinew_wire::frame::{Flags, Header, Kind};

const LESS: [u8; 16] = [0; 16];

fn eager(dst: u32) -> Header {
    Header { kind: Kind::EAGER, flags: Flags(0), dst, src: 1, tag: 9 }
}

fn bundle(count: usize) -> Box<Packing> {
    let mut packing = Packing::default();
    for _ in 0..count {
        assert!(packing.push(&eager(1), b"short"));
    }
    assert_eq!(packing.count(), count as u64);
    Box::new(packing)
}

fn owned(header: Header) -> Unacknowledged {
    Unacknowledged { header, body: UnacknowledgedBody::Owned(Vec::new()) }
}

fn session<R>(rig: &Rig, look: impl FnOnce(&mut Session) -> R) -> R {
    rig.core(|core| look(core.sessions.get_mut(rig.session).unwrap()))
}

/// Why it is over, and how many messages may have come or not.
fn lost(rig: &Rig) -> Option<(String, u64)> {
    session(rig, |session| match &session.standing {
        Standing::Lost(OpError::PeerLost { reason, unknown_fate }) => Some((reason.clone(), *unknown_fate)),
        _ => None,
    })
}

fn send(rig: &Rig, header: Header) -> Key {
    rig.core(|core| {
        let flow = core.sessions.get_mut(rig.session).unwrap().flow_to(header.dst);
        core.start_send(rig.session, flow, header, None, Memory::Owned(vec![1; 10].into()), false)
    })
}

fn error() -> LaneError {
    LaneError::new(ErrorKind::Broken, "lane", "")
}

#[test]
fn messages_of_unknown_fate_are_counted_wherever_they_are() {
    assert_eq!(messages_in(&eager(1)), 1);
    assert_eq!(messages_in(&Header::control(Kind::BUNDLE, 5)), 5);
    assert_eq!(messages_in(&Header::control(Kind::BUNDLE, u64::MAX)), 32, "what no bundle has");
    assert_eq!(messages_in(&Header::control(Kind::CREDIT, 5)), 0);
    let (rig, _, wire) = Rig::carried(LESS);
    session(&rig, |session| {
        session.parked = Some(bundle(3));
        session
            .replay
            .extend([eager(1), Header::control(Kind::BUNDLE, 4), Header::control(Kind::DONE, 9)].map(owned));
    });
    // On the lane, not acknowledged.
    wire.state().posted.extend([(eager(1), Vec::new()), (Header::control(Kind::BUNDLE, 10), Vec::new())]);
    rig.core(|core| core.lose_session(rig.session, "a test"));
    assert_eq!(lost(&rig), Some(("a test".to_owned(), 3 + 1 + 4 + 1 + 10)));
    // Once: what is over does not end again.
    rig.core(|core| core.lose_session(rig.session, "another"));
    assert_eq!(lost(&rig).map(|lost| lost.0), Some("a test".to_owned()));
    assert_eq!(rig.core(|core| core.counters.sessions_lost), 1);
}

#[test]
fn a_goodbye_says_why() {
    for (body, says) in [
        (vec![], "closed its engine"),
        (vec![0, 0, 0, 0], "closed its engine"),
        (vec![1, 0, 0, 0], "broke the protocol"),
        (vec![7, 0, 0, 0], "reason 7"),
    ] {
        let (rig, lane, wire) = Rig::carried(LESS);
        rig.comes(lane, &wire, Header::control(Kind::GOODBYE, 0), &body);
        let (reason, _) = lost(&rig).expect("it is over");
        assert!(reason.contains(says), "{body:?}: {reason}");
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told() {
    let (rig, lane, wire) = Rig::carried(LESS);
    rig.comes(lane, &wire, Header::control(Kind::CREDIT, 0), &[]);
    assert!(lost(&rig).is_some_and(|(reason, _)| reason.contains("broke the protocol")));
    let said = wire.state().ever.iter().any(|header| header.kind == Kind::GOODBYE);
    assert!(said && wire.state().closed);
}

#[test]
fn sends_and_receives_of_a_session_end_with_it_and_no_others() {
    let (rig, _lane, wire) = Rig::carried(LESS);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    wire.state().full = true;
    let waits = send(&rig, eager(1));
    let released = send(&rig, eager(2));
    rig.core(|core| {
        let Some(Op::Send(op)) = core.ops.get_mut(released) else { panic!("it is there") };
        // Its receiver has it; only a lane has not let go.
        op.state = SendState::Releasing(Ok(()));
        op.references = 1;
    });
    let post = |source: Option<Source>| {
        let pattern = Match { source, ..Match::any_tag() };
        match rig.core(|core| core.start_recv(1, pattern, Memory::Owned(vec![0; 8].into()), None)) {
            Started::Pending(key) => key,
            Started::Done(..) => panic!("nothing has come"),
        }
    };
    let anybody = post(None);
    let here = post(Some(Source::new(rig.session.0, 1, 3)));
    rig.core(|core| core.lose_session(rig.session, "a test"));
    let result = |key| rig.core(|core| core.collect_send(key)).map(|(result, _)| result);
    assert!(matches!(result(waits), Some(Err(OpError::PeerLost { .. }))));
    assert!(matches!(result(released), Some(Ok(()))));
    let ended = |core: &mut Core, key| core.collect_recv(key).map(|(result, ..)| result.is_err());
    assert_eq!(rig.core(|core| ended(core, here)), Some(true));
    assert_eq!(rig.core(|core| ended(core, anybody)), None, "others may still send");
}

#[test]
fn what_had_arrived_whole_stays_and_what_was_announced_goes() {
    let (rig, lane, wire) = Rig::carried(LESS);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    rig.comes(lane, &wire, eager(1), b"whole");
    let envelope = Header { dst: 1, src: 1, ..Header::control(Kind::ENVELOPE, 9) };
    rig.comes(lane, &wire, envelope, &[5_u64.to_le_bytes(), 1000_u64.to_le_bytes()].concat());
    rig.core(|core| core.lose_session(rig.session, "a test"));
    let take =
        || rig.core(|core| core.start_recv(1, Match::any_tag(), Memory::Owned(vec![0; 8].into()), None));
    assert!(matches!(take(), Started::Done(Ok(_), ..)));
    let (waits, flows) = rig.core(|core| {
        let endpoint = core.endpoint(1).unwrap();
        (endpoint.matcher.has_unexpected(), endpoint.inflows.len())
    });
    assert!(!waits, "it can never be fetched");
    assert_eq!(flows, 0, "nothing more comes of it");
    assert!(matches!(take(), Started::Pending(_)));
}

/// A close waits for each of these, and for nothing else.
#[test]
fn an_engine_is_drained_when_nothing_of_a_living_session_waits() {
    let drained = |rig: &Rig| rig.core(Core::drained);
    let changes: [fn(&mut Session); 7] = [
        |session| {
            let header = Header::control(Kind::DONE, 1);
            session.outbox.push_back(Control { header, body: ControlBody::from([]) });
        },
        |session| session.replay.push_back(owned(eager(1))),
        |session| session.again.push_back(owned(Header::control(Kind::STRIPE, 1))),
        |session| session.parked = Some(bundle(1)),
        |session| session.pending_flows.push_back(0),
        |session| session.transfers.push_back(Key(7)),
        |session| session.active = None,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let (rig, ..) = Rig::carried(LESS);
        assert!(drained(&rig));
        session(&rig, change);
        assert_eq!(drained(&rig), at == 6, "{at}: a session without a lane has nobody to wait for");
        session(&rig, |session| session.standing = Standing::Lost(OpError::Cancelled));
        assert!(drained(&rig), "{at}: a session that is over");
    }
    let (rig, _, wire) = Rig::carried(LESS);
    rig.core(|core| {
        core.send_control(rig.session, Header::control(Kind::DONE, 1), []);
        core.progress();
    });
    assert!(!drained(&rig), "the peer has not got it");
    rig.core(Core::request_acknowledgements);
    assert_eq!(wire.state().asked, 1);
    wire.take();
    assert!(drained(&rig));
    rig.core(Core::request_acknowledgements);
    assert_eq!(wire.state().asked, 1, "there is nothing to ask for");
    wire.state().full = true;
    let key = send(&rig, eager(1));
    session(&rig, |session| session.pending_flows.clear());
    assert!(!drained(&rig));
    rig.core(|core| core.finish_send(key, Ok(())));
    assert!(drained(&rig), "it is over, and its owner has not looked yet");
}

/// A session whose lanes were all lost before one was proven, and one of which somebody may have a handle.
#[test]
fn a_session_that_never_was_is_forgotten() {
    let there = |rig: &Rig| rig.core(|core| core.sessions.get(rig.session).is_some());
    let forget = |rig: &Rig| rig.core(|core| core.forget_unproven(rig.session, &error()));
    let rig = Rig::new(LESS);
    forget(&rig);
    assert!(!there(&rig));
    assert!(rig.core(|core| core.session_of.is_empty()));
    let keeps: [fn(&mut Core, Key); 5] = [
        |core, key| core.sessions.get_mut(key).unwrap().leg_out = 1,
        |core, key| core.sessions.get_mut(key).unwrap().leg_in = 1,
        |core, key| {
            let now = core.surroundings.now();
            core.sessions.get_mut(key).unwrap().laneless_since = Some(now);
        },
        |core, key| core.sessions.get_mut(key).unwrap().standing = Standing::Lost(OpError::Cancelled),
        |core, key| core.sessions.get_mut(key).unwrap().lanes.push(Key(9)),
    ];
    for (at, keep) in keeps.into_iter().enumerate() {
        let rig = Rig::new(LESS);
        rig.core(|core| keep(core, rig.session));
        forget(&rig);
        assert!(there(&rig), "{at}");
    }
    // Another lane of it is still being proven.
    let rig = Rig::new(LESS);
    let (lane, _wire) = rig.lane("one", 4096);
    rig.core(|core| {
        core.sessions.get_mut(rig.session).unwrap().lanes.clear();
        core.unproven.push(lane);
    });
    forget(&rig);
    assert!(there(&rig));
    rig.core(|core| core.unproven.clear());
    forget(&rig);
    assert!(!there(&rig));
}

#[test]
fn so_many_sessions_that_are_over_are_remembered_and_the_oldest_goes() {
    let (rig, lane, wire) = Rig::carried(LESS);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    rig.comes(lane, &wire, eager(1), b"whole");
    rig.core(|core| core.lose_session(rig.session, "a test"));
    lose_others(&rig, 1023);
    let waiting =
        || rig.core(|core| core.endpoint(1).is_some_and(|endpoint| endpoint.matcher.has_unexpected()));
    assert!(lost(&rig).is_some() && waiting());
    lose_others(&rig, 1);
    assert!(rig.core(|core| core.sessions.get(rig.session).is_none()), "one more");
    assert!(!waiting(), "nor what it had brought");
}

/// Further sessions with the same engine that are over.
fn lose_others(rig: &Rig, count: usize) {
    let (peer, windows) =
        rig.core(|core| (core.sessions.get(rig.session).unwrap().peer.clone(), core.config.windows));
    for _ in 0..count {
        rig.core(|core| {
            let key = core.sessions.insert(Session::new(peer.clone(), None, 1, windows, windows));
            core.lose_session(key, "a test");
        });
    }
}

/// What was tried is of the next session with the same engine, too, if there is one.
#[test]
fn what_was_tried_for_a_session_is_forgotten_with_it_unless_another_follows() {
    for follows in [false, true] {
        let (rig, ..) = Rig::carried(LESS);
        let (id, peer) = session(&rig, |session| (session.id(), session.peer.clone()));
        rig.core(|core| {
            core.history.insert(id, Vec::new());
            core.lose_session(rig.session, "a test");
            if follows {
                let windows = core.config.windows;
                let next = core.sessions.insert(Session::new(peer, None, 1, windows, windows));
                core.session_of.insert(id, next);
            }
        });
        lose_others(&rig, 1023);
        assert!(rig.core(|core| core.history.contains_key(&id)), "it is remembered");
        lose_others(&rig, 1);
        assert_eq!(rig.core(|core| core.history.contains_key(&id)), follows);
    }
}

#[test]
fn a_closing_engine_says_goodbye_to_all() {
    let (rig, _, wire): (Rig, Key, Wire) = Rig::carried(LESS);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    rig.core(Core::shut_down);
    assert_eq!(wire.state().ever.last().map(|header| header.kind), Some(Kind::GOODBYE));
    assert!(lost(&rig).is_some_and(|(reason, _)| reason.contains("this engine was closed")));
    assert!(rig.core(|core| core.closed && core.domains.is_empty() && core.endpoint(1).is_none()));
}

/// Another session with the same engine, which goes on.
fn beside(rig: &Rig) -> Key {
    rig.core(|core| {
        let (peer, windows) = (core.sessions.get(rig.session).unwrap().peer.clone(), core.config.windows);
        core.sessions.insert(Session::new(peer, Some("tcp"), 0, windows, windows))
    })
}

#[test]
fn a_session_takes_its_own_operations_and_lanes_with_it() {
    let (rig, lane, wire) = Rig::carried(LESS);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    let other = beside(&rig);
    let (mine, first) = rig.unproven("one", 4096);
    let (theirs, second) = rig.unproven("one", 4096);
    rig.core(|core| {
        core.lanes.get_mut(theirs).unwrap().session = other;
        core.unproven.extend([mine, theirs]);
    });
    let fetch = |number: u64| {
        let key = match rig
            .core(|core| core.start_recv(1, Match::any_tag(), Memory::Owned(vec![0; 1000].into()), None))
        {
            Started::Pending(key) => key,
            Started::Done(..) => panic!("nothing has come"),
        };
        let envelope = Header { dst: 1, src: 1, ..Header::control(Kind::ENVELOPE, 9) };
        rig.comes(lane, &wire, envelope, &[number.to_le_bytes(), 1000_u64.to_le_bytes()].concat());
        key
    };
    let (ends, goes_on) = (fetch(5), fetch(6));
    rig.core(|core| {
        let Some(Op::Recv(op)) = core.ops.get_mut(goes_on) else { panic!("it is there") };
        let RecvState::Fetching(fetch) = &mut op.state else { panic!("it fetches") };
        fetch.envelope.session = other;
    });
    let sends = rig.core(|core| {
        let flow = core.sessions.get_mut(other).unwrap().flow_to(5);
        core.start_send(other, flow, eager(5), None, Memory::Owned(vec![1; 10].into()), false)
    });
    let over = send(&rig, eager(7));
    rig.core(|core| core.finish_send(over, Ok(())));
    rig.core(|core| core.lose_session(rig.session, "a test"));
    assert!(first.state().closed && !second.state().closed);
    assert!(rig.core(|core| core.lanes.get(mine).is_none() && core.lanes.get(theirs).is_some()));
    let received = |key| rig.core(|core| core.collect_recv(key)).map(|(result, ..)| result.is_err());
    assert_eq!((received(ends), received(goes_on)), (Some(true), None));
    assert!(rig.core(|core| core.collect_send(sends)).is_none());
    assert!(matches!(rig.core(|core| core.collect_send(over)), Some((Ok(()), _))), "it had ended before");
}

#[test]
fn a_peer_that_closes_its_engine_had_all_where_nothing_is_unknown_and_nothing_under_way() {
    type Before = fn(&Rig, &Wire);
    let goodbye = |reason: u32, before: Before| {
        let (rig, _, wire) = Rig::carried(LESS);
        before(&rig, &wire);
        rig.core(|core| core.peer_said_goodbye(rig.session, reason));
        rig.core(|core| (core.had_all(rig.session), core.had_all(Key::NONE)))
    };
    let flush: Before = |rig, _| {
        send(rig, Header { src: 1, ..Header::control(Kind::FLUSH, 0) });
    };
    let unknown: Before = |_, wire| wire.state().posted.push((eager(1), Vec::new()));
    let long: Before = |rig, _| {
        send(rig, eager(5));
    };
    assert_eq!(goodbye(0, |_, _| ()), (true, false));
    assert_eq!(goodbye(0, flush), (true, false), "the question itself needs no answer any more");
    assert_eq!(goodbye(0, unknown), (false, false));
    assert_eq!(goodbye(0, long), (false, false));
    assert_eq!(goodbye(1, |_, _| ()), (false, false), "it did not close by its own will");
    let (rig, _, _wire) = Rig::carried(LESS);
    rig.core(|core| core.lose_session(rig.session, "a test"));
    assert!(!rig.core(|core| core.had_all(rig.session)));
}
