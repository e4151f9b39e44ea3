//! Random sends, receives, turns of progress and cuts against a simple oracle: what each receive gets is what matching in
//! order says, whatever was fragmented, announced, replayed or moved to another lane meanwhile.

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

/// A message as the oracle knows it.
struct Sent {
    tag: u64,
    len: usize,
    seed: u64,
    taken: bool,
}

/// One engine, its way to the other, and what it must get from there.
struct Side {
    engine: Engine,
    endpoint: Endpoint,
    /// A peer on each session.
    to: Vec<Peer>,
    sent: Vec<Sent>,
    sends: Vec<SendOp>,
    receives: Vec<(Pattern, usize, RecvOp)>,
}

impl Side {
    fn act(&mut self, act: &Act, seed: u64) {
        match *act {
            Act::Send { tag, len, owned } => {
                let data = content(len, seed);
                let to = &self.to[(tag / TAGS) as usize];
                if owned {
                    self.sends.push(to.message(tag).immediate(seed).post(data).unwrap());
                } else {
                    match to.message(tag).immediate(seed).try_send(&data) {
                        Ok(()) => {}
                        Err(OpError::WouldBlock) => return,
                        Err(other) => panic!("{other}"),
                    }
                }
                self.sent.push(Sent { tag, len, seed, taken: false });
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

fn run(lanes: &[&str], sessions: usize, acts: &[(bool, Act)]) {
    let (mut a, mut b) = connected(lanes, sessions);
    for (seed, (first, act)) in acts.iter().enumerate() {
        let side = if *first { &mut a } else { &mut b };
        side.act(act, seed as u64);
    }
    check(&mut a, &mut b);
    check(&mut b, &mut a);
    // What no receive asked for is there, in order, and every send ends.
    drain(&mut a, &mut b);
    drain(&mut b, &mut a);
    let start = Instant::now();
    for op in a.sends.iter_mut().chain(&mut b.sends) {
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

macro_rules! models {
    ($($name:ident: $lanes:expr, $sessions:expr);+ $(;)?) => {
        proptest! {
            #![proptest_config(ProptestConfig {
                cases: if std::env::var_os("XTASK_LONG").is_some() { 2000 } else { 40 },
                failure_persistence: None,
                ..ProptestConfig::default()
            })]
            $(
                #[test]
                fn $name(acts in prop::collection::vec((any::<bool>(), act($sessions)), 1..120)) {
                    run(&$lanes, $sessions, &acts);
                }
            )+
        }
    };
}

models! {
    shm_gives_each_receive_what_the_oracle_says: ["shm"], 1;
    uds_gives_each_receive_what_the_oracle_says: ["uds"], 1;
    tcp_gives_each_receive_what_the_oracle_says: ["tcp"], 1;
    lanes_that_take_over_from_each_other_give_each_receive_what_the_oracle_says: ["shm", "uds", "tcp"], 1;
    two_sessions_of_one_pair_give_each_receive_what_the_oracle_says: ["shm", "uds"], 2;
}
