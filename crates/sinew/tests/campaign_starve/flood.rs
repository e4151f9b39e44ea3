//! Receivers that do not receive while senders flood them: memory is bounded on both sides, printed beside the bound that the
//! counters and options give; endpoints and peers beside them are not kept waiting.

use crate::campaign::seed;
use crate::common::{PATIENCE, content, engine_with, hear, options, resident_bytes, say, spawn};
use sinew::{Endpoint, EngineOptions, OpError, Peer, Progress};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const THREAD: Progress = Progress::Thread { cpu: None };
const ENVELOPES: usize = 20_000;
const WINDOW: usize = 1 << 20;
const SEND_BUFFER: usize = 8 << 20;
/// What an envelope may cost on the receiver's side, as the option says.
const ENVELOPE_BYTES: usize = 100;

fn bounded() -> EngineOptions {
    options()
        .endpoint_envelopes(ENVELOPES)
        .session_envelopes(2 * ENVELOPES)
        .endpoint_window(WINDOW)
        .send_buffer(SEND_BUFFER)
}

/// Has endpoints that receive only when told to.
pub(crate) fn deaf(lane: &str) {
    let engine = engine_with(lane, THREAD, bounded());
    let (at, sibling) = (engine.endpoint("").unwrap(), engine.endpoint("").unwrap());
    say(at.address());
    say(sibling.address());
    let answering = sibling.clone();
    let handler = sibling
        .on_message(sinew::Match::any_tag(), 1 << 16, 4, move |bytes, got| {
            if let Ok(back) = answering.reply_to(got.source) {
                let _ = back.message(got.tag).timeout(PATIENCE).send(bytes);
            }
        })
        .unwrap();
    let before = resident_bytes();
    let mut buf = vec![0; 1 << 20];
    while let Some(line) = hear() {
        if line == "memory" {
            let counters = engine.counters();
            let waiting = at.counters().unexpected;
            say(format!("{} {waiting} {}", resident_bytes().saturating_sub(before), counters.envelopes));
            continue;
        }
        let Some(count) = line.strip_prefix("drain ").and_then(|count| count.parse::<u64>().ok()) else {
            break;
        };
        for number in 0..count {
            let got = at.recv_within(1, &mut buf, PATIENCE).expect("all that was sent");
            assert_eq!(got.immediate, Some(number), "in order, none lost");
            assert!(buf[..got.len] == content(got.len, number % 64), "content of {number}");
        }
        say(count);
    }
    drop(handler);
}

/// Sends until nothing more goes for a while; how many went.
fn flood(peer: &Peer, len: usize) -> u64 {
    let contents: Vec<Vec<u8>> = (0..64).map(|number| content(len, number)).collect();
    let mut sent = 0;
    loop {
        let data = &contents[sent as usize % 64];
        match peer.message(1).immediate(sent).timeout(Duration::from_millis(500)).send(data) {
            Ok(()) => sent += 1,
            Err(OpError::TimedOut { .. }) => return sent,
            Err(other) => panic!("{other}"),
        }
    }
}

crate::on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    a_receiver_that_never_receives_bounds_the_memory_of_both,
    a_slow_peer_and_an_idle_endpoint_slow_nobody_else,
] }

fn a_receiver_that_never_receives_bounds_the_memory_of_both(lane: &str) {
    for len in [8, 4000, 100_000] {
        let mut other = spawn("deaf", lane, &[]);
        let here = engine_with(lane, THREAD, bounded());
        let at = here.endpoint("").unwrap();
        let peer = at.connect(other.line()).unwrap();
        let _sibling = other.line();
        let before = resident_bytes();
        let sent = flood(&peer, len);
        let grown = resident_bytes().saturating_sub(before) as usize;
        other.tell("memory");
        let said: Vec<usize> = other.line().split(' ').map(|text| text.parse().unwrap()).collect();
        let (there, waiting, envelopes) = (said[0], said[1], said[2]);
        // A message within the window costs 64 bytes beside its own; rings, sockets and the allocator have their share.
        let slack = 24 << 20;
        let bound_there = WINDOW + ENVELOPES * ENVELOPE_BYTES + slack;
        let bound_here = SEND_BUFFER + slack;
        println!(
            "campaign starve/flood/{lane}: {sent} messages of {len} bytes before it blocked, {waiting} wait there ({envelopes} envelopes in all); receiver grew by {there} bytes (bound {bound_there}), sender by {grown} (bound {bound_here})",
        );
        assert!(there <= bound_there && grown <= bound_here, "memory is bounded");
        assert!(waiting <= (WINDOW / 64) + ENVELOPES, "messages are bounded");
        // What was sent is all there.
        other.tell(&format!("drain {sent}"));
        assert_eq!(other.line_within(PATIENCE * 4), sent.to_string());
        other.tell("end");
        other.finish();
    }
}

/// Round trips in a while.
fn rate(peer: &Peer, at: &Endpoint, time: Duration) -> f64 {
    let (start, mut count) = (Instant::now(), 0u64);
    let mut buf = [0; 64];
    while start.elapsed() < time {
        peer.send(9, &count.to_le_bytes()).unwrap();
        let got = at.recv_within(9, &mut buf, PATIENCE).unwrap();
        assert_eq!(buf[..got.len], count.to_le_bytes());
        count += 1;
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// Each rate is the best of so many: what other work of the machine takes says nothing about slow peers.
const TURNS: usize = 5;
/// How long each send to the slow peer blocks.
const BLOCKED: Duration = Duration::from_millis(50);
/// The least number of round trips with others in that time: whoever waits for the slow one has one.
const ROUND_TRIPS_LEAST: f64 = 3.0;

fn a_slow_peer_and_an_idle_endpoint_slow_nobody_else(lane: &str) {
    let seed = seed();
    let (mut slow, mut good) = (spawn("deaf", lane, &[]), spawn("deaf", lane, &[]));
    let here = engine_with(lane, THREAD, bounded());
    let at = here.endpoint("").unwrap();
    let (to_idle, to_sibling) = (at.connect(slow.line()).unwrap(), at.connect(slow.line()).unwrap());
    let (_, to_good) = (good.line(), at.connect(good.line()).unwrap());
    let time = Duration::from_millis(60);
    let (stop, floods) = (AtomicBool::new(false), AtomicU64::new(0));
    let flooding = AtomicBool::new(false);
    let mut rates: [Vec<f64>; 4] = Default::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // It blocks nearly all the time.
            let data = content(4000, 0);
            while !stop.load(Ordering::Acquire) {
                if !flooding.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let sent = to_idle.message(1).timeout(BLOCKED).send(&data);
                floods.fetch_add(1, Ordering::Release);
                if let Err(error) = sent {
                    assert!(matches!(error, OpError::TimedOut { .. }), "{error}");
                }
            }
        });
        // In turn, so that other work of the machine meets all of them.
        let measured = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for turn in 0..TURNS {
                flooding.store(false, Ordering::Release);
                rates[0].push(rate(&to_good, &at, time));
                flooding.store(true, Ordering::Release);
                let before = floods.load(Ordering::Acquire);
                let first = if turn == 0 { 100 } else { 1 };
                crate::common::until("the flood runs", || floods.load(Ordering::Acquire) > before + first);
                rates[1].push(rate(&to_good, &at, time));
                rates[2].push(rate(&to_sibling, &at, time));
                slow.signal(libc::SIGSTOP);
                rates[3].push(rate(&to_good, &at, time));
                slow.signal(libc::SIGCONT);
            }
        }));
        stop.store(true, Ordering::Release);
        measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let [alone, beside, sibling, stopped] = rates.map(|rates| rates.into_iter().fold(0.0, f64::max));
    let sends = floods.load(Ordering::Acquire);
    println!(
        "campaign starve/slow peer/{lane}: round trips per second with another peer {alone:.0} alone, {beside:.0} beside a flooded endpoint, {stopped:.0} beside a stopped peer; with a sibling of the flooded endpoint {sibling:.0}; {sends} sends of the flood, seed {seed}"
    );
    for (what, rate) in
        [("a flooded endpoint", beside), ("its sibling", sibling), ("a stopped peer", stopped)]
    {
        assert!(
            rate * BLOCKED.as_secs_f64() > ROUND_TRIPS_LEAST,
            "{what} leaves {rate:.0} of {alone:.0} round trips to others"
        );
    }
    for other in [&mut slow, &mut good] {
        other.tell("end");
    }
    [slow, good].into_iter().for_each(crate::common::Other::finish);
}
