//! Domains, addresses and links before they are lanes.

use crate::harness::{DEADLINE, LANE, Pair, Random, Side, connect, exchange};
use crate::{Fixture, TABLE};
use sinew_transport::{ErrorKind, Identity, LinkState, ListenScope, Locator, RECORD_LEN, TransportError};
use std::time::{Duration, Instant};

/// Each locator reads back from its text, is understood, and has the domain behind it.
pub fn locators_parse_and_dial_their_domain(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let mut a = Side::open(&fixture, ListenScope::Nobody);
    let mut b = Side::open(&fixture, ListenScope::ThisUser);
    let locators = b.domain.locators();
    assert!(!locators.is_empty(), "a listening domain publishes where");
    for locator in &locators {
        let text = locator.to_string();
        assert_eq!(text.parse::<Locator>().as_ref(), Ok(locator));
        assert!(a.domain.understands(locator.scheme()), "{text}");
        assert!(!a.domain.understands("nonsense"));
    }
    let (dialled, accepted) = connect(&mut a, &mut b, LANE);
    assert!(!dialled.describe().is_empty() && !accepted.describe().is_empty());
    for link in [&dialled, &accepted] {
        match link.identity() {
            Identity::SameUser { .. } => assert!(fixture.expected.same_user, "nobody vouches for that"),
            Identity::OtherUser { uid } => panic!("user {uid} is us"),
            Identity::Remote(text) => {
                assert!(!fixture.expected.same_user && !text.is_empty(), "remote: {text}");
            }
        }
    }
}

/// Records keep their bytes and order in both directions.
pub fn records_arrive_whole_and_in_order(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let (mut a, mut b) = sides(&fixture);
    let (mut dialled, mut accepted) = connect(&mut a, &mut b, LANE);
    let mut random = Random(1);
    for _ in 0..3 {
        let records = records(&mut random, 20);
        exchange(&mut a, &mut *dialled, &mut b, &mut *accepted, &records);
        exchange(&mut b, &mut *accepted, &mut a, &mut *dialled, &records);
    }
}

/// A link is bounded: it says that it is full, and takes records again when some were received.
pub fn a_full_link_takes_more_later(make: &dyn Fn() -> Fixture) {
    const ENOUGH: usize = 64 << 10;
    let fixture = make();
    let (mut a, mut b) = sides(&fixture);
    let (mut dialled, mut accepted) = connect(&mut a, &mut b, LANE);
    let record = |number: usize| {
        let mut record = [0x5a; RECORD_LEN];
        record[..8].copy_from_slice(&(number as u64).to_le_bytes());
        record
    };
    let mut sent = 0;
    while dialled.try_send(&record(sent)).expect("the link lives") {
        sent += 1;
        assert!(sent < ENOUGH, "a link without bound");
    }
    let goal = sent + 10;
    let mut received = 0;
    let deadline = Instant::now() + DEADLINE;
    while received < goal {
        a.events(Duration::ZERO);
        b.events(Duration::ZERO);
        dialled.poll().and(accepted.poll()).expect("the link lives");
        let mut found = [0; RECORD_LEN];
        if accepted.try_recv(&mut found).expect("the link lives") {
            assert!(found == record(received), "record {received}");
            received += 1;
        }
        if sent < goal && dialled.try_send(&record(sent)).expect("the link lives") {
            sent += 1;
        }
        assert!(Instant::now() < deadline, "{received} of {goal} records");
    }
}

/// Dialling where nobody listens any more ends with `Refused`, at once or when the link is polled.
pub fn a_dial_that_nobody_answers_is_refused_by_type(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let (mut a, b) = sides(&fixture);
    let locators = b.domain.locators();
    drop(b);
    for locator in locators {
        let error = dial_to_the_end(&mut a, &locator);
        assert_eq!(error.kind, ErrorKind::Refused, "{locator}: {error}");
        assert!(!error.operation.is_empty() && !error.to_string().is_empty());
    }
}

/// An address of another scheme, or one that makes no sense, is refused as such without waiting.
pub fn a_foreign_address_is_no_address(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let (mut a, b) = sides(&fixture);
    let foreign = Locator::new("nonsense", "somewhere").expect("grammar");
    assert_eq!(dial_to_the_end(&mut a, &foreign).kind, ErrorKind::InvalidAddress);
    let scheme = b.domain.locators()[0].scheme().to_owned();
    let senseless = Locator::new(scheme, "%%%/\\:::").expect("grammar");
    let kind = dial_to_the_end(&mut a, &senseless).kind;
    assert!(matches!(kind, ErrorKind::InvalidAddress | ErrorKind::Refused), "{kind:?}");
}

/// Dropping one end of a link ends the other.
pub fn a_dropped_link_ends_the_other(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    for drop_dialler in [false, true] {
        let (mut a, mut b) = sides(&fixture);
        let (dialled, accepted) = connect(&mut a, &mut b, LANE);
        let (gone, mut left) = if drop_dialler { (dialled, accepted) } else { (accepted, dialled) };
        drop(gone);
        let deadline = Instant::now() + DEADLINE;
        let error = loop {
            a.events(Duration::ZERO);
            b.events(Duration::ZERO);
            let mut record = [0; RECORD_LEN];
            match left.poll().and_then(|_| left.try_recv(&mut record)) {
                Ok(received) => assert!(!received, "a record out of nothing"),
                Err(error) => break error,
            }
            assert!(Instant::now() < deadline, "the link lives without its other end");
        };
        assert!(matches!(error.kind, ErrorKind::Broken | ErrorKind::PeerDead), "{error}");
    }
}

/// A domain that only dials has no address and accepts nothing.
pub fn a_domain_that_listens_to_nobody_publishes_nothing(make: &dyn Fn() -> Fixture) {
    let mut side = Side::open(&make(), ListenScope::Nobody);
    assert!(side.domain.locators().is_empty());
    assert!(side.domain.accept(LANE).expect("nothing is no error").is_none());
}

/// The transport and its lanes declare what the table demands, and limits that engines can rely on.
pub fn capabilities_are_those_of_the_table(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let expected = fixture.expected;
    assert!(TABLE.iter().all(|row| row.transport != expected.transport || row.places == expected.places));
    assert_eq!(fixture.transport.name(), expected.transport);
    assert_eq!(fixture.transport.expectation().0, expected.capabilities);
    let mut pair = Pair::new(&fixture);
    for side in [&mut pair.a, &mut pair.b] {
        let info = side.lane().info();
        assert_eq!(info.capabilities, expected.lane);
        assert_eq!(info.transport, expected.transport);
        assert!(info.limits.frame_max >= 4096 && info.limits.borrowed_max >= info.limits.frame_max);
        assert!(!info.peer.is_empty());
        assert!(info.cost.latency_ns > 0);
    }
}

fn sides(fixture: &Fixture) -> (Side, Side) {
    (Side::open(fixture, ListenScope::Nobody), Side::open(fixture, ListenScope::ThisUser))
}

fn records(random: &mut Random, count: usize) -> Vec<[u8; RECORD_LEN]> {
    (0..count)
        .map(|_| {
            let mut record = [0; RECORD_LEN];
            record.copy_from_slice(&random.bytes(RECORD_LEN));
            record
        })
        .collect()
}

/// Dials and polls until it fails.
fn dial_to_the_end(side: &mut Side, locator: &Locator) -> TransportError {
    let mut link = match side.domain.dial(locator, LANE) {
        Ok(link) => link,
        Err(error) => return error,
    };
    let deadline = Instant::now() + DEADLINE;
    loop {
        side.events(Duration::from_millis(1));
        match link.poll() {
            Ok(LinkState::Ready) => panic!("{locator} answers"),
            Ok(LinkState::Connecting) => {}
            Err(error) => return error,
        }
        assert!(Instant::now() < deadline, "{locator} neither answers nor fails");
    }
}
