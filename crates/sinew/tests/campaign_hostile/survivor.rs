//! The engine under attack, with an honest peer whose every message is verified, and with threads that receive whatever the hostile
//! peer sends and answer it.

use crate::common::{PATIENCE, content, engine_with, options, until};
use crate::peer::is_whole;
use sinew::{Endpoint, Engine, Match, OpError, Peer, Progress};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const THREAD: Progress = Progress::Thread { cpu: None };

/// What is counted while it is under attack.
#[derive(Default)]
pub(crate) struct Tally {
    /// Messages to and from the honest peer, each verified.
    pub(crate) honest: AtomicU64,
    /// Messages of the hostile peer that were as it had sent them, and others.
    pub(crate) whole: AtomicU64,
    pub(crate) garbled: AtomicU64,
    /// Why sessions with it ended.
    pub(crate) reasons: Mutex<BTreeSet<String>>,
    stop: AtomicBool,
}

impl Tally {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Operations with the hostile peer may fail, in ways that have names.
    fn ended(&self, error: &OpError) {
        if let OpError::PeerLost { reason, .. } = error {
            let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
            if reasons.len() < 64 {
                reasons.insert(reason.clone());
            }
        }
    }
}

pub(crate) struct Survivor {
    pub(crate) engine: Engine,
    pub(crate) tally: Arc<Tally>,
    prey: Arc<Endpoint>,
    honest: Engine,
    threads: Vec<JoinHandle<()>>,
    descriptors: usize,
    lost_before: u64,
    /// Of the honest peer: a candidate that another one has overtaken counts.
    lanes_lost_before: u64,
    /// One campaign at a time in a process, as its descriptors are counted.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());
/// The engine under attack, and the endpoint that the hostile peer sends to.
static ATTACKED: Mutex<Option<(Engine, Arc<Endpoint>)>> = Mutex::new(None);

/// How the engine under attack stands, for who waits for it in vain.
pub(crate) fn state() -> String {
    let attacked = ATTACKED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((engine, prey)) = &*attacked else { return String::new() };
    format!("{:#?}\n{:#?}\n{:#?}", prey.counters(), engine.counters(), engine.lanes())
}

impl Survivor {
    pub(crate) fn new(lane: &str) -> Self {
        Self::of(|| engine_with(lane, THREAD, options()))
    }

    /// An engine under attack and an honest one, both made by `make`.
    pub(crate) fn of(make: impl Fn() -> Engine) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (engine, honest) = (make(), make());
        let (main, prey) = (engine.endpoint("main").unwrap(), engine.endpoint("prey").unwrap());
        let friend = honest.endpoint("friend").unwrap();
        let to_main = friend.connect(main.address()).expect("a path");
        to_main.send(0, b"hello").unwrap();
        let source = main.recv_within(0, &mut [0; 8], PATIENCE).unwrap().source;
        let to_friend = main.reply_to(source).unwrap();
        let tally = Arc::new(Tally::default());
        let prey = Arc::new(prey);
        let mut threads = vec![
            serve(Arc::clone(&tally), Arc::clone(&prey)),
            keep(Arc::clone(&tally), Arc::clone(&prey), engine.clone()),
        ];
        let (there, here) = (Arc::clone(&tally), Arc::clone(&tally));
        threads
            .push(std::thread::spawn(move || echo(&here, &main, Match::any_tag().from(source), &to_friend)));
        threads.push(std::thread::spawn(move || ask(&there, &friend, &to_main)));
        let (descriptors, lost_before, lanes_lost_before) = (0, 0, 0);
        let mut survivor = Self {
            engine,
            tally,
            prey,
            honest,
            threads,
            descriptors,
            lost_before,
            lanes_lost_before,
            _alone: alone,
        };
        survivor.goes_on();
        until("the candidates are decided", || {
            survivor.engine.counters().lanes == 1 && survivor.honest.counters().lanes == 1
        });
        *ATTACKED.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((survivor.engine.clone(), Arc::clone(&survivor.prey)));
        survivor.descriptors = self::descriptors();
        survivor.lost_before = survivor.engine.counters().sessions_lost;
        survivor.lanes_lost_before = survivor.honest.counters().lanes_lost;
        survivor
    }

    pub(crate) fn address(&self) -> String {
        self.prey.address().to_string()
    }

    pub(crate) fn sessions_lost(&self) -> u64 {
        self.engine.counters().sessions_lost - self.lost_before
    }

    /// The honest peer gets its answers.
    pub(crate) fn goes_on(&self) {
        let now = self.tally.honest.load(Ordering::Acquire);
        until("the honest peer goes on", || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a thread has ended");
            self.tally.honest.load(Ordering::Acquire) > now + 2
        });
    }

    /// The hostile peer is gone for good: nothing of it is left, and the honest one has lost nothing.
    pub(crate) fn finish(mut self) -> Arc<Tally> {
        self.goes_on();
        until("only the honest peer is left", || {
            let now = self.engine.counters();
            now.sessions == 1 && now.lanes == 1
        });
        until("its descriptors are closed", || descriptors() <= self.descriptors);
        assert_eq!(self.honest.counters().sessions_lost, 0);
        assert_eq!(self.honest.counters().lanes_lost, self.lanes_lost_before);
        *ATTACKED.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.tally.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread that serves");
        }
        until("no operation is left", || self.engine.counters().operations == 0);
        Arc::clone(&self.tally)
    }
}

/// Open descriptors but those of the engine's own pool, whose segments belong to whichever peer is lent to first.
fn descriptors() -> usize {
    let of_pool = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("sinew-segment"))
    };
    std::fs::read_dir("/proc/self/fd").expect("proc").flatten().filter(|entry| !of_pool(entry)).count()
}

/// Lengths of honest messages: in a slot, through both windows, fetched.
const LENS: [usize; 6] = [8, 40, 300, 3000, 40_000, 150_000];

fn ask(tally: &Tally, at: &Endpoint, to: &Peer) {
    let mut buf = vec![0; 1 << 18];
    for round in 1u64.. {
        let len = LENS[(round % if round.is_multiple_of(16) { 6 } else { 4 }) as usize];
        let data = content(len, round);
        to.message(round).timeout(PATIENCE).send(&data).expect("the honest peer is served");
        let got = at.recv_within(round, &mut buf, PATIENCE).expect("an answer to the honest peer");
        assert!(buf[..got.len] == data[..], "answer {round} to the honest peer is another one");
        tally.honest.fetch_add(1, Ordering::AcqRel);
        if tally.stopped() {
            to.message(u64::MAX).timeout(PATIENCE).send(b"over").expect("the end");
            return;
        }
    }
}

/// Answers the honest peer with what it said, after it was verified.
fn echo(tally: &Tally, at: &Endpoint, of: Match, to: &Peer) {
    let mut buf = vec![0; 1 << 18];
    for round in 1u64.. {
        let got = at.recv_within(of, &mut buf, PATIENCE).expect("a message of the honest peer");
        if got.tag == u64::MAX {
            return;
        }
        assert_eq!(got.tag, round, "messages of the honest peer in order");
        assert!(
            buf[..got.len] == content(got.len, round)[..],
            "message {round} of the honest peer is another one"
        );
        to.message(round).timeout(PATIENCE).send(&buf[..got.len]).expect("the honest peer is served");
        tally.honest.fetch_add(1, Ordering::AcqRel);
    }
}

const SHORT: Duration = Duration::from_millis(5);

/// Receives what the hostile peer sends into a buffer, and answers now and then.
fn serve(tally: Arc<Tally>, at: Arc<Endpoint>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buf = vec![0; 1 << 18];
        for round in 0u64.. {
            if tally.stopped() {
                return;
            }
            let got = match at.recv_within(Match::any_tag(), &mut buf, SHORT) {
                Ok(got) => got,
                Err(error) => {
                    tally.ended(&error);
                    continue;
                }
            };
            let kind = if is_whole(&buf[..got.len]) { &tally.whole } else { &tally.garbled };
            kind.fetch_add(1, Ordering::Relaxed);
            if !round.is_multiple_of(8) {
                continue;
            }
            let len = [8, 100, 2000, 30_000][(round / 8 % 4) as usize];
            let answered =
                at.reply_to(got.source).and_then(|to| to.message(round).timeout(SHORT).send(&buf[..len]));
            answered.unwrap_or_else(|error| tally.ended(&error));
        }
    })
}

/// Receives in place, and lends.
fn keep(tally: Arc<Tally>, at: Arc<Endpoint>, engine: Engine) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for round in 0u64.. {
            if tally.stopped() {
                return;
            }
            let got = match at.recv_message_within(Match::any_tag(), 1 << 18, SHORT) {
                Ok(got) => got,
                Err(error) => {
                    tally.ended(&error);
                    continue;
                }
            };
            let kind = if is_whole(&got.to_vec()) { &tally.whole } else { &tally.garbled };
            kind.fetch_add(1, Ordering::Relaxed);
            if !round.is_multiple_of(16) {
                continue;
            }
            let Ok(to) = at.reply_to(got.info().source) else { continue };
            let len = [20_000, 200_000][(round / 16 % 2) as usize];
            let lent = if round.is_multiple_of(32) { to.alloc(len) } else { engine.alloc(len) };
            let Ok(lent) = lent else { continue };
            match to.post_send(round, lent) {
                Ok(op) => drop(op.wait_within(SHORT).map_err(|failed| tally.ended(&failed.error))),
                Err(failed) => tally.ended(&failed.error),
            }
        }
    })
}
