//! Promises about functions that are called when operations end, on each lane.

mod common;

use common::{PATIENCE, Pair, content, pair, pair_with, until};
use sinew::{Endpoint, Failed, Match, OpError, Peer, Progress, Received};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const THREAD: Progress = Progress::Thread { cpu: None };

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp", own = "self"; [
    each_send_calls_its_function_once_with_its_buffer,
    functions_are_called_in_the_order_in_which_operations_end,
    a_function_may_post_the_next_operation_for_ever,
    a_function_may_send_wait_and_drop_handles,
    what_ended_before_calls_its_function_at_once,
    cancelling_calls_the_function_and_gives_the_buffer_back,
    dropping_the_handle_changes_nothing,
    a_lost_peer_calls_every_function,
    a_panic_in_a_function_breaks_nothing_else,
    closing_endpoint_or_engine_calls_every_function,
    functions_are_called_by_the_thread_that_makes_progress,
] }

fn both_threads(lane: &str) -> Pair {
    pair_with(lane, THREAD, THREAD, common::options())
}

/// The next result that a function has put into a channel.
fn next<T>(results: &Receiver<T>) -> T {
    results.recv_timeout(PATIENCE).expect("a function is called")
}

/// A function that puts what it gets into a channel.
fn into<T: Send + 'static>(sender: &Sender<T>) -> impl FnOnce(T) + Send + 'static {
    let sender = sender.clone();
    move |result| {
        let _ = sender.send(result);
    }
}

fn each_send_calls_its_function_once_with_its_buffer(lane: &str) {
    let p = both_threads(lane);
    let (sender, results) = channel();
    let sizes = [0, 8, 40, 5000, 16_385, 200_000, 7];
    for (tag, len) in sizes.into_iter().enumerate() {
        let sender = sender.clone();
        p.to_b
            .post_send(tag as u64, content(len, tag as u64))
            .unwrap()
            .on_complete(move |result| sender.send((tag, result)).unwrap());
    }
    drop(sender);
    let mut buf = vec![0; 200_000];
    for (tag, len) in sizes.into_iter().enumerate() {
        assert_eq!(p.b.recv(tag as u64, &mut buf).unwrap().len, len);
        assert!(buf[..len] == content(len, tag as u64));
    }
    let mut seen: Vec<usize> = Vec::new();
    for _ in sizes {
        let (tag, result) = next(&results);
        assert!(result.expect("sent").as_slice() == content(sizes[tag], tag as u64), "its own buffer");
        seen.push(tag);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
    assert!(results.recv().is_err(), "each function was called once and is gone");
}

fn functions_are_called_in_the_order_in_which_operations_end(lane: &str) {
    let p = both_threads(lane);
    let (sender, results) = channel::<Result<Received, Failed>>();
    for tag in 0..500u64 {
        p.b.post_recv(tag, vec![0; 8]).unwrap().on_complete(into(&sender));
    }
    let order: Vec<u64> = (0..500).map(|at| at * 7 % 500).collect();
    for &tag in &order {
        p.to_b.send(tag, &tag.to_le_bytes()).unwrap();
    }
    for &tag in &order {
        let received = next(&results).expect("received");
        assert_eq!((received.info.tag, received.buf.as_slice()), (tag, &tag.to_le_bytes()[..]));
    }
}

/// Receives for ever: each function posts the next receive.
fn receive_on(endpoint: &Endpoint, buf: Vec<u8>, next: u64, last: u64, done: Sender<u64>) {
    let again = endpoint.clone();
    endpoint.post_recv(1, buf).unwrap().on_complete(move |result| {
        let received = result.expect("received");
        assert_eq!(received.info.immediate, Some(next));
        if next == last {
            done.send(next).unwrap();
            return;
        }
        receive_on(&again, vec![0; 8], next + 1, last, done);
    });
}

fn a_function_may_post_the_next_operation_for_ever(lane: &str) {
    let p = both_threads(lane);
    const COUNT: u64 = 10_000;
    for number in 0..COUNT {
        p.to_b.message(1).immediate(number).send(b"12345678").unwrap();
    }
    // All of them wait already, so that each receive ends at once: calls must not nest.
    let (done, results) = channel();
    receive_on(&p.b, vec![0; 8], 0, COUNT - 1, done);
    assert_eq!(next(&results), COUNT - 1);
}

/// Sends back what comes, from inside functions.
fn echo(endpoint: &Endpoint, back: Arc<Mutex<Option<Peer>>>, rounds: u64) {
    let again = endpoint.clone();
    endpoint.post_recv(1, vec![0; 8000]).unwrap().on_complete(move |result| {
        let Received { buf, info } = result.expect("a request");
        let peer = {
            let mut known = back.lock().unwrap();
            known.get_or_insert_with(|| again.reply_to(info.source).unwrap()).clone()
        };
        peer.send(2, buf.as_slice()).expect("a blocking send inside a function");
        peer.flush().expect("a wait inside a function");
        drop(peer);
        if rounds > 1 {
            echo(&again, back, rounds - 1);
        }
    });
}

fn a_function_may_send_wait_and_drop_handles(lane: &str) {
    let p = both_threads(lane);
    echo(&p.b, Arc::default(), 30);
    let mut buf = vec![0; 8000];
    for round in 0..30u64 {
        let data = content(if round % 5 == 0 { 8000 } else { 100 }, round);
        p.to_b.send(1, &data).unwrap();
        let got = p.a.recv(2, &mut buf).unwrap();
        assert!(buf[..got.len] == data[..]);
    }
}

fn what_ended_before_calls_its_function_at_once(lane: &str) {
    let p = both_threads(lane);
    let (sender, results) = channel();
    p.to_b.send(1, b"early").unwrap();
    until("it is there", || p.b.probe(1).is_some());
    p.b.post_recv(1, vec![0; 8]).unwrap().on_complete(into(&sender));
    assert_eq!(next(&results).expect("received").buf.as_slice(), b"early");
    let (sender, results) = channel();
    p.to_b.post_send(2, b"small".to_vec()).unwrap().on_complete(into(&sender));
    assert_eq!(next(&results).expect("sent").as_slice(), b"small");
}

fn cancelling_calls_the_function_and_gives_the_buffer_back(lane: &str) {
    let p = both_threads(lane);
    let (sender, results) = channel();
    let handle = p.b.post_recv(1, vec![0xee; 8]).unwrap().on_complete(into(&sender));
    handle.cancel();
    let failed = next(&results).expect_err("cancelled");
    assert!(matches!(failed.error, OpError::Cancelled), "{failed}");
    p.to_b.send(1, b"for other").unwrap();
    p.to_b.flush().unwrap();
    assert_eq!(failed.buf.as_slice(), [0xee; 8], "never written later");
    assert_eq!(p.b.recv(1, &mut [0; 9]).unwrap().len, 9);

    let (sender, results) = channel();
    let handle = p.to_b.post_send(2, content(300_000, 2)).unwrap().on_complete(into(&sender));
    handle.cancel();
    let failed = next(&results).expect_err("nobody had received it");
    assert!(matches!(failed.error, OpError::Cancelled), "{failed}");
    assert!(failed.buf.as_slice() == content(300_000, 2));

    // What has ended is not cancelled, and its function not called again.
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    let handle = p.b.post_recv(3, vec![0; 8]).unwrap().on_complete(move |result| {
        assert!(result.is_ok());
        count.fetch_add(1, Ordering::AcqRel);
    });
    p.to_b.send(3, b"three").unwrap();
    until("it is called", || calls.load(Ordering::Acquire) == 1);
    handle.cancel();
    assert_eq!(calls.load(Ordering::Acquire), 1);
}

fn dropping_the_handle_changes_nothing(lane: &str) {
    let p = both_threads(lane);
    let (sender, results) = channel();
    let receive = p.b.post_recv(1, vec![0; 100_000]).unwrap().on_complete(into(&sender));
    let (sent, outcomes) = channel();
    let send = p.to_b.post_send(1, content(100_000, 1)).unwrap().on_complete(into(&sent));
    drop((receive, send));
    assert!(next(&results).expect("received").buf.as_slice() == content(100_000, 1));
    assert_eq!(next(&outcomes).expect("sent").len(), 100_000);
}

fn a_lost_peer_calls_every_function(lane: &str) {
    let p = both_threads(lane);
    let (sender, results) = channel();
    for _ in 0..5 {
        p.to_b.post_send(1, vec![7; 200_000]).unwrap().on_complete(into(&sender));
    }
    let (receives, ends) = channel();
    let from_b = Match::tag(9).from(p.to_b.source());
    for _ in 0..5 {
        p.a.post_recv(from_b, vec![0; 8]).unwrap().on_complete(into(&receives));
    }
    assert!(p.here.lose(&p.to_b));
    for _ in 0..5 {
        let failed = next(&results).expect_err("lost");
        assert!(matches!(failed.error, OpError::PeerLost { .. }) && failed.buf.len() == 200_000, "{failed}");
        let failed = next(&ends).expect_err("lost");
        assert!(matches!(failed.error, OpError::PeerLost { .. }) && failed.buf.len() == 8, "{failed}");
    }
}

fn a_panic_in_a_function_breaks_nothing_else(lane: &str) {
    let p = both_threads(lane);
    let (sender, results) = channel();
    for tag in 0..10u64 {
        let receive = p.b.post_recv(tag, vec![0; 8]).unwrap();
        if tag % 2 == 0 {
            receive.on_complete(|_| panic!("a function that panics"));
        } else {
            receive.on_complete(into(&sender));
        }
    }
    for tag in 0..10u64 {
        p.to_b.send(tag, b"x").unwrap();
    }
    for tag in [1, 3, 5, 7, 9] {
        assert_eq!(next(&results).expect("received").info.tag, tag);
    }
    p.to_b.send(77, b"goes on").unwrap();
    assert_eq!(p.b.recv(77, &mut [0; 8]).unwrap().len, 7);
}

fn closing_endpoint_or_engine_calls_every_function(lane: &str) {
    let p = both_threads(lane);
    let (sender, results) = channel();
    let extra = p.there.endpoint("extra").unwrap();
    extra.post_recv(1, vec![0; 8]).unwrap().on_complete(into(&sender));
    drop(extra);
    assert!(matches!(next(&results).expect_err("closed").error, OpError::Cancelled));
    p.a.post_recv(1, vec![0; 8]).unwrap().on_complete(into(&sender));
    let (sends, outcomes) = channel();
    p.to_b.post_send(1, vec![0; 200_000]).unwrap().on_complete(into(&sends));
    p.here.close(Duration::from_millis(10)).unwrap();
    assert!(next(&results).is_err());
    assert_eq!(next(&outcomes).expect_err("never fetched").buf.len(), 200_000);
    let late = p.a.post_recv(1, vec![0; 8]);
    if let Ok(late) = late {
        late.on_complete(into(&sender));
        assert!(next(&results).is_err());
    }
}

fn functions_are_called_by_the_thread_that_makes_progress(lane: &str) {
    let p = pair(lane);
    let me = std::thread::current().id();
    let called = Arc::new(AtomicBool::new(false));
    let (sender, results) = channel();
    let flag = Arc::clone(&called);
    p.a.post_recv(1, vec![0; 8]).unwrap().on_complete(move |result| {
        assert!(result.is_ok());
        flag.store(true, Ordering::Release);
        sender.send(std::thread::current().id()).unwrap();
    });
    let to_a = way_back(&p);
    to_a.send(1, b"x").unwrap();
    until("progress is made here", || {
        p.here.progress();
        called.load(Ordering::Acquire)
    });
    // On the lane to oneself, one engine, the background thread may have been first.
    if lane != "self" {
        assert_eq!(next(&results), me);
    }
}

/// The way back, for an engine that only makes progress when it is called.
fn way_back(p: &Pair) -> Peer {
    p.to_b.send(0, b"hello").unwrap();
    let source = p.b.recv(0, &mut [0; 8]).unwrap().source;
    p.b.reply_to(source).unwrap()
}
