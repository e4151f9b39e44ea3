//! Random sends, receives, turns of progress and cuts against a simple oracle: what each receive gets is what matching in
//! order says, whatever was fragmented, announced, replayed or moved to another lane meanwhile. With sends that are taken back
//! in between, which may still arrive or not, nothing else is lost, comes twice, or is overtaken but by what a receive that had
//! lost its message found.

mod common;

use common::{PATIENCE, content};
use proptest::prelude::*;
use sinew::{Endpoint, Engine, Match, OpError, Peer, Progress, RecvOp, SendOp};
use std::time::Instant;

/// What one side does next.
#[derive(Clone, Debug)]
enum Act {
    /// A message, taken as far as `try_send` takes it, or handed over.
    Send {
        tag: u64,
        len: usize,
        owned: bool,
    },
    Recv {
        pattern: Pattern,
        room: usize,
    },
    Turns(usize),
    Cut,
    /// Takes back one of the messages that were handed over.
    TakeBack(usize),
}

#[derive(Clone, Copy, Debug)]
enum Pattern {
    Tag(u64),
    /// Tags that share all bits but the lowest.
    Half(u64),
    Any,
}

impl Pattern {
    fn takes(self, tag: u64) -> bool {
        match self {
            Self::Tag(wanted) => tag == wanted,
            Self::Half(wanted) => tag >> 1 == wanted >> 1,
            Self::Any => true,
        }
    }
}

impl From<Pattern> for Match {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::Tag(tag) => Self::tag(tag),
            Pattern::Half(tag) => Self::tag(tag).ignoring(1),
            Pattern::Any => Self::any_tag(),
        }
    }
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0..64usize,
        3 => 64..5000usize,
        2 => 16_000..17_000usize,
        2 => 60_000..140_000usize,
        1 => 250_000..700_000usize,
    ]
}

/// Tags of one session; those of the next one follow.
const TAGS: u64 = 4;

/// Messages of two sessions have no order among them, so that no pattern takes from both.
fn act(sessions: u64) -> impl Strategy<Value = Act> {
    let tags = 0..sessions * TAGS;
    let all =
        if sessions == 1 { Just(Pattern::Any).boxed() } else { tags.clone().prop_map(Pattern::Tag).boxed() };
    let pattern = prop_oneof![
        4 => tags.clone().prop_map(Pattern::Tag),
        1 => tags.clone().prop_map(Pattern::Half),
        1 => all,
    ];
    prop_oneof![
        6 => (tags, len(), any::<bool>()).prop_map(|(tag, len, owned)| Act::Send { tag, len, owned }),
        6 => (pattern, prop_oneof![3 => Just(700_000usize), 1 => len()])
            .prop_map(|(pattern, room)| Act::Recv { pattern, room }),
        5 => (0..12usize).prop_map(Act::Turns),
        1 => Just(Act::Cut),
    ]
}

/// The same with messages that are taken back, most of them soon.
fn act_or_take_back() -> impl Strategy<Value = Act> {
    prop_oneof![4 => act(1), 1 => (0..3usize).prop_map(Act::TakeBack)]
}

/// A message as the oracle knows it.
struct Sent {
    tag: u64,
    len: usize,
    seed: u64,
    taken: bool,
    /// It was taken back: whether it arrives is open.
    taken_back: bool,
}

/// One engine, its way to the other, and what it must get from there.
struct Side {
    engine: Engine,
    endpoint: Endpoint,
    /// A peer on each session.
    to: Vec<Peer>,
    sent: Vec<Sent>,
    /// Operations, and the messages that they send.
    sends: Vec<(SendOp, usize)>,
    receives: Vec<(Pattern, usize, RecvOp)>,
}

impl Side {
    fn act(&mut self, act: &Act, seed: u64) {
        match *act {
            Act::Send { tag, len, owned } => {
                let data = content(len, seed);
                let to = &self.to[(tag / TAGS) as usize];
                if owned {
                    let op = to.message(tag).immediate(seed).post(data).unwrap();
                    self.sends.push((op, self.sent.len()));
                } else {
                    match to.message(tag).immediate(seed).try_send(&data) {
                        Ok(()) => {}
                        Err(OpError::WouldBlock) => return,
                        Err(other) => panic!("{other}"),
                    }
                }
                self.sent.push(Sent { tag, len, seed, taken: false, taken_back: false });
            }
            Act::Recv { pattern, room } => {
                let op = self.endpoint.post_recv(pattern, vec![0xee; room]).unwrap();
                self.receives.push((pattern, room, op));
            }
            Act::Turns(turns) => {
                for _ in 0..turns {
                    self.engine.progress();
                }
            }
            Act::Cut => {
                self.engine.cut(&self.to[seed as usize % self.to.len()]);
            }
            Act::TakeBack(youngest) => {
                let Some(at) = self.sends.len().checked_sub(youngest + 1) else { return };
                let (op, message) = self.sends.remove(at);
                match op.cancel() {
                    Ok(_) => {}
                    Err(failed) if matches!(failed.error, OpError::Cancelled) => {
                        assert!(*failed.buf == *content(failed.buf.len(), self.sent[message].seed));
                        self.sent[message].taken_back = true;
                    }
                    Err(failed) => panic!("{failed}"),
                }
            }
        }
    }
}

/// Checks each receive of `at`, in the order in which they were posted, against what `from` sent.
fn check(at: &mut Side, from: &mut Side) {
    for (pattern, room, mut op) in std::mem::take(&mut at.receives) {
        let expected = from.sent.iter_mut().find(|sent| !sent.taken && pattern.takes(sent.tag));
        let Some(expected) = expected else {
            assert!(op.try_wait().is_none(), "a message out of nowhere for {pattern:?}");
            continue;
        };
        expected.taken = true;
        let start = Instant::now();
        let result = loop {
            if let Some(result) = op.try_wait() {
                break result;
            }
            at.engine.process();
            from.engine.process();
            assert!(start.elapsed() < PATIENCE, "{pattern:?} still waits for message {}", expected.seed);
        };
        let data = content(expected.len, expected.seed);
        match result {
            Ok(got) => {
                assert_eq!((got.info.tag, got.info.immediate), (expected.tag, Some(expected.seed)));
                assert_eq!(got.info.len, expected.len);
                assert!(got.buf.as_slice() == data, "content of message {}", expected.seed);
                assert!(expected.len <= room);
            }
            Err(failed) => match failed.error {
                OpError::Truncated { message_len, buffer_len, tag, .. } => {
                    assert_eq!((message_len, tag), (expected.len as u64, expected.tag));
                    assert!(buffer_len == room && expected.len > room);
                }
                other => panic!("{other}"),
            },
        }
    }
}

/// The explicit form of the endpoint's address, by the Unix socket.
fn by_uds(of: &Endpoint) -> String {
    let address = of.address();
    let path = address.locators().iter().find_map(|locator| locator.strip_prefix("uds:")).expect("a socket");
    format!("uds://{path}#{}", of.number())
}

fn connected(lanes: &[&str], sessions: usize) -> (Side, Side) {
    let options = || {
        common::options()
            .endpoint_window(96usize << 10)
            .session_window(160usize << 10)
            .send_buffer(64usize << 10)
            .endpoint_envelopes(8usize)
    };
    let engine = || {
        let builder = Engine::builder().domain("model").progress(Progress::Caller).options(options());
        builder.transports(lanes.iter().copied()).build().expect("an engine")
    };
    let (here, there) = (engine(), engine());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let done = std::sync::atomic::AtomicBool::new(false);
    let (to_b, to_a) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                here.process();
                there.process();
            }
        });
        let connect = |from: &Endpoint, to: &Endpoint| {
            let implicit = std::iter::once(to.address().to_string());
            let targets = implicit.chain((1..sessions).map(|_| by_uds(to)));
            targets.map(|target| from.connect(target).expect("a path")).collect()
        };
        let both: (Vec<Peer>, Vec<Peer>) = (connect(&a, &b), connect(&b, &a));
        done.store(true, std::sync::atomic::Ordering::Release);
        both
    });
    let side = |engine, endpoint, to| Side {
        engine,
        endpoint,
        to,
        sent: Vec::new(),
        sends: Vec::new(),
        receives: Vec::new(),
    };
    (side(here, a, to_b), side(there, b, to_a))
}

fn run(lanes: &[&str], acts: &[(bool, Act)]) {
    run_between(connected(lanes, 1), acts);
}

fn run_on_two_sessions(lanes: &[&str], acts: &[(bool, Act)]) {
    run_between(connected(lanes, 2), acts);
}

fn run_between((mut a, mut b): (Side, Side), acts: &[(bool, Act)]) {
    for (seed, (first, act)) in acts.iter().enumerate() {
        let side = if *first { &mut a } else { &mut b };
        side.act(act, seed as u64);
    }
    check(&mut a, &mut b);
    check(&mut b, &mut a);
    // What no receive asked for is there, in order, and every send ends.
    drain(&mut a, &mut b);
    drain(&mut b, &mut a);
    all_sends_end(&mut a, &mut b);
}

fn all_sends_end(a: &mut Side, b: &mut Side) {
    let start = Instant::now();
    for (op, _) in a.sends.iter_mut().chain(&mut b.sends) {
        loop {
            if let Some(result) = op.try_wait() {
                result.expect("the send ends well");
                break;
            }
            a.engine.process();
            b.engine.process();
            assert!(start.elapsed() < PATIENCE, "a send never ends");
        }
    }
}

fn drain(at: &mut Side, from: &mut Side) {
    for sent in from.sent.iter().filter(|sent| !sent.taken) {
        let pattern = if at.to.len() == 1 { Pattern::Any } else { Pattern::Tag(sent.tag) };
        let op = at.endpoint.post_recv(pattern, vec![0; 700_000]).unwrap();
        at.receives.push((pattern, 700_000, op));
    }
    check(at, from);
}

/// What the receives of `at` got, in the order in which they were posted, when all that was not taken back has come.
fn gather(at: &mut Side, from: &mut Side) -> Vec<(Pattern, Option<u64>)> {
    for _ in &from.sent {
        let op = at.endpoint.post_recv(Match::any_tag(), vec![0; 700_000]).unwrap();
        at.receives.push((Pattern::Any, 700_000, op));
    }
    let mut got: Vec<(Pattern, Option<u64>)> =
        at.receives.iter().map(|(pattern, ..)| (*pattern, None)).collect();
    let start = Instant::now();
    while from.sent.iter().any(|sent| !sent.taken && !sent.taken_back) {
        at.engine.process();
        from.engine.process();
        for ((pattern, _, op), got) in at.receives.iter_mut().zip(&mut got) {
            let Some(result) = (if got.1.is_none() { op.try_wait() } else { None }) else { continue };
            let received = result.expect("a message");
            let seed = received.info.immediate.expect("its number");
            let sent = from.sent.iter_mut().find(|sent| sent.seed == seed).expect("it was sent");
            assert!(!std::mem::replace(&mut sent.taken, true), "message {seed} came twice");
            assert!(pattern.takes(sent.tag) && sent.tag == received.info.tag);
            assert!(*received.buf == *content(sent.len, seed), "content of message {seed}");
            got.1 = Some(seed);
        }
        assert!(start.elapsed() < PATIENCE, "a message is lost");
    }
    at.receives.clear();
    got
}

/// No message overtakes another: but a receive may have let an earlier one pass while it had one that was taken back.
fn check_order(got: &[(Pattern, Option<u64>)], from: &Side) {
    let tag = |seed| from.sent.iter().find(|sent| sent.seed == seed).map(|sent| sent.tag).unwrap();
    for (at, &(pattern, first)) in got.iter().enumerate() {
        let Some(first) = first else { continue };
        for second in got[at + 1..].iter().filter_map(|&(_, second)| second) {
            let was_busy = || {
                let before = |sent: &&Sent| sent.taken_back && sent.seed < second;
                from.sent.iter().filter(before).any(|sent| pattern.takes(sent.tag))
            };
            assert!(
                first < second || !pattern.takes(tag(second)) || was_busy(),
                "{pattern:?} took message {first} and left {second} to a later receive"
            );
        }
    }
}

fn run_with_messages_taken_back(lanes: &[&str], acts: &[(bool, Act)]) {
    let (mut a, mut b) = connected(lanes, 1);
    for (seed, (first, act)) in acts.iter().enumerate() {
        let side = if *first { &mut a } else { &mut b };
        match *act {
            // A message that is cut short would not say which one it is.
            Act::Recv { pattern, .. } => side.act(&Act::Recv { pattern, room: 700_000 }, seed as u64),
            ref act => side.act(act, seed as u64),
        }
    }
    let got = gather(&mut a, &mut b);
    check_order(&got, &b);
    let got = gather(&mut b, &mut a);
    check_order(&got, &a);
    all_sends_end(&mut a, &mut b);
}

macro_rules! models {
    ($act:expr, $run:ident; $($name:ident: $lanes:expr),+ $(,)?) => {
        proptest! {
            #![proptest_config(ProptestConfig {
                cases: if std::env::var_os("XTASK_LONG").is_some() { 2000 } else { 40 },
                failure_persistence: None,
                ..ProptestConfig::default()
            })]
            $(
                #[test]
                fn $name(acts in prop::collection::vec((any::<bool>(), $act), 1..120)) {
                    $run(&$lanes, &acts);
                }
            )+
        }
    };
}

models! { act_or_take_back(), run_with_messages_taken_back;
    shm_loses_nothing_beside_what_is_taken_back: ["shm"],
    uds_loses_nothing_beside_what_is_taken_back: ["uds"],
    tcp_loses_nothing_beside_what_is_taken_back: ["tcp"],
    lanes_that_take_over_from_each_other_lose_nothing_beside_what_is_taken_back: ["shm", "uds", "tcp"],
}

models! { act(1), run;
    shm_gives_each_receive_what_the_oracle_says: ["shm"],
    uds_gives_each_receive_what_the_oracle_says: ["uds"],
    tcp_gives_each_receive_what_the_oracle_says: ["tcp"],
    lanes_that_take_over_from_each_other_give_each_receive_what_the_oracle_says: ["shm", "uds", "tcp"],
}

models! { act(2), run_on_two_sessions;
    two_sessions_of_one_pair_give_each_receive_what_the_oracle_says: ["shm", "uds"],
}
