//! Numbered, checked streams between two processes: three flows each way, of short, middling and long messages.
//!
//! [`child`] is the process; [`Side`] is what the test knows of one. A message that is lost, doubled, garbled or out of order
//! ends the process, and so the test.

use crate::common::{self, Other, PATIENCE, content, hear, say};
use crate::net::Host;
use sinew::{
    Endpoint, Engine, EngineOptions, Match, OpError, Peer, Progress, Security, SendOp, TransportOptions,
};
use std::collections::VecDeque;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) const FLOWS: usize = 3;
/// Of each operation. Whether messages flow is what the campaigns judge: a wire that is dead most of the time may keep one send
/// waiting behind others for long.
const DEADLINE: Duration = Duration::from_secs(180 * sinew_testing::SLOWNESS);
const LENGTH_MAX: usize = 400_000;
/// The tag after the last message.
pub(crate) const END: u64 = 2;

/// Short ones that go at once; whole frames up to what needs to be fetched; those that are fetched in pieces.
fn length(flow: usize, number: u64) -> usize {
    let mixed = (number.wrapping_mul(0x9e37_79b9) >> 7) as usize;
    match flow {
        _ if long() => 200_000 + mixed % 200_000,
        0 => 8 + mixed % 1000,
        1 => 8 + mixed % 60_000,
        _ => 70_000 + mixed % (LENGTH_MAX - 70_000),
    }
}

/// Whether all messages are long.
fn long() -> bool {
    static LONG: OnceLock<bool> = OnceLock::new();
    *LONG.get_or_init(|| std::env::var_os("LONG").is_some())
}

/// What all contents are cut from.
fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| content(LENGTH_MAX + 4096, 7))
}

pub(crate) fn body(flow: usize, number: u64) -> &'static [u8] {
    &noise()[number as usize % 4096..][..length(flow, number)]
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) sent: [AtomicU64; FLOWS],
    pub(crate) received: [AtomicU64; FLOWS],
    pub(crate) stop: AtomicBool,
    /// Why the session ended, if it may.
    lost: Mutex<Vec<String>>,
}

impl Counts {
    fn all(of: &[AtomicU64; FLOWS]) -> String {
        of.iter().map(|count| count.load(Ordering::Acquire).to_string()).collect::<Vec<_>>().join(" ")
    }

    /// Whether an operation ended with the session; other failures end the process.
    fn note(&self, what: &str, error: &OpError) {
        let may = std::env::var_os("MAY_BE_LOST").is_some() && matches!(error, OpError::PeerLost { .. });
        assert!(may, "{what}: {error}");
        self.lost.lock().unwrap().push(error.to_string());
    }
}

pub(crate) fn pour(to: &Peer, flow: usize, counts: &Counts) {
    let send = |tag, number: u64, data: &[u8]| to.message(tag).immediate(number).timeout(DEADLINE).send(data);
    let mut under_way = VecDeque::new();
    for number in 0.. {
        if counts.stop.load(Ordering::Acquire) {
            under_way.into_iter().for_each(finish);
            let ended = send(END, number, b"").and_then(|()| to.flush_within(DEADLINE));
            return ended.unwrap_or_else(|error| counts.note("the last one", &error));
        }
        if long() {
            // Several at once, so that there is always something to send.
            let message = to.message(1).immediate(number);
            under_way.push_back(message.post(body(flow, number).to_vec()).expect("posted"));
            if under_way.len() > 4
                && let Some(first) = under_way.pop_front()
            {
                finish(first);
            }
        } else if let Err(error) = send(1, number, body(flow, number)) {
            return counts.note("a send", &error);
        }
        counts.sent[flow].fetch_add(1, Ordering::Release);
    }
}

fn finish(op: SendOp) {
    op.wait_within(DEADLINE).expect("a send that ends well");
}

pub(crate) fn drink(at: &Endpoint, from: &Peer, flow: usize, counts: &Counts) {
    let mut buf = vec![0; LENGTH_MAX];
    for number in 0.. {
        let got = match at.recv_within(Match::any_tag().from(from.source()), &mut buf, DEADLINE) {
            Ok(got) => got,
            Err(error) => return counts.note(&format!("a receive, {}", from.explain()), &error),
        };
        assert_eq!(got.immediate, Some(number), "lost, doubled or out of order in flow {flow}");
        if got.tag == END {
            return;
        }
        assert!(buf[..got.len] == *body(flow, number), "content of {number} in flow {flow}");
        counts.received[flow].fetch_add(1, Ordering::Release);
    }
}

/// Endpoints of one session's time.
struct Streams {
    peer: Option<Peer>,
    endpoints: Vec<Endpoint>,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

impl Streams {
    fn open(engine: &Engine) -> Self {
        let endpoints = (0..FLOWS).map(|_| engine.endpoint("").unwrap()).collect();
        Self { peer: None, endpoints, counts: Arc::default(), threads: Vec::new() }
    }

    /// Whoever only listens sends nothing.
    fn start(&mut self, addresses: &[&str], only_listens: bool) {
        let ways = self.endpoints.iter().zip(addresses);
        let peers: Vec<Peer> =
            ways.map(|(at, to)| at.connect_within(*to, PATIENCE).expect("a path")).collect();
        self.peer = peers.first().cloned();
        for (flow, (at, peer)) in self.endpoints.iter().zip(peers).enumerate() {
            let (at, from, counts) = (at.clone(), peer.clone(), Arc::clone(&self.counts));
            self.threads.push(std::thread::spawn(move || drink(&at, &from, flow, &counts)));
            if only_listens {
                continue;
            }
            let counts = Arc::clone(&self.counts);
            self.threads.push(std::thread::spawn(move || pour(&peer, flow, &counts)));
        }
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            thread.join().expect("a stream that ends well");
        }
    }

    fn explain(&self) -> String {
        self.peer.as_ref().map_or_else(String::new, |peer| peer.explain().to_string())
    }

    /// What has ever come for these endpoints.
    fn level(&self) -> u64 {
        let of = |at: &Endpoint| at.counters().messages_received + at.counters().unexpected as u64;
        self.endpoints.iter().map(of).sum()
    }
}

fn say_sockets(engine: &Engine) {
    let counters = engine.counters();
    let (now, added, dropped) = (counters.lanes, counters.lanes_added, counters.lanes_dropped);
    say(format!("{now} {added} {} {dropped}", counters.stripes));
}

/// The process.
pub(crate) fn child() {
    let bind: Vec<String> =
        std::env::var("BIND").unwrap().split(' ').map(|address| format!("{address}:0")).collect();
    let peer_timeout = Duration::from_millis(std::env::var("PEER_TIMEOUT").unwrap().parse().unwrap());
    // What is copied while the wire is dead is fetched one by one afterwards. A wire that is alive for a tenth of the time must
    // have the time for that, or a send stands behind ever more copies.
    let options =
        EngineOptions::default().timeout(DEADLINE).peer_timeout(peer_timeout).send_buffer(16usize << 10);
    let sockets = std::env::var("SOCKETS").unwrap_or_else(|_| "auto".to_owned());
    let transports = TransportOptions::default().transports(vec!["tcp".into()]).tcp_bind(bind);
    let engine = Engine::builder()
        .domain("cut")
        .security(Security::Open)
        .progress(Progress::Thread { cpu: None })
        .options(options)
        .transport_options(transports.tcp_sockets(sockets))
        .build()
        .expect("an engine");
    let mut streams = Streams::open(&engine);
    let mut before: Option<Streams> = None;
    while let Some(line) = hear() {
        let (word, rest) = match line.split_once(' ') {
            Some((word @ ("go" | "listen"), rest)) => (word, rest),
            _ => (line.as_str(), ""),
        };
        match word {
            "open" => {
                let fresh = Streams::open(&engine);
                before = Some(std::mem::replace(&mut streams, fresh));
                let texts: Vec<String> =
                    streams.endpoints.iter().map(|at| at.address().to_string()).collect();
                say(texts.join(" "));
            }
            "go" | "listen" => {
                streams.start(&rest.split(' ').collect::<Vec<_>>(), word == "listen");
                say("going");
            }
            "counts" => {
                let counters = engine.counters();
                say(format!(
                    "{} {} {} {}",
                    Counts::all(&streams.counts.received),
                    counters.lanes_lost,
                    counters.replayed,
                    counters.sessions_lost
                ));
            }
            "sockets" => say_sockets(&engine),
            "explain" => say(streams.explain().replace('\n', "; ")),
            "stop" => {
                streams.counts.stop.store(true, Ordering::Release);
                say("stopping");
            }
            "join" => {
                streams.join();
                let lost = streams.counts.lost.lock().unwrap().len();
                let counts = &streams.counts;
                say(format!("{} {} {lost}", Counts::all(&counts.sent), Counts::all(&counts.received)));
            }
            "why" => say(streams.counts.lost.lock().unwrap().join("; ").replace('\n', " ")),
            "level" => say(streams.level()),
            "level before" => say(before.as_ref().map_or(0, Streams::level)),
            "leaks" => say(format!("{} {}", common::open_descriptors(), common::threads())),
            other => panic!("no command {other}"),
        }
    }
    streams.counts.stop.store(true, Ordering::Release);
    engine.close(Duration::from_secs(1)).unwrap();
}

/// Counts of a side: received in each flow, then lanes lost, frames sent again, sessions lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) received: Vec<u64>,
    pub(crate) lanes_lost: u64,
    pub(crate) replayed: u64,
    pub(crate) sessions_lost: u64,
}

/// What a side says when its streams have ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) sent: Vec<u64>,
    pub(crate) received: Vec<u64>,
    /// Operations that ended with the session.
    pub(crate) lost: u64,
}

/// How many sockets a side has, and what became of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sockets {
    pub(crate) now: u64,
    pub(crate) added: u64,
    pub(crate) stripes: u64,
    pub(crate) dropped: u64,
}

/// One of the two processes.
pub(crate) struct Side {
    other: Other,
}

impl Side {
    /// On `host`, which has these addresses.
    pub(crate) fn new(host: &Host, bind: &str, peer_timeout: Duration, may_be_lost: bool) -> Self {
        Self::with(host, bind, peer_timeout, may_be_lost, &[])
    }

    /// The same with more to tell it.
    pub(crate) fn with(
        host: &Host,
        bind: &str,
        peer_timeout: Duration,
        may_be_lost: bool,
        more: &[(&str, &str)],
    ) -> Self {
        let mut extra = vec![
            ("BIND".to_owned(), bind.to_owned()),
            ("PEER_TIMEOUT".to_owned(), peer_timeout.as_millis().to_string()),
        ];
        extra.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        if may_be_lost {
            extra.push(("MAY_BE_LOST".to_owned(), "1".to_owned()));
        }
        let other = host.run(move || {
            let extra: Vec<(&str, &str)> =
                extra.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let own = Command::new(std::env::current_exe().unwrap());
            common::spawn_by(own, "streams", "tcp", &extra)
        });
        Self { other }
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.other.tell(line);
        self.other.line_within(DEADLINE)
    }

    pub(crate) fn seen(&mut self) -> Seen {
        let numbers = numbers(&self.ask("counts"));
        Seen {
            received: numbers[..FLOWS].to_vec(),
            lanes_lost: numbers[FLOWS],
            replayed: numbers[FLOWS + 1],
            sessions_lost: numbers[FLOWS + 2],
        }
    }

    pub(crate) fn sockets(&mut self) -> Sockets {
        let numbers = numbers(&self.ask("sockets"));
        Sockets { now: numbers[0], added: numbers[1], stripes: numbers[2], dropped: numbers[3] }
    }

    pub(crate) fn join(&mut self) -> Ended {
        let numbers = numbers(&self.ask("join"));
        Ended {
            sent: numbers[..FLOWS].to_vec(),
            received: numbers[FLOWS..2 * FLOWS].to_vec(),
            lost: numbers[2 * FLOWS],
        }
    }

    pub(crate) fn finish(self) {
        self.other.finish();
    }
}

fn numbers(line: &str) -> Vec<u64> {
    line.split(' ').map(|text| text.parse().expect("numbers")).collect()
}

/// Opens new endpoints on both sides and lets messages flow between them, both ways.
pub(crate) fn begin(sides: &mut [Side; 2]) {
    begin_with(sides, "go");
}

/// Messages flow from the first side to the second only.
pub(crate) fn begin_one_way(sides: &mut [Side; 2]) {
    begin_with(sides, "listen");
}

fn begin_with(sides: &mut [Side; 2], second: &str) {
    let addresses = [sides[0].ask("open"), sides[1].ask("open")];
    let [here, there] = sides;
    here.other.tell(&format!("go {}", addresses[1]));
    there.other.tell(&format!("{second} {}", addresses[0]));
    assert_eq!((here.other.line(), there.other.line()), ("going".to_owned(), "going".to_owned()));
}

/// Ends the streams in order and compares what was sent with what came.
pub(crate) fn end(sides: &mut [Side; 2]) -> u64 {
    for side in sides.iter_mut() {
        assert_eq!(side.ask("stop"), "stopping");
    }
    let [here, there] = sides;
    let (here, there) = (here.join(), there.join());
    assert_eq!((&here.sent, &there.sent), (&there.received, &here.received), "sent there and received here");
    here.sent.iter().chain(&there.sent).sum()
}

/// Waits until every flow of these sides has had `more` messages.
pub(crate) fn flows_on(sides: &mut [Side], more: u64) {
    let before: Vec<Vec<u64>> = sides.iter_mut().map(|side| side.seen().received).collect();
    common::until("messages flow", || {
        sides.iter_mut().zip(&before).all(|(side, before)| {
            side.seen().received.iter().zip(before).all(|(now, before)| *now >= before + more)
        })
    });
}
