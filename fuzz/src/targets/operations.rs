//! Two engines over the loopback transport: any sequence of sends, receives, cancels, drops, cuts and turns of progress
//! delivers every message once, whole, and in order where order is promised.

use super::{Input, note};
use sinew::transport::loopback::Loopback;
use sinew::{Completion, Endpoint, Engine, EngineOptions, Match, OpError, Peer, RecvOp, SendOp};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Turns in which everything must have arrived.
const TURNS_MAX: usize = 100_000;
const ROOM: usize = 160 << 10;
/// A call that waits for the other engine waits in vain: this thread is the one that drives it.
const BRIEF: Duration = Duration::from_millis(20);
/// Longer messages may be fetched, for which a receive that takes what is there waits.
const WHOLE: usize = 50_000;

struct Side {
    engine: Engine,
    endpoint: Endpoint,
    to: Peer,
    /// Number of the next message.
    next: u64,
    sent: Vec<Sent>,
    sends: Vec<(SendOp, usize)>,
    receives: Vec<(RecvOp, usize)>,
    /// What receives got, in the order in which they were posted: by tag, the message's number.
    got: Vec<Option<(u64, u64)>>,
    /// Order is not promised: a receive or a send was given up.
    gave_up: bool,
}

struct Sent {
    number: u64,
    tag: u64,
    len: usize,
    received: bool,
    may_be_missing: bool,
}

fn content(number: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number as usize).wrapping_mul(31).wrapping_add(at * 7) as u8).collect()
}

thread_local! {
    static SIDES: RefCell<Option<[Side; 2]>> = const { RefCell::new(None) };
}

fn connect() -> [Side; 2] {
    let make = || {
        let options = EngineOptions::default().timeout(BRIEF);
        let builder = Engine::builder().domain("fuzz").options(options).without_own_transports();
        builder.transport(Loopback).build().expect("an engine")
    };
    let engines = [make(), make()];
    let endpoints = [engines[0].endpoint("a").expect("named"), engines[1].endpoint("b").expect("named")];
    let peers = [0, 1].map(|side: usize| {
        let connected = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !connected.load(Ordering::Acquire) {
                    engines[1 - side].process();
                }
            });
            let peer = endpoints[side].connect(endpoints[1 - side].address());
            connected.store(true, Ordering::Release);
            peer.expect("a path")
        })
    });
    let sides = engines.into_iter().zip(endpoints).zip(peers).map(|((engine, endpoint), to)| Side {
        engine,
        endpoint,
        to,
        next: 0,
        sent: Vec::new(),
        sends: Vec::new(),
        receives: Vec::new(),
        got: Vec::new(),
        gave_up: false,
    });
    sides.collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("two sides"))
}

pub(super) fn run(data: &[u8]) -> u64 {
    SIDES.with_borrow_mut(|sides| {
        let sides = sides.get_or_insert_with(connect);
        let mut input = Input::new(data);
        let mut outcome = 0;
        for _ in 0..200 {
            if input.is_empty() {
                break;
            }
            let code = input.byte();
            let event = step(sides, usize::from(code >> 7), code & 0x7f, &mut input);
            outcome = note(outcome, event);
        }
        settle(sides);
        outcome
    })
}

fn len(input: &mut Input<'_>) -> usize {
    let code = usize::from(input.byte());
    // Short, in frames, and fetched by the receiver.
    match code >> 6 {
        0 | 1 => code & 0x7f,
        2 => 100 + (code & 0x3f) * 200,
        _ => 60_000 + (code & 0x3f) * 1500,
    }
}

fn pattern(code: u8) -> Match {
    match code & 7 {
        7 => Match::any_tag(),
        6 => Match::tag(u64::from(code >> 3 & 2)).ignoring(1),
        _ => Match::tag(u64::from(code >> 3 & 3)),
    }
}

fn step(sides: &mut [Side; 2], at: usize, code: u8, input: &mut Input<'_>) -> u64 {
    let [left, right] = sides;
    let (side, other) = if at == 0 { (left, right) } else { (right, left) };
    match code % 12 {
        0 | 1 => side.send(u64::from(input.byte() & 3), len(input), false),
        2 | 3 => side.send(u64::from(input.byte() & 3), len(input), true),
        4 | 5 => {
            let op = side.endpoint.post_recv(pattern(input.byte()), vec![0xee; ROOM]).expect("a receive");
            side.receives.push((op, side.got.len()));
            side.got.push(None);
            2
        }
        6 => {
            for _ in 0..input.byte() & 15 {
                side.engine.progress();
            }
            3
        }
        7 => side.cancel_send(input.byte()),
        8 => side.cancel_receive(other, input.byte()),
        9 => {
            let mut buf = vec![0xee; ROOM];
            let pattern = pattern(input.byte());
            if side.endpoint.probe(pattern).is_some_and(|found| found.len > WHOLE) {
                return 13;
            }
            match side.endpoint.try_recv(pattern, &mut buf) {
                Ok(info) => {
                    side.got.push(None);
                    side.received(other, &info, &buf, side.got.len() - 1);
                    4
                }
                Err(OpError::WouldBlock) => 5,
                // It was fetched because credit was spent.
                Err(OpError::TimedOut { .. }) => {
                    side.gave_up = true;
                    14
                }
                Err(error) => panic!("try_recv: {error}"),
            }
        }
        10 => {
            let pattern = pattern(input.byte());
            u64::from(side.endpoint.probe(pattern).is_some())
        }
        _ => {
            // Rarely: to be made up for costs many turns.
            if input.byte().is_multiple_of(8) {
                u64::from(side.engine.cut(&side.to))
            } else {
                side.collect(other);
                6
            }
        }
    }
}

impl Side {
    fn send(&mut self, tag: u64, len: usize, owned: bool) -> u64 {
        let (number, place) = (self.next, self.sent.len());
        let data = content(number, len);
        let message = self.to.message(tag).immediate(number);
        if owned {
            self.sends.push((message.post(data).expect("posted"), place));
        } else {
            match message.try_send(&data) {
                Ok(()) => {}
                Err(OpError::WouldBlock) => return 0,
                Err(error) => panic!("try_send: {error}"),
            }
        }
        self.next += 1;
        self.sent.push(Sent { number, tag, len, received: false, may_be_missing: false });
        1
    }

    fn cancel_send(&mut self, choice: u8) -> u64 {
        if self.sends.is_empty() {
            return 7;
        }
        let (op, place) = self.sends.remove(usize::from(choice) % self.sends.len());
        let Sent { number, len, .. } = self.sent[place];
        let (buf, event) = match op.cancel() {
            Ok(buf) => (buf, 8),
            Err(failed) if matches!(failed.error, OpError::Cancelled) => {
                self.sent[place].may_be_missing = true;
                self.gave_up = true;
                (failed.buf, 9)
            }
            Err(failed) => panic!("cancel of a send: {}", failed.error),
        };
        assert!(buf[..] == content(number, len)[..], "the buffer comes back as it was");
        event
    }

    fn cancel_receive(&mut self, from: &mut Self, choice: u8) -> u64 {
        if self.receives.is_empty() {
            return 10;
        }
        let (op, place) = self.receives.remove(usize::from(choice) % self.receives.len());
        match op.cancel() {
            Ok(got) => {
                self.received(from, &got.info, &got.buf, place);
                11
            }
            Err(failed) if matches!(failed.error, OpError::Cancelled) => {
                // Its message may be another's now.
                self.gave_up = true;
                12
            }
            Err(failed) => panic!("cancel of a receive: {}", failed.error),
        }
    }

    /// Takes what receives have got.
    fn collect(&mut self, from: &mut Self) {
        let mut waiting = Vec::new();
        for (mut op, place) in std::mem::take(&mut self.receives) {
            match op.try_wait() {
                None => waiting.push((op, place)),
                Some(Ok(got)) => self.received(from, &got.info, &got.buf, place),
                Some(Err(failed)) => panic!("a receive: {}", failed.error),
            }
        }
        self.receives = waiting;
    }

    fn received(&mut self, from: &mut Self, info: &Completion, bytes: &[u8], place: usize) {
        let number = info.immediate.expect("every message has one");
        let sent = from.sent.iter_mut().find(|sent| sent.number == number).expect("a message that was sent");
        assert!(!sent.received, "message {number} came twice");
        sent.received = true;
        assert_eq!((info.tag, info.len), (sent.tag, sent.len), "message {number}");
        assert!(bytes[..info.len] == content(number, sent.len)[..], "content of message {number}");
        self.got[place] = Some((info.tag, number));
    }

    /// Receives that were posted later got later messages of the same tag.
    fn check_order(&self, from: &Self) {
        if self.gave_up || from.gave_up {
            return;
        }
        for tag in 0..4 {
            let numbers = self.got.iter().flatten().filter(|(of, _)| *of == tag).map(|(_, number)| *number);
            assert!(numbers.is_sorted(), "messages of tag {tag} in order");
        }
    }

    fn is_owed(&self) -> bool {
        !self.sends.is_empty() || self.sent.iter().any(|sent| !sent.received && !sent.may_be_missing)
    }
}

fn both(sides: &mut [Side; 2], mut each: impl FnMut(&mut Side, &mut Side)) {
    let [left, right] = sides;
    each(left, right);
    each(right, left);
}

/// Receives everything that is under way, and begins anew.
fn settle(sides: &mut [Side; 2]) {
    for turn in 0.. {
        both(sides, |at, from| {
            at.engine.process();
            at.collect(from);
            at.sends.retain_mut(|(op, _)| match op.try_wait() {
                None => true,
                Some(Ok(_)) => false,
                Some(Err(failed)) => panic!("a send: {}", failed.error),
            });
            if at.receives.is_empty() && from.is_owed() {
                let op = at.endpoint.post_recv(Match::any_tag(), vec![0xee; ROOM]).expect("a receive");
                at.receives.push((op, at.got.len()));
                at.got.push(None);
            }
        });
        if !sides.iter().any(Side::is_owed) {
            break;
        }
        // Whoever waits for what nobody sends stands in the way of what is owed.
        if turn % 64 == 63 {
            both(sides, give_up_receives);
        }
        assert!(turn < TURNS_MAX, "a message is lost");
    }
    both(sides, |at, from| {
        give_up_receives(at, from);
        // What was taken back may have arrived all the same.
        while at.endpoint.probe(Match::any_tag()).is_some() {
            let mut op = at.endpoint.post_recv(Match::any_tag(), vec![0; ROOM]).expect("a receive");
            for _ in 0..TURNS_MAX {
                if op.try_wait().is_some() {
                    break;
                }
                from.engine.process();
                at.engine.process();
            }
        }
        at.check_order(from);
    });
    for side in sides {
        side.sent.clear();
        side.got.clear();
        side.gave_up = false;
    }
}

fn give_up_receives(at: &mut Side, from: &mut Side) {
    at.collect(from);
    while !at.receives.is_empty() {
        at.cancel_receive(from, 0);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let short = vec![0, 1, 8, 4, 8, 6, 15, 0x86, 15, 0x84, 8, 0x80, 1, 30, 6, 3];
    let long = vec![2, 1, 0xc0, 0x84, 8, 6, 15, 0x86, 15, 2, 1, 0xff, 0x84, 7, 6, 9, 0x86, 9, 6, 15];
    let given_up = vec![2, 0, 0xc8, 7, 0, 0x84, 0, 0x88, 0, 2, 0, 0xd0, 0x84, 7, 6, 4, 0x86, 4, 0x88, 0];
    let cut = vec![0, 0, 9, 2, 1, 0xc3, 11, 0, 6, 15, 0x86, 15, 0x84, 7, 0x8b, 8, 0x89, 0];
    let mixed = (0..300_u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 19) as u8).collect();
    vec![short, long, given_up, cut, mixed]
}
