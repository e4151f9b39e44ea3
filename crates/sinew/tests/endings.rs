//! Promises about how handles end: engines in event loops, handlers inside handlers, panics whose payload panics.

mod common;

use common::{PATIENCE, content, options, pair, pair_by_hand_without_pushes, pair_with, until};
use sinew::{Handler, Match, OpError, Progress};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

/// Fails when `f` has not ended by the deadline: a thread that hangs cannot be joined.
fn ends(f: impl FnOnce() + Send + 'static) {
    let (done, end) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        f();
        done.send(()).unwrap();
    });
    let ended = end.recv_timeout(PATIENCE);
    assert!(ended.is_ok() || thread.is_finished(), "it hangs");
    thread.join().unwrap();
}

#[test]
fn a_flush_is_no_error_where_the_peer_closes_as_soon_as_it_has_everything() {
    for lane in ["shm", "uds", "tcp"] {
        for round in 0..30 {
            let here = common::engine(lane, Progress::Caller);
            let a = here.endpoint("a").unwrap();
            let (say, said) = mpsc::channel();
            let reader = std::thread::spawn(move || {
                let there = common::engine(lane, Progress::Caller);
                let b = there.endpoint("b").unwrap();
                say.send(b.address()).unwrap();
                let got = b.recv(1, &mut [0; 8]).unwrap();
                drop((b, there));
                got.len
            });
            // The reader makes progress while it waits.
            let peer = a.connect(said.recv().unwrap()).unwrap();
            peer.send(1, b"the last").unwrap();
            peer.flush().unwrap_or_else(|error| panic!("{lane}, {round}: {error}"));
            assert_eq!(reader.join().unwrap(), 8);
            until("the end is known", || {
                here.progress();
                !peer.is_connected()
            });
            peer.flush().unwrap_or_else(|error| panic!("{lane}, {round}, afterwards: {error}"));
            assert!(matches!(peer.send(1, b"x"), Err(OpError::PeerLost { .. })));
        }
    }
}

#[test]
fn an_event_loop_does_not_keep_its_engine() {
    let p = pair_with("uds", Progress::Event, Progress::Caller, options());
    for _ in 0..5 {
        if let Some(armed) = p.here.arm() {
            armed.process();
        }
        drop(p.here.arm());
    }
    p.to_b.send(1, b"x").unwrap();
    let source = p.b.recv(1, &mut [0; 8]).unwrap().source;
    let common::Pair { here, there, a, b, to_b, .. } = p;
    drop((to_b, a, here));
    until("the last drop says goodbye", || {
        there.progress();
        b.reply_to(source).is_err()
    });
}

#[test]
fn a_handler_may_be_dropped_inside_a_handler_that_it_waits_for_inside() {
    ends(|| {
        let p = pair("self");
        let outer: Arc<Mutex<Option<Handler>>> = Arc::default();
        let (a, to_b) = (p.b.clone(), p.to_b.clone());
        let waits = p.b.on_message(1, 64, 4, move |_, _| {
            to_b.send(2, b"for the inner one").unwrap();
            let mut buf = [0; 8];
            let _ = a.recv_within(3, &mut buf, Duration::from_millis(20));
        });
        *outer.lock().unwrap() = Some(waits.unwrap());
        let dropped = Arc::new(AtomicU32::new(0));
        let (of_outer, count) = (Arc::clone(&outer), Arc::clone(&dropped));
        let inner = p.b.on_message(2, 64, 4, move |_, _| {
            drop(of_outer.lock().unwrap().take());
            count.fetch_add(1, Ordering::Relaxed);
        });
        p.to_b.send(1, b"begin").unwrap();
        until("the inner handler was called", || {
            p.there.progress();
            dropped.load(Ordering::Relaxed) == 1
        });
        drop(inner);
    });
}

/// A panic's payload that panics when it is dropped.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("the payload's drop");
        }
    }
}

#[test]
fn a_call_that_is_under_way_on_another_thread_is_over_when_its_handler_is_gone() {
    ends(|| {
        let p = pair_with("uds", Progress::Caller, Progress::Thread { cpu: None }, options());
        let over = Arc::new(AtomicU32::new(0));
        let ((enter, entered), (go, goes)) = (mpsc::channel(), mpsc::channel::<()>());
        let ended = Arc::clone(&over);
        let handler = p.b.on_message(1, 64, 4, move |_, _| {
            enter.send(()).unwrap();
            goes.recv().unwrap();
            ended.store(1, Ordering::SeqCst);
        });
        let handler = handler.unwrap();
        p.to_b.send(1, b"x").unwrap();
        entered.recv().unwrap();
        let dropper = std::thread::spawn(move || {
            drop(handler);
            over.load(Ordering::SeqCst)
        });
        // From here on the drop waits for the call alone.
        until("the handler's receives are gone", || p.b.counters().posted == 0);
        (0..100).for_each(|_| std::thread::yield_now());
        go.send(()).unwrap();
        assert_eq!(dropper.join().unwrap(), 1, "the drop has returned before the call did");
    });
}

#[test]
fn a_panic_whose_payload_panics_ends_a_handler_and_nothing_else() {
    for progress in [Progress::Caller, Progress::Thread { cpu: None }] {
        ends(move || {
            let p = pair_with("self", progress, progress, options());
            let handler = p.b.on_message(1, 64, 4, |_, _| panic_any(Payload)).unwrap();
            p.to_b.send(1, b"x").unwrap();
            p.to_b.post_send(2, b"x".to_vec()).unwrap().on_complete(|_| panic_any(Payload));
            assert_eq!(p.b.recv(2, &mut [0; 8]).unwrap().len, 1);
            until("the handler is gone", || {
                p.to_b.send(1, b"y").unwrap();
                p.there.progress();
                p.b.probe(1).is_some()
            });
            drop(handler);
            p.to_b.send(3, b"z").unwrap();
            assert_eq!(p.b.recv(3, &mut [0; 8]).unwrap().len, 1);
        });
    }
}

struct Breaks;

impl Wake for Breaks {
    fn wake(self: Arc<Self>) {
        panic_any(Payload);
    }
}

#[test]
fn a_thread_goes_on_after_a_waker_whose_payload_panics() {
    let p = pair("uds");
    let mut broken = Box::pin(p.b.post_recv(1, vec![0; 8]).unwrap());
    let waker = Waker::from(Arc::new(Breaks));
    assert!(broken.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let (told, tell) = mpsc::channel();
    let handler = p.b.on_message(2, 8, 1, move |_, _| told.send(()).unwrap()).unwrap();
    p.to_b.send(1, b"x").unwrap();
    // Only the thread of the other engine can call the waker and, after it, the handler.
    p.to_b.flush().unwrap();
    p.to_b.send(2, b"y").unwrap();
    tell.recv_timeout(PATIENCE).expect("the thread moves messages");
    assert_eq!(broken.try_wait().unwrap().unwrap().info.len, 1);
    drop(handler);
}

/// Two operations of one scope whose wakers break, one after the other: the third must be ended all the same.
#[test]
fn a_scope_ends_its_borrows_whatever_panics_and_however_often() {
    let p = pair("self");
    let waker = Waker::from(Arc::new(Breaks));
    let mut canaries = [[0xcc_u8; 8]; 6];
    let caught = catch_unwind(AssertUnwindSafe(|| {
        p.b.scope(|scope| {
            for canary in &mut canaries {
                drop(scope.recv(9, canary));
            }
            // What the scope's end waits for and cancels wakes this one, again and again.
            let other = p.b.post_recv(1, vec![0; 8]).unwrap();
            let mut other = Box::pin(other);
            assert!(other.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            drop(p.to_b.post_send(1, b"x".to_vec()));
            std::mem::forget(other);
            panic!("the scope's own");
        });
    }));
    let _ = catch_unwind(AssertUnwindSafe(|| drop(caught)));
    // The waker may break in a later call than the scope's.
    let mut posted = usize::MAX;
    until("the message was given on", || {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            p.there.progress();
            posted = p.b.counters().posted;
        }));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(caught)));
        posted == 0
    });
    for _ in 0..canaries.len() {
        p.to_b.send(9, &[1; 8]).unwrap();
    }
    p.there.progress();
    assert_eq!(canaries, [[0xcc; 8]; 6], "memory of a scope that is over was written");
}

#[test]
fn a_receive_of_a_closing_engine_is_told_so_and_not_that_time_is_up() {
    let p = pair("self");
    let posted = p.b.post_recv(1, vec![0; 8]).unwrap();
    let waiting = p.b.clone();
    let thread = std::thread::spawn(move || waiting.recv_message(1, 8).map(|message| message.len()));
    p.there.close(Duration::ZERO).unwrap();
    assert!(matches!(posted.wait().unwrap_err().error, OpError::EngineClosed));
    let answer = thread.join().unwrap();
    assert!(matches!(answer, Err(OpError::EngineClosed)), "{answer:?}");
}

/// What a handler had begun to take when it ends waits in the order in which it was sent, though later messages were whole
/// already.
#[test]
fn what_a_handler_leaves_keeps_its_order() {
    let p = pair_by_hand_without_pushes("tcp");
    let both = || {
        p.here.process();
        p.there.process();
    };
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    let handler =
        p.b.on_message(Match::any_tag(), 1 << 20, 4, move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
    // The first one waits with its sender, who makes no progress.
    let long = p.to_b.post_send(1, content(1 << 20, 1)).unwrap();
    for (tag, data) in [(2, &b"second"[..]), (3, b"third")] {
        until("it goes behind the long one's envelope", || {
            p.here.process();
            p.to_b.try_send(tag, data).is_ok()
        });
    }
    p.here.process();
    until("all have been matched", || {
        p.there.process();
        p.b.counters().posted < 2
    });
    assert_eq!(seen.load(Ordering::Relaxed), 0, "the first one is shown first");
    drop(handler);
    let order: Vec<u64> = (0..3)
        .map(|_| {
            let mut receive = p.b.post_recv(Match::any_tag(), vec![0; 1 << 20]).unwrap();
            let mut got = None;
            until("the next one has come", || {
                both();
                got = receive.try_wait();
                got.is_some()
            });
            got.unwrap().unwrap().info.tag
        })
        .collect();
    assert_eq!(order, [1, 2, 3]);
    drop(long);
}

/// Receives that had got their messages at once give them back in the order in which they were sent, whichever ends first.
#[test]
fn receives_that_are_dropped_with_their_messages_keep_the_order() {
    for turned in [false, true] {
        let p = pair_with("shm", Progress::Event, Progress::Event, options());
        for data in [b"one", b"two", b"six"] {
            p.to_b.try_send(7, data).unwrap();
        }
        until("they wait", || {
            p.here.process();
            p.there.process();
            p.b.counters().unexpected == 3
        });
        let mut receives: Vec<_> = (0..2).map(|_| p.b.post_recv(7, vec![0; 8]).unwrap()).collect();
        if turned {
            receives.reverse();
        }
        drop(receives);
        let mut buf = [0; 8];
        for expected in [b"one", b"two", b"six"] {
            let got = p.b.try_recv(7, &mut buf).unwrap();
            assert_eq!(&buf[..got.len], expected, "turned: {turned}");
        }
    }
}
