//! Peers that mean harm: a process that scribbles over its own shared memory, strangers on the socket.
#![allow(unsafe_code)]
#![cfg(all(target_os = "linux", not(loom)))]

mod common;

use common::{Engine, Helper, Scratch, Seen, argument, body_of, frame, options, post, tell, wait};
use sinew_transport::{ErrorKind, Locator, PostError};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The writable shared mappings of this process whose names contain `name`: (address, length).
fn mappings(name: &str) -> Vec<(usize, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc");
    let ours = maps.lines().filter(|line| line.contains(name) && line.contains(" rw-s "));
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        Some((start, usize::from_str_radix(end, 16).ok()? - start))
    };
    ours.filter_map(range).collect()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ self.0 >> 29
    }
}

/// Opens a lane to the locator in its argument and writes random words where the argument says, for ever.
#[test]
#[ignore = "a child of other tests"]
fn child_that_scribbles() {
    let Some(argument) = argument() else { return };
    let words: Vec<&str> = argument.split(' ').collect();
    let [what, seed, directory, to] = words[..] else { panic!("four words") };
    let mut engine = Engine::open(options(Path::new(directory)), 2);
    let mut lane = engine.connect(&to.parse::<Locator>().expect("locator"));
    wait("an open lane", || {
        lane.poll(&mut Seen::default(), 1).expect("alive");
        post(&mut *lane, &frame(0, 0), &[]).is_ok().then_some(())
    });
    let own = mappings("memfd:sinew-lane");
    assert_eq!(own.len(), 1, "a half of its own, and no writable one of the peer");
    let mut targets = match what {
        "hints" => mappings("memfd:sinew-hints"),
        "everything" => [own, mappings("memfd:sinew")].concat(),
        // The words of the control page, or the slots.
        "control" => vec![(own[0].0 + 64, 128)],
        _ => vec![(own[0].0 + 4096, 64 * 256)],
    };
    targets.retain(|target| target.1 > 0);
    tell("ready");
    common::listen();
    let mut random = Random(seed.parse().expect("a number"));
    loop {
        let (start, len) = targets[random.next() as usize % targets.len()];
        let at = start + (random.next() as usize % (len / 8)) * 8;
        // Small numbers now and then, which look like laps, kinds and lengths.
        let value = random.next() >> (random.next() % 64);
        // SAFETY: a word of this process's own mapping, to which no Rust reference to plain memory exists.
        unsafe { (at as *mut u64).write_volatile(value) };
        if what == "slots" && random.next().is_multiple_of(4) {
            let _ = lane.poll(&mut Seen::default(), 4);
        }
    }
}

#[test]
fn a_scribbling_peer_garbles_its_own_lane_or_loses_it_and_harms_nobody_else() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let mut good = Engine::open(options(&scratch.0), 3);
    let (mut near, mut far) = common::pair(&mut engine, &mut good);
    let mut ended = 0;
    for (seed, what) in ["slots", "control", "everything", "hints", "slots", "everything"].iter().enumerate()
    {
        let child_directory = Scratch::new();
        let argument = format!("{what} {seed} {} {}", child_directory.0.display(), engine.locator());
        let mut child = Helper::start("child_that_scribbles", &argument);
        let owner = engine.next_owner;
        let mut lane = engine.accept_lane();
        let mut seen = Seen::default();
        wait("the lane", || {
            lane.poll(&mut seen, 1).expect("alive");
            (!seen.frames.is_empty()).then_some(())
        });
        assert_eq!(child.hear(), "ready");
        child.say("go");
        let mut sent = 0;
        for turn in 0..20_000u64 {
            seen.frames.clear();
            engine.turn(Duration::ZERO, &mut [(owner, &mut *lane)]);
            let polled = lane.poll(&mut seen, 16);
            let posted = post(&mut *lane, &frame(turn, 0), &body_of(turn, (turn % 300) as usize));
            for (_, body) in &seen.frames {
                assert!(body.len() <= (16 << 10) + (256 << 10));
            }
            if turn % 64 == 0 {
                let mut owners = Vec::new();
                lane.cool();
                engine.domain.poll_warm(&mut owners);
                if engine.domain.arm() {
                    engine.domain.disarm();
                }
                // The good lane goes on.
                wait("room", || match post(&mut *near, &frame(sent, 0), &[1; 100]) {
                    Err(PostError::Full) => None,
                    posted => {
                        posted.expect("the good lane");
                        Some(())
                    }
                });
                sent += 1;
                let mut heard = Seen::default();
                wait("the good lane's frame", || {
                    far.poll(&mut heard, 4).expect("the good lane");
                    heard.frames.pop()
                });
            }
            if let Err(error) = polled {
                // Or it has scribbled that it has closed.
                assert!(matches!(error.kind, ErrorKind::Protocol | ErrorKind::Broken), "{error}");
                assert!(matches!(posted, Err(PostError::Dead(_))));
                ended += 1;
                break;
            }
        }
        assert!(lane.recover().len() <= 256);
        child.kill();
    }
    assert!(ended >= 2, "only {ended} of the lanes were found out");
}

#[test]
fn strangers_on_the_socket_get_nothing_and_harm_nobody() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let path = engine.locator().body().to_string();
    // One that says nothing, one that hangs up, one that talks garbage where a set-up should be.
    let silent = UnixStream::connect(&path).expect("connected");
    let (mut quiet, _) = engine.accept();
    let mut record = [0; 512];
    assert!(!quiet.try_recv(&mut record).expect("nothing yet"));
    drop(UnixStream::connect(&path).expect("connected"));
    let (mut gone, _) = engine.accept();
    assert_eq!(gone.try_recv(&mut record).expect_err("gone").kind, ErrorKind::Broken);
    for len in [1usize, 127, 128, 4096] {
        let mut talker = UnixStream::connect(&path).expect("connected");
        talker.write_all(&vec![0x5a; len]).expect("sent");
        if len < 128 {
            talker.shutdown(std::net::Shutdown::Both).expect("shut");
        }
        let mut lane = engine.accept_lane();
        let error = wait("the refusal", || lane.poll(&mut Seen::default(), 1).err());
        let expected = if len < 128 { ErrorKind::Broken } else { ErrorKind::Protocol };
        assert_eq!(error.kind, expected, "{len} bytes: {error}");
    }
    drop(silent);
    let mut good = Engine::open(options(&scratch.0), 3);
    let (mut near, mut far) = common::pair(&mut good, &mut engine);
    post(&mut *near, &frame(1, 0), b"still here").expect("room");
    let mut seen = Seen::default();
    wait("a frame", || {
        far.poll(&mut seen, 1).expect("alive");
        seen.frames.pop()
    });
}
