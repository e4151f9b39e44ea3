//! How many lanes of one transport a session gets where this engine has dialled: what is added, when it is dialled again after a
//! refusal, which are closed, and what is said of it.

use super::site::{GREATER, LESS, Line, Net, Peer, Site};
use crate::core::Purpose;
use crate::core::table::Key;
use sinew_transport::ErrorKind;
use sinew_wire::frame::{Header, Kind};
use sinew_wire::hello::Features;
use std::time::Duration;

pub(super) const LOOK_MS: u64 = 25;
const QUEUE: u64 = 64 << 10;

/// How many lanes are wanted, and why.
pub(super) fn wanted(site: &Site, session: Key) -> (usize, String) {
    site.core(|core| {
        let count = core.socket_count(session, core.sessions.get(session).unwrap()).unwrap();
        (count.wanted, count.why)
    })
}

pub(super) fn is_tended(site: &Site, session: Key) -> bool {
    site.core(|core| {
        let tended = core.tended.contains(&session);
        assert_eq!(core.sessions.get(session).is_some_and(|session| session.tended), tended);
        tended
    })
}

/// Some time in which so many bytes arrive on each lane between two looks, and as many wait.
pub(super) fn carries(site: &Site, lines: &[&Line], looks: u64, arrive: u64, wait: u64) {
    for _ in 0..looks {
        for line in lines {
            let wire = line.wire();
            wire.state().arrived += arrive;
            wire.state().queued = wait;
        }
        site.passes_ms(LOOK_MS);
    }
}

/// The peer takes one more lane, which was dialled.
pub(super) fn takes(site: &Site, net: &Net, peer: &Peer) -> Line {
    let line = net.line();
    assert!(peer.answers(site, &line).hello.resumes, "one more of a session that stands");
    site.proves(&line, Duration::from_micros(2));
    site.listens(&line);
    line.wire().take();
    line
}

pub(super) fn counters(site: &Site) -> [u64; 3] {
    site.core(|core| {
        let counters = core.counters;
        [counters.lanes_added, counters.lanes_dropped, counters.lanes_refused]
    })
}

fn tends(site: &Site, session: Key) {
    site.core(|core| core.tend_later(session));
}

#[test]
fn a_session_without_long_messages_costs_no_look() {
    let net = Net::of_many("one", 1, 4);
    let site = Site::new([&net]);
    let (session, line) = site.session(&net, &Peer::new(LESS));
    assert!(!is_tended(&site, session));
    assert_eq!(site.timer(), None);
    assert_eq!(wanted(&site, session), (1, "no long queue was seen".to_owned()));
    tends(&site, session);
    tends(&site, session);
    assert_eq!(site.core(|core| core.tended.len()), 1, "once");
    assert_eq!(site.timer_ms(), Some(0), "at once");
    site.passes_ms(0);
    assert_eq!(site.timer_ms(), Some(25));
    // Twelve looks at which nothing has moved, the first among them.
    carries(&site, &[&line], 10, 0, 0);
    assert!(is_tended(&site, session));
    carries(&site, &[&line], 1, 0, 0);
    assert!(!is_tended(&site, session));
    assert_eq!(site.timer(), None);
    // Anew, and while something moves it is looked at.
    tends(&site, session);
    carries(&site, &[&line], 30, 1, 0);
    assert!(is_tended(&site, session));
    assert_eq!((net.places(), counters(&site)), (vec![], [0, 0, 0]));
}

#[test]
fn a_queue_that_lasts_gets_another_socket_at_the_same_place_and_keeps_it_while_it_carries_more() {
    let net = Net::of_many("one", 1, 4);
    let (site, peer) = (Site::new([&net]), Peer::at(LESS, &[net.at("elsewhere")]));
    let (session, one) = site.session(&net, &peer);
    tends(&site, session);
    // Bytes that wait are no queue when the lane stands still, nor when they are few.
    carries(&site, &[&one], 10, 0, QUEUE);
    tends(&site, session);
    carries(&site, &[&one], 20, 1 << 20, QUEUE - 1);
    assert_eq!(net.places(), [""; 0]);
    carries(&site, &[&one], 8, 1 << 20, QUEUE);
    assert_eq!(net.places(), [""; 0], "not for long");
    site.passes_ms(LOOK_MS - 1);
    assert_eq!(wanted(&site, session).0, 1);
    carries(&site, &[&one], 1, 1 << 20, QUEUE);
    assert_eq!(wanted(&site, session).0, 2);
    assert_eq!(net.state().dialled[0].0, net.at("there"), "where the first one was dialled");
    assert_eq!(net.state().dialled.len(), 1);
    carries(&site, &[&one], 4, 1 << 20, QUEUE);
    assert_eq!(net.state().dialled.len(), 1, "it is under way");
    let two = takes(&site, &net, &peer);
    assert_eq!(counters(&site), [1, 0, 0]);
    // Both carry as much as the one did.
    carries(&site, &[&one, &two], 14, 1 << 20, QUEUE);
    let (count, why) = wanted(&site, session);
    assert_eq!(count, 2);
    assert!(why.starts_with("the last one added carries more: 83.9 MB/s, 37.4 without it"), "{why}");
    let text = site.core(|core| core.explain_session(session).sockets.unwrap().to_string());
    assert_eq!(text, format!("one sockets: 2 of 2 wanted, 1 to 4 allowed: {why}"));
    // A queue for two is twice as long.
    carries(&site, &[&one, &two], 30, 1 << 20, QUEUE - 1);
    assert_eq!(wanted(&site, session).0, 2);
    // Nothing more: the one that was added goes, what it has carried still counts, and nothing is left to look at.
    one.wire().take();
    carries(&site, &[&one, &two], 140, 0, 0);
    assert_eq!(wanted(&site, session).0, 1);
    assert!(one.is_open() && !two.is_open());
    assert_eq!(counters(&site), [1, 1, 0]);
    assert_eq!(two.wire().state().ever.last().map(|header| header.kind), Some(Kind::LANE_DOWN));
    carries(&site, &[&one], 12, 0, 0);
    assert!(!is_tended(&site, session));
}

/// What waits for its turn is a queue as well, though the lane holds little.
#[test]
fn messages_that_wait_to_be_fetched_are_a_queue() {
    for again in [false, true] {
        let net = Net::of_many("one", 1, 4);
        let (site, peer) = (Site::new([&net]), Peer::new(LESS));
        let (session, one) = site.session(&net, &peer);
        tends(&site, session);
        let waits = |core: &mut crate::core::Core| {
            one.wire().state().full = true;
            let session = core.sessions.get_mut(session).unwrap();
            if again {
                session.again.push_back(unacknowledged());
            } else {
                session.transfers.push_back(Key(77));
            }
        };
        site.core(waits);
        carries(&site, &[&one], 9, 1 << 20, 0);
        assert_eq!(wanted(&site, session).0, 2, "{again}");
    }
}

fn unacknowledged() -> sinew_transport::Unacknowledged {
    let body = sinew_transport::UnacknowledgedBody::Owned(Vec::new());
    sinew_transport::Unacknowledged { header: Header::control(Kind::STRIPE, 1), body }
}

/// One more socket is a share of a resource that somebody must have: no more are dialled than the options say.
#[test]
fn as_many_as_are_asked_for_are_there_at_once_and_no_more() {
    let net = Net::of_many("one", 3, 3);
    let (site, peer) = (Site::new([&net]), Peer::new(LESS));
    let (session, one) = site.session(&net, &peer);
    assert!(is_tended(&site, session));
    assert_eq!(wanted(&site, session), (3, "3 were asked for".to_owned()));
    // What else is being dialled does not count.
    site.connect(None, &[net.at("x")], Purpose::Connect);
    net.places();
    site.passes_ms(0);
    assert_eq!(net.state().dialled.len(), 2);
    let second = net.state().dialled.remove(0).1;
    let three = takes(&site, &net, &peer);
    site.passes_ms(LOOK_MS);
    assert_eq!(net.places(), [""; 0], "the other one is under way");
    peer.answers(&site, &second);
    site.passes_ms(LOOK_MS);
    assert_eq!(net.places(), [""; 0], "it is there, though not proven yet");
    site.proves(&second, Duration::from_micros(2));
    site.listens(&second);
    carries(&site, &[&one, &second, &three], 20, 1 << 20, 1 << 20);
    assert_eq!(net.places(), [""; 0]);
    assert_eq!(counters(&site), [2, 0, 0]);
    // One of them ends, and is had again.
    site.fails(&three, ErrorKind::Broken);
    assert!(is_tended(&site, session));
    site.passes_ms(0);
    assert_eq!(net.places(), ["there"]);
}

#[test]
fn a_place_that_refuses_is_dialled_later_and_later() {
    let net = Net::of_many("one", 2, 2);
    let (site, peer) = (Site::new([&net]), Peer::new(LESS));
    let (session, _one) = site.session(&net, &peer);
    net.state().refuses = Some(ErrorKind::Refused);
    site.passes_ms(0);
    assert_eq!(counters(&site), [0, 0, 1]);
    let why = wanted(&site, session).1;
    assert!(
        why.starts_with("2 were asked for; another one could not be had: one    one:there: dial"),
        "{why}"
    );
    let mut waits = vec![];
    let (mut since, mut refused) = (site.now(), 1);
    while waits.len() < 9 {
        site.passes_ms(5);
        if counters(&site)[2] > refused {
            refused = counters(&site)[2];
            waits.push((site.now() - since).as_millis());
            since = site.now();
        }
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    // Once one was had, all is forgotten.
    net.state().refuses = None;
    site.passes_ms(10_000);
    let two = takes(&site, &net, &peer);
    assert_eq!(wanted(&site, session).1, "2 were asked for");
    net.state().refuses = Some(ErrorKind::Refused);
    site.fails(&two, ErrorKind::Broken);
    let refused = counters(&site)[2];
    site.passes_ms(0);
    assert_eq!(counters(&site)[2], refused + 1, "at once");
    site.passes_ms(99);
    assert_eq!(counters(&site)[2], refused + 1);
    site.passes_ms(LOOK_MS);
    assert_eq!(counters(&site)[2], refused + 2);
}

/// A dial that nobody answers is over after three seconds; while it lasts there is no other.
#[test]
fn a_socket_that_nobody_answers_is_given_up() {
    let net = Net::of_many("one", 2, 2);
    let (site, peer) = (Site::new([&net]), Peer::new(LESS));
    let (_session, _one) = site.session(&net, &peer);
    site.passes_ms(0);
    let line = net.line();
    line.state().connecting = true;
    for _ in 0..119 {
        site.passes_ms(LOOK_MS);
    }
    assert!(line.is_open());
    assert_eq!((net.places(), counters(&site)), (vec![], [0, 0, 0]));
    site.passes_ms(LOOK_MS);
    assert!(!line.is_open());
    assert_eq!((net.places(), counters(&site)), (vec![], [0, 0, 1]));
}

#[test]
fn a_trial_for_which_nothing_is_had_is_none() {
    let net = Net::of_many("one", 1, 4);
    let (site, peer) = (Site::new([&net]), Peer::new(LESS));
    let (session, one) = site.session(&net, &peer);
    net.state().refuses = Some(ErrorKind::Limit);
    tends(&site, session);
    carries(&site, &[&one], 9, 1 << 20, QUEUE);
    let (count, why) = wanted(&site, session);
    assert_eq!(count, 1);
    assert!(
        why.starts_with("one more was wanted and could not be had; another one could not be had:"),
        "{why}"
    );
}

/// Its lanes are not of the kind that can carry a message together, the peer does not know how, or there is never more than one.
#[test]
fn where_several_are_of_no_use_there_is_one() {
    let alone = Net::new("one", 1000);
    let many = Net::of_many("one", 4, 4);
    let without = Peer { features: Features(Features::THIS.0 & !Features::STRIPES.0), ..Peer::new(LESS) };
    for (net, peer, joins) in
        [(&alone, Peer::new(LESS), true), (&many, Peer::new(LESS), false), (&many, without, true)]
    {
        let site = Site::new([net]);
        let connect = site.connect(None, &[net.at("there")], Purpose::Connect);
        let line = net.line();
        line.wire().state().counts = joins;
        peer.answers(&site, &line);
        site.proves(&line, Duration::from_micros(2));
        site.carries(&line);
        let Some(Ok(session)) = site.stands(connect) else { panic!("no session") };
        tends(&site, session);
        assert!(!is_tended(&site, session));
        site.passes_ms(1000);
        assert_eq!(net.places(), [""; 0]);
        let count = site.core(|core| core.explain_session(session).sockets);
        assert_eq!(count.is_some(), joins);
        if net.at("x") == alone.at("x") && joins && count.as_ref().is_some_and(|count| count.bounds == (1, 1))
        {
            assert_eq!(count.unwrap().why, "single was asked for");
        }
    }
}

/// The one that carries the session, those on which the peer sends, and those that others have made are not this engine's to close;
/// of its own, those go first on which nothing is under way.
#[test]
fn lanes_of_this_engine_that_carry_nothing_are_closed_those_that_are_idle_first() {
    let net = Net::of_many("one", 1, 8);
    let (site, mut peer) = (Site::new([&net]), Peer::new(GREATER));
    let (session, one) = site.session(&net, &peer);
    // The peer asks for five, then for fewer.
    site.comes(&one, Header::control(Kind::LANES, 5));
    site.passes_ms(0);
    assert_eq!(wanted(&site, session), (5, "no long queue was seen; the peer asks for 5".to_owned()));
    let lines: Vec<Line> =
        std::mem::take(&mut net.state().dialled).into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines.len(), 4);
    for line in &lines {
        peer.answers(&site, line);
        site.proves(line, Duration::from_micros(2));
        site.listens(line);
        line.wire().take();
    }
    peer.hello.resumes = true;
    let (theirs, answer) = peer.dials(&site, &net);
    answer.unwrap();
    site.proves(&theirs, Duration::from_micros(2));
    site.listens(&theirs);
    theirs.wire().take();
    // The peer sends on the first of them, and the second and third have something under way.
    site.comes(&lines[0], Header { dst: 2, ..Header::control(Kind::SWITCH, 0) });
    site.core(|core| core.sessions.get_mut(session).unwrap().moving_to = None);
    for (line, frames) in [(&lines[1], 2), (&lines[2], 1), (&lines[3], 0), (&one, 0)] {
        line.wire().take();
        line.wire().state().posted = vec![(Header::control(Kind::STRIPE, 1), Vec::new()); frames];
    }
    let open = || lines.iter().map(Line::is_open).collect::<Vec<bool>>();
    let asks = |count: u64| {
        site.comes(&one, Header::control(Kind::LANES, count));
        site.passes_ms(0);
    };
    asks(6);
    assert_eq!((open(), counters(&site)), (vec![true; 4], [5, 0, 0]));
    asks(5);
    assert_eq!((open(), counters(&site)), (vec![true, true, true, false], [5, 1, 0]));
    asks(4);
    assert_eq!((open(), counters(&site)), (vec![true, true, false, false], [5, 2, 0]));
    asks(1);
    assert_eq!((open(), counters(&site)), (vec![true, false, false, false], [5, 3, 0]));
    assert!(one.is_open() && theirs.is_open());
    assert_eq!(wanted(&site, session).1, "no long queue was seen");
}

/// What a session knows of the sockets of one transport is nothing to another one.
#[test]
fn another_transport_has_a_number_of_its_own() {
    let (one, two) = (Net::of_many("one", 1, 4), Net::of_many("two", 1, 2));
    let (site, peer) = (Site::new([&one, &two]), Peer::new(LESS));
    let (session, line) = site.session(&one, &peer);
    site.comes(&line, Header::control(Kind::LANES, 3));
    assert_eq!(wanted(&site, session).0, 3);
    let connect = site.connect(None, &[two.at("there")], Purpose::Connect);
    let other = two.line();
    peer.answers(&site, &other);
    site.proves(&other, Duration::from_micros(2));
    site.listens(&other);
    site.core(|core| core.end_connect(connect));
    let lane = site.lane(&other);
    site.core(|core| core.sessions.get_mut(session).unwrap().active = Some(lane));
    assert_eq!(wanted(&site, session).0, 1, "nothing is known of it");
    site.passes_ms(0);
    assert!(!is_tended(&site, session));
    tends(&site, session);
    site.comes(&other, Header::control(Kind::LANES, 3));
    assert_eq!(wanted(&site, session).0, 2, "and it has bounds of its own");
}
