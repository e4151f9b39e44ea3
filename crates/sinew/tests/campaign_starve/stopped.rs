//! Peers that stand still for long and go on, and processes whose clocks differ.

use crate::campaign::{rounds, seed};
use crate::common::{PATIENCE, content, engine_with, hear, options, say, spawn, spawn_under, until};
use sinew::{Engine, Match, Progress};
use std::time::{Duration, Instant};

/// Answers every message with its like, to whoever sends. With `CONNECT` it is a client that connects when it is told to.
pub(crate) fn echo(lane: &str) {
    if let Ok(address) = std::env::var("CONNECT") {
        return connect_late(lane, &address);
    }
    let engine = engine_with(lane, Progress::Thread { cpu: None }, options());
    let endpoint = engine.endpoint("echo").unwrap();
    say(endpoint.address());
    let at = endpoint.clone();
    let handler = endpoint
        .on_message(Match::any_tag(), 1 << 20, 8, move |bytes, got| {
            // Whoever is gone needs no answer.
            if let Ok(back) = at.reply_to(got.source) {
                let _ = back.message(got.tag).timeout(PATIENCE).send(bytes);
            }
        })
        .unwrap();
    while let Some(line) = hear() {
        match line.as_str() {
            "address" => say(endpoint.address()),
            "counts" => say(format!("{} {}", engine.counters().sessions_lost, engine.counters().lanes_lost)),
            _ => break,
        }
    }
    drop(handler);
}

fn connect_late(lane: &str, address: &str) {
    let late = options().connect_timeout(Duration::from_secs(3)).handshake_timeout(Duration::from_secs(2));
    let engine = Engine::builder().domain("faults").options(late).transports([lane]).build().unwrap();
    say("ready");
    let _ = hear();
    match engine.endpoint("").unwrap().connect(address) {
        Ok(_) => say("ok"),
        Err(error) => say(error.to_string().replace('\n', " ")),
    }
}

crate::on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    a_peer_that_stands_still_for_long_loses_nothing,
    clocks_that_differ_do_not_matter,
] }

/// Rounds of short stops, and a last one of three times `peer_timeout`; of a minute when there are a thousand rounds.
fn a_peer_that_stands_still_for_long_loses_nothing(lane: &str) {
    let (rounds, seed) = (rounds(), seed());
    let peer_timeout = Duration::from_secs(1);
    let minute = if rounds >= 1000 { Duration::from_secs(60) } else { peer_timeout * 3 };
    let mut other = spawn("echo", lane, &[]);
    let here = engine_with(lane, Progress::Thread { cpu: None }, options().peer_timeout(peer_timeout));
    let at = here.endpoint("").unwrap();
    let peer = at.connect(other.line()).unwrap();
    let (mut number, mut timed_out) = (0u64, 0u64);
    let mut buf = vec![0; 200_000];
    for round in 0..=rounds {
        let stop = if round == rounds { minute } else { Duration::from_millis(10) };
        // Messages of every class are on their way, and a receive waits, when it stops.
        let lengths = [8, 3000, 60_000, 200_000];
        let first = number;
        let sends: Vec<_> = lengths
            .iter()
            .map(|&len| {
                number += 1;
                peer.message(1).immediate(number).post(content(len, number)).unwrap()
            })
            .collect();
        other.signal(libc::SIGSTOP);
        let start = Instant::now();
        let late = at.recv_within(7, &mut buf, Duration::from_millis(5));
        timed_out += u64::from(late.is_err());
        while start.elapsed() < stop {
            std::thread::sleep(Duration::from_millis(5)); // The stop itself.
        }
        other.signal(libc::SIGCONT);
        for (at_number, len) in (first + 1..).zip(lengths) {
            let got = at.recv_within(1, &mut buf, PATIENCE).expect("it goes on");
            assert!(got.len == len && buf[..len] == content(len, at_number), "in order and whole");
        }
        sends.into_iter().for_each(|send| drop(send.wait_within(PATIENCE).expect("it went")));
    }
    let counters = here.counters();
    println!(
        "campaign starve/stopped/{lane}: {rounds} rounds and one of {minute:?} (peer_timeout {peer_timeout:?}), 0 of {number} messages lost, {timed_out} receives ended by their own deadline, {} lanes lost, {} sessions lost, seed {seed}",
        counters.lanes_lost, counters.sessions_lost,
    );
    assert_eq!((counters.sessions_lost, timed_out), (0, rounds + 1), "a stopped peer is waited for");
    other.tell("end");
    other.finish();
}

/// A process whose clock shows another decade: only how long something takes counts.
fn clocks_that_differ_do_not_matter(lane: &str) {
    let tried =
        std::process::Command::new("unshare").args(["--time", "--monotonic", "1", "--fork", "true"]).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        sinew_testing::skip!("timens", "`unshare --time` is refused or missing");
    }
    let jump = [
        "unshare",
        "--time",
        "--monotonic",
        "300000000",
        "--boottime",
        "300000000",
        "--fork",
        "--kill-child",
    ];
    let mut other = spawn_under(&jump, "echo", lane, &[]);
    let here = engine_with(lane, Progress::Thread { cpu: None }, options());
    let at = here.endpoint("").unwrap();
    let peer = at.connect(other.line()).unwrap();
    let mut buf = vec![0; 200_000];
    for round in 0..rounds() {
        for len in [8, 60_000, 200_000] {
            peer.message(round).send(&content(len, round)).unwrap();
            let got = at.recv_within(round, &mut buf, PATIENCE).unwrap();
            assert!(buf[..got.len] == content(len, round));
        }
        let late = at.recv_within(1 << 40, &mut buf, Duration::from_millis(1));
        assert!(matches!(late, Err(sinew::OpError::TimedOut { .. })), "{late:?}");
        here.cut(&peer);
    }
    until("a lane is there again", || !peer.path().starts_with("none"));
    assert_eq!(here.counters().sessions_lost, 0);
    other.tell("end");
    other.finish();
}
