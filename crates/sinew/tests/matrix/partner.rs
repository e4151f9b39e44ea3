//! The peer of a cell (B): it sends a numbered stream, checks the one that it gets, and has an endpoint that receives nothing
//! until it is told to. An engine of this process, or the test binary started again.
//!
//! It uses the blocking and the owned form only: the form under test is the survivor's.

use crate::common::{Other, PATIENCE, hear, say, spawn, until};
use crate::forms::Wanted;
use crate::world::{self, FLOW, FLOW_END, HELLO, LATE, Size, World, fill, load, number_of};
use sinew::{Endpoint, Engine, Match, OpError, Peer, Source};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// In this process.
pub(crate) struct Partner {
    pub(crate) engine: Engine,
    pub(crate) b: Endpoint,
    pub(crate) idle: Endpoint,
    /// From B to A.
    pub(crate) to_a: Peer,
    /// From A to B, and to its endpoint that receives nothing.
    pub(crate) to_b: Peer,
    pub(crate) to_idle: Peer,
}

impl Partner {
    /// On the lane `self` it is the engine under test.
    pub(crate) fn new(world: &World) -> Self {
        let lane = world.cell.lane;
        let engine = match lane {
            "self" => world.here.clone(),
            _ => world::engine(lane, world::THREAD, world::options()),
        };
        let (b, idle) = (engine.endpoint("b").unwrap(), engine.endpoint("idle").unwrap());
        let to_b = world.a.connect(b.address()).expect("a path");
        let to_idle = world.a.connect(idle.address()).expect("a path");
        to_b.send(HELLO, b"hello").unwrap();
        let to_a = b.reply_to(greeting(&b)).unwrap();
        assert!(to_b.path().starts_with(lane), "{lane} is wanted, {} is used", to_b.path());
        Self { engine, b, idle, to_a, to_b, to_idle }
    }

    /// Sends message `number` without waiting for anything.
    pub(crate) fn post(&self, size: Size, tag: u64, number: u64) -> sinew::SendOp {
        self.to_a.post_send(tag, load(&self.to_a, size, number)).unwrap()
    }
}

fn greeting(at: &Endpoint) -> Source {
    at.recv_within(HELLO, &mut [0; 8], PATIENCE).expect("a greeting").source
}

/// Sends a stream until `stop`, then its end; its length.
pub(crate) fn pour(to: &Peer, size: Size, stop: impl Fn(u64) -> bool) -> Result<u64, OpError> {
    for number in 0.. {
        if stop(number) {
            let mut end = [0; 8];
            fill(&mut end, number);
            to.message(FLOW_END).timeout(PATIENCE).send(&end)?;
            return Ok(number);
        }
        let load = load(to, size, number);
        if size == Size::Loan {
            to.post_send(FLOW, load)?.wait_within(PATIENCE)?;
        } else {
            to.message(FLOW).timeout(PATIENCE).send(&load)?;
        }
    }
    unreachable!()
}

/// Receives a stream to its end, or until the session is lost; which numbers came, each once and in order.
pub(crate) fn drink(at: &Endpoint, size: Size) -> Result<Vec<u64>, OpError> {
    let mut numbers: Vec<u64> = Vec::new();
    let mut buf = vec![0; size.bytes()];
    loop {
        let got = at.recv_within(Match::tag(FLOW).ignoring(1), &mut buf, PATIENCE)?;
        let number = number_of(&buf[..got.len]);
        assert!(numbers.last().is_none_or(|&last| last < number), "{number} after {:?}", numbers.last());
        if got.tag == FLOW_END {
            return Ok(numbers);
        }
        assert_eq!(got.len, size.bytes());
        numbers.push(number);
    }
}

/// That no number is missing; how many there are.
pub(crate) fn all(numbers: &[u64]) -> u64 {
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "not all came: {numbers:?}");
    numbers.len() as u64
}

/// In another process.
pub(crate) struct Process {
    pub(crate) other: Other,
    pub(crate) to_b: Peer,
    pub(crate) to_idle: Peer,
}

impl Process {
    /// Starts it; it streams to A at once.
    pub(crate) fn start(world: &World) -> Self {
        let size = format!("{:?}", world.cell.size);
        let other = spawn("partner", world.cell.lane, &[("OTHER_SIZE", &size)]);
        let to_b = world.a.connect(other.line()).expect("a path");
        let to_idle = world.a.connect(other.line()).expect("a path");
        to_b.send(HELLO, b"hello").unwrap();
        assert_eq!(other.line(), "ready");
        Self { other, to_b, to_idle }
    }

    pub(crate) fn wanted(&self, tag: u64) -> Wanted {
        Wanted::from(tag, self.to_b.source())
    }

    /// Tells it something and answers what it says to that.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.other.tell(line);
        self.other.line()
    }
}

/// The body of the other process: `stop` ends its stream, `drunk` asks for the one that it got, `drain` for what its idle
/// endpoint has, `late` makes it send the message that was waited for.
pub(crate) fn child() {
    let lane = std::env::var("OTHER_LANE").unwrap();
    let size = Size::named(&std::env::var("OTHER_SIZE").unwrap());
    let engine = world::engine(&lane, world::THREAD, world::options());
    let (b, idle) = (engine.endpoint("b").unwrap(), engine.endpoint("idle").unwrap());
    say(b.address());
    say(idle.address());
    let to_a = b.reply_to(greeting(&b)).unwrap();
    say("ready");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let poured = scope.spawn(|| pour(&to_a, size, |_| stop.load(Ordering::Acquire)));
        let drunk = scope.spawn(|| drink(&b, size));
        let (mut poured, mut drunk) = (Some(poured), Some(drunk));
        while let Some(line) = hear() {
            match line.as_str() {
                "stop" => {
                    stop.store(true, Ordering::Release);
                    say(poured.take().expect("once").join().unwrap().unwrap());
                }
                "drunk" => say(all(&drunk.take().expect("once").join().unwrap().unwrap())),
                "drain" => say(all(&drink(&idle, size).unwrap())),
                "late" => {
                    to_a.post_send(LATE, load(&to_a, size, 7)).unwrap().wait_within(PATIENCE).unwrap();
                    say("sent");
                }
                other => panic!("no command {other}"),
            }
        }
        stop.store(true, Ordering::Release);
    });
    engine.close(Duration::from_secs(1)).unwrap();
}

/// Waits until each of the counts has grown by `more`.
pub(crate) fn flows_on(counts: &[&std::sync::atomic::AtomicU64], more: u64) {
    let before: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Acquire)).collect();
    until("messages flow", || {
        counts.iter().zip(&before).all(|(count, before)| count.load(Ordering::Acquire) >= before + more)
    });
}
