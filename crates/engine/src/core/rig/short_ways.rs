//! The short ways: messages that are taken from a lane in memory where they lie, as long as nothing is in the way.

use super::bundle::frame;
use super::{Rig, Wire, Woken, eager};
use crate::completion::{Match, Source};
use crate::core::Core;
use crate::core::op::{Memory, Op, SendOp, SendState};
use crate::core::rendezvous::Status;
use crate::core::table::Key;
use sinew_wire::frame::{Header, Kind};
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
