//! Long messages over several lanes: which lanes, how much on each, what a receive takes of it, and what a lost lane leaves.

use super::{Rig, Wire, eager, envelope, numbered_bytes, words};
use crate::core::op::{Memory, Op, SendOp, SendState};
use crate::core::session::Session;
use crate::core::stripes::{is_stripe, op_of, stripe_token};
use crate::core::table::Key;
use crate::core::{Core, LaneSlot};
use sinew_transport::{Body, LaneCount, Placement, Token, Unacknowledged, UnacknowledgedBody};
use sinew_wire::frame::{Header, Kind};
use sinew_wire::hello::Features;

/// A session over two lanes that share its long messages.
fn rig(frame_max: usize) -> (Rig, [Key; 2], [Wire; 2]) {
    let rig = Rig::new([0; 16]);
    let (one, first) = rig.lane("one", frame_max);
    rig.resumes(one, &first, 0, 0);
    rig.switches(one, &first, 1, 0);
    let (two, second) = rig.lane("one", frame_max);
    rig.core(|core| {
        core.create_endpoint(None).unwrap();
        (core.domains[0].name, core.domains[0].lanes) = ("one", LaneCount { min: 1, max: 4 });
        for lane in [one, two] {
            let slot = core.lanes.get_mut(lane).unwrap();
            (slot.joins, slot.listening) = (true, true);
        }
        let session = core.sessions.get_mut(rig.session).unwrap();
        (session.peer.features, session.stripes_welcome) = (Features::STRIPES, true);
        core.progress();
    });
    for wire in [&first, &second] {
        wire.state().counts = true;
        wire.take();
    }
    (rig, [one, two], [first, second])
}

fn session<R>(rig: &Rig, look: impl FnOnce(&mut Session) -> R) -> R {
    rig.core(|core| look(core.sessions.get_mut(rig.session).unwrap()))
}

fn slot<R>(rig: &Rig, lane: Key, look: impl FnOnce(&mut LaneSlot) -> R) -> R {
    rig.core(|core| look(core.lanes.get_mut(lane).unwrap()))
}

fn is_striped(rig: &Rig) -> bool {
    rig.core(|core| core.is_striped(rig.session))
}

fn carriers(rig: &Rig) -> Vec<Key> {
    rig.core(|core| core.carriers(rig.session).collect())
}

/// A send of `len` bytes to which lanes may refer.
fn sends(rig: &Rig, len: usize, references: u32) -> Key {
    rig.core(|core| {
        let flow = core.sessions.get_mut(rig.session).unwrap().flow_to(5);
        let memory = Memory::Owned(numbered_bytes(len).into());
        let op = SendOp {
            state: SendState::Announced,
            references,
            stripes: references,
            ..SendOp::new((rig.session, flow), eager(9), None, memory)
        };
        core.ops.insert(Op::Send(op))
    })
}

fn op<R>(rig: &Rig, key: Key, look: impl FnOnce(&mut SendOp) -> R) -> R {
    rig.core(|core| match core.ops.get_mut(key) {
        Some(Op::Send(op)) => look(op),
        _ => panic!("it is there"),
    })
}

/// Turn, offset and length of each, whose bytes are right.
fn places(frames: &[(Header, Vec<u8>)]) -> Vec<(u16, u64, usize)> {
    let whole = numbered_bytes(300_000);
    let place = |(header, body): &(Header, Vec<u8>)| {
        let (turn, offset) = header.stripe_place();
        assert_eq!((header.kind, header.tag), (Kind::STRIPE, 77));
        assert!(body[..] == whole[offset as usize..][..body.len()]);
        (turn, offset, body.len())
    };
    frames.iter().map(place).collect()
}

#[test]
fn a_token_says_whose_it_is_and_whether_of_a_stripe() {
    for key in [Key(1 << 32), Key(7 << 32 | 5), Key(u64::from(u32::MAX) << 32 | 0x7fff_ffff)] {
        let token = stripe_token(key);
        assert!(is_stripe(token) && !is_stripe(Token(key.0)));
        assert_eq!((op_of(token), op_of(Token(key.0))), (key, key));
        assert_ne!(token, Token(key.0));
    }
}

#[test]
fn a_session_is_striped_over_several_lanes_where_both_sides_want_that() {
    let (whole, ..) = rig(4096);
    assert!(is_striped(&whole));
    let changes: [fn(&Rig, [Key; 2]); 6] = [
        |rig, lanes| session(rig, |session| session.lanes.retain(|lane| *lane != lanes[1])),
        |rig, _| session(rig, |session| session.stripes_welcome = false),
        |rig, _| session(rig, |session| session.peer.features = Features(0)),
        |rig, _| rig.core(|core| core.domains[0].lanes.max = 1),
        |rig, lanes| slot(rig, lanes[1], |slot| slot.joins = false),
        |rig, lanes| slot(rig, lanes[1], |slot| slot.listening = false),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let (rig, lanes, _) = rig(4096);
        change(&rig, lanes);
        assert!(!is_striped(&rig), "{at}");
    }
    // A lane that knows no queue of its own is never one of several.
    let (rig, lanes, _) = rig(4096);
    slot(&rig, lanes[0], |slot| slot.joins = false);
    assert!(!is_striped(&rig));
    assert!(!rig.core(|core| core.is_single(rig.session)), "nor has it a number of lanes");
    let (third, _wire) = rig.lane("one", 4096);
    slot(&rig, third, |slot| (slot.joins, slot.listening) = (true, true));
    assert!(is_striped(&rig), "three, of which two join");
}

#[test]
fn stripes_go_on_lanes_of_the_transport_that_carries_the_session() {
    let (rig, [one, two], _) = rig(4096);
    let (three, _wire) = rig.lane("another", 4096);
    slot(&rig, three, |slot| (slot.joins, slot.listening) = (true, true));
    assert_eq!(carriers(&rig), [one, two]);
    let changes: [fn(&mut LaneSlot, bool); 3] =
        [|slot, on| slot.listening = on, |slot, on| slot.proof.verified = on, |slot, on| slot.joins = on];
    for change in changes {
        for lane in [one, two] {
            slot(&rig, lane, |slot| change(slot, false));
        }
        assert_eq!(carriers(&rig), [one], "that of the sequence whatever it is");
        for lane in [one, two] {
            slot(&rig, lane, |slot| change(slot, true));
        }
    }
}

#[test]
fn a_message_is_divided_among_lanes_by_their_queues() {
    let (rig, lanes, wires) = rig(1 << 20);
    let key = sends(&rig, 300_000, 0);
    let traffic = session(&rig, |session| session.traffic);
    rig.comes(lanes[0], &wires[0], Header::control(Kind::FETCH, key.0), &words(&[77, 0, 300_000, 5]));
    rig.core(Core::progress);
    // Halves of what is left, in steps of 64 KiB, where less waits.
    let parts = wires.each_ref().map(|wire| places(&wire.take()));
    assert_eq!(parts, [vec![(5, 0, 196_608)], vec![(5, 196_608, 65_536), (5, 262_144, 37_856)]]);
    let (references, stripes, posted) =
        op(&rig, key, |op| (op.references, op.stripes, matches!(op.state, SendState::Posted)));
    assert_eq!((references, stripes, posted), (3, 3, true));
    assert_eq!(session(&rig, |session| session.traffic), traffic + 1 + 3);
    assert_eq!(rig.core(|core| core.counters.stripes), 3);
    for (lane, count) in lanes.into_iter().zip([1, 2]) {
        assert_eq!(slot(&rig, lane, |slot| slot.stripes.clone()), vec![stripe_token(key); count]);
    }
    // The answer to the message tells of those that went on the lane of the sequence.
    assert_eq!(wires.each_ref().map(|wire| wire.state().asked), [0, 2]);
}

#[test]
fn no_byte_goes_that_was_not_asked_for() {
    let (rig, lanes, wires) = rig(1 << 20);
    let key = sends(&rig, 300_000, 0);
    rig.comes(lanes[0], &wires[0], Header::control(Kind::FETCH, key.0), &words(&[77, 0, 100_000, 5]));
    rig.core(Core::progress);
    let parts = wires.each_ref().map(|wire| places(&wire.take()));
    assert_eq!(parts, [vec![(5, 0, 65_536)], vec![(5, 65_536, 34_464)]]);
}

#[test]
fn stripes_are_frames_of_their_lane() {
    let (rig, lanes, wires) = rig(1 << 20);
    let key = sends(&rig, 300_000, 0);
    let sent = || lanes.map(|lane| slot(&rig, lane, |slot| slot.frames_sent));
    let before = sent();
    rig.comes(lanes[0], &wires[0], Header::control(Kind::FETCH, key.0), &words(&[77, 100_000, 200_000, 5]));
    rig.core(Core::progress);
    assert_eq!(sent(), [before[0] + 1, before[1] + 2]);
    let parts = wires.each_ref().map(|wire| places(&wire.take()));
    assert_eq!(parts, [vec![(5, 100_000, 131_072)], vec![(5, 231_072, 65_536), (5, 296_608, 3392)]]);
}

#[test]
fn a_lane_that_takes_nothing_now_is_left_out() {
    let changes: [fn(&Rig, Key, &Wire); 2] = [
        |_, _, wire| wire.state().held_up = true,
        |rig, lane, _| {
            slot(rig, lane, |slot| slot.waiting.push((Header::control(Kind::LANE_DOWN, 77), Vec::new())));
        },
    ];
    for change in changes {
        let (rig, lanes, wires) = rig(1 << 20);
        change(&rig, lanes[1], &wires[1]);
        let key = sends(&rig, 300_000, 0);
        rig.comes(lanes[0], &wires[0], Header::control(Kind::FETCH, key.0), &words(&[77, 0, 300_000, 5]));
        rig.core(|core| core.pump(rig.session));
        assert_eq!(places(&wires[0].take()).len(), 3);
        assert!(wires[1].take().is_empty());
    }
    // None takes any: it is tried again.
    let (rig, lanes, wires) = rig(1 << 20);
    wires.iter().for_each(|wire| wire.state().full = true);
    let key = sends(&rig, 300_000, 0);
    rig.comes(lanes[0], &wires[0], Header::control(Kind::FETCH, key.0), &words(&[77, 0, 300_000, 5]));
    rig.core(Core::progress);
    assert_eq!(op(&rig, key, |op| (op.references, op.stripes)), (0, 0));
    wires.iter().for_each(|wire| wire.state().full = false);
    rig.core(Core::progress);
    assert_eq!(wires.iter().map(|wire| places(&wire.take()).len()).sum::<usize>(), 3);
}

/// One frame of several is what a message of unknown fate goes as, on a lane that may be narrower.
#[test]
fn a_stripe_goes_again_in_parts_that_count_as_references() {
    for borrowed in [false, true] {
        let (rig, lanes, wires) = rig(4096);
        let key = sends(&rig, 20_000, 1);
        let body = op(&rig, key, |op| {
            let data = op.memory.data().as_ptr().cast_const().wrapping_add(5000);
            UnacknowledgedBody::Borrowed { data, len: 10_000, token: stripe_token(key) }
        });
        let copy = numbered_bytes(15_000).split_off(5000);
        let body = if borrowed { body } else { UnacknowledgedBody::Owned(copy) };
        session(&rig, |session| {
            session.again.push_back(Unacknowledged { header: Header::stripe(77, 5, 5000), body });
        });
        rig.core(|core| {
            core.mark_dirty(rig.session);
            core.progress();
        });
        let mut parts: Vec<_> = wires.iter().flat_map(|wire| places(&wire.take())).collect();
        parts.sort_unstable();
        assert_eq!(parts, [(5, 5000, 4096), (5, 9096, 4096), (5, 13_192, 1808)]);
        assert_eq!(rig.core(|core| core.counters.replayed), 3);
        let references = if borrowed { (3, 3) } else { (1, 1) };
        assert_eq!(op(&rig, key, |op| (op.references, op.stripes)), references);
        let held: usize = lanes.iter().map(|&lane| slot(&rig, lane, |slot| slot.stripes.len())).sum();
        assert_eq!(held, if borrowed { 3 } else { 0 });
        assert!(wires.iter().all(|wire| wire.state().asked > 0), "nothing else would bring word of it");
    }
}

/// Also where the session is none of several lanes any more, and when there is no room yet.
#[test]
fn a_stripe_goes_again_whatever_is_left() {
    let (rig, _, wires) = rig(4096);
    session(&rig, |session| {
        session.stripes_welcome = false;
        let body = UnacknowledgedBody::Owned(vec![0; 500]);
        session.again.push_back(Unacknowledged { header: Header::stripe(77, 5, 0), body });
    });
    assert!(!is_striped(&rig));
    wires.iter().for_each(|wire| wire.state().full = true);
    rig.core(|core| {
        core.mark_dirty(rig.session);
        core.progress();
    });
    assert_eq!(session(&rig, |session| session.again.len()), 1);
    wires.iter().for_each(|wire| wire.state().full = false);
    rig.core(Core::progress);
    assert_eq!(wires.iter().flat_map(|wire| places(&wire.take())).collect::<Vec<_>>(), [(5, 0, 500)]);
}

#[test]
fn what_a_lost_lane_may_not_have_delivered_goes_again_and_the_rest_is_let_go_of() {
    let (rig, ..) = rig(4096);
    let (mine, other) = (sends(&rig, 1000, 3), sends(&rig, 1000, 3));
    let data = op(&rig, mine, |op| op.memory.data().as_ptr().cast_const());
    let stripe = || Unacknowledged {
        header: Header::stripe(77, 5, 0),
        body: UnacknowledgedBody::Borrowed { data, len: 10, token: stripe_token(mine) },
    };
    let whole = || Unacknowledged { header: eager(1), body: UnacknowledgedBody::Owned(Vec::new()) };
    let mut tail = vec![whole(), stripe(), whole()];
    let held = [mine, other, mine].map(stripe_token).to_vec();
    rig.core(|core| core.take_stripes(rig.session, held, &mut tail));
    assert_eq!([mine, other].map(|key| op(&rig, key, |op| (op.references, op.stripes))), [(2, 2); 2]);
    assert_eq!(tail.iter().map(|frame| frame.header.kind).collect::<Vec<_>>(), [Kind::EAGER; 2]);
    let again: Vec<Kind> =
        session(&rig, |session| session.again.drain(..).map(|frame| frame.header.kind).collect());
    assert_eq!(again, [Kind::STRIPE]);
    assert!(session(&rig, |session| session.dirty), "it goes soon");
    let mut tail = vec![stripe()];
    rig.core(|core| core.take_stripes(rig.session, vec![stripe_token(mine)], &mut tail));
    assert_eq!((tail.len(), session(&rig, |session| session.again.drain(..).count())), (0, 1));
    let mut tail = vec![whole()];
    rig.core(|core| core.take_stripes(rig.session, Vec::new(), &mut tail));
    assert_eq!((tail.len(), session(&rig, |session| session.again.len())), (1, 0));
}

/// Each number in a stripe is the peer's word.
#[test]
fn a_receive_takes_stripes_of_its_turn_within_its_memory_once() {
    let (rig, [one, two], [first, second]) = rig(4096);
    let key = rig.post(9, 1000);
    rig.comes(one, &first, envelope(9), &words(&[5, 1000]));
    rig.core(Core::progress);
    let said = first.take();
    let (_, asked) = said.iter().find(|(header, _)| header.kind == Kind::FETCH).expect("it is fetched");
    let turn = u64::from_le_bytes(asked[24..32].try_into().unwrap()) as u16;
    let (theirs, _third) = rig.unproven("one", 4096);
    let place = |lane: Key, turn: u16, at: u64, len: usize| {
        let header = Header::stripe(key.0, turn, at);
        match rig.core(|core| core.place_stripe(rig.session, lane, &header, len)) {
            Placement::Into { target, token } => {
                let data = rig.core(|core| match core.ops.get(key) {
                    Some(Op::Recv(op)) => op.memory.data(),
                    _ => panic!("it is there"),
                });
                assert_eq!(
                    (target.addr().get() - data.addr().get(), token),
                    (at as usize, stripe_token(key))
                );
                true
            }
            Placement::Discard => false,
        }
    };
    assert!(place(two, turn, 0, 1000) && place(two, turn, 999, 1));
    assert!(!place(two, turn, 0, 1001) && !place(two, turn, 1, 1000), "beyond the end");
    assert!(!place(two, turn, 1 << 47, 1));
    assert!(!place(two, turn.wrapping_add(1), 0, 1000), "of another fetch");
    assert!(!place(theirs, turn, 0, 1000), "on a lane that was not offered");
    let header = Header::stripe(key.0, turn, 0);
    let other = Key(77 << 32);
    rig.core(|core| core.stripe_arrived(other, &header, 1000));
    let traffic = session(&rig, |session| session.traffic);
    rig.comes(two, &second, Header::stripe(key.0, turn, 600), &[6; 400]);
    rig.comes(one, &first, Header::stripe(key.0, turn, 500), &[9; 200]);
    assert!(!place(two, turn, 600, 400), "it is there");
    assert!(!rig.core(|core| core.is_over(key)));
    rig.comes(one, &first, Header::stripe(key.0, turn, 0), &[1; 600]);
    assert_eq!(rig.got(key), Some([vec![1; 600], vec![6; 400]].concat()));
    assert_eq!(session(&rig, |session| session.traffic), traffic + 2);
    let handled = rig.core(|core| {
        core.handle_stripe(rig.session, theirs, &Header::stripe(key.0, turn, 0), Body::from_slice(&[1]))
    });
    assert!(handled.is_err(), "the session ends");
}

#[test]
fn a_message_can_go_in_stripes_as_long_as_their_places_can_be_told() {
    assert!(Core::may_be_striped(0) && Core::may_be_striped(1 << 48));
    assert!(!Core::may_be_striped((1 << 48) + 1));
}
