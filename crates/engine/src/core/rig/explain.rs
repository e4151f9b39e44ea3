//! What people are told: which ways to a peer there are, what became of each, and what carries the session.

use super::site::{GREATER, LESS, Net, Peer, Site};
use crate::core::table::Key;
use crate::core::{Core, Explain, Purpose, Verdict};
use sinew_transport::{Crossing, ErrorKind};
use sinew_wire::frame::{Header, Kind};
use std::time::Duration;

const US: fn(u64) -> Duration = Duration::from_micros;

fn explain(site: &Site, session: Key) -> Explain {
    site.core(|core| core.explain_session(session))
}

/// Transport, place, verdict and how often it had ended before.
fn rows(site: &Site, session: Key) -> Vec<(String, Verdict, u32)> {
    let rows = explain(site, session).rows.into_iter();
    rows.map(|row| (row.locator, row.verdict, row.earlier)).collect()
}

fn row(place: &str, verdict: Verdict, earlier: u32) -> (String, Verdict, u32) {
    (place.to_owned(), verdict, earlier)
}

fn crossing(from_bytes: usize, way: &str) -> Crossing {
    Crossing { from_bytes, way: way.to_owned(), reason: "a test".to_owned() }
}

#[test]
fn a_table_says_what_became_of_each_way() {
    let (near, far, missing) = (Net::new("near", 100), Net::new("far", 9000), Net::new("gone", 1));
    missing.state().missing = true;
    let site = Site::new([&near, &far, &missing]);
    let peer = Peer::new(LESS);
    let to = [near.at("a"), far.at("b"), far.at("c")];
    let connect = site.connect(None, &to, Purpose::Connect);
    site.fails(&near.line(), ErrorKind::Refused);
    let line = far.line();
    peer.answers(&site, &line);
    {
        let wire = line.wire();
        let mut state = wire.state();
        state.remark = "a remark".to_owned();
        state.memory = "large pages".to_owned();
        state.crossings = vec![crossing(0, "whole"), crossing(100, "fetched")];
    }
    site.proves(&line, Duration::from_nanos(7100));
    site.carries(&line);
    let Some(Ok(session)) = site.stands(connect) else { panic!("no session") };
    let explain = explain(&site, session);
    assert_eq!(explain.way(99).map(|way| &way.way[..]), Some("whole"));
    assert_eq!(explain.way(100).map(|way| &way.way[..]), Some("fetched"));
    let text = explain.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "peer 00000000000000000000000000000001; nothing is proven (Security::Open); the bytes are not authenticated on the way"
    );
    assert!(lines[1].starts_with("  refused   near            -  near:a: link a test"), "{text}");
    assert_eq!(lines[2], "  chosen    far        7.1 us  far:b [a remark]");
    assert_eq!(lines[3], "  not tried far             -  far:c: a better one was proven first");
    assert!(lines[4].starts_with("  refused   gone            -  (here): probe a test"), "{text}");
    assert_eq!(lines[5], "  from         0 bytes: whole: a test");
    assert_eq!(lines[6], "  from       100 bytes: fetched: a test");
    assert_eq!(lines[7..], ["  memory: large pages"]);
    assert_eq!(site.core(|core| core.path_of(session)), "far a test");
}

#[test]
fn a_pinned_session_says_so_and_nothing_of_transports_that_it_cannot_have() {
    let (net, missing) = (Net::new("one", 1000), Net::new("gone", 1));
    missing.state().missing = true;
    let site = Site::new([&net, &missing]);
    let connect = site.connect(None, &[net.at("a")], Purpose::Pinned);
    let line = net.line();
    Peer::new(LESS).answers(&site, &line);
    site.proves(&line, US(2));
    site.carries(&line);
    let Some(Ok(session)) = site.stands(connect) else { panic!("no session") };
    let text = explain(&site, session).to_string();
    assert!(text.starts_with("peer 00000000000000000000000000000001; pinned to one; nothing"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn what_carries_a_session_is_said_also_when_nothing_does() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let (session, line) = site.session(&net, &Peer::at(LESS, &[net.at("a")]));
    let path = || site.core(|core| core.path_of(session));
    assert_eq!(path(), "one a test");
    net.state().refuses = Some(ErrorKind::TimedOut);
    site.fails(&line, ErrorKind::Broken);
    assert_eq!(path(), "none at present: looking for another lane");
    assert!(site.core(|core| core.session_error(session)).is_ok());
    site.core(|core| core.lose_session(session, "a test"));
    assert!(path().starts_with("none: ") && path().contains("a test"), "{}", path());
    assert_eq!(site.core(|core| core.path_of(Key::NONE)), "none: the session is over");
    assert!(site.core(|core| core.open_flow(session, 5)).is_err());
    let gone = explain(&site, Key::NONE);
    assert_eq!((&gone.peer[..], &gone.security[..]), ("unknown", "the session is over"));
}

/// A way that ended and was had again is one row, which says how often it had ended before.
#[test]
fn a_way_that_is_had_again_says_how_often_it_had_ended() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let peer = Peer::at(LESS, &[net.at("there")]);
    let (session, mut line) = site.session(&net, &peer);
    assert_eq!(rows(&site, session), [row("one:there", Verdict::Chosen, 0)]);
    for ended in 1..4 {
        site.fails(&line, ErrorKind::Broken);
        line = net.line();
        assert_eq!(rows(&site, session), [row("one:there", Verdict::Refused, ended - 1)]);
        peer.answers(&site, &line);
        site.proves(&line, US(2));
        let leg = ended;
        site.comes(&line, Header { src: leg, dst: 1, ..Header::control(Kind::RESUME, 0) });
        site.comes(&line, Header { dst: leg + 1, ..Header::control(Kind::SWITCH, 0) });
        assert_eq!(rows(&site, session), [row("one:there", Verdict::Chosen, ended)]);
        assert!(explain(&site, session).rows[0].reason.is_empty());
    }
    let text = explain(&site, session).to_string();
    assert!(text.contains("one:there (ended 3 times before)\n"), "{text}");
}

/// Lanes beside the first one of a transport have rows of their own; one that stands by is told from one that carries.
#[test]
fn each_lane_has_its_row() {
    let (net, other) = (Net::of_many("one", 2, 2), Net::new("other", 1000));
    let site = Site::new([&net, &other]);
    let peer = Peer::new(GREATER);
    let (session, one) = site.session(&net, &peer);
    site.passes_ms(0);
    let two = net.line();
    peer.answers(&site, &two);
    site.proves(&two, US(3));
    site.listens(&two);
    two.wire().state().remark = "the second".to_owned();
    let connect = site.connect(None, &[other.at("there")], Purpose::Connect);
    let aside = other.line();
    peer.answers(&site, &aside);
    site.proves(&aside, US(4));
    site.listens(&aside);
    site.core(|core| core.end_connect(connect));
    let explain = explain(&site, session);
    let told: Vec<_> =
        explain.rows.iter().map(|row| (&row.locator[..], row.verdict, &row.reason[..])).collect();
    let expected = [
        ("other:there", Verdict::Works, ""),
        ("one:there", Verdict::Chosen, ""),
        ("one:there", Verdict::Works, "carries long messages beside the chosen one"),
    ];
    assert_eq!(told.len(), 3, "{explain}");
    for row in expected {
        assert!(told.contains(&row), "{explain}");
    }
    assert_eq!(explain.sockets.as_ref().map(|sockets| (sockets.now, sockets.wanted)), Some((2, 2)));
    let rtt: Vec<_> = explain.rows.iter().map(|row| row.rtt_ns).collect();
    assert!(rtt.contains(&Some(2000)) && rtt.contains(&Some(3000)) && rtt.contains(&Some(4000)), "{explain}");
    // One that stood by and has ended is no failure; the one that carries the session is.
    site.fails(&aside, ErrorKind::Broken);
    let ended = |place: &str| {
        let row = self::explain(&site, session).rows.into_iter().find(|row| row.locator == place).unwrap();
        (row.verdict, row.earlier)
    };
    assert_eq!(ended("other:there"), (Verdict::Works, 0));
    assert_eq!(ended("one:there"), (Verdict::Chosen, 0));
    assert!(one.is_open());
}

/// Lanes that the peer dials have a row for each place that they come from: one that is had again is the same row.
#[test]
fn a_lane_that_the_peer_dials_again_says_how_often_it_had_ended() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let peer = Peer::new(GREATER);
    let (session, line) = site.accepted(&net, &peer);
    let again = || {
        let (line, answer) = peer.dials(&site, &net);
        answer.unwrap();
        site.proves(&line, US(2));
        line
    };
    site.fails(&line, ErrorKind::Broken);
    assert_eq!(rows(&site, session), [row("somewhere", Verdict::Refused, 0)]);
    let line = again();
    site.comes(&line, Header { src: 1, dst: 1, ..Header::control(Kind::RESUME, 0) });
    site.comes(&line, Header { dst: 2, ..Header::control(Kind::SWITCH, 0) });
    assert_eq!(rows(&site, session), [row("somewhere", Verdict::Chosen, 1)]);
    assert!(explain(&site, session).rows[0].reason.is_empty());
}

/// Only a proven lane that ends while another one carries the session has stood by.
#[test]
fn a_lane_that_was_needed_or_never_proven_has_failed_where_it_ends() {
    let (net, other) = (Net::new("one", 1000), Net::new("other", 1000));
    let site = Site::new([&net, &other]);
    let peer = Peer::new(GREATER);
    let (session, line) = site.session(&net, &peer);
    let (unproven, answer) = peer.dials(&site, &other);
    answer.unwrap();
    site.fails(&unproven, ErrorKind::Broken);
    assert_eq!(rows(&site, session).last(), Some(&row("somewhere", Verdict::Refused, 0)));
    let (aside, answer) = peer.dials(&site, &other);
    answer.unwrap();
    site.proves(&aside, US(2));
    net.state().refuses = Some(ErrorKind::TimedOut);
    site.fails(&line, ErrorKind::Broken);
    // Nothing carries the session now.
    site.fails(&aside, ErrorKind::Broken);
    let ended: Vec<_> =
        rows(&site, session).into_iter().map(|(place, verdict, _)| (place, verdict)).collect();
    for place in ["one:there", "somewhere"] {
        assert!(ended.contains(&(place.to_owned(), Verdict::Refused)), "{ended:?}");
    }
}

#[test]
fn a_lane_that_stood_by_and_is_had_again_says_how_often_it_had_ended() {
    let (net, other) = (Net::new("one", 1000), Net::new("other", 1000));
    let site = Site::new([&net, &other]);
    let peer = Peer::new(GREATER);
    let (session, _line) = site.session(&net, &peer);
    for ended in 0..2 {
        let (aside, answer) = peer.dials(&site, &other);
        answer.unwrap();
        site.proves(&aside, US(2));
        site.listens(&aside);
        assert_eq!(rows(&site, session).last(), Some(&row("somewhere", Verdict::Works, ended)));
        site.fails(&aside, ErrorKind::Broken);
        assert_eq!(rows(&site, session).last(), Some(&row("somewhere", Verdict::Works, ended)));
        assert!(!explain(&site, session).rows.last().unwrap().reason.is_empty(), "how it ended");
    }
}

#[test]
fn verdicts_are_words() {
    use Verdict::{Chosen, NotTried, Refused, Trying, Works};
    let words = [Chosen, Works, NotTried, Trying, Refused].map(|verdict| format!("{verdict:>9}"));
    assert_eq!(words, ["   chosen", "    works", "not tried", "   trying", "  refused"]);
}

/// A candidate under way is told so, with what is still missing.
#[test]
fn what_is_under_way_is_told() {
    let (near, far) = (Net::new("near", 100), Net::new("far", 9000));
    let site = Site::new([&near, &far]);
    let peer = Peer::new(LESS);
    let connect = site.connect(None, &[near.at("a"), far.at("b")], Purpose::Connect);
    let slow = near.line();
    slow.state().connecting = true;
    site.passes_ms(30);
    let line = far.line();
    peer.answers(&site, &line);
    site.proves(&line, US(2));
    site.carries(&line);
    let Some(Ok(session)) = site.stands(connect) else { panic!("no session") };
    assert_eq!(rows(&site, session), [row("near:a", Verdict::Trying, 0), row("far:b", Verdict::Chosen, 0)]);
    assert_eq!(explain(&site, session).rows[0].reason, "no answer yet");
}

#[test]
fn flows_are_numbered_as_endpoints_are_first_written_to_and_carry_the_number_of_the_peer() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let (session, _line) = site.session(&net, &Peer::new(LESS));
    let number = site.core(|core| core.sessions.get(session).unwrap().peer.number);
    site.core(|core| core.sessions.get_mut(session).unwrap().peer.number = number + 40);
    let open = |dst: u32| site.core(|core| core.open_flow(session, dst)).unwrap();
    assert_eq!([open(9), open(8), open(7), open(8)].map(|(flow, _)| flow), [0, 1, 2, 1]);
    assert_eq!(open(9).1, number + 40);
}

/// Buffers that only one peer is shown: the same pool while its session lives, and nobody's afterwards.
#[test]
fn a_session_has_one_pool_of_its_own() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let (session, _line) = site.session(&net, &Peer::new(LESS));
    let pool = || site.core(|core| core.pool_of(session));
    let first = pool();
    assert!(std::sync::Arc::ptr_eq(&first, &pool()));
    site.core(|core| core.lose_session(session, "a test"));
    assert!(!std::sync::Arc::ptr_eq(&first, &pool()));
    let allocate = || site.core(|core: &mut Core| core.allocate_segment(4096)).unwrap();
    assert!(allocate().is_none(), "no transport here has such memory");
    net.state().segments = true;
    assert_eq!(allocate().map(|segment| segment.len()), Some(4096));
}
