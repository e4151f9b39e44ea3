//! How lanes are polled: what is left over when a budget is spent, what ended meanwhile, and which are polled no more.

use super::bundle::frame;
use super::{MEMORY, Rig, Wire};
use crate::core::bundle::Origin;
use crate::core::lanes::BUDGET;
use crate::core::table::Key;
use sinew_transport::{Body, Token};
use sinew_wire::frame::{Flags, Header, Kind};

const LESS: [u8; 16] = [0; 16];

fn eager() -> Header {
    Header { kind: Kind::EAGER, flags: Flags(0), dst: 1, src: 3, tag: 9 }
}

fn received(rig: &Rig) -> u64 {
    rig.core(|core| core.sessions.get(rig.session).unwrap().received)
}

#[test]
fn what_a_budget_leaves_is_taken_later_though_no_descriptor_tells_of_it() {
    let (rig, lane, wire) = Rig::carried(LESS);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    wire.state().arriving.extend((0..4).map(|_| (eager(), Vec::new())));
    rig.core(|core| {
        assert_eq!(core.poll_lane(lane, 1), 1);
        assert_eq!(core.behind, [lane]);
        assert_eq!(core.poll_lane(lane, 1), 1);
        assert_eq!(core.behind, [lane], "once");
        assert_eq!(core.poll_behind(1), 1);
        assert_eq!(core.behind, [lane]);
        assert_eq!(core.poll_behind(1), 1);
        assert!(core.behind.is_empty());
        assert_eq!(core.poll_behind(1), 0);
    });
    assert_eq!(received(&rig), 4);
    // Two lanes at once: both are taken from, and all that they brought is counted.
    let (two, second) = rig.lane("two", 4096);
    for wire in [&wire, &second] {
        wire.state()
            .arriving
            .extend((0..2).map(|at| (Header::control(Kind::LANE_DOWN, 70 + at), Vec::new())));
    }
    rig.core(|core| {
        assert_eq!((core.poll_lane(lane, 1), core.poll_lane(two, 1)), (1, 1));
        assert_eq!(core.poll_behind(BUDGET), 2);
        assert!(core.behind.is_empty());
    });
}

/// What it brings is younger than what is left of its bundles, and is for whoever takes those.
#[test]
fn a_lane_with_something_left_of_a_bundle_is_left_out_and_no_other() {
    let (rig, one, first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    let (bundle, body) = frame([1, 2]);
    first.state().arriving.push_back((eager(), Vec::new()));
    second.state().arriving.push_back((Header::control(Kind::LANE_DOWN, 77), Vec::new()));
    rig.core(|core| {
        let origin = Origin { session: rig.session, lane: one, engine: 1, number: 0 };
        let bundle = Header { dst: 1, ..bundle };
        assert!(core.taking.open(origin, &bundle, Body::from_slice(&body), u64::MAX));
        assert_eq!(core.poll_lane(one, BUDGET), 0);
        assert_eq!((first.state().arriving.len(), core.counters.unexpected), (1, 0));
        assert_eq!(core.poll_lane(two, BUDGET), 1);
        assert!(core.taking.is_empty());
        assert_eq!(core.counters.unexpected, 2, "they came before that");
        assert_eq!(core.poll_lane(one, BUDGET), 1);
        assert_eq!(core.counters.unexpected, 3);
    });
}

#[test]
fn a_lane_that_brings_something_is_looked_at_by_timers() {
    let (rig, lane, wire) = Rig::carried(LESS);
    let astir = || rig.core(|core| core.astir.contains(&lane));
    rig.core(|core| {
        core.astir.clear();
        core.lanes.get_mut(lane).unwrap().astir = false;
    });
    rig.core(|core| core.poll_lane(lane, 1));
    assert!(!astir(), "nothing has come");
    rig.comes(lane, &wire, Header::control(Kind::WITHDRAW, 1), &[]);
    assert!(astir());
}

#[test]
fn each_lane_forgets_what_ended_while_it_was_polled() {
    let (rig, one, _first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    rig.core(|core| {
        core.revoked = vec![(one, Token(1)), (two, Token(2)), (two, Token(3))];
        core.poll_lane(two, 1);
        assert_eq!(core.revoked, [(one, Token(1))]);
        core.revoked.clear();
    });
    assert_eq!(second.state().revoked, [Token(2), Token(3)]);
}

/// Frames outside the sequence may be handed up together with such as do not count, of a leg that was begun elsewhere since.
#[test]
fn what_comes_on_a_lane_of_no_leg_does_not_count() {
    let (rig, _one, _first) = Rig::carried(LESS);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    let (two, second) = rig.lane("two", 4096);
    second.state().arriving.push_back((Header::control(Kind::LANE_DOWN, 77), Vec::new()));
    rig.comes(two, &second, eager(), b"late");
    assert_eq!(received(&rig), 0);
    assert!(!rig.core(|core| core.endpoint(1).is_some_and(|endpoint| endpoint.matcher.has_unexpected())));
    // Once a leg runs there it does, also in the same poll.
    second.state().arriving.push_back((Header { dst: 2, ..Header::control(Kind::SWITCH, 0) }, Vec::new()));
    rig.comes(two, &second, eager(), b"counts");
    assert_eq!(received(&rig), 1);
}

#[test]
fn one_of_many_lanes_in_memory_is_polled_no_more_when_nothing_comes_for_long() {
    let rig = Rig::new(LESS);
    let lanes: Vec<(Key, Wire)> = (0..4).map(|_| rig.lane(MEMORY, 4096)).collect();
    let (socket, _wire) = rig.lane("one", 4096);
    for lane in lanes.iter().map(|(lane, _)| *lane).chain([socket, socket]) {
        rig.core(|core| core.heat(lane));
    }
    rig.core(|core| core.heat(lanes[0].0));
    assert_eq!(rig.core(|core| core.hot.len()), 4, "each once, and no socket");
    let idles = |lane: Key, turns: u32| {
        for _ in 0..turns {
            assert_eq!(rig.core(|core| core.poll_lane(lane, 1)), 0);
        }
    };
    let cooled = |wire: &Wire| wire.state().cooled;
    idles(lanes[0].0, 4096);
    assert!(!cooled(&lanes[0].1), "they are few");
    let (fifth, wire) = rig.lane(MEMORY, 4096);
    rig.core(|core| core.heat(fifth));
    idles(lanes[0].0, 4095);
    assert!(!cooled(&lanes[0].1), "not for so long");
    idles(lanes[0].0, 1);
    assert!(cooled(&lanes[0].1));
    assert!(
        rig.core(|core| core.hot.len() == 4 && !core.hot.contains(&lanes[0].0) && core.hot.contains(&fifth))
    );
    idles(fifth, 4096);
    assert!(!cooled(&wire), "few are left");
    // Something has come for it.
    rig.core(|core| core.heat(lanes[0].0));
    assert!(rig.core(|core| core.hot.contains(&lanes[0].0)));
}

#[test]
fn what_waits_in_the_active_lane_or_for_room_on_it_is_held_up() {
    let (rig, _one, first) = Rig::carried(LESS);
    let (_two, second) = rig.lane("two", 4096);
    let held_up = || rig.core(|core| core.is_held_up(rig.session));
    assert!(!held_up());
    second.state().held_up = true;
    assert!(!held_up(), "nothing goes there");
    first.state().held_up = true;
    assert!(held_up());
    first.state().held_up = false;
    rig.core(|core| core.sessions.get_mut(rig.session).unwrap().parked = Some(Box::default()));
    assert!(held_up());
}
