//! One send, or one receive, of each tier, whose process is killed at every instruction.
//!
//! A victim gets ready and marks a place; from there it is run instruction by instruction, up to one index, and killed. The
//! next one is killed at the next index. The survivor gets whole messages or none, notices the death, and holds nothing after.

use crate::common::PATIENCE;
use crate::herd::{Diary, Victim, introduce};
use crate::rounds::until;
use crate::route::Route;
use crate::survivor::{Survivor, World, assert_lost};
use crate::tracer::{Stop, Tracee, mark};
use crate::traffic::{FLOW, HELLO, fill, is_whole};
use crate::trap;
use sinew::shm::{CrossRead, ShmOptions, ShmTransport};
use sinew::{
    Buf, Endpoint, Engine, Incoming, Match, OpError, Outgoing, Peer, Progress, Receive, RecvOp, SendOp,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is done at every instruction of which a process dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tier {
    Short,
    TrySend,
    Eager,
    Rendezvous,
    Pipelined,
    Across,
    OneCopy,
    Loan,
    Batch,
    /// A short one for an event loop that sleeps.
    Asleep,
}

/// Longest whole message and longest fragment here: little, so that the instructions that copy are few.
const EAGER_MAX: usize = 1024;
const FRAGMENT: usize = 4096;
/// The survivor makes progress once in so many instructions, where the victim waits for it.
const STEPS_PER_TURN: u64 = 24;
/// More instructions than any victim takes; beyond them it hangs.
pub(crate) const STEPS_MAX: u64 = 2_000_000;
/// The message under test is number 1, 2 and 3.
const FIRST: u64 = 1;

impl Tier {
    pub(crate) fn named(name: &str) -> Self {
        let all = [
            ("short", Self::Short),
            ("try_send", Self::TrySend),
            ("eager", Self::Eager),
            ("rendezvous", Self::Rendezvous),
            ("pipelined", Self::Pipelined),
            ("across", Self::Across),
            ("one_copy", Self::OneCopy),
            ("loan", Self::Loan),
            ("batch", Self::Batch),
            ("asleep", Self::Asleep),
        ];
        all.into_iter().find(|(known, _)| *known == name).expect("the name of a tier").1
    }

    const fn lens(self) -> &'static [usize] {
        match self {
            Self::Short | Self::TrySend | Self::Asleep => &[24],
            Self::Eager => &[700],
            Self::Rendezvous | Self::OneCopy | Self::Loan => &[1400],
            Self::Pipelined | Self::Across => &[FRAGMENT + 700],
            Self::Batch => &[24, 300, 40],
        }
    }

    /// Whether one side waits for the other in the middle.
    pub(crate) const fn is_fetched(self) -> bool {
        matches!(self, Self::Rendezvous | Self::Pipelined | Self::Across | Self::OneCopy | Self::Loan)
    }

    const fn is_from_pool(self) -> bool {
        matches!(self, Self::OneCopy | Self::Loan)
    }
}

/// An engine of this campaign.
pub(crate) fn engine(folder: &Path, spin: Duration, progress: Progress) -> Engine {
    let shm = ShmOptions {
        runtime_dir: Some(folder.to_owned()),
        frame_max: FRAGMENT,
        chunk_max: FRAGMENT,
        cross_read: std::env::var("SINEW_SHM_CROSS_READ")
            .map_or(CrossRead::Off, |text| text.parse().unwrap()),
        ..ShmOptions::default()
    };
    let options = crate::victims::options(folder).eager_max(EAGER_MAX).spin(spin);
    let builder = Engine::builder().domain("kill").progress(progress).options(options);
    builder.without_own_transports().transport(ShmTransport::new(shm)).build().expect("an engine")
}

fn message(len: usize, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(&mut bytes, number);
    bytes
}

fn pooled(to: &Peer, len: usize, number: u64) -> Buf {
    let mut buf = to.alloc(len).expect("a pool buffer");
    fill(buf.as_mut_slice().expect("writable"), number);
    buf
}

/// How a victim is run in steps.
struct Way<'a> {
    pid: i32,
    traced: bool,
    diary: &'a Diary,
}

impl Way<'_> {
    fn begin(&self) {
        if self.traced {
            return mark(self.pid);
        }
        self.diary.ready.store(1, Ordering::Release);
        while self.diary.go.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        trap::begin(self.diary, self.pid);
    }

    fn end(&self) {
        if self.traced {
            return mark(self.pid);
        }
        trap::end();
        self.diary.done.store(1, Ordering::Release);
    }
}

/// The body of a victim: `send:short` and so on. It says nothing of its end: it is killed.
/// With `traced` it waits for its tracer, else it counts its own steps.
pub(crate) fn victim(what: &str, traced: bool, folder: &Path, diary: &Diary) {
    let (side, tier) = what.split_once(':').expect("a side and a tier");
    let tier = Tier::named(tier);
    let progress = if tier == Tier::Asleep { Progress::Event } else { Progress::Caller };
    let engine = engine(folder, PATIENCE, progress);
    let endpoint = engine.endpoint("victim").unwrap();
    introduce(endpoint.address());
    let source = endpoint.recv_within(HELLO, &mut [0; 8], PATIENCE).expect("a greeting").source;
    let to = endpoint.reply_to(source).unwrap();
    // What a first message needs is made before.
    to.send(FLOW, &message(24, 0)).unwrap();
    endpoint.recv_within(FLOW, &mut [0; 24], PATIENCE).unwrap();
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let way = Way { pid, traced, diary };
    if side == "send" {
        send(&to, tier, &way)
    } else {
        receive((&engine, &endpoint), tier, &way)
    }
    loop {
        std::thread::park();
    }
}

fn send(to: &Peer, tier: Tier, way: &Way<'_>) {
    let messages: Vec<Vec<u8>> =
        (FIRST..).zip(tier.lens()).map(|(number, &len)| message(len, number)).collect();
    let batch: Vec<Outgoing<'_>> = messages.iter().map(|bytes| Outgoing::tagged(FLOW, bytes)).collect();
    let buf = tier.is_from_pool().then(|| pooled(to, tier.lens()[0], FIRST));
    way.begin();
    let sent = match (tier, buf) {
        (_, Some(buf)) => to.post_send(FLOW, buf).and_then(SendOp::wait).map(drop).map_err(OpError::from),
        (Tier::TrySend, None) => to.try_send(FLOW, &messages[0]),
        (Tier::Batch, None) => to.send_batch(&batch).map_err(OpError::from),
        (_, None) => to.send(FLOW, &messages[0]),
    };
    way.end();
    way.diary.wrong.store(u64::from(sent.is_err()), Ordering::Release);
}

fn receive((engine, at): (&Engine, &Endpoint), tier: Tier, way: &Way<'_>) {
    let mut bufs: Vec<Vec<u8>> = tier.lens().iter().map(|&len| vec![0; len]).collect();
    let mut receives: Vec<Receive<'_>> = Vec::new();
    let mut buf = vec![0; tier.lens()[0]];
    if tier == Tier::Batch {
        receives = bufs.iter_mut().map(|buf| Receive::new(FLOW, buf)).collect();
    }
    way.begin();
    let got = match tier {
        Tier::Batch => at.recv_all(&mut receives).map(drop),
        Tier::Loan => at.recv_message(FLOW, buf.len()).map(|message| {
            message.read_at(0, &mut buf);
        }),
        Tier::Asleep => loop {
            crate::survivor::doze(engine);
            match at.try_recv(FLOW, &mut buf) {
                Err(OpError::WouldBlock) => {}
                got => break got.map(drop),
            }
        },
        _ => at.recv(FLOW, &mut buf).map(drop),
    };
    way.end();
    let whole = tier == Tier::Batch || is_whole(&buf, FIRST);
    way.diary.wrong.store(u64::from(got.is_err() || !whole), Ordering::Release);
}

/// The survivor's part of a round, while the victim is run.
enum Part {
    /// Nothing to do before it is dead.
    Nothing,
    /// A receive of what is fetched.
    Receives(RecvOp),
    /// A receive in place, when there is something: what it reads, and whether it has.
    Views(Option<Incoming>, bool),
    /// Sends that the victim receives.
    Sends(Option<SendOp>),
}

/// A thread that sends a message to a victim as soon as that sleeps: who traces it waits for it meanwhile.
struct Waker {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Waker {
    fn start(pid: i32, peer: &Peer) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (seen, peer) = (Arc::clone(&over), peer.clone());
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Acquire) {
                if crate::herd::is_asleep(pid) {
                    return peer.send(FLOW, &message(24, FIRST)).expect("it lives");
                }
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        assert!(ended.is_ok() || std::thread::panicking(), "the sleeper could not be woken");
    }
}

/// One victim, killed after `limit` instructions of its operation, or when that is over.
pub(crate) struct Round {
    /// Instructions that were run in steps.
    pub(crate) steps: u64,
    /// Killed before the operation was over.
    pub(crate) inside: bool,
    /// The address of the instruction before which it was, and one of its program, where it told them.
    pub(crate) place: u64,
    pub(crate) program: u64,
    /// Messages that the survivor got, or that it sent with success.
    pub(crate) whole: usize,
    pub(crate) died: Duration,
}

/// Runs one victim and ends it.
pub(crate) fn round(world: &mut World, (what, traced): (&str, bool), tier: Tier, route: Route) -> Round {
    let sends = what.starts_with("send");
    let victim = world.herd.victim(0, &format!("{} {what}", if traced { "trace" } else { "step" }));
    let tracee = traced.then(|| Tracee::seize(victim.pid).expect("it could be traced before"));
    let (survivor, diary) = (&mut world.survivors[0], world.herd.diaries.of(0));
    let peer = survivor.meet(&victim, "shm");
    let from = Match::tag(FLOW).from(peer.source());
    survivor.a.recv_within(from, &mut [0; 24], PATIENCE).expect("its first message");
    peer.send(FLOW, &message(24, 0)).unwrap();
    let way = peer.explain().way(tier.lens()[0]).expect("a way").way.contains("across");
    assert_eq!(way, tier == Tier::Across, "{}", peer.explain());
    let make = || if sends { expect(survivor, from, tier) } else { offer(&peer, tier) };
    let waker = || (tier == Tier::Asleep).then(|| Waker::start(victim.pid, &peer));
    let run = Run { survivor, from, route, make: &make, waker: &waker };
    let (part, steps, inside, at) = match tracee {
        Some(tracee) => run.traced(tracee),
        None => run.alone(diary, &victim),
    };
    let whole = if sends { part.received(survivor, from, tier) } else { part.sent(tier) };
    assert_lost("a receive", &survivor.a.recv_within(from, &mut [0; 8], PATIENCE));
    assert_lost("a send", &peer.send(FLOW, b"x"));
    assert_lost("a flush", &peer.flush());
    let all = route.steps == STEPS_MAX;
    assert!(!all || whole == tier.lens().len(), "a whole operation moved {whole} messages");
    let (place, program) = (diary.place.load(Ordering::Acquire), diary.program.load(Ordering::Acquire));
    Round { steps, inside, place, program, whole, died: at.elapsed() }
}

/// A victim that is ready, and what is to be done with it.
struct Run<'a> {
    survivor: &'a Survivor,
    from: Match,
    route: Route,
    make: &'a dyn Fn() -> Part,
    waker: &'a dyn Fn() -> Option<Waker>,
}

impl Run<'_> {
    /// Runs it by ptrace. Answers the survivor's part, the steps, whether it was killed inside, and when.
    fn traced(&self, mut tracee: Tracee) -> (Part, u64, bool, Instant) {
        let stop = tracee.first(|| {
            self.survivor.engine.progress();
        });
        assert_eq!(stop, Stop::Marked, "the victim gets ready");
        let mut part = (self.make)();
        let (mut steps, mut inside) = (0, true);
        let waker = (self.waker)();
        while steps < self.route.steps && inside {
            match tracee.step() {
                Stop::Stepped => steps += 1,
                Stop::Marked => inside = false,
                Stop::Gone => panic!("a victim died by itself after {steps} instructions"),
            }
            if steps.is_multiple_of(STEPS_PER_TURN) {
                part.turn(self.survivor, self.from);
            }
        }
        drop(waker);
        let at = Instant::now();
        tracee.kill();
        (part, steps, inside, at)
    }

    /// Lets it run itself, with the survivor beside it.
    fn alone(&self, diary: &Diary, victim: &Victim) -> (Part, u64, bool, Instant) {
        let is = |word: &std::sync::atomic::AtomicU64| word.load(Ordering::Acquire) != 0;
        until(
            || {
                self.survivor.engine.progress();
                is(&diary.ready)
            },
            || "the victim gets ready".to_owned(),
        );
        let mut part = (self.make)();
        diary.at.store(self.route.at, Ordering::Release);
        diary.passes.store(self.route.passes, Ordering::Release);
        diary.limit.store(self.route.steps, Ordering::Release);
        let waker = (self.waker)();
        diary.go.store(1, Ordering::Release);
        until(
            || {
                part.turn(self.survivor, self.from);
                is(&diary.done) || is(&diary.dying)
            },
            || "the victim is at its end".to_owned(),
        );
        drop(waker);
        let at = Instant::now();
        victim.signal(libc::SIGKILL);
        (part, diary.steps.load(Ordering::Acquire), !is(&diary.done), at)
    }
}

/// What the survivor does for a victim that sends.
fn expect(survivor: &Survivor, from: Match, tier: Tier) -> Part {
    match tier {
        Tier::Loan => Part::Views(None, false),
        _ if tier.is_fetched() => {
            Part::Receives(survivor.a.post_recv(from, vec![0; tier.lens()[0]]).unwrap())
        }
        _ => Part::Nothing,
    }
}

/// What the survivor does for a victim that receives.
fn offer(peer: &Peer, tier: Tier) -> Part {
    let len = tier.lens()[0];
    if tier == Tier::Asleep {
        return Part::Nothing;
    }
    if tier.is_fetched() {
        let buf = if tier.is_from_pool() { pooled(peer, len, FIRST) } else { message(len, FIRST).into() };
        return Part::Sends(Some(peer.post_send(FLOW, buf).unwrap()));
    }
    for (number, &len) in (FIRST..).zip(tier.lens()) {
        peer.send(FLOW, &message(len, number)).unwrap();
    }
    Part::Sends(None)
}

impl Part {
    /// A turn of the survivor in the middle.
    fn turn(&mut self, survivor: &Survivor, from: Match) {
        match self {
            Self::Nothing | Self::Sends(None) => {}
            Self::Receives(_) | Self::Sends(Some(_)) => {
                survivor.engine.progress();
            }
            Self::Views(view, seen) => {
                // What was read is given back one turn later.
                if view.take().is_none() && survivor.a.probe(from).is_some() {
                    *view = survivor.a.recv_message_within(from, FRAGMENT, Duration::ZERO).ok();
                    *seen = view.is_some();
                    let whole = |view: &Incoming| view.is_lent() && is_whole(&view.to_vec(), FIRST);
                    assert!(view.as_ref().is_none_or(whole), "a loan that is torn, or no loan");
                }
                survivor.engine.progress();
            }
        }
    }

    /// Whole messages that a dead sender has left; anything else fails.
    fn received(self, survivor: &Survivor, from: Match, tier: Tier) -> usize {
        let check = |bytes: &[u8], at: usize| {
            assert!(
                bytes.len() == tier.lens()[at] && is_whole(bytes, FIRST + at as u64),
                "message {at} is torn"
            );
        };
        match self {
            Self::Receives(op) => match op.wait_within(PATIENCE) {
                Ok(got) => {
                    check(&got.buf, 0);
                    1
                }
                Err(failed) => {
                    assert_lost("a fetch", &Err::<(), _>(failed.error));
                    0
                }
            },
            Self::Views(view, seen) => {
                if let Some(view) = view {
                    check(&view.to_vec(), 0);
                }
                if seen {
                    return 1;
                }
                match survivor.a.recv_message_within(from, FRAGMENT, PATIENCE) {
                    Ok(view) => {
                        check(&view.to_vec(), 0);
                        1
                    }
                    Err(error) => {
                        assert_lost("a receive in place", &Err::<(), _>(error));
                        0
                    }
                }
            }
            Self::Nothing | Self::Sends(_) => {
                let mut buf = vec![0; FRAGMENT];
                for at in 0..=tier.lens().len() {
                    match survivor.a.recv_within(from, &mut buf, PATIENCE) {
                        Ok(got) => check(&buf[..got.len], at),
                        Err(error) => {
                            assert_lost("a receive", &Err::<(), _>(error));
                            return at;
                        }
                    }
                }
                panic!("more messages than were sent")
            }
        }
    }

    /// How the send to a dead receiver ended.
    fn sent(self, tier: Tier) -> usize {
        let Self::Sends(Some(op)) = self else { return tier.lens().len() };
        match op.wait_within(PATIENCE) {
            Ok(buf) => {
                assert!(is_whole(&buf, FIRST), "memory of a send was written");
                1
            }
            Err(failed) => {
                assert!(is_whole(&failed.buf, FIRST), "memory of a send was written");
                assert_lost("a send", &Err::<(), _>(failed.error));
                0
            }
        }
    }
}
