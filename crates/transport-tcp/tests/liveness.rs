//! Silent peers: dead ones are noticed, computing ones are left alone. Needs a network namespace of its own for the former.
#![allow(unsafe_code)]

mod common;

use common::*;
use sinew_transport::{ErrorKind, PostError};
use sinew_transport_tcp::StreamOptions;
use std::io::IoSlice;
use std::process::Command;
use std::time::{Duration, Instant};

/// Moves this thread to a fresh network namespace with its loopback up; `false` where that is not permitted.
fn enter_namespace() -> bool {
    // SAFETY: the flag concerns the network namespace of this thread only, which no other code of this thread relies on.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    entered && ip(&["link", "set", "lo", "up"])
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).status().is_ok_and(|status| status.success())
}

/// From here on nothing passes in this namespace, and nobody is told.
fn make_black_hole() -> bool {
    let netem = ["qdisc", "add", "dev", "lo", "root", "netem", "loss", "100%"];
    let dropped = Command::new("tc").args(netem).stderr(std::process::Stdio::null()).status();
    dropped.is_ok_and(|status| status.success()) || ip(&["link", "set", "lo", "down"])
}

/// Takes turns at the pace of the timers until the lane ends, and says how and after how long.
fn end_of(end: &mut End, limit: Duration) -> (sinew_transport::LaneError, Duration) {
    let began = Instant::now();
    loop {
        if let Err(error) = turn(&mut end.lane, &mut end.sink) {
            return (error, began.elapsed());
        }
        assert!(began.elapsed() < limit, "the lane did not end in {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn in_black_hole(test: impl FnOnce(&mut End) + Send + 'static, before: fn(&mut End)) {
    std::thread::spawn(move || {
        if !enter_namespace() {
            println!("SKIP no network namespace of our own is permitted here, or there is no `ip`");
            return;
        }
        let mut net = Net::new(Family::V4, StreamOptions::default());
        let (one, other) = net.lanes_with(Duration::from_secs(2));
        let (mut one, mut other) = (End::new(one), End::new(other));
        one.lane.try_post(&eager(1), &[]).unwrap();
        wait("a first exchange", || {
            one.turn();
            other.turn();
            one.lane.unacknowledged() == 0
        });
        before(&mut one);
        if !make_black_hole() {
            println!("SKIP neither `tc` nor `ip` makes a black hole here");
            return;
        }
        test(&mut one);
        drop(other);
    })
    .join()
    .unwrap();
}

#[test]
fn a_peer_whose_machine_is_gone_with_something_under_way_ends_the_lane_as_timed_out() {
    in_black_hole(
        |one| {
            one.lane.try_post(&eager(2), &[IoSlice::new(b"lost")]).unwrap();
            one.lane.flush().unwrap();
            let (error, after) = end_of(one, Duration::from_secs(20));
            assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
            assert!(after >= Duration::from_millis(1900), "not before the time is up: {after:?}");
            assert!(error.hint.contains("answered nothing for"), "not when the system gives up: {error}");
            let rest = one.lane.recover();
            assert_eq!(rest.iter().map(|frame| frame.header.tag).collect::<Vec<_>>(), [2]);
        },
        |_| {},
    );
}

#[test]
fn a_peer_whose_machine_is_gone_while_idle_is_noticed_by_the_kernel() {
    in_black_hole(
        |one| {
            assert_eq!(one.lane.next_timer(), None, "an idle lane arms no timer");
            let (error, _) = end_of(one, Duration::from_secs(30));
            assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
        },
        |_| {},
    );
}

#[test]
fn a_lane_that_was_idle_for_long_gives_the_next_frame_its_whole_time() {
    in_black_hole(
        |one| {
            one.lane.try_post(&eager(2), &[]).unwrap();
            let (_, after) = end_of(one, Duration::from_secs(20));
            assert!(after >= Duration::from_millis(1900), "{after:?}");
        },
        // Longer than the timeout of 2 s, so that the last word of the peer is old.
        |one| {
            let end = Instant::now() + Duration::from_millis(2500);
            while Instant::now() < end {
                one.turn();
                std::thread::sleep(Duration::from_millis(20));
            }
        },
    );
}

#[test]
fn a_peer_that_computes_for_longer_than_the_timeout_is_not_dead() {
    let mut net = Net::new(Family::V4, small_buffers());
    let (one, other) = net.lanes_with(Duration::from_secs(1));
    let (mut one, mut other) = (End::new(one), End::new(other));
    let mut posted = 0;
    // The peer's window is closed: its program does not read.
    while one.lane.try_post(&eager(posted), &[IoSlice::new(&[0; 4000])]) != Err(PostError::Full) {
        posted += 1;
        one.lane.flush().unwrap();
    }
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        one.turn();
        let wants = one.lane.next_timer().expect("something is outstanding: somebody must look after it");
        assert!(wants <= Instant::now() + Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(10));
    }
    wait("everything to arrive", || {
        one.turn();
        other.turn();
        other.sink.frames.len() as u64 == posted
    });
}
