//! Lanes that read straight into the memory of receives, and lanes that end while others go on.

use super::wire::pooled;
use super::{MEMORY, Rig, Wire, eager, envelope, numbered_bytes, words};
use crate::core::Core;
use crate::core::op::{Memory, SendOp};
use crate::core::table::Key;
use sinew_transport::{Buf, Descriptor, LaneCount};
use sinew_wire::frame::{Header, Kind};
use sinew_wire::hello::Features;

fn rig() -> (Rig, Key, Wire) {
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    wire.state().places_parts = true;
    (rig, lane, wire)
}

#[test]
fn a_part_of_a_message_goes_where_its_receive_lies_on_the_lane_of_the_present_leg_only() {
    let (rig, lane, wire) = rig();
    let (two, second) = rig.lane("two", 4096);
    second.state().places_parts = true;
    let key = rig.post(9, 3000);
    rig.comes(lane, &wire, envelope(9), &words(&[5, 3000]));
    let bytes = numbered_bytes(3000);
    rig.comes(lane, &wire, Header::data(key.0, 0), &bytes[..1000]);
    // Of a leg that was begun elsewhere since: it does not count, and is not written.
    rig.comes(two, &second, Header::data(key.0, 1000), &[77; 1000]);
    assert_eq!(rig.got(key), None);
    rig.comes(lane, &wire, Header::data(key.0, 2000), &bytes[2000..]);
    assert_eq!(rig.got(key), None, "a part is missing");
    rig.comes(lane, &wire, Header::data(key.0, 1000), &bytes[1000..2000]);
    assert!(rig.got(key).is_some_and(|got| got == bytes));
}

/// Stripes belong to no leg: they come on any lane of the session.
#[test]
fn a_stripe_goes_where_its_receive_lies_on_whichever_lane_it_comes() {
    let (rig, lane, wire) = rig();
    let (two, second) = rig.lane("one", 4096);
    rig.core(|core| {
        (core.domains[0].name, core.domains[0].lanes) = ("one", LaneCount { min: 1, max: 4 });
        for lane in [lane, two] {
            let slot = core.lanes.get_mut(lane).unwrap();
            (slot.joins, slot.listening) = (true, true);
        }
        let session = core.sessions.get_mut(rig.session).unwrap();
        (session.peer.features, session.stripes_welcome) = (Features::STRIPES, true);
    });
    second.state().places_parts = true;
    let key = rig.post(9, 300_000);
    rig.comes(lane, &wire, envelope(9), &words(&[5, 300_000]));
    rig.core(Core::progress);
    let fetch =
        wire.take().into_iter().find(|(header, _)| header.kind == Kind::FETCH).expect("it is asked for");
    let turn = u16::from_le_bytes(fetch.1[24..26].try_into().unwrap());
    let bytes = numbered_bytes(300_000);
    for at in (0..300_000).step_by(4000) {
        let (lane, wire) = if at % 8000 == 0 { (lane, &wire) } else { (two, &second) };
        rig.comes(lane, wire, Header::stripe(key.0, turn, at as u64), &bytes[at..at + 4000]);
    }
    assert!(rig.got(key).is_some_and(|got| got == bytes));
}

#[test]
fn of_lanes_in_memory_only_the_one_that_ends_is_polled_no_more() {
    let rig = Rig::new([0; 16]);
    let lanes: Vec<(Key, Wire)> = (0..3).map(|_| rig.lane(MEMORY, 4096)).collect();
    lanes.iter().for_each(|(lane, _)| rig.core(|core| core.heat(*lane)));
    rig.core(|core| {
        core.remove_lane(lanes[1].0);
        assert_eq!(core.hot, [lanes[0].0, lanes[2].0]);
    });
}

#[test]
fn a_fault_can_be_made_where_there_is_a_lane() {
    let (rig, lane, _wire) = Rig::carried([0; 16]);
    assert!(rig.core(|core| core.cut(rig.session)));
    assert!(rig.core(|core| core.lanes.get(lane).is_none()));
    assert!(!rig.core(|core| core.cut(rig.session)), "there is none any more");
}

/// The lane that is moved to is being polled: the peer's word that it listens has just come. The move is made afterwards.
#[test]
fn a_move_waits_while_the_lane_to_go_to_is_in_use() {
    let (rig, one, _first) = Rig::carried([255; 16]);
    let (two, second) = rig.lane("two", 4096);
    rig.comes(two, &second, Header { src: 1, ..Header::control(Kind::RESUME, 0) }, &[]);
    rig.core(|core| {
        let session = core.sessions.get_mut(rig.session).unwrap();
        session.moving_to = Some(two);
        let lane = core.lanes.get_mut(two).unwrap().lane.take();
        assert!(!core.try_move(rig.session));
        assert_eq!(core.sessions.get(rig.session).unwrap().active, Some(one));
        core.lanes.get_mut(two).unwrap().lane = lane;
        assert!(core.try_move(rig.session));
        assert_eq!(core.sessions.get(rig.session).unwrap().active, Some(two));
    });
}

/// What lies in a pool that the peer may be shown is named to it from a kilobyte on; other memory is lent, where it is long enough.
#[test]
fn a_message_is_named_where_the_peer_may_see_it() {
    let (rig, lane, wire) = Rig::carried([0; 16]);
    (wire.state().describes, wire.state().lends) = (true, false);
    let described = |buf: Buf| {
        rig.core(|core| {
            let op = SendOp::new((rig.session, 0), eager(9), None, Memory::Owned(buf));
            let lane = core.lanes.get_mut(lane).unwrap().lane.as_mut().unwrap();
            let descriptor = op.describe(lane.as_mut()).unwrap();
            assert_eq!(descriptor.is_some(), op.memory_is_described());
            descriptor
        })
    };
    assert_eq!(described(pooled(rig.session, 1024)), Some(Descriptor([1; 24])));
    assert_eq!(described(pooled(rig.session, 1023)), None);
    assert_eq!(described(pooled(Key(77), 4096)), None, "it is another peer's");
    assert_eq!(described(vec![0; 4096].into()), None);
}
