//! What cancel, drop and panic are for the forms whose functions the engine calls: handlers, and functions of `on_complete`.

use super::early::Stage;
use crate::common::{PATIENCE, until};
use crate::forms::{memory, on_purpose};
use crate::partner::pour;
use crate::world::{Cell, FLOW, LATE, load, number_of};
use sinew::{Buf, Failed, Handler, Match, OpError, Received};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

/// How a handler ends while messages stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By another thread.
    Unregister,
    /// From inside its own function.
    Drop,
    /// By a panic in its function; that message was shown.
    Panic,
}

/// Handlers end again and again in the middle of a stream, and receives take one message each in between: together they see
/// the stream without a gap, and no function is called after its end.
pub(crate) fn handlers_that_end(cell: Cell, end: End) {
    let stage = Stage::new(cell);
    let many = cell.size.many();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| pour(&stage.partner.to_a, cell.size, |sent| sent == many).unwrap());
        let mut number = 0;
        let mut buf = vec![0; stage.world.room()];
        while number < many {
            let wanted = (number % 3 + 1).min(many - number) as usize;
            let shown = one_handler(&stage, end, wanted);
            assert!(shown.iter().copied().eq(number..number + shown.len() as u64), "{shown:?} from {number}");
            number += shown.len() as u64;
            if number < many {
                let got = stage.world.a.recv_within(FLOW, &mut buf, PATIENCE).unwrap();
                assert_eq!(number_of(&buf[..got.len]), number, "left to the next receive");
                number += 1;
            }
        }
        assert_eq!(stage.recv_end(), many);
        assert_eq!(sender.join().unwrap(), many);
    });
    stage.finish();
}

/// Which messages one handler was shown before its end.
fn one_handler(stage: &Stage, end: End, wanted: usize) -> Vec<u64> {
    let shown: Arc<Mutex<Vec<u64>>> = Arc::default();
    let slot: Arc<Mutex<Option<Handler>>> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));
    let function = {
        let (shown, slot, over) = (Arc::clone(&shown), Arc::clone(&slot), Arc::clone(&over));
        move |bytes: &[u8], _: &sinew::Completion| {
            assert!(!over.load(Ordering::Acquire), "called after its end");
            let mut shown = shown.lock().unwrap();
            shown.push(number_of(bytes));
            if shown.len() < wanted {
                return;
            }
            drop(shown);
            match end {
                End::Unregister => {}
                End::Drop => drop(slot.try_lock().ok().and_then(|mut slot| slot.take())),
                End::Panic => on_purpose(),
            }
        }
    };
    let handler = stage.world.a.on_message(FLOW, stage.world.room(), 3, function).unwrap();
    *slot.lock().unwrap() = Some(handler);
    until("the handler was shown some", || shown.lock().unwrap().len() >= wanted);
    // Not under the lock, which its function may want.
    let left = slot.lock().unwrap().take();
    drop(left);
    if end != End::Drop {
        over.store(true, Ordering::Release);
    }
    let shown = shown.lock().unwrap();
    assert!(end != End::Panic || shown.len() == wanted, "shown another one after its panic");
    shown.clone()
}

/// Messages in the order in which functions are called.
fn posted(
    stage: &Stage,
    tag: u64,
    panics: impl Fn(u64) -> bool + Clone + Send + 'static,
    count: u64,
) -> Receiver<u64> {
    let (say, hear) = channel();
    for _ in 0..count {
        let pattern = Match::tag(tag).from(stage.partner.to_b.source());
        let op = stage.world.a.post_recv(pattern, memory(stage.world.room())).unwrap();
        let (say, panics) = (say.clone(), panics.clone());
        drop(op.on_complete(move |end: Result<Received, Failed>| {
            let got = end.expect("the message");
            let number = number_of(&got.buf[..got.info.len]);
            let _ = say.send(number);
            if panics(number) {
                on_purpose();
            }
        }));
    }
    hear
}

/// Each function is called once, in order; then all of them are gone.
fn called_in_order(hear: &Receiver<u64>, count: u64) {
    for number in 0..count {
        assert_eq!(hear.recv_timeout(PATIENCE), Ok(number));
    }
    assert!(hear.recv_timeout(PATIENCE).is_err(), "a function was called twice, or never went");
}

/// What a function of a send was told: the number in the buffer that came back.
type Sent = Result<u64, OpError>;

fn callbacks(cell: Cell, panics: impl Fn(u64) -> bool + Clone + Send + 'static) {
    let stage = Stage::new(cell);
    let many = cell.size.many();
    let hear = posted(&stage, LATE, panics.clone(), 1);
    stage.partner.post(cell.size, LATE, 0).wait_within(PATIENCE).unwrap();
    called_in_order(&hear, 1);
    let hear = posted(&stage, FLOW, panics.clone(), many);
    assert_eq!(pour(&stage.partner.to_a, cell.size, |sent| sent == many).unwrap(), many);
    called_in_order(&hear, many);
    assert_eq!(stage.recv_end(), many);
    let send = |to: &sinew::Peer, number: u64| {
        let (say, hear) = channel();
        let panics = panics.clone();
        let op = to.post_send(FLOW, load(to, cell.size, number)).unwrap();
        drop(op.on_complete(move |end: Result<Buf, Failed>| {
            let _ = say.send(end.map_err(|failed| failed.error).map(|buf| number_of(&buf)));
            if panics(number) {
                on_purpose();
            }
        }));
        hear
    };
    let calls: Mutex<Vec<(u64, Receiver<Sent>)>> = Mutex::default();
    let keep = |number, hear| calls.lock().unwrap().push((number, hear));
    stage.sends_that_wait(|number| {
        keep(number, send(&stage.partner.to_idle, number));
        false
    });
    stage.sends_of_a_stream(|number, _| {
        keep(number, send(&stage.partner.to_b, number));
        true
    });
    for (number, hear) in calls.into_inner().unwrap() {
        assert_eq!(hear.recv_timeout(PATIENCE).expect("it is called").expect("it went"), number);
        assert!(hear.recv_timeout(PATIENCE).is_err(), "called twice");
    }
    stage.finish();
}

/// Dropping the handle of an operation with a function changes nothing.
pub(crate) fn callbacks_without_a_handle(cell: Cell) {
    callbacks(cell, |_| false);
}

/// A function that panics takes no other along.
pub(crate) fn callbacks_that_panic(cell: Cell) {
    callbacks(cell, |number| number % 3 != 1);
}
