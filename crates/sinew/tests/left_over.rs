//! What is left of a frame that several messages shared: it stays where it is while receives look on, and is found by
//! whatever else asks for it, in its order.

mod common;

use common::{Pair, connected, content, engine_with, options, until};
use sinew::{Completion, Endpoint, Match, OpError, Peer, Progress, Receive, RecvOp};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    any_mixture_of_receives_takes_the_oldest_that_matches,
    frames_that_end_in_the_middle_of_a_permutation_lose_no_order,
    what_is_left_outlives_its_sender,
    a_receive_posted_later_finds_what_is_left,
    a_waker_that_panics_for_what_is_left_ends_no_receive_that_has_its_message,
    a_waker_that_panics_for_what_is_left_ends_no_receive_of_another_endpoint,
    a_waker_that_panics_for_what_is_left_costs_no_operation_its_result,
    a_waker_that_panics_beside_another_panic_ends_no_process,
] }

/// One thread has both engines for itself, so that it packs on the one side and takes frames apart on the other.
fn pair(lane: &str) -> Pair {
    let engine = || engine_with(lane, Progress::Caller, options());
    let pair = connected(engine(), engine());
    settle(&pair);
    pair
}

/// Until the calling thread has both engines for itself.
fn settle(pair: &Pair) {
    for _ in 0..5000 {
        pair.here.progress();
        pair.there.progress();
    }
}

/// Another endpoint of the first engine, connected to the same one.
fn second_sender(p: &Pair) -> (Endpoint, Peer) {
    let (second, connected) = (p.here.endpoint("second").unwrap(), AtomicBool::new(false));
    let peer = std::thread::scope(|scope| {
        scope.spawn(|| {
            until("the second endpoint is connected", || {
                p.there.process();
                connected.load(Ordering::Acquire)
            });
        });
        let peer = second.connect(p.b.address());
        connected.store(true, Ordering::Release);
        peer.unwrap()
    });
    settle(p);
    (second, peer)
}

/// What holds it while an operation is under way is given back where that ends at the first look, too, and nobody sleeps.
#[test]
fn an_endpoint_goes_with_its_last_handle_when_all_its_operations_have_ended() {
    let p = pair("shm");
    for round in 0..3 {
        let (second, to_b_too) = second_sender(&p);
        assert_eq!(p.here.counters().endpoints, 2);
        let exchange = || {
            to_b_too.post_send(1, vec![0; 8]).unwrap().wait().unwrap();
            p.b.recv(1, &mut [0; 8]).unwrap();
        };
        // Beside another operation, and alone.
        let receive = second.post_recv(1, vec![0; 8]).unwrap();
        exchange();
        drop(receive);
        exchange();
        drop((second, to_b_too));
        assert_eq!(p.here.counters().endpoints, 1, "round {round}");
    }
}

/// A small generator, whose seed is printed with what fails.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What a receive asks for.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Tag(u64),
    AnyTag,
    Untagged,
}

impl From<Wanted> for Match {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Tag(tag) => Self::tag(tag),
            Wanted::AnyTag => Self::any_tag(),
            Wanted::Untagged => Self::untagged(),
        }
    }
}

/// What one sender has under way: number, tag (none: untagged) and length, the oldest first.
type UnderWay = Vec<(u64, Option<u64>, usize)>;

fn bytes_of(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = content(len, number);
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Takes the message out of what its sender has under way; it must be the oldest that a receive wants.
fn took(
    under_way: &mut HashMap<u32, UnderWay>,
    wanted: Wanted,
    got: &Completion,
    bytes: &[u8],
    context: &str,
) {
    let list = under_way.get_mut(&got.source.endpoint()).expect("a sender");
    let matches = |tag: &Option<u64>| match wanted {
        Wanted::Tag(wanted) => *tag == Some(wanted),
        Wanted::AnyTag => tag.is_some(),
        Wanted::Untagged => tag.is_none(),
    };
    let at = list.iter().position(|(_, tag, _)| matches(tag)).expect("something that matches");
    let (number, tag, len) = list.remove(at);
    assert_eq!((got.len, got.tag), (len, tag.unwrap_or(0)), "{context}");
    assert_eq!(bytes[..8], number.to_le_bytes(), "not the oldest: {context}");
    assert_eq!(bytes[..got.len], bytes_of(number, len), "{context}");
}

/// Stages or sends some messages of one sender.
fn send_some(p: &Pair, to_b: &Peer, random: &mut Random, number: &mut u64, list: &mut UnderWay) {
    for _ in 0..1 + random.below(70) {
        let tag = (random.below(10) > 0).then(|| random.below(5));
        let end = if random.below(8) == 0 { 3000 } else { 30 };
        let len = 8 + random.below(end) as usize;
        let bytes = bytes_of(*number, len);
        let message = to_b.message(tag.unwrap_or(0));
        let message = if tag.is_some() { message } else { message.untagged() };
        while let Err(error) = message.stage(&bytes) {
            assert!(matches!(error, OpError::WouldBlock), "{error}");
            p.here.progress();
            p.there.progress();
        }
        list.push((*number, tag, len));
        *number += 1;
    }
    p.here.progress();
}

fn any_mixture_of_receives_takes_the_oldest_that_matches(lane: &str) {
    let p = pair(lane);
    let (second, to_b_too) = second_sender(&p);
    let seed = std::env::var("SINEW_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1,
    );
    let context = format!("{lane}, SINEW_SEED={seed}");
    let mut random = Random(seed);
    let mut under_way: HashMap<u32, UnderWay> = HashMap::new();
    let senders = [(p.a.number(), &p.to_b), (second.number(), &to_b_too)];
    let mut number = 0;
    let mut buf = vec![0; 4096];
    for _ in 0..1500 {
        if under_way.values().map(Vec::len).sum::<usize>() < 40 {
            let (sender, to_b) = senders[random.below(2) as usize];
            let list = under_way.entry(sender).or_default();
            send_some(&p, to_b, &mut random, &mut number, list);
        }
        // Something that is under way, so that the receive ends.
        let lists: Vec<_> = under_way.values().filter(|list| !list.is_empty()).collect();
        let list = lists[random.below(lists.len() as u64) as usize];
        let (_, tag, _) = list[random.below(list.len() as u64) as usize];
        let wanted = match tag {
            None => Wanted::Untagged,
            Some(_) if random.below(6) == 0 => Wanted::AnyTag,
            Some(tag) => Wanted::Tag(tag),
        };
        match random.below(12) {
            0 => {
                let done = p.b.post_recv(wanted, vec![0; 4096]).unwrap().wait().unwrap();
                took(&mut under_way, wanted, &done.info, &done.buf, &context);
            }
            1 => {
                let found = p.b.wait_probe(wanted, std::time::Duration::from_secs(20)).unwrap();
                let got = p.b.try_recv(wanted, &mut buf).unwrap();
                assert_eq!(found, got, "{context}");
                took(&mut under_way, wanted, &got, &buf, &context);
            }
            2 => {
                let mut receives = [Receive::new(wanted, &mut buf)];
                p.b.recv_all(&mut receives).unwrap();
                let got = *receives[0].completion().expect("a message");
                took(&mut under_way, wanted, &got, receives[0].data(), &context);
            }
            3 => {
                let message = p.b.recv_message(wanted, 4096).unwrap();
                took(&mut under_way, wanted, message.info(), &message.to_vec(), &context);
            }
            4 => {
                p.there.progress();
            }
            _ => {
                let got = p.b.recv(wanted, &mut buf).unwrap();
                took(&mut under_way, wanted, &got, &buf, &context);
            }
        }
    }
}

/// Eight by eight in another order, with frames that hold 32 from anywhere in the row.
fn frames_that_end_in_the_middle_of_a_permutation_lose_no_order(lane: &str) {
    const ORDER: [u64; 8] = [3, 0, 6, 1, 7, 4, 2, 5];
    let p = pair(lane);
    let mut buf = [0; 64];
    let mut staged = 0_u64;
    for taken in 0..20_000_u64 {
        // At least as far as a receive looks, in steps that are no multiple of eight.
        while staged < taken + 8 || (staged < taken + 61 && !staged.is_multiple_of(61)) {
            let tag = staged & !7 | ORDER[(staged & 7) as usize];
            while p.to_b.stage(tag, &tag.to_le_bytes()).is_err() {
                p.here.progress();
                p.there.progress();
            }
            staged += 1;
        }
        p.here.progress();
        let got = p.b.recv(taken, &mut buf).unwrap();
        assert_eq!((got.len, got.tag), (8, taken));
        assert_eq!(buf[..8], taken.to_le_bytes());
    }
}

fn what_is_left_outlives_its_sender(lane: &str) {
    let Pair { to_b, a, b, here, there } = pair(lane);
    for number in 0..100_u64 {
        while to_b.stage(number % 2, &number.to_le_bytes()).is_err() {
            here.progress();
            there.progress();
        }
    }
    here.progress();
    let mut buf = [0; 64];
    // Every second one of the first frames: half of each is left.
    for number in 0..40_u64 {
        b.recv(1, &mut buf).unwrap();
        assert_eq!(buf[..8], (2 * number + 1).to_le_bytes());
    }
    let sent = std::thread::spawn(move || {
        to_b.flush().unwrap();
        drop((to_b, a));
        assert!(here.close(std::time::Duration::from_secs(5)).unwrap(), "closed in time");
    });
    until("the sender is gone", || {
        there.process();
        sent.is_finished()
    });
    sent.join().unwrap();
    for number in 0..50_u64 {
        b.recv(0, &mut buf).unwrap();
        assert_eq!(buf[..8], (2 * number).to_le_bytes());
    }
    for number in 40..50_u64 {
        b.recv(1, &mut buf).unwrap();
        assert_eq!(buf[..8], (2 * number + 1).to_le_bytes());
    }
    assert_eq!(b.counters().unexpected, 0);
}

fn a_receive_posted_later_finds_what_is_left(lane: &str) {
    let p = pair(lane);
    let mut buf = [0; 64];
    for round in 0..200_u64 {
        for number in 0..40_u64 {
            while p.to_b.stage(number, &round.to_le_bytes()).is_err() {
                p.here.progress();
                p.there.progress();
            }
        }
        p.here.progress();
        assert_eq!(p.b.recv(39, &mut buf).unwrap().tag, 39);
        let posted: Vec<_> = (0..39).rev().map(|tag| p.b.post_recv(tag, vec![0; 8]).unwrap()).collect();
        for (posted, tag) in posted.into_iter().zip((0..39).rev()) {
            let done = posted.wait().unwrap();
            assert_eq!((done.info.tag, &done.buf[..]), (tag, &round.to_le_bytes()[..]));
        }
    }
    assert_eq!((p.b.counters().unexpected, p.b.counters().posted), (0, 0));
}

/// Panics once it is told to: a poll that finds nothing wakes, too.
struct Panics(AtomicBool);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        assert!(!self.0.load(Ordering::Relaxed), "a waker that panics");
    }
}

const TRAP: u64 = 99;

/// A receive whose waker panics when its message comes.
fn trap(p: &Pair) -> RecvOp {
    let mut trap = p.b.post_recv(TRAP, vec![0; 8]).unwrap();
    let panics = Arc::new(Panics(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&panics));
    let pinned = std::pin::Pin::new(&mut trap);
    assert!(Future::poll(pinned, &mut Context::from_waker(&waker)).is_pending());
    panics.0.store(true, Ordering::Relaxed);
    settle(p);
    trap
}

/// A frame with two messages, the second one for the trap.
fn send_with_trap(p: &Pair, tag: u64) {
    p.to_b.stage(tag, b"whole").unwrap();
    p.to_b.stage(TRAP, b"trap").unwrap();
    p.here.progress();
}

/// What is left of the frame is given out, if it is not yet.
fn spring(p: &Pair) {
    let _ = catch_unwind(AssertUnwindSafe(|| p.there.progress()));
    p.there.progress();
}

/// Calls until it has an answer; a panic is the waker's. How many there were.
fn whatever_panics<T>(mut call: impl FnMut() -> Option<T>) -> (T, usize) {
    let mut panics = 0;
    let mut got = None;
    until("there is an answer", || {
        match catch_unwind(AssertUnwindSafe(&mut call)) {
            Ok(answer) => got = answer,
            Err(panic) => {
                assert_eq!(panic.downcast_ref::<&str>(), Some(&"a waker that panics"));
                panics += 1;
            }
        }
        got.is_some()
    });
    (got.expect("an answer"), panics)
}

/// The receive hands over to a thread that sleeps, and what is left of the frame is for a waker that panics.
fn a_waker_that_panics_for_what_is_left_ends_no_receive_that_has_its_message(lane: &str) {
    for _ in 0..5 {
        let p = pair(lane);
        let trap = trap(&p);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let (got, _) = whatever_panics(|| p.b.recv(1, &mut [0; 8]).ok());
                got
            });
            for _ in 0..20 {
                // Time to fall asleep; whether it did changes only what is tested.
                std::thread::sleep(std::time::Duration::from_millis(1));
                settle(&p);
            }
            send_with_trap(&p, 3);
            let mut buf = [0; 8];
            let receive = || p.b.recv_within(3, &mut buf, std::time::Duration::from_secs(1)).ok();
            let (got, _) = whatever_panics(receive);
            assert_eq!((got.len, &buf[..5]), (5, &b"whole"[..]));
            spring(&p);
            whatever_panics(|| p.to_b.send(1, b"the end").ok());
            assert_eq!(sleeper.join().unwrap().len, 7);
        });
        assert_eq!(&trap.wait().unwrap().buf[..], b"trap");
    }
}

fn a_waker_that_panics_for_what_is_left_ends_no_receive_of_another_endpoint(lane: &str) {
    let p = pair(lane);
    let other = p.there.endpoint("other").unwrap();
    let connected = AtomicBool::new(false);
    let to_other = std::thread::scope(|scope| {
        scope.spawn(|| {
            until("the other endpoint is connected", || {
                p.there.process();
                connected.load(Ordering::Acquire)
            });
        });
        let peer = p.a.connect(other.address());
        connected.store(true, Ordering::Release);
        peer.unwrap()
    });
    let _trap = trap(&p);
    send_with_trap(&p, 3);
    to_other.send(4, b"other").unwrap();
    let mut buf = [0; 8];
    let (_, before) = whatever_panics(|| p.b.recv(3, &mut buf).ok());
    assert_eq!(&buf[..5], b"whole");
    let (got, panics) = whatever_panics(|| other.recv(4, &mut buf).ok());
    assert_eq!((got.len, &buf[..5], before + panics), (5, &b"other"[..], 1));
}

fn a_waker_that_panics_for_what_is_left_costs_no_operation_its_result(lane: &str) {
    let p = pair(lane);
    let mut posted = p.b.post_recv(4, vec![0; 8]).unwrap();
    p.to_b.send(4, b"other").unwrap();
    p.here.progress();
    until("the message has come", || {
        p.there.progress();
        p.b.counters().messages_received == 1
    });
    let _trap = trap(&p);
    send_with_trap(&p, 3);
    let mut buf = [0; 8];
    let (_, before) = whatever_panics(|| p.b.recv(3, &mut buf).ok());
    assert_eq!(&buf[..5], b"whole");
    let (got, panics) = whatever_panics(|| posted.try_wait());
    assert_eq!((&got.unwrap().buf[..], before + panics), (&b"other"[..], 1));
}

/// What is dropped as a panic goes on gives out what is left.
fn a_waker_that_panics_beside_another_panic_ends_no_process(lane: &str) {
    let p = pair(lane);
    let trap = trap(&p);
    let dropped = p.b.post_recv(4, vec![0; 8]).unwrap();
    send_with_trap(&p, 3);
    let mut buf = [0; 8];
    let (_, before) = whatever_panics(|| p.b.recv(3, &mut buf).ok());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _dropped = dropped;
        std::panic::panic_any("the first");
    }));
    assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"the first"));
    assert!(before == 0 || lane != "shm", "what is left is not given out before");
    assert_eq!(&trap.wait().unwrap().buf[..], b"trap");
}
