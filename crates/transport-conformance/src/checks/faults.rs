//! The wrappers around any transport: each fault on command, and the contract kept.

use super::endings::{recover, to_the_end};
use crate::Fixture;
use crate::harness::{DEADLINE, Got, LANE, Pair, Random, Side, Target, connect};
use sinew_transport::wrap::fault::Faults;
use sinew_transport::wrap::meter::Meter;
use sinew_transport::{ErrorKind, ListenScope, RECORD_LEN, Token, TransportError};
use sinew_wire::frame::{Header, Kind};
use std::time::{Duration, Instant};

/// No frame arrives before its delay is over; order and content stay; the lane asks to be woken when the time comes.
pub fn a_delayed_frame_leaves_no_earlier_and_in_order(make: &dyn Fn() -> Fixture) {
    const DELAY: Duration = Duration::from_millis(20);
    let faults = Faults::new();
    let mut pair = Pair::new(&make().faulty(&faults));
    pair.stand();
    faults.delay(DELAY);
    let body = Target::filled(10_000, 9);
    let start = Instant::now();
    pair.send(&Header::control(Kind::EAGER, 1), b"copied");
    pair.send_borrowed(&Header::control(Kind::EAGER, 2), &body, Token(1));
    assert!(pair.a.lane().next_timer().is_some_and(|at| at <= Instant::now() + DELAY));
    assert!(pair.a.lane().unacknowledged() >= 2);
    pair.drive("both arrived", |_, b| {
        assert!(b.seen.got.is_empty() || start.elapsed() >= DELAY, "a frame came early");
        b.seen.got.len() >= 2
    });
    // Also when the delay is gone meanwhile, nothing overtakes.
    pair.send(&Header::control(Kind::EAGER, 3), b"late");
    faults.delay(Duration::ZERO);
    pair.send(&Header::control(Kind::EAGER, 4), b"last");
    pair.drive("all arrived", |_, b| b.seen.got.len() >= 4);
    let tags: Vec<u64> = pair.b.seen.got.iter().map(|got| got.header.tag).collect();
    assert_eq!(tags, [1, 2, 3, 4]);
    pair.a.lane().request_acknowledgement();
    pair.drive("the borrowed one is released", |a, _| a.seen.released == [Token(1)]);
}

/// The lane ends where told to, both sides learn it, and nothing that was taken is missing.
pub fn a_cut_lane_gives_back_what_its_peer_did_not_see(make: &dyn Fn() -> Fixture) {
    for (after, turns) in [(0, 0), (1, 0), (50, 0), (50, 1), (77, 3)] {
        let faults = Faults::new();
        let mut pair = Pair::new(&make().faulty(&faults));
        pair.stand();
        faults.cut_after(after);
        let mut random = Random(60 + after);
        let (mut posted, mut kept) = (Vec::new(), Vec::new());
        while pair.a.over.is_none() {
            let number = posted.len() as u64;
            let body = Target::filled(random.below(3000), number as u8);
            let header = random.header(number);
            let taken = pair.a.try_post_borrowed(&header, &body, Token(number));
            if taken.is_ok() {
                posted.push(Got { header, body: Some(body.to_vec()) });
            }
            kept.push(body);
            for _ in 0..turns {
                pair.b.turn(1);
            }
            pair.a.turn(1);
            assert!(kept.len() < 10_000, "never cut");
        }
        assert!(posted.len() as u64 <= after, "{} frames taken", posted.len());
        let error = to_the_end(&mut pair.a);
        assert_eq!((error.kind, error.operation), (ErrorKind::Broken, "cut"));
        let released = pair.a.seen.released.len();
        let recovered = recover(&mut pair.a);
        pair.a.die();
        to_the_end(&mut pair.b);
        let seen = &pair.b.seen.got;
        assert!(posted.starts_with(seen) && posted.ends_with(&recovered), "cut after {after}");
        assert!(seen.len() + recovered.len() >= posted.len(), "cut after {after}: a gap");
        assert!(released <= seen.len());
    }
}

/// `cut` makes a descriptor of the lane ready.
pub fn a_cut_wakes_a_sleeper(make: &dyn Fn() -> Fixture) {
    let faults = Faults::new();
    let mut pair = Pair::new(&make().faulty(&faults));
    pair.stand();
    std::thread::scope(|scope| {
        scope.spawn(|| faults.cut());
        let deadline = Instant::now() + DEADLINE;
        while pair.a.over.is_none() {
            let events = pair.a.events(DEADLINE);
            assert!(!events.is_empty() && Instant::now() < deadline, "slept past the cut");
            pair.a.progress(8);
        }
    });
    // The other side was made with the same faults.
    assert_eq!(to_the_end(&mut pair.b).kind, ErrorKind::Broken);
    // New lanes work.
    Pair::new(&make().faulty(&faults)).stand();
}

/// Dials fail with the given error until they are allowed again.
pub fn a_refused_dial_says_what_it_was_told_to_say(make: &dyn Fn() -> Fixture) {
    let faults = Faults::new();
    let fixture = make().faulty(&faults);
    let mut a = Side::open(&fixture, ListenScope::Nobody);
    let mut b = Side::open(&fixture, ListenScope::ThisUser);
    let error = TransportError::new(ErrorKind::PermissionDenied, "connect", "there").hint("ask");
    faults.refuse_dials(Some(error.clone()));
    let dialled = a.domain.dial(&b.domain.locators()[0], LANE);
    assert_eq!(dialled.err(), Some(error));
    faults.refuse_dials(None);
    connect(&mut a, &mut b, LANE);
}

/// While blocked nothing arrives and nothing is lost: it comes when the block ends, or is recovered when the lane is cut.
pub fn a_black_hole_swallows_nothing_for_good(make: &dyn Fn() -> Fixture) {
    for cut in [false, true] {
        let faults = Faults::new();
        let mut pair = Pair::new(&make().faulty(&faults));
        pair.stand();
        faults.block(true);
        let body = Target::filled(5000, 3);
        for number in 0..20 {
            pair.send(&Header::control(Kind::EAGER, number), &[number as u8; 30]);
        }
        pair.send_borrowed(&Header::control(Kind::EAGER, 20), &body, Token(20));
        for _ in 0..50 {
            pair.a.turn(8);
            pair.b.turn(8);
        }
        assert!(pair.b.seen.got.is_empty() && pair.a.seen.released.is_empty());
        assert_eq!(pair.a.lane().unacknowledged(), 21);
        if cut {
            faults.cut();
            assert_eq!(to_the_end(&mut pair.a).kind, ErrorKind::Broken);
            let tags: Vec<u64> = recover(&mut pair.a).iter().map(|got| got.header.tag).collect();
            assert_eq!(tags, (0..=20).collect::<Vec<_>>());
            assert!(pair.a.seen.released.is_empty());
        } else {
            faults.block(false);
            pair.drive("all arrived", |_, b| b.seen.got.len() >= 21);
            pair.a.lane().request_acknowledgement();
            pair.drive("and is released", |a, _| a.seen.released == [Token(20)]);
        }
    }
}

/// With something outstanding the silence is noticed; without, it is not.
pub fn a_black_hole_ends_after_the_peer_timeout(make: &dyn Fn() -> Fixture) {
    const SILENCE: Duration = Duration::from_millis(50);
    let faults = Faults::new();
    let mut pair = Pair::with_timeout(&make().faulty(&faults), SILENCE * 20);
    pair.stand();
    pair.a.lane().request_acknowledgement();
    pair.drive("nothing is outstanding", |a, b| a.lane().unacknowledged() + b.lane().unacknowledged() == 0);
    faults.block(true);
    let until = Instant::now() + SILENCE;
    while Instant::now() < until {
        pair.a.turn(8);
        assert!(
            pair.a.over.is_none() && pair.a.lane().next_timer().is_none(),
            "an idle lane waits for nobody"
        );
    }
    pair.send_only(&Header::control(Kind::EAGER, 1), b"into the dark");
    let error = to_the_end(&mut pair.a);
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert_eq!(recover(&mut pair.a).len(), 1);
}

/// What a hostile wire does to records.
pub fn records_are_repeated_swapped_and_corrupted_on_command(make: &dyn Fn() -> Fixture) {
    let record = |number: u8| [number; RECORD_LEN];
    let arrived = |faults: &Faults, sent: &[u8], count: usize| -> Vec<[u8; RECORD_LEN]> {
        let fixture = make().faulty(faults);
        let mut a = Side::open(&fixture, ListenScope::Nobody);
        let mut b = Side::open(&fixture, ListenScope::ThisUser);
        let (mut from, mut to) = connect(&mut a, &mut b, LANE);
        let (mut sent, mut got) = (sent.iter().peekable(), Vec::new());
        let deadline = Instant::now() + DEADLINE;
        while got.len() < count {
            a.events(Duration::ZERO);
            b.events(Duration::ZERO);
            if let Some(&&number) = sent.peek()
                && from.try_send(&record(number)).expect("alive")
            {
                sent.next();
            }
            from.poll().expect("alive");
            let mut found = [0; RECORD_LEN];
            if to.try_recv(&mut found).expect("alive") {
                got.push(found);
            }
            assert!(Instant::now() < deadline, "{} of {count} records", got.len());
        }
        got
    };
    let faults = Faults::new();
    faults.duplicate_records(true);
    assert!(arrived(&faults, &[1, 2], 4) == [record(1), record(1), record(2), record(2)]);
    faults.duplicate_records(false);
    faults.swap_records(true);
    assert!(arrived(&faults, &[1, 2, 3, 4], 4) == [record(2), record(1), record(4), record(3)]);
    faults.swap_records(false);
    faults.corrupt_record_after(1);
    let got = arrived(&faults, &[1, 2, 3], 3);
    assert!(got[0] == record(1) && got[2] == record(3));
    let changed: u32 = got[1].iter().zip(&record(2)).map(|(got, sent)| (got ^ sent).count_ones()).sum();
    assert_eq!(changed, 1, "one bit of the second record");
}

/// Probes come twice, frames of sessions once.
pub fn only_probes_are_repeated(make: &dyn Fn() -> Fixture) {
    let faults = Faults::new();
    let mut pair = Pair::new(&make().faulty(&faults));
    pair.stand();
    faults.duplicate_probes(true);
    for (number, kind) in [Kind::PROBE, Kind::EAGER, Kind::PROBE_REPLY, Kind::FLUSH].into_iter().enumerate() {
        pair.send(&Header::control(kind, number as u64), b"x");
    }
    pair.drive("all arrived", |_, b| b.seen.got.len() >= 6);
    let tags: Vec<u64> = pair.b.seen.got.iter().map(|got| got.header.tag).collect();
    assert_eq!(tags, [0, 0, 1, 2, 2, 3]);
}

/// Frames and bytes are counted once on each side.
pub fn a_meter_counts_what_passes(make: &dyn Fn() -> Fixture) {
    let meter = Meter::new();
    let mut pair = Pair::new(&make().metered(&meter));
    assert_eq!(meter.read().lanes, 2);
    for number in 0..10 {
        pair.send(&Header::control(Kind::EAGER, number), &[1; 100]);
    }
    let body = Target::filled(50_000.min(pair.a.lane().info().limits.borrowed_max), 1);
    let len = body.to_vec().len() as u64;
    pair.send_borrowed(&Header::data(1, 0), &body, Token(1));
    pair.drive("all arrived", |_, b| b.seen.got.len() >= 11);
    let read = meter.read();
    assert_eq!((read.frames_sent, read.bytes_sent), (11, 1000 + len));
    assert_eq!((read.frames_received, read.bytes_received), (11, 1000 + len));
    pair.a.die();
}
