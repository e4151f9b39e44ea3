//! Sessions that have lost their last lane: where and how often the peer is dialled again, and when it is given up.

use super::site::{GREATER, LESS, Line, Net, Peer, Site};
use crate::core::Purpose;
use crate::core::table::Key;
use crate::{EngineOptions, Security};
use sinew_transport::ErrorKind;
use sinew_wire::frame::{Header, Kind};
use std::time::Duration;

fn is_up(site: &Site, session: Key) -> bool {
    site.core(|core| core.sessions.get(session).unwrap().is_up())
}

fn why(site: &Site, session: Key) -> String {
    site.core(|core| core.session_error(session)).unwrap_err().to_string()
}

/// When something was dialled, in ms from now on, as far as `ms`.
fn dials(site: &Site, net: &Net, ms: u64) -> Vec<u64> {
    let mut at = vec![];
    for passed in 1..=ms {
        site.passes_ms(1);
        if !net.places().is_empty() {
            at.push(passed);
        }
    }
    at
}

/// The lane that is had again carries on where the lost one ended.
fn carries_again(site: &Site, line: &Line, leg: u32) {
    site.comes(line, Header { src: leg, dst: 1, ..Header::control(Kind::RESUME, 0) });
    site.comes(line, Header { dst: leg + 1, ..Header::control(Kind::SWITCH, 0) });
}

#[test]
fn the_peer_is_dialled_again_at_once_and_soon_and_then_less_often() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let peer = Peer::at(LESS, &[net.at("p")]);
    let (session, line) = site.session(&net, &peer);
    site.fails(&line, ErrorKind::Broken);
    assert_eq!(site.core(|core| core.connects.len()), 1);
    site.core(|core| core.redial(session));
    assert_eq!(site.core(|core| core.connects.len()), 1, "it is under way");
    let mut waits = vec![];
    for _ in 0..11 {
        let line = net.line();
        assert_eq!(net.state().dialled.len(), 0);
        site.fails(&line, ErrorKind::TimedOut);
        let mut waited = 0;
        while net.state().dialled.is_empty() {
            site.passes_ms(1);
            waited += 1;
        }
        waits.push(waited);
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]);
    assert!(is_up(&site, session));
    // It is had.
    let line = net.line();
    let engine = peer.answers(&site, &line);
    assert_eq!((engine.hello.expected_engine, engine.hello.expected_incarnation), (LESS, peer.incarnation));
    assert!(!engine.hello.resumes);
    site.proves(&line, Duration::from_micros(2));
    carries_again(&site, &line, 1);
    assert_eq!(site.core(|core| core.connects.len()), 0);
    assert_eq!(site.core(|core| core.sessions.get(session).unwrap().active), Some(site.lane(&line)));
}

#[test]
fn a_peer_of_which_nobody_is_left_where_it_was_is_lost() {
    use ErrorKind::{PeerDead, PermissionDenied, Refused, Unavailable};
    for kind in [Refused, PeerDead, Unavailable, PermissionDenied] {
        let (one, two) = (Net::new("one", 1000), Net::new("two", 2000));
        let site = Site::new([&one, &two]);
        let (session, line) = site.session(&one, &Peer::at(LESS, &[one.at("p"), two.at("q")]));
        one.state().refuses = Some(kind);
        site.fails(&line, ErrorKind::Broken);
        assert!(is_up(&site, session), "another place is being dialled");
        site.fails(&two.line(), kind);
        assert!(!is_up(&site, session));
        let why = why(&site, session);
        assert!(
            why.contains("its last lane broke (one: poll")
                && why.contains("and nobody answers where it was\n"),
            "{why}"
        );
        assert!(why.contains("  one    one:p: dial one:p") && why.contains("two:q: link"), "{why}");
        assert_eq!(site.core(|core| core.connects.len()), 0);
    }
}

/// One of them may be there: it is tried until the session has been without a lane for too long.
#[test]
fn a_peer_that_may_be_there_is_waited_for_as_long_as_the_options_say() {
    let (one, two) = (Net::new("one", 1000), Net::new("two", 2000));
    let site = Site::new([&one, &two]);
    let (session, line) = site.session(&one, &Peer::at(LESS, &[one.at("p"), two.at("q")]));
    one.state().refuses = Some(ErrorKind::Refused);
    two.state().refuses = Some(ErrorKind::NoRoute);
    site.fails(&line, ErrorKind::Broken);
    for _ in 0..99 {
        site.passes_ms(100);
    }
    assert!(is_up(&site, session));
    assert!(site.timer().is_some_and(|left| left <= Duration::from_millis(100)));
    site.passes_ms(100);
    assert!(!is_up(&site, session));
    let why = why(&site, session);
    assert!(why.contains("no lane for 10s (peer_timeout); the last one broke (one: poll"), "{why}");
    assert_eq!(site.core(|core| core.connects.len()), 0, "nothing of it is left");
    assert_eq!(site.timer(), None);
}

/// A peer that cannot be dialled dials itself, if it lives: that is waited for a second, or longer where the lane had ended by
/// silence, as then the way may be closed both ways.
#[test]
fn a_peer_that_says_no_place_is_waited_for() {
    for (kind, ms) in [(ErrorKind::Broken, 1000), (ErrorKind::TimedOut, 5000)] {
        let net = Net::new("one", 1000);
        let site = Site::new([&net]);
        let (session, line) = site.accepted(&net, &Peer::new(LESS));
        site.fails(&line, kind);
        let mut waited = 0;
        while is_up(&site, session) {
            let next = site.timer().expect("it is waited for").max(Duration::from_millis(1));
            site.passes(next);
            waited += next.as_millis();
            assert!(waited < 20_000);
        }
        assert_eq!(waited, ms, "{kind:?}");
        let why = why(&site, session);
        let expected = if ms == 1000 { "there was nothing to try" } else { "no lane for 10s" };
        assert!(why.contains(expected), "{why}");
    }
    // Not longer than the options say.
    let net = Net::new("one", 1000);
    let options = EngineOptions::default().peer_timeout(Duration::from_millis(200));
    let site = Site::with([&net], Security::Open, options);
    let (session, line) = site.accepted(&net, &Peer::new(LESS));
    site.fails(&line, ErrorKind::Broken);
    site.passes_ms(199);
    assert!(is_up(&site, session));
    site.passes_ms(1);
    assert!(!is_up(&site, session));
}

#[test]
fn a_peer_that_dials_again_is_the_answer() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let peer = Peer::at(LESS, &[net.at("p")]);
    let (session, line) = site.accepted(&net, &peer);
    let other = site.accepted(&net, &Peer::at(GREATER, &[net.at("x")]));
    site.fails(&line, ErrorKind::Broken);
    site.fails(&other.1, ErrorKind::Broken);
    for line in std::mem::take(&mut net.state().dialled) {
        line.1.state().connecting = true;
    }
    assert_eq!(site.core(|core| core.connects.len()), 2);
    let (line, answer) = peer.dials(&site, &net);
    answer.unwrap();
    site.proves(&line, Duration::from_micros(2));
    carries_again(&site, &line, 1);
    assert_eq!(site.core(|core| core.sessions.get(session).unwrap().active), Some(site.lane(&line)));
    assert_eq!(site.core(|core| core.connects.len()), 1, "the other one is dialled still");
    site.core(|core| core.lose_session(other.0, "a test"));
    assert_eq!(site.core(|core| core.connects.len()), 0);
}

/// The system repeats the first packet of a dial too rarely for a way that is back: another one goes beside it.
#[test]
fn a_dial_without_an_answer_is_not_all_that_is_waited_for() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let peer = Peer::at(LESS, &[net.at("p")]);
    let (session, line) = site.session(&net, &peer);
    site.fails(&line, ErrorKind::Broken);
    let first = net.line();
    first.state().connecting = true;
    assert_eq!(site.timer_ms(), Some(625), "a sixteenth of the time that a session may be without a lane");
    assert_eq!(dials(&site, &net, 624), [0; 0]);
    site.passes_ms(1);
    let second = net.line();
    second.state().connecting = true;
    assert!(first.is_open() && second.is_open());
    // The first one is answered after all.
    first.state().connecting = false;
    peer.answers(&site, &first);
    site.proves(&first, Duration::from_micros(2));
    carries_again(&site, &first, 1);
    assert_eq!(site.core(|core| core.sessions.get(session).unwrap().active), Some(site.lane(&first)));
    // Where little time is given, not more often than ten times a second.
    let options = EngineOptions::default().peer_timeout(Duration::from_millis(1000));
    let site = Site::with([&net], Security::Open, options);
    let (_session, line) = site.session(&net, &peer);
    site.fails(&line, ErrorKind::Broken);
    net.line().state().connecting = true;
    assert_eq!(dials(&site, &net, 100), [100]);
    // Of a connect there is one dial.
    let site = Site::new([&net]);
    site.connect(None, &[net.at("a")], Purpose::Connect);
    net.line().state().connecting = true;
    assert_eq!(dials(&site, &net, 2000), [0; 0]);
}

/// A session that is pinned is dialled by its transport: where this engine was told to, else where the peer says.
#[test]
fn a_pinned_session_is_dialled_by_its_transport_only() {
    let (one, two) = (Net::new("one", 1000), Net::new("two", 500));
    for told in [true, false] {
        let site = Site::new([&one, &two]);
        let mut peer = Peer::at(LESS, &[two.at("q"), one.at("p")]);
        let line = if told {
            let connect = site.connect(None, &[one.at("told")], Purpose::Pinned);
            let line = one.line();
            assert_eq!(peer.answers(&site, &line).hello.pinned, "one");
            site.proves(&line, Duration::from_micros(2));
            site.carries(&line);
            assert!(matches!(site.stands(connect), Some(Ok(_))));
            site.core(|core| core.end_connect(connect));
            line
        } else {
            peer.hello.pinned = "one".to_owned();
            site.accepted(&one, &peer).1
        };
        site.fails(&line, ErrorKind::Broken);
        assert_eq!(one.places(), [if told { "told" } else { "p" }]);
        assert_eq!(two.places(), [""; 0]);
    }
    // One that is not goes wherever it can, the best first.
    let site = Site::new([&one, &two]);
    let (_session, line) = site.accepted(&one, &Peer::at(LESS, &[one.at("p"), two.at("q")]));
    site.fails(&line, ErrorKind::Broken);
    two.line().state().connecting = true;
    assert_eq!(one.places(), [""; 0]);
    site.passes_ms(30);
    assert_eq!(one.places(), ["p"]);
}

/// What was tried is kept: of each way the newest, and how many ends there were before.
#[test]
fn what_was_tried_is_remembered() {
    let (near, far) = (Net::new("near", 100), Net::new("far", 9000));
    let site = Site::new([&near, &far]);
    let peer = Peer::at(LESS, &[near.at("n"), far.at("f")]);
    near.state().refuses = Some(ErrorKind::Refused);
    let connect = site.connect(None, &[near.at("n"), far.at("f")], Purpose::Connect);
    let mut line = far.line();
    peer.answers(&site, &line);
    site.proves(&line, Duration::from_micros(2));
    site.carries(&line);
    let Some(Ok(session)) = site.stands(connect) else { panic!("no session") };
    site.core(|core| core.end_connect(connect));
    let rows = || {
        let explain = site.core(|core| core.explain_session(session));
        let row = |row: crate::core::ExplainRow| (row.locator, row.verdict.to_string(), row.earlier);
        explain.rows.into_iter().map(row).collect::<Vec<_>>()
    };
    let row = |place: &str, verdict: &str, earlier| (place.to_owned(), verdict.to_owned(), earlier);
    assert_eq!(rows(), [row("near:n", "refused", 0), row("far:f", "chosen", 0)]);
    for round in 1..4 {
        site.fails(&line, ErrorKind::Broken);
        line = far.line();
        peer.answers(&site, &line);
        site.proves(&line, Duration::from_micros(2));
        carries_again(&site, &line, round);
        assert_eq!(rows(), [row("near:n", "refused", round), row("far:f", "chosen", round)]);
    }
    // Lanes that the peer has dialled have rows of their own, each from another place.
    let (theirs, answer) = peer.dials(&site, &far);
    answer.unwrap();
    site.proves(&theirs, Duration::from_micros(2));
    site.listens(&theirs);
    assert_eq!(rows().last(), Some(&row("somewhere", "works", 0)));
    site.fails(&theirs, ErrorKind::Broken);
    let told = rows();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[2], row("somewhere", "works", 0), "it stood by");
    // A redial does not forget it.
    site.fails(&line, ErrorKind::Broken);
    line = far.line();
    peer.answers(&site, &line);
    site.proves(&line, Duration::from_micros(2));
    carries_again(&site, &line, 4);
    assert_eq!(rows().len(), 3);
    assert!(rows().contains(&row("somewhere", "works", 0)));
}
