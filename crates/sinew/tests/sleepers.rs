//! No wake-up is lost between threads of one engine: whoever ends what another thread sleeps for wakes it, and whoever
//! waits for a source that is lost is told.

mod common;

use common::{PATIENCE, Pair, options, pair_with, until};
use sinew::{Match, OpError, Progress, Timeout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

const THREAD: Progress = Progress::Thread { cpu: None };
const ROUNDS: u64 = 40;

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp", own = "self"; [
    a_sleeper_is_woken_by_the_thread_that_took_its_message,
    a_sleeper_is_woken_by_the_thread_that_received_something_else,
    a_sleeper_is_woken_by_the_thread_that_waited_for_a_posted_receive,
    a_receive_from_a_source_that_is_lost_meanwhile_ends,
] }

/// The first engine is moved by its callers only, and those sleep at once.
fn sleepy(lane: &str) -> Pair {
    let options = options().spin(Duration::ZERO);
    if lane == "self" {
        // A thread of the engine would wake the sleepers itself.
        return pair_with(lane, Progress::Caller, Progress::Caller, options);
    }
    pair_with(lane, Progress::Caller, THREAD, options)
}

/// One thread sleeps for each message, another does `busy` all the time. `true`: stop.
fn woken(lane: &str, busy: impl Fn(&Pair, &dyn Fn() -> bool) + Sync) {
    let p = sleepy(lane);
    p.to_b.send(9, b"who is there").unwrap();
    let asker = p.b.recv(9, &mut [0; 16]).unwrap().source;
    let sender = if lane == "self" { p.to_b.clone() } else { p.b.reply_to(asker).unwrap() };
    let sleeper = if lane == "self" { p.b.clone() } else { p.a.clone() };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (woke, wakes) = channel();
        scope.spawn(move || {
            for number in 0..ROUNDS {
                let mut buf = [0; 8];
                let got = sleeper.recv_within(1, &mut buf, Timeout::Never).unwrap();
                assert_eq!((got.len, u64::from_le_bytes(buf)), (8, number));
                woke.send(()).unwrap();
            }
        });
        scope.spawn(|| busy(&p, &|| stop.load(Ordering::Acquire)));
        for number in 0..ROUNDS {
            // Time to fall asleep; whether it did changes only what is tested.
            std::thread::sleep(Duration::from_millis(2));
            sender.send(1, &number.to_le_bytes()).unwrap();
            sender.send(2, b"for the other").unwrap();
            let woken = wakes.recv_timeout(PATIENCE);
            if woken.is_err() {
                stop.store(true, Ordering::Release);
                // Any call of the engine lets the sleeper look again: the test shall end.
                p.here.close(Duration::ZERO).unwrap();
            }
            assert!(woken.is_ok(), "message {number}: the sleeper was not woken");
        }
        stop.store(true, Ordering::Release);
        let _ = sender.send(2, b"the last");
    });
}

fn a_sleeper_is_woken_by_the_thread_that_took_its_message(lane: &str) {
    woken(lane, |p, stop| {
        while !stop() {
            p.here.progress();
            std::thread::yield_now();
        }
    });
}

fn a_sleeper_is_woken_by_the_thread_that_received_something_else(lane: &str) {
    woken(lane, |p, stop| {
        let endpoint = if lane == "self" { &p.b } else { &p.a };
        while !stop() {
            let _ = endpoint.recv_within(2, &mut [0; 16], Duration::from_millis(1));
        }
    });
}

fn a_sleeper_is_woken_by_the_thread_that_waited_for_a_posted_receive(lane: &str) {
    woken(lane, |p, stop| {
        let endpoint = if lane == "self" { &p.b } else { &p.a };
        while !stop() {
            let _ = endpoint.post_recv(2, vec![0; 16]).unwrap().wait_within(Duration::from_millis(1));
        }
    });
}

/// However it waits: polling, asleep, or posted.
fn a_receive_from_a_source_that_is_lost_meanwhile_ends(lane: &str) {
    if lane == "self" {
        return;
    }
    for (spin, asleep) in [(Duration::from_secs(20), 0), (Duration::from_secs(20), 5), (Duration::ZERO, 5)] {
        let p = pair_with(lane, Progress::Caller, THREAD, options().spin(spin));
        let from = Match::tag(1).from(p.to_b.source());
        let posted = p.a.post_recv(from, vec![0; 8]).unwrap();
        let (told, tell) = channel();
        let endpoint = p.a.clone();
        let waiting = std::thread::spawn(move || {
            let result = endpoint.recv_within(from, &mut [0; 8], PATIENCE);
            told.send(()).unwrap();
            result
        });
        std::thread::sleep(Duration::from_millis(asleep));
        p.there.close(Duration::ZERO).unwrap();
        assert!(tell.recv_timeout(PATIENCE / 2).is_ok(), "told before its deadline");
        assert!(matches!(waiting.join().unwrap(), Err(OpError::PeerLost { .. })));
        assert!(matches!(posted.wait().unwrap_err().error, OpError::PeerLost { .. }));
        until("nothing is left", || p.here.counters().operations == 0);
    }
}
