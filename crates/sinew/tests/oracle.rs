//! A hundred thousand random operations against an oracle, on every lane: two threads send from one endpoint, three receive at
//! two, in every form, and give up again and again. Each message that was sent comes once, whole and in the order of its
//! sender; one that was taken back comes once or not at all, and one that was refused never.
//!
//! How many operations comes from `XTASK_ORACLE_OPERATIONS` (default 100,000, ten times as many with `--long`), the luck from
//! `XTASK_SEED`.

mod common;

use common::{PATIENCE, content};
use sinew::{
    Completion, Endpoint, Engine, Handler, Match, OpError, Outgoing, Peer, Progress, Receive, Source,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Largest message, and the room of every receive.
const ROOM: usize = 120 << 10;
/// The number of a message stands below that of its stream in tag or immediate.
const SHIFT: u32 = 40;
/// Streams: to the two threads of an endpoint, to the one that takes anything, to the handler.
const STREAMS: usize = 6;

/// What is known of a message's fate on its sender's side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    UnderWay,
    Sent,
    /// It was taken back, perhaps too late.
    TakenBack,
    Refused,
}

/// Everything that the oracle knows.
struct Oracle {
    streams: [Mutex<Vec<Fate>>; STREAMS],
    /// Numbers that came on each stream, in order; by an exact tag they may come out of turn.
    came: [Mutex<Vec<(u64, bool)>>; STREAMS],
    /// Messages that a receive of one tag may have left: they wait before all others, out of turn.
    left: Mutex<std::collections::HashSet<u64>>,
    operations: AtomicU64,
    forms: Mutex<BTreeMap<&'static str, u64>>,
    sending: AtomicU64,
    over: AtomicBool,
    broken: AtomicBool,
}

/// Tells the others when a thread panics, so that none waits for it.
struct Alarm<'a>(&'a Oracle);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Release);
            self.0.over.store(true, Ordering::Release);
        }
    }
}

impl Oracle {
    fn new(senders: u64) -> Self {
        Self {
            streams: Default::default(),
            came: Default::default(),
            left: Mutex::default(),
            operations: AtomicU64::new(0),
            forms: Mutex::default(),
            sending: AtomicU64::new(senders),
            over: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn count(&self, form: &'static str, operations: usize) {
        self.operations.fetch_add(operations as u64, Ordering::Relaxed);
        *self.forms.lock().unwrap().entry(form).or_default() += operations as u64;
    }

    fn begin(&self, stream: usize) -> u64 {
        let mut fates = self.streams[stream].lock().unwrap();
        fates.push(Fate::UnderWay);
        fates.len() as u64 - 1
    }

    fn end(&self, stream: usize, number: u64, fate: Fate) {
        self.streams[stream].lock().unwrap()[number as usize] = fate;
    }

    /// A message came: to a receive that may take it, from who sent it, whole and not before an earlier one.
    fn received(&self, at: usize, exact: bool, info: &Completion, bytes: &[u8], from: Source) {
        let name = if at == 2 { info.immediate.unwrap_or(info.tag) } else { info.tag };
        let (stream, number) = ((name >> SHIFT) as usize, name & ((1 << SHIFT) - 1));
        assert!(stream % 3 == at, "stream {stream} came to receiver {at}");
        assert_eq!(info.source, from);
        assert_eq!(info.len, bytes.len());
        assert_eq!(info.len, len_of(stream, number), "length of message {number} of stream {stream}");
        assert!(*bytes == *content(info.len, name), "content of message {number} of stream {stream}");
        let exact = exact || self.left.lock().unwrap().contains(&name);
        let mut came = self.came[stream].lock().unwrap();
        if !exact {
            let before = came.iter().rev().find(|(_, exact)| !exact).map(|(number, _)| *number);
            let fates = self.streams[stream].lock().unwrap();
            assert!(
                before.is_none_or(|before| before < number),
                "message {number} came after {before:?} at {at}: {:?}",
                (number.saturating_sub(3)..(number + 4).min(fates.len() as u64))
                    .map(|number| (number, fates[number as usize], len_of(stream, number)))
                    .collect::<Vec<_>>()
            );
        }
        came.push((number, exact));
    }

    /// Whether all that was sent on the streams of a receiver has come.
    fn is_complete(&self, at: usize) -> bool {
        self.sending.load(Ordering::Acquire) == 0
            && (at..STREAMS).step_by(3).all(|stream| {
                let fates = self.streams[stream].lock().unwrap();
                let came = self.came[stream].lock().unwrap();
                let sent = fates.iter().filter(|fate| **fate == Fate::Sent).count();
                came.len() >= sent && {
                    let numbers: std::collections::HashSet<u64> =
                        came.iter().map(|(number, _)| *number).collect();
                    let sent = |(number, fate): (usize, &Fate)| {
                        *fate != Fate::Sent || numbers.contains(&(number as u64))
                    };
                    fates.iter().enumerate().all(sent)
                }
            })
    }

    /// The verdict: each message as often as its fate says.
    fn judge(&self) -> (usize, usize) {
        let (mut sent, mut given_up) = (0, 0);
        for stream in 0..STREAMS {
            let mut times: BTreeMap<u64, u64> = BTreeMap::new();
            for &(number, _) in self.came[stream].lock().unwrap().iter() {
                *times.entry(number).or_default() += 1;
            }
            for (number, fate) in self.streams[stream].lock().unwrap().iter().enumerate() {
                let times = times.remove(&(number as u64)).unwrap_or(0);
                let what = format!("message {number} of stream {stream}, {fate:?}, came {times} times");
                match fate {
                    Fate::Sent => assert!(times == 1, "{what}"),
                    Fate::TakenBack => assert!(times <= 1, "{what}"),
                    Fate::Refused | Fate::UnderWay => assert!(times == 0, "{what}"),
                }
                sent += usize::from(*fate == Fate::Sent);
                given_up += usize::from(*fate == Fate::TakenBack);
            }
            assert!(times.is_empty(), "messages came that nobody sent: {times:?}");
        }
        (sent, given_up)
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn patience(&mut self) -> Duration {
        Duration::from_micros([0, 20, 300, 3000][self.below(4) as usize])
    }
}

/// Every size class, the short ones most.
fn len_of(stream: usize, number: u64) -> usize {
    let mut random = Random(number << 8 | stream as u64);
    match random.below(60) {
        0 => random.below(ROOM as u64) as usize,
        1..=3 => (60 << 10) + random.below(10 << 10) as usize,
        4..=9 => random.below(20 << 10) as usize,
        10..=29 => random.below(2000) as usize,
        _ => random.below(100) as usize,
    }
}

/// A message that is about to be sent.
struct Draft {
    stream: usize,
    number: u64,
    data: Vec<u8>,
}

impl Draft {
    const fn name(&self) -> u64 {
        (self.stream as u64) << SHIFT | self.number
    }

    /// Streams 2 and 5 go to who takes anything: odd numbers untagged, for its handler.
    const fn is_untagged(&self) -> bool {
        self.stream % 3 == 2 && self.number % 2 == 1
    }

    fn to<'a>(&self, peer: &'a Peer) -> sinew::Message<'a> {
        let message = peer.message(self.name());
        if self.is_untagged() { message.untagged().immediate(self.name()) } else { message }
    }

    fn outgoing(&self) -> Outgoing<'_> {
        if self.is_untagged() {
            Outgoing::untagged(&self.data).immediate(self.name())
        } else {
            Outgoing::tagged(self.name(), &self.data)
        }
    }
}

/// One sending thread: its three streams to the two endpoints.
struct Sender<'a> {
    oracle: &'a Oracle,
    which: usize,
    random: Random,
    endpoint: Endpoint,
    peers: [Peer; 2],
    under_way: Vec<(sinew::SendOp, usize, u64)>,
}

fn fate(result: &Result<(), OpError>) -> Fate {
    match result {
        Ok(()) => Fate::Sent,
        Err(OpError::WouldBlock) => Fate::Refused,
        Err(OpError::TimedOut { .. } | OpError::Cancelled) => Fate::TakenBack,
        Err(error) => panic!("{error}"),
    }
}

impl Sender<'_> {
    fn draft(&mut self) -> Draft {
        let stream = self.which * 3 + self.random.below(3) as usize;
        self.draft_of(stream)
    }

    fn draft_of(&self, stream: usize) -> Draft {
        let number = self.oracle.begin(stream);
        let data = content(len_of(stream, number), (stream as u64) << SHIFT | number);
        Draft { stream, number, data }
    }

    fn end(&self, draft: &Draft, result: &Result<(), OpError>) {
        self.oracle.end(draft.stream, draft.number, fate(result));
    }

    fn peer(&self, stream: usize) -> Peer {
        self.peers[usize::from(stream % 3 == 2)].clone()
    }

    fn act(&mut self) {
        // What follows one that is under way is not sent before it, so the order stays that of the calls.
        match self.random.below(12) {
            0..=2 => {
                let draft = self.draft();
                let limit = self.random.patience();
                let result = draft.to(&self.peer(draft.stream)).timeout(limit).send(&draft.data);
                self.oracle.count(if result.is_ok() { "send" } else { "send, timed out" }, 1);
                self.end(&draft, &result);
            }
            3 | 4 => {
                let draft = self.draft();
                let staged = self.random.below(2) == 0;
                let peer = self.peer(draft.stream);
                let message = draft.to(&peer);
                let result = if staged { message.stage(&draft.data) } else { message.try_send(&draft.data) };
                self.oracle.count(if staged { "stage" } else { "try_send" }, 1);
                self.end(&draft, &result);
            }
            5..=7 => {
                let draft = self.draft();
                let op = draft.to(&self.peer(draft.stream)).post(draft.data.clone()).unwrap();
                self.oracle.count("post_send", 1);
                self.under_way.push((op, draft.stream, draft.number));
                if self.under_way.len() > 8 {
                    self.settle();
                }
            }
            8 => self.settle(),
            9 => {
                let stream = self.which * 3 + self.random.below(3) as usize;
                let drafts: Vec<Draft> =
                    (0..2 + self.random.below(10)).map(|_| self.draft_of(stream)).collect();
                let messages: Vec<Outgoing<'_>> = drafts.iter().map(Draft::outgoing).collect();
                let limit = self.random.patience();
                let result = self.peer(stream).send_batch_within(&messages, limit);
                self.oracle.count("send_batch", drafts.len());
                let went = result.as_ref().map_or_else(|partial| partial.sent, |()| drafts.len());
                for (at, draft) in drafts.iter().enumerate() {
                    let fate = match &result {
                        Err(partial) if at == went => fate(&Err(partial.error.clone())),
                        _ if at < went => Fate::Sent,
                        _ => Fate::Refused,
                    };
                    self.oracle.end(stream, draft.number, fate);
                }
            }
            10 => {
                let stream = self.which * 3 + self.random.below(2) as usize;
                let draft = self.draft_of(stream);
                let (peer, limit) = (self.peer(draft.stream), self.random.patience());
                let result = self
                    .endpoint
                    .scope(|scope| scope.send(&peer, draft.name(), &draft.data).unwrap().wait_within(limit));
                self.oracle.count("scope send", 1);
                self.end(&draft, &result);
            }
            _ => {
                let limit = self.random.patience();
                let _ = self.peers[self.random.below(2) as usize].flush_within(limit);
                self.oracle.count("flush", 1);
            }
        }
    }

    /// Waits for what is under way, takes it back or lets it go.
    fn settle(&mut self) {
        for (op, stream, number) in std::mem::take(&mut self.under_way) {
            let limit = self.random.patience();
            let (form, result) = match self.random.below(4) {
                0 => ("send let go", {
                    drop(op);
                    Ok(())
                }),
                1 => ("send cancelled", op.cancel().map(drop).map_err(OpError::from)),
                _ => ("send waited for", op.wait_within(limit).map(drop).map_err(OpError::from)),
            };
            self.oracle.count(form, 1);
            self.oracle.end(stream, number, fate(&result));
        }
    }

    fn run(mut self, operations: u64) {
        let _alarm = Alarm(self.oracle);
        while self.oracle.operations.load(Ordering::Relaxed) < operations && !self.oracle.is_broken() {
            self.act();
        }
        self.settle();
        self.oracle.sending.fetch_sub(1, Ordering::AcqRel);
        // What was let go still goes, as long as somebody makes progress.
        while !self.oracle.over.load(Ordering::Acquire) {
            for peer in &self.peers {
                let _ = peer.flush_within(Duration::from_millis(5));
            }
        }
    }
}

/// One receiving thread: number 0 and 1 share an endpoint, each with its own tags; number 2 takes anything.
struct Receiver<'a> {
    oracle: &'a Arc<Oracle>,
    at: usize,
    random: Random,
    endpoint: Endpoint,
    from: Source,
    buf: Vec<u8>,
    handler: Option<Handler>,
}

impl Receiver<'_> {
    /// What this receiver may take, all in order.
    fn all(&mut self) -> Match {
        if self.at == 2 {
            let all = Match::any_tag();
            return if self.random.below(3) == 0 { all.from(self.from) } else { all };
        }
        // Both senders' streams for this thread have the numbers `at` and `at + 3`; a receive names one of them.
        let stream = (self.at as u64) + 3 * self.random.below(2);
        Match::tag(stream << SHIFT).ignoring((1 << SHIFT) - 1)
    }

    fn got(&self, exact: bool, result: &Result<Completion, OpError>, bytes: &[u8]) {
        match result {
            Ok(info) => self.oracle.received(self.at, exact, info, &bytes[..info.len], self.from),
            Err(OpError::TimedOut { .. } | OpError::Cancelled | OpError::WouldBlock) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn act(&mut self) {
        let mut buf = std::mem::take(&mut self.buf);
        buf.resize(ROOM, 0);
        let limit = self.random.patience();
        match self.random.below(10) {
            0 | 1 => {
                let pattern = self.all();
                let result = self.endpoint.recv_within(pattern, &mut buf, limit);
                self.oracle.count(if result.is_ok() { "recv" } else { "recv, timed out" }, 1);
                self.got(false, &result, &buf);
            }
            2 => {
                let pattern = self.all();
                let result = self.endpoint.try_recv(pattern, &mut buf);
                self.oracle.count("try_recv", 1);
                self.got(false, &result, &buf);
            }
            3 => {
                // One that comes soon, out of turn.
                let stream = self.at + 3 * self.random.below(2) as usize;
                let came =
                    self.oracle.came[stream].lock().unwrap().last().map_or(0, |(number, _)| number + 1);
                let name = (stream as u64) << SHIFT | (came + self.random.below(3));
                let result = self.endpoint.recv_within(name, &mut buf, limit);
                self.oracle.count("recv of one tag", 1);
                if result.is_err() {
                    self.oracle.left.lock().unwrap().insert(name);
                }
                self.got(true, &result, &buf);
            }
            4..=6 => buf = self.post(buf, limit),
            7 => {
                let pattern = self.all();
                let result =
                    self.endpoint.scope(|scope| scope.recv(pattern, &mut buf).unwrap().wait_within(limit).0);
                self.oracle.count("scope recv", 1);
                self.got(false, &result, &buf);
            }
            8 => self.batch(limit),
            _ => {
                let pattern = self.all();
                if let Some(found) = self.endpoint.probe(pattern) {
                    assert_eq!(found.source, self.from);
                }
                self.oracle.count("probe", 1);
                if self.at == 2 {
                    self.handle();
                }
            }
        }
        self.buf = buf;
    }

    /// A receive with an owned buffer, which comes back: waited for, taken back or let go.
    fn post(&mut self, buf: Vec<u8>, limit: Duration) -> Vec<u8> {
        let pattern = self.all();
        let op = self.endpoint.post_recv(pattern, buf).unwrap();
        let (form, ended) = match self.random.below(4) {
            0 => ("receive let go", {
                drop(op);
                None
            }),
            1 => ("receive cancelled", Some(op.cancel())),
            _ => ("receive waited for", Some(op.wait_within(limit))),
        };
        self.oracle.count(form, 1);
        match ended {
            None => Vec::new(),
            Some(Ok(received)) => {
                self.got(false, &Ok(received.info), &received.buf);
                received.buf.into_vec()
            }
            Some(Err(failed)) => {
                self.got(false, &Err(failed.error), &[]);
                failed.buf.into_vec()
            }
        }
    }

    fn batch(&mut self, limit: Duration) {
        let pattern = self.all();
        let mut bufs: Vec<Vec<u8>> = (0..2 + self.random.below(4)).map(|_| vec![0; ROOM]).collect();
        let mut receives: Vec<Receive<'_>> = bufs.iter_mut().map(|buf| Receive::new(pattern, buf)).collect();
        let result = match self.random.below(3) {
            0 => self.endpoint.try_recv_batch(&mut receives),
            1 => self.endpoint.recv_batch_within(&mut receives, limit),
            _ => self.endpoint.recv_all_within(&mut receives, limit),
        };
        self.oracle.count("recv_batch", receives.len());
        if let Err(error) = result {
            self.got(false, &Err(error), &[]);
        }
        // One that had begun to fetch its message leaves it, and those behind it have got theirs out of turn.
        // One whose message was taken back while it was fetched has another, of after theirs.
        let out_of_turn = receives.iter().any(|receive| receive.result().is_none());
        receives.sort_by_key(|receive| {
            receive
                .completion()
                .map(|info| if self.at == 2 { info.immediate.unwrap_or(info.tag) } else { info.tag })
        });
        for receive in &mut receives {
            if let Some(result) = receive.result().cloned() {
                self.got(out_of_turn, &result, receive.buf());
            }
        }
    }

    /// Another handler in the place of the one that there was.
    fn handle(&mut self) {
        self.handler = None;
        let (oracle, from) = (Arc::clone(self.oracle), self.from);
        let depth = 1 + self.random.below(4) as usize;
        let handler = self.endpoint.on_message(Match::untagged(), ROOM, depth, move |bytes, info| {
            oracle.count("handled", 1);
            // Between the tagged ones, with which they have no order.
            oracle.received(2, true, info, bytes, from);
        });
        self.oracle.count("handler", 1);
        self.handler = Some(handler.unwrap());
    }

    fn run(mut self, operations: u64) {
        if self.at == 2 {
            self.handle();
        }
        let oracle = Arc::clone(self.oracle);
        let _alarm = Alarm(&oracle);
        let mut since = Instant::now();
        while !self.oracle.is_complete(self.at) && !self.oracle.is_broken() {
            self.act();
            if self.oracle.operations.load(Ordering::Relaxed) < operations {
                since = Instant::now();
            }
            assert!(since.elapsed() < PATIENCE, "receiver {} waits for what does not come", self.at);
        }
        while !(0..3).all(|at| self.oracle.is_complete(at)) && !self.oracle.is_broken() {
            let _ = self.endpoint.probe(Match::any_tag());
            std::thread::yield_now();
            assert!(since.elapsed() < 2 * PATIENCE, "another receiver waits for what does not come");
        }
        self.oracle.over.store(true, Ordering::Release);
    }
}

fn run(lane: &str) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("XTASK_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let long = if std::env::var_os("XTASK_LONG").is_some() { 10 } else { 1 };
    let operations = number("XTASK_ORACLE_OPERATIONS").unwrap_or(100_000 * long) / 4;
    let options = common::options().endpoint_window(256usize << 10).session_window(1usize << 20);
    let there = common::engine_with(lane, Progress::Caller, options.clone());
    let here: Engine =
        if lane == "self" { there.clone() } else { common::engine_with(lane, Progress::Caller, options) };
    let pair = common::connected(here, there);
    let any = pair.there.endpoint("any").unwrap();
    let connected = AtomicBool::new(false);
    let to_any = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !connected.load(Ordering::Acquire) {
                pair.there.process();
            }
        });
        let to_any = pair.a.connect(any.address());
        connected.store(true, Ordering::Release);
        to_any.expect("a path")
    });
    // How the receiving side names the sending endpoint: a first message says it.
    let mut first = [0; 1];
    pair.to_b.send(1, b"!").unwrap();
    let from = pair.b.recv(1, &mut first).unwrap().source;
    println!("oracle {lane}: seed {seed}");
    let oracle = Arc::new(Oracle::new(2));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for which in 0..2 {
            let sender = Sender {
                oracle: &oracle,
                which,
                random: Random(seed ^ (which as u64 + 1) << 56),
                endpoint: pair.a.clone(),
                peers: [pair.to_b.clone(), to_any.clone()],
                under_way: Vec::new(),
            };
            scope.spawn(move || sender.run(operations));
        }
        for at in 0..3 {
            let receiver = Receiver {
                oracle: &oracle,
                at,
                random: Random(seed ^ (at as u64 + 9) << 56),
                endpoint: if at == 2 { any.clone() } else { pair.b.clone() },
                from,
                buf: Vec::new(),
                handler: None,
            };
            scope.spawn(move || receiver.run(operations));
        }
    });
    let (sent, given_up) = oracle.judge();
    let forms: Vec<String> =
        oracle.forms.lock().unwrap().iter().map(|(form, count)| format!("{count} {form}")).collect();
    let count = oracle.operations.load(Ordering::Relaxed);
    println!(
        "oracle {lane}: {count} operations, {sent} messages sent and received, {given_up} taken back, in {:.1} s, seed {seed}: {}",
        begun.elapsed().as_secs_f64(),
        forms.join(", ")
    );
    assert!(count >= operations && sent as u64 > operations / 10 && given_up > 0);
}

macro_rules! lanes {
    ($($name:ident: $lane:literal),+ $(,)?) => {
        $( #[test] fn $name() { run($lane); } )+
    };
}

lanes! {
    a_quarter_of_a_hundred_thousand_operations_on_own: "self",
    a_quarter_of_a_hundred_thousand_operations_on_shm: "shm",
    a_quarter_of_a_hundred_thousand_operations_on_uds: "uds",
    a_quarter_of_a_hundred_thousand_operations_on_tcp: "tcp",
}
