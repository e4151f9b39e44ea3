//! Strangers at the door: garbage, port scans, slow and half-open connections change nothing for a session that streams.

mod common;

use common::{PATIENCE, Pair, content, options, pair_with, until};
use sinew::Progress;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const THREAD: Progress = Progress::Thread { cpu: None };

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection to the second engine, as a stranger makes it.
fn knock(p: &Pair) -> std::io::Result<Box<dyn Stream>> {
    let address = p.b.address().to_string();
    let locator = address.split(',').find(|part| part.starts_with("tcp:127") || part.starts_with("uds:"));
    let locator = locator.expect("a locator");
    if let Some(host) = locator.strip_prefix("tcp:") {
        let stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        return Ok(Box::new(stream));
    }
    let stream = UnixStream::connect(locator.trim_start_matches("uds:"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(Box::new(stream))
}

/// Streams between the pair while `disturb` runs, and some more after it.
fn undisturbed(lane: &str, disturb: impl FnOnce(&Pair)) {
    let p = pair_with(lane, THREAD, THREAD, options());
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buf = vec![0; 40_000];
            while !stop.load(Ordering::Acquire) {
                let round = rounds.load(Ordering::Relaxed);
                let data = content(if round.is_multiple_of(8) { 40_000 } else { 200 }, round);
                std::thread::scope(|inner| {
                    inner.spawn(|| p.to_b.send(round, &data).unwrap());
                    let got = p.b.recv_within(round, &mut buf, PATIENCE).unwrap();
                    assert!(buf[..got.len] == data[..]);
                });
                rounds.fetch_add(1, Ordering::Release);
            }
        });
        disturb(&p);
        let now = rounds.load(Ordering::Acquire);
        until("the session goes on", || rounds.load(Ordering::Acquire) > now + 20);
        stop.store(true, Ordering::Release);
    });
    let counters = p.there.counters();
    assert_eq!(counters.sessions, 1);
    assert_eq!(p.here.counters().lanes_lost, 0);
    assert!(p.to_b.is_connected());
}

on_lanes! { uds = "uds", tcp = "tcp"; [
    garbage_changes_nothing,
    a_port_scan_changes_nothing,
    a_slow_loris_is_cut_off,
    half_open_connections_are_bounded,
] }

fn garbage_changes_nothing(lane: &str) {
    undisturbed(lane, |p| {
        for round in 0..200u64 {
            let Ok(mut stream) = knock(p) else { continue };
            let _ = stream.write_all(&content((round as usize * 37) % 5000, round));
            // Now and then its answer is waited for: it ends the connection.
            if round.is_multiple_of(50) && round > 0 {
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    });
}

fn a_port_scan_changes_nothing(lane: &str) {
    undisturbed(lane, |p| {
        for _ in 0..1000 {
            drop(knock(p));
        }
    });
}

/// One byte now and then keeps no connection open for longer than the handshake may take.
fn a_slow_loris_is_cut_off(lane: &str) {
    undisturbed(lane, |p| {
        let mut stream = knock(p).unwrap();
        let start = std::time::Instant::now();
        while stream.write_all(b"S").is_ok() {
            assert!(start.elapsed() < PATIENCE, "it is never cut off");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

fn half_open_connections_are_bounded(lane: &str) {
    undisturbed(lane, |p| {
        let mut open = Vec::new();
        for _ in 0..300 {
            open.extend(knock(p));
        }
        until("the oldest have given way", || p.there.counters().strangers > 100);
        // A friend still comes in.
        let friend = common::engine(lane, THREAD);
        let endpoint = friend.endpoint("friend").unwrap();
        let peer = endpoint.connect(p.b.address()).expect("a way in");
        peer.send(u64::MAX, b"hello").unwrap();
        assert_eq!(p.b.recv_within(u64::MAX, &mut [0; 8], PATIENCE).unwrap().len, 5);
        friend.close(Duration::from_secs(1)).unwrap();
        drop(open);
        until("its session ends", || p.there.counters().sessions == 1);
    });
}
