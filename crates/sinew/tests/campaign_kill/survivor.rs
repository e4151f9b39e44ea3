//! The engines that must outlive their peers: one in each way of making progress, and a partner that all of them talk with.
//!
//! Used by the campaigns. Counts what is held before and after each fault.

use crate::common::PATIENCE;
use crate::herd::{Herd, Victim};
use crate::ledger::{self, Ledger};
use crate::rounds::until;
use crate::traffic::{HELLO, PING, fill, is_whole};
use crate::victims;
use sinew::{Endpoint, Engine, Match, OpError, Peer, Progress, RecvOp};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What an engine may remember of a lost peer, so that handles of it can say why: an engine remembers 1,024 of them.
const HEAP_MAX: i64 = 4096;
/// The middle of fewer losses may be one in which a table grew.
const LOSSES_MIN: usize = 30;

/// Names of the ways of making progress, as campaigns print them.
pub(crate) const MODES: [(&str, Progress); 3] =
    [("caller", Progress::Caller), ("thread", Progress::Thread { cpu: None }), ("event", Progress::Event)];

/// Sizes of a talk with the partner: short ones, eager ones, and one that is fetched.
const PINGS: [usize; 6] = [8, 3000, 40, 20_000, 8, 100_000];

/// An engine under test.
pub(crate) struct Survivor {
    pub(crate) mode: &'static str,
    pub(crate) progress: Progress,
    pub(crate) a: Endpoint,
    pub(crate) engine: Engine,
    partner: Peer,
    pings: u64,
    buf: Vec<u8>,
}

/// Everything that a campaign has.
pub(crate) struct World {
    pub(crate) survivors: Vec<Survivor>,
    pub(crate) herd: Herd,
    pub(crate) lane: &'static str,
    pub(crate) folder: PathBuf,
    _partner: Victim,
    before: Ledger,
    files: Vec<String>,
    /// The heap after each loss.
    heap: Vec<i64>,
}

impl World {
    pub(crate) fn new(lane: &'static str, modes: &[(&'static str, Progress)]) -> Self {
        let make = |folder: &Path, progress| victims::engine(lane, folder, progress);
        Self::with(lane, modes, "partner", make)
    }

    /// A world of other engines; `partner` is the role of the process that they talk with.
    pub(crate) fn with(
        lane: &'static str,
        modes: &[(&'static str, Progress)],
        partner: &str,
        make: impl Fn(&Path, Progress) -> Engine,
    ) -> Self {
        let folder = scratch();
        crate::traffic::prepare();
        let mut herd = Herd::start(&folder, lane);
        let partner = herd.victim(crate::herd::SLOTS - 1, partner);
        let survivors = modes.iter().map(|&(mode, progress)| {
            let engine = make(&folder, progress);
            let a = engine.endpoint("a").unwrap();
            let to = a.connect(&partner.address).expect("a path to the partner");
            Survivor { mode, progress, a, engine, partner: to, pings: 0, buf: vec![0; 1 << 20] }
        });
        let mut survivors: Vec<Survivor> = survivors.collect();
        for survivor in &mut survivors {
            survivor.talk(12);
        }
        let files = ledger::sockets(&folder);
        Self {
            survivors,
            herd,
            lane,
            folder,
            _partner: partner,
            before: Ledger::take(),
            files,
            heap: Vec::new(),
        }
    }

    /// What is held now must be what is held after each fault from now on.
    pub(crate) fn settle(&mut self) {
        self.before = Ledger::take();
        self.heap = vec![ledger::heap()];
    }

    /// Checks that nothing is left of the peers that died.
    pub(crate) fn check(&mut self, after: &str) {
        for survivor in &self.survivors {
            let (engine, mode) = (&survivor.engine, survivor.mode);
            until(
                || {
                    engine.process();
                    let counters = engine.counters();
                    (counters.sessions, counters.lanes, counters.operations) == (1, 1, 0)
                },
                || format!("{mode} holds more after {after}: {:?}", engine.counters()),
            );
        }
        self.before.expect(after);
        self.heap.push(ledger::heap());
    }

    /// Bytes of the heap that each of the losses between two checks costs, since [`World::settle`]: the middle of them, as tables
    /// grow once for all.
    pub(crate) fn heap_per_loss(&self, losses: usize) -> i64 {
        let mut costs: Vec<i64> =
            self.heap.windows(2).map(|pair| (pair[1] - pair[0]) / losses as i64).collect();
        costs.sort_unstable();
        let cost = costs.get(costs.len() / 2).copied().unwrap_or(0);
        assert!(cost < HEAP_MAX || costs.len() < LOSSES_MIN, "each loss leaves {cost} bytes of heap behind");
        cost
    }

    /// The socket of whoever dies stays until the next engine starts: after that, no more are there than in the beginning.
    pub(crate) fn check_sockets(&mut self) {
        // One that is still being taken apart by the system may answer once more.
        let left = || ledger::sockets(&self.folder);
        until(
            || {
                drop(victims::engine(self.lane, &self.folder, Progress::Caller));
                left() == self.files
            },
            || format!("sockets of the dead are left in {}: {:?}", self.folder.display(), left()),
        );
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A folder of this process for sockets; short, as socket paths must be.
fn scratch() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("sk{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).expect("made");
    folder
}

impl Survivor {
    /// So many messages there and back, with their contents checked; how many of them in a second.
    pub(crate) fn talk(&mut self, count: u64) -> f64 {
        let from = Match::tag(PING).from(self.partner.source());
        let start = Instant::now();
        for _ in 0..count {
            let (number, len) = (self.pings, PINGS[self.pings as usize % PINGS.len()]);
            fill(&mut self.buf[..len], number);
            self.partner
                .message(PING)
                .timeout(PATIENCE)
                .send(&self.buf[..len])
                .expect("the partner takes it");
            let got = self.a.recv_within(from, &mut self.buf, PATIENCE).expect("the partner answers");
            assert!(got.len == len && is_whole(&self.buf[..len], number), "the talk with the partner");
            self.pings += 1;
        }
        count as f64 / start.elapsed().as_secs_f64()
    }

    /// Connects to a victim and greets it.
    pub(crate) fn meet(&self, victim: &Victim, lane: &str) -> Peer {
        let peer = self.a.connect(&victim.address).expect("a path to the victim");
        let path = peer.path();
        assert!(path.starts_with(lane), "{lane} is wanted, {path} is used:\n{}", peer.explain());
        peer.message(HELLO).send(b"hello").unwrap();
        peer
    }

    /// Waits for a posted receive as an application with this engine's progress does.
    pub(crate) fn wait(&self, mut op: RecvOp, limit: Duration) -> Result<(), OpError> {
        if self.progress != Progress::Event {
            return op.wait_within(limit).map(|_| ()).map_err(|failed| failed.error);
        }
        let start = Instant::now();
        loop {
            if let Some(done) = op.try_wait() {
                return done.map(|_| ()).map_err(|failed| failed.error);
            }
            if start.elapsed() > limit {
                return op.cancel().map(|_| ()).map_err(|failed| failed.error);
            }
            doze(&self.engine);
        }
    }
}

/// One turn of an event loop, which sleeps for a while if nothing is there.
pub(crate) fn doze(engine: &Engine) {
    let Some(armed) = engine.arm() else {
        engine.process();
        return;
    };
    let most = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
    let fd = engine.event_fd();
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let most = armed
        .timeout()
        .map_or(most, |timeout| rustix::event::Timespec::try_from(timeout).unwrap_or(most).min(most));
    let _ = rustix::event::poll(&mut fds, Some(&most));
    armed.process();
}

/// That everything towards a peer that died ends at once, and says so.
pub(crate) fn assert_lost_for_ever(peer: &Peer) {
    for (what, result) in [
        ("send", peer.send(1, b"x")),
        ("a long send", peer.send(1, &vec![0; 200_000])),
        ("try_send", peer.try_send(1, b"x")),
        ("flush", peer.flush()),
    ] {
        assert_lost(what, &result);
    }
    assert!(!peer.is_connected());
}

/// Checks that an operation learned of a death by itself, not because nothing came for long.
pub(crate) fn assert_lost<T: std::fmt::Debug>(what: &str, result: &Result<T, OpError>) {
    match result {
        Err(error @ OpError::PeerLost { .. }) => {
            assert!(!error.to_string().contains("peer_timeout"), "{what} only gave up: {error}");
        }
        other => panic!("{what} towards the dead one: {other:?}"),
    }
}
