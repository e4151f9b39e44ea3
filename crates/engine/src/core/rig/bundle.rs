//! Messages that share frames: packing, what is left of several bundles, and what that costs.

use super::Rig;
use crate::core::bundle::{Origin, Packing, Taking};
use crate::core::table::Key;
use sinew_transport::Body;
use sinew_wire::frame::{Flags, Header, Kind};
use std::cell::RefCell;

/// What is counted for a message beside its bytes.
const OVERHEAD: u64 = 64;

fn header(tag: u64) -> Header {
    Header { kind: Kind::EAGER, flags: Flags(0), dst: 5, src: 6, tag }
}

const fn origin(number: u64) -> Origin {
    Origin { session: Key(1 << 32), lane: Key(2 << 32), engine: 3, number }
}

/// The frame in which messages of these tags go, each with a byte for its tag, so often as its tag says.
fn frame(tags: impl IntoIterator<Item = u64>) -> (Header, Vec<u8>) {
    let mut packing = Packing::default();
    let mut count = 0;
    for tag in tags {
        assert!(packing.push(&header(tag), &vec![tag as u8; tag as usize]));
        count += 1;
        assert_eq!(packing.count(), count);
        assert!(!packing.is_empty());
    }
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| {
        let lane = core.lanes.get_mut(lane).unwrap().lane.as_mut().unwrap();
        packing.post(lane.as_mut()).unwrap();
    });
    assert!(packing.is_empty());
    let mut posted = wire.take();
    assert_eq!(posted.len(), 1);
    posted.remove(0)
}

fn open(taking: &mut Taking, number: u64, tags: impl IntoIterator<Item = u64>, credit: u64) -> bool {
    let (header, body) = frame(tags);
    taking.open(origin(number), &header, Body::from_slice(&body), credit)
}

/// The tags of all that is left, oldest first.
fn left(taking: &Taking) -> Vec<u64> {
    let tags = RefCell::new(Vec::new());
    let none = taking.find(|arrival| {
        tags.borrow_mut().push(arrival.tag);
        false
    });
    assert!(none.is_none());
    tags.into_inner()
}

#[test]
fn a_message_alone_goes_as_it_would_without_a_bundle() {
    let (alone, body) = frame([7]);
    assert_eq!((alone.kind, alone.tag, body), (Kind::EAGER, 7, vec![7; 7]));
    let (two, _) = frame([7, 8]);
    assert_eq!((two.kind, two.tag, two.dst, two.src), (Kind::BUNDLE, 2, 5, 6));
}

#[test]
fn messages_are_found_oldest_first_whoever_is_taken_between() {
    let mut taking = Taking::default();
    assert!(taking.is_empty() && taking.has_room() && taking.first().is_none());
    assert!(open(&mut taking, 100, 1..=3, u64::MAX));
    assert!(open(&mut taking, 200, 4..=6, u64::MAX));
    assert_eq!((taking.endpoint(), taking.lane()), (5, Key(2 << 32)));
    assert_eq!(left(&taking), [1, 2, 3, 4, 5, 6]);
    let (at, arrival) = taking.find(|arrival| arrival.tag >= 2).unwrap();
    assert_eq!((arrival.tag, taking.number(at), taking.data(at)), (2, 101, &[2, 2][..]));
    assert_eq!(taking.source(at).engine(), 3);
    taking.take(at);
    assert_eq!(left(&taking), [1, 3, 4, 5, 6]);
    // The second bundle is empty before the first.
    for tag in [4, 5, 6] {
        let (at, _) = taking.find(|arrival| arrival.tag == tag).unwrap();
        assert_eq!(taking.number(at), 200 + tag - 4);
        taking.take(at);
    }
    assert_eq!(left(&taking), [1, 3]);
    for tag in [1, 3] {
        let (at, arrival) = taking.first().unwrap();
        assert_eq!(arrival.tag, tag);
        taking.take(at);
    }
    assert!(taking.is_empty() && taking.first().is_none());
}

#[test]
fn four_bundles_are_taken_in_and_the_places_go_around() {
    let mut taking = Taking::default();
    let mut oldest = 1;
    for round in 0..10 {
        while taking.has_room() {
            let next = left(&taking).last().map_or(oldest, |last| last + 1);
            assert!(open(&mut taking, 10, next..next + 2, u64::MAX));
        }
        assert_eq!(left(&taking), (oldest..oldest + 8).collect::<Vec<_>>(), "round {round}");
        let before = left(&taking);
        assert!(!open(&mut taking, 10, [1, 2], u64::MAX), "there is no room");
        assert_eq!(left(&taking), before);
        for _ in 0..2 + 2 * (round % 3) {
            let (at, _) = taking.first().unwrap();
            taking.take(at);
        }
        oldest += 2 + 2 * (round % 3);
    }
}

#[test]
fn what_is_left_costs_no_more_than_is_granted() {
    let cost = |tags: std::ops::RangeInclusive<u64>| tags.map(|tag| tag + OVERHEAD).sum::<u64>();
    let mut taking = Taking::default();
    assert!(!open(&mut taking, 0, 1..=3, cost(1..=3) - 1));
    assert!(taking.is_empty());
    assert!(open(&mut taking, 0, 1..=3, cost(1..=3)));
    // What has been taken costs nothing any more.
    let (at, _) = taking.find(|arrival| arrival.tag == 2).unwrap();
    taking.take(at);
    let both = cost(1..=1) + cost(3..=3) + cost(4..=5);
    assert!(!open(&mut taking, 0, 4..=5, both - 1));
    assert_eq!(left(&taking), [1, 3]);
    assert!(open(&mut taking, 0, 4..=5, both));
    assert_eq!(left(&taking), [1, 3, 4, 5]);
}

#[test]
fn what_is_no_bundle_is_not_taken_in() {
    let (good, body) = frame([1, 2]);
    let mut taking = Taking::default();
    for wrong in [
        Header { tag: 3, ..good },
        Header { flags: Flags::IMMEDIATE, ..good },
        Header { flags: Flags::RESERVE, ..good },
        Header { flags: Flags::UNTAGGED.with(Flags::RESERVE), ..good },
    ] {
        assert!(!taking.open(origin(0), &wrong, Body::from_slice(&body), u64::MAX), "{wrong:?}");
        assert!(taking.is_empty());
    }
    assert!(taking.open(origin(0), &good, Body::from_slice(&body), u64::MAX));
}

/// The whole way: each message of a bundle has its place, and is counted as if it had come alone.
#[test]
fn a_bundle_that_comes_the_long_way_is_its_messages() {
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    let (bundle, body) = frame([1, 2, 3]);
    rig.comes(lane, &wire, Header { dst: 1, ..bundle }, &body);
    let held = rig.core(|core| {
        let session = core.sessions.get(rig.session).unwrap();
        assert_eq!(session.received, 1, "a frame");
        let windows = core.config.windows;
        let key = rig.session;
        let endpoint = core.endpoint(1).unwrap();
        assert_eq!((endpoint.messages_received, endpoint.bytes_received), (3, 6));
        let mut credit = endpoint.inflow(key, &windows).bytes;
        // What waits is held: as much as is left of the window fits beside it.
        let rest = windows.endpoint_bytes - 3 * OVERHEAD - 6;
        (credit.receive(rest).is_ok(), credit.receive(1).is_ok())
    });
    assert_eq!(held, (true, false));
}
