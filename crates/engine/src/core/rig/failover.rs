//! How a session goes from lane to lane, frame by frame: legs, fences, lanes that are given up, answers that wait.

use super::{Rig, Wire};
use crate::core::lanes::LaneSlot;
use crate::core::op::{Memory, Op, SendOp, SendState};
use crate::core::stripes::stripe_token;
use crate::core::table::Key;
use sinew_transport::{ErrorKind, Locator, Token, Unacknowledged, UnacknowledgedBody};
use sinew_wire::frame::{Flags, Header, Kind};

/// Ids below and above every other: who has the greater one decides about lanes.
const LESS: [u8; 16] = [0; 16];
const GREATER: [u8; 16] = [255; 16];

fn is_up(rig: &Rig) -> bool {
    rig.core(|core| core.sessions.get(rig.session).is_some_and(|session| session.is_up()))
}

fn active(rig: &Rig) -> Option<Key> {
    rig.core(|core| core.sessions.get(rig.session).unwrap().active)
}

fn lives(rig: &Rig, lane: Key) -> bool {
    rig.core(|core| core.lanes.get(lane).is_some())
}

/// The lane ends by itself.
fn breaks(rig: &Rig, lane: Key, wire: &Wire, kind: ErrorKind) {
    wire.state().over = Some(kind);
    rig.core(|core| core.poll_lane(lane, 64));
}

/// The numbers of legs in the frames of one kind.
fn legs(headers: &[Header]) -> Vec<u32> {
    headers.iter().map(|header| header.dst).collect()
}

#[test]
fn a_lane_is_offered_and_its_first_leg_begins_when_the_peer_listens() {
    let rig = Rig::new(LESS);
    let (lane, wire) = rig.lane("one", 4096);
    let offered = wire.of(Kind::RESUME);
    assert_eq!(offered, [Header { src: 0, dst: 1, ..Header::control(Kind::RESUME, 0) }], "no leg runs yet");
    assert_eq!(active(&rig), None);
    rig.resumes(lane, &wire, 0, 0);
    assert_eq!(active(&rig), Some(lane));
    assert_eq!(legs(&wire.of(Kind::SWITCH)), [1]);
}

#[test]
fn what_is_said_of_another_leg_or_of_one_that_still_runs_is_no_point_to_go_on_from() {
    for (leg, fenced) in [(1, 1), (0, 0)] {
        let rig = Rig::new(LESS);
        let (lane, wire) = rig.lane("one", 4096);
        wire.take();
        let header = Header { src: leg, dst: fenced, ..Header::control(Kind::RESUME, 0) };
        rig.comes(lane, &wire, header, &[]);
        assert_eq!(active(&rig), None);
        assert_eq!(wire.of(Kind::FENCE), [Header::control(Kind::FENCE, 0)]);
    }
}

#[test]
fn a_leg_that_is_fenced_or_overtaken_does_not_begin() {
    let (rig, one, first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    let runs = |lane: Key| rig.core(|core| core.lanes.get(lane).is_some_and(|slot| slot.inbound));
    assert!(runs(one) && !runs(two));
    rig.switches(two, &second, 1, 0);
    assert!(runs(one) && !runs(two), "the same leg cannot begin twice");
    rig.switches(two, &second, 2, 0);
    assert!(!runs(one) && runs(two));
    rig.switches(one, &first, 1, 0);
    assert!(!runs(one) && runs(two));
    assert!(is_up(&rig));
}

#[test]
fn a_leg_at_another_frame_than_the_next_or_on_a_lane_that_was_not_offered_ends_the_session() {
    let (rig, _, _) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    rig.switches(two, &second, 2, 1);
    assert!(!is_up(&rig), "one frame too far");
    let (rig, _, _) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    rig.core(|core| core.sessions.get_mut(rig.session).unwrap().lanes.retain(|&lane| lane != two));
    rig.switches(two, &second, 2, 0);
    assert!(!is_up(&rig), "never offered");
}

#[test]
fn a_fence_ends_the_lane_of_its_leg_and_no_other() {
    // Of an earlier leg than the present one: nothing happens, and nobody is told.
    let (rig, one, first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    second.take();
    rig.comes(two, &second, Header::control(Kind::FENCE, 0), &[]);
    assert!(second.of(Kind::RESUME).is_empty());
    assert!(lives(&rig, one));
    // Of the present one, on another lane: its lane is one that the peer has lost.
    rig.comes(two, &second, Header::control(Kind::FENCE, 1), &[]);
    assert!(!lives(&rig, one) && lives(&rig, two));
    let said = second.of(Kind::RESUME);
    assert_eq!(said, [Header { src: 1, dst: 1, ..Header::control(Kind::RESUME, 0) }], "what it has is exact");
    drop(first);
    // Of a leg that this side has not heard of: the lane of the one before is well.
    let (rig, one, _first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    second.take();
    rig.comes(two, &second, Header::control(Kind::FENCE, 2), &[]);
    assert!(lives(&rig, one) && lives(&rig, two));
    assert_eq!(second.of(Kind::RESUME).first().map(|said| (said.src, said.dst)), Some((2, 1)));
    // On the lane itself: it is well, or the fence had not come.
    let (rig, one, first) = Rig::carried(LESS);
    rig.comes(one, &first, Header::control(Kind::FENCE, 1), &[]);
    assert!(lives(&rig, one));
    assert_eq!(first.of(Kind::RESUME).first().map(|said| (said.src, said.dst)), Some((1, 1)));
    assert!(is_up(&rig));
}

#[test]
fn a_lane_that_the_peer_has_given_up_is_given_up_and_no_other() {
    let (rig, one, _first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    let (three, _third) = rig.lane("three", 4096);
    let number = |lane: Key| rig.core(|core| u64::from(core.lanes.get(lane).unwrap().number));
    rig.comes(two, &second, Header::control(Kind::LANE_DOWN, 77), &[]);
    assert!(lives(&rig, one) && lives(&rig, two) && lives(&rig, three), "there is no such lane");
    let before = rig.core(|core| core.counters.lanes_lost);
    rig.comes(two, &second, Header::control(Kind::LANE_DOWN, number(three)), &[]);
    assert!(lives(&rig, one) && lives(&rig, two) && !lives(&rig, three));
    assert_eq!(rig.core(|core| core.counters.lanes_lost), before + 1);
    // Said on the lane itself, its end is no loss.
    rig.comes(two, &second, Header::control(Kind::LANE_DOWN, number(two)), &[]);
    assert!(lives(&rig, two), "what came before is still taken");
    breaks(&rig, two, &second, ErrorKind::Broken);
    assert!(!lives(&rig, two));
    assert_eq!(rig.core(|core| core.counters.lanes_lost), before + 1);
}

#[test]
fn a_loss_is_told_on_the_lanes_that_are_left_and_the_next_leg_is_asked_for_there() {
    let (rig, one, first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    let (three, third) = rig.lane("three", 4096);
    let listens = |lane: Key, wire: &Wire| {
        // The peer has taken it in, while what this side sends reaches it on the first lane.
        rig.comes(lane, wire, Header { src: 1, ..Header::control(Kind::RESUME, 0) }, &[]);
        wire.take();
    };
    listens(two, &second);
    third.take();
    let lost = rig.core(|core| u64::from(core.lanes.get(one).unwrap().number));
    breaks(&rig, one, &first, ErrorKind::Broken);
    assert_eq!(active(&rig), None);
    let said = second.take();
    let kinds: Vec<(Kind, u64)> = said.iter().map(|(header, _)| (header.kind, header.tag)).collect();
    assert_eq!(kinds, [(Kind::LANE_DOWN, lost), (Kind::FENCE, 1)]);
    assert!(third.take().is_empty(), "its peer does not listen yet");
    rig.resumes(two, &second, 1, 0);
    assert_eq!(active(&rig), Some(two));
    assert_eq!(legs(&second.of(Kind::SWITCH)), [2]);
    // One beside the active lane: it is told, and nothing is fenced.
    listens(three, &third);
    second.take();
    breaks(&rig, three, &third, ErrorKind::Broken);
    let kinds: Vec<Kind> = second.take().iter().map(|(header, _)| header.kind).collect();
    assert_eq!(kinds, [Kind::LANE_DOWN]);
    assert_eq!(active(&rig), Some(two));
}

#[test]
fn what_found_no_room_goes_later_in_its_order() {
    let (rig, lane, wire) = Rig::carried(LESS);
    wire.state().full = true;
    let post = |tag| {
        rig.core(|core| core.post_unsequenced(lane, Header::control(Kind::PROBE, tag), &[]));
    };
    post(1);
    post(2);
    wire.state().full = false;
    post(3);
    assert!(wire.take().is_empty(), "it would overtake the others");
    rig.core(|core| core.poll_lane(lane, 64));
    let tags: Vec<u64> = wire.of(Kind::PROBE).iter().map(|header| header.tag).collect();
    assert_eq!(tags, [1, 2, 3]);
}

#[test]
fn so_many_answers_wait_and_one_request_more_ends_the_session() {
    for kind in [Kind::PROBE, Kind::FENCE] {
        let (rig, lane, wire) = Rig::carried(LESS);
        wire.state().full = true;
        for _ in 0..257 {
            rig.comes(lane, &wire, Header::control(kind, 1), &[]);
            assert!(is_up(&rig));
        }
        rig.comes(lane, &wire, Header::control(kind, 1), &[]);
        assert!(!is_up(&rig), "{kind:?}");
    }
    // What needs no answer may still come.
    let (rig, lane, wire) = Rig::carried(LESS);
    wire.state().full = true;
    for _ in 0..300 {
        rig.core(|core| core.post_unsequenced(lane, Header::control(Kind::PROBE, 1), &[]));
    }
    rig.comes(lane, &wire, Header::control(Kind::LANE_DOWN, 77), &[]);
    assert!(is_up(&rig));
}

#[test]
fn unknown_frames_outside_the_sequence_are_skipped_if_they_are_optional() {
    let unknown = Kind(191);
    assert!(!unknown.is_sequenced());
    let (rig, lane, wire) = Rig::carried(LESS);
    rig.comes(lane, &wire, Header { flags: Flags::OPTIONAL, ..Header::control(unknown, 0) }, &[]);
    assert!(is_up(&rig));
    rig.comes(lane, &wire, Header::control(unknown, 0), &[]);
    assert!(!is_up(&rig));
}

#[test]
fn a_lane_that_carries_nothing_ends_with_a_word_and_is_counted_by_nobody() {
    let (rig, one, first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    second.take();
    let number = rig.core(|core| u64::from(core.lanes.get(two).unwrap().number));
    rig.core(|core| core.retire_lane(two, "for a test"));
    assert_eq!(second.state().ever.last(), Some(&Header::control(Kind::LANE_DOWN, number)));
    assert!(second.state().closed);
    assert_eq!(rig.core(|core| core.sessions.get(rig.session).unwrap().lanes.clone()), [one]);
    assert_eq!(rig.core(|core| core.counters.lanes_lost), 0);
    assert!(!first.state().closed);
}

#[test]
fn a_lane_has_been_taken_when_all_but_what_no_call_waits_for_is_acknowledged() {
    let (rig, lane, wire) = Rig::carried(LESS);
    let taken = || rig.core(|core| core.lanes.get(lane).is_some_and(LaneSlot::is_taken));
    let probe = || rig.core(|core| core.post_unsequenced(lane, Header::control(Kind::PROBE, 1), &[]));
    assert!(taken());
    probe();
    probe();
    assert!(taken(), "probes are answered when the peer's engine is called again, which may be never");
    rig.core(|core| {
        core.send_control(rig.session, Header::control(Kind::FLUSH, 1), []);
        core.progress();
    });
    assert!(!taken());
    probe();
    assert!(!taken(), "behind the frame");
    wire.take();
    probe();
    assert!(taken());
}

#[test]
fn silence_is_counted_from_where_it_began() {
    let (rig, lane, wire) = Rig::carried(LESS);
    let now = rig.core(|core| core.surroundings.now());
    breaks(&rig, lane, &wire, ErrorKind::TimedOut);
    let (since, silent) =
        rig.core(|core| (core.sessions.get(rig.session).unwrap().laneless_since, core.config.lane_timeout()));
    let since = since.expect("it has no lane");
    assert!(since + silent >= now && since < now, "it began {silent:?} before");
    assert_eq!(
        rig.core(|core| core.laneless_timer()),
        Some(since + rig.core(|core| core.config.peer_timeout))
    );
    let end = since + rig.core(|core| core.config.peer_timeout);
    rig.core(|core| core.check_laneless(end - std::time::Duration::from_nanos(1)));
    assert!(is_up(&rig));
    rig.core(|core| core.check_laneless(end));
    assert!(!is_up(&rig));
    assert_eq!(rig.core(|core| core.laneless_timer()), None);
}

#[test]
fn a_loss_that_is_no_silence_is_counted_from_now() {
    let (rig, lane, wire) = Rig::carried(GREATER);
    let now = rig.core(|core| core.surroundings.now());
    breaks(&rig, lane, &wire, ErrorKind::Broken);
    assert!(rig.core(|core| core.sessions.get(rig.session).unwrap().laneless_since).unwrap() >= now);
    assert!(is_up(&rig));
}

#[test]
fn a_dead_peer_ends_its_sessions_at_once() {
    let (rig, lane, wire) = Rig::carried(LESS);
    breaks(&rig, lane, &wire, ErrorKind::PeerDead);
    assert!(!is_up(&rig));
}

#[test]
fn stripes_of_a_lane_that_is_closed_go_on_another() {
    let (rig, _one, _first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    second.take();
    second.state().posted.push((Header::control(Kind::STRIPE, 7), vec![1; 100]));
    rig.core(|core| core.retire_lane(two, "for a test"));
    let again: Vec<Kind> = rig.core(|core| {
        let session = core.sessions.get(rig.session).unwrap();
        session.again.iter().map(|frame| frame.header.kind).collect()
    });
    assert_eq!(again, [Kind::STRIPE]);
}

#[test]
fn a_session_whose_only_lane_ends_before_it_was_proven_is_forgotten() {
    let rig = Rig::new(LESS);
    let (lane, wire) = rig.unproven("one", 4096);
    breaks(&rig, lane, &wire, ErrorKind::Broken);
    assert!(rig.core(|core| core.sessions.get(rig.session).is_none()));
    // One that carries nothing of a session that lives is no loss of that.
    let (rig, one, _first) = Rig::carried(LESS);
    let (two, second) = rig.unproven("two", 4096);
    breaks(&rig, two, &second, ErrorKind::Broken);
    assert!(is_up(&rig) && lives(&rig, one));
    assert_eq!(active(&rig), Some(one));
}

/// After the lane is gone, only what waits to be sent again and stripes refer to the memory of a send.
#[test]
fn a_send_has_its_memory_back_when_nothing_refers_to_it_any_more() {
    let (rig, one, first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    let send = |session: Key, references: u32, stripes: u32| {
        let header = Header { kind: Kind::EAGER, flags: Flags(0), dst: 1, src: 1, tag: 9 };
        let memory = Memory::Owned(vec![1; 300].into());
        let op = SendOp {
            state: SendState::Releasing(Ok(())),
            references,
            stripes,
            ..SendOp::new((session, 0), header, None, memory)
        };
        rig.core(|core| core.ops.insert(Op::Send(op)))
    };
    let (again, done) = (send(rig.session, 9, 2), send(rig.session, 4, 0));
    let other = send(Key(77 << 32), 4, 0);
    let references = |key: Key| {
        rig.core(|core| match core.ops.get(key) {
            Some(Op::Send(op)) if matches!(op.state, SendState::Releasing(_)) => Some(op.references),
            _ => None,
        })
    };
    rig.core(|core| {
        let Some(Op::Send(op)) = core.ops.get(again) else { panic!("it is there") };
        let data = op.memory.data().as_ptr().cast_const();
        let session = core.sessions.get_mut(rig.session).unwrap();
        session.sent = 3;
        for part in 0..3 {
            let body = UnacknowledgedBody::Borrowed {
                data: data.wrapping_add(100 * part),
                len: 100,
                token: Token(again.0),
            };
            session.replay.push_back(Unacknowledged { header: Header::data(5, 100 * part as u64), body });
        }
    });
    breaks(&rig, one, &first, ErrorKind::Broken);
    assert_eq!(references(again), Some(3 + 2));
    assert_eq!(references(done), None, "it has ended");
    assert!(rig.core(|core| core.collect_send(done)).is_some());
    assert_eq!(references(other), Some(4), "of another session");
    // The peer has two of the three.
    rig.resumes(two, &second, 1, 2);
    assert_eq!(references(again), Some(1 + 2));
    assert_eq!(
        second.take().iter().find(|(header, _)| header.kind == Kind::SWITCH).map(|(header, _)| header.tag),
        Some(2)
    );
}

/// The tests of stripes cut lanes by it: only one beside the active lane that was added for long messages.
#[test]
fn an_added_lane_is_cut_and_no_other() {
    let (rig, one, _first) = Rig::carried(LESS);
    let (two, _second) = rig.lane("two", 4096);
    let (three, _third) = rig.lane("one", 4096);
    let cut = || rig.core(|core| core.cut_added(rig.session));
    let extra = |lane: Key| rig.core(|core| core.lanes.get_mut(lane).unwrap().extra = true);
    assert!(!cut(), "none was added");
    extra(one);
    assert!(!cut(), "it is the active one");
    extra(three);
    assert!(cut());
    assert!(lives(&rig, one) && lives(&rig, two) && !lives(&rig, three));
    assert!(!cut());
}

#[test]
fn the_peer_is_dialled_again_when_no_lane_is_left() {
    let (rig, one, first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    rig.core(|core| {
        let place = Locator::new("loopback", "nowhere").unwrap();
        core.sessions.get_mut(rig.session).unwrap().reached_at(place);
    });
    breaks(&rig, one, &first, ErrorKind::Broken);
    assert_eq!(rig.core(|core| core.connects.len()), 0, "there is another");
    breaks(&rig, two, &second, ErrorKind::Broken);
    assert_eq!(rig.core(|core| core.connects.len()), 1);
}

/// Of stripes that a lane held and had let go of without having said so yet, the memory comes back when it is lost; of others it has.
#[test]
fn a_stripe_that_was_let_go_of_is_not_let_go_of_again() {
    let (rig, _one, _first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    let send = || {
        let header = Header { kind: Kind::EAGER, flags: Flags(0), dst: 1, src: 1, tag: 9 };
        let memory = Memory::Owned(vec![1; 300].into());
        let op = SendOp { references: 5, stripes: 5, ..SendOp::new((rig.session, 0), header, None, memory) };
        rig.core(|core| core.ops.insert(Op::Send(op)))
    };
    let (one, other) = (send(), send());
    let references = |key: Key| {
        rig.core(|core| match core.ops.get(key) {
            Some(Op::Send(op)) => (op.references, op.stripes),
            _ => panic!("it is there"),
        })
    };
    rig.core(|core| core.lanes.get_mut(two).unwrap().stripes = vec![stripe_token(one), stripe_token(other)]);
    second.state().released.push(stripe_token(other));
    rig.core(|core| core.poll_lane(two, 64));
    assert_eq!((references(one), references(other)), ((5, 5), (4, 4)));
    breaks(&rig, two, &second, ErrorKind::Broken);
    assert_eq!((references(one), references(other)), ((4, 4), (4, 4)));
}
