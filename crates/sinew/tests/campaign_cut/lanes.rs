//! Lanes that come and go under load: shared memory is cut, the session goes on over TCP, and back when shared memory works
//! again. Messages of every class, loans among them, in both directions.
//!
//! What keeps shared memory from being dialled is that its sockets are moved away: nobody is found where they were.

use crate::campaign::{rounds, seed};
use crate::common::{PATIENCE, until};
use crate::stream::{Counts, FLOWS, body, drink, pour};
use crate::times::spread;
use sinew::{Endpoint, Engine, EngineOptions, Peer, Progress};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where the engines' sockets are, until they are moved away.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("sinew-cut-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn away(&self) -> PathBuf {
        self.0.with_extension("away")
    }

    fn move_away(&self) {
        std::fs::rename(&self.0, self.away()).unwrap();
    }

    fn move_back(&self) {
        std::fs::rename(self.away(), &self.0).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for path in [self.0.clone(), self.away()] {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

fn engine(place: &Path) -> Engine {
    Engine::builder()
        .domain("lanes")
        .progress(Progress::Thread { cpu: None })
        // Little is copied while a receiver is kept from running: it is fetched one by one afterwards.
        .options(
            EngineOptions::default()
                .timeout(PATIENCE)
                .send_buffer(64usize << 10)
                .runtime_dir(place.join("sinew")),
        )
        .transports(["shm", "tcp"])
        .build()
        .unwrap()
}

/// One engine's ends of all flows. The last flow is of loans.
struct Ends {
    engine: Engine,
    endpoints: Vec<Endpoint>,
    peers: Vec<Peer>,
    counts: Counts,
}

const LOANS: usize = FLOWS - 1;

/// As [`pour`], from memory of the engine's pool, read or pulled where it is.
fn pour_loans(to: &Peer, counts: &Counts) {
    for number in 0.. {
        let stop = counts.stop.load(Ordering::Acquire);
        let tag = if stop { crate::stream::END } else { 1 };
        let content = if stop { &[][..] } else { body(LOANS, number) };
        let mut buf = to.alloc(content.len()).expect("a pool buffer");
        buf.as_mut_slice().expect("writable").copy_from_slice(content);
        let sent = to.message(tag).immediate(number).post(buf).expect("posted");
        sent.wait_within(PATIENCE).expect("the session lives");
        if stop {
            return;
        }
        counts.sent[LOANS].fetch_add(1, Ordering::Release);
    }
}

fn on_path(ends: &[Ends; 2], transport: &str) -> bool {
    ends.iter().all(|ends| ends.peers[0].path().starts_with(transport))
}

/// Two engines with all flows between them, on shared memory.
fn pair(place: &Place) -> [Ends; 2] {
    let engines = [engine(&place.0), engine(&place.0)];
    let endpoints =
        engines.each_ref().map(|engine| (0..FLOWS).map(|_| engine.endpoint("").unwrap()).collect::<Vec<_>>());
    let peers = [(0, 1), (1, 0)].map(|(from, to): (usize, usize)| {
        let ways = endpoints[from].iter().zip(&endpoints[to]);
        ways.map(|(at, other)| at.connect(other.address()).unwrap()).collect::<Vec<_>>()
    });
    let mut parts = engines.into_iter().zip(endpoints).zip(peers);
    let ends: [Ends; 2] = std::array::from_fn(|_| {
        let ((engine, endpoints), peers) = parts.next().expect("two");
        Ends { engine, endpoints, peers, counts: Counts::default() }
    });
    // Another lane may have been proven first.
    until("shared memory carries it", || on_path(&ends, "shm"));
    ends
}

fn now(counts: &[AtomicU64; FLOWS]) -> [u64; FLOWS] {
    counts.each_ref().map(|count| count.load(Ordering::Acquire))
}

/// Waits until each flow has had more messages, both ways.
fn flow_on(ends: &[Ends; 2]) {
    let received = |ends: &Ends| now(&ends.counts.received);
    let before = ends.each_ref().map(received);
    until("messages flow both ways", || {
        let pairs = ends.iter().zip(&before);
        pairs
            .flat_map(|(ends, before)| received(ends).into_iter().zip(*before))
            .all(|(now, before)| now > before)
    });
}

/// What the rounds took.
#[derive(Default)]
struct Taken {
    cuts: u64,
    to_tcp: Vec<Duration>,
    to_shm: Vec<Duration>,
}

fn cut_and_return(ends: &[Ends; 2], place: &Place, rounds: u64) -> Taken {
    let mut taken = Taken::default();
    flow_on(ends);
    for round in 0..rounds {
        let cutter = &ends[round as usize % 2];
        place.move_away();
        let start = Instant::now();
        until("shared memory is left", || {
            taken.cuts += u64::from(!on_path(ends, "tcp") && cutter.engine.cut(&cutter.peers[0]));
            on_path(ends, "tcp")
        });
        taken.to_tcp.push(start.elapsed());
        flow_on(ends);
        if round % 3 == 1 {
            // The other lane as well, while the first is away.
            taken.cuts += u64::from(cutter.engine.cut(&cutter.peers[0]));
        }
        place.move_back();
        let start = Instant::now();
        until("shared memory is back", || on_path(ends, "shm"));
        taken.to_shm.push(start.elapsed());
        flow_on(ends);
    }
    taken
}

#[test]
fn shm_cut_moves_to_tcp_and_back_and_loses_nothing() {
    let (rounds, seed) = (rounds(), seed());
    let place = Place::new();
    let ends = pair(&place);
    let mut taken = std::thread::scope(|scope| {
        let mut streams = Vec::new();
        for ends in &ends {
            for flow in 0..FLOWS {
                let (at, peer) = (&ends.endpoints[flow], &ends.peers[flow]);
                streams.push(scope.spawn(move || drink(at, peer, flow, &ends.counts)));
                streams.push(scope.spawn(move || match flow {
                    LOANS => pour_loans(peer, &ends.counts),
                    _ => pour(peer, flow, &ends.counts),
                }));
            }
        }
        let taken = catch_unwind(AssertUnwindSafe(|| cut_and_return(&ends, &place, rounds)));
        ends.iter().for_each(|ends| ends.counts.stop.store(true, Ordering::Release));
        streams.into_iter().for_each(|stream| stream.join().unwrap());
        taken.unwrap_or_else(|panic| resume_unwind(panic))
    });
    for (from, to) in [(0, 1), (1, 0)] {
        let (sent, received) = (now(&ends[from].counts.sent), now(&ends[to].counts.received));
        assert_eq!(sent, received, "sent there and received here");
    }
    let counters = ends.each_ref().map(|ends| ends.engine.counters());
    assert_eq!(counters.map(|counters| counters.sessions_lost), [0, 0], "a session outlives its lanes");
    let messages: u64 = ends.iter().flat_map(|ends| now(&ends.counts.sent)).sum();
    println!(
        "campaign cut/shm to tcp and back: {rounds} rounds, {} cuts, 0 lost, 0 doubled, 0 out of order of {messages} messages, {} frames sent again, on tcp after {}, back after {}, seed {seed}",
        taken.cuts,
        counters[0].replayed + counters[1].replayed,
        spread(&mut taken.to_tcp),
        spread(&mut taken.to_shm),
    );
    assert!(taken.cuts >= rounds);
}
