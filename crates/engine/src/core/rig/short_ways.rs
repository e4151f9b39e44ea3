//! The short ways: messages that are taken from a lane in memory where they lie, as long as nothing is in the way.

use super::bundle::frame;
use super::{Rig, Wire, Woken, eager};
use crate::batch::Receive;
use crate::completion::{Match, Source};
use crate::core::op::{Memory, Op, SendOp, SendState};
use crate::core::rendezvous::Status;
use crate::core::table::Key;
use crate::core::{Core, Look};
use sinew_wire::frame::{Flags, Header, Kind};
use std::sync::Arc;
use std::task::Waker;

/// A lane that shows its frames.
fn rig() -> (Rig, Key, Wire) {
    let (rig, lane, wire) = Rig::hot();
    wire.state().peeks = true;
    (rig, lane, wire)
}

fn come(wire: &Wire, tags: impl IntoIterator<Item = u64>) {
    wire.state().arriving.extend(tags.into_iter().map(|tag| (eager(tag), vec![tag as u8; 4])));
}

fn comes_bundle(wire: &Wire, tags: impl IntoIterator<Item = u64>) {
    let (bundle, body) = frame(tags);
    wire.state().arriving.push_back((Header { dst: 1, ..bundle }, body));
}

fn post(core: &mut Core, tag: u64) -> Key {
    assert!(core.may_post_quick(1, &Match::tag(tag)));
    core.post_recv_quick(1, &Match::tag(tag), vec![0; 64].into())
}

#[test]
fn a_receive_is_posted_the_short_way_when_no_message_and_no_loss_is_to_be_seen() {
    let (rig, lane, wire) = rig();
    rig.core(|core| {
        assert!(core.may_post_quick(1, &Match::any_tag()));
        assert!(!core.may_post_quick(2, &Match::any_tag()), "there is no such endpoint");
        let source = Source::new(rig.session.0, 1, 3);
        assert!(!core.may_post_quick(1, &Match::any_tag().from(source)));
    });
    rig.comes(lane, &wire, eager(9), b"waits");
    rig.core(|core| assert!(!core.may_post_quick(1, &Match::any_tag())));
}

#[test]
fn messages_are_taken_until_the_receive_that_is_waited_for_has_its_own() {
    let (rig, _lane, wire) = rig();
    let keys = rig.core(|core| {
        let keys = [1, 2, 3, 7].map(|tag| post(core, tag));
        assert!(!core.deliver_until(1, keys[0]), "nothing has come");
        come(&wire, [1, 2, 3, 4]);
        assert!(core.deliver_until(1, keys[1]));
        assert_eq!(keys.map(|key| core.is_over(key)), [true, true, false, false]);
        assert!(!core.deliver_until(1, keys[3]), "the last one is for somebody else");
        assert_eq!(keys.map(|key| core.is_over(key)), [true, true, true, false]);
        keys
    });
    rig.core(Core::progress);
    assert_eq!(
        keys[..3].iter().map(|&key| rig.got(key)).collect::<Vec<_>>(),
        [1, 2, 3].map(|tag| Some(vec![tag; 4]))
    );
    let counted = rig.core(|core| {
        let endpoint = core.endpoint(1).unwrap();
        (endpoint.messages_received, core.counters.unexpected)
    });
    assert_eq!(counted, (4, 1));
}

/// What a waker does may end the call: nothing more is taken out of the engine before.
#[test]
fn who_is_to_be_told_is_told_before_the_next_message_is_taken() {
    let (rig, _lane, wire) = rig();
    let woken = Arc::new(Woken::default());
    let [watched, mine] = rig.core(|core| [1, 2].map(|tag| post(core, tag)));
    rig.core(|core| core.set_waker(watched, &Waker::from(Arc::clone(&woken))));
    come(&wire, [1, 2]);
    rig.core(|core| {
        assert!(!core.deliver_until(1, mine));
        assert!(core.is_over(watched) && !core.is_over(mine));
        assert!(core.effects.must_run());
    });
    assert_eq!(woken.times(), 1);
    assert!(rig.core(|core| core.deliver_until(1, mine)));
}

#[test]
fn the_word_that_a_loan_is_over_ends_its_send_and_the_wait_for_that() {
    let (rig, _lane, wire) = rig();
    let lend = || {
        let memory = Memory::Owned(vec![1; 10].into());
        let op =
            SendOp { state: SendState::Announced, ..SendOp::new((rig.session, 0), eager(9), None, memory) };
        rig.core(|core| core.ops.insert(Op::Send(op)))
    };
    let (other, mine) = (lend(), lend());
    let returned = |key: Key| {
        let body = (Status::Taken as u32).to_le_bytes().to_vec();
        wire.state().arriving.push_back((Header::control(Kind::DONE, key.0), body));
    };
    returned(other);
    rig.core(|core| {
        assert!(!core.deliver_until(1, mine));
        assert!(core.is_over(other) && !core.is_over(mine));
    });
    returned(mine);
    assert!(rig.core(|core| core.deliver_until(1, mine)));
}

#[test]
fn a_bundle_is_given_to_the_receives_that_want_its_messages_in_order() {
    let (rig, _lane, wire) = rig();
    let keys = rig.core(|core| {
        let keys = [1, 2, 3, 4].map(|tag| post(core, tag));
        comes_bundle(&wire, [1, 2, 3]);
        assert!(core.deliver_until(1, keys[1]), "with all that lies behind it");
        assert_eq!(keys.map(|key| core.is_over(key)), [true, true, true, false]);
        comes_bundle(&wire, [4, 5, 6]);
        assert!(core.deliver_until(1, keys[3]));
        // Nobody wants the others yet: they are for this endpoint, whoever looks.
        assert!(!core.taking.is_empty());
        assert!(!core.deliver_until(1, keys[3]));
        assert!(!core.deliver_until(2, keys[3]));
        assert!(!core.taking.is_empty());
        keys
    });
    assert_eq!(rig.got(keys[2]), Some(vec![3; 3]));
    assert_eq!(rig.got(keys[3]), Some(vec![4; 4]));
    assert_eq!(rig.core(|core| core.counters.unexpected), 2);
}

#[test]
fn a_look_takes_what_its_receive_wants_and_nothing_else() {
    let wants = |pattern: Match, header: Header| {
        let (rig, _lane, wire) = rig();
        wire.state().arriving.push_back((header, vec![1; 4]));
        rig.core(|core| Rig::takes(core, pattern, &mut [0; 8]).is_some())
    };
    assert!(wants(Match::tag(0x13), eager(0x13)) && !wants(Match::tag(0x13), eager(0x12)));
    assert!(wants(Match::tag(0x10).ignoring(0x0f), eager(0x13)));
    assert!(!wants(Match::tag(0x10).ignoring(0x0f), eager(0x23)));
    assert!(wants(Match::any_tag(), eager(u64::MAX)) && wants(Match::any_tag(), eager(0)));
    let untagged = Header { flags: Flags::UNTAGGED, ..eager(0) };
    assert!(wants(Match::untagged(), untagged) && !wants(Match::untagged(), eager(0)));
    assert!(!wants(Match::any_tag(), untagged));
    // Longer than the room, for another endpoint, or not plain: it is left to the long way.
    assert!(!wants(Match::any_tag(), Header { dst: 2, ..eager(9) }));
    for flag in [Flags::IMMEDIATE, Flags::RESERVE] {
        assert!(!wants(Match::any_tag(), Header { flags: flag, ..eager(9) }), "{flag:?}");
    }
    let (rig, _lane, wire) = rig();
    come(&wire, [9]);
    rig.core(|core| {
        assert!(Rig::takes(core, 9, &mut [0; 3]).is_none());
        assert_eq!(Rig::takes(core, 9, &mut [0; 4]).map(|info| info.len), Some(4));
    });
}

/// What is under a permit comes into the books when that is settled, and the peer hears of credit.
#[test]
fn what_was_taken_the_short_way_is_in_the_books_afterwards() {
    let (rig, lane, wire) = rig();
    let books = || {
        rig.core(|core| {
            let slot = core.lanes.get(lane).unwrap();
            let frames = slot.frames_received;
            let session = core.sessions.get(rig.session).unwrap();
            let (received, traffic) = (session.received, session.traffic);
            let endpoint = core.endpoint(1).unwrap();
            (frames, received, traffic, endpoint.messages_received, endpoint.bytes_received)
        })
    };
    come(&wire, [1]);
    assert!(rig.core(|core| Rig::takes(core, 1, &mut [0; 8]).is_some()));
    let before = books();
    come(&wire, [1, 2]);
    comes_bundle(&wire, [3, 3]);
    rig.core(|core| {
        core.lanes.get_mut(lane).unwrap().idle = 7;
        let mut buf = [0; 8];
        let one = Rig::takes(core, 1, &mut buf).expect("it is there");
        assert_eq!((&buf[..4], one.tag, one.immediate), (&[1; 4][..], 1, None));
        assert_eq!((one.source.session(), one.source.engine(), one.source.endpoint()), (rig.session.0, 1, 3));
        assert!(Rig::takes(core, 2, &mut buf).is_some());
        assert!(Rig::takes(core, 3, &mut buf).is_some() && Rig::takes(core, 3, &mut buf).is_some());
    });
    let after = books();
    let frames = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
    assert_eq!((frames, after.3 - before.3, after.4 - before.4), ((3, 3, 3), 4, 4 + 4 + 6));
    assert_eq!(rig.core(|core| core.lanes.get(lane).unwrap().idle), 0);
}

#[test]
fn each_message_that_is_taken_has_its_place_in_its_session() {
    let (rig, _lane, wire) = rig();
    let before = rig.core(|core| core.sessions.get(rig.session).unwrap().received);
    let keys = rig.core(|core| [1, 2, 3, 4].map(|tag| post(core, tag)));
    come(&wire, [1, 2]);
    comes_bundle(&wire, [3, 4]);
    let places = rig.core(|core| {
        assert!(core.deliver_until(1, keys[3]));
        keys.map(|key| match core.ops.get(key) {
            Some(Op::Recv(op)) => op.number,
            _ => panic!("it is there"),
        })
    });
    // Of up to 32 messages in each frame.
    let first = |frame: u64| (before + frame) * 32;
    assert_eq!(places, [first(1), first(2), first(3), first(3) + 1]);
}

#[test]
fn the_peer_is_given_credit_for_half_a_window_that_was_taken_the_short_way() {
    for narrow in [false, true] {
        let (rig, _lane, wire) = rig();
        rig.core(|core| {
            if narrow {
                // Other endpoints have taken nearly half of what is shared.
                let session = core.sessions.get_mut(rig.session).unwrap();
                session.granted_bytes.pass(core.config.windows.session_bytes / 2 - 1024).unwrap();
            }
        });
        let windows = rig.core(|core| core.config.windows);
        let most = if narrow { 1024 } else { windows.endpoint_bytes / 2 };
        // Not more: what goes beyond is left to the long way.
        assert!(most.is_multiple_of(512));
        let mut taken = 0;
        while taken < most {
            assert!(wire.of(Kind::CREDIT).is_empty(), "{taken} of {most}");
            wire.state().arriving.push_back((eager(9), vec![1; 448]));
            let took = rig.core(|core| {
                // Not one that is to look at everything.
                core.turns = 0;
                Rig::takes(core, 9, &mut [0; 448]).is_some()
            });
            assert!(took, "{taken} of {most}");
            rig.core(Core::progress);
            taken += 512;
        }
        assert_eq!(wire.of(Kind::CREDIT).len(), 2, "of the session and of the endpoint");
    }
}

#[test]
fn no_message_is_taken_the_short_way_beyond_its_credit() {
    for (left, fits) in [(100 + 64, true), (100 + 63, false)] {
        let (rig, _lane, wire) = rig();
        wire.state().arriving.push_back((eager(9), vec![1; 100]));
        rig.core(|core| {
            let windows = core.config.windows;
            let credit = &mut core.endpoint(1).unwrap().inflow(rig.session, &windows).bytes;
            credit.receive(windows.endpoint_bytes - left).unwrap();
            assert_eq!(Rig::takes(core, 9, &mut [0; 100]).is_some(), fits, "{left}");
        });
    }
}

#[test]
fn what_is_to_be_done_first_keeps_from_the_short_way() {
    let changes: [fn(&mut Core, Key, Key); 4] = [
        |core, _, session| core.mark_dirty(session),
        |core, _, _| core.pulls.push(Key(77 << 32)),
        |core, lane, _| core.lanes.get_mut(lane).unwrap().inbound = false,
        |core, lane, _| {
            let slot = core.lanes.get_mut(lane).unwrap();
            slot.waiting.push((Header::control(Kind::LANE_DOWN, 77), Vec::new()));
        },
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let (rig, lane, wire) = rig();
        come(&wire, [9]);
        rig.core(|core| {
            change(core, lane, rig.session);
            assert!(Rig::takes(core, 9, &mut [0; 8]).is_none(), "{at}");
        });
    }
    // Messages that wait came before what the lane has.
    let (rig, lane, wire) = rig();
    wire.state().peeks = false;
    rig.comes(lane, &wire, eager(8), b"waits");
    wire.state().peeks = true;
    come(&wire, [8, 9]);
    rig.core(|core| {
        assert!(Rig::takes(core, 8, &mut [0; 8]).is_none());
        assert!(Rig::takes(core, Match::any_tag(), &mut [0; 8]).is_none());
    });
    let (rig, lane, wire) = self::rig();
    wire.state().peeks = false;
    rig.comes(lane, &wire, eager(8), b"waits");
    wire.state().peeks = true;
    come(&wire, [9]);
    assert!(rig.core(|core| Rig::takes(core, 9, &mut [0; 8]).is_some()), "it is for another");
}

#[test]
fn a_run_of_a_bundle_fills_the_receives_that_want_it_in_order() {
    let (rig, _lane, wire) = rig();
    let run = |core: &mut Core, tags: &[u64], room: usize, first: usize| {
        let mut bufs = vec![vec![0; room]; tags.len()];
        let mut receives: Vec<Receive<'_>> =
            tags.iter().zip(&mut bufs).map(|(&tag, buf)| Receive::new(tag, buf)).collect();
        let mut at = first;
        let some = core.receive_run(1, &mut receives, &mut at);
        (some, at, receives.iter().filter(|receive| receive.completion().is_some()).count())
    };
    come(&wire, [9]);
    rig.core(|core| {
        assert_eq!(run(core, &[1], 8, 0), (false, 0, 0), "there is no permit");
        assert!(Rig::takes(core, 9, &mut [0; 8]).is_some());
        comes_bundle(&wire, [1, 2, 3, 4, 5]);
        assert!(Rig::takes(core, 1, &mut [0; 8]).is_some());
        assert_eq!(run(core, &[2, 7, 3], 8, 0), (true, 1, 1), "up to one that is not there");
        assert_eq!(run(core, &[3], 2, 0), (false, 0, 0), "it is longer");
        assert!(!core.receive_run(2, &mut [], &mut 0), "of another endpoint");
        assert_eq!(run(core, &[0, 3, 4], 4, 1), (true, 3, 2), "all that are left");
    });
    let counted = rig.core(|core| core.endpoint(1).map(|endpoint| endpoint.messages_received));
    assert_eq!(counted, Some(6));
    // Those that have ended before are passed over; another endpoint gets nothing.
    let (rig, _lane, wire) = self::rig();
    rig.core(|core| {
        core.create_endpoint(None).unwrap();
        comes_bundle(&wire, [1, 2, 3]);
        assert!(Rig::takes(core, 1, &mut [0; 8]).is_some());
        let mut bufs = [[0; 8]; 3];
        let mut receives = bufs.each_mut().map(|buf| Receive::new(Match::any_tag(), buf));
        assert!(!core.receive_run(2, &mut receives, &mut 0));
        assert!(core.receive_run(1, &mut receives[..1], &mut 0));
        let mut at = 0;
        assert!(core.receive_run(1, &mut receives, &mut at));
        assert_eq!(at, 2, "as far as there are messages");
    });
    // Another receive may want one of them: the run ends before it.
    let (rig, _lane, wire) = self::rig();
    let other = rig.post(2, 8);
    comes_bundle(&wire, [1, 2]);
    rig.core(|core| {
        assert!(Rig::takes(core, 1, &mut [0; 8]).is_some());
        assert_eq!(run(core, &[2], 8, 0), (false, 0, 0));
    });
    assert_eq!(rig.got(other), Some(vec![2; 2]));
}

#[test]
fn calls_look_the_short_way_when_there_is_something_to_look_at() {
    let may = |rig: &Rig, pattern: Match| rig.core(|core| core.may_receive_quick(1, &pattern));
    let (rig, lane, wire) = rig();
    assert!(may(&rig, Match::tag(9)));
    let source = Source::new(rig.session.0, 1, 3);
    assert!(!may(&rig, Match::tag(9).from(source)), "it may be lost");
    wire.state().peeks = false;
    rig.comes(lane, &wire, eager(8), b"waits");
    assert!(!may(&rig, Match::tag(9)), "what waits came before");
    // A socket: while it has frames in memory.
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| {
        core.create_endpoint(None).unwrap();
        core.progress();
        core.hot_socket = Some(lane);
    });
    wire.state().peeks = true;
    assert!(!may(&rig, Match::tag(9)));
    rig.core(|core| assert!(matches!(Rig::looks(core, 1, &Match::tag(9), &mut [0; 8]).0, Look::Dry)));
    come(&wire, [9]);
    assert!(may(&rig, Match::tag(9)));
    rig.core(|core| assert!(Rig::takes(core, 9, &mut [0; 8]).is_some()));
    // With a lane in memory there is a turn of progress to take at least.
    let (rig, ..) = self::rig();
    rig.core(|core| {
        core.mark_dirty(rig.session);
        assert!(matches!(Rig::looks(core, 1, &Match::tag(9), &mut [0; 8]).0, Look::Aside));
    });
}

/// What is left of a bundle stays for who goes on looking, also after a turn of progress, and for nobody else.
#[test]
fn what_is_left_of_a_bundle_is_for_its_endpoint() {
    let (rig, lane, wire) = rig();
    let (other, _second) = rig.lane("two", 4096);
    rig.core(|core| {
        core.create_endpoint(None).unwrap();
        core.progress();
        comes_bundle(&wire, [1, 2, 3]);
        assert!(Rig::takes(core, 1, &mut [0; 8]).is_some());
        core.settle_but_bundles();
        // Another lane was busy meanwhile.
        core.last_hot = other;
        assert!(Rig::takes(core, 2, &mut [0; 8]).is_some());
        assert_eq!((core.permits.to_receive.lane, core.counters.unexpected), (lane, 0));
        core.settle_but_bundles();
        core.last_hot = lane;
        let endpoint = core.endpoint(1).unwrap();
        assert_eq!((endpoint.messages_received, endpoint.bytes_received), (2, 3), "also without a frame");
        assert!(!matches!(Rig::looks(core, 2, &Match::any_tag(), &mut [0; 8]).0, Look::Done));
        assert!(core.taking.is_empty());
        assert_eq!(core.counters.unexpected, 1, "it waits at its own");
        comes_bundle(&wire, [1, 2]);
    });
    assert!(rig.core(|core| Rig::takes(core, 3, &mut [0; 8]).is_none()));
    let (rig, _lane, wire) = self::rig();
    rig.core(|core| {
        comes_bundle(&wire, [1, 2]);
        assert!(Rig::takes(core, 1, &mut [0; 8]).is_some());
        core.settle_but_bundles();
        core.settle();
        assert!(core.taking.is_empty());
    });
}

#[test]
fn one_that_sends_and_receives_at_one_endpoint_is_in_the_books_for_both() {
    let (rig, _lane, wire) = rig();
    rig.core(|core| {
        core.sessions.get_mut(rig.session).unwrap().flow_to(5);
        let header = Header { dst: 5, src: 1, ..eager(9) };
        assert!(core.send_quick(rig.session, 0, &header, b"there", false));
        come(&wire, [1]);
        assert!(Rig::takes(core, 1, &mut [0; 8]).is_some());
        core.settle();
        let endpoint = core.endpoint(1).unwrap();
        assert_eq!((endpoint.messages_sent, endpoint.messages_received), (1, 1));
    });
}
