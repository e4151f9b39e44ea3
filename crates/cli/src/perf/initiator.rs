//! The side that measures: asks the responder for rounds until time or number is reached, and checks what comes back.

use super::Op;
use super::pattern::{fill, seed};
use super::protocol::{BACK, BYTES_MAX, REPLY, REPLY_MAX, REQUEST, Reply, Request, Task};
use super::report::{Latency, Measurement};
use super::responder::{POSTED_FROM, patience, wrong};
use crate::failure::Failure;
use hdrhistogram::Histogram;
use sinew::{Endpoint, Engine, Match, OpError, Peer};
use std::time::{Duration, Instant};

/// How long a measurement goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    Iterations(u64),
    Time(Duration),
}

/// Memory for the messages of one round of a stream.
const ROUND_BYTES: usize = 16 << 20;
/// How long the engine must have kept to a path, and how long that is waited for.
const SETTLED_AFTER: Duration = Duration::from_millis(400);
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// Rounds that a timed measurement is divided into, at least.
const ROUNDS: f64 = 8.0;

/// A responder, as seen from here.
pub(crate) struct Initiator {
    engine: Engine,
    endpoint: Endpoint,
    peer: Peer,
    /// Tag of the next message: none is used twice.
    next_tag: u64,
    run: u64,
    /// How long the other side may take for what was asked last.
    patience: Duration,
}

/// What one round took.
struct Round {
    took: Duration,
    wrong: Option<String>,
}

impl Initiator {
    pub(crate) fn new(engine: Engine, endpoint: Endpoint, peer: Peer) -> Self {
        let run = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
        Self { engine, endpoint, peer, next_tag: 1, run, patience: patience(0, 0) }
    }

    pub(crate) const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The transport that carries messages now.
    pub(crate) fn transport(&self) -> String {
        self.peer.path().split(' ').next().unwrap_or_default().to_owned()
    }

    /// Lets messages flow until the engine has kept to one path for a while: the first that works carries traffic, a better
    /// one takes over later.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        let mut buffers = (vec![0; 8], vec![0; 8]);
        let begun = Instant::now();
        let (mut path, mut since) = (self.peer.path(), begun);
        while since.elapsed() < SETTLED_AFTER && begun.elapsed() < SETTLE_MAX {
            self.ping_pong(8, 100, &mut buffers, &mut |_| ())?;
            let now = self.peer.path();
            if now != path {
                (path, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Tells the responder that nothing more comes.
    pub(crate) fn finish(&self) -> Result<(), OpError> {
        let bye = Request { task: Task::Bye, size: 0, count: 0, base: 0, seed: 0 };
        self.peer.send(REQUEST, &bye.to_bytes())?;
        self.peer.flush_within(Duration::from_secs(2))?;
        self.engine.close(Duration::from_secs(2)).map(|_| ())
    }

    /// Measures one operation at one size.
    pub(crate) fn measure(&mut self, op: Op, size: usize, extent: Extent) -> Result<Measurement, Failure> {
        match op {
            Op::Latency => self.latency(size, extent),
            Op::Bandwidth => self.stream(op, size, extent, 1024),
            Op::Rate => self.stream(op, size, extent, 16384),
        }
    }

    fn latency(&mut self, size: usize, extent: Extent) -> Result<Measurement, Failure> {
        let mut buffers = (vec![0; size], vec![0; size]);
        let mut histogram = histogram()?;
        let rounds = (ROUND_BYTES / size.max(1)).clamp(1, 10) as u64;
        let warm = self.ping_pong(size, rounds, &mut buffers, &mut |_| ())?;
        let mut verdict = warm.wrong;
        let mut pace = Pace::new(extent, rounds, 10_000, warm.took);
        while let Some(count) = pace.next(rounds) {
            let mut record = |round_trip: Duration| {
                histogram.saturating_record(u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX));
            };
            let round = self.ping_pong(size, count, &mut buffers, &mut record)?;
            verdict = verdict.or(round.wrong);
            pace.done(count, round.took);
        }
        let half = |nanoseconds: u64| nanoseconds as f64 / 2.0;
        let latency = Latency {
            mean: (histogram.mean() * 5.0).round() / 10.0,
            p50: half(histogram.value_at_quantile(0.5)),
            p99: half(histogram.value_at_quantile(0.99)),
            p999: half(histogram.value_at_quantile(0.999)),
        };
        Ok(Measurement::new(self.transport(), Op::Latency, size, pace.total)
            .latency(latency)
            .verdict(verdict))
    }

    fn ping_pong(
        &mut self,
        size: usize,
        count: u64,
        (ping, pong): &mut (Vec<u8>, Vec<u8>),
        record: &mut dyn FnMut(Duration),
    ) -> Result<Round, Failure> {
        let request = self.request(Task::PingPong, size, count)?;
        let source = self.peer.source();
        let begun = Instant::now();
        let mut verdict = None;
        for number in 0..count {
            let tag = request.base + number;
            fill(seed(request.seed, number), ping);
            let sent = Instant::now();
            self.peer.message(tag).timeout(self.patience).send(ping)?;
            let got = self.endpoint.recv_within(Match::tag(tag | BACK).from(source), pong, self.patience)?;
            record(sent.elapsed());
            verdict = verdict.or_else(|| wrong(&request, BACK, number, &pong[..got.len]));
        }
        let took = begun.elapsed();
        self.expect(&Reply::Done)?;
        Ok(Round { took, wrong: verdict.or(self.verdict()?) })
    }

    fn stream(&mut self, op: Op, size: usize, extent: Extent, most: u64) -> Result<Measurement, Failure> {
        let fits = (ROUND_BYTES / size.max(1)).max((BYTES_MAX as usize / size.max(1)).clamp(1, 4)) as u64;
        let most = fits.min(most);
        let mut memory = vec![0; size * usize::try_from(most).unwrap_or(1)];
        let warm = self.one_way(size, most.min(64), &mut memory)?;
        let mut verdict = warm.wrong;
        let (mut messages, mut busy) = (0, Duration::ZERO);
        // Rounds are always as large as memory allows: their start and end cost a round trip.
        let mut pace = Pace::new(extent, most, most, warm.took);
        while let Some(count) = pace.next(most) {
            let begun = Instant::now();
            let round = self.one_way(size, count, &mut memory)?;
            verdict = verdict.or(round.wrong);
            messages += count;
            busy += round.took;
            pace.done(count, begun.elapsed());
        }
        let seconds = busy.as_secs_f64().max(1e-9);
        let rate = messages as f64 / seconds;
        Ok(Measurement::new(self.transport(), op, size, pace.total).rate(rate, size).verdict(verdict))
    }

    fn one_way(&mut self, size: usize, count: u64, memory: &mut [u8]) -> Result<Round, Failure> {
        let slot = |number: u64| {
            let start = usize::try_from(number).unwrap_or(0) * size;
            start..start + size
        };
        let run = self.run.wrapping_add(1);
        for number in 0..count {
            fill(seed(run, number), &mut memory[slot(number)]);
        }
        let request = self.request(Task::Stream, size, count)?;
        let begun = Instant::now();
        if size > POSTED_FROM {
            let memory = &*memory;
            self.endpoint.scope(|scope| {
                let sends = (0..count)
                    .map(|number| scope.send(&self.peer, request.base + number, &memory[slot(number)]))
                    .collect::<Result<Vec<_>, _>>()?;
                sends.into_iter().try_for_each(|send| send.wait_within(self.patience))
            })?;
        } else {
            for number in 0..count {
                self.peer
                    .message(request.base + number)
                    .timeout(self.patience)
                    .send(&memory[slot(number)])?;
            }
        }
        self.expect(&Reply::Done)?;
        let took = begun.elapsed();
        Ok(Round { took, wrong: self.verdict()? })
    }

    /// Asks for a round and waits until the responder is ready for it.
    fn request(&mut self, task: Task, size: usize, count: u64) -> Result<Request, Failure> {
        self.run = self.run.wrapping_add(1);
        let request = Request { task, size, count, base: self.next_tag, seed: self.run };
        self.next_tag += count;
        self.patience = patience(size, count);
        self.peer.send(REQUEST, &request.to_bytes())?;
        self.expect(&Reply::Ready)?;
        Ok(request)
    }

    fn reply(&self) -> Result<Reply, Failure> {
        let mut bytes = [0; REPLY_MAX];
        let got = self.endpoint.recv_within(
            Match::tag(REPLY).from(self.peer.source()),
            &mut bytes,
            self.patience,
        )?;
        match Reply::from_bytes(&bytes[..got.len]) {
            Some(Reply::Refused(text)) => Err(Failure::failed(format!("the other side refuses: {text}"))),
            Some(reply) => Ok(reply),
            None => Err(Failure::failed(
                "the other side is no `sinew perf` of this version; use the same version on both sides",
            )),
        }
    }

    fn expect(&self, expected: &Reply) -> Result<(), Failure> {
        match self.reply()? {
            reply if reply == *expected => Ok(()),
            other => {
                Err(Failure::failed(format!("the other side answers {other:?} where {expected:?} is due")))
            }
        }
    }

    /// What the responder found wrong.
    fn verdict(&self) -> Result<Option<String>, Failure> {
        match self.reply()? {
            Reply::Verified => Ok(None),
            Reply::Wrong(text) => Ok(Some(text)),
            other => Err(Failure::failed(format!("the other side answers {other:?} where a verdict is due"))),
        }
    }
}

/// Three digits, from a nanosecond to a minute.
fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| Failure::failed(error.to_string()))
}

/// How many messages the next round has.
struct Pace {
    extent: Extent,
    total: u64,
    spent: Duration,
    per_message: f64,
    most: u64,
}

impl Pace {
    fn new(extent: Extent, sample: u64, most: u64, took: Duration) -> Self {
        Self {
            extent,
            total: 0,
            spent: Duration::ZERO,
            per_message: took.as_secs_f64() / sample as f64,
            most,
        }
    }

    /// `None`: enough.
    fn next(&self, least: u64) -> Option<u64> {
        match self.extent {
            Extent::Iterations(wanted) => (self.total < wanted).then(|| (wanted - self.total).min(self.most)),
            Extent::Time(wanted) if self.total > 0 && self.spent >= wanted => None,
            Extent::Time(wanted) => {
                let fits = wanted.as_secs_f64() / ROUNDS / self.per_message.max(1e-9);
                Some((fits as u64).clamp(least.min(self.most), self.most))
            }
        }
    }

    fn done(&mut self, count: u64, took: Duration) {
        self.total += count;
        self.spent += took;
        self.per_message = self.spent.as_secs_f64() / self.total as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_iterations_is_kept_exactly() {
        let mut pace = Pace::new(Extent::Iterations(2500), 10, 1000, Duration::from_millis(1));
        let mut rounds = Vec::new();
        while let Some(count) = pace.next(10) {
            rounds.push(count);
            pace.done(count, Duration::ZERO);
        }
        assert_eq!(rounds, [1000, 1000, 500]);
    }

    #[test]
    fn time_ends_a_measurement_and_rounds_follow_the_speed() {
        let mut pace =
            Pace::new(Extent::Time(Duration::from_secs(1)), 10, 100_000, Duration::from_millis(10));
        assert_eq!(pace.next(1), Some(125));
        pace.done(125, Duration::from_secs(2));
        assert_eq!(pace.next(1), None);
    }
}
