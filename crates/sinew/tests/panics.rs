//! A panic in a waker of the application goes to whoever runs it, and takes nothing of others with it: no handler, no message, no
//! thread of the engine.

mod common;

use common::{PATIENCE, Pair, engine, options, pair_with, threads, until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sinew::{Engine, EngineOptions, Match, Progress, RecvOp};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

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

/// A waker that panics when the operation ends.
fn watch(operation: &mut (impl Future + Unpin)) {
    let breaks = Arc::new(Breaks::default());
    let waker = Waker::from(Arc::clone(&breaks));
    assert!(Pin::new(operation).poll(&mut Context::from_waker(&waker)).is_pending());
    breaks.0.store(true, Ordering::SeqCst);
}

/// Both engines by this thread, which has had each often enough for the short way.
fn warm() -> Pair {
    warm_with(options())
}

fn warm_with(options: EngineOptions) -> Pair {
    let p = pair_with("shm", Progress::Caller, Progress::Caller, options);
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

/// Panics when it is dropped.
struct Captured;

impl Drop for Captured {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("in a drop"));
    }
}

#[test]
fn handlers_are_called_although_one_that_dropped_itself_panics_with_what_it_captured() {
    let p = pair_with("uds", Progress::Caller, Progress::Caller, options());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let itself = Arc::new(Mutex::new(None));
    let (first, own, captured) = (Arc::clone(&heard), Arc::clone(&itself), Captured);
    let handler = p.b.on_message(1, 16, 2, move |_, _| {
        let _ = &captured;
        first.lock().unwrap().push(1);
        let own: Option<sinew::Handler> = own.lock().unwrap().take();
        drop(own);
    });
    *itself.lock().unwrap() = Some(handler.unwrap());
    let others: Vec<_> = [2, 3, 4]
        .map(|tag| {
            let to = Arc::clone(&heard);
            p.b.on_message(tag, 16, 2, move |_, _| to.lock().unwrap().push(tag)).unwrap()
        })
        .into();
    for tag in [4, 2, 1, 3] {
        p.to_b.stage(tag, b"x").unwrap();
    }
    p.here.progress();
    let mut broken = 0;
    until("all were called", || {
        let turn = catch_unwind(AssertUnwindSafe(|| p.there.progress()));
        broken += u32::from(turn.is_err());
        heard.lock().unwrap().len() == 4
    });
    assert_eq!(broken, 1, "whoever calls hears of it");
    drop(others);
}

/// Makes progress of an engine whenever it is woken, as a runtime of one's own may.
struct Drives(Engine, AtomicUsize);

impl Wake for Drives {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.progress();
    }
}

#[test]
fn what_a_handler_leaves_wakes_who_makes_progress_of_another_engine_and_its_handlers_are_called() {
    let p = pair_with("uds", Progress::Caller, Progress::Event, options());
    let other = pair_with("uds", Progress::Caller, Progress::Event, options());
    let called = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&called);
    let _counting = other.b.on_message(1, 16, 2, move |_, _| {
        counts.fetch_add(1, Ordering::SeqCst);
    });
    other.to_b.send(1, b"x").unwrap();
    let breaks = |_: &[u8], _: &sinew::Completion| std::panic::resume_unwind(Box::new("in a handler"));
    let _breaking = p.b.on_message(1, 16, 2, breaks).unwrap();
    // Behind the handler's: it gets the second message when the handler has ended by the first.
    let mut next = p.b.post_recv(1, vec![0; 16]).unwrap();
    let drives = Arc::new(Drives(other.there.clone(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&drives));
    assert!(Pin::new(&mut next).poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!((drives.1.load(Ordering::SeqCst), called.load(Ordering::SeqCst)), (0, 0));
    p.to_b.stage(1, b"one").unwrap();
    p.to_b.stage(1, b"two").unwrap();
    p.here.progress();
    until("the second message was given on", || {
        p.there.progress();
        drives.1.load(Ordering::SeqCst) > 0
    });
    assert_eq!(next.try_wait().unwrap().unwrap().buf.as_slice(), b"two");
    until("the other engine's handler was called", || {
        other.there.progress();
        called.load(Ordering::SeqCst) == 1
    });
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
            let close = || engine.close(Duration::ZERO);
            assert!(catch_unwind(AssertUnwindSafe(close)).is_err(), "the panic goes on to its owner");
        }
        drop(engine);
        assert!(receive.wait().is_err(), "the engine is closed");
        drop(endpoint);
        until("the thread is gone", || threads() == before);
    }
}

/// What a call answers, or, when a waker of others has panicked in it, what it answers when it is asked again.
fn at_last<T>(mut call: impl FnMut() -> T) -> T {
    catch_unwind(AssertUnwindSafe(&mut call)).unwrap_or_else(|_| call())
}

/// How a message comes whose receive has a waker that panics: left of a frame, and given out as soon as the engine is called; on its
/// way, and found by the next turn of progress.
#[derive(Clone, Copy)]
enum Comes {
    Left,
    OnItsWay,
}

const BOTH: [Comes; 2] = [Comes::Left, Comes::OnItsWay];

/// A receive whose waker panics as soon as its message is given to it, which comes after `meanwhile`.
fn armed(p: &Pair, comes: Comes, meanwhile: impl FnOnce()) -> RecvOp {
    let mut receive = p.b.post_recv(2, vec![0; 8]).unwrap();
    watch(&mut receive);
    meanwhile();
    match comes {
        Comes::Left => leave_one(p),
        Comes::OnItsWay => p.to_b.send(2, b"two").unwrap(),
    }
    receive
}

/// The same whose message shares its frame with one that another receive waits for.
fn both_in_one_frame(p: &Pair) -> RecvOp {
    let mut receive = p.b.post_recv(2, vec![0; 8]).unwrap();
    watch(&mut receive);
    p.to_b.stage(2, b"two").unwrap();
    p.to_b.stage(4, b"mine").unwrap();
    p.here.progress();
    receive
}

/// That receive has its message. If this is the first to look, the waker is run here.
fn has_two(p: &Pair, mut receive: RecvOp) {
    until("it has come", || {
        let _ = broken(p);
        p.b.counters().posted == 0
    });
    assert_eq!(at_last(|| receive.try_wait()).expect("it has come").unwrap().buf.as_slice(), b"two");
}

/// A message that waits for a receive.
fn waits(p: &Pair) {
    p.to_b.send(4, b"mine").unwrap();
    until("it waits", || p.b.probe(4).is_some());
}

/// A message that has come for a receive, of which nobody has heard yet.
fn has_come(p: &Pair) {
    let before = p.b.counters().messages_received;
    p.to_b.send(4, b"mine").unwrap();
    until("it has come", || {
        p.there.progress();
        p.b.counters().messages_received > before
    });
}

#[test]
fn a_cancel_that_first_runs_a_panicking_waker_loses_no_message() {
    for comes in BOTH {
        let p = warm();
        let mine = p.b.post_recv(4, vec![0; 8]).unwrap();
        let receive = armed(&p, comes, || has_come(&p));
        match catch_unwind(AssertUnwindSafe(|| mine.cancel())) {
            Ok(got) => assert_eq!(got.expect("it had come").buf.as_slice(), b"mine"),
            Err(_) => assert_eq!(p.b.try_recv(4, &mut [0; 8]).expect("it waits for another").len, 4),
        }
        has_two(&p, receive);
    }
}

#[test]
fn a_look_that_first_runs_a_panicking_waker_loses_no_message() {
    for comes in BOTH {
        let p = warm();
        let mut mine = p.b.post_recv(4, vec![0; 8]).unwrap();
        let receive = armed(&p, comes, || has_come(&p));
        assert_eq!(at_last(|| mine.try_wait()).expect("it is over").unwrap().buf.as_slice(), b"mine");
        has_two(&p, receive);
    }
}

#[test]
fn a_try_that_first_runs_a_panicking_waker_loses_no_message() {
    for comes in BOTH {
        let p = warm();
        let receive = armed(&p, comes, || waits(&p));
        let mut buf = [0; 8];
        assert_eq!(at_last(|| p.b.try_recv(4, &mut buf)).expect("it is there").len, 4);
        assert_eq!(&buf[..4], b"mine");
        has_two(&p, receive);
    }
}

/// Two messages of one frame, of which the first wakes the future that panics, and the second is for the call that looks.
#[test]
fn a_receive_whose_message_comes_with_that_of_a_panicking_waker_loses_no_message() {
    let p = warm();
    p.to_b.send(9, b"who I am").unwrap();
    let source = p.b.recv(9, &mut [0; 8]).unwrap().source;
    let receive = both_in_one_frame(&p);
    let mut buf = [0; 8];
    // One that names its source takes whole turns of progress.
    let pattern = Match::tag(4).from(source);
    assert_eq!(
        at_last(|| p.b.recv_within(pattern, &mut buf, Duration::from_secs(1))).expect("it came").len,
        4
    );
    assert_eq!(&buf[..4], b"mine");
    has_two(&p, receive);
}

/// Nothing of a receive that has begun to wait is left in the engine: its memory is its caller's again.
#[test]
fn a_receive_that_a_waker_breaks_while_it_waits_leaves_no_borrow_behind() {
    let p = warm();
    let mut receive = p.b.post_recv(2, vec![0; 8]).unwrap();
    watch(&mut receive);
    let mut canary = [0xaa; 8];
    let broken = std::thread::scope(|scope| {
        scope.spawn(|| {
            until("it waits", || p.b.counters().posted == 2);
            p.to_b.send(2, b"two").unwrap();
        });
        catch_unwind(AssertUnwindSafe(|| p.b.recv_within(4, &mut canary, PATIENCE)))
    });
    assert!(broken.is_err(), "the panic goes on");
    waits(&p);
    assert_eq!(canary, [0xaa; 8], "written after the call had ended");
    assert_eq!(p.b.try_recv(4, &mut [0; 8]).expect("it waits for another").len, 4);
    has_two(&p, receive);
}

fn scoped_receive_that_a_waker_breaks_loses_no_message(start: impl Fn(&Pair) -> RecvOp) {
    let p = warm();
    let mut receive = None;
    let mut buf = [0; 8];
    let broken = catch_unwind(AssertUnwindSafe(|| {
        p.b.scope(|scope| {
            let mine = scope.recv(4, &mut buf).unwrap();
            receive = Some(start(&p));
            let (got, bytes) = mine.wait_within(Duration::ZERO);
            assert_eq!(got.expect("it has come").len, 4);
            assert_eq!(&bytes[..4], b"mine");
        });
    }));
    if broken.is_err() {
        assert_eq!(p.b.recv(4, &mut [0; 8]).expect("it waits for another").len, 4);
    }
    has_two(&p, receive.expect("posted"));
}

#[test]
fn a_scoped_receive_that_a_waker_breaks_at_its_deadline_loses_no_message() {
    for comes in BOTH {
        scoped_receive_that_a_waker_breaks_loses_no_message(|p| armed(p, comes, || has_come(p)));
    }
}

#[test]
fn a_wait_whose_message_comes_with_that_of_a_panicking_waker_loses_no_message() {
    scoped_receive_that_a_waker_breaks_loses_no_message(both_in_one_frame);
}

/// Nothing of a scope is left in the engine, though what its end calls first runs a waker that panics.
#[test]
fn a_scope_that_panics_while_a_waker_is_about_to_leaves_no_borrow_behind() {
    for panics in [true, false] {
        let p = warm();
        let mut receive = p.b.post_recv(2, vec![0; 8]).unwrap();
        watch(&mut receive);
        let mut canary = [0xaa; 8];
        let broken = catch_unwind(AssertUnwindSafe(|| {
            p.b.scope(|scope| {
                let _ = scope.recv(4, &mut canary).unwrap();
                leave_one(&p);
                if panics {
                    std::panic::resume_unwind(Box::new("in the scope"));
                }
            });
        }));
        assert!(broken.is_err(), "the panic goes on");
        assert_eq!(p.b.counters().posted, 0, "a receive of the scope is left");
        waits(&p);
        assert_eq!(canary, [0xaa; 8], "written after the scope had ended");
        assert_eq!(p.b.try_recv(4, &mut [0; 8]).expect("it waits for another").len, 4);
        has_two(&p, receive);
    }
}

#[test]
fn a_message_on_loan_goes_back_although_a_waker_panicked_before_it_was_shown() {
    const LEN: usize = 1 << 20;
    for comes in BOTH {
        let p = warm();
        let mut sent = p.to_b.post_send(4, p.to_b.alloc(LEN).unwrap()).unwrap();
        p.here.progress();
        let receive = armed(&p, comes, || until("it waits", || p.b.probe(4).is_some()));
        let message = at_last(|| p.b.recv_message_within(4, LEN, Duration::ZERO)).expect("it is there");
        assert_eq!(message.len(), LEN);
        drop(message);
        until("the sender has its memory again", || {
            p.there.progress();
            sent.try_wait().is_some_and(|done| done.is_ok())
        });
        has_two(&p, receive);
    }
}

/// On its lane there is the word before it that ends a send of which a waker waits: the same look finds both.
#[test]
fn a_message_on_loan_goes_back_although_a_waker_panicked_in_the_look_that_finds_it() {
    const LEN: usize = 1 << 20;
    let p = warm();
    p.to_b.send(9, b"who I am").unwrap();
    let to_a = p.b.reply_to(p.b.recv(9, &mut [0; 8]).unwrap().source).unwrap();
    let mut first = to_a.post_send(5, to_a.alloc(LEN).unwrap()).unwrap();
    watch(&mut first);
    p.there.progress();
    drop(p.a.recv_message(5, LEN).unwrap());
    let mut sent = p.to_b.post_send(4, p.to_b.alloc(LEN).unwrap()).unwrap();
    p.here.progress();
    let look = || p.b.recv_message(4, LEN);
    assert!(catch_unwind(AssertUnwindSafe(look)).is_err(), "the panic goes on to its owner");
    let message = look().expect("it is there");
    assert!(message.is_lent());
    drop(message);
    until("the sender has its memory again", || {
        p.here.progress();
        sent.try_wait().is_some_and(|done| done.is_ok())
    });
    assert!(first.try_wait().expect("it had ended").is_ok());
}

#[test]
fn a_measured_receive_loses_no_message_to_a_waker_that_panics_behind_it() {
    let p = warm_with(options().histograms(true));
    let mut receive = p.b.post_recv(2, vec![0; 8]).unwrap();
    watch(&mut receive);
    p.to_b.stage(3, b"three").unwrap();
    p.to_b.stage(2, b"two").unwrap();
    p.here.progress();
    assert_eq!(p.b.recv(3, &mut [0; 8]).expect("it has come").len, 5);
    has_two(&p, receive);
}

#[test]
fn a_function_is_called_although_a_waker_panicked_when_it_was_given() {
    let p = warm();
    let mine = p.b.post_recv(4, vec![0; 8]).unwrap();
    let receive = armed(&p, Comes::Left, || ());
    let got = Arc::new(Mutex::new(None));
    let to = Arc::clone(&got);
    let given =
        catch_unwind(AssertUnwindSafe(|| mine.on_complete(move |result| *to.lock().unwrap() = Some(result))));
    assert!(given.is_err(), "the panic goes on to its owner");
    p.to_b.send(4, b"mine").unwrap();
    until("it is called", || {
        p.there.progress();
        got.lock().unwrap().is_some()
    });
    let got = got.lock().unwrap().take().expect("called");
    assert_eq!(got.unwrap().buf.as_slice(), b"mine");
    has_two(&p, receive);
}

/// The sleep ends with the panic: the descriptor says something only when there is something.
#[test]
fn an_event_loop_that_a_waker_breaks_as_it_wakes_can_sleep_again() {
    let p = pair_with("shm", Progress::Caller, Progress::Event, options());
    for _ in 0..200 {
        p.to_b.send(9, b"warm").unwrap();
        p.b.recv(9, &mut [0; 8]).unwrap();
    }
    let mut receive = p.b.post_recv(2, vec![0; 8]).unwrap();
    watch(&mut receive);
    let armed = loop {
        p.here.progress();
        p.there.process();
        if let Some(armed) = p.there.arm() {
            break armed;
        }
    };
    leave_one(&p);
    assert!(catch_unwind(AssertUnwindSafe(|| armed.process())).is_err(), "the panic goes on");
    until("it sleeps", || {
        p.here.progress();
        p.there.process();
        let Some(armed) = p.there.arm() else { return false };
        let mut watched = [PollFd::from_borrowed_fd(p.there.event_fd(), PollFlags::IN)];
        let readable = poll(&mut watched, Some(&Timespec::default())).expect("a descriptor");
        armed.process();
        readable == 0
    });
    assert_eq!(receive.try_wait().expect("it has come").unwrap().buf.as_slice(), b"two");
}

#[test]
fn a_function_is_called_although_a_waker_panicked_when_its_operation_was_cancelled() {
    let p = warm();
    let called = Arc::new(AtomicBool::new(false));
    let call = Arc::clone(&called);
    let mine = p.b.post_recv(4, vec![0; 8]).unwrap().on_complete(move |result| {
        assert!(result.is_err(), "it was cancelled");
        call.store(true, Ordering::SeqCst);
    });
    let receive = armed(&p, Comes::Left, || ());
    assert!(catch_unwind(AssertUnwindSafe(|| mine.cancel())).is_err(), "the panic goes on");
    assert!(called.load(Ordering::SeqCst), "cancelled all the same");
    has_two(&p, receive);
}
