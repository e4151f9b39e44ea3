//! What every cell has: the engine under test (A), a third engine that talks with it all the while (C), and numbered messages.
//!
//! Used by the scenarios in `events`. It knows nothing of forms but which progress they want.

use crate::common::{PATIENCE, until};
use crate::forms::{Form, Wanted};
use crate::quarantine;
use sinew::{Buf, Endpoint, Engine, EngineOptions, Handler, Match, OpError, Peer, Progress};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) const THREAD: Progress = Progress::Thread { cpu: None };
/// A deadline that is meant to pass.
pub(crate) const SHORT: Duration = Duration::from_millis(8);

/// Credit of an endpoint, in bytes.
const WINDOW: usize = 128 << 10;

/// Tags. A stream ends with a message of the tag after its own.
pub(crate) const HELLO: u64 = 0x10;
pub(crate) const FLOW: u64 = 0x20;
pub(crate) const FLOW_END: u64 = 0x21;
/// Nobody sends it until the fault is over.
pub(crate) const LATE: u64 = 0x30;
/// Wanted from anybody; C sends it.
pub(crate) const ANYBODY: u64 = 0x31;
pub(crate) const AFTER: u64 = 0x32;
pub(crate) const BOMB: u64 = 0x33;
const CALM: u64 = 0x40;
const CALM_BACK: u64 = 0x41;

/// How long messages are, and where they lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// 8 bytes.
    Small,
    /// 32 KiB: whole frames, within credit.
    Eager,
    /// 1.5 MiB: fetched by the receiver, in pieces.
    Long,
    /// 1 MiB from the engine's pool: read or pulled where it is.
    Loan,
}

impl Size {
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Small => 8,
            Self::Eager => 32 << 10,
            Self::Long => 3 << 19,
            Self::Loan => 1 << 20,
        }
    }

    /// Messages of a stream that are enough to be under load.
    pub(crate) const fn many(self) -> u64 {
        match self {
            Self::Small => 60,
            Self::Eager => 24,
            Self::Long | Self::Loan => 5,
        }
    }

    /// Whether a message waits with its sender until somebody receives it.
    pub(crate) const fn is_fetched(self) -> bool {
        matches!(self, Self::Long | Self::Loan)
    }

    pub(crate) fn named(name: &str) -> Self {
        let all = [Self::Small, Self::Eager, Self::Long, Self::Loan];
        all.into_iter().find(|size| format!("{size:?}") == name).expect("the name of a size")
    }
}

/// Which cell of the matrix runs.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) form: &'static str,
    pub(crate) lane: &'static str,
    pub(crate) size: Size,
}

impl Cell {
    pub(crate) const fn new(form: &'static str, lane: &'static str, size: Size) -> Self {
        Self { form, lane, size }
    }
}

/// Little credit and no copies beyond it, so that messages of every size can be made to wait for their receiver.
pub(crate) fn options() -> EngineOptions {
    EngineOptions::default()
        .timeout(Duration::from_secs(20 * sinew_testing::SLOWNESS))
        .endpoint_window(WINDOW)
        .send_buffer(0usize)
        .spin(Duration::from_micros(30))
}

pub(crate) fn engine(lane: &str, progress: Progress, options: EngineOptions) -> Engine {
    // An engine that talks to itself needs no lane; shared memory gives it a pool.
    let lane = if lane == "self" { "shm" } else { lane };
    Engine::builder()
        .domain("matrix")
        .progress(progress)
        .options(options)
        .transports([lane])
        .build()
        .expect("an engine")
}

/// What all contents are cut from.
fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| crate::common::content(Size::Long.bytes() + 4096, 7))
}

/// Fills `bytes` with the content of message `number`.
pub(crate) fn fill(bytes: &mut [u8], number: u64) {
    let (head, rest) = bytes.split_at_mut(8);
    head.copy_from_slice(&number.to_le_bytes());
    rest.copy_from_slice(&noise()[number as usize % 4096..][..rest.len()]);
}

/// The number of a message whose content is whole.
pub(crate) fn number_of(bytes: &[u8]) -> u64 {
    let (head, rest) = bytes.split_at(8);
    let number = u64::from_le_bytes(head.try_into().expect("8 bytes"));
    assert!(rest == &noise()[number as usize % 4096..][..rest.len()], "content of message {number}");
    number
}

/// Message `number`, in memory of the kind that its size says.
pub(crate) fn load(to: &Peer, size: Size, number: u64) -> Buf {
    let len = size.bytes();
    let mut buf = match size {
        Size::Loan => to.alloc(len).expect("a pool buffer"),
        _ => Buf::from(vec![0; quarantine::room(len)]),
    };
    buf.set_len(len);
    fill(buf.as_mut_slice().expect("writable"), number);
    buf
}

pub(crate) fn is_lost(error: &OpError) -> bool {
    matches!(error, OpError::PeerLost { .. })
}

/// Checks that an operation learned of a death by itself, not because nothing came for long.
pub(crate) fn assert_lost(what: &str, result: &Result<usize, OpError>) {
    match result {
        Err(error) if is_lost(error) => {
            assert!(!error.to_string().contains("peer_timeout"), "{what} only gave up: {error}");
        }
        other => panic!("{what} towards the dead one: {other:?}"),
    }
}

/// Sends what the receiver does not take until it has no credit left; how many that were. What is fetched needs none.
pub(crate) fn fill_up(to: &Peer, size: Size) -> u64 {
    if size.is_fetched() {
        return 0;
    }
    // A message costs its length and 64 bytes more.
    let most = (WINDOW / (size.bytes() + 64)) as u64;
    let mut bytes = vec![0; size.bytes()];
    for number in 0..most {
        fill(&mut bytes, number);
        to.message(FLOW).timeout(PATIENCE).send(&bytes).expect("there is credit");
    }
    assert!(
        matches!(to.try_send(FLOW, &bytes), Err(OpError::WouldBlock)),
        "more credit than there should be"
    );
    most
}

/// A third engine and its talk with the survivor: nothing of it is lost, doubled, garbled or out of order.
pub(crate) struct Calm {
    shared: Arc<CalmShared>,
    thread: Option<JoinHandle<()>>,
    /// From C to A, for messages beside the talk.
    pub(crate) to_a: Peer,
    handler: Option<Handler>,
    _c: Endpoint,
    engine: Engine,
}

#[derive(Default)]
struct CalmShared {
    stop: AtomicBool,
    rounds: AtomicU64,
    /// Held in each round.
    turn: Mutex<()>,
}

/// Short ones, and now and then one that is fetched.
const CALM_SIZES: [usize; 5] = [8, 3000, 20_000, 8, 100_000];

fn calm_round(to_c: &Peer, a: &Endpoint, round: u64, buf: &mut [u8]) {
    let sizes = if round % 8 == 7 { &CALM_SIZES[..] } else { &CALM_SIZES[..4] };
    let messages = || (0..).zip(sizes).map(|(at, &len)| (round * 8 + at, len));
    for (number, len) in messages() {
        let mut bytes = vec![0; len];
        fill(&mut bytes, number);
        to_c.message(CALM).timeout(PATIENCE).send(&bytes).expect("C takes it");
    }
    for (number, len) in messages() {
        let from_c = Match::tag(CALM_BACK).from(to_c.source());
        let got = a.recv_within(from_c, buf, PATIENCE).expect("C answers");
        assert_eq!((number_of(&buf[..got.len]), got.len), (number, len), "the talk with C");
    }
}

impl Calm {
    fn start(cell: Cell, a: &Endpoint, here: &Engine) -> Self {
        let engine = engine(cell.lane, THREAD, options());
        let c = engine.endpoint("c").unwrap();
        let to_c = a.connect(c.address()).expect("a path");
        to_c.send(HELLO, b"hello").unwrap();
        let source = recv_of(&c, here, HELLO);
        let to_a = c.reply_to(source).unwrap();
        let back = to_a.clone();
        let answer = move |bytes: &[u8], _: &sinew::Completion| {
            // When A is gone the test is over, or has failed already.
            let _ = back.message(CALM_BACK).timeout(PATIENCE).send(bytes);
        };
        let handler = c.on_message(CALM, 100_000, 4, answer).unwrap();
        let shared = Arc::new(CalmShared::default());
        let thread = {
            let (shared, a) = (Arc::clone(&shared), a.clone());
            std::thread::spawn(move || {
                let mut buf = vec![0; 100_000];
                while !shared.stop.load(Ordering::Acquire) {
                    let turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
                    calm_round(&to_c, &a, shared.rounds.load(Ordering::Relaxed), &mut buf);
                    shared.rounds.fetch_add(1, Ordering::Release);
                    drop(turn);
                    // Leaves the engine, and the processor, to the others.
                    std::thread::park_timeout(Duration::from_micros(300));
                }
                assert!(a.probe(CALM_BACK).is_none(), "an answer came twice");
            })
        };
        Self { shared, thread: Some(thread), to_a, handler: Some(handler), _c: c, engine }
    }

    /// Waits until the talk has gone on.
    pub(crate) fn goes_on(&self) {
        let now = self.shared.rounds.load(Ordering::Acquire);
        until("the talk with C goes on", || {
            assert!(!self.thread.as_ref().is_some_and(JoinHandle::is_finished), "the talk with C has ended");
            self.shared.rounds.load(Ordering::Acquire) > now + 3
        });
    }

    /// Keeps it out of the engine.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&mut self) -> std::thread::Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        drop(self.handler.take());
        ended
    }
}

impl Drop for Calm {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Receives a greeting at an engine that makes progress by itself; `here` may need somebody to.
fn recv_of(at: &Endpoint, here: &Engine, tag: u64) -> sinew::Source {
    let mut source = None;
    until("the greeting comes", || {
        here.process();
        source = at.try_recv(tag, &mut [0; 8]).ok().map(|got| got.source);
        source.is_some()
    });
    source.expect("it has come")
}

/// The engine under test and its company.
pub(crate) struct World {
    pub(crate) cell: Cell,
    pub(crate) form: Box<dyn Form>,
    pub(crate) calm: Calm,
    pub(crate) a: Endpoint,
    pub(crate) here: Engine,
}

impl World {
    pub(crate) fn new(cell: Cell) -> Self {
        Self::with(cell, options())
    }

    pub(crate) fn with(cell: Cell, options: EngineOptions) -> Self {
        let here = engine(cell.lane, crate::forms::progress_of(cell.form), options);
        let a = here.endpoint("a").unwrap();
        let form = crate::forms::make(cell, &here, &a);
        let calm = Calm::start(cell, &a, &here);
        Self { cell, form, calm, a, here }
    }

    /// Memory for one message.
    pub(crate) const fn room(&self) -> usize {
        quarantine::room(self.cell.size.bytes())
    }

    /// Receives the stream in the form until it ends; its length. `over` ends it for a form that hears of no error.
    pub(crate) fn drink(&self, wanted: Wanted, count: &AtomicU64, over: &AtomicBool) -> Result<u64, OpError> {
        let (mut expected, mut ended) = (0, false);
        let result = self.form.take(&self.a, wanted, self.room(), over, &mut |bytes, tag| {
            assert!(!ended, "a message after the end of its stream");
            assert_eq!(number_of(bytes), expected, "lost, doubled or out of order");
            ended = tag == FLOW_END;
            if !ended {
                assert_eq!(bytes.len(), self.cell.size.bytes());
                expected += 1;
                count.fetch_add(1, Ordering::Release);
            }
            !ended
        });
        result.map(|()| expected)
    }

    /// Sends a stream in the form until `stop`, then its end; its length.
    pub(crate) fn pour(&self, to: &Peer, count: &AtomicU64, stop: &AtomicBool) -> Result<u64, OpError> {
        for number in 0.. {
            if stop.load(Ordering::Acquire) {
                let mut end = vec![0; 8];
                fill(&mut end, number);
                self.form.send(to, FLOW_END, end.into(), PATIENCE)?;
                return Ok(number);
            }
            self.form.send(to, FLOW, load(to, self.cell.size, number), PATIENCE)?;
            count.fetch_add(1, Ordering::Release);
        }
        unreachable!()
    }

    /// Traffic that would hit memory which somebody still writes to, then a look at all that was freed.
    pub(crate) fn finish(self) {
        for number in 0..3 {
            let sent =
                self.calm.to_a.post_send(AFTER, load(&self.calm.to_a, self.cell.size, number)).unwrap();
            let got = self.form.recv(&self.a, Wanted::from_anybody(AFTER), self.room(), PATIENCE);
            assert_eq!(number_of(got.bytes()), number, "a message after all");
            sent.wait_within(PATIENCE).unwrap();
        }
        self.calm.goes_on();
        let Self { mut calm, form, here, a, .. } = self;
        drop(form);
        if let Err(panic) = calm.end() {
            std::panic::resume_unwind(panic);
        }
        until("no operation is left", || {
            here.progress();
            here.counters().operations == 0
        });
        drop((a, here));
        until("the engine has ended with its last handle", || calm.engine.counters().sessions == 0);
        quarantine::check();
    }
}
