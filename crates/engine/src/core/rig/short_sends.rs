//! The short way out: messages that go straight onto a lane, or share a frame, as long as nothing is in the way.

use super::{Rig, Wire, eager};
use crate::batch::Outgoing;
use crate::core::session::Session;
use crate::core::table::Key;
use crate::core::{Core, SELF_OWNER};
use sinew_wire::frame::{Header, Kind};
use sinew_wire::hello::Features;
use std::sync::Arc;

/// A lane in memory, or a socket; endpoints 1 and 2; a peer that takes bundles; two flows.
fn rig(transport: &'static str) -> (Rig, Key, Wire) {
    let (rig, lane, wire) = Rig::carried_by([0; 16], transport);
    rig.core(|core| {
        core.create_endpoint(None).unwrap();
        core.create_endpoint(None).unwrap();
        core.heat(lane);
        core.progress();
        let session = core.sessions.get_mut(rig.session).unwrap();
        session.peer.features = Features::BUNDLES;
        assert_eq!((session.flow_to(5), session.flow_to(6)), (0, 1));
    });
    wire.take();
    (rig, lane, wire)
}

fn memory() -> (Rig, Key, Wire) {
    rig(super::MEMORY)
}

fn from(src: u32, flow: u32) -> Header {
    Header { dst: 5 + flow, src, ..eager(9) }
}

/// Sends from endpoint 1 to the first flow.
fn send(core: &mut Core, session: Key, len: usize, staged: bool) -> bool {
    core.send_quick(session, 0, &from(1, 0), &vec![7; len], staged)
}

fn kinds(wire: &Wire) -> Vec<(Kind, u64)> {
    wire.take().iter().map(|(header, _)| (header.kind, header.tag)).collect()
}

fn session<R>(rig: &Rig, look: impl FnOnce(&mut Session) -> R) -> R {
    rig.core(|core| look(core.sessions.get_mut(rig.session).unwrap()))
}

#[test]
fn what_goes_the_short_way_is_in_the_books_afterwards() {
    let (rig, lane, wire) = memory();
    let books = || {
        rig.core(|core| {
            let frames = core.lanes.get(lane).unwrap().frames_sent;
            let session = core.sessions.get(rig.session).unwrap();
            let (sent, traffic, all) = (session.sent, session.traffic, session.bytes.sent());
            let flows = [0, 1].map(|flow: usize| session.flows[flow].bytes.sent());
            let ends = [1, 2].map(|number| {
                let endpoint = core.endpoint(number).unwrap();
                (endpoint.messages_sent, endpoint.bytes_sent)
            });
            (sent, traffic, frames, all, flows, ends)
        })
    };
    assert!(rig.core(|core| send(core, rig.session, 3, false)));
    let before = books();
    let flushed = wire.state().flushed;
    rig.core(|core| {
        assert!(send(core, rig.session, 10, false) && send(core, rig.session, 20, false));
        assert!(core.send_quick(rig.session, 0, &from(2, 0), &[1; 30], false), "from another endpoint");
        assert!(core.send_quick(rig.session, 1, &from(2, 1), &[1; 40], false), "to another");
        assert_eq!(wire.take().len(), 1 + 4, "at once, though they are short");
    });
    let after = books();
    let cost = |len: u64| len + 64;
    let first = cost(10) + cost(20) + cost(30);
    assert_eq!((after.0, after.1, after.2), (before.0 + 4, before.1 + 4, before.2 + 4));
    assert_eq!(after.3, before.3 + first + cost(40));
    assert_eq!(after.4, [before.4[0] + first, before.4[1] + cost(40)]);
    assert_eq!(after.5, [(3, 33), (2, 70)]);
    assert!(wire.state().flushed > flushed);
}

#[test]
fn a_message_goes_the_short_way_within_its_credit_and_what_travels_at_once() {
    let (rig, _lane, wire) = memory();
    rig.core(|core| Arc::make_mut(&mut core.config).eager_max = 100);
    for staged in [false, true] {
        rig.core(|core| {
            assert!(!send(core, rig.session, 101, staged));
            assert!(send(core, rig.session, 100, staged));
        });
    }
    rig.core(Core::progress);
    wire.take();
    for (left, fits) in [(10 + 64, true), (10 + 63, false)] {
        session(&rig, |session| {
            let rest = session.flows[0].bytes.available() - left;
            session.flows[0].bytes.take_afforded(rest);
        });
        assert_eq!(rig.core(|core| send(core, rig.session, 10, false)), fits, "{left}");
        session(&rig, |session| session.flows[0].bytes.give_back(u64::MAX));
    }
}

#[test]
fn what_is_in_the_way_of_a_message_keeps_it_from_the_short_way() {
    let changes: [fn(&mut Session); 4] = [
        |session| session.ready = false,
        |session| session.flows[0].pending.push_back(Key(77 << 32)),
        |session| session.flows[0].closed = true,
        |session| session.active = None,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        for staged in [false, true] {
            let (rig, _lane, wire) = memory();
            session(&rig, change);
            assert!(!rig.core(|core| send(core, rig.session, 10, staged)), "{at}");
            assert!(wire.take().is_empty());
            session(&rig, |session| session.flows[0].pending.clear());
        }
    }
    let (rig, lane, _wire) = memory();
    rig.core(|core| core.lanes.get_mut(lane).unwrap().owner = SELF_OWNER);
    assert!(!rig.core(|core| send(core, rig.session, 10, false)), "the lane to itself");
    let (rig, _lane, wire) = memory();
    wire.state().full = true;
    assert!(!rig.core(|core| send(core, rig.session, 10, false)));
}

#[test]
fn over_a_socket_messages_are_staged_only() {
    let (rig, _lane, wire) = rig("one");
    rig.core(|core| {
        assert!(!send(core, rig.session, 10, false));
        assert!(send(core, rig.session, 10, true));
        assert!(!send(core, rig.session, 10, false), "nor behind one that was staged");
        assert!(wire.take().is_empty());
    });
    rig.core(Core::progress);
    assert_eq!(kinds(&wire), [(Kind::EAGER, 9)]);
    assert!(session(&rig, |session| !session.dirty));
}

#[test]
fn short_messages_share_frames_and_longer_ones_go_behind_them() {
    let (rig, _lane, wire) = memory();
    rig.core(|core| {
        assert!(send(core, rig.session, 128, true) && send(core, rig.session, 128, true));
        assert!(wire.take().is_empty());
        assert!(send(core, rig.session, 129, true));
        assert_eq!(kinds(&wire), [(Kind::BUNDLE, 2), (Kind::EAGER, 9)]);
        // What is full goes when the next one comes.
        for _ in 0..32 {
            assert!(send(core, rig.session, 1, true));
        }
        assert!(wire.take().is_empty());
        assert!(send(core, rig.session, 1, true));
        assert_eq!(kinds(&wire), [(Kind::BUNDLE, 32)]);
    });
    rig.core(Core::progress);
    assert_eq!(kinds(&wire), [(Kind::EAGER, 9)]);
    // A peer that knows no bundles gets none.
    session(&rig, |session| session.peer.features = Features(0));
    rig.core(|core| {
        assert!(send(core, rig.session, 1, true));
        assert_eq!(kinds(&wire), [(Kind::EAGER, 9)]);
    });
    // There is no room for those that were packed: nothing overtakes them.
    let (rig, _lane, wire) = memory();
    rig.core(|core| {
        assert!(send(core, rig.session, 1, true) && send(core, rig.session, 2, true));
        wire.state().full = true;
        assert!(!send(core, rig.session, 129, true));
        wire.state().full = false;
        assert!(send(core, rig.session, 129, true));
        assert_eq!(kinds(&wire), [(Kind::BUNDLE, 2), (Kind::EAGER, 9)]);
    });
}

#[test]
fn a_run_of_a_batch_is_packed_as_far_as_it_goes() {
    let bytes = [7; 200];
    let of = |len: usize| Outgoing::tagged(3, &bytes[..len]);
    let run = |core: &mut Core, session: Key, messages: &[Outgoing<'_>]| {
        core.pack_run(session, 0, &from(1, 0), messages)
    };
    let (rig, _lane, wire) = memory();
    rig.core(|core| {
        assert_eq!(run(core, rig.session, &[of(1)]), 0, "there is no permit");
        assert!(send(core, rig.session, 1, true));
        assert_eq!(run(core, rig.session, &[of(1), of(128), of(129), of(1)]), 2);
        assert_eq!(run(core, rig.session, &[of(1), of(1).immediate(7), of(1)]), 1);
        assert_eq!(core.pack_run(rig.session, 1, &from(1, 1), &[of(1)]), 0, "of another flow");
        assert_eq!(core.pack_run(rig.session, 0, &from(2, 0), &[of(1)]), 0, "of another endpoint");
        assert_eq!(core.pack_run(Key(77 << 32), 0, &from(1, 0), &[of(1)]), 0, "of another session");
        assert_eq!(run(core, rig.session, &[of(1), of(1)]), 2);
        assert!(wire.take().is_empty());
    });
    rig.core(Core::progress);
    assert_eq!(kinds(&wire), [(Kind::BUNDLE, 6)]);
    assert_eq!(rig.core(|core| core.endpoint(1).map(|endpoint| endpoint.messages_sent)), Some(6));
    rig.core(|core| {
        Arc::make_mut(&mut core.config).eager_max = 100;
        assert!(send(core, rig.session, 1, true));
        assert_eq!(run(core, rig.session, &[of(100), of(101)]), 1);
    });
    rig.core(Core::progress);
    for (left, count) in [(3 * 74, 2), (3 * 74 - 1, 1)] {
        session(&rig, |session| {
            let rest = session.flows[0].bytes.available() - left;
            session.flows[0].bytes.take_afforded(rest);
        });
        rig.core(|core| {
            assert!(send(core, rig.session, 10, true));
            assert_eq!(run(core, rig.session, &[of(10), of(10), of(10)]), count, "{left}");
        });
        rig.core(Core::progress);
        session(&rig, |session| session.flows[0].bytes.give_back(u64::MAX));
    }
    // The next frame finds no room.
    wire.take();
    rig.core(|core| {
        assert!(send(core, rig.session, 1, true));
        wire.state().full = true;
        assert_eq!(run(core, rig.session, &[of(1); 40]), 31);
        wire.state().full = false;
    });
}
