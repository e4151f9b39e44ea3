//! Promises about lanes and sessions: cuts lose nothing and double nothing, domains and secrets keep apart, wire versions
//! are named, explicit targets never fall back, the table of what was tried is in the error.

mod common;

use common::{PATIENCE, Pair, content, options, pair_with, until};
use sinew::{ConnectError, Engine, EngineOptions, Match, OpError, Progress, Security};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const THREAD: Progress = Progress::Thread { cpu: None };

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    cuts_lose_nothing_and_double_nothing,
    a_cut_during_requests_answers_each_once,
    operations_that_wait_survive_a_cut,
    a_new_session_with_a_lost_peer_begins_clean,
    a_receive_from_a_lost_peer_gets_what_had_come_and_then_ends_at_once,
    sends_that_begin_while_their_peer_is_lost_end,
    domains_cannot_reach_each_other,
    other_wire_versions_are_named,
    a_wrong_secret_is_refused_and_the_right_one_works,
    a_dead_address_says_what_was_tried,
    a_missing_endpoint_is_said,
] }

fn size(number: u64) -> usize {
    match number % 16 {
        3 => 40_000,
        9 => 300_000,
        other => other as usize * 30,
    }
}

/// Streams both ways until told to stop, then says how many there were; checks order and content.
fn stream(from: &sinew::Peer, at: &sinew::Endpoint, stop: &AtomicBool) -> (u64, u64) {
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Acquire) {
                let data = content(size(number), number);
                from.message(1).immediate(number).timeout(PATIENCE).send(&data).unwrap();
                number += 1;
            }
            from.message(2).immediate(number).send(b"end").unwrap();
            number
        });
        let mut buf = vec![0; 300_000];
        let mut number = 0;
        loop {
            let got = at.recv_within(Match::any_tag(), &mut buf, PATIENCE).unwrap();
            assert_eq!(got.immediate, Some(number), "lost, doubled or out of order");
            if got.tag == 2 {
                break;
            }
            assert_eq!(got.len, size(number));
            assert!(buf[..got.len] == content(got.len, number), "content of {number}");
            number += 1;
        }
        (sender.join().unwrap(), number)
    })
}

fn both_ways(lane: &str) -> (Pair, sinew::Peer) {
    let p = pair_with(lane, THREAD, THREAD, options());
    let to_a = p.b.connect(p.a.address()).unwrap();
    (p, to_a)
}

fn cuts_lose_nothing_and_double_nothing(lane: &str) {
    let (p, to_a) = both_ways(lane);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let there = scope.spawn(|| stream(&p.to_b, &p.b, &stop));
        let back = scope.spawn(|| stream(&to_a, &p.a, &stop));
        let mut cuts = 0;
        let start = Instant::now();
        while cuts < 200 && start.elapsed() < PATIENCE {
            let (engine, peer) = if cuts % 2 == 0 { (&p.here, &p.to_b) } else { (&p.there, &to_a) };
            if engine.cut(peer) {
                cuts += 1;
                // Now and then cut again at once, in the middle of the repair.
                if cuts % 7 != 0 {
                    until("there is a lane again", || {
                        !p.to_b.path().starts_with("none") && !to_a.path().starts_with("none")
                    });
                }
            } else {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Release);
        let (sent, received) = there.join().unwrap();
        let (back_sent, back_received) = back.join().unwrap();
        assert_eq!((sent, back_sent), (received, back_received));
        println!(
            "{lane}: {cuts} cuts in {:?}, {sent} messages there, {back_sent} back, {} frames sent again",
            start.elapsed(),
            p.here.counters().replayed + p.there.counters().replayed
        );
        assert_eq!(cuts, 200);
    });
    assert_eq!((p.here.counters().sessions_lost, p.there.counters().sessions_lost), (0, 0));
}

fn a_cut_during_requests_answers_each_once(lane: &str) {
    let (p, to_a) = both_ways(lane);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            while !done.load(Ordering::Acquire) && start.elapsed() < PATIENCE {
                p.here.cut(&p.to_b);
                p.there.cut(&to_a);
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        for round in 0..150u64 {
            p.to_b.send(round, &[1; 100]).unwrap();
            p.to_b.flush().unwrap();
            assert_eq!(p.b.try_recv(round, &mut [0; 100]).unwrap().len, 100, "after flush it is there");
            assert!(matches!(p.b.try_recv(round, &mut [0; 100]), Err(OpError::WouldBlock)));
        }
        done.store(true, Ordering::Release);
    });
}

fn operations_that_wait_survive_a_cut(lane: &str) {
    let (p, _to_a) = both_ways(lane);
    for round in 0..10u64 {
        let receive = p.b.post_recv(round, vec![0; 1 << 20]).unwrap();
        let announced = p.to_b.post_send(round + 100, content(1 << 20, round)).unwrap();
        p.b.wait_probe(round + 100, PATIENCE).unwrap();
        assert!(p.here.cut(&p.to_b));
        p.to_b.send(round, &content(1000, round)).unwrap();
        let got = receive.wait().unwrap();
        assert!(got.buf.as_slice() == content(1000, round));
        let late = p.b.post_recv(round + 100, vec![0; 1 << 20]).unwrap();
        p.here.cut(&p.to_b);
        let got = late.wait().unwrap();
        assert!(got.buf.as_slice() == content(1 << 20, round), "fetched after a cut");
        announced.wait().unwrap();
    }
}

fn a_receive_from_a_lost_peer_gets_what_had_come_and_then_ends_at_once(lane: &str) {
    let (p, to_a) = both_ways(lane);
    to_a.send(1, b"one").unwrap();
    to_a.send(2, b"two").unwrap();
    let mut buf = [0; 8];
    let source = p.a.recv(1, &mut buf).unwrap().source;
    p.a.wait_probe(2, PATIENCE).unwrap();
    assert!(p.here.lose(&p.to_b));
    let from = Match::any_tag().from(source);
    assert_eq!(p.a.recv(from, &mut buf).unwrap().tag, 2);
    let lost = |error: OpError| assert!(matches!(error, OpError::PeerLost { .. }), "{error}");
    lost(p.a.recv(from, &mut buf).unwrap_err());
    lost(p.a.recv_within(from, &mut buf, PATIENCE).unwrap_err());
    lost(p.a.try_recv(from, &mut buf).unwrap_err());
    lost(p.a.wait_probe(from, PATIENCE).unwrap_err());
    lost(p.a.post_recv(from, vec![0; 8]).unwrap().wait().unwrap_err().error);
    // Any source: somebody else may come.
    assert!(matches!(p.a.try_recv(Match::any_tag(), &mut buf), Err(OpError::WouldBlock)));
}

/// A long message looks, and then begins: the session may be lost in between, by another thread.
fn sends_that_begin_while_their_peer_is_lost_end(lane: &str) {
    const LEN: usize = 100_000;
    let p = pair_with(lane, THREAD, THREAD, options());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buf = vec![0; LEN];
            while !over.load(Ordering::Acquire) {
                let _ = p.b.recv_within(1, &mut buf, Duration::from_millis(20));
            }
        });
        let data = vec![7; LEN];
        for round in 0..100 {
            let to_b = p.a.connect(p.b.address()).expect("a new session");
            let sent = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        loop {
                            match to_b.message(1).timeout(PATIENCE).send(&data) {
                                Ok(()) => drop(sent.fetch_add(1, Ordering::Relaxed)),
                                Err(OpError::PeerLost { .. }) => break,
                                Err(error) => panic!("its peer is lost, and it says {error}"),
                            }
                        }
                    });
                }
                until("messages flow", || sent.load(Ordering::Relaxed) >= 3 + round % 8);
                assert!(p.here.lose(&to_b));
            });
        }
        over.store(true, Ordering::Release);
    });
}

fn a_new_session_with_a_lost_peer_begins_clean(lane: &str) {
    let (p, to_a) = both_ways(lane);
    p.to_b.send(1, b"kept").unwrap();
    p.to_b.flush().unwrap();
    let hanging = p.to_b.post_send(2, vec![0; 1 << 20]).unwrap();
    assert!(p.here.lose(&p.to_b));
    assert!(matches!(hanging.wait().unwrap_err().error, OpError::PeerLost { .. }));
    let error = p.to_b.send(1, b"x").unwrap_err();
    assert!(matches!(error, OpError::PeerLost { .. }), "{error}");
    let again = p.a.connect(p.b.address()).expect("a new session");
    again.send(3, b"new").unwrap();
    let mut buf = [0; 8];
    let got = p.b.recv(3, &mut buf).unwrap();
    assert_eq!(&buf[..got.len], b"new");
    assert!(p.b.reply_to(got.source).unwrap().send(9, b"back").is_ok());
    assert_eq!(p.a.recv(9, &mut buf).unwrap().len, 4);
    until("the old session is lost on the other side too", || to_a.send(1, b"x").is_err());
    assert!(p.to_b.send(1, b"x").is_err(), "the old peer is lost for ever");
    assert_eq!(p.b.recv(1, &mut buf).unwrap().len, 4, "what came whole before stays");
    assert!(p.b.probe(2).is_none(), "what was only announced is gone");
}

fn built(lane: &str, change: impl FnOnce(sinew::Builder) -> sinew::Builder) -> Engine {
    let builder = Engine::builder().transports([lane]).progress(THREAD).options(quick());
    change(builder).build().unwrap()
}

fn quick() -> EngineOptions {
    options().connect_timeout(Duration::from_secs(5))
}

/// The error's text, which must contain the table of what was tried.
fn refused(result: Result<sinew::Peer, ConnectError>, lane: &str) -> String {
    match result {
        Err(error @ ConnectError::Unreachable { .. }) => {
            let text = error.to_string();
            assert!(text.lines().count() > 1 && text.contains(lane), "no table: {text}");
            text
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was let in"),
    }
}

fn domains_cannot_reach_each_other(lane: &str) {
    let (one, other) = (built(lane, |b| b.domain("one")), built(lane, |b| b.domain("other")));
    let (a, b) = (one.endpoint("a").unwrap(), other.endpoint("b").unwrap());
    let text = refused(a.connect(b.address()), lane);
    println!("{text}");
    assert!(text.contains("domain"), "{text}");
    assert_eq!((one.counters().sessions, other.counters().sessions), (0, 0));
}

fn other_wire_versions_are_named(lane: &str) {
    let old = built(lane, |b| b.domain("v"));
    let new = built(lane, |b| b.domain("v").wire_versions(71, 72));
    let (a, b) = (old.endpoint("a").unwrap(), new.endpoint("b").unwrap());
    for text in [refused(a.connect(b.address()), lane), refused(b.connect(a.address()), lane)] {
        println!("{text}");
        assert!(text.contains("version") && text.contains("71") && text.contains("72"), "{text}");
        assert!(text.contains('1'), "its own version: {text}");
    }
}

fn a_wrong_secret_is_refused_and_the_right_one_works(lane: &str) {
    let with = |secret: &str| built(lane, |b| b.domain("s").security(Security::Secret(secret.into())));
    let (one, same) = (with("the secret of these engines"), with("the secret of these engines"));
    let wrong = with("another secret, just as long");
    let (a, b, c) = (one.endpoint("a").unwrap(), same.endpoint("b").unwrap(), wrong.endpoint("c").unwrap());
    let peer = a.connect(b.address()).expect("the same secret");
    if lane == "tcp" {
        let text = refused(c.connect(a.address()), lane);
        println!("{text}");
        refused(a.connect(c.address()), lane);
        assert_eq!(wrong.counters().sessions, 0);
    }
    // Whoever was refused has changed nothing.
    peer.send(1, b"still").unwrap();
    assert_eq!(b.recv(1, &mut [0; 8]).unwrap().len, 5);
}

fn a_dead_address_says_what_was_tried(lane: &str) {
    let here = built(lane, |b| b.domain("d"));
    let a = here.endpoint("a").unwrap();
    let address = {
        let gone = built(lane, |b| b.domain("d"));
        let endpoint = gone.endpoint("x").unwrap();
        let address = endpoint.address();
        gone.close(Duration::from_secs(1)).unwrap();
        address
    };
    let at = Instant::now();
    let text = refused(a.connect(&address), lane);
    println!("{lane}: dead after {:?}\n{text}", at.elapsed());
    for locator in address.locators() {
        assert!(text.contains(&locator.to_string()), "{locator} is not in the table: {text}");
    }
    assert_eq!(here.counters().operations, 0);
}

fn a_missing_endpoint_is_said(lane: &str) {
    let (here, there) = (built(lane, |b| b.domain("m")), built(lane, |b| b.domain("m")));
    let a = here.endpoint("a").unwrap();
    let gone = there.endpoint("gone").unwrap();
    let address = gone.address();
    let keep = there.endpoint("keep").unwrap();
    drop(gone);
    assert!(matches!(a.connect(&address), Err(ConnectError::NoSuchEndpoint { .. })));
    // Sends to an endpoint that closes meanwhile end with that reason, and others go on.
    let closing = there.endpoint("closing").unwrap();
    let (to_closing, to_keep) = (a.connect(closing.address()).unwrap(), a.connect(keep.address()).unwrap());
    let hanging = to_closing.post_send(1, vec![0; 1 << 20]).unwrap();
    to_closing.flush().unwrap();
    drop(closing);
    assert!(matches!(hanging.wait().unwrap_err().error, OpError::EndpointClosed));
    until("further sends are refused", || matches!(to_closing.send(1, b"x"), Err(OpError::EndpointClosed)));
    to_keep.send(1, b"x").unwrap();
    assert_eq!(keep.recv(1, &mut [0; 8]).unwrap().len, 1);
}

#[test]
fn an_explicit_target_never_falls_back() {
    let all = |d: &str| Engine::builder().domain(d).progress(THREAD).options(quick()).build().unwrap();
    let (here, there) = (all("explicit"), all("explicit"));
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let tcp = b.address().locators().iter().map(ToString::to_string).find(|l| l.starts_with("tcp")).unwrap();
    let host = tcp.trim_start_matches("tcp:");
    let peer = a.connect(format!("tcp://{host}/b")).unwrap();
    assert!(peer.path().starts_with("tcp"), "{}", peer.path());
    // A dead port, though the same engine could be reached by shared memory.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = refused(a.connect(format!("tcp://{free}/b")), "tcp");
    assert!(!text.contains("shm") && !text.contains("uds"), "{text}");
    // While tcp is asked for, nothing else carries it, also after a cut.
    for round in 0..20u64 {
        here.cut(&peer);
        peer.send(round, b"x").unwrap();
        b.recv(round, &mut [0; 8]).unwrap();
        assert!(peer.path().starts_with("tcp") || peer.path().starts_with("none"), "{}", peer.path());
    }
}

#[test]
fn an_unreachable_first_candidate_costs_little() {
    let (here, there) = (built("tcp", |b| b.domain("u")), built("tcp", |b| b.domain("u")));
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let good = b.address();
    // The kernel accepts, nobody ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = sinew_wire_number(&good.to_string());
    let locators = format!("tcp:{},{}", silent.local_addr().unwrap(), last_locator(&good.to_string()));
    let at = Instant::now();
    let peer = a.connect(format!("{number},{locators}")).expect("the second candidate");
    println!("a first candidate that never answers cost {:?}\n{}", at.elapsed(), peer.explain());
    peer.send(1, b"x").unwrap();
    b.recv(1, &mut [0; 8]).unwrap();
}

/// `sinew:1:ENGINE:INCARNATION:ENDPOINT` of an address.
fn sinew_wire_number(address: &str) -> String {
    address.split(',').next().unwrap().to_owned()
}

fn last_locator(address: &str) -> String {
    address.split(',').find(|part| part.starts_with("tcp:127")).unwrap().to_owned()
}
