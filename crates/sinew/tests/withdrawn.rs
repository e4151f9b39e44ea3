//! A message that its sender takes back while it is fetched was never sent: its receive, whatever its form, waits on in its old
//! place and takes the next message that matches.

mod common;

use common::{PATIENCE, Pair, content, options, pair_by_hand_without_pushes, pair_with, until};
use sinew::{Buf, Match, OpError, Progress, Receive, RecvOp, SendOp};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// Long enough that no lane moves it in a few turns.
const LONG: usize = 24 << 20;
const TAG: u64 = 5;

on_lanes! { own = "self"; [
    a_posted_receive_waits_on_in_its_old_place,
    a_receive_from_one_source_waits_on,
    a_future_waits_on,
    a_receive_of_a_scope_waits_on,
    a_probed_message_that_is_taken_back_is_waited_past,
] }

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    a_posted_receive_waits_on_in_its_old_place,
    a_posted_receive_takes_what_came_meanwhile,
    a_receive_from_one_source_waits_on,
    the_next_message_may_be_long_too,
    a_message_pulled_half_leaves_the_next_one_whole,
    a_blocking_receive_waits_on,
    a_future_waits_on,
    a_receive_of_a_scope_waits_on,
    a_handler_is_shown_the_others_in_order,
    a_batch_waits_on,
    a_batch_that_has_begun_to_poll_keeps_its_order,
    a_try_finds_nothing,
    a_probed_message_that_is_taken_back_is_waited_past,
    a_receive_without_memory_waits_on,
    a_function_is_called_with_the_next_message,
    a_send_that_times_out_or_leaves_its_scope_was_never_sent,
] }

/// Both engines by hand, so that each step is where the test wants it.
fn by_hand(lane: &str) -> Pair {
    pair_with(lane, Progress::Event, Progress::Event, options())
}

fn turn(p: &Pair) {
    p.here.process();
    p.there.process();
}

fn ended(p: &Pair, recv: &mut RecvOp) -> (Option<u64>, Buf) {
    let mut result = None;
    until("the receive ends", || {
        turn(p);
        result = result.take().or_else(|| recv.try_wait());
        result.is_some()
    });
    let got = result.expect("it has ended").expect("a message");
    (got.info.immediate, got.buf)
}

/// A long message that has reached its receiver, whose receive has begun to fetch it, if there is one. Its sender has not
/// heard of that yet: what a lane has been given would arrive in spite of a cancel.
fn begin(p: &Pair, buf: impl Into<Buf>) -> SendOp {
    settle(p);
    let before = p.b.counters().messages_received;
    let send = p.to_b.post_send(TAG, buf).unwrap();
    p.here.progress();
    until("the message is announced", || {
        p.there.progress();
        p.b.counters().messages_received > before
    });
    send
}

fn take_back(send: SendOp) {
    let failed = send.cancel().expect_err("nobody had it yet");
    assert!(matches!(failed.error, OpError::Cancelled), "{failed}");
}

fn send(p: &Pair, number: u64) {
    drop(p.to_b.message(TAG).immediate(number).post(number.to_le_bytes().to_vec()).unwrap());
}

/// The receiver has all that was sent, and the lane has room again.
fn settle(p: &Pair) {
    drop(p.to_b.message(0).untagged().post(vec![]).unwrap());
    until("all that was sent has come", || {
        turn(p);
        p.b.try_recv(Match::untagged(), &mut []).is_ok()
    });
    for _ in 0..20 {
        turn(p);
    }
}

fn a_posted_receive_waits_on_in_its_old_place(lane: &str) {
    let p = by_hand(lane);
    let mut receives: Vec<RecvOp> =
        (0..100).map(|at| p.b.post_recv(TAG, vec![0; if at == 0 { LONG } else { 8 }]).unwrap()).collect();
    for _ in 0..3 {
        let withdrawn = begin(&p, vec![1; LONG]);
        take_back(withdrawn);
        settle(&p);
        assert!(receives[0].try_wait().is_none());
    }
    for number in 0..100 {
        send(&p, number);
        settle(&p);
    }
    for (number, recv) in receives.iter_mut().enumerate() {
        let (immediate, buf) = ended(&p, recv);
        assert_eq!((immediate, &*buf), (Some(number as u64), &(number as u64).to_le_bytes()[..]));
    }
    until("nothing is left", || {
        turn(&p);
        p.here.counters().operations + p.there.counters().operations == 0
    });
}

fn a_posted_receive_takes_what_came_meanwhile(lane: &str) {
    let p = by_hand(lane);
    let mut first = p.b.post_recv(TAG, vec![0; LONG]).unwrap();
    let mut other = p.b.post_recv(Match::tag(9), vec![0; 64]).unwrap();
    let withdrawn = begin(&p, vec![1; LONG]);
    let mut second = p.b.post_recv(TAG, vec![0; 64]).unwrap();
    // The second takes its message before the first has lost its own; the third finds no receive yet.
    p.to_b.message(TAG).immediate(2).try_send(b"second").unwrap();
    p.to_b.message(TAG).immediate(3).try_send(b"third").unwrap();
    for _ in 0..20 {
        p.there.progress();
    }
    take_back(withdrawn);
    assert_eq!(ended(&p, &mut second).0, Some(2));
    assert_eq!(ended(&p, &mut first).0, Some(3));
    assert!(other.try_wait().is_none());
}

fn a_receive_from_one_source_waits_on(lane: &str) {
    let p = by_hand(lane);
    send(&p, 0);
    let mut buf = [0; 8];
    until("it has come", || {
        turn(&p);
        p.b.probe(TAG).is_some()
    });
    let source = p.b.try_recv(TAG, &mut buf).unwrap().source;
    let mut here = p.b.post_recv(Match::tag(TAG).from(source), vec![0; LONG]).unwrap();
    let mut any = p.b.post_recv(Match::any_tag(), vec![0; 64]).unwrap();
    let withdrawn = begin(&p, vec![1; LONG]);
    take_back(withdrawn);
    send(&p, 1);
    send(&p, 2);
    assert_eq!(ended(&p, &mut here).0, Some(1));
    assert_eq!(ended(&p, &mut any).0, Some(2));
}

fn the_next_message_may_be_long_too(lane: &str) {
    let p = by_hand(lane);
    let mut recv = p.b.post_recv(TAG, vec![0; LONG]).unwrap();
    for turns in [1, 2, 3, 6] {
        let withdrawn = p.to_b.post_send(TAG, vec![1; LONG]).unwrap();
        for _ in 0..turns {
            p.here.progress();
            p.there.progress();
        }
        drop(withdrawn.cancel());
        // Lanes may have been given all of it.
        settle(&p);
        if let Some(got) = recv.try_wait() {
            assert!(got.unwrap().buf.iter().all(|&byte| byte == 1));
            recv = p.b.post_recv(TAG, vec![0; LONG]).unwrap();
        }
    }
    let data = content(LONG / 3, 3);
    let send = p.to_b.message(TAG).immediate(3).post(data.clone()).unwrap();
    let (immediate, buf) = ended(&p, &mut recv);
    assert_eq!(immediate, Some(3));
    assert!(*buf == *data);
    drop(send);
}

/// The lane that is pulling hands up the word of the sender and the next message in one go.
fn a_message_pulled_half_leaves_the_next_one_whole(lane: &str) {
    let p = by_hand(lane);
    for turns in 0..6 {
        for next in [8, 40, 4000, 60_000] {
            let mut lent = p.to_b.alloc(LONG).unwrap();
            lent.as_mut_slice().unwrap().fill(1);
            let mut recv = p.b.post_recv(TAG, vec![0; LONG]).unwrap();
            let withdrawn = begin(&p, lent);
            for _ in 0..turns {
                p.there.progress();
            }
            take_back(withdrawn);
            let data = content(next, next as u64);
            let sent = p.to_b.message(TAG).immediate(7).post(data.clone()).unwrap();
            let (immediate, buf) = ended(&p, &mut recv);
            assert_eq!(immediate, Some(7));
            assert!(*buf == *data, "{next} bytes after {turns} turns");
            drop(sent);
        }
    }
}

/// Runs `receive` on another thread while a message for it is announced and taken back, and others follow.
fn while_taken_back<T: Send>(p: &Pair, count: u64, receive: impl FnOnce() -> T + Send) -> T {
    settle(p);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(receive);
        let before = p.b.counters().messages_received;
        let withdrawn = p.to_b.post_send(TAG, vec![1; LONG]).unwrap();
        p.here.progress();
        until("the message is announced", || p.b.counters().messages_received > before);
        take_back(withdrawn);
        for number in 1..=count {
            send(p, number);
        }
        until("the receive ends", || {
            p.here.process();
            receiver.is_finished()
        });
        receiver.join().unwrap()
    })
}

fn a_blocking_receive_waits_on(lane: &str) {
    let p = pair_with(lane, Progress::Event, Progress::Caller, options());
    for _ in 0..20 {
        let mut buf = vec![0; LONG];
        let got = while_taken_back(&p, 1, || p.b.recv_within(TAG, &mut buf, PATIENCE)).unwrap();
        assert_eq!((got.immediate, got.len), (Some(1), 8));
    }
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

fn a_future_waits_on(lane: &str) {
    let p = by_hand(lane);
    let woken = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut recv = pin!(p.b.post_recv(TAG, vec![0; LONG]).unwrap());
    assert!(recv.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    take_back(begin(&p, vec![1; LONG]));
    settle(&p);
    assert_eq!(woken.0.load(Ordering::Acquire), 0, "nothing has ended");
    assert!(recv.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    send(&p, 4);
    until("the task is woken", || {
        turn(&p);
        woken.0.load(Ordering::Acquire) > 0
    });
    let Poll::Ready(Ok(got)) = recv.as_mut().poll(&mut Context::from_waker(&waker)) else {
        panic!("the message is there")
    };
    assert_eq!((got.info.immediate, got.buf.len()), (Some(4), 8));
}

fn a_receive_of_a_scope_waits_on(lane: &str) {
    let p = by_hand(lane);
    let mut bufs = [vec![0; LONG], vec![0; 64]];
    let [first, second] = &mut bufs;
    p.b.scope(|scope| {
        let first = scope.recv(TAG, first).unwrap();
        let second = scope.recv(TAG, second).unwrap();
        take_back(begin(&p, vec![1; LONG]));
        settle(&p);
        send(&p, 1);
        send(&p, 2);
        settle(&p);
        assert_eq!(first.wait().0.unwrap().immediate, Some(1));
        assert_eq!(second.wait().0.unwrap().immediate, Some(2));
    });
    assert_eq!(bufs[0][..8], 1u64.to_le_bytes());
}

fn a_handler_is_shown_the_others_in_order(lane: &str) {
    // A long one must wait with its sender until it is taken back.
    let p = pair_by_hand_without_pushes(lane);
    for depth in [1, 2, 3, 8] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&seen);
        let handler =
            p.b.on_message(TAG, 1 << 20, depth, move |_, info| shown.lock().unwrap().push(info.immediate))
                .unwrap();
        let shown = || seen.lock().unwrap().len();
        // All that goes before the sender looks at anything.
        let mut withdrawn = Vec::new();
        send(&p, 0);
        for number in 1..6 {
            withdrawn.push(p.to_b.post_send(TAG, vec![1; 1 << 20]).unwrap());
            send(&p, number);
        }
        p.here.progress();
        for _ in 0..20 {
            p.there.progress();
        }
        // Taken back in another order than they were sent in.
        for at in [3, 0, 2, 1, 0] {
            take_back(withdrawn.remove(at));
        }
        send(&p, 6);
        until("the handler has seen all", || {
            turn(&p);
            shown() == 7
        });
        assert_eq!(*seen.lock().unwrap(), (0..7).map(Some).collect::<Vec<_>>());
        handler.unregister();
    }
}

fn a_batch_waits_on(lane: &str) {
    let p = pair_with(lane, Progress::Event, Progress::Caller, options());
    for all in [false, true] {
        let mut bufs = [vec![0; LONG], vec![0; 8], vec![0; 8]];
        let mut receives: Vec<Receive<'_>> = bufs.iter_mut().map(|buf| Receive::new(TAG, buf)).collect();
        let count = if all { 3 } else { 1 };
        let ended = while_taken_back(&p, count, || match all {
            true => p.b.recv_all_within(&mut receives, PATIENCE),
            false => p.b.recv_batch_within(&mut receives, PATIENCE),
        });
        assert_eq!(ended.unwrap() as u64, count);
        for (number, receive) in (1..=count).zip(&receives) {
            assert_eq!(receive.completion().unwrap().immediate, Some(number));
        }
    }
}

/// The third receive of the batch loses its message while those before it are still open: they come first all the same.
fn a_batch_that_has_begun_to_poll_keeps_its_order(lane: &str) {
    let p = pair_with(lane, Progress::Event, Progress::Caller, options());
    for round in 0..10 {
        settle(&p);
        let mut bufs = [8, 8, LONG, 8].map(|len| vec![0; len]);
        let patterns = [Match::tag(1), Match::tag(2), Match::any_tag(), Match::any_tag()];
        let mut receives: Vec<Receive<'_>> =
            bufs.iter_mut().zip(patterns).map(|(buf, pattern)| Receive::new(pattern, buf)).collect();
        std::thread::scope(|scope| {
            // Half the rounds find the message there, the others poll for it.
            let before = p.b.counters().messages_received;
            let announce = || {
                let withdrawn = p.to_b.post_send(TAG, vec![1; LONG]).unwrap();
                p.here.progress();
                withdrawn
            };
            let early = (round % 2 == 0).then(announce);
            let receiver = scope.spawn(|| p.b.recv_all_within(&mut receives, PATIENCE));
            let withdrawn = early.unwrap_or_else(announce);
            until("the message is announced", || p.b.counters().messages_received > before);
            take_back(withdrawn);
            for tag in [2, 3, 1, 4] {
                drop(p.to_b.post_send(tag, vec![0; 8]).unwrap());
            }
            until("the batch ends", || {
                p.here.process();
                receiver.is_finished()
            });
            assert_eq!(receiver.join().unwrap().unwrap(), 4);
        });
        let got: Vec<u64> = receives.iter().map(|receive| receive.completion().unwrap().tag).collect();
        assert_eq!(got, [1, 2, 3, 4]);
    }
}

fn a_try_finds_nothing(lane: &str) {
    let p = pair_with(lane, Progress::Event, Progress::Caller, options());
    for batch in [false, true] {
        settle(&p);
        let before = p.b.counters().messages_received;
        let withdrawn = p.to_b.post_send(TAG, vec![1; LONG]).unwrap();
        p.here.progress();
        until("the message waits", || {
            p.there.progress();
            p.b.counters().messages_received > before
        });
        let mut buf = vec![0; LONG];
        let result = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| match batch {
                true => p.b.try_recv_batch(&mut [Receive::new(TAG, &mut buf)]).map(|_| ()),
                false => p.b.try_recv(TAG, &mut buf).map(|_| ()),
            });
            until("the message is taken", || p.b.counters().unexpected == 0);
            let taken_back = withdrawn.cancel();
            until("the try ends", || {
                p.here.process();
                receiver.is_finished()
            });
            assert!(taken_back.is_err());
            receiver.join().unwrap()
        });
        assert!(matches!(result, Err(OpError::WouldBlock)), "{result:?}");
        assert_eq!(p.there.counters().operations, 0);
    }
}

fn a_probed_message_that_is_taken_back_is_waited_past(lane: &str) {
    let p = by_hand(lane);
    let withdrawn = begin(&p, vec![1; LONG]);
    assert_eq!(p.b.probe(TAG).expect("it waits").len, LONG);
    let mut recv = p.b.post_recv(TAG, vec![0; LONG]).unwrap();
    take_back(withdrawn);
    settle(&p);
    assert!(recv.try_wait().is_none() && p.b.probe(TAG).is_none());
    send(&p, 1);
    assert_eq!(ended(&p, &mut recv).0, Some(1));
}

fn a_receive_without_memory_waits_on(lane: &str) {
    let p = pair_with(lane, Progress::Event, Progress::Caller, options());
    let data = content(5000, 1);
    for _ in 0..5 {
        let message = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| p.b.recv_message_within(TAG, 6000, PATIENCE));
            let before = p.b.counters().messages_received;
            // The next message is longer than the one that is taken back.
            let withdrawn = p.to_b.post_send(TAG, p.to_b.alloc(4096).unwrap()).unwrap();
            let moved = || {
                p.here.progress();
                p.b.counters().messages_received > before || receiver.is_finished()
            };
            until("the message is announced", moved);
            let taken_back = withdrawn.cancel().is_err();
            let next = taken_back.then(|| p.to_b.post_send(TAG, data.clone()).unwrap());
            until("the receive ends", || {
                p.here.process();
                receiver.is_finished()
            });
            drop(next);
            taken_back.then(|| receiver.join().unwrap().unwrap())
        });
        if let Some(message) = message
            && message.len() != 4096
        {
            assert!(message.to_vec() == data);
        }
    }
}

fn a_function_is_called_with_the_next_message(lane: &str) {
    let p = by_hand(lane);
    for pooled in [false, true] {
        let got = Arc::new(Mutex::new(None));
        let told = Arc::clone(&got);
        p.b.post_recv(TAG, vec![0; LONG]).unwrap().on_complete(move |result| {
            let received = result.unwrap();
            *told.lock().unwrap() = Some((received.info.immediate, received.buf));
        });
        let buf = if pooled { p.to_b.alloc(LONG).unwrap() } else { vec![1; LONG].into() };
        take_back(begin(&p, buf));
        send(&p, 6);
        until("the function is called", || {
            turn(&p);
            got.lock().unwrap().is_some()
        });
        let (immediate, buf) = got.lock().unwrap().take().unwrap();
        assert_eq!((immediate, &*buf), (Some(6), &6u64.to_le_bytes()[..]));
        assert!(buf.capacity() >= LONG, "the buffer that was posted");
    }
}

fn a_send_that_times_out_or_leaves_its_scope_was_never_sent(lane: &str) {
    if lane == "self" {
        return; // Its waiting is the progress of both.
    }
    let p = pair_with(lane, Progress::Caller, Progress::Event, options());
    let mut recv = p.b.post_recv(TAG, vec![0; LONG]).unwrap();
    let data = vec![1; LONG];
    let short = std::time::Duration::from_millis(2);
    for round in 0..4 {
        match round % 2 {
            0 => drop(p.to_b.message(TAG).timeout(short).send(&data).unwrap_err()),
            _ => p.a.scope(|scope| drop(scope.send(&p.to_b, TAG, &data).unwrap().wait_within(short))),
        }
        settle(&p);
        assert!(recv.try_wait().is_none());
    }
    p.to_b.message(TAG).immediate(1).send(b"next").unwrap();
    assert_eq!(ended(&p, &mut recv).0, Some(1));
}
