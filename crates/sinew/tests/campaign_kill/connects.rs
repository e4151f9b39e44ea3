//! Processes killed, or stopped, while they connect or are connected to: at a random moment of the dial, the handshake and the
//! proof of the lane.
//!
//! One campaign for each lane and side. How long a connect takes is measured first, and faults are spread over that time, so that
//! they hit it however busy the machine is.

use crate::common::PATIENCE;
use crate::herd::{Diary, Victim, is_alive};
use crate::random::Executioner;
use crate::rounds::{Random, Times, middle, rounds, seed, until};
use crate::survivor::{MODES, Survivor, World, assert_lost, assert_lost_for_ever};
use crate::traffic::LATE;
use sinew::Match;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The first rounds, in which nobody dies before it is connected: they say how long that takes.
const FIRST: u64 = 6;
/// Fewer rounds prove little: nothing is asked of what they hit.
const FEW: u64 = 20;
/// So many times the rounds at most, until enough were hit in the middle.
const GOES_ON: u64 = 6;
/// A connect to somebody who stands still ends by this deadline.
const SHORT: Duration = Duration::from_millis(300);
/// A fault comes within so long of the beginning of a connect.
const SPAN_MIN_US: u64 = 60;
const SPAN_MAX_US: u64 = 200_000;
/// Messages of a talk with the partner.
const TALK: u64 = 6;

/// Who the victim is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Dialer,
    Listener,
}

#[derive(Default)]
struct Counts {
    /// Faults before the connect was over, and after.
    inside: u64,
    after: u64,
    stopped: u64,
    refused: u64,
    ended: Times,
}

/// What a round is given.
struct Round<'a> {
    which: usize,
    /// The fault comes so long after the connect has begun; none: when it is over.
    after: Option<Duration>,
    stops: bool,
    executioner: &'a Executioner,
    start: Instant,
}

/// Runs a campaign and prints its row.
pub(crate) fn campaign(lane: &'static str, side: Side) {
    let (rounds, seed) = (rounds(), seed());
    let mut random = Random::new(seed);
    let mut world = World::new(lane, &MODES);
    let start = Instant::now();
    let executioner = Executioner::new(start);
    world.settle();
    let (mut counts, mut took) = (Counts::default(), Vec::new());
    let (mut number, wanted) = (0, FIRST + rounds);
    let enough = |counts: &Counts| counts.inside * 5 >= rounds;
    let mut span_us = 0;
    while number < wanted || (rounds >= FEW && number < wanted * GOES_ON && !enough(&counts)) {
        if number == FIRST {
            counts = Counts::default();
            world.settle();
        }
        if number == FIRST {
            span_us = (middle(&mut took) * 1e6) as u64;
        }
        let after = (number >= FIRST).then(|| Duration::from_micros(random.below(span_us.max(1))));
        let inside = counts.inside;
        let stops = after.is_some() && random.below(4) == 0;
        let round =
            Round { which: number as usize % MODES.len(), after, stops, executioner: &executioner, start };
        let connected = match side {
            Side::Dialer => dialer(&mut world, &round, &mut counts),
            Side::Listener => listener(&mut world, &round, &mut counts),
        };
        took.extend(connected.filter(|_| number < FIRST).map(|time| time.as_secs_f64()));
        world.check(&format!("round {number} of connect/{lane}/{side:?}, seed {seed}"));
        // Over the whole of a connect, and a little beyond it, however long that is at present.
        span_us = if counts.inside > inside { span_us + span_us / 8 } else { span_us - span_us / 6 };
        span_us = span_us.clamp(SPAN_MIN_US, SPAN_MAX_US);
        number += 1;
    }
    let heap = world.heap_per_loss(1);
    world.check_sockets();
    let Counts { inside, after, stopped, refused, mut ended } = counts;
    let more = if number > wanted {
        format!(" and {} more until enough was hit", number - wanted)
    } else {
        String::new()
    };
    let side = format!("{side:?}").to_lowercase();
    crate::tell(format!(
        "kill/{lane}/connect/{side}: {rounds} rounds{more}, 0 wedged, 0 leaked, {inside} hit before the connect was over, {after} after, {stopped} of them stopped first, {refused} connects of the survivor failed with a reason, over for it in {}, a connect takes {:.2} ms, {heap} B of heap a loss, seed {seed}",
        ended.row(),
        middle(&mut took) * 1e3,
    ));
    assert!(rounds < FEW || inside * 5 >= rounds, "{inside} of {rounds} hit a connect");
}

fn order(round: &Round<'_>, victim: &Victim, after: Duration) {
    let signal = if round.stops { libc::SIGSTOP } else { libc::SIGKILL };
    round.executioner.order(victim, signal, after);
}

/// The victim connects to the survivor. Answers how long that took, if it was left alone.
fn dialer(world: &mut World, round: &Round<'_>, counts: &mut Counts) -> Option<Duration> {
    let address = world.survivors[round.which].a.address().to_string();
    let victim = world.herd.victim(0, &format!("dial {address}"));
    let (survivor, diary) = (&mut world.survivors[round.which], world.herd.diaries.of(0));
    let is = |word: &std::sync::atomic::AtomicU64| word.load(Ordering::Acquire) > 0;
    until(|| is(&diary.ready), || "the victim is ready to connect".to_owned());
    let begun = Instant::now();
    if let Some(after) = round.after {
        order(round, &victim, after);
    }
    diary.go.store(1, Ordering::Release);
    let took =
        survive(survivor, || is(&diary.ended) || round.after.is_some() && round.executioner.is_done(), begun);
    if round.after.is_some() {
        survive(survivor, || round.executioner.is_done(), begun);
        if round.stops {
            // Nobody waits for it meanwhile.
            survivor.talk(TALK);
            counts.stopped += 1;
        }
    }
    victim.signal(libc::SIGKILL);
    survive(survivor, || !is_alive(victim.pid), begun);
    note(diary, counts);
    counts.ended.add(since_fault(round));
    round.after.is_none().then_some(took)
}

/// Talks with the partner until `over`; how long that took.
fn survive(survivor: &mut Survivor, over: impl Fn() -> bool, begun: Instant) -> Duration {
    loop {
        let took = begun.elapsed();
        if over() {
            return took;
        }
        assert!(took < PATIENCE, "what is waited for does not happen");
        survivor.engine.process();
        if took > Duration::from_millis(20) {
            survivor.talk(1);
        }
    }
}

fn note(diary: &Diary, counts: &mut Counts) {
    if diary.is_inside() { counts.inside += 1 } else { counts.after += 1 }
}

fn since_fault(round: &Round<'_>) -> Duration {
    round.start.elapsed().saturating_sub(round.executioner.sent_at())
}

/// The survivor connects to the victim. Answers how long that took, if it was left alone.
fn listener(world: &mut World, round: &Round<'_>, counts: &mut Counts) -> Option<Duration> {
    let victim = world.herd.victim(0, "listen");
    let survivor = &mut world.survivors[round.which];
    let begun = Instant::now();
    if let Some(after) = round.after {
        order(round, &victim, after);
    }
    let limit = if round.stops { SHORT } else { PATIENCE };
    let connected = survivor.a.connect_within(&victim.address, limit);
    let took = begun.elapsed();
    // The order may be for later than the end of the connect.
    let before = round.after.is_some() && round.executioner.is_done();
    survive(survivor, || round.after.is_none() || round.executioner.is_done(), begun);
    counts.stopped += u64::from(round.stops);
    victim.signal(libc::SIGKILL);
    match &connected {
        Ok(peer) => {
            let late = survivor.a.post_recv(Match::tag(LATE).from(peer.source()), vec![0; 8]).unwrap();
            assert_lost("a receive", &survivor.wait(late, PATIENCE));
            assert_lost_for_ever(peer);
        }
        Err(error) => {
            let why = error.to_string();
            assert!(round.after.is_some(), "a connect that nobody disturbed: {why}");
            assert!(why.lines().count() > 1 || why.contains(';'), "no reason: {why}");
            counts.refused += 1;
        }
    }
    if before {
        counts.inside += 1
    } else {
        counts.after += 1
    }
    counts.ended.add(since_fault(round));
    survivor.talk(TALK);
    (round.after.is_none() && connected.is_ok()).then_some(took)
}
