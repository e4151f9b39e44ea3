//! The short way over a socket: what a blocking send gives to the system, and what a look asks it for.

use super::bundle::frame;
use super::{Rig, Wire, eager};
use crate::completion::Match;
use crate::core::table::Key;
use crate::core::{Core, Look};
use rustix::event::{EventfdFlags, eventfd};
use sinew_transport::{Interest, PollKey};
use sinew_wire::frame::Header;
use std::sync::Arc;

/// A socket that is read by looks, endpoint 1, and a flow to the peer's endpoint 5.
fn rig() -> (Rig, Key, Wire) {
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| {
        core.create_endpoint(None).unwrap();
        core.progress();
        core.hot_socket = Some(lane);
        assert_eq!(core.sessions.get_mut(rig.session).unwrap().flow_to(5), 0);
    });
    wire.state().reads = true;
    wire.take();
    (rig, lane, wire)
}

fn come(wire: &Wire, tags: impl IntoIterator<Item = u64>) {
    wire.state().arriving.extend(tags.into_iter().map(|tag| (eager(tag), vec![tag as u8; 4])));
}

fn look(core: &mut Core, tag: u64) -> Look {
    Rig::looks(core, 1, &Match::tag(tag), &mut [0; 8]).0
}

fn header() -> Header {
    Header { dst: 5, src: 1, ..eager(9) }
}

fn send(core: &mut Core, session: Key, len: usize) -> Option<bool> {
    core.send_through(session, 0, &header(), &vec![7; len])
}

#[test]
fn a_blocking_send_is_with_the_system_at_once_and_in_the_books_later() {
    let (rig, lane, wire) = rig();
    let books = || {
        rig.core(|core| {
            let frames = core.lanes.get(lane).unwrap().frames_sent;
            let session = core.sessions.get(rig.session).unwrap();
            let flow = session.flows[0].bytes.sent();
            let (sent, traffic, all) = (session.sent, session.traffic, session.bytes.sent());
            let endpoint = core.endpoint(1).unwrap();
            (sent, traffic, frames, flow, all, endpoint.messages_sent, endpoint.bytes_sent)
        })
    };
    let (before, flushed) = (books(), wire.state().flushed);
    rig.core(|core| {
        assert_eq!(send(core, rig.session, 10), Some(false));
        assert_eq!(wire.take().len(), 1);
        assert_eq!(wire.state().flushed, flushed + 1);
        assert_eq!(send(core, rig.session, 20), Some(false));
        core.settle();
        assert!(core.dirty.is_empty(), "nothing waits");
    });
    let (cost, after) = (30 + 2 * 64, books());
    assert_eq!((after.0, after.1, after.2), (before.0 + 2, before.1 + 2, before.2 + 2));
    assert_eq!((after.3, after.4), (before.3 + cost, before.4 + cost));
    assert_eq!((after.5, after.6), (before.5 + 2, before.6 + 30));
}

#[test]
fn what_was_staged_goes_with_the_send_behind_it_and_what_is_staged_later_waits() {
    let (rig, _lane, wire) = rig();
    let stage = |core: &mut Core| assert!(core.send_quick(rig.session, 0, &header(), &[1; 3], true));
    rig.core(|core| {
        stage(core);
        assert_eq!(send(core, rig.session, 10), Some(false));
        let lens: Vec<usize> = wire.take().iter().map(|(_, body)| body.len()).collect();
        assert_eq!(lens, [3, 10]);
        core.settle();
        assert!(core.dirty.is_empty(), "both are with the system");
        assert_eq!(send(core, rig.session, 10), Some(false));
        stage(core);
        core.settle();
        assert!(!core.dirty.is_empty(), "it goes out with the next progress");
    });
}

#[test]
fn what_is_in_the_way_of_a_blocking_send_leaves_it_to_the_long_way() {
    let (rig, _lane, wire) = rig();
    rig.core(|core| {
        Arc::make_mut(&mut core.config).eager_max = 100;
        assert_eq!(send(core, rig.session, 101), None);
        wire.state().full = true;
        assert_eq!(send(core, rig.session, 100), None);
        wire.state().full = false;
        core.settle();
        let sent = core.sessions.get(rig.session).unwrap().sent;
        let session = core.sessions.get_mut(rig.session).unwrap();
        let rest = session.flows[0].bytes.available() - (10 + 63);
        session.flows[0].bytes.take_afforded(rest);
        assert_eq!(send(core, rig.session, 10), None, "no credit");
        assert_eq!(send(core, rig.session, 9), Some(false));
        core.settle();
        assert_eq!(core.sessions.get(rig.session).unwrap().sent, sent + 1);
    });
    assert_eq!(wire.take().len(), 1);
    let (rig, _lane, wire) = Rig::hot();
    rig.core(|core| {
        core.sessions.get_mut(rig.session).unwrap().flow_to(5);
        assert_eq!(send(core, rig.session, 10), None, "a lane in memory");
    });
    assert!(wire.take().is_empty());
}

#[test]
fn a_full_socket_is_told_and_one_that_fails_gives_the_message_to_the_next_lane() {
    let (rig, lane, wire) = rig();
    wire.state().held_up = true;
    assert_eq!(rig.core(|core| send(core, rig.session, 10)), Some(true));
    wire.take();
    wire.state().flush_fails = true;
    rig.core(|core| {
        assert!(send(core, rig.session, 10).is_some(), "it will be sent again");
        assert!(core.lanes.get(lane).is_none());
        let session = core.sessions.get(rig.session).unwrap();
        assert_eq!((session.sent, session.replay.len()), (2, 1));
        assert_eq!(send(core, rig.session, 10), None);
    });
}

#[test]
fn another_endpoint_or_flow_is_counted_by_itself() {
    let (rig, _lane, _wire) = rig();
    rig.core(|core| {
        assert_eq!(core.create_endpoint(None).unwrap(), 2);
        assert_eq!(core.sessions.get_mut(rig.session).unwrap().flow_to(6), 1);
        core.progress();
        // From one to the next only one of both changes.
        let sends = [(0, 1, 5, 1), (0, 2, 5, 2), (1, 2, 6, 4), (1, 1, 6, 8), (0, 1, 5, 16)];
        for (flow, src, dst, len) in sends {
            let header = Header { dst, src, ..eager(9) };
            assert_eq!(core.send_through(rig.session, flow, &header, &vec![7; len]), Some(false));
        }
        core.settle();
        let session = core.sessions.get(rig.session).unwrap();
        assert_eq!([0, 1].map(|flow: usize| session.flows[flow].bytes.sent()), [19 + 3 * 64, 12 + 2 * 64]);
        assert_eq!([1, 2].map(|endpoint| core.endpoint(endpoint).unwrap().bytes_sent), [25, 6]);
    });
}

#[test]
fn a_look_asks_the_system_and_takes_what_its_receive_wants() {
    let (rig, _lane, wire) = rig();
    rig.core(|core| {
        core.idle_turns = 32;
        assert!(matches!(look(core, 1), Look::Dry));
        assert_eq!(wire.state().asked_system, 16);
        assert_eq!(core.idle_turns, 32 + 15, "with the turn that follows it counts as sixteen");
        let polls = wire.state().polls;
        come(&wire, [1]);
        let before = core.sessions.get(rig.session).unwrap().received;
        assert!(Rig::takes(core, 1, &mut [0; 8]).is_some());
        come(&wire, [2]);
        assert!(Rig::takes(core, 2, &mut [0; 8]).is_some());
        core.settle();
        assert_eq!(core.sessions.get(rig.session).unwrap().received, before + 2);
        assert_eq!((wire.state().polls, core.behind.len()), (polls, 0));
        assert!(core.arm(), "nothing keeps a thread from sleep");
        core.disarm();
    });
}

/// No descriptor tells of what a look has read: the next turn hands it up, and nobody sleeps before.
#[test]
fn what_a_look_has_read_for_somebody_else_is_not_forgotten() {
    for for_polls in [false, true] {
        let (rig, _lane, wire) = rig();
        wire.state().reads_for_polls = for_polls;
        come(&wire, [3]);
        rig.core(|core| {
            assert!(matches!(look(core, 1), Look::Behind));
            assert!(core.effects.any(), "sleepers are told");
            assert!(matches!(look(core, 1), Look::Behind));
            core.settle();
            assert_eq!(core.behind.len(), 1);
            assert!(!core.arm());
            core.disarm();
            core.turn(1);
            assert_eq!((core.counters.unexpected, core.behind.len()), (1, 0));
            assert!(matches!(look(core, 1), Look::Dry));
        });
    }
    // Where nothing was read there is nothing to leave: the long way looks.
    let (rig, _lane, wire) = rig();
    wire.state().reads = false;
    rig.core(|core| {
        assert!(matches!(look(core, 1), Look::Away));
        assert!(core.behind.is_empty());
    });
}

/// A turn leaves the lane of an open bundle alone. What that lane has more is handed up when nobody keeps the bundle any more.
#[test]
fn what_a_lane_has_behind_an_open_bundle_is_not_forgotten() {
    let (rig, _lane, wire) = rig();
    {
        let mut state = wire.state();
        (state.reads, state.peeks) = (false, true);
    }
    let (bundle, body) = frame([5, 6]);
    come(&wire, [3]);
    wire.state().arriving.push_back((Header { dst: 1, ..bundle }, body));
    come(&wire, [7]);
    let third = rig.post(3, 8);
    let (other, second) = rig.lane("two", 4096);
    rig.core(|core| {
        core.turn(1);
        assert_eq!((core.counters.unexpected, core.behind.len()), (0, 1));
        assert!(!matches!(look(core, 9), Look::Done));
        assert!(!core.taking.is_empty(), "the bundle is taken in");
        // The socket that was busy last is another one.
        core.hot_socket = None;
        core.lanes.get_mut(other).unwrap().behind = true;
        core.behind.push_back(other);
        let polls = second.state().polls;
        core.turn_settled(1);
        assert_eq!(second.state().polls, polls + 1, "its bundle holds no other lane up");
        assert_eq!(core.behind.len(), 1, "there is one more");
        core.settle();
        core.turn(64);
        assert_eq!((core.counters.unexpected, core.behind.len()), (3, 0));
    });
    assert_eq!(rig.got(third), Some(vec![3; 4]));
}

/// Looks and turns of a caller that waits, as `Shared::recv_direct` takes them.
fn waits(rig: &Rig, (lane, wire): (Key, &Wire), looks: u32, comes_each: Option<u32>) {
    for number in 0..looks {
        // A look at descriptors may have found another one busy.
        rig.core(|core| core.hot_socket = Some(lane));
        if comes_each.is_some_and(|each| number % each == 0) {
            come(wire, [1]);
        }
        if !rig.core(|core| matches!(look(core, 1), Look::Done)) {
            rig.in_turn(1, &mut [0; 8], |_| ());
        }
    }
}

#[test]
fn looks_at_one_socket_do_not_keep_the_engine_from_its_other_descriptors() {
    for comes_each in [Some(1), Some(2), Some(7), None] {
        let (rig, lane, wire) = rig();
        let (other, second) = rig.lane("two", 4096);
        let event = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let polls = rig.core(|core| {
            let owner = core.lanes.get(other).unwrap().owner;
            core.poller.add(&event, PollKey { owner, sub: 0 }, Interest::READ).unwrap();
            second.state().polls
        });
        waits(&rig, (lane, &wire), 600, comes_each);
        let polls = second.state().polls - polls;
        assert!(polls >= 1, "{comes_each:?}: it was looked at {polls} times");
        rig.core(|core| core.poller.remove(&event).unwrap());
    }
}
