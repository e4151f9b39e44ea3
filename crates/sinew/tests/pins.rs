//! An explicit choice belongs to the peer that asked for it: implicit peers and peers that are pinned to a transport live side
//! by side between the same two endpoints, each on a session of its own, and none changes another.

mod common;

use common::{PATIENCE, content, explicit, options, spawn, steady, until};
use sinew::shm::{ShmOptions, ShmTransport};
use sinew::tcp::{TcpOptions, TcpTransport};
use sinew::transport::wrap::fault::{Faults, Faulty};
use sinew::transport::{ErrorKind, TransportError};
use sinew::{Address, ConnectError, Endpoint, Engine, Match, OpError, Peer, Progress, Verdict};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const THREAD: Progress = Progress::Thread { cpu: None };
const ALL: [&str; 3] = ["shm", "uds", "tcp"];

fn engine() -> Engine {
    Engine::builder().domain("pins").progress(THREAD).options(options()).build().expect("an engine")
}

fn lanes_of(engine: &Engine, transport: &str) -> usize {
    engine.lanes().iter().filter(|lane| lane.transport == transport).count()
}

/// Sends `count` numbered messages to each peer in turn, and checks at `at` that each tag has all of its own in order.
fn exchange(peers: &[Peer], at: &Endpoint, count: u64) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..count {
                for (tag, peer) in peers.iter().enumerate() {
                    let data = content(size(number), number + tag as u64);
                    peer.message(tag as u64).immediate(number).timeout(PATIENCE).send(&data).unwrap();
                }
            }
        });
        let mut buf = vec![0; 100_000];
        for number in 0..count {
            for tag in 0..peers.len() as u64 {
                let got = at.recv_within(tag, &mut buf, PATIENCE).unwrap();
                assert_eq!(got.immediate, Some(number), "{tag}: lost, doubled or out of order");
                assert!(buf[..got.len] == content(size(number), number + tag));
            }
        }
    });
    assert!(matches!(at.try_recv(Match::any_tag(), &mut [0; 8]), Err(OpError::WouldBlock)), "one too many");
}

fn size(number: u64) -> usize {
    if number % 16 == 9 { 90_000 } else { number as usize % 300 }
}

#[test]
fn peers_of_every_choice_live_side_by_side() {
    let make = || Engine::builder().domain("pins").progress(THREAD).options(steady()).build().unwrap();
    let (here, there) = (make(), make());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let implicit = a.connect(b.address()).unwrap();
    let chosen = implicit.path();
    let explained = implicit.explain().to_string();
    let mut peers = vec![implicit];
    for transport in ALL {
        peers.push(a.connect(explicit(&b.address(), transport)).unwrap());
    }
    let check = || {
        assert_eq!(peers[0].path(), chosen, "an explicit connect moves nobody else");
        for (peer, transport) in peers[1..].iter().zip(ALL) {
            assert!(peer.path().starts_with(transport), "{transport}: {}", peer.path());
            let explain = peer.explain();
            assert_eq!(explain.pinned.as_deref(), Some(transport));
            assert!(explain.rows.iter().all(|row| row.transport == transport), "{explain}");
            assert!(explain.to_string().contains(&format!("pinned to {transport}")));
        }
    };
    check();
    assert_eq!(peers[0].explain().to_string(), explained);
    assert_eq!(peers[0].explain().pinned, None);
    exchange(&peers, &b, 200);
    check();
    until("both sides count four sessions", || {
        here.counters().sessions == 4 && there.counters().sessions == 4
    });
    // The other way, on what the first side has asked for.
    for (peer, transport) in peers[1..].iter().zip(ALL) {
        peer.send(9, b"x").unwrap();
        let source = b.recv(9, &mut [0; 8]).unwrap().source;
        let back = b.reply_to(source).unwrap();
        assert!(back.path().starts_with(transport), "{transport}: {}", back.path());
        exchange(&[back], &a, 40);
    }
}

#[test]
fn traffic_is_counted_on_the_lane_of_its_peer() {
    let (here, there) = (engine(), engine());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let [shm, uds, tcp] = ALL.map(|transport| a.connect(explicit(&b.address(), transport)).unwrap());
    let sent = |transport: &str| {
        let lanes = here.lanes();
        lanes.iter().filter(|lane| lane.transport == transport).map(|lane| lane.frames_sent).sum::<u64>()
    };
    let before = ALL.map(sent);
    for (peer, count) in [(&shm, 10), (&uds, 20), (&tcp, 30)] {
        for number in 0..count {
            peer.send(number, b"x").unwrap();
            b.recv(number, &mut [0; 8]).unwrap();
        }
    }
    let after = ALL.map(sent);
    let grown: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(grown, [10, 20, 30]);
}

#[test]
fn peers_that_pin_the_same_transport_share_one_session() {
    let (here, there) = (engine(), engine());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let (c, d) = (here.endpoint("c").unwrap(), there.endpoint("d").unwrap());
    let mut peers = Vec::new();
    for _ in 0..5 {
        for (from, to) in [(&a, &b), (&c, &d), (&a, &d)] {
            peers.push(from.connect(explicit(&to.address(), "tcp")).unwrap());
        }
    }
    let back = b.connect(explicit(&a.address(), "tcp")).unwrap();
    assert_eq!((here.counters().sessions, there.counters().sessions), (1, 1));
    until("further lanes are closed", || lanes_of(&here, "tcp") == 1 && lanes_of(&there, "tcp") == 1);
    exchange(&[back], &a, 20);
    for peer in peers {
        peer.send(1, b"x").unwrap();
    }
    for _ in 0..5 {
        b.recv(1, &mut [0; 8]).unwrap();
        d.recv(1, &mut [0; 8]).unwrap();
        d.recv(1, &mut [0; 8]).unwrap();
    }
    assert_eq!((here.counters().sessions_lost, there.counters().sessions_lost), (0, 0));
}

#[test]
fn engines_that_connect_to_each_other_at_once_share_one_session_of_each_kind() {
    for round in 0..10 {
        let (here, there) = (engine(), engine());
        let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
        let targets = |to: &Endpoint| {
            let pinned = ALL.map(|transport| explicit(&to.address(), transport));
            std::iter::once(to.address().to_string()).chain(pinned).collect::<Vec<_>>()
        };
        let start = Barrier::new(8);
        let (to_b, to_a) = std::thread::scope(|scope| {
            let dial = |from: &Endpoint, target: String| {
                let (from, start) = (from.clone(), &start);
                scope.spawn(move || {
                    start.wait();
                    from.connect(&target).unwrap_or_else(|error| panic!("{target}: {error}"))
                })
            };
            let there: Vec<_> = targets(&b).into_iter().map(|target| dial(&a, target)).collect();
            let back: Vec<_> = targets(&a).into_iter().map(|target| dial(&b, target)).collect();
            let ended = |dials: Vec<std::thread::ScopedJoinHandle<'_, Peer>>| {
                dials.into_iter().map(|dial| dial.join().unwrap()).collect::<Vec<_>>()
            };
            (ended(there), ended(back))
        });
        exchange(&to_b, &b, 20);
        exchange(&to_a, &a, 20);
        for peers in [&to_b, &to_a] {
            for (peer, transport) in peers[1..].iter().zip(ALL) {
                assert!(peer.path().starts_with(transport), "{round}: {transport} is {}", peer.path());
            }
        }
        for engine in [&here, &there] {
            assert_eq!((engine.counters().sessions, engine.counters().sessions_lost), (4, 0), "{round}");
            // Doubles are closed by one side, and the other does not take that for a fault of the way.
            let since = std::time::Instant::now();
            while engine.counters().lanes != 4 {
                assert!(
                    since.elapsed() < PATIENCE,
                    "{round}: each session has one lane: {:#?}",
                    engine.lanes()
                );
                std::thread::yield_now();
            }
            assert_eq!(engine.counters().lanes_lost, 0, "{round}: {:?}", engine.lanes());
        }
    }
}

#[test]
fn a_pinned_session_mends_its_lane_by_its_transport_only() {
    for transport in ALL {
        let (here, there) = (engine(), engine());
        let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
        let implicit = a.connect(b.address()).unwrap();
        let pinned = a.connect(explicit(&b.address(), transport)).unwrap();
        pinned.send(1, b"hello").unwrap();
        let back = b.reply_to(b.recv(1, &mut [0; 8]).unwrap().source).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for cuts in 0.. {
                    let (engine, peer) = if cuts % 2 == 0 { (&here, &pinned) } else { (&there, &back) };
                    engine.cut(peer);
                    for path in [pinned.path(), back.path()] {
                        assert!(path.starts_with(transport) || path.starts_with("none"), "{path}");
                    }
                    if done.load(Ordering::Acquire) {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            exchange(&[implicit.clone(), pinned.clone()], &b, 150);
            exchange(std::slice::from_ref(&back), &a, 50);
            done.store(true, Ordering::Release);
        });
        until("it has a lane again", || pinned.path().starts_with(transport));
        assert_eq!((here.counters().sessions_lost, there.counters().sessions_lost), (0, 0));
    }
}

/// Two engines whose TCP can be taken away, and which could always use shared memory.
#[test]
fn a_pinned_session_whose_transport_is_gone_ends_with_an_error_and_alone() {
    let faults = [Faults::new(), Faults::new()];
    let make = |faults: &Faults| {
        Engine::builder()
            .domain("pins")
            .progress(THREAD)
            .options(steady())
            .without_own_transports()
            .transport(ShmTransport::new(ShmOptions::default()))
            .transport(Faulty::new(Box::new(TcpTransport::new(TcpOptions::default())), faults.clone()))
            .build()
            .expect("an engine")
    };
    let (here, there) = (make(&faults[0]), make(&faults[1]));
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let implicit = a.connect(b.address()).unwrap();
    let pinned = a.connect(explicit(&b.address(), "tcp")).unwrap();
    for faults in &faults {
        faults.refuse_dials(Some(TransportError::new(ErrorKind::Refused, "connect", "as the test wants")));
    }
    let receive = a.post_recv(Match::tag(1).from(pinned.source()), vec![0; 8]).unwrap();
    here.cut(&pinned);
    until("the pinned session is lost", || !pinned.is_connected());
    let error = pinned.send(1, b"x").unwrap_err();
    assert!(
        matches!(&error, OpError::PeerLost { reason, .. } if reason.contains("as the test wants")),
        "{error}"
    );
    assert!(pinned.path().starts_with("none"), "{}", pinned.path());
    let refused = a.connect(explicit(&b.address(), "tcp"));
    assert!(matches!(refused, Err(ConnectError::Unreachable { .. })), "{refused:?}");
    // The others go on, among them the receive that names the lost peer: its engine can still send.
    assert!(implicit.path().starts_with("shm"), "{}", implicit.path());
    exchange(std::slice::from_ref(&implicit), &b, 20);
    implicit.send(2, b"x").unwrap();
    let back = b.reply_to(b.recv(2, &mut [0; 8]).unwrap().source).unwrap();
    back.send(1, b"answer").unwrap();
    assert_eq!(receive.wait().unwrap().info.len, 6);
    assert_eq!((here.counters().sessions, there.counters().sessions), (1, 1));
}

#[test]
fn a_receive_from_one_source_takes_messages_of_all_its_sessions() {
    let (here, there) = (engine(), engine());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let stranger = there.endpoint("stranger").unwrap();
    let implicit = b.connect(a.address()).unwrap();
    let pinned = b.connect(explicit(&a.address(), "tcp")).unwrap();
    let mut buf = [0; 64];
    let mut from = |tag: u64| a.recv(tag, &mut buf).unwrap().source;
    implicit.send(1, b"by whatever is best").unwrap();
    pinned.send(2, b"by tcp").unwrap();
    let sources = [from(1), from(2)];
    assert_eq!(sources[0], sources[1], "one endpoint is one source");
    assert_eq!(a.connect(b.address()).unwrap().source(), sources[0]);
    assert_eq!(a.connect(explicit(&b.address(), "uds")).unwrap().source(), sources[0]);
    let paths = sources.map(|source| a.reply_to(source).unwrap().path());
    assert_eq!(paths[0], a.connect(b.address()).unwrap().path());
    assert!(paths[1].starts_with("tcp"), "an answer goes on the session of its message: {}", paths[1]);
    // Each session's messages, by a receive that names the source of the other, and nobody else's.
    stranger.connect(a.address()).unwrap().send(3, b"not me").unwrap();
    until("the stranger's is there", || a.probe(3).is_some());
    for (peer, source) in [(&implicit, sources[1]), (&pinned, sources[0])] {
        let receive = a.post_recv(Match::tag(3).from(source), vec![0; 8]).unwrap();
        peer.send(3, b"me").unwrap();
        assert_eq!(receive.wait().unwrap().info.len, 2);
        peer.send(3, b"late").unwrap();
        assert_eq!(a.recv(Match::tag(3).from(source), &mut buf).unwrap().len, 4);
    }
    assert_eq!(a.recv(3, &mut buf).unwrap().len, 6);
}

#[test]
fn a_receive_from_one_source_ends_when_no_session_with_it_is_left() {
    let (here, there) = (engine(), engine());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let implicit = a.connect(b.address()).unwrap();
    let pinned = a.connect(explicit(&b.address(), "tcp")).unwrap();
    let source = implicit.source();
    pinned.send(1, b"x").unwrap();
    let back = b.reply_to(b.recv(1, &mut [0; 8]).unwrap().source).unwrap();
    let from = Match::tag(7).from(source);
    let mut first = a.post_recv(from, vec![0; 8]).unwrap();
    let second = a.post_recv(from, vec![0; 8]).unwrap();
    assert!(here.lose(&implicit), "one of two sessions");
    assert!(first.try_wait().is_none(), "it may still come by tcp");
    assert!(matches!(a.try_recv(from, &mut [0; 8]), Err(OpError::WouldBlock)));
    back.send(7, b"by tcp").unwrap();
    assert_eq!(first.wait().unwrap().info.source, source);
    back.send(8, b"kept").unwrap();
    a.wait_probe(8, PATIENCE).unwrap();
    let waiting = {
        let a = a.clone();
        std::thread::spawn(move || a.recv_within(from, &mut [0; 8], PATIENCE))
    };
    until("both of them wait", || here.counters().operations == 2);
    there.close(PATIENCE).unwrap();
    let lost = |error: OpError| assert!(matches!(error, OpError::PeerLost { .. }), "{error}");
    lost(second.wait().unwrap_err().error);
    lost(waiting.join().unwrap().unwrap_err());
    lost(a.recv(from, &mut [0; 8]).unwrap_err());
    lost(a.try_recv(from, &mut [0; 8]).unwrap_err());
    assert_eq!(a.recv(Match::tag(8).from(source), &mut [0; 8]).unwrap().len, 4, "what had come stays");
}

#[test]
fn who_connects_again_after_the_last_session_was_lost_is_another_source() {
    let (here, there) = (engine(), engine());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let first = a.connect(explicit(&b.address(), "tcp")).unwrap();
    assert!(here.lose(&first));
    let again = a.connect(explicit(&b.address(), "tcp")).unwrap();
    assert_ne!(again.source(), first.source());
    let error = a.recv(Match::tag(1).from(first.source()), &mut [0; 8]).unwrap_err();
    assert!(matches!(error, OpError::PeerLost { .. }), "{error}");
}

#[test]
fn a_lost_session_is_fenced_alone() {
    let (here, there) = (engine(), engine());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let implicit = a.connect(b.address()).unwrap();
    for round in 0..5u64 {
        let pinned = a.connect(explicit(&b.address(), "tcp")).unwrap();
        pinned.send(round, b"pinned").unwrap();
        implicit.send(round, b"implicit").unwrap();
        let lengths = [(); 2].map(|()| b.recv(round, &mut [0; 8]).unwrap().len);
        assert!(lengths == [6, 8] || lengths == [8, 6], "{lengths:?}");
        assert!(here.lose(&pinned), "given up on this side only");
        assert!(matches!(pinned.send(9, b"x"), Err(OpError::PeerLost { .. })));
    }
    implicit.send(9, b"still").unwrap();
    b.recv(9, &mut [0; 8]).unwrap();
    assert!(here.lose(&implicit));
    let pinned = a.connect(explicit(&b.address(), "tcp")).unwrap();
    let again = a.connect(b.address()).unwrap();
    exchange(&[pinned, again], &b, 10);
}

#[test]
fn a_closed_endpoint_is_closed_for_the_peers_of_all_sessions() {
    let (here, there) = (engine(), engine());
    let a = here.endpoint("a").unwrap();
    let b = there.endpoint("b").unwrap();
    let stays = there.endpoint("stays").unwrap();
    let targets: Vec<String> = ALL.iter().map(|transport| explicit(&b.address(), transport)).collect();
    let mut peers: Vec<Peer> = targets.iter().map(|target| a.connect(target).unwrap()).collect();
    peers.push(a.connect(b.address()).unwrap());
    exchange(&peers, &b, 5);
    drop(b);
    for peer in &peers {
        until("sends are refused", || matches!(peer.send(1, b"x"), Err(OpError::EndpointClosed)));
        assert!(peer.is_connected(), "its session carries others");
    }
    for target in targets {
        assert!(matches!(a.connect(target), Err(ConnectError::NoSuchEndpoint { .. })));
    }
    exchange(&[a.connect(explicit(&stays.address(), "uds")).unwrap()], &stays, 5);
    there.close(Duration::from_secs(1)).unwrap();
    until("all sessions are over", || here.counters().sessions == 0);
    assert!(peers.iter().all(|peer| !peer.is_connected()));
    assert_eq!(there.counters().sessions, 0);
}

#[test]
fn an_explanation_stays_short_however_often_lanes_come_and_go() {
    const CUTS: u32 = 100;
    let (here, there) = (engine(), engine());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let peer = a.connect(explicit(&b.address(), "tcp")).unwrap();
    let back = b.connect(explicit(&a.address(), "tcp")).unwrap();
    let mut cuts = 0;
    while cuts < CUTS {
        let (engine, peer) = if cuts % 2 == 0 { (&here, &peer) } else { (&there, &back) };
        until("it has a lane", || !peer.path().starts_with("none"));
        cuts += u32::from(engine.cut(peer));
    }
    for peer in [&peer, &back] {
        until("it has a lane", || peer.path().starts_with("tcp"));
        let explain = peer.explain();
        assert!(explain.rows.len() <= 8, "{explain}");
        let ends: u32 = explain.rows.iter().map(|row| row.earlier).sum();
        assert!(ends >= CUTS / 2 && explain.to_string().contains("times before"), "{explain}");
    }
}

#[test]
fn a_list_of_choices_is_no_pin() {
    let (here, there) = (engine(), engine());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let list = format!("auto:{},{}", explicit(&b.address(), "tcp"), explicit(&b.address(), "uds"));
    for _ in 0..3 {
        let peer = a.connect(&list).unwrap();
        assert_eq!(peer.explain().pinned, None);
        exchange(&[peer, a.connect(b.address()).unwrap()], &b, 5);
    }
    assert_eq!((here.counters().sessions, there.counters().sessions), (1, 1));
}

#[test]
fn an_explicit_connect_by_a_transport_that_is_not_there_is_refused() {
    let (here, there) =
        (Engine::builder().domain("pins").transports(["shm"]).options(options()).build().unwrap(), engine());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let implicit = a.connect(b.address()).unwrap();
    let refused = a.connect(explicit(&b.address(), "tcp")).unwrap_err();
    assert!(
        matches!(refused, ConnectError::Unreachable { .. }) && refused.to_string().contains("transports")
    );
    let rows = implicit.explain().rows;
    assert!(rows.iter().any(|row| row.verdict == Verdict::Chosen && row.transport == "shm"), "{rows:?}");
    assert_eq!(here.counters().sessions, 1);
}

/// The other side of what a death ends.
#[test]
#[ignore = "a child of other tests"]
fn other_process() {
    if !common::is_other() {
        return;
    }
    let there = engine();
    let endpoint = there.endpoint("other").unwrap();
    common::say(endpoint.address());
    common::hear();
}

#[test]
fn a_death_ends_all_sessions_with_the_process() {
    let here = engine();
    let a = here.endpoint("a").unwrap();
    for _ in 0..5 {
        let mut other = spawn("idle", "all", &[]);
        let address: Address = other.line().parse().unwrap();
        let mut peers: Vec<Peer> =
            ALL.iter().map(|transport| a.connect(explicit(&address, transport)).unwrap()).collect();
        peers.push(a.connect(&address).unwrap());
        let receive = a.post_recv(Match::any_tag().from(peers[0].source()), vec![0; 8]).unwrap();
        other.kill();
        let error = receive.wait_within(PATIENCE).unwrap_err().error;
        assert!(matches!(&error, OpError::PeerLost { .. }), "{error}");
        assert!(!error.to_string().contains("peer_timeout"), "{error}");
        for peer in peers {
            assert!(matches!(peer.send(1, b"x"), Err(OpError::PeerLost { .. })));
        }
        assert_eq!((here.counters().sessions, here.counters().operations), (0, 0));
    }
}
