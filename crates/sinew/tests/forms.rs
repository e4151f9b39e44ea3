//! Promises about the forms of operations: deadlines, cancellation, scopes, futures, handlers, tokio.

mod common;

use common::{PATIENCE, Pair, content, engine, pair, pair_with, until};
use sinew::{Engine, Match, OpError, Progress, RecvOp};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp", own = "self"; [
    timed_out_receive_never_writes_later,
    timed_out_receive_under_way_leaves_the_message_to_another,
    timed_out_send_is_taken_back,
    a_receive_whose_message_is_taken_back_gets_the_next,
    dropped_receive_leaves_its_message_to_another,
    no_message_is_lost_between_a_deadline_and_its_cancel,
    a_receiver_that_stops_calling_has_let_its_sender_go,
    what_is_posted_to_a_sleeping_engine_goes_out,
    a_send_that_was_waited_for_is_on_its_way,
    cancelled_receives_cost_no_credit,
    messages_as_long_as_the_window_arrive,
    try_forms_never_wait,
    scope_gives_buffers_back_and_ends_all_it_began,
    scope_that_panics_cancels_and_the_panic_goes_on,
    futures_work_in_each_progress_mode,
    a_handler_sees_messages_in_order_and_may_send,
    a_handler_may_be_dropped_while_messages_stream_and_inside_itself,
    a_handler_that_panics_is_unregistered_and_nothing_else_breaks,
    dropping_the_engine_ends_what_pends,
    threads_share_an_endpoint,
] }

const THREAD: Progress = Progress::Thread { cpu: None };
const SHORT: Duration = Duration::from_millis(15);

fn timed_out_receive_never_writes_later(lane: &str) {
    let p = pair(lane);
    for len in [8, 5000, 100_000] {
        let mut canary = vec![0xcc; len];
        let error = p.b.recv_within(1, &mut canary, SHORT).unwrap_err();
        assert!(matches!(error, OpError::TimedOut { .. }), "{error}");
        let abandoned = p.b.post_recv(1, vec![0xcc; len]).unwrap().cancel().unwrap_err();
        assert!(matches!(abandoned.error, OpError::Cancelled));
        std::thread::scope(|scope| {
            scope.spawn(|| p.to_b.send(1, &vec![1; len]).unwrap());
            let mut buf = vec![0; len];
            assert_eq!(p.b.recv(1, &mut buf).unwrap().len, len);
        });
        assert!(canary.iter().all(|&byte| byte == 0xcc), "the blocking receive's memory");
        assert!(abandoned.buf.iter().all(|&byte| byte == 0xcc), "the owned receive's memory");
    }
}

/// Cancels receives at random moments of a long transfer: the message is never lost, the memory never written after.
fn timed_out_receive_under_way_leaves_the_message_to_another(lane: &str) {
    let p = pair(lane);
    const LEN: usize = 3 << 20;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..12u64 {
                p.to_b.message(round).immediate(round).send(&content(LEN, round)).unwrap();
            }
        });
        let mut canaries = Vec::new();
        for round in 0..12u64 {
            p.b.wait_probe(round, PATIENCE).unwrap();
            for pause in 0..3u64 {
                let mut buf = vec![0xcc; LEN];
                let limit = Duration::from_micros(pause * 300 + round * 50);
                match p.b.recv_within(round, &mut buf, limit) {
                    Err(OpError::TimedOut { .. }) => {
                        buf.fill(0xdd);
                        canaries.push(buf);
                    }
                    Ok(got) => {
                        assert!(got.len == LEN && buf == content(LEN, round));
                        buf.clear();
                        canaries.push(buf);
                        break;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            if canaries.last().is_some_and(|last| last.is_empty()) {
                continue;
            }
            let mut buf = vec![0; LEN];
            let got = p.b.recv_within(round, &mut buf, PATIENCE).unwrap();
            assert_eq!((got.len, got.immediate), (LEN, Some(round)));
            assert!(buf == content(LEN, round), "content of message {round}");
        }
        for canary in canaries {
            assert!(
                canary.iter().all(|&byte| byte == 0xdd),
                "memory of a cancelled receive was written later"
            );
        }
    });
}

fn timed_out_send_is_taken_back(lane: &str) {
    let p = pair(lane);
    let mut data = vec![1; 1 << 20];
    let error = p.to_b.message(3).timeout(SHORT).send(&data).unwrap_err();
    assert!(matches!(error, OpError::TimedOut { .. }), "{error}");
    data.fill(2);
    let failed = p.to_b.post_send(3, vec![1; 1 << 20]).unwrap().cancel().unwrap_err();
    assert!(matches!(failed.error, OpError::Cancelled) && failed.buf.len() == 1 << 20);
    p.to_b.send(4, b"after").unwrap();
    let mut buf = [0; 8];
    assert_eq!(p.b.recv(4, &mut buf).unwrap().len, 5);
    assert!(p.b.probe(3).is_none(), "what was taken back is gone");
    until("its credit is back and nothing is left", || p.here.counters().operations == 0);
}

fn a_receive_whose_message_is_taken_back_gets_the_next(lane: &str) {
    let p = pair_with(lane, THREAD, THREAD, common::options());
    // The envelope has matched, or not yet, when the sender takes it back.
    for round in 0..30u64 {
        let op = p.b.post_recv(5, vec![0; 8 << 20]).unwrap();
        let send = p.to_b.post_send(5, vec![9; 8 << 20]).unwrap();
        for _ in 0..round * 3 {
            p.here.progress();
        }
        match send.cancel() {
            Err(failed) => {
                assert!(matches!(failed.error, OpError::Cancelled), "{failed}");
                assert!(failed.buf.iter().all(|&byte| byte == 9));
                p.to_b.message(5).immediate(round).send(b"next").unwrap();
                let got = op.wait().unwrap();
                let got = if got.info.len == 8 << 20 {
                    assert!(got.buf.iter().all(|&byte| byte == 9), "it came whole before it was taken back");
                    p.b.recv(5, &mut [0; 8]).unwrap()
                } else {
                    got.info
                };
                assert_eq!((got.len, got.immediate), (4, Some(round)));
            }
            Ok(_) => assert_eq!(op.wait().unwrap().info.len, 8 << 20),
        }
    }
}

fn dropped_receive_leaves_its_message_to_another(lane: &str) {
    let p = pair(lane);
    drop(p.b.post_recv(1, vec![0; 100]).unwrap());
    p.to_b.send(1, b"still there").unwrap();
    let mut buf = [0; 100];
    assert_eq!(p.b.recv(1, &mut buf).unwrap().len, 11);
    let first = p.b.post_recv(1, vec![0; 100]).unwrap();
    let second = p.b.post_recv(1, vec![0; 100]).unwrap();
    drop(first);
    p.to_b.send(1, b"for the second").unwrap();
    assert_eq!(second.wait().unwrap().info.len, 14);
    assert_eq!(p.there.counters().operations, 0);
}

/// The receiver takes one message and never calls its engine again; the sender is asleep, or waits, and must have its buffer.
fn a_receiver_that_stops_calling_has_let_its_sender_go(lane: &str) {
    if lane == "self" {
        return; // The sender's waiting is the progress of both.
    }
    for len in [100_000, 3 << 20] {
        let p = pair_with(lane, THREAD, Progress::Caller, common::options());
        let (to_b, data) = (p.to_b.clone(), content(len, 1));
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5)); // Long enough for the receiver to fall asleep first.
            to_b.send(1, &data)
        });
        let mut buf = vec![0; len];
        assert_eq!(p.b.recv(1, &mut buf).unwrap().len, len);
        until("the send ends", || sender.is_finished());
        sender.join().unwrap().unwrap();
    }
}

/// Waits without making progress on the sender.
fn block_on_probe(at: &sinew::Endpoint, tag: u64) {
    at.wait_probe(tag, PATIENCE).expect("it was never sent");
}

/// Posting an operation is enough: an engine that makes progress by itself sends what it needs, though it sleeps.
fn what_is_posted_to_a_sleeping_engine_goes_out(lane: &str) {
    let p = pair_with(lane, THREAD, THREAD, common::options());
    for round in 0..20u64 {
        let asleep = if round % 2 == 0 { 3 } else { 0 };
        std::thread::sleep(Duration::from_millis(asleep));
        let long = content(50_000, round);
        let short = p.to_b.post_send(1, vec![1; 10]).unwrap();
        block_on_probe(&p.b, 1);
        drop(short);
        p.b.recv(1, &mut [0; 10]).unwrap();
        drop(p.to_b.post_send(2, long.clone()).unwrap());
        block_on_probe(&p.b, 2);
        std::thread::sleep(Duration::from_millis(asleep));
        let op = p.b.post_recv(2, vec![0; 50_000]).unwrap();
        // Its future is polled once; nothing but the waker looks at it again.
        let got = block_on(op, || std::thread::park_timeout(Duration::from_millis(200))).unwrap();
        assert!(got.buf.as_slice() == long);
    }
}

/// Deadlines of all sorts race with arrivals: each message is received exactly once, in order.
fn no_message_is_lost_between_a_deadline_and_its_cancel(lane: &str) {
    let p = pair(lane);
    const COUNT: u64 = 4000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..COUNT {
                p.to_b.message(1).immediate(number).send(&content(number as usize % 60, number)).unwrap();
                for _ in 0..(number * 7919) % 300 {
                    std::hint::spin_loop();
                }
            }
        });
        let (mut number, mut late) = (0, 0u64);
        let start = std::time::Instant::now();
        while number < COUNT {
            assert!(start.elapsed() < PATIENCE, "message {number} does not come");
            let mut buf = [0; 64];
            let form = (number + late) % 4;
            let limit = Duration::from_nanos(late * 37 % 5000);
            let result = match form {
                0 | 1 => p.b.recv_within(1, &mut buf, limit),
                2 => p.b.scope(|scope| scope.recv(1, &mut buf).unwrap().wait_within(limit).0),
                _ => match p.b.post_recv(1, vec![0; 64]).unwrap().cancel() {
                    Ok(got) => {
                        buf[..got.info.len].copy_from_slice(&got.buf);
                        Ok(got.info)
                    }
                    Err(failed) => Err(failed.error),
                },
            };
            match result {
                Ok(got) => {
                    assert_eq!(got.immediate, Some(number), "lost by a deadline");
                    assert!(buf[..got.len] == content(got.len, number));
                    number += 1;
                }
                Err(OpError::TimedOut { .. } | OpError::Cancelled) => late += 1,
                Err(other) => panic!("{other}"),
            }
            if late % 5 == 0 {
                // A receive that had its message already, perhaps, and that nobody asks.
                let op = p.b.post_recv(1, vec![0; 64]).unwrap();
                p.here.progress();
                drop(op);
                late += 1;
            }
        }
    });
}

/// Whatever form the wait has: nobody may call the sending engine ever again.
fn a_send_that_was_waited_for_is_on_its_way(lane: &str) {
    let p = pair(lane);
    for (tag, len) in [(1, 8), (2, 3000)] {
        let waits: [&dyn Fn(sinew::SendOp); 3] = [
            &|send| drop(send.wait().unwrap()),
            &|mut send| drop(send.try_wait().expect("short").unwrap()),
            &|send| {
                assert!(pin!(send).as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready(), "short")
            },
        ];
        for wait in waits {
            wait(p.to_b.post_send(tag, vec![1; len]).unwrap());
            // The other engine has a thread of its own.
            assert_eq!(p.b.recv(tag, &mut vec![0; len]).unwrap().len, len);
        }
    }
}

/// With nobody else to make progress, a wait goes on until the system has the message: the sender may not call again for long. The
/// other engine does not call, so that the system's buffers fill up before the window does.
#[test]
fn a_send_that_was_waited_for_is_with_the_system() {
    const LEN: usize = 50_000;
    let wait = Duration::from_millis(100);
    for scoped in [false, true] {
        let p = pair_with("uds", Progress::Caller, Progress::Caller, common::options().timeout(PATIENCE));
        let data = vec![1; LEN];
        let send = |limit: Duration| {
            if scoped {
                p.a.scope(|scope| scope.send(&p.to_b, 1, &data).unwrap().wait_within(limit)).unwrap();
            } else {
                p.to_b.post_send(1, data.clone()).unwrap().wait_within(limit).unwrap();
            }
        };
        let mut sent = 1;
        let begun = std::time::Instant::now();
        // Sent is sent, also when the system does not take it in time.
        while begun.elapsed() < wait {
            send(wait);
            sent += 1;
        }
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let mut buf = vec![0; LEN];
                for _ in 0..sent {
                    assert_eq!(p.b.recv(1, &mut buf).unwrap().len, LEN);
                }
            });
            send(PATIENCE);
            // This thread calls no more, and all comes.
            receiver.join().unwrap();
        });
    }
}

/// Cancelled fetches must not eat the window: afterwards the sender may still fill it.
fn cancelled_receives_cost_no_credit(lane: &str) {
    let options = common::options().endpoint_envelopes(8usize).session_envelopes(8usize);
    let p = pair_with(lane, THREAD, THREAD, options);
    let sends: Vec<_> = (0..40u64)
        .map(|number| p.to_b.message(1).immediate(number).post(content(1 << 20, number)).unwrap())
        .collect();
    let mut buf = vec![0; 1 << 20];
    for number in 0..40u64 {
        for _ in 0..3 {
            p.b.wait_probe(1, PATIENCE).unwrap();
            drop(p.b.post_recv(1, vec![0; 1 << 20]).unwrap());
        }
        let got = p.b.recv(1, &mut buf).unwrap();
        assert_eq!((got.len, got.immediate), (1 << 20, Some(number)));
        assert!(buf == content(1 << 20, number), "content of {number}");
    }
    for send in sends {
        send.wait().unwrap();
    }
    assert!(p.to_b.is_connected());
}

/// A message that alone is more than half of the window takes the other road.
fn messages_as_long_as_the_window_arrive(lane: &str) {
    let options = common::options().endpoint_window(16usize << 10).session_window(32usize << 10);
    let p = pair_with(lane, THREAD, THREAD, options);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..300u64 {
                let len = 16_384 - (number as usize % 10) * 1600;
                p.to_b.message(1).immediate(number).send(&content(len, number)).unwrap();
            }
        });
        let mut buf = vec![0; 16_384];
        for number in 0..300u64 {
            let got = p.b.recv(1, &mut buf).unwrap();
            assert_eq!(got.immediate, Some(number));
            assert!(buf[..got.len] == content(16_384 - (number as usize % 10) * 1600, number));
        }
    });
}

fn try_forms_never_wait(lane: &str) {
    let p = pair(lane);
    let mut buf = [0; 16];
    assert!(matches!(p.b.try_recv(1, &mut buf), Err(OpError::WouldBlock)));
    until("a send is taken", || p.to_b.try_send(1, b"now").is_ok());
    until("it has come", || match p.b.try_recv(1, &mut buf) {
        Ok(got) => got.len == 3,
        Err(OpError::WouldBlock) => false,
        Err(other) => panic!("{other}"),
    });
    let mut op = p.b.post_recv(2, vec![0; 8]).unwrap();
    assert!(op.try_wait().is_none());
    p.to_b.send(2, b"x").unwrap();
    let mut done = None;
    until("the posted receive has ended", || {
        done = op.try_wait();
        done.is_some()
    });
    assert_eq!(done.unwrap().unwrap().info.len, 1);
    assert!(op.try_wait().is_none(), "it is spent");
    drop(op);
    let mut send = p.to_b.post_send(3, vec![1; 100_000]).unwrap();
    assert!(send.try_wait().is_none(), "nobody fetches it");
    let _ = send.cancel();
}

fn scope_gives_buffers_back_and_ends_all_it_began(lane: &str) {
    let p = pair(lane);
    let (mut first, mut second, mut third) = (vec![0; 50_000], [0; 16], [0xcc; 16]);
    let data = content(50_000, 3);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            p.a.scope(|scope| {
                let _ = scope.send(&p.to_b, 1, &data).unwrap();
                let sent = scope.send(&p.to_b, 2, b"short").unwrap();
                sent.wait().unwrap();
            });
        });
        let len = p.b.scope(|scope| {
            let long = scope.recv(1, &mut first).unwrap();
            let short = scope.recv(2, &mut second).unwrap();
            let never = scope.recv(99, &mut third).unwrap();
            let (result, buf) = short.wait();
            assert_eq!(&buf[..result.unwrap().len], b"short");
            buf[0] = 7; // It is usable again before the scope ends.
            let (result, buf) = never.wait_within(SHORT);
            assert!(matches!(result, Err(OpError::TimedOut { .. })) && buf[0] == 0xcc);
            // Not waited for: the scope does. Leaking it changes nothing.
            std::mem::forget(long);
            42
        });
        assert_eq!(len, 42);
    });
    assert!(first == data, "the scope has waited for it");
    assert_eq!(second[0], 7);
    assert_eq!(
        p.b.try_recv(Match::any_tag(), &mut []).unwrap_err().to_string(),
        OpError::WouldBlock.to_string()
    );
}

fn scope_that_panics_cancels_and_the_panic_goes_on(lane: &str) {
    let p = pair(lane);
    let mut canary = vec![0xcc; 200_000];
    let data = vec![1; 200_000];
    let panic = catch_unwind(AssertUnwindSafe(|| {
        p.b.scope(|scope| {
            let _open = scope.recv(1, &mut canary).unwrap();
            panic!("inside");
        })
    }));
    assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"inside"));
    let panic = catch_unwind(AssertUnwindSafe(|| {
        p.a.scope(|scope| {
            let _open = scope.send(&p.to_b, 1, &data).unwrap();
            panic!("inside");
        })
    }));
    assert!(panic.is_err());
    p.to_b.send(2, b"after").unwrap();
    assert_eq!(p.b.recv(2, &mut [0; 8]).unwrap().len, 5);
    assert!(p.b.probe(1).is_none());
    assert!(canary.iter().all(|&byte| byte == 0xcc));
    until("nothing is left", || p.here.counters().operations == 0 && p.there.counters().operations == 0);
}

/// Wakes a thread that is parked in [`block_on`].
struct Unpark(std::thread::Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::Release);
        self.0.unpark();
    }
}

/// The simplest executor there is. `idle` runs when the future waits and was not woken.
fn block_on<F: Future>(future: F, mut idle: impl FnMut()) -> F::Output {
    let wake = Arc::new(Unpark(std::thread::current(), AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&wake));
    let mut future = pin!(future);
    let start = std::time::Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "the future is never woken");
        if wake.1.swap(false, Ordering::AcqRel) {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
        } else {
            idle();
        }
    }
}

/// What an event loop does between two polls of its futures.
fn watch(engine: &Engine) {
    let Some(armed) = engine.arm() else {
        engine.process();
        return;
    };
    let limit = armed.timeout().unwrap_or(Duration::from_millis(200)).min(Duration::from_millis(200));
    let fd = engine.event_fd();
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: limit.as_nanos() as _ };
    let _ = rustix::event::poll(&mut fds, Some(&limit));
    armed.process();
}

/// The way back, while somebody makes progress on the engine that has no thread of its own.
fn connect_back(p: &Pair) -> sinew::Peer {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                p.here.process();
                std::thread::yield_now();
            }
        });
        let back = p.b.connect(p.a.address());
        done.store(true, Ordering::Release);
        back.expect("a way back")
    })
}

fn futures_work_in_each_progress_mode(lane: &str) {
    for mode in [Progress::Caller, Progress::Thread { cpu: None }, Progress::Event] {
        let second = if lane == "self" { mode } else { Progress::Thread { cpu: None } };
        let p = pair_with(lane, mode, second, common::options());
        let back = connect_back(&p);
        let echo = |p: &Pair, back: &sinew::Peer| {
            let mut buf = vec![0; 400_000];
            for _ in 0..40 {
                let got = p.b.recv(Match::any_tag(), &mut buf).unwrap();
                back.send(got.tag + 1000, &buf[..got.len]).unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| echo(&p, &back));
            let idle = || match mode {
                Progress::Event => watch(&p.here),
                _ => std::thread::park_timeout(Duration::from_millis(200)),
            };
            for round in 0..40u64 {
                let len = [0, 8, 3000, 17_000, 300_000][round as usize % 5];
                let data = content(len, round);
                let receive = p.a.post_recv(round + 1000, vec![0; len + 8]).unwrap();
                let send = p.to_b.post_send(round, data.clone()).unwrap();
                let sent = block_on(send, idle).unwrap();
                assert!(sent.as_slice() == data, "{mode:?}: the buffer comes back");
                let got = block_on(receive, idle).unwrap();
                assert!(got.buf.as_slice() == data, "{mode:?}: round {round}");
            }
        });
    }
}

fn a_handler_sees_messages_in_order_and_may_send(lane: &str) {
    let p = pair(lane);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let replier = p.b.clone();
    let handler = {
        let seen = Arc::clone(&seen);
        p.b.on_message(Match::tag(0x100).ignoring(0xff), 60_000, 4, move |bytes, info| {
            seen.lock().unwrap().push((info.immediate, bytes.len()));
            assert!(bytes == content(bytes.len(), info.immediate.unwrap()));
            let back = replier.reply_to(info.source).unwrap();
            back.send(info.tag + 0x1000, &info.immediate.unwrap().to_le_bytes()).unwrap();
        })
        .unwrap()
    };
    let size = |round: u64| if round.is_multiple_of(5) { 50_000 } else { round as usize * 7 };
    let mut buf = [0; 8];
    for round in 0..200u64 {
        p.to_b.message(0x100 + round % 256).immediate(round).send(&content(size(round), round)).unwrap();
        if round % 20 == 19 {
            // Answers come while more messages go.
            for of in round - 19..=round {
                assert_eq!(p.a.recv(0x1100 + of % 256, &mut buf).unwrap().len, 8);
                assert_eq!(u64::from_le_bytes(buf), of);
            }
        }
    }
    let expected: Vec<_> = (0..200).map(|round| (Some(round), size(round))).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    handler.unregister();
    p.to_b.send(0x100, b"nobody").unwrap();
    assert_eq!(p.b.recv(0x100, &mut [0; 16]).unwrap().len, 6, "after unregister messages wait for receives");
    assert_eq!(seen.lock().unwrap().len(), 200);
}

fn a_handler_that_panics_is_unregistered_and_nothing_else_breaks(lane: &str) {
    let p = pair(lane);
    let calls = Arc::new(AtomicU64::new(0));
    let others = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    let broken = p.b.on_message(1, 16, 2, move |_, _| {
        if count.fetch_add(1, Ordering::SeqCst) == 2 {
            panic!("a handler that breaks");
        }
    });
    let count = Arc::clone(&others);
    let sound = p.b.on_message(2, 16, 2, move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    for _ in 0..6 {
        p.to_b.send(1, b"one").unwrap();
        p.to_b.send(2, b"two").unwrap();
    }
    until("the sound handler has seen all", || others.load(Ordering::SeqCst) == 6);
    assert_eq!(calls.load(Ordering::SeqCst), 3, "called after its panic");
    drop((broken, sound));
    p.to_b.send(3, b"alive").unwrap();
    assert_eq!(p.b.recv(3, &mut [0; 8]).unwrap().len, 5);
}

fn a_handler_may_be_dropped_while_messages_stream_and_inside_itself(lane: &str) {
    let p = pair_with(lane, THREAD, THREAD, common::options());
    let stop = AtomicBool::new(false);
    let expected = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        let seen = Arc::clone(&expected);
        let (p, stop) = (&p, &stop);
        scope.spawn(move || {
            let mut number = 0u64;
            while !stop.load(Ordering::Relaxed) {
                if number > seen.load(Ordering::Relaxed) + 1000 {
                    // What is far ahead must be fetched in the end, a message at a time.
                    std::thread::yield_now();
                    continue;
                }
                match p.to_b.try_send(1, &number.to_le_bytes()) {
                    Ok(()) => number += 1,
                    Err(OpError::WouldBlock) => std::thread::yield_now(),
                    Err(other) => panic!("{other}"),
                }
            }
            p.to_b.send(2, &number.to_le_bytes()).unwrap();
        });
        for round in 0..20 {
            let gone = Arc::new(AtomicBool::new(false));
            let slot: Arc<Mutex<Option<sinew::Handler>>> = Arc::default();
            let start = expected.load(Ordering::SeqCst);
            let handler = {
                let (expected, gone, slot) = (Arc::clone(&expected), Arc::clone(&gone), Arc::clone(&slot));
                p.b.on_message(1, 8, 3, move |bytes, _| {
                    assert!(!gone.load(Ordering::SeqCst), "called after its end");
                    let number = u64::from_le_bytes(bytes.try_into().unwrap());
                    assert_eq!(number, expected.fetch_add(1, Ordering::SeqCst), "order");
                    if round % 2 == 1 && number >= start + 5 {
                        // Dropped from inside, if it was handed over in time.
                        drop(slot.lock().unwrap().take());
                    }
                })
                .unwrap()
            };
            if round % 2 == 1 {
                *slot.lock().unwrap() = Some(handler);
                until("it has dropped itself", || slot.lock().unwrap().is_none());
            } else {
                until("it is called", || expected.load(Ordering::SeqCst) > start + 5);
                drop(handler);
            }
            gone.store(true, Ordering::SeqCst);
            // A message that had arrived for a receive of the dropped handler must not be lost.
            let mut buf = [0; 8];
            p.b.recv(1, &mut buf).unwrap();
            assert_eq!(
                u64::from_le_bytes(buf),
                expected.fetch_add(1, Ordering::SeqCst),
                "lost by a dropped handler"
            );
        }
        stop.store(true, Ordering::Relaxed);
        let mut buf = [0; 8];
        // In order, as the last one may have no room before others are received.
        loop {
            let info = p.b.recv_within(Match::any_tag(), &mut buf, PATIENCE).unwrap();
            assert_eq!(u64::from_le_bytes(buf), expected.fetch_add(1, Ordering::SeqCst));
            if info.tag == 2 {
                break;
            }
        }
    });
}

fn dropping_the_engine_ends_what_pends(lane: &str) {
    let p = pair(lane);
    let receive = p.a.post_recv(1, vec![0; 64]).unwrap();
    let send = p.to_b.post_send(1, vec![0; 1 << 20]).unwrap();
    let far = p.b.post_recv(77, vec![0; 64]);
    let endpoint = p.a.clone();
    let waiting = std::thread::spawn(move || endpoint.recv_within(7, &mut [0; 8], PATIENCE));
    std::thread::scope(|scope| {
        let (here, there) = (&p.here, &p.there);
        scope.spawn(move || {
            // `close` is what the last drop does, without waiting for so long.
            here.close(Duration::from_millis(1)).unwrap();
            there.close(Duration::from_millis(1)).unwrap();
        });
    });
    let text = |error: OpError| {
        assert!(
            matches!(error, OpError::EngineClosed | OpError::PeerLost { .. } | OpError::Cancelled),
            "{error:?}"
        );
    };
    text(receive.wait_within(PATIENCE).unwrap_err().error);
    text(send.wait_within(PATIENCE).unwrap_err().error);
    if let Ok(far) = far {
        let _ = far.wait_within(PATIENCE);
    }
    let waited = waiting.join().unwrap();
    assert!(matches!(waited, Err(OpError::EngineClosed)), "nobody cancelled it: {waited:?}");
    assert!(p.to_b.send(1, b"x").is_err());
    assert!(p.a.recv(1, &mut [0; 8]).is_err());
    assert!(p.here.endpoint("late").is_err());
}

fn threads_share_an_endpoint(lane: &str) {
    let p = pair(lane);
    const EACH: u64 = 300;
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (to_b, b) = (&p.to_b, &p.b);
            scope.spawn(move || {
                for number in 0..EACH {
                    let len = if number % 50 == 0 { 40_000 } else { 100 };
                    to_b.message(thread).immediate(number).send(&content(len, number)).unwrap();
                }
            });
            scope.spawn(move || {
                let mut buf = vec![0; 40_000];
                for number in 0..EACH {
                    let got = b.recv_within(thread, &mut buf, PATIENCE).unwrap();
                    assert_eq!(got.immediate, Some(number), "order within a tag");
                    assert!(buf[..got.len] == content(got.len, number));
                }
            });
        }
    });
}

/// An operation may outlive every other handle; nothing is leaked, nothing hangs.
#[test]
fn operations_may_outlive_their_engine() {
    let there = engine("uds", Progress::Thread { cpu: None });
    let b = there.endpoint("b").unwrap();
    let op: RecvOp = {
        let here = engine("uds", Progress::Caller);
        let a = here.endpoint("a").unwrap();
        let _peer = a.connect(b.address()).unwrap();
        a.post_recv(1, vec![0; 10]).unwrap()
    };
    let failed = op.wait_within(PATIENCE).unwrap_err();
    assert_eq!(failed.buf.capacity(), 10);
}

#[cfg(feature = "tokio")]
mod tokio_adapter {
    use super::*;

    #[test]
    fn futures_are_woken_by_tokio_on_every_lane() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for lane in ["shm", "uds", "tcp", "self"] {
            let second = if lane == "self" { Progress::Event } else { Progress::Thread { cpu: None } };
            let p = pair_with(lane, Progress::Event, second, common::options());
            let back = connect_back(&p);
            runtime.block_on(async {
                let driver = sinew::on_tokio::drive(&p.here).unwrap();
                for round in 0..30u64 {
                    let len = [0, 8, 3000, 17_000, 300_000][round as usize % 5];
                    let data = content(len, round);
                    let there = p.b.post_recv(round, vec![0; len]).unwrap();
                    let here = p.a.post_recv(round, vec![0; len]).unwrap();
                    let out = p.to_b.post_send(round, data.clone()).unwrap();
                    let limit = |future| tokio::time::timeout(PATIENCE, future);
                    let got = limit(there).await.expect("in time").unwrap();
                    assert!(got.buf.as_slice() == data);
                    out.await.unwrap();
                    let answer = back.post_send(round, data.clone()).unwrap();
                    let got = limit(here).await.expect("in time").unwrap();
                    assert!(got.buf.as_slice() == data, "{lane} round {round}");
                    answer.await.unwrap();
                }
                driver.abort();
            });
        }
    }
}

#[cfg(feature = "tokio")]
mod importing_everything {
    use sinew::*;

    #[test]
    fn hides_no_crate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let engine = Engine::builder().domain("glob").progress(Progress::Event).build().unwrap();
        runtime.block_on(async {
            let driver = on_tokio::drive(&engine).unwrap();
            tokio::task::yield_now().await;
            driver.abort();
        });
    }
}
