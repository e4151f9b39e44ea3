//! The process whose receives are abandoned, again and again, while messages pour in.
//!
//! One thread receives one stream in all forms; so each message that it gets has the number after the last one. A receive that
//! ends by a drop or panic may have had its message already, and takes it along.

use crate::campaign::Random;
use crate::common::{PATIENCE, content, hear, say};
use crate::guarded::{self, room};
use sinew::{Completion, Endpoint, Engine, Match, OpError};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub(crate) const TAG: u64 = 1;
pub(crate) const STOP: u64 = 2;
/// Within a cache line, whole frames, fetched in one piece and in several.
pub(crate) const LENGTHS: [usize; 8] = [8, 40, 3000, 8, 20_000, 60_000, 150_000, 700_000];
pub(crate) const LENGTH_MAX: usize = 700_000;
/// Abandonments of each round, at least.
const PER_ROUND: u64 = 600;

pub(crate) const FORMS: [&str; 9] =
    ["blocking", "scope", "scope dropped", "owned", "cancelled", "dropped", "future", "handler", "panic"];

fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| content(LENGTH_MAX + 4096, 7))
}

/// What has been received so far.
struct Stream {
    next: u64,
    /// Messages that receives which nobody could ask may have taken along.
    unsure: u64,
    last: bool,
}

impl Stream {
    fn got(&mut self, got: &Completion, bytes: &[u8]) {
        let number = got.immediate.expect("numbered");
        let expected = self.next..=self.next + self.unsure;
        assert!(
            expected.contains(&number),
            "message {number}, {expected:?} expected: lost, doubled or out of order"
        );
        assert!(bytes[..got.len] == noise()[number as usize % 4096..][..got.len], "content of {number}");
        (self.next, self.unsure) = (number + 1, 0);
        self.last |= got.tag == STOP;
    }
}

fn any() -> Match {
    // Both tags: the last message has another one.
    Match::tag(0).ignoring(3)
}

fn gave_up(error: &OpError) -> bool {
    assert!(matches!(error, OpError::TimedOut { .. } | OpError::Cancelled), "{error}");
    true
}

/// Time passes while the engine's thread and others work.
fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// One receive in one form; whether it was abandoned.
fn one(at: &Endpoint, form: &str, time: Duration, stream: &mut Stream) -> bool {
    let mut buf = vec![0; room(LENGTH_MAX)];
    match form {
        "blocking" => match at.recv_within(any(), &mut buf, time) {
            Ok(got) => stream.got(&got, &buf),
            Err(error) => return gave_up(&error),
        },
        "scope" => match at.scope(|scope| scope.recv(any(), &mut buf)?.wait_within(time).0) {
            Ok(got) => stream.got(&got, &buf),
            Err(error) => return gave_up(&error),
        },
        // A scope waits for what was dropped in it, so that there must be something to come.
        "scope dropped" => {
            at.scope(|scope| drop(scope.recv(any(), &mut buf)));
            stream.unsure += 1;
            return true;
        }
        "owned" => match at.post_recv(any(), buf).expect("posted").wait_within(time) {
            Ok(got) => stream.got(&got.info, got.buf.as_slice()),
            Err(failed) => return gave_up(&failed.error),
        },
        "cancelled" => {
            let receive = at.post_recv(any(), buf).expect("posted");
            spin(time);
            match receive.cancel() {
                Ok(got) => stream.got(&got.info, got.buf.as_slice()),
                Err(failed) => return gave_up(&failed.error),
            }
        }
        "dropped" => {
            let receive = at.post_recv(any(), buf).expect("posted");
            spin(time);
            drop(receive);
            stream.unsure += 1;
            return true;
        }
        "future" => return future(at, buf, time, stream),
        "handler" => {
            drop(buf);
            return handler(at, time, stream);
        }
        _ => {
            let broken = catch_unwind(AssertUnwindSafe(|| {
                let receive = at.post_recv(any(), buf).expect("posted");
                spin(time);
                let _keep = receive;
                std::panic::resume_unwind(Box::new("between post and wait"));
            }));
            assert!(broken.is_err());
            stream.unsure += 1;
            return true;
        }
    }
    false
}

/// A future that is polled for a while, by nobody's waker, and dropped.
fn future(at: &Endpoint, buf: Vec<u8>, time: Duration, stream: &mut Stream) -> bool {
    let mut receive = pin!(at.post_recv(any(), buf).expect("posted"));
    let start = Instant::now();
    loop {
        match receive.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(got)) => {
                stream.got(&got.info, got.buf.as_slice());
                return false;
            }
            Poll::Ready(Err(failed)) => panic!("{failed}"),
            Poll::Pending if start.elapsed() >= time => break,
            Poll::Pending => std::thread::yield_now(),
        }
    }
    stream.unsure += 1;
    true
}

/// A handler that is unregistered after a while, with its receives posted.
fn handler(at: &Endpoint, time: Duration, stream: &mut Stream) -> bool {
    let seen: Arc<Mutex<Vec<(Completion, bool)>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let note = move |bytes: &[u8], got: &Completion| {
        let number = got.immediate.expect("numbered") as usize;
        let whole = bytes == &noise()[number % 4096..][..bytes.len()];
        noted.lock().unwrap().push((*got, whole));
    };
    let handler = at.on_message(any(), room(LENGTH_MAX), 2, note).expect("registered");
    spin(time);
    handler.unregister();
    for (got, whole) in seen.lock().unwrap().iter() {
        assert!(*whole, "content of {:?} in a handler", got.immediate);
        stream.got(&Completion { len: 0, ..*got }, &[]);
    }
    true
}

pub(crate) fn child(lane: &str) {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (rounds, mut random) = (number("ROUNDS"), Random::new(number("SEED")));
    let engine: Engine = crate::engine(lane);
    let at = engine.endpoint("").unwrap();
    say(at.address());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let own = (lane == "self").then(|| {
        let (peer, stop) = (at.connect(at.address()).unwrap(), Arc::clone(&stop));
        std::thread::spawn(move || crate::flood(&peer, &stop))
    });
    let mut stream = Stream { next: 0, unsure: 0, last: false };
    let mut abandoned = [0u64; FORMS.len()];
    for round in 1..=rounds {
        while abandoned.iter().sum::<u64>() < round * PER_ROUND {
            let form = random.below(FORMS.len() as u64) as usize;
            let time = Duration::from_micros(random.below(60));
            abandoned[form] += u64::from(one(&at, FORMS[form], time, &mut stream));
            if random.in_thousand(100) {
                assert!(!one(&at, "blocking", PATIENCE, &mut stream), "a message comes");
            }
        }
        guarded::check();
    }
    let forms: Vec<String> =
        FORMS.iter().zip(abandoned).map(|(form, count)| format!("{count} {form}")).collect();
    say(format!(
        "{} abandoned of {} messages ({})",
        abandoned.iter().sum::<u64>(),
        stream.next,
        forms.join(", ")
    ));
    assert!(abandoned.iter().all(|&count| count > 0), "each form");
    let _ = hear();
    stop.store(true, std::sync::atomic::Ordering::Release);
    while !stream.last {
        one(&at, "blocking", PATIENCE, &mut stream);
    }
    if let Some(own) = own {
        own.join().unwrap();
    }
    let counters = at.counters();
    assert_eq!((counters.posted, counters.unexpected), (0, 0), "nothing is left");
    // The system writes no memory without rights: it would tell a lane so instead, which ends by that.
    assert_eq!(engine.counters().lanes_lost, 0, "a lane was told to write where it may not");
    say(guarded::check());
}
