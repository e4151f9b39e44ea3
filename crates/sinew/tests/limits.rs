//! Promises at the edges of what can be asked: times that never end, buffers that no memory holds, handles of an engine that
//! is closed, wakers that panic.

mod common;

use common::{PATIENCE, engine, engine_with, options, pair, pair_with, until};
use sinew::{ConnectError, Engine, EngineOptions, Match, OpError, Progress};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const THREAD: Progress = Progress::Thread { cpu: None };

#[test]
fn a_deadline_beyond_all_clocks_is_as_good_as_none() {
    let there = engine("uds", THREAD);
    let here = engine("uds", Progress::Caller);
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let peer = a.connect_within(b.address(), Duration::MAX).expect("a path");
    peer.message(1).timeout(Duration::MAX).send(b"x").unwrap();
    assert_eq!(b.recv_within(1, &mut [0; 4], Duration::MAX).unwrap().len, 1);
    peer.flush_within(Duration::MAX).unwrap();
    assert!(here.close(Duration::MAX).unwrap());
}

#[test]
fn options_beyond_all_clocks_are_as_good_as_none() {
    let options = EngineOptions::default()
        .timeout(Duration::MAX)
        .connect_timeout(Duration::MAX)
        .handshake_timeout(Duration::MAX)
        .peer_timeout(Duration::MAX)
        .stagger(Duration::MAX)
        .spin(Duration::MAX);
    let there = engine_with("tcp", THREAD, common::options());
    let here = engine_with("tcp", Progress::Caller, options);
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let peer = a.connect(b.address()).expect("a path");
    let (mut buf, data) = ([0; 8], [7; 8]);
    // A scope that could not reckon its deadline would end without its operations.
    a.scope(|scope| drop(scope.send(&peer, 1, &data)));
    b.scope(|scope| drop(scope.recv(1, &mut buf)));
    assert_eq!(buf, data);
}

#[test]
fn a_connect_to_one_that_takes_the_connection_and_never_answers_ends_in_time() {
    // The system takes the connection for it; nobody ever reads or writes there.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp://{}/b", silent.local_addr().unwrap());
    for progress in [Progress::Caller, THREAD] {
        let here = engine("tcp", progress);
        let a = here.endpoint("a").unwrap();
        let started = std::time::Instant::now();
        let within = Duration::from_millis(200);
        let error = a.connect_within(&target, within).unwrap_err();
        assert!(matches!(&error, ConnectError::Unreachable { .. }) && error.is_retryable(), "{error}");
        assert!(error.to_string().contains(&target) && started.elapsed() >= within, "{error}");
        // A handshake has a limit of its own: without it a call without end would not end.
        let short = options().handshake_timeout(within);
        let other = engine_with("tcp", progress, short);
        let error = other.endpoint("a").unwrap().connect_within(&target, Duration::MAX).unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
        // The engine goes on.
        let there = engine("tcp", THREAD);
        let b = there.endpoint("b").unwrap();
        a.connect_within(b.address(), PATIENCE).expect("a path").send(1, b"x").unwrap();
        assert_eq!(b.recv_within(1, &mut [0; 4], PATIENCE).unwrap().len, 1);
    }
}

#[test]
fn options_of_which_nothing_could_come_are_refused_and_the_least_and_largest_work() {
    for (name, options) in [
        ("endpoint_envelopes", common::options().endpoint_envelopes(0_usize)),
        ("session_envelopes", common::options().session_envelopes(0_usize)),
        ("handshake_timeout", common::options().handshake_timeout(Duration::ZERO)),
        ("peer_timeout", common::options().peer_timeout(Duration::ZERO)),
    ] {
        let error = Engine::builder().domain("faults").options(options).build().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let least = common::options().endpoint_envelopes(1_usize).session_envelopes(1_usize);
    let least =
        least.endpoint_window(0_usize).session_window(0_usize).eager_max(0_usize).send_buffer(0_usize);
    let largest = common::options().endpoint_envelopes(1_usize << 32).session_envelopes(1_usize << 33);
    let largest = largest.endpoint_window(usize::MAX).session_window(usize::MAX).eager_max(usize::MAX);
    for options in [least, largest] {
        let p = pair_with("uds", THREAD, THREAD, options);
        for len in [0, 8, 5000, 300_000] {
            std::thread::scope(|scope| {
                scope.spawn(|| p.to_b.send(1, &vec![7; len]).unwrap());
                assert_eq!(p.b.recv(1, &mut vec![0; len]).unwrap().len, len);
            });
        }
    }
}

#[test]
fn a_buffer_that_no_memory_holds_is_an_error() {
    let p = pair("shm");
    for len in [usize::MAX, usize::MAX / 2, 1 << 60] {
        for error in [p.here.alloc(len).unwrap_err(), p.to_b.alloc(len).unwrap_err()] {
            assert!(error.to_string().contains("ask for less"), "{error}");
        }
    }
    assert_eq!(p.to_b.alloc(0).unwrap().len(), 0);
}

#[test]
fn a_handler_of_a_closed_engine_is_refused() {
    let engine = engine("uds", Progress::Caller);
    let endpoint = engine.endpoint("").unwrap();
    engine.close(Duration::ZERO).unwrap();
    let refused = endpoint.on_message(1, 8, 1, |_, _| ());
    assert!(matches!(refused, Err(OpError::EngineClosed)), "{refused:?}");
}

#[test]
fn errors_say_whether_trying_again_makes_sense() {
    let p = pair("uds");
    assert!(p.b.try_recv(1, &mut []).unwrap_err().is_retryable());
    assert!(p.b.recv_within(1, &mut [], Duration::ZERO).unwrap_err().is_retryable());
    let alone = engine("tcp", Progress::Caller);
    let nobody = alone.endpoint("").unwrap();
    assert!(!nobody.connect("nonsense").unwrap_err().is_retryable());
    assert!(!nobody.connect("tcp://127.0.0.1").unwrap_err().is_retryable());
    // Nothing listens there now; something may later.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(nobody.connect(format!("tcp://{free}")).unwrap_err().is_retryable());
    assert!(!Engine::builder().domain("").build().unwrap_err().is_retryable());
    p.there.close(Duration::from_secs(1)).unwrap();
    until("the session is over", || !p.to_b.is_connected());
    let lost = p.to_b.send(1, b"x").unwrap_err();
    assert!(matches!(lost, OpError::PeerLost { .. }) && !lost.is_retryable(), "{lost}");
}

#[test]
fn an_address_of_another_incarnation_is_refused_with_a_session_and_without() {
    let p = pair("uds");
    let alone = engine("uds", Progress::Caller);
    let address = p.b.address().to_string();
    let (at, digit) =
        address.match_indices(':').nth(2).map(|(at, _)| (at + 1, &address[at + 1..at + 2])).unwrap();
    let mut other = address.clone();
    other.replace_range(at..at + 1, if digit == "7" { "6" } else { "7" });
    for endpoint in [&p.a, &alone.endpoint("").unwrap()] {
        let error = endpoint.connect(&other).unwrap_err().to_string();
        assert!(error.contains("incarnation"), "{error}");
        endpoint.connect(&address).expect("the right one");
    }
}

/// Panics when it is told to wake somebody.
struct Broken;

impl Wake for Broken {
    fn wake(self: Arc<Self>) {
        panic!("a waker that is broken");
    }
}

/// Says that it was told.
struct Told(AtomicBool);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Two receives of one engine: the first with a waker that panics, the second with one that is to be told all the same.
fn one_broken_waker(engine: &Engine, drive: impl Fn()) {
    let endpoint = engine.endpoint("").unwrap();
    let peer = endpoint.connect(endpoint.address()).unwrap();
    let told = Arc::new(Told(AtomicBool::new(false)));
    let (broken, good) = (Waker::from(Arc::new(Broken)), Waker::from(Arc::clone(&told)));
    let mut first = pin!(endpoint.post_recv(1, vec![0; 8]).unwrap());
    let mut second = pin!(endpoint.post_recv(2, vec![0; 8]).unwrap());
    assert!(first.as_mut().poll(&mut Context::from_waker(&broken)).is_pending());
    assert!(second.as_mut().poll(&mut Context::from_waker(&good)).is_pending());
    // Staged, so that both arrive in one turn of progress.
    peer.stage(1, b"one").unwrap();
    peer.stage(2, b"two").unwrap();
    until("the other task is woken", || {
        drive();
        told.0.load(Ordering::Acquire)
    });
    let Poll::Ready(Ok(got)) = second.as_mut().poll(&mut Context::from_waker(&good)) else {
        panic!("what the other task waited for is there");
    };
    assert_eq!(&*got.buf, b"two");
}

#[test]
fn a_waker_that_panics_keeps_no_other_task_asleep() {
    let engine = engine_with("self", Progress::Event, options());
    one_broken_waker(&engine, || {
        let _ = catch_unwind(AssertUnwindSafe(|| engine.process()));
    });
}

#[test]
fn a_waker_that_panics_does_not_end_the_engines_thread() {
    let engine = engine_with("self", THREAD, options());
    one_broken_waker(&engine, || ());
    // The thread still makes progress for somebody who only looks.
    let endpoint = engine.endpoint("").unwrap();
    let peer = endpoint.connect(endpoint.address()).unwrap();
    let told = Arc::new(Told(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&told));
    let mut receive = pin!(endpoint.post_recv(3, vec![0; 8]).unwrap());
    assert!(receive.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    peer.stage(3, b"x").unwrap();
    until("the thread has moved it", || told.0.load(Ordering::Acquire));
}

/// Keys of two engines look alike: what belongs to the other one must not be taken for something of this one.
#[test]
fn a_peer_or_source_of_another_engine_is_refused_with_cause_and_remedy() {
    let (p, other) = (common::pair("uds"), common::pair("uds"));
    p.to_b.send(1, b"x").unwrap();
    other.to_b.send(1, b"x").unwrap();
    let source = p.b.recv(1, &mut [0; 8]).unwrap().source;
    assert_ne!(source, other.b.recv(1, &mut [0; 8]).unwrap().source);
    let refused = |error: OpError| {
        assert!(matches!(error, OpError::OtherEngine) && !error.is_retryable(), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("another engine") && text.contains("use an endpoint of the engine"), "{text}");
    };
    refused(other.b.reply_to(source).unwrap_err());
    refused(other.a.reply_to(p.to_b.source()).unwrap_err());
    refused(other.b.recv(Match::any_tag().from(source), &mut [0; 8]).unwrap_err());
    refused(other.b.try_recv(Match::any_tag().from(source), &mut [0; 8]).unwrap_err());
    refused(other.b.wait_probe(Match::any_tag().from(source), PATIENCE).unwrap_err());
    refused(other.b.post_recv(Match::any_tag().from(source), vec![0; 8]).unwrap().wait().unwrap_err().error);
    other.a.scope(|scope| refused(scope.send(&p.to_b, 1, b"x").err().expect("refused")));
    p.b.reply_to(source).unwrap().send(2, b"well").unwrap();
    assert_eq!(p.a.recv(2, &mut [0; 8]).unwrap().len, 4);
}

/// So many peers have come and gone that the place of the first one's session is used again.
#[test]
fn a_message_of_a_peer_long_gone_is_not_taken_for_one_of_a_new_peer() {
    let there = engine("uds", THREAD);
    let b = there.endpoint("b").unwrap();
    let comes = || {
        let here = engine("uds", Progress::Caller);
        let a = here.endpoint("a").unwrap();
        let to_b = a.connect(b.address()).unwrap();
        to_b.send(1, b"here I am").unwrap();
        let source = b.recv(1, &mut [0; 16]).unwrap().source;
        (here, to_b, source)
    };
    let (here, to_b, first) = comes();
    to_b.send(7, b"old").unwrap();
    b.wait_probe(7, common::PATIENCE).unwrap();
    here.close(Duration::from_secs(1)).unwrap();
    for _ in 0..1100 {
        let (here, to_b, source) = comes();
        assert_ne!(source, first, "what named the first peer names another");
        to_b.send(8, b"new").unwrap();
        b.recv(8, &mut [0; 16]).unwrap();
        assert!(b.probe(sinew::Match::tag(7).from(source)).is_none(), "sent by another");
        here.close(Duration::from_secs(1)).unwrap();
    }
}
