//! The promise of the data path (budget E4): on the thread that owns the engine a short message over shared memory costs no
//! allocation, no system call, and no lock but the engine's biased one, whose hand-over to another thread would be one.
//!
//! Allocations are counted by the allocator of this test program, system calls by `strace` over this program started again.
#![allow(unsafe_code)]

mod common;

use common::{PATIENCE, engine_with, hear, options, say, spawn, spawn_under, until};
use sinew::{Buf, Endpoint, Engine, Match, OpError, Outgoing, Peer, Progress, Receive};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Counts what the present thread asks for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: hands everything on to the system's allocator; the counter is a plain cell of the thread's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, data: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(data, layout, len) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// An engine that never sleeps while a message may come.
fn spinning() -> Engine {
    engine_with("shm", Progress::Caller, options().spin(Duration::from_secs(60)))
}

/// Two engines that this thread owns, both of them: what one sends is there for the other at once, so that no schedule of
/// the machine changes what a message costs.
struct Both {
    to_b: Peer,
    a: Endpoint,
    b: Endpoint,
    here: Engine,
    _there: Engine,
}

fn both() -> Both {
    let (here, there) = (spinning(), spinning());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let address = b.address();
    let to_b = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| a.connect(address).expect("a path"));
        while !connecting.is_finished() {
            there.process();
        }
        connecting.join().unwrap()
    });
    Both { to_b, a, b, here, _there: there }
}

/// A form of sending and receiving: one message, of this number, of these bytes.
type Form = fn(&Both, u64, &[u8], &mut [u8]);

/// Calls a form that does not wait until it does something: credit comes back with progress.
fn persist(mut form: impl FnMut() -> Result<(), OpError>) {
    while let Err(error) = form() {
        assert!(matches!(error, OpError::WouldBlock), "{error}");
    }
}

/// Receives with a form that does not wait.
fn take(at: &Endpoint, tag: u64, buf: &mut [u8]) {
    persist(|| at.try_recv(tag, buf).map(|_| ()));
}

const FORMS: [(&str, Form); 9] = [
    ("send and recv", |both, number, data, buf| {
        both.to_b.send(number, data).unwrap();
        both.b.recv(number, buf).unwrap();
    }),
    ("untagged", |both, _, data, buf| {
        both.to_b.send_untagged(data).unwrap();
        both.b.recv(Match::untagged(), buf).unwrap();
    }),
    ("with immediate data", |both, number, data, buf| {
        both.to_b.message(number).immediate(number).send(data).unwrap();
        assert_eq!(both.b.recv(number, buf).unwrap().immediate, Some(number));
    }),
    ("try_send and try_recv", |both, number, data, buf| {
        persist(|| both.to_b.try_send(number, data));
        take(&both.b, number, buf);
    }),
    ("staged, several at once", |both, number, data, buf| {
        for part in 0..3 {
            persist(|| both.to_b.stage(number + part, data));
        }
        both.to_b.send(number + 3, data).unwrap();
        for part in 0..4 {
            both.b.recv(number + part, buf).unwrap();
        }
    }),
    ("a reply to the source", |both, number, data, buf| {
        both.to_b.send(number, data).unwrap();
        let source = both.b.recv(number, buf).unwrap().source;
        both.b.reply_to(source).unwrap().send(number, data).unwrap();
        both.a.recv(number, buf).unwrap();
    }),
    ("a message that comes before its receive", |both, number, data, buf| {
        both.to_b.send(number, data).unwrap();
        both.to_b.send(number + 1, data).unwrap();
        both.b.recv(number + 1, buf).unwrap();
        both.b.recv(number, buf).unwrap();
    }),
    ("batches", |both, number, data, buf| {
        let messages = [Outgoing::tagged(number, data), Outgoing::tagged(number + 1, data)];
        both.to_b.send_batch(&messages).unwrap();
        let (first, second) = buf.split_at_mut(64);
        let mut receives = [Receive::new(number, first), Receive::new(number + 1, second)];
        assert_eq!(both.b.recv_all(&mut receives).unwrap(), 2);
    }),
    ("gathered", |both, number, data, buf| {
        let (head, tail) = data.split_at(data.len() / 3);
        let parts = [std::io::IoSlice::new(head), std::io::IoSlice::new(tail)];
        both.to_b.message(number).send_slices(&parts).unwrap();
        both.b.recv(number, buf).unwrap();
    }),
];

const SIZES: [usize; 3] = [8, 39, 40];
/// Enough to go around every ring and to return credit several times.
const MESSAGES: u64 = 20_000;

fn repeat(both: &Both, form: Form, messages: u64, len: usize) {
    let (mut data, mut buf) = ([0u8; 64], [0u8; 128]);
    for number in 0..messages {
        data[..8].copy_from_slice(&number.to_le_bytes());
        form(both, number * 4, &data[..len], &mut buf);
        assert_eq!(buf[..len], data[..len]);
    }
}

/// The fewest allocations of several runs: now and then, by the clock, an engine looks for better lanes and allocates for
/// that, which is no message's cost. On a machine that others use a run is long enough for several such moments.
fn fewest_allocations(mut run: impl FnMut()) -> u64 {
    let mut fewest = u64::MAX;
    for _ in 0..40 {
        let before = ALLOCATIONS.get();
        run();
        fewest = fewest.min(ALLOCATIONS.get() - before);
        if fewest == 0 {
            break;
        }
    }
    fewest
}

#[test]
fn a_short_message_allocates_nothing() {
    let both = both();
    let mut found = BTreeMap::new();
    for (name, form) in FORMS {
        for len in SIZES {
            repeat(&both, form, MESSAGES, len);
            let allocations = fewest_allocations(|| repeat(&both, form, MESSAGES, len));
            if allocations > 0 {
                found.insert((name, len), allocations);
            }
        }
    }
    assert!(found.is_empty(), "allocations of {MESSAGES} messages: {found:?}");
}

#[test]
fn an_owned_buffer_goes_there_and_back_without_an_allocation() {
    let both = both();
    let (mut out, mut into) = (Buf::zeroed(40), Buf::zeroed(40));
    let mut round = |number: u64| {
        let mut receive =
            both.b.post_recv(number, std::mem::replace(&mut into, Buf::from(Vec::new()))).unwrap();
        out = both
            .to_b
            .post_send(number, std::mem::replace(&mut out, Buf::from(Vec::new())))
            .unwrap()
            .wait()
            .unwrap();
        both.here.progress();
        into = loop {
            if let Some(received) = receive.try_wait() {
                break received.unwrap().buf;
            }
        };
    };
    (0..MESSAGES).for_each(&mut round);
    assert_eq!(fewest_allocations(|| (0..MESSAGES).for_each(&mut round)), 0);
}

#[test]
fn a_spinning_ping_pong_between_processes_allocates_nothing() {
    let mut other = spawn("echo", "shm", &[]);
    let engine = spinning();
    let endpoint = engine.endpoint("here").unwrap();
    let peer = endpoint.connect(other.line()).unwrap();
    let round = |number: u64| {
        let mut buf = [0; 40];
        peer.send(number, &[7; 40]).unwrap();
        assert_eq!(endpoint.recv(number, &mut buf).unwrap().len, 40);
    };
    (1..2000).for_each(round);
    // While it is kept waiting, an engine looks after its timers every millisecond, and that may allocate: what counts is
    // that messages do not.
    until("two hundred messages have cost no allocation", || {
        let before = ALLOCATIONS.get();
        (1..200).for_each(round);
        ALLOCATIONS.get() == before
    });
    peer.send(0, b"end").unwrap();
    other.tell("end");
    other.finish();
}

/// The roles of the other process.
#[test]
#[ignore = "a child of other tests"]
fn other_process() {
    if !common::is_other() {
        return;
    }
    match std::env::var("OTHER_ROLE").unwrap().as_str() {
        "echo" => echo(),
        "trace" => traced_forms(),
        "trace ping-pong" => traced_ping_pong(),
        other => panic!("no role {other}"),
    }
}

/// Sends back what comes, until a message of tag 0.
fn echo() {
    let engine = spinning();
    let endpoint = engine.endpoint("echo").unwrap();
    say(endpoint.address());
    let mut buf = [0; 40];
    let mut back = None;
    loop {
        let got = endpoint.recv(Match::any_tag(), &mut buf).unwrap();
        if got.tag == 0 {
            break;
        }
        let peer = back.get_or_insert_with(|| endpoint.reply_to(got.source).unwrap());
        peer.send(got.tag, &buf[..got.len]).unwrap();
    }
    let _ = hear();
}

/// A system call that nothing else makes: it cuts the trace of this thread into pieces.
fn mark() {
    let _ = rustix::process::getpriority_user(rustix::process::Uid::ROOT);
}

const MARK: &str = "getpriority(";

fn traced_forms() {
    let both = both();
    for (_, form) in FORMS {
        for len in SIZES {
            repeat(&both, form, 2000, len);
            mark();
            repeat(&both, form, MESSAGES, len);
            mark();
        }
    }
}

/// Many short pieces: on a busy machine the two sides run at the same time for moments only.
const PIECES: usize = 300;
const ROUND_TRIPS: u64 = 5;

fn traced_ping_pong() {
    let engine = spinning();
    let endpoint = engine.endpoint("here").unwrap();
    let peer = endpoint.connect(hear().unwrap()).unwrap();
    let mut buf = [0; 40];
    for _ in 0..PIECES {
        mark();
        for number in 1..=ROUND_TRIPS {
            peer.send(number, &[7; 40]).unwrap();
            endpoint.recv(number, &mut buf).unwrap();
        }
        mark();
    }
    peer.send(0, b"end").unwrap();
}

/// Whether the system lets a process be traced.
fn strace_works() -> Result<(), String> {
    let tried = std::process::Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("strace cannot be started ({error}): apt-get install strace")),
    }
}

/// Runs a role under `strace`; the system calls between each pair of marks.
fn trace(role: &str, lines: &[&str]) -> Vec<Vec<String>> {
    let log = std::env::temp_dir().join(format!(
        "sinew-data-path-{}-{}",
        std::process::id(),
        role.replace(' ', "-")
    ));
    let mut other = spawn_under(&["strace", "-f", "-o", log.to_str().unwrap()], role, "shm", &[]);
    for line in lines {
        other.tell(line);
    }
    other.finish();
    let text = std::fs::read_to_string(&log).unwrap();
    let _ = std::fs::remove_file(&log);
    let marks: Vec<&str> = text.lines().filter(|line| line.contains(MARK)).collect();
    let thread = marks.first().expect("marks").split_whitespace().next().unwrap();
    assert!(marks.iter().all(|line| line.split_whitespace().next() == Some(thread)), "one thread marks");
    let own = text.lines().filter_map(|line| line.strip_prefix(thread)).map(str::trim_start);
    let mut pieces = Vec::new();
    let mut open: Option<Vec<String>> = None;
    for line in own {
        if line.starts_with(MARK) {
            match open.take() {
                Some(piece) => pieces.push(piece),
                None => open = Some(Vec::new()),
            }
        } else if let Some(piece) = &mut open {
            piece.push(line.to_owned());
        }
    }
    pieces
}

/// Messages between two looks at other descriptors, at least.
const LOOKS_EVERY: u64 = 50;

/// Every few hundred turns a busy engine asks, without waiting, whether another of its descriptors has something: no
/// message's cost.
fn is_look(call: &str) -> bool {
    let (name, rest) = call.split_once('(').unwrap_or_default();
    let arguments = rest.split_once(')').unwrap_or_default().0;
    matches!(name, "epoll_wait" | "epoll_pwait") && arguments.split(", ").nth(3) == Some("0")
}

#[test]
fn a_short_message_makes_no_system_call() {
    if let Err(reason) = strace_works() {
        sinew_testing::skip!("strace", "{reason}");
    }
    let pieces = trace("trace", &[]);
    let names: Vec<(&str, usize)> =
        FORMS.iter().flat_map(|(name, _)| SIZES.map(|len| (*name, len))).collect();
    assert_eq!(pieces.len(), names.len());
    for (piece, name) in pieces.iter().zip(names) {
        let (looks, piece): (Vec<&String>, Vec<&String>) = piece.iter().partition(|call| is_look(call));
        assert!(looks.len() as u64 * LOOKS_EVERY <= MESSAGES, "{} looks for {name:?}", looks.len());
        assert!(
            piece.is_empty(),
            "{MESSAGES} messages of {name:?}: {} calls, {:?}",
            piece.len(),
            piece.first()
        );
    }
}

#[test]
fn a_spinning_ping_pong_between_processes_makes_no_system_call() {
    if let Err(reason) = strace_works() {
        sinew_testing::skip!("strace", "{reason}");
    }
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        sinew_testing::skip!("two processors", "two processes that spin need a processor each");
    }
    // A side that is kept from running lets the other one wait, and who waits long looks at its descriptors: pieces in which
    // that happened say nothing. On a busy machine that can be all pieces of a run.
    let start = Instant::now();
    loop {
        let mut other = spawn("echo", "shm", &[]);
        let pieces = trace("trace ping-pong", &[&other.line()]);
        other.tell("end");
        assert_eq!(pieces.len(), PIECES);
        let quiet = pieces.iter().filter(|piece| piece.is_empty()).count();
        println!("{quiet} of {PIECES} pieces are without any system call; the last has {:?}", pieces.last());
        if quiet > 0 {
            return;
        }
        let waits = |call: &String| is_look(call) || call.starts_with("sched_yield(");
        let first = pieces.iter().flatten().find(|call| !waits(call));
        if start.elapsed() > PATIENCE / 2 {
            assert!(first.is_none(), "every piece has system calls, and not of waiting alone: {first:?}");
            sinew_testing::skip!(
                "idle processors",
                "the two sides never ran at the same time for 5 round trips"
            );
        }
    }
}
