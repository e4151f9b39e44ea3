//! Links: who is let in, who is dialled, the proof on each, and which session the lane that comes of it is for.

use super::site::{GREATER, LESS, Line, Net, Peer, Site};
use crate::core::table::Key;
use crate::core::{Owner, Purpose};
use crate::{EngineOptions, Security};
use sinew_proto::handshake::{Secret, Trust};
use sinew_transport::{ErrorKind, Identity, Role};
use sinew_wire::hello::Features;
use std::time::Duration;

fn strangers(site: &Site) -> u64 {
    site.core(|core| core.counters.strangers)
}

fn links(site: &Site) -> usize {
    site.core(|core| core.links.len())
}

fn refused(site: &Site, net: &Net, peer: &Peer) -> String {
    let before = strangers(site);
    let (line, answer) = peer.dials(site, net);
    let why = answer.expect_err("it is refused");
    assert!(!line.is_open(), "the link ends");
    assert_eq!((links(site), strangers(site)), (0, before + 1));
    why
}

#[test]
fn who_dials_is_let_in_and_its_lane_is_proven_like_any_other() {
    let net = Net::new("one", 1000);
    net.state().here = vec![net.at("here"), net.at("there")];
    let site = Site::new([&net]);
    let peer = Peer::new(LESS);
    let (line, answer) = peer.dials(&site, &net);
    let engine = answer.unwrap();
    let (id, incarnation) = site.core(|core| (core.id, core.incarnation));
    assert_eq!((engine.hello.engine, engine.hello.incarnation), (id, incarnation));
    assert_eq!(engine.hello.locators, "one:here one:there");
    assert_eq!(engine.hello.process, std::process::id());
    assert_eq!(engine.hello.lane, 7, "the dialer's number");
    assert_eq!((engine.hello.expected_engine, engine.hello.epoch), (LESS, 0));
    let options = EngineOptions::default();
    assert_eq!(engine.hello.credits.session_bytes, options.session_window as u64);
    assert_eq!(engine.hello.credits.endpoint_bytes, options.endpoint_window as u64);
    assert_eq!(engine.hello.credits.session_envelopes, options.session_envelopes as u32);
    assert_eq!(engine.hello.credits.endpoint_envelopes, options.endpoint_envelopes as u32);
    let params = line.state().lane.unwrap();
    assert_eq!((params.role, params.peer_timeout), (Role::Acceptor, Duration::from_secs(5)));
    assert_eq!((params.key.owner, params.key.sub), (line.state().owner, 0));
    let lane = site.lane(&line);
    let (number, dialled, extra, session) = site.core(|core| {
        let slot = core.lanes.get(lane).unwrap();
        (slot.number, slot.dialled, slot.extra, slot.session)
    });
    assert_eq!((number, dialled, extra), (7, false, false));
    // What the peer grants is what may be sent.
    site.core(|core| {
        let session = core.sessions.get(session).unwrap();
        assert_eq!((session.bytes.available(), session.envelopes.available()), (1 << 20, 64));
        assert_eq!((session.flow_bytes, session.flow_envelopes), (1 << 16, 32));
        assert_eq!(session.peer.features, Features::THIS);
    });
    assert_eq!(strangers(&site), 0);
}

#[test]
fn a_record_that_finds_no_room_is_sent_when_there_is_some() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
    let line = net.line();
    line.state().said.clear();
    // Nothing is said before the link is up; then all of it, each record once.
    site.core(|core| core.end_connect(connect));
    let slow = Line::to(&net);
    slow.state().connecting = true;
    site.looks_at(&net);
    assert!(slow.is_open() && slow.state().said.is_empty());
    slow.state().connecting = false;
    slow.state().full = true;
    let peer = Peer::new(LESS);
    let mut begun = peer.begins(&slow);
    site.stirs(&slow);
    assert!(slow.is_open() && slow.state().said.is_empty());
    slow.state().full = false;
    site.stirs(&slow);
    assert_eq!(slow.state().said.len(), 1);
    site.stirs(&slow);
    assert_eq!(slow.state().said.len(), 1, "once");
    peer.goes_on(&site, &slow, &mut begun).unwrap();
    assert!(slow.state().lane.is_some());
}

#[test]
fn an_engine_dials_neither_itself_nor_another_domain_nor_one_that_it_does_not_mean() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let peer = Peer::new(LESS);
    let myself = Peer { id: site.core(|core| core.id), ..peer.clone() };
    let why = refused(&site, &net, &myself);
    assert!(why.contains("itself"), "{why}");
    let other = Peer { domain: "another", ..peer.clone() };
    let why = refused(&site, &net, &other);
    assert!(why.contains("domain"), "{why}");
    let mut expects = peer.clone();
    expects.hello.expected_engine = GREATER;
    let why = refused(&site, &net, &expects);
    assert!(why.contains("engine"), "{why}");
    let mut pinned = peer.clone();
    pinned.hello.pinned = "two".to_owned();
    let why = refused(&site, &net, &pinned);
    assert!(why.contains("pinned to another transport"), "{why}");
    pinned.hello.pinned = "one".to_owned();
    let (line, answer) = pinned.dials(&site, &net);
    assert_eq!(answer.unwrap().hello.pinned, "one");
    let lane = site.lane(&line);
    let of = |session: Key| site.core(|core| core.sessions.get(session).unwrap().pinned);
    assert_eq!(of(site.core(|core| core.lanes.get(lane).unwrap().session)), Some("one"));
    // Of the same engine, a session of its own.
    let (line, _) = peer.dials(&site, &net);
    let lane = site.lane(&line);
    assert_eq!(of(site.core(|core| core.lanes.get(lane).unwrap().session)), None);
    assert_eq!(site.core(|core| core.sessions_with(LESS).len()), 2);
    let numbers: Vec<u32> =
        site.core(|core| core.sessions.iter().map(|(_, session)| session.peer.number).collect());
    assert_eq!(numbers[0], numbers[1], "it is one engine");
    let (line, _) = Peer::new(GREATER).dials(&site, &net);
    let lane = site.lane(&line);
    let another =
        site.core(|core| core.sessions.get(core.lanes.get(lane).unwrap().session).unwrap().peer.number);
    assert_ne!(another, numbers[0]);
    site.core(|core| core.closed = true);
    let why = refused(&site, &net, &peer);
    assert!(why.contains("closing"), "{why}");
    site.core(|core| core.closed = false);
}

/// By the kernel's word, by the secret, or not at all.
#[test]
fn who_cannot_prove_what_is_asked_for_is_turned_away() {
    let secret = || Some(Secret::new(b"sixteen bytes at least"));
    let knows = Trust { secret: secret(), plain: false };
    let plain = Trust { secret: None, plain: true };
    let same = Identity::SameUser { pid: None };
    let rows = [
        (Security::Open, Identity::Remote(String::new()), plain.clone(), true),
        (
            Security::Secret("sixteen bytes at least".into()),
            Identity::Remote(String::new()),
            plain.clone(),
            false,
        ),
        (Security::Secret("sixteen bytes at least".into()), Identity::Remote(String::new()), knows, true),
        (Security::Secret("sixteen bytes at least".into()), same, plain.clone(), true),
        (Security::Secret("sixteen bytes at least".into()), Identity::OtherUser { uid: 7 }, plain, false),
    ];
    for (at, (security, identity, trust, well)) in rows.into_iter().enumerate() {
        let net = Net::new("one", 1000);
        let site = Site::with([&net], security, EngineOptions::default());
        let peer = Peer { trust, ..Peer::new(LESS) };
        let line = Line::to(&net);
        line.state().identity = identity;
        assert_eq!(peer.speaks(&site, &net, &line).is_ok(), well, "{at}");
        assert_eq!(line.is_open(), well, "{at}");
    }
}

#[test]
fn rubbish_is_no_record_and_ends_the_link_without_an_answer() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let line = Line::to(&net);
    line.state().coming.push_back([7; 512]);
    assert_eq!(site.looks_at(&net), 1);
    assert!(!line.is_open() && line.state().said.is_empty());
    assert_eq!((links(&site), strangers(&site)), (0, 1));
    // A dial to such a one says what it found.
    let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
    let line = net.line();
    line.state().coming.push_back([7; 512]);
    site.stirs(&line);
    let Some(Err(why)) = site.stands(connect) else { panic!("it is over") };
    assert!(why.contains("this engine speaks version 1"), "{why}");
    assert!(why.contains("the peer broke the protocol"), "{why}");
    assert_eq!(strangers(&site), 1, "it was this engine's own");
}

#[test]
fn the_oldest_half_open_link_gives_way_to_a_new_one() {
    let net = Net::new("one", 1000);
    let options = EngineOptions::default().half_open_max(3_usize);
    let site = Site::with([&net], Security::Open, options);
    // What this engine has dialled is not counted.
    site.connect(None, &[net.at("a")], Purpose::Connect);
    let dialled = net.line();
    let comes = || {
        let line = Line::to(&net);
        line.state().connecting = true;
        assert_eq!(site.looks_at(&net), 1);
        site.later(Duration::from_millis(1));
        line
    };
    let lines: Vec<Line> = (0..3).map(|_| comes()).collect();
    assert!(lines.iter().all(Line::is_open));
    assert_eq!(strangers(&site), 0);
    let last = comes();
    assert_eq!(lines.iter().map(Line::is_open).collect::<Vec<_>>(), [false, true, true]);
    assert!(last.is_open() && dialled.is_open());
    assert_eq!((links(&site), strangers(&site)), (4, 1));
    let another = comes();
    assert_eq!(lines.iter().map(Line::is_open).collect::<Vec<_>>(), [false, false, true]);
    assert!(another.is_open());
}

#[test]
fn a_link_that_is_not_proven_in_time_ends() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let line = Line::to(&net);
    line.state().connecting = true;
    site.looks_at(&net);
    assert_eq!(site.timer_ms(), Some(3000));
    site.passes_ms(2999);
    assert!(line.is_open());
    site.passes_ms(1);
    assert!(!line.is_open());
    assert_eq!((links(&site), strangers(&site), site.timer()), (0, 1, None));
    // One of this engine's own is told so.
    let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
    net.line().state().connecting = true;
    site.passes_ms(3000);
    let text = site.core(|core| core.told_of(connect));
    assert!(text.contains("a filter drops packets, the host is down"), "{text}");
}

/// Numbers for descriptors are used again: those of links that came to nothing, and of listeners that found nobody.
#[test]
fn numbers_are_given_back() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let owners = || {
        site.core(|core| {
            let used = core.owners.iter().filter(|owner| **owner != Owner::Free).count();
            (core.owners.len(), used)
        })
    };
    assert_eq!(site.looks_at(&net), 0);
    let (len, used) = owners();
    for _ in 0..3 {
        site.looks_at(&net);
        let line = Line::to(&net);
        line.state().over = Some(ErrorKind::Broken);
        assert_eq!(site.looks_at(&net), 1);
        net.state().deaf = true;
        assert_eq!(site.looks_at(&net), 0);
        net.state().deaf = false;
        net.state().refuses = Some(ErrorKind::Refused);
        site.connect(None, &[net.at("a")], Purpose::Connect);
        net.state().refuses = None;
        let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
        site.core(|core| core.end_connect(connect));
    }
    assert_eq!(owners(), (len, used));
    assert_eq!(strangers(&site), 3);
    // A lane keeps that of its link.
    let (_session, line) = site.session(&net, &Peer::new(LESS));
    assert_eq!(owners().1, used + 1);
    site.core(crate::core::Core::abandon_wireup);
    assert_eq!(owners().1, used + 1);
    site.fails(&line, ErrorKind::Broken);
}

#[test]
fn a_link_of_which_no_lane_comes_is_a_candidate_that_failed() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
    let line = net.line();
    line.state().no_lane = true;
    Peer::new(LESS).answers(&site, &line);
    let Some(Err(why)) = site.stands(connect) else { panic!("it is over") };
    assert!(why.contains("one:a: lane a test"), "{why}");
    assert_eq!(site.core(|core| core.sessions.len()), 0);
}

/// How many sessions each side has given up is what they agree on: the later one counts, and what was before is over.
#[test]
fn a_session_that_one_side_has_given_up_is_followed_by_a_new_one() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let mut peer = Peer::new(LESS);
    let (first, _) = site.accepted(&net, &peer);
    let up =
        |session: Key| site.core(|core| core.sessions.get(session).is_some_and(|session| session.is_up()));
    // The same: one lane more of it.
    let (line, answer) = peer.dials(&site, &net);
    assert_eq!(answer.unwrap().hello.epoch, 0);
    let lane = site.lane(&line);
    assert_eq!(site.core(|core| core.lanes.get(lane).unwrap().session), first);
    // The peer has given it up.
    peer.hello.epoch = 4;
    let (line, answer) = peer.dials(&site, &net);
    assert_eq!(answer.unwrap().hello.epoch, 4);
    assert!(!up(first));
    let why = site.core(|core| core.session_error(first)).unwrap_err().to_string();
    assert!(why.contains("the peer had given the session up"), "{why}");
    let lane = site.lane(&line);
    let second = site.core(|core| core.lanes.get(lane).unwrap().session);
    assert_eq!(site.core(|core| core.sessions.get(second).unwrap().epoch), 4);
    // This side has.
    site.core(|core| core.lose_session(second, "a test"));
    peer.hello.epoch = 0;
    let (line, answer) = peer.dials(&site, &net);
    assert_eq!(answer.unwrap().hello.epoch, 5);
    let lane = site.lane(&line);
    let third = site.core(|core| core.lanes.get(lane).unwrap().session);
    assert_eq!(site.core(|core| core.sessions.get(third).unwrap().epoch), 5);
    assert!(up(third));
    // The peer was started anew: that is another one.
    peer.incarnation += 1;
    let _ = peer.dials(&site, &net);
    assert!(!up(third));
    let why = site.core(|core| core.session_error(third)).unwrap_err().to_string();
    assert!(why.contains("the peer was restarted"), "{why}");
}

/// Who dials without knowing who will answer cannot say which session it means: it dials again, knowing it.
#[test]
fn a_dial_that_did_not_know_of_a_session_that_is_over_is_made_again() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    let peer = Peer::new(LESS);
    let (session, _line) = site.session(&net, &peer);
    site.core(|core| core.lose_session(session, "a test"));
    let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
    let line = net.line();
    assert_eq!(peer.answers(&site, &line).hello.epoch, 0);
    assert!(!line.is_open());
    assert_eq!(site.stands(connect), None);
    let again = net.line();
    let mut knows = peer.clone();
    knows.hello.epoch = 1;
    let engine = knows.answers(&site, &again);
    assert_eq!((engine.hello.epoch, engine.hello.expected_engine), (1, LESS));
    site.proves(&again, Duration::from_micros(2));
    site.carries(&again);
    assert!(matches!(site.stands(connect), Some(Ok(_))));
}

/// What it is one more of may end while it is on its way.
#[test]
fn one_more_lane_of_a_session_that_is_over_is_none() {
    let net = Net::of_many("one", 2, 2);
    let site = Site::new([&net]);
    let mut peer = Peer::new(LESS);
    let (session, _line) = site.session(&net, &peer);
    site.passes_ms(0);
    let line = net.line();
    // Its answer is on the way.
    site.core(|core| core.lose_session(session, "a test"));
    peer.hello.epoch = 1;
    peer.answers(&site, &line);
    assert!(!line.is_open());
    assert_eq!(site.core(|core| core.lanes.len()), 0);
    // Nor does the peer have one that this side has not.
    peer.hello.resumes = true;
    let (_stands, _line) = site.accepted(&net, &Peer::new(GREATER));
    let mut later = Peer { incarnation: 10, ..Peer::new(GREATER) };
    later.hello.resumes = true;
    assert!(refused(&site, &net, &later).contains("there is no such session"), "of another incarnation");
    later = Peer { incarnation: 9, ..later };
    later.hello.epoch = 1;
    assert!(refused(&site, &net, &later).contains("there is no such session"), "it is to begin anew");
    let why = refused(&site, &net, &peer);
    assert!(why.contains("there is no such session for another lane"), "{why}");
}

#[test]
fn without_chance_no_link_is_made() {
    let net = Net::new("one", 1000);
    let site = Site::new([&net]);
    site.world.state().unlucky = true;
    let connect = site.connect(None, &[net.at("a")], Purpose::Connect);
    let Some(Err(why)) = site.stands(connect) else { panic!("it is over") };
    assert!(why.contains("getrandom"), "{why}");
    assert!(net.line().state().said.is_empty());
}

/// As many as one hello has room for, in their order; one that is too long for the rest of it is left out, and no other.
#[test]
fn a_hello_says_as_many_places_as_fit() {
    let long = |letter: &str, len: usize| letter.repeat(len - 4);
    let max = sinew_wire::hello::LOCATORS_MAX;
    for over in [0, 1, 7] {
        let net = Net::new("one", 1000);
        let first = (max / 2).min(200);
        let mut here = vec![net.at(&long("a", first))];
        here.push(net.at(&long("b", max - first - 1 + over)));
        let all = here.len();
        here.push(net.at("d"));
        net.state().here = here;
        let site = Site::new([&net]);
        let (_, answer) = Peer::new(LESS).dials(&site, &net);
        let places = answer.unwrap().hello.locators;
        let count = places.split(' ').count();
        assert_eq!(count, all, "{over}: {places}");
        assert_eq!(places.ends_with("one:d"), over > 0, "{over}: {places}");
    }
}
