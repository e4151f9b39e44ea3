//! A panic in a waker of the application goes to whoever runs it, and takes nothing of others with it: no handler, no message, no
//! thread of the engine.

mod common;

use common::{Pair, engine, options, pair_with, threads, until};
use sinew::{Progress, RecvOp};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

/// Panics once, when it is told to.
#[derive(Default)]
struct Breaks(AtomicBool);

impl Wake for Breaks {
    fn wake(self: Arc<Self>) {
        if self.0.swap(false, Ordering::SeqCst) {
            std::panic::resume_unwind(Box::new("in a waker"));
        }
    }
}

/// A waker that panics when the receive ends.
fn watch(receive: &mut RecvOp) {
    let breaks = Arc::new(Breaks::default());
    let waker = Waker::from(Arc::clone(&breaks));
    assert!(Pin::new(receive).poll(&mut Context::from_waker(&waker)).is_pending());
    breaks.0.store(true, Ordering::SeqCst);
}

/// Both engines by this thread, which has had each often enough for the short way.
fn warm() -> Pair {
    let p = pair_with("shm", Progress::Caller, Progress::Caller, options());
    for _ in 0..200 {
        p.to_b.send(9, b"warm").unwrap();
        p.b.recv(9, &mut [0; 8]).unwrap();
    }
    p
}

/// Makes progress; whether a waker has panicked.
fn broken(p: &Pair) -> bool {
    catch_unwind(AssertUnwindSafe(|| p.there.progress())).is_err()
}

/// Two messages that share a frame: the first is received, and what is left of the frame wakes the future of the second as soon as
/// the engine is called next.
fn leave_one(p: &Pair) {
    p.to_b.stage(3, b"three").unwrap();
    p.to_b.stage(2, b"two").unwrap();
    p.here.progress();
    p.b.recv(3, &mut [0; 8]).unwrap();
}

#[test]
fn a_handler_goes_on_after_a_waker_panicked_beside_it() {
    let p = Arc::new(warm());
    let mut receive = p.b.post_recv(2, vec![0; 8]).unwrap();
    watch(&mut receive);
    let seen = Arc::new(AtomicUsize::new(0));
    let (pair, calls) = (Arc::downgrade(&p), Arc::clone(&seen));
    let function = move |_: &[u8], _: &sinew::Completion| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            leave_one(&pair.upgrade().expect("the pair"));
        }
    };
    let handler = p.b.on_message(1, 16, 2, function).unwrap();
    p.to_b.send(1, b"one").unwrap();
    let mut panicked = false;
    until("the handler was called", || {
        panicked |= broken(&p);
        seen.load(Ordering::SeqCst) == 1
    });
    assert!(panicked, "the panic went on to its owner");
    p.to_b.send(1, b"again").unwrap();
    until("it is called again", || {
        p.there.progress();
        seen.load(Ordering::SeqCst) == 2
    });
    assert_eq!(receive.wait().unwrap().buf.as_slice(), b"two");
    handler.unregister();
}

#[test]
fn each_function_is_called_although_a_waker_panicked_between_them() {
    let p = Arc::new(warm());
    let mut receive = p.b.post_recv(2, vec![0; 8]).unwrap();
    watch(&mut receive);
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..2u8 {
        let (pair, order) = (Arc::downgrade(&p), Arc::clone(&order));
        let _ = p.b.post_recv(1, vec![0; 8]).unwrap().on_complete(move |result| {
            assert!(result.is_ok());
            order.lock().unwrap().push(number);
            if number == 0 {
                leave_one(&pair.upgrade().expect("the pair"));
            }
        });
    }
    p.to_b.stage(1, b"one").unwrap();
    p.to_b.stage(1, b"one").unwrap();
    p.here.progress();
    let mut panicked = false;
    until("both were called", || {
        panicked |= broken(&p);
        *order.lock().unwrap() == [0, 1]
    });
    assert!(panicked, "the panic went on to its owner");
    assert_eq!(receive.wait().unwrap().buf.as_slice(), b"two");
}

/// Also the drop of an operation must not panic: it may itself be dropped by a panic.
#[test]
fn no_drop_of_a_handle_panics_with_a_waker_that_it_runs() {
    let p = warm();
    let mut receive = p.b.post_recv(2, vec![0; 8]).unwrap();
    watch(&mut receive);
    let other = p.b.post_recv(7, vec![0; 8]).unwrap();
    leave_one(&p);
    drop(other);
    assert_eq!(receive.wait().unwrap().buf.as_slice(), b"two", "its waker has run, and it has its message");
}

#[test]
fn an_engine_that_ends_with_a_waker_that_panics_leaves_no_thread() {
    let before = threads();
    for closes in [false, true] {
        let engine = engine("uds", Progress::Thread { cpu: None });
        let endpoint = engine.endpoint("a").unwrap();
        let mut receive = endpoint.post_recv(1, vec![0; 8]).unwrap();
        watch(&mut receive);
        if closes {
            let close = || engine.close(std::time::Duration::ZERO);
            assert!(catch_unwind(AssertUnwindSafe(close)).is_err(), "the panic goes on to its owner");
        }
        drop(engine);
        assert!(receive.wait().is_err(), "the engine is closed");
        drop(endpoint);
        until("the thread is gone", || threads() == before);
    }
}

#[test]
fn a_look_that_first_runs_a_panicking_waker_loses_no_message() {
    let p = warm();
    let mut receive = p.b.post_recv(2, vec![0; 8]).unwrap();
    watch(&mut receive);
    let mut mine = p.b.post_recv(4, vec![0; 8]).unwrap();
    // It is over before anybody looks.
    p.to_b.send(4, b"mine").unwrap();
    until("it has come", || {
        p.there.progress();
        p.b.counters().messages_received > 200
    });
    leave_one(&p);
    let first = catch_unwind(AssertUnwindSafe(|| mine.try_wait()));
    let got = match first {
        Ok(got) => got,
        Err(_) => mine.try_wait(),
    };
    assert_eq!(got.expect("it is over").unwrap().buf.as_slice(), b"mine");
    assert_eq!(receive.wait().unwrap().buf.as_slice(), b"two");
}
