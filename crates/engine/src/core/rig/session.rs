//! What a session pays with, how long it waits for credit, and what it remembers.

use super::Rig;
use crate::core::op::Charge;
use crate::core::session::{PeerEngine, Push, Session, SessionId, Windows};
use crate::core::table::Key;
use crate::core::{Surroundings, session::ControlBody};
use sinew_transport::{Errno, Locator};
use sinew_wire::hello::Features;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const WINDOWS: Windows =
    Windows { endpoint_bytes: 1600, session_bytes: 2000, endpoint_envelopes: 4, session_envelopes: 3 };

fn session() -> Session {
    let peer =
        PeerEngine { id: [7; 16], incarnation: 1, number: 1, locators: Vec::new(), features: Features(0) };
    Session::new(peer, Some("tcp"), 0, WINDOWS, WINDOWS)
}

/// Which credit pays for a message of this cost to a flow.
fn charge(session: &Session, flow: u32, cost: u64) -> Option<Charge> {
    session.charge(&session.flows[flow as usize], cost)
}

fn charge_envelope(session: &Session, flow: u32) -> Option<Charge> {
    session.charge_envelope(&session.flows[flow as usize])
}

/// A time that a test sets.
pub(super) struct Clock(Mutex<Instant>);

impl Clock {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Rig::new([0; 16]).core(|core| core.surroundings.now())))
    }

    pub(super) fn passes(&self, ms: u64) {
        *self.0.lock().unwrap() += Duration::from_millis(ms);
    }
}

impl Surroundings for Clock {
    fn now(&self) -> Instant {
        *self.0.lock().unwrap()
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), Errno> {
        bytes.fill(1);
        Ok(())
    }
}

#[test]
fn messages_are_paid_from_what_is_shared_then_from_the_reserve_and_never_beyond_their_own_window() {
    let mut session = session();
    let (one, two) = (session.flow_to(1), session.flow_to(2));
    assert_eq!((one, two, session.flow_to(1)), (0, 1, 0), "a flow for each endpoint");
    for _ in 0..2 {
        assert_eq!(charge(&session, one, 800), Some(Charge::Shared));
        session.pay(one, Charge::Shared, 800);
    }
    assert_eq!(charge(&session, one, 1), None, "its own window is spent");
    assert_eq!(charge(&session, two, 400), Some(Charge::Shared));
    session.pay(two, Charge::Shared, 400);
    assert_eq!(session.bytes.available(), 0);
    assert_eq!(charge(&session, two, 50), Some(Charge::Reserve), "half of a sixteenth of 1600");
    assert_eq!(charge(&session, two, 51), None);
    session.pay(two, Charge::Reserve, 50);
    session.pay(two, Charge::Reserve, 50);
    assert_eq!(charge(&session, two, 50), None);
    assert_eq!(session.flows[1].bytes.sent(), 400, "the reserve is a count of its own");
    session.pay_back(two, Charge::Reserve, 50);
    assert_eq!(charge(&session, two, 50), Some(Charge::Reserve));
    session.pay_back(one, Charge::Shared, 800);
    assert_eq!((session.bytes.available(), session.flows[0].bytes.available()), (800, 800));
    assert_eq!(charge(&session, two, 400), Some(Charge::Shared));
}

#[test]
fn envelopes_are_paid_alike() {
    let mut session = session();
    let (one, two) = (session.flow_to(1), session.flow_to(2));
    for _ in 0..3 {
        assert_eq!(charge_envelope(&session, one), Some(Charge::Shared));
        session.pay_envelope(one, Charge::Shared);
    }
    assert_eq!(session.envelopes.available(), 0);
    assert_eq!(session.flows[0].envelopes.available(), 1);
    for _ in 0..2 {
        assert_eq!(charge_envelope(&session, two), Some(Charge::Reserve));
        session.pay_envelope(two, Charge::Reserve);
    }
    assert_eq!(charge_envelope(&session, two), None);
    assert_eq!(session.flows[1].envelopes.available(), 4);
    // Of its own it has none, whatever the reserve has.
    session.envelopes.raise(10);
    session.pay_envelope(one, Charge::Shared);
    assert_eq!(session.flows[0].envelopes.available(), 0);
    assert_eq!(charge_envelope(&session, one), None);
}

/// What is short is the flow's own window: the receiver has read all and gives nothing back, or it has not even read.
#[test]
fn a_receiver_that_gives_nothing_back_is_waited_for_and_longer_where_less_is_known() {
    for (unread, ms) in [(false, 200), (true, 2000)] {
        let mut session = session();
        let flow = session.flow_to(1);
        (0..2).for_each(|_| session.pay(flow, Charge::Shared, 800));
        let clock = Clock::new();
        let begun = clock.now();
        let mut due = None;
        assert!(!session.is_starved(flow, 10, unread, &clock, &mut due));
        assert_eq!(due, Some(begun + Duration::from_millis(200)), "looked at again then");
        clock.passes(ms - 1);
        let mut due = None;
        assert!(!session.is_starved(flow, 10, unread, &clock, &mut due));
        assert_eq!(due, Some(clock.now() + Duration::from_millis(50)), "not without a pause");
        clock.passes(1);
        let mut due = None;
        assert!(session.is_starved(flow, 10, unread, &clock, &mut due));
        assert_eq!(due, None);
        // Known once, it holds until credit comes.
        assert!(session.is_starved(flow, 10, true, &clock, &mut due));
        session.flows[0].shortage.end();
        assert!(!session.is_starved(flow, 10, unread, &clock, &mut due), "counted anew");
    }
}

#[test]
fn what_others_have_spent_is_waited_for_while_a_reserve_will_do() {
    let mut session = session();
    let (one, two) = (session.flow_to(1), session.flow_to(2));
    (0..2).for_each(|_| session.pay(one, Charge::Shared, 800));
    session.pay(two, Charge::Shared, 400);
    let (clock, mut due) = (Clock::new(), None);
    assert!(session.is_starved(two, 51, false, &clock, &mut due), "more than its reserve ever has");
    assert!(!session.is_starved(two, 50, false, &clock, &mut due));
    clock.passes(1999);
    assert!(!session.is_starved(two, 50, false, &clock, &mut due));
    clock.passes(1);
    assert!(session.is_starved(two, 50, false, &clock, &mut due));
    session.shortage.end();
    assert!(!session.is_starved(two, 50, false, &clock, &mut due));
    assert!(session.is_starved(one, 801, false, &clock, &mut due), "no window ever has as much for one");
}

#[test]
fn the_earlier_of_two_times_is_when_starving_is_looked_at() {
    let mut session = session();
    let flow = session.flow_to(1);
    (0..2).for_each(|_| session.pay(flow, Charge::Shared, 800));
    let clock = Clock::new();
    let early = clock.now() + Duration::from_millis(7);
    let mut due = Some(early);
    assert!(!session.is_starved(flow, 10, false, &clock, &mut due));
    assert_eq!(due, Some(early));
}

#[test]
fn a_push_for_which_nobody_waited_makes_the_next_ones_shy_and_ends_itself() {
    let mut session = session();
    let flow = session.flow_to(1);
    let (op, other) = (Key(5), Key(6));
    let push = |session: &mut Session| {
        session.pushed = 100;
        session.to_push = Some(Push { op, next: 60, end: 100 });
    };
    push(&mut session);
    session.push_answered(flow, op, 60, true);
    assert_eq!((session.pushed, session.flows[0].shy), (40, 0));
    assert!(session.to_push.is_some(), "it was wanted");
    push(&mut session);
    session.push_answered(flow, other, 30, false);
    assert!(session.to_push.is_some(), "of another message");
    assert_eq!((session.pushed, session.flows[0].shy), (70, 32));
    session.push_answered(flow, op, 30, false);
    assert!(session.to_push.is_none());
}

#[test]
fn the_last_places_that_an_explicit_connect_has_reached_are_remembered_each_once() {
    let mut session = session();
    let place = |number: u32| Locator::new("tcp", format!("127.0.0.1:{number}")).unwrap();
    (1..=9).for_each(|number| session.reached_at(place(number)));
    session.reached_at(place(5));
    let expected: Vec<Locator> = [5, 9, 8, 7, 6, 4, 3, 2].map(place).into();
    assert_eq!(session.asked, expected);
    assert_eq!(session.id(), SessionId { engine: [7; 16], pinned: Some("tcp") });
    assert!(session.chooses([8; 16]) != session.chooses([6; 16]));
}

#[test]
fn numbers_of_a_control_frame_lie_one_after_the_other() {
    let body = ControlBody::numbers([1, 2, 0x0304]);
    assert_eq!(body.as_slice(), [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(ControlBody::from([1, 2, 3]).as_slice(), [1, 2, 3]);
    assert_eq!(ControlBody::from([]).as_slice(), [0; 0]);
}
