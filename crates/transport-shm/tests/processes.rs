//! Lanes between real processes: death, stopping, descriptors, forked children, namespaces.
#![allow(unsafe_code)]
#![cfg(all(target_os = "linux", not(loom)))]

mod common;

use common::{Engine, Helper, Scratch, Seen, argument, body_of, frame, listen, options, post, tell, wait};
use rustix::process::{Pid, Signal, kill_process};
use sinew_transport::{ErrorKind, Lane, LaneError, Locator, PostError};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn pid(child: &Helper) -> Pid {
    Pid::from_raw(child.child.id() as i32).expect("a process")
}

/// Polls the lane and its socket until the lane ends.
fn end_of(engine: &mut Engine, lane: &mut dyn Lane, owner: u32, seen: &mut Seen) -> LaneError {
    wait("the lane's end", || {
        engine.turn(Duration::ZERO, &mut [(owner, lane)]);
        lane.poll(seen, 64).err()
    })
}

/// Listens, accepts one lane, and does what the argument says with it.
#[test]
#[ignore = "a child of other tests"]
fn child_with_a_lane() {
    let Some(argument) = argument() else { return };
    let (what, directory) = argument.split_once(' ').expect("two words");
    let mut engine = Engine::open(options(Path::new(directory)), 2);
    tell(&engine.locator().to_string());
    let mut lane = engine.accept_lane();
    let mut seen = Seen::default();
    wait("the first frame", || {
        lane.poll(&mut seen, 1).expect("alive");
        (!seen.frames.is_empty()).then_some(())
    });
    match what {
        "flood" => flood(&mut *lane),
        "echo" => echo(&mut engine, &mut *lane, seen, false),
        "sleepy" => echo(&mut engine, &mut *lane, seen, true),
        "fork" => {
            // SAFETY: the grandchild calls nothing but `pause` and `_exit`.
            let grandchild = unsafe { libc::fork() };
            if grandchild == 0 {
                // SAFETY: async-signal-safe.
                unsafe {
                    libc::pause();
                    libc::_exit(0);
                }
            }
            tell(&grandchild.to_string());
            listen();
        }
        "close" => {
            for number in 0..10 {
                post(&mut *lane, &frame(number, 0), b"last words").expect("room");
            }
            lane.close();
        }
        _ => {
            tell("ready");
            listen();
        }
    }
}

/// Posts numbered frames for ever; says how many it has posted, in the tag of the frames themselves.
fn flood(lane: &mut dyn Lane) {
    let mut number = 0u64;
    loop {
        let len = (number as usize * 37) % 6000;
        match post(lane, &frame(number, 0), &body_of(number, len)) {
            Ok(()) => number += 1,
            Err(PostError::Full) => {
                let _ = lane.poll(&mut Seen::default(), 1);
                std::thread::yield_now();
            }
            Err(_) => return,
        }
    }
}

/// Sends back what comes; between frames it yields, or sleeps.
fn echo(engine: &mut Engine, lane: &mut dyn Lane, mut seen: Seen, sleepy: bool) {
    seen.frames.clear();
    loop {
        engine.turn(Duration::ZERO, &mut [(1, lane)]);
        match lane.poll(&mut seen, 16) {
            Ok(0) if sleepy => sleep(engine, lane),
            Ok(0) => std::thread::yield_now(),
            Ok(_) => {
                for (header, body) in seen.frames.drain(..) {
                    while post(lane, &header, &body) == Err(PostError::Full) {
                        let _ = lane.poll(&mut Seen::default(), 0);
                    }
                }
            }
            Err(_) => return,
        }
    }
}

/// Sleeps until the doorbell or the lane's socket says something, cooling the lane before every other sleep.
fn sleep(engine: &mut Engine, lane: &mut dyn Lane) {
    let mut owners = Vec::new();
    engine.naps += 1;
    if engine.naps.is_multiple_of(2) && !lane.cool() {
        return;
    }
    if engine.domain.arm() {
        engine.turn(common::DEADLINE, &mut [(1, lane)]);
        engine.domain.disarm();
        assert!(!engine.events.is_empty(), "slept through");
    }
    engine.domain.poll_warm(&mut owners);
}

/// A child, and an open lane to it.
fn start(engine: &mut Engine, directory: &Path, what: &str) -> (Helper, Box<dyn Lane>, u32) {
    let argument = format!("{what} {}", directory.display());
    let mut child = Helper::start("child_with_a_lane", &argument);
    let to: Locator = child.hear().parse().expect("locator");
    let owner = engine.next_owner;
    let mut lane = engine.connect(&to);
    wait("an open lane", || {
        lane.poll(&mut Seen::default(), 1).expect("alive");
        post(&mut *lane, &frame(0, 0), &[]).is_ok().then_some(())
    });
    (child, lane, owner)
}

#[test]
fn a_killed_sender_ends_its_lane_after_every_frame_it_published() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    for round in 0..8 {
        let (mut child, mut lane, owner) = start(&mut engine, &scratch.0, "flood");
        let mut seen = Seen::default();
        let enough = 50 * round + 1;
        wait("frames", || {
            lane.poll(&mut seen, 16).expect("alive");
            (seen.frames.len() > enough).then_some(())
        });
        child.kill();
        let error = end_of(&mut engine, &mut *lane, owner, &mut seen);
        assert_eq!(error.kind, ErrorKind::PeerDead, "{error}");
        for (number, (header, body)) in seen.frames.iter().enumerate() {
            let number = number as u64;
            assert_eq!(*header, frame(number, 0));
            assert!(*body == body_of(number, (number as usize * 37) % 6000), "frame {number}");
        }
        assert!(matches!(post(&mut *lane, &frame(0, 0), &[]), Err(PostError::Dead(_))));
    }
}

#[test]
fn a_dead_receiver_wakes_the_sleeping_sender_and_leaves_it_its_frames() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let (mut child, mut lane, owner) = start(&mut engine, &scratch.0, "sit");
    child.hear();
    for number in 0..5 {
        post(&mut *lane, &frame(number, 0), &body_of(number, 2000)).expect("room");
    }
    assert!(engine.domain.arm());
    child.kill();
    engine.turn(common::DEADLINE, &mut [(owner, &mut *lane)]);
    assert!(!engine.events.is_empty(), "woken by the death");
    engine.domain.disarm();
    let error = end_of(&mut engine, &mut *lane, owner, &mut Seen::default());
    assert_eq!(error.kind, ErrorKind::PeerDead);
    let tags: Vec<u64> = lane.recover().iter().map(|frame| frame.header.tag).collect();
    assert_eq!(tags, [0, 1, 2, 3, 4]);
}

#[test]
fn the_death_of_a_peer_that_had_forked_is_seen_at_once() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let (mut child, mut lane, owner) = start(&mut engine, &scratch.0, "fork");
    let grandchild: i32 = child.hear().parse().expect("a number");
    child.kill();
    let error = end_of(&mut engine, &mut *lane, owner, &mut Seen::default());
    assert_eq!(error.kind, ErrorKind::PeerDead);
    let grandchild = Pid::from_raw(grandchild).expect("a process");
    kill_process(grandchild, Signal::KILL).expect("the grandchild outlived the end of the lane");
}

#[test]
fn an_orderly_end_is_told_from_a_death() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let (_child, mut lane, owner) = start(&mut engine, &scratch.0, "close");
    let mut seen = Seen::default();
    let error = end_of(&mut engine, &mut *lane, owner, &mut seen);
    assert_eq!((error.kind, seen.frames.len()), (ErrorKind::Broken, 10));
}

#[test]
fn a_stopped_peer_delays_nobody_else_and_goes_on_later() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let (stopped, mut stopped_lane, stopped_owner) = start(&mut engine, &scratch.0, "echo");
    let directory = Scratch::new();
    let (_other, mut lane, owner) = start(&mut engine, &directory.0, "echo");
    kill_process(pid(&stopped), Signal::STOP).expect("stopped");
    let mut posted = 0;
    while post(&mut *stopped_lane, &frame(posted, 0), &body_of(posted, 64)).is_ok() {
        posted += 1;
    }
    let (mut seen, mut stopped_seen) = (Seen::default(), Seen::default());
    for number in 0..300 {
        post(&mut *lane, &frame(number, 0), &body_of(number, 50)).expect("room");
        wait("an echo", || {
            lane.poll(&mut seen, 4).expect("alive");
            stopped_lane.poll(&mut stopped_seen, 4).expect("alive");
            (seen.frames.len() as u64 > number).then_some(())
        });
    }
    kill_process(pid(&stopped), Signal::CONT).expect("continued");
    wait("the stopped peer's echoes", || {
        let lanes: &mut [(u32, &mut dyn Lane)] =
            &mut [(stopped_owner, &mut *stopped_lane), (owner, &mut *lane)];
        engine.turn(Duration::ZERO, lanes);
        stopped_lane.poll(&mut stopped_seen, 64).expect("alive");
        (stopped_seen.frames.len() as u64 == posted).then_some(())
    });
}

#[test]
fn a_connected_peer_costs_two_descriptors() {
    let scratch = Scratch::new();
    let mut child = Helper::start("child_that_counts", &scratch.0.display().to_string());
    assert_eq!(child.hear(), "fine");
}

/// Counts its own descriptors with 1 and with 11 peers.
#[test]
#[ignore = "a child of other tests"]
fn child_that_counts() {
    let Some(directory) = argument() else { return };
    let mut right = Engine::open(options(Path::new(&directory)), 2);
    let mut left = Engine::open(options(Path::new(&directory)), 1);
    let mut lanes = vec![common::pair(&mut left, &mut right)];
    let one = common::descriptors();
    for _ in 0..10 {
        lanes.push(common::pair(&mut left, &mut right));
    }
    let eleven = common::descriptors();
    // Both ends of each lane are in this process.
    assert!(eleven - one <= 10 * 2 * 2, "{one} with one lane, {eleven} with eleven");
    let engines = one - 4;
    assert!(engines <= 3 + 2 * 8, "{engines} besides the lanes' own");
    drop(lanes);
    tell("fine");
}

#[test]
fn a_peer_in_namespaces_of_its_own_is_reached_through_the_shared_directory() {
    let scratch = Scratch::new();
    let flags = ["--user", "--map-root-user", "--pid", "--net", "--ipc", "--mount", "--fork", "--kill-child"];
    let allowed = Command::new("unshare").args(flags).arg("true").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("SKIP unshare is missing or not permitted here");
        return;
    }
    let mut engine = Engine::open(options(&scratch.0), 1);
    let mut command = Command::new("unshare");
    command.args(flags).arg(std::env::current_exe().expect("this binary"));
    let argument = format!("echo {}", scratch.0.display());
    let mut child = Helper::start_with(command, "child_with_a_lane", &argument);
    let to: Locator = child.hear().parse().expect("locator");
    let owner = engine.next_owner;
    let mut lane = engine.connect(&to);
    wait("an open lane", || {
        lane.poll(&mut Seen::default(), 1).expect("alive");
        post(&mut *lane, &frame(0, 0), &[]).is_ok().then_some(())
    });
    let mut seen = Seen::default();
    for number in 0..100u64 {
        post(&mut *lane, &frame(number, 0), &body_of(number, 3000)).expect("room");
        wait("an echo", || {
            lane.poll(&mut seen, 4).expect("alive");
            (seen.frames.len() as u64 > number).then_some(())
        });
        assert!(seen.frames[number as usize].1 == body_of(number, 3000));
    }
    child.kill();
    let error = end_of(&mut engine, &mut *lane, owner, &mut seen);
    assert_eq!(error.kind, ErrorKind::PeerDead);
}

/// Echoes between two that sleep whenever there is nothing; `command` starts the child.
fn sleepers(command: Command) {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let argument = format!("sleepy {}", scratch.0.display());
    let mut child = Helper::start_with(command, "child_with_a_lane", &argument);
    let to: Locator = child.hear().parse().expect("locator");
    let mut lane = engine.connect(&to);
    wait("an open lane", || {
        lane.poll(&mut Seen::default(), 1).expect("alive");
        post(&mut *lane, &frame(0, 0), &[]).is_ok().then_some(())
    });
    let mut seen = Seen::default();
    for number in 0..500u64 {
        post(&mut *lane, &frame(number, 0), &body_of(number, 200)).expect("room");
        while seen.frames.len() as u64 <= number {
            if lane.poll(&mut seen, 4).expect("alive") == 0 {
                sleep(&mut engine, &mut *lane);
            }
        }
    }
}

#[test]
fn two_sleepers_wake_each_other() {
    sleepers(Command::new(std::env::current_exe().expect("this binary")));
}

/// The child cannot see who we are, so it neither gives nor takes a doorbell: bells are notes on the socket.
#[test]
fn sleepers_of_different_users_wake_each_other() {
    let allowed = Command::new("unshare").args(["--user", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("SKIP unshare is missing or not permitted here");
        return;
    }
    let mut command = Command::new("unshare");
    command.arg("--user").arg(std::env::current_exe().expect("this binary"));
    command.env("SINEW_TEST_STRANGER", "1");
    sleepers(command);
}

/// Forks with an open lane; the child of it must be refused, and its parent's lane go on.
#[test]
#[ignore = "a child of other tests"]
fn child_that_forks() {
    let Some(directory) = argument() else { return };
    let mut left = Engine::open(options(Path::new(&directory)), 1);
    let mut right = Engine::open(options(Path::new(&directory)), 2);
    let (mut near, mut far) = common::pair(&mut left, &mut right);
    let segment = left.domain.allocate_segment(4096).expect("memory");
    // SAFETY: the child uses what it was given once and leaves.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        let posted = matches!(post(&mut *near, &frame(1, 0), &[1]), Err(PostError::Dead(_)));
        let polled = near.poll(&mut Seen::default(), 1).is_err();
        let nothing = near.recover().is_empty() && near.unacknowledged() == 0;
        drop((near, far, segment, left, right));
        // SAFETY: ends the child.
        unsafe { libc::_exit(if posted && polled && nothing { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: our own child.
    unsafe { libc::waitpid(forked, &raw mut status, 0) };
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status:#x}");
    assert_eq!(std::fs::read_dir(&directory).expect("directory").count(), 2, "sockets were removed");
    post(&mut *near, &frame(1, 0), b"still here").expect("room");
    assert!(right.domain.arm() || far.poll(&mut Seen::default(), 1).expect("alive") == 1);
    right.domain.disarm();
    let mut seen = Seen::default();
    let _ = far.poll(&mut seen, 1);
    tell("fine");
}

#[test]
fn a_forked_child_is_refused_and_its_parents_lanes_go_on() {
    let scratch = Scratch::new();
    let mut child = Helper::start("child_that_forks", &scratch.0.display().to_string());
    assert_eq!(child.hear(), "fine");
}

#[test]
fn sockets_of_dead_processes_are_removed_and_those_of_living_ones_stay() {
    let scratch = Scratch::new();
    let mut child = Helper::start("child_with_a_lane", &format!("sit {}", scratch.0.display()));
    child.hear();
    child.kill();
    let sockets = || std::fs::read_dir(&scratch.0).expect("directory").count();
    assert_eq!(sockets(), 1, "left by the killed child");
    let first = Engine::open(options(&scratch.0), 1);
    assert_eq!(sockets(), 1, "its own");
    let second = Engine::open(options(&scratch.0), 2);
    assert_eq!(sockets(), 2);
    drop((first, second));
    assert_eq!(sockets(), 0);
}
