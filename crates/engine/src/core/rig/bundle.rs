//! Messages that share frames: packing, what is left of several bundles, and what that costs.

use super::{Rig, Wire};
use crate::core::bundle::{Origin, Packing, Taking};
use crate::core::op::Memory;
use crate::core::table::Key;
use crate::core::{Core, Started};
use sinew_transport::Body;
use sinew_wire::frame::{Flags, Header, Kind};
use sinew_wire::hello::Features;
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
pub(super) fn frame(tags: impl IntoIterator<Item = u64>) -> (Header, Vec<u8>) {
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

/// The length of a message of this tag that waits, and its place in what its session brings.
fn taken(rig: &Rig, tag: u64) -> (usize, u64) {
    let memory = Memory::Owned(vec![0; 8].into());
    match rig.core(|core| core.start_recv(1, tag.into(), memory, None)) {
        Started::Done(Ok(info), _, number) => (info.len, number),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_left_of_a_bundle_waits_as_if_each_message_had_come_alone() {
    let (rig, lane, _wire) = Rig::carried([0; 16]);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    let (bundle, body) = frame([1, 2, 3]);
    rig.core(|core| {
        let from = Origin { session: rig.session, lane, engine: 3, number: 100 };
        assert!(core.taking.open(from, &Header { dst: 1, ..bundle }, Body::from_slice(&body), u64::MAX));
        core.spill_bundles();
        assert!(core.taking.is_empty());
    });
    assert_eq!([3, 2, 1].map(|tag| taken(&rig, tag)), [(3, 102), (2, 101), (1, 100)]);
}

/// It was taken in with all the credit that there was: more cannot be left of it, but for a fault.
#[test]
fn a_bundle_that_costs_more_than_is_granted_ends_its_session_and_nothing_of_it_comes_later() {
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    let windows = rig.core(|core| core.config.windows);
    let fits = windows.endpoint_bytes / 4064;
    for _ in 0..fits {
        rig.comes(lane, &wire, Header { dst: 1, ..header(7) }, &[0; 4000]);
    }
    let left = windows.endpoint_bytes - fits * 4064;
    let cost = 100 + OVERHEAD;
    let more = left / cost;
    assert!(more < 32, "a bundle is not enough");
    let (bundle, body) = frame(std::iter::repeat_n(100, more as usize + 2));
    rig.core(|core| {
        let from = Origin { session: rig.session, lane, engine: 3, number: 100 };
        assert!(core.taking.open(from, &Header { dst: 1, ..bundle }, Body::from_slice(&body), u64::MAX));
        core.spill_bundles();
        assert!(!core.sessions.get(rig.session).unwrap().is_up());
        let endpoint = core.endpoint(1).unwrap();
        assert_eq!((endpoint.messages_received, endpoint.inflows.len()), (fits + more + 1, 0));
    });
}

/// The whole way: each message of a bundle has its place, and is counted as if it had come alone.
#[test]
fn a_bundle_that_comes_the_long_way_is_its_messages() {
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| core.create_endpoint(None)).unwrap();
    let (bundle, body) = frame([1, 2, 3]);
    rig.comes(lane, &wire, Header { dst: 1, ..bundle }, &body);
    // Frame 1, of up to 32 messages.
    let first = 32;
    assert_eq!([3, 2, 1].map(|tag| taken(&rig, tag)), [3, 2, 1].map(|tag| (tag as usize, first + tag - 1)));
    rig.comes(lane, &wire, Header { dst: 1, ..bundle }, &body);
    let held = rig.core(|core| {
        let session = core.sessions.get(rig.session).unwrap();
        assert_eq!(session.received, 2, "frames");
        let windows = core.config.windows;
        let key = rig.session;
        let endpoint = core.endpoint(1).unwrap();
        assert_eq!((endpoint.messages_received, endpoint.bytes_received), (6, 12));
        let mut credit = endpoint.inflow(key, &windows).bytes;
        // What waits is held: as much as is left of the window fits beside it.
        let rest = windows.endpoint_bytes - 3 * OVERHEAD - 6;
        credit.announce();
        (credit.receive(rest).is_ok(), credit.receive(1).is_ok())
    });
    assert_eq!(held, (true, false));
}

/// A session whose peer takes bundles, and messages of endpoint 1 that share a frame with the next progress.
fn staging() -> (Rig, Wire, impl Fn(&mut Core, u64) -> bool) {
    let (rig, _lane, wire) = Rig::carried([0; 16]);
    let session = rig.session;
    rig.core(|core| {
        core.create_endpoint(None).unwrap();
        core.progress();
        let state = core.sessions.get_mut(session).unwrap();
        state.peer.features = Features::BUNDLES;
        assert_eq!(state.flow_to(5), 0);
    });
    wire.take();
    let stage = move |core: &mut Core, tag: u64| {
        let header = Header { dst: 5, src: 1, ..header(tag) };
        core.send_quick(session, 0, &header, &[tag as u8; 10], true)
    };
    (rig, wire, stage)
}

#[test]
fn messages_that_are_staged_share_a_frame_that_goes_with_the_next_progress() {
    let (rig, wire, stage) = staging();
    let sent = || {
        rig.core(|core| {
            let session = core.sessions.get(rig.session).unwrap().sent;
            let endpoint = core.endpoint(1).unwrap();
            (session, endpoint.messages_sent, endpoint.bytes_sent)
        })
    };
    let before = sent();
    rig.core(|core| {
        assert!(core.flush_bundle() && wire.take().is_empty(), "there is none");
        assert!(stage(core, 1) && stage(core, 2));
        assert!(wire.take().is_empty());
        assert!(core.flush_bundle());
        let posted = wire.take();
        assert_eq!(posted.len(), 1);
        assert_eq!((posted[0].0.kind, posted[0].0.tag, posted[0].0.dst), (Kind::BUNDLE, 2, 5));
        assert!(core.flush_bundle() && wire.take().is_empty(), "once");
        assert!(stage(core, 3));
    });
    rig.core(|core| core.progress());
    assert_eq!(wire.take().iter().map(|(header, _)| header.kind).collect::<Vec<_>>(), [Kind::EAGER]);
    assert_eq!(sent(), (before.0 + 2, 3, 30));
}

#[test]
fn a_bundle_that_finds_no_room_goes_before_all_that_comes_later() {
    let (rig, wire, stage) = staging();
    let sent = || rig.core(|core| core.sessions.get(rig.session).unwrap().sent);
    let waits = || {
        rig.core(|core| core.sessions.get(rig.session).unwrap().parked.as_ref().map(|parked| parked.count()))
    };
    // Something has gone before.
    assert!(rig.core(|core| stage(core, 9)));
    rig.core(|core| core.progress());
    wire.take();
    let before = sent();
    wire.state().full = true;
    rig.core(|core| {
        assert!(stage(core, 1) && stage(core, 2));
        assert!(!core.flush_bundle());
    });
    assert_eq!(waits(), Some(2));
    assert!(!rig.core(|core| stage(core, 3)), "behind it");
    rig.core(|core| {
        let memory = Memory::Owned(vec![1; 10].into());
        core.start_send(rig.session, 0, Header { dst: 5, src: 1, ..header(4) }, None, memory, true);
        core.progress();
    });
    assert_eq!((waits(), sent()), (Some(2), before));
    wire.state().full = false;
    rig.core(|core| core.progress());
    let went: Vec<(Kind, u64)> = wire.take().iter().map(|(header, _)| (header.kind, header.tag)).collect();
    assert_eq!(went, [(Kind::BUNDLE, 2), (Kind::EAGER, 4)]);
    assert_eq!((waits(), sent()), (None, before + 2));
    assert!(rig.core(|core| stage(core, 5)));
}
