//! How many lanes a session gets where the peer has dialled: what each side asks the other for, what is let in, and when sessions are
//! looked at.

use super::site::{GREATER, LESS, Line, Net, Peer, Site};
use super::sockets::{LOOK_MS, carries, counters, is_tended, wanted};
use sinew_transport::ErrorKind;
use sinew_wire::frame::{Header, Kind};
use std::time::Duration;

const QUEUE: u64 = 64 << 10;

/// The numbers of lanes that the peer was asked for since the last call.
fn asked(line: &Line) -> Vec<u64> {
    line.wire().of(Kind::LANES).into_iter().map(|header| header.tag).collect()
}

fn asks(site: &Site, line: &Line, count: u64) {
    site.comes(line, Header::control(Kind::LANES, count));
}

/// The peer dials one more lane of its session.
fn brings(site: &Site, net: &Net, peer: &Peer) -> Result<Line, String> {
    let mut peer = peer.clone();
    peer.hello.resumes = true;
    let (line, answer) = peer.dials(site, net);
    answer?;
    site.proves(&line, Duration::from_micros(2));
    site.listens(&line);
    line.wire().take();
    Ok(line)
}

#[test]
fn who_was_dialled_asks_for_more_again_and_again_and_says_when_fewer_will_do() {
    let net = Net::of_many("one", 1, 4);
    let (site, peer) = (Site::new([&net]), Peer::new(LESS));
    let (session, one) = site.accepted(&net, &peer);
    site.core(|core| core.tend_later(session));
    carries(&site, &[&one], 8, 1 << 20, QUEUE);
    assert_eq!(asked(&one), [0; 0]);
    carries(&site, &[&one], 1, 1 << 20, QUEUE);
    assert_eq!(asked(&one), [2]);
    carries(&site, &[&one], 9, 1 << 20, QUEUE);
    assert_eq!(asked(&one), [0; 0], "it has been told");
    carries(&site, &[&one], 1, 1 << 20, QUEUE);
    assert_eq!(asked(&one), [2], "after a quarter of a second");
    let two = brings(&site, &net, &peer).unwrap();
    carries(&site, &[&one, &two], 14, 1 << 20, QUEUE);
    assert_eq!((asked(&one), wanted(&site, session).0), (vec![], 2));
    // What there is to carry is over: the peer, who has made the other one, closes it when it is told.
    one.wire().take();
    carries(&site, &[&one, &two], 82, 0, 0);
    assert_eq!((asked(&one), wanted(&site, session).0), (vec![1], 1));
    carries(&site, &[&one, &two], 8, 0, 0);
    assert_eq!(asked(&one), [0; 0]);
    carries(&site, &[&one, &two], 1, 0, 0);
    assert_eq!(asked(&one), [1], "and again while it is there");
    assert!(two.is_open(), "it is not this engine's to close");
    site.fails(&two, ErrorKind::Broken);
    carries(&site, &[&one], 30, 0, 0);
    assert_eq!((asked(&one), is_tended(&site, session)), (vec![], false));
    assert_eq!((net.places(), counters(&site)), (vec![], [1, 0, 0]));
}

/// A trial that brought nothing is taken back at once.
#[test]
fn a_wish_that_is_not_granted_is_withdrawn() {
    let net = Net::of_many("one", 1, 4);
    let site = Site::new([&net]);
    let (session, one) = site.accepted(&net, &Peer::new(LESS));
    site.core(|core| core.tend_later(session));
    carries(&site, &[&one], 9, 1 << 20, QUEUE);
    assert_eq!(asked(&one), [2]);
    carries(&site, &[&one], 120, 1 << 20, QUEUE);
    assert_eq!(asked(&one), [2; 12]);
    carries(&site, &[&one], 1, 1 << 20, QUEUE);
    assert_eq!(asked(&one), [1]);
    assert_eq!(wanted(&site, session), (1, "one more was wanted and could not be had".to_owned()));
    carries(&site, &[&one], 20, 1 << 20, QUEUE);
    assert_eq!(asked(&one), [0; 0], "there are no more than that");
    // The peer may have made more than it was ever asked for: that is its own affair.
    assert_eq!(net.places(), [""; 0]);
}

#[test]
fn who_has_more_lanes_than_it_ever_asked_for_says_nothing() {
    let net = Net::of_many("one", 1, 4);
    let (site, peer) = (Site::new([&net]), Peer::new(LESS));
    let (session, one) = site.accepted(&net, &peer);
    let two = brings(&site, &net, &peer).unwrap();
    site.core(|core| core.tend_later(session));
    carries(&site, &[&one, &two], 30, 1, 0);
    assert_eq!(asked(&one), [0; 0]);
    assert!(one.is_open() && two.is_open());
}

#[test]
fn as_many_are_dialled_as_the_peer_asks_for_up_to_what_the_options_allow() {
    let net = Net::of_many("one", 1, 3);
    let site = Site::new([&net]);
    let (session, one) = site.session(&net, &Peer::new(LESS));
    asks(&site, &one, 2);
    assert_eq!(site.timer_ms(), Some(0), "at once");
    site.passes_ms(0);
    assert_eq!(net.places(), ["there"]);
    asks(&site, &one, u64::MAX);
    assert_eq!(wanted(&site, session).1, "no long queue was seen; the peer asks for 3");
    site.passes_ms(0);
    assert_eq!(net.places(), ["there"], "beside the one that is under way");
    asks(&site, &one, 0);
    assert_eq!(wanted(&site, session).0, 1);
    assert_eq!(asked(&one), [0; 0]);
}

/// The peer dialled the lane, and asks for more all the same: it may not be able to dial again.
#[test]
fn a_peer_that_dialled_and_asks_is_dialled_where_it_says() {
    let (net, other) = (Net::of_many("one", 1, 4), Net::new("two", 1000));
    let site = Site::new([&other, &net]);
    let peer = Peer::at(LESS, &[other.at("wrong"), net.at("right"), net.at("later")]);
    let (_session, one) = site.accepted(&net, &peer);
    asks(&site, &one, 2);
    site.passes_ms(0);
    assert_eq!((net.places(), other.places()), (vec!["right".to_owned()], vec![]));
    // Of what this engine wants itself it says so, and dials none.
    let (site, net) = (Site::new([&net]), net);
    let (session, one) = site.accepted(&net, &Peer::at(LESS, &[net.at("right")]));
    site.core(|core| core.tend_later(session));
    carries(&site, &[&one], 9, 1 << 20, QUEUE);
    carries(&site, &[&one], 5, 1 << 20, QUEUE);
    assert_eq!(net.places(), [""; 0]);
}

#[test]
fn one_that_can_be_dialled_nowhere_is_not() {
    let net = Net::of_many("one", 1, 4);
    let site = Site::new([&net]);
    let (session, one) = site.accepted(&net, &Peer::new(LESS));
    asks(&site, &one, 2);
    site.passes_ms(0);
    assert_eq!(counters(&site), [0, 0, 1]);
    let why = "another one could not be had: the peer says no place where it can be dialled";
    assert_eq!(wanted(&site, session).1, format!("no long queue was seen; the peer asks for 2; {why}"));
    asks(&site, &one, 1);
    assert_eq!(wanted(&site, session).1, format!("no long queue was seen; {why}"));
}

#[test]
fn a_peer_is_let_in_with_as_many_lanes_for_each_session_and_transport_as_the_options_say() {
    let (net, other) = (Net::of_many("one", 1, 2), Net::of_many("two", 1, 2));
    let site = Site::new([&net, &other]);
    let (peer, second) = (Peer::new(LESS), Peer::new(GREATER));
    let (_session, _one) = site.accepted(&net, &peer);
    let (_another, _first) = site.accepted(&net, &second);
    let aside = brings(&site, &other, &peer);
    assert!(aside.is_ok(), "there is none of that transport yet");
    assert!(brings(&site, &net, &peer).is_ok());
    let refused = brings(&site, &net, &peer).err().unwrap();
    assert!(
        refused.contains("this engine takes 2 sockets for a session and no more (option tcp_sockets)"),
        "{refused}"
    );
    assert!(brings(&site, &net, &second).is_ok(), "of another session");
    assert!(brings(&site, &net, &second).is_err());
    // Where one is to be all, there is no other.
    let single = Net::new("one", 1000);
    let site = Site::new([&single]);
    let (_session, _one) = site.accepted(&single, &peer);
    let refused = brings(&site, &single, &peer).err().unwrap();
    assert!(refused.contains("this engine takes 1 sockets"), "{refused}");
    // Nor where nothing stands.
    let refused = brings(&site, &single, &second).err().unwrap();
    assert!(refused.contains("there is no such session for another lane"), "{refused}");
}

#[test]
fn each_session_is_looked_at_in_its_own_time() {
    let net = Net::of_many("one", 1, 4);
    let site = Site::new([&net]);
    let (first, one) = site.session(&net, &Peer::new(LESS));
    let (second, two) = site.session(&net, &Peer::new(GREATER));
    site.core(|core| core.tend_later(first));
    site.passes_ms(0);
    site.passes_ms(10);
    site.core(|core| core.tend_later(second));
    assert_eq!(site.timer_ms(), Some(0));
    site.passes_ms(0);
    let left = |ms| assert_eq!(site.timer_ms(), Some(ms));
    left(15);
    site.passes_ms(15);
    left(10);
    site.passes_ms(10);
    left(15);
    // One whose session is over is not; nor is one without a lane, until it has one again.
    site.core(|core| core.lose_session(second, "a test"));
    left(15);
    site.passes_ms(15);
    left(25);
    assert!(!is_tended(&site, second));
    assert!(!two.is_open());
    site.fails(&one, ErrorKind::Broken);
    assert!(is_tended(&site, first));
    assert_eq!(site.core(|core| core.tend_timer()), None, "nobody is woken for nothing");
    site.passes_ms(100);
    assert!(is_tended(&site, first));
}

#[test]
fn what_was_said_of_a_session_that_is_over_changes_nothing() {
    let net = Net::of_many("one", 2, 2);
    let site = Site::new([&net]);
    let (session, _one) = site.session(&net, &Peer::new(LESS));
    site.passes_ms(0);
    let line = net.line();
    line.state().connecting = true;
    site.stirs(&line);
    site.core(|core| core.lose_session(session, "a test"));
    site.passes_ms(LOOK_MS);
    assert!(!is_tended(&site, session));
    assert_eq!(site.core(|core| core.connects.len()), 0);
    site.fails(&line, ErrorKind::Refused);
    assert_eq!(counters(&site), [0, 0, 0]);
}
