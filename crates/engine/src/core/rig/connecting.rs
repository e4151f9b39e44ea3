//! Connects: which candidates are dialled, when, and how often; what comes of them, and what the caller is told.

use super::site::{GREATER, LESS, Line, Net, Peer, Site};
use crate::EngineOptions;
use crate::Security;
use crate::core::Purpose;
use crate::core::table::Key;
use sinew_transport::{ErrorKind, Locator};
use std::time::Duration;

/// What was dialled since the last call: the places over each of two nets.
fn places(nets: [&Net; 2]) -> [Vec<String>; 2] {
    nets.map(Net::places)
}

fn failed(site: &Site, connect: Key) -> String {
    match site.stands(connect) {
        Some(Err(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn lines(net: &Net) -> Vec<Line> {
    std::mem::take(&mut net.state().dialled).into_iter().map(|(_, line)| line).collect()
}

#[test]
fn the_best_candidate_is_dialled_first_and_the_next_one_a_little_later_beside_it() {
    let (near, far) = (Net::new("near", 100), Net::new("far", 9000));
    let site = Site::new([&far, &near]);
    let to = [far.at("b"), Locator::new("other", "x").unwrap(), near.at("a")];
    let connect = site.connect(None, &to, Purpose::Connect);
    assert_eq!(near.state().dialled.len(), 1);
    near.state().dialled[0].1.state().connecting = true;
    assert_eq!(far.places(), [""; 0]);
    assert_eq!(site.timer_ms(), Some(30));
    site.passes_ms(29);
    assert_eq!(far.places(), [""; 0]);
    site.passes_ms(1);
    assert_eq!(far.state().dialled.len(), 1);
    assert_eq!(near.places(), ["a"]);
    // Nothing is left to be started: what is under way has deadlines of its own.
    assert_eq!(site.timer_ms(), Some(3000 - 30), "of the first handshake");
    let line = far.line();
    line.state().connecting = true;
    site.fails(&line, ErrorKind::Refused);
    assert!(site.stands(connect).is_none());
    let text = site.core(|core| core.end_connect(connect)).unwrap();
    let rows = ["  near   near:a: no answer yet\n", "  far    far:b: link a test"];
    let absent = "  other  other:x: no transport of this engine understands it (option transports)\n";
    assert!(text.starts_with(rows[0]) && text.contains(rows[1]) && text.ends_with(absent), "{text}");
}

/// A lane that is proven here is under way until the peer says that it listens.
#[test]
fn what_is_proven_and_not_yet_listened_on_is_waited_for() {
    let (near, far) = (Net::new("near", 100), Net::new("far", 9000));
    let site = Site::new([&near, &far]);
    let peer = Peer::new(LESS);
    let connect = site.connect(None, &[near.at("a"), far.at("b"), far.at("c")], Purpose::Connect);
    let line = near.line();
    peer.answers(&site, &line);
    site.proves(&line, Duration::from_micros(2));
    site.passes_ms(30);
    let second = far.line();
    site.fails(&second, ErrorKind::Refused);
    assert_eq!(far.places(), [""; 0], "the third one has its own time");
    site.passes_ms(30);
    assert_eq!(far.places(), ["c"]);
    site.carries(&line);
    assert!(matches!(site.stands(connect), Some(Ok(_))));
}

/// 0 would stand for a lane without a number.
#[test]
fn the_number_of_a_lane_is_odd_whatever_chance_says() {
    let net = Net::new("one", 100);
    let site = Site::new([&net]);
    let numbers: Vec<u32> = (2..8)
        .map(|id| {
            let mut engine = LESS;
            engine[0] = id;
            site.connect(None, &[net.at("a")], Purpose::Connect);
            Peer::new(engine).answers(&site, &net.line()).hello.lane
        })
        .collect();
    assert!(numbers.iter().all(|number| number % 2 == 1), "{numbers:?}");
    assert!(numbers.windows(2).any(|pair| pair[0] != pair[1]), "{numbers:?}");
}

#[test]
fn when_all_that_are_under_way_have_failed_the_next_one_is_dialled_at_once() {
    let (near, far) = (Net::new("near", 100), Net::new("far", 9000));
    let site = Site::new([&near, &far]);
    let connect = site.connect(None, &[near.at("a"), far.at("b")], Purpose::Connect);
    let line = near.line();
    site.fails(&line, ErrorKind::Refused);
    assert!(!line.is_open());
    let other = far.line();
    site.fails(&other, ErrorKind::NoRoute);
    let why = failed(&site, connect);
    assert!(why.contains("near:a: link a test") && why.contains("far:b: link a test"), "{why}");
    assert_eq!(site.timer(), None);
    // What fails in the call itself is no different, nor is one for which there is nothing to try.
    near.state().refuses = Some(ErrorKind::InvalidAddress);
    let connect = site.connect(None, &[near.at("a"), far.at("b")], Purpose::Connect);
    assert_eq!(places([&near, &far]), [vec![], vec!["b".to_owned()]]);
    assert!(site.stands(connect).is_none());
    let nothing = site.connect(None, &[], Purpose::Connect);
    assert_eq!(failed(&site, nothing), "  (there was nothing to try: the address has no locator)");
}

#[test]
fn the_caller_is_woken_when_it_is_decided() {
    use std::sync::Arc;
    let woken = Arc::new(super::Woken::default());
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let waits = |connect: Key| {
        site.core(|core| core.connects.get_mut(connect).unwrap().waker = Some(Arc::clone(&woken).into()));
    };
    let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
    waits(connect);
    let line = net.line();
    let peer = Peer::new(LESS);
    peer.answers(&site, &line);
    site.proves(&line, Duration::from_micros(2));
    assert_eq!((woken.times(), site.stands(connect)), (0, None));
    site.carries(&line);
    assert_eq!(woken.times(), 1);
    assert!(matches!(site.stands(connect), Some(Ok(_))));
    let connect = site.connect(None, &[net.at("b")], Purpose::Connect);
    waits(connect);
    site.fails(&net.line(), ErrorKind::Refused);
    assert_eq!(woken.times(), 2);
    // The engine ends.
    let connect = site.connect(None, &[net.at("c")], Purpose::Connect);
    waits(connect);
    let line = net.line();
    site.core(crate::core::Core::abandon_wireup);
    assert_eq!((woken.times(), failed(&site, connect)), (3, "the engine was closed".to_owned()));
    assert!(!line.is_open());
    assert_eq!(failed(&site, Key::NONE), "given up");
}

/// Somebody may be there who was too busy: three tries in all, each after a longer wait, as far as the deadline allows.
#[test]
fn a_connect_is_tried_again_where_nobody_said_no() {
    for (kind, tries) in [
        (ErrorKind::TimedOut, 3),
        (ErrorKind::Broken, 3),
        (ErrorKind::Refused, 1),
        (ErrorKind::NoRoute, 1),
        (ErrorKind::TurnedAway, 1),
    ] {
        let net = Net::new("one", 1000);
        let site = Site::new([&net]);
        net.state().refuses = Some(kind);
        let begun = site.now();
        let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
        if tries == 3 {
            assert_eq!((site.stands(connect), site.timer_ms()), (None, Some(50)));
            site.passes_ms(49);
            assert_eq!(site.timer_ms(), Some(1), "a look before that changes nothing");
            site.passes_ms(1);
            assert_eq!((site.stands(connect), site.timer_ms()), (None, Some(100)));
            site.passes_ms(100);
        }
        let why = failed(&site, connect);
        assert!(why.starts_with("  one    one:a: dial one:a"), "{why}");
        assert_eq!((site.now() - begun).as_millis(), if tries == 3 { 150 } else { 0 });
    }
}

#[test]
fn a_connect_is_not_tried_again_beyond_its_deadline_nor_where_it_cannot_be() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    net.state().refuses = Some(ErrorKind::TimedOut);
    for (limit, waits) in [(50, false), (51, true)] {
        let deadline = site.now() + Duration::from_millis(limit);
        let connect =
            site.core(|core| core.start_connect(None, vec![net.at("a")], deadline, Purpose::Connect));
        assert_eq!(site.stands(connect).is_none(), waits, "{limit}");
    }
}

/// Beside a candidate that may be tried again stands one that no transport here understands: it stays refused.
#[test]
fn what_no_transport_understands_is_not_tried_again() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let unknown = Locator::new("other", "x").unwrap();
    net.state().refuses = Some(ErrorKind::TimedOut);
    let connect = site.connect(None, &[net.at("a"), unknown.clone()], Purpose::Connect);
    site.passes_ms(50);
    let text = site.core(|core| core.end_connect(connect)).unwrap();
    assert!(text.contains("other:x: no transport of this engine understands it"), "{text}");
    // Nor for a session that has lost its last lane.
    net.state().refuses = None;
    let peer = Peer::at(LESS, &[net.at("a"), unknown]);
    let (session, line) = site.session(&net, &peer);
    net.state().refuses = Some(ErrorKind::TimedOut);
    site.fails(&line, ErrorKind::Broken);
    let owners = site.core(|core| core.owners.len());
    for _ in 0..100 {
        site.passes_ms(10);
    }
    assert!(site.core(|core| core.sessions.get(session).unwrap().is_up()));
    assert!(site.core(|core| core.owners.len()) <= owners + 1, "numbers are given back");
}

/// What is told while a candidate is tried again is how the try before it ended.
#[test]
fn a_try_under_way_is_told_by_how_the_one_before_it_ended() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
    let text = || site.core(|core| core.told_of(connect));
    let line = net.line();
    line.state().connecting = true;
    assert_eq!(text(), "  one    one:a: no answer yet\n");
    site.fails(&line, ErrorKind::Broken);
    site.passes_ms(50);
    let line = net.line();
    assert!(text().starts_with("  one    one:a: link a test"), "{}", text());
    Peer::new(LESS).answers(&site, &line);
    assert_eq!(text(), "  one    one:a: answered, but a full frame has not come back yet\n");
    site.proves(&line, Duration::from_micros(2));
    assert_eq!(text(), "  one    one:a: works\n");
}

#[test]
fn a_session_that_is_carried_is_the_answer_at_once_and_one_that_is_not_is_dialled() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let peer = Peer::new(LESS);
    let (session, line) = site.session(&net, &peer);
    let connect = site.connect(peer.expected(), &[net.at("a")], Purpose::Connect);
    assert_eq!((site.stands(connect), net.places()), (Some(Ok(session)), vec![]));
    // Another incarnation, another engine, or anybody.
    for expected in [Some((peer.id, 10)), Some((GREATER, peer.incarnation)), None] {
        let connect = site.connect(expected, &[net.at("a")], Purpose::Connect);
        assert_eq!((site.stands(connect), net.places()), (None, vec!["a".to_owned()]));
        site.core(|core| core.end_connect(connect));
    }
    // A transport of one's own is dialled whatever there is.
    let connect = site.connect(peer.expected(), &[net.at("a")], Purpose::Pinned);
    assert_eq!((site.stands(connect), net.places()), (None, vec!["a".to_owned()]));
    site.core(|core| core.end_connect(connect));
    // Its last lane is lost.
    site.fails(&line, ErrorKind::Broken);
    net.places();
    let connect = site.connect(peer.expected(), &[net.at("a")], Purpose::Connect);
    assert_eq!((site.stands(connect), net.places()), (None, vec!["a".to_owned()]));
}

/// Two that are connecting to each other at once: the session that the other one has made is as good.
#[test]
fn a_session_that_the_peer_makes_meanwhile_answers_who_waits_for_that_peer() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let peer = Peer::new(LESS);
    let any = Some((peer.id, 0));
    let waiting = [peer.expected(), any].map(|to| site.connect(to, &[net.at("a")], Purpose::Connect));
    let others =
        [(GREATER, 9), (peer.id, 8)].map(|to| site.connect(Some(to), &[net.at("a")], Purpose::Connect));
    let pinned = site.connect(peer.expected(), &[net.at("a")], Purpose::Pinned);
    lines(&net).iter().for_each(|line| line.state().connecting = true);
    let (session, _line) = site.accepted(&net, &peer);
    for connect in waiting {
        assert_eq!(site.stands(connect), Some(Ok(session)));
    }
    for connect in others.into_iter().chain([pinned]) {
        assert_eq!(site.stands(connect), None);
    }
}

#[test]
fn a_connect_that_was_given_up_ends_its_dials_and_one_that_succeeded_lets_them_go_on() {
    let (near, far) = (Net::new("near", 100), Net::new("far", 9000));
    let site = Site::with([&near, &far], Security::Open, EngineOptions::default().stagger(Duration::ZERO));
    let to = [near.at("a"), far.at("b")];
    let given_up = site.connect(None, &to, Purpose::Connect);
    let dialled = [near.line(), far.line()];
    let other = site.connect(None, &to, Purpose::Connect);
    let others = [near.line(), far.line()];
    others.iter().chain(&dialled).for_each(|line| line.state().connecting = true);
    site.core(|core| core.end_connect(given_up));
    assert!(dialled.iter().all(|line| !line.is_open()) && others.iter().all(Line::is_open));
    assert_eq!(site.core(|core| core.end_connect(given_up)), None);
    others[1].state().connecting = false;
    let peer = Peer::new(LESS);
    peer.answers(&site, &others[1]);
    site.proves(&others[1], Duration::from_micros(2));
    site.carries(&others[1]);
    assert!(matches!(site.stands(other), Some(Ok(_))));
    site.core(|core| core.end_connect(other));
    assert!(others[0].is_open(), "a better lane may still come of it");
    others[0].state().connecting = false;
    peer.answers(&site, &others[0]);
    site.proves(&others[0], Duration::from_micros(2));
    assert_eq!(site.core(|core| core.lanes.len()), 2);
    // Of one that is pinned only that lane is wanted.
    let pinned = site.connect(None, &[near.at("a"), near.at("c")], Purpose::Pinned);
    let [first, second] = lines(&near).try_into().ok().unwrap();
    second.state().connecting = true;
    peer.answers(&site, &first);
    site.proves(&first, Duration::from_micros(2));
    site.carries(&first);
    assert!(matches!(site.stands(pinned), Some(Ok(_))));
    site.core(|core| core.end_connect(pinned));
    assert!(first.is_open() && !second.is_open());
}

#[test]
fn what_cannot_be_opened_here_says_so() {
    let (net, missing) = (Net::new("one", 1000), Net::new("two", 1));
    missing.state().missing = true;
    let site = Site::new([&net, &missing]);
    let connect = site.connect(None, &[missing.at("a")], Purpose::Connect);
    let why = failed(&site, connect);
    assert!(why.starts_with("  two    two:a: the transport could not be opened: probe a test"), "{why}");
    let other = site.connect(None, &[Locator::new("three", "a").unwrap()], Purpose::Connect);
    let why = failed(&site, other);
    assert!(why.contains("no transport of this engine understands it"), "{why}");
}
