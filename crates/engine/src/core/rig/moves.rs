//! How a healthy session goes over to another lane, and which lanes are closed beside the one that carries it.

use super::{Rig, Wire};
use crate::OpError;
use crate::core::lanes::RECENT;
use crate::core::session::Standing;
use crate::core::table::Key;
use crate::core::{Core, Session};
use sinew_wire::frame::{Header, Kind};

/// Ids below and above every other: the engine with the greater one decides.
const LESS: [u8; 16] = [0; 16];
const GREATER: [u8; 16] = [255; 16];

fn session<R>(rig: &Rig, look: impl FnOnce(&mut Session) -> R) -> R {
    rig.core(|core| look(core.sessions.get_mut(rig.session).unwrap()))
}

fn active(rig: &Rig) -> Option<Key> {
    session(rig, |session| session.active)
}

fn lives(rig: &Rig, lane: Key) -> bool {
    rig.core(|core| core.lanes.get(lane).is_some())
}

/// The peer has taken a lane in, and does without it.
fn spare(rig: &Rig, lane: Key, wire: &Wire) {
    rig.comes(lane, wire, Header { src: 1, ..Header::control(Kind::RESUME, 0) }, &[]);
}

#[test]
fn who_follows_goes_where_the_peer_sends_when_all_on_the_old_lane_is_acknowledged() {
    let (rig, one, first) = Rig::carried(GREATER);
    let (two, second) = rig.lane("two", 4096);
    rig.core(|core| {
        core.send_control(rig.session, Header::control(Kind::FLUSH, 1), []);
        core.progress();
    });
    rig.switches(two, &second, 2, 0);
    assert!(session(&rig, |session| session.moving_to == Some(two) && !session.ready));
    rig.core(Core::progress);
    assert_eq!(active(&rig), Some(one), "the peer has not said that it listens there");
    spare(&rig, two, &second);
    second.take();
    rig.core(Core::progress);
    assert_eq!(active(&rig), Some(one), "a frame is out");
    assert!(first.state().asked > 0);
    first.take();
    rig.core(Core::progress);
    assert_eq!(active(&rig), Some(two));
    let switch = second.of(Kind::SWITCH);
    assert_eq!(switch, [Header { dst: 2, ..Header::control(Kind::SWITCH, 1) }], "the flush was frame 0");
    assert!(session(&rig, |session| session.moving_to.is_none()));
    assert!(lives(&rig, one), "who follows closes none");
}

#[test]
fn who_decides_does_not_follow() {
    let (rig, one, _first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    rig.switches(two, &second, 2, 0);
    rig.core(Core::progress);
    assert!(session(&rig, |session| session.moving_to.is_none()));
    assert_eq!(active(&rig), Some(one));
}

#[test]
fn a_move_to_a_lane_that_is_lost_is_given_up() {
    let (rig, one, _first) = Rig::carried(GREATER);
    let (two, second) = rig.lane("two", 4096);
    rig.switches(two, &second, 2, 0);
    assert!(session(&rig, |session| session.moving_to == Some(two)));
    second.state().over = Some(sinew_transport::ErrorKind::Broken);
    rig.core(|core| core.poll_lane(two, 64));
    rig.core(Core::progress);
    assert!(session(&rig, |session| session.moving_to.is_none()));
    assert_eq!(active(&rig), Some(one));
    // Not when another one is lost.
    let (rig, _one, _first) = Rig::carried(GREATER);
    let ((two, second), (three, third)) = (rig.lane("two", 4096), rig.lane("three", 4096));
    rig.switches(two, &second, 2, 0);
    third.state().over = Some(sinew_transport::ErrorKind::Broken);
    rig.core(|core| core.poll_lane(three, 64));
    assert!(session(&rig, |session| session.moving_to == Some(two)));
    // The same when it is gone without a word.
    let (rig, _one, _first) = Rig::carried(GREATER);
    session(&rig, |session| session.moving_to = Some(two));
    assert!(rig.core(|core| core.try_move(rig.session)));
    assert!(session(&rig, |session| session.moving_to.is_none()));
}

#[test]
fn what_waits_to_be_sent_again_is_the_first_of_the_next_leg() {
    let (rig, _one, first) = Rig::carried(GREATER);
    let (two, second) = rig.lane("two", 4096);
    spare(&rig, two, &second);
    first.take();
    second.take();
    session(&rig, |session| {
        session.sent = 10;
        for number in 7..10 {
            session.replay.push_back(sinew_transport::Unacknowledged {
                header: Header::control(Kind::DONE, number),
                body: sinew_transport::UnacknowledgedBody::Owned(Vec::new()),
            });
        }
        session.moving_to = Some(two);
    });
    assert!(rig.core(|core| core.try_move(rig.session)));
    assert_eq!(second.of(Kind::SWITCH).first().map(|header| header.tag), Some(7));
}

#[test]
fn of_two_lanes_of_one_transport_who_decides_closes_the_one_that_neither_needs() {
    let cases = [(LESS, "one", true), (LESS, "other", false), (GREATER, "one", false)];
    for ((peer, transport, closes), many) in cases.into_iter().flat_map(|case| [(case, false), (case, true)])
    {
        let (rig, one, _first) = Rig::carried(peer);
        let (two, second) = rig.lane(transport, 4096);
        let further = many.then(|| rig.lane("further", 4096));
        assert!(lives(&rig, two), "the peer has not said that it can do without it");
        spare(&rig, two, &second);
        assert!(lives(&rig, one));
        // It is closed when it is not being polled any more.
        rig.core(|core| core.close_spares(rig.session));
        assert_eq!(lives(&rig, two), !closes, "{transport}, decides: {}", peer == LESS);
        if closes {
            assert_eq!(second.state().ever.last().map(|header| header.kind), Some(Kind::LANE_DOWN));
            let left: Vec<Key> = [one].into_iter().chain(further.map(|(lane, _)| lane)).collect();
            assert_eq!(session(&rig, |session| session.lanes.clone()), left);
        }
    }
}

#[test]
fn a_double_is_not_closed_while_the_peer_needs_it_or_the_session_moves() {
    let ways: [fn(&Rig, Key, Key); 4] = [
        // The peer sends on neither, as far as is known.
        |rig, one, _| rig.core(|core| core.lanes.get_mut(one).unwrap().inbound = false),
        |rig, _, two| rig.core(|core| core.lanes.get_mut(two).unwrap().spare = false),
        |rig, _, two| rig.core(|core| core.lanes.get_mut(two).unwrap().extra = true),
        |rig, one, _| session(rig, |session| session.moving_to = Some(one)),
    ];
    for (at, way) in ways.into_iter().enumerate() {
        let (rig, one, _first) = Rig::carried(LESS);
        let (two, _second) = rig.lane("one", 4096);
        rig.core(|core| {
            let slot = core.lanes.get_mut(two).unwrap();
            (slot.listening, slot.spare) = (true, true);
        });
        way(&rig, one, two);
        rig.core(|core| core.close_spares(rig.session));
        assert!(lives(&rig, two), "{at}");
    }
}

#[test]
fn who_follows_offers_all_lanes_but_the_one_that_it_hears_on() {
    for many in [false, true] {
        let (rig, one, first) = Rig::carried(GREATER);
        let (two, second) = rig.lane("one", 4096);
        let other = many.then(|| rig.lane("other", 4096).1);
        let all = [Some(first.clone()), Some(second.clone()), other.clone()];
        all.iter().flatten().for_each(|wire| drop(wire.take()));
        rig.switches(two, &second, 2, 0);
        for wire in [Some(first), other].into_iter().flatten() {
            let offered = wire.of(Kind::RESUME);
            assert_eq!(offered.len(), 1, "{one:?} can be closed now");
            assert_eq!((offered[0].src, offered[0].dst), (2, 0), "while the leg runs on another");
        }
        assert!(second.of(Kind::RESUME).is_empty());
    }
    // Who decides offers nothing.
    let (rig, _one, first) = Rig::carried(LESS);
    let (two, second) = rig.lane("one", 4096);
    first.take();
    rig.switches(two, &second, 2, 0);
    assert!(first.of(Kind::RESUME).is_empty());
}

/// A lane of five milliseconds carries the session, and one of a microsecond stands by.
#[test]
fn who_decides_goes_to_a_better_lane_that_the_peer_listens_on() {
    type Keep = fn(&Rig, Key, Key);
    let keeps: [(Keep, bool); 6] = [
        (|_, _, _| (), true),
        (|rig, _, two| rig.core(|core| core.lanes.get_mut(two).unwrap().proof.verified = false), false),
        (|rig, _, two| rig.core(|core| core.lanes.get_mut(two).unwrap().extra = true), false),
        (|rig, _, two| rig.core(|core| core.lanes.get_mut(two).unwrap().listening = false), false),
        (|rig, one, _| session(rig, |session| session.moving_to = Some(one)), false),
        (|rig, _, _| session(rig, |session| session.standing = Standing::Lost(OpError::Cancelled)), false),
    ];
    for (at, (keep, moves)) in keeps.into_iter().enumerate() {
        for peer in [LESS, GREATER] {
            let (rig, one, _first) = Rig::carried(peer);
            let (two, _second) = rig.lane("loopback", 4096);
            rig.core(|core| {
                let proof = &mut core.lanes.get_mut(one).unwrap().proof;
                (proof.rtt_ns, proof.recent) = (Some(5_300_000), [Some(5_300_000); RECENT]);
                let slot = core.lanes.get_mut(two).unwrap();
                slot.listening = true;
                slot.proof.recent = [Some(1000); RECENT];
            });
            keep(&rig, one, two);
            session(&rig, |session| session.ready = true);
            rig.core(|core| core.consider_move(rig.session));
            let moves = moves && peer == LESS;
            assert_eq!(session(&rig, |session| session.moving_to == Some(two)), moves, "{at} {peer:?}");
            assert_eq!(session(&rig, |session| session.ready), !moves, "{at}: what is sent now waits");
        }
    }
}
