//! Which path is taken, kept, left and explained.

use sinew::shm::{ShmOptions, ShmTransport};
use sinew::tcp::{TcpOptions, TcpTransport};
use sinew::transport::wrap::fault::{Faults, Faulty};
use sinew::transport::{ErrorKind, TransportError};
use sinew::{Engine, Match, Verdict};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// An engine with shared memory behind a fault wrapper, and TCP.
fn engine(faults: &Faults) -> Engine {
    Engine::builder()
        .domain("paths")
        .without_own_transports()
        .transport(Faulty::new(Box::new(ShmTransport::new(ShmOptions::default())), faults.clone()))
        .transport(TcpTransport::new(TcpOptions::default()))
        .build()
        .expect("an engine")
}

/// Runs rounds of ping-pong with content checked until `done` says so or time is up; answers whether it did.
fn play_until(here: &Engine, there: &Engine, mut done: impl FnMut(&sinew::Peer) -> bool) -> bool {
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let address = b.address();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let echo = std::thread::spawn(move || {
        let mut buf = [0; 64];
        while !stopped.load(Ordering::Acquire) {
            if let Ok(got) = b.recv_within(Match::any_tag(), &mut buf, Duration::from_millis(50)) {
                b.reply_to(got.source).unwrap().send(got.tag, &buf[..got.len]).unwrap();
            }
        }
    });
    let peer = a.connect(address).expect("a path");
    let until = Instant::now() + Duration::from_secs(15);
    let mut reached = false;
    let mut buf = [0; 64];
    let mut tag = 0;
    while !reached && Instant::now() < until {
        tag += 1;
        peer.send(tag, &tag.to_le_bytes()).expect("a send");
        let got = a.recv(tag, &mut buf).expect("an answer");
        assert_eq!(buf[..got.len], tag.to_le_bytes());
        reached = done(&peer);
    }
    stop.store(true, Ordering::Release);
    echo.join().unwrap();
    reached
}

#[test]
fn traffic_leaves_a_shared_memory_lane_that_has_become_slow() {
    for slow_side in [0, 1] {
        let faults = [Faults::new(), Faults::new()];
        let (here, there) = (engine(&faults[0]), engine(&faults[1]));
        let mut began_on_shm = false;
        let reached = play_until(&here, &there, |peer| {
            if peer.path().starts_with("shm") && !began_on_shm {
                began_on_shm = true;
                faults[slow_side].delay(Duration::from_millis(1));
            }
            began_on_shm && peer.path().starts_with("tcp")
        });
        assert!(
            began_on_shm,
            "shared memory is the first choice, or what a busy machine makes the second at first"
        );
        assert!(reached, "side {slow_side}: traffic moves to TCP");
    }
}

/// One bad moment of a busy machine is no reason to leave the lane that ought to be the best, and to come back. TCP is slow
/// here too, so that only the hitch makes it the better one, whatever else the machine does.
#[test]
fn a_short_hitch_of_the_best_lane_moves_no_traffic() {
    const HITCH: Duration = Duration::from_millis(400);
    let (faults, slow) = ([Faults::new(), Faults::new()], Faults::new());
    let make = |faults: &Faults| {
        let tcp = Faulty::new(Box::new(TcpTransport::new(TcpOptions::default())), slow.clone());
        let shm = Faulty::new(Box::new(ShmTransport::new(ShmOptions::default())), faults.clone());
        let builder = Engine::builder().domain("paths").without_own_transports();
        builder.transport(shm).transport(tcp).build().expect("an engine")
    };
    let (here, there) = (make(&faults[0]), make(&faults[1]));
    slow.delay(Duration::from_millis(10));
    let mut began: Option<Instant> = None;
    play_until(&here, &there, |peer| {
        assert!(peer.path().starts_with("shm"), "{}\n{}", peer.path(), peer.explain());
        let since = began.get_or_insert_with(Instant::now).elapsed();
        let delay = if since < HITCH { Duration::from_millis(40) } else { Duration::ZERO };
        faults.iter().for_each(|faults| faults.delay(delay));
        since > 5 * HITCH
    });
    assert!(began.is_some(), "it ran");
}

#[test]
fn an_explicit_choice_is_kept_although_a_better_path_works() {
    let faults = Faults::new();
    let (here, there) = (engine(&faults), engine(&faults));
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let address = b.address().to_string();
    let port =
        address.split("tcp:").nth(1).and_then(|rest| rest.split(['&', ',']).next()).expect("a TCP locator");
    let explicit = format!("tcp://{port}/b");
    let serving = std::thread::spawn(move || {
        let mut buf = [0; 8];
        for tag in 0..2000u64 {
            let got = b.recv(tag, &mut buf).unwrap();
            b.reply_to(got.source).unwrap().send(tag, &buf).unwrap();
        }
        there.close(Duration::from_secs(1)).unwrap();
    });
    let peer = a.connect(&explicit).expect(&explicit);
    let mut buf = [0; 8];
    for tag in 0..2000u64 {
        peer.send(tag, &[3; 8]).unwrap();
        a.recv(tag, &mut buf).unwrap();
        assert!(peer.path().starts_with("tcp"), "{}", peer.path());
    }
    serving.join().unwrap();
}

#[test]
fn each_cause_of_refusal_is_found_in_the_explanation() {
    for (kind, text) in [
        (ErrorKind::PermissionDenied, "permission denied"),
        (ErrorKind::NoRoute, "no route"),
        (ErrorKind::TimedOut, "no answer in time"),
        (ErrorKind::Refused, "nobody listens there"),
    ] {
        let faults = Faults::new();
        let there_faults = Faults::new();
        faults.refuse_dials(Some(TransportError::new(kind, "connect", "shm").hint("as the test wants")));
        let (here, there) = (engine(&faults), engine(&there_faults));
        let mut explain = None;
        let reached = play_until(&here, &there, |peer| {
            explain = Some(peer.explain());
            peer.path().starts_with("tcp")
        });
        assert!(reached, "TCP carries the traffic");
        let explain = explain.unwrap();
        let refused = explain.rows.iter().find(|row| row.verdict == Verdict::Refused).expect("a refused row");
        assert_eq!(refused.transport, "shm");
        assert!(
            refused.reason.contains(text) && refused.reason.contains("as the test wants"),
            "{}",
            refused.reason
        );
        assert!(explain.rows.iter().any(|row| row.verdict == Verdict::Chosen && row.transport == "tcp"));
    }
}

#[test]
fn an_explicit_connect_after_a_lost_session_makes_a_new_one() {
    let make = || Engine::builder().domain("paths").transports(["tcp"]).build().unwrap();
    let (here, there) = (make(), make());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let address = b.address().to_string();
    let port =
        address.split("tcp:").nth(1).and_then(|rest| rest.split(['&', ',']).next()).expect("a TCP locator");
    let explicit = format!("tcp://{port}/b");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let serving = std::thread::spawn(move || {
        let mut buf = [0; 8];
        while !stopped.load(Ordering::Acquire) {
            if let Ok(got) = b.recv_within(Match::any_tag(), &mut buf, Duration::from_millis(20)) {
                let _ = b.reply_to(got.source).and_then(|peer| peer.send(got.tag, &buf));
            }
        }
    });
    for round in 0..3u64 {
        let peer = a.connect(&explicit).expect(&explicit);
        peer.send(round, &[3; 8]).unwrap();
        a.recv(round, &mut [0; 8]).unwrap();
        assert!(here.lose(&peer), "the session is given up on this side only");
        assert!(matches!(peer.send(9, b"x"), Err(sinew::OpError::PeerLost { .. })));
    }
    stop.store(true, Ordering::Release);
    serving.join().unwrap();
}
