//! Senders and receivers killed, or stopped, at a random moment of their traffic with a survivor.
//!
//! One campaign for each lane, tier and side. A round is one victim: its fault and the survivor's way of making progress are
//! drawn. The survivor's other peer is talked with before, during and after.

use crate::common::PATIENCE;
use crate::herd::{Victim, send_signal};
use crate::rounds::{Random, Times, middle, rounds, seed};
use crate::survivor::{MODES, World, assert_lost, assert_lost_for_ever};
use crate::traffic::{Ended, LATE, Receiver, Sender, Tier};
use sinew::{Match, OpError, Peer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, atomic::AtomicU64};
use std::time::{Duration, Instant};

/// Which side the victim is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Sender,
    Receiver,
}

/// What happens to a victim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Kill,
    /// Stopped, then killed.
    StopKill,
    /// Stopped, continued, then killed.
    StopContinueKill,
}

const FAULTS: [Fault; 4] = [Fault::Kill, Fault::Kill, Fault::StopKill, Fault::StopContinueKill];
/// A deadline that passes while the peer is stopped.
const SHORT: Duration = Duration::from_millis(4);
/// The first rounds, which do not count.
const FIRST: u64 = 3;
/// Fewer rounds prove little: nothing is asked of what they hit.
const FEW: u64 = 20;
/// So many times the rounds at most, until all has been hit.
const GOES_ON: u64 = 6;
/// The least share of its rate that a partner has after a death, in the middle of all rounds; it is about 1.
const RATE_LEAST: f64 = 0.4;
/// Messages of the talk with the partner, before, during and after a fault.
const TALK: u64 = 24;
/// A fault comes within so many microseconds of real traffic; a message that is fetched takes a good part of that.
const fn span_us(tier: Tier) -> u64 {
    if tier.is_fetched() { 12_000 } else { 2500 }
}

/// Sends signals from a thread of its own, so that they hit whatever the survivor is doing.
pub(crate) struct Executioner {
    orders: mpsc::Sender<(i32, i32, Duration)>,
    shared: Arc<Sent>,
}

#[derive(Default)]
struct Sent {
    /// A signal has been sent since the last order.
    done: AtomicBool,
    /// When, in nanoseconds since `since`.
    at_ns: AtomicU64,
}

impl Executioner {
    pub(crate) fn new(since: Instant) -> Self {
        let (orders, todo) = mpsc::channel::<(i32, i32, Duration)>();
        let shared = Arc::new(Sent::default());
        let sent = Arc::clone(&shared);
        std::thread::spawn(move || {
            while let Ok((pid, signal, after)) = todo.recv() {
                std::thread::sleep(after);
                sent.at_ns.store(since.elapsed().as_nanos() as u64, Ordering::Release);
                send_signal(pid, signal);
                // Not before: one who sees it may continue whom a signal still to come would stop.
                sent.done.store(true, Ordering::Release);
            }
        });
        Self { orders, shared }
    }

    pub(crate) fn order(&self, victim: &Victim, signal: i32, after: Duration) {
        self.shared.done.store(false, Ordering::Release);
        self.orders.send((victim.pid, signal, after)).expect("it lives");
    }

    /// Whether the last order has been carried out.
    pub(crate) fn is_done(&self) -> bool {
        self.shared.done.load(Ordering::Acquire)
    }

    /// When that was, counted from what it was made with.
    pub(crate) fn sent_at(&self) -> Duration {
        Duration::from_nanos(self.shared.at_ns.load(Ordering::Acquire))
    }
}

/// What a campaign has counted.
#[derive(Default)]
struct Counts {
    /// Kills in the middle of a call.
    inside: u64,
    /// Kills while a loan was held, by the victim or of it.
    loans: u64,
    stops: u64,
    /// Operations that ended by their own deadline, and those of them while the peer was stopped.
    given_up: u64,
    late: u64,
    continued: u64,
    messages: u64,
    detected: Times,
    rates: Vec<f64>,
}

impl Counts {
    /// Whether what a campaign is made for has happened.
    fn bites(&self, lane: &str, tier: &str) -> bool {
        let holds = tier == "in_place" && lane == "shm";
        self.inside > 0 && (!holds || self.loans > 0) && self.stops > 0 && self.late > 0
    }
}

/// One round's state.
struct Round<'a> {
    fault: Fault,
    span_us: u64,
    executioner: &'a Executioner,
    victim: &'a Victim,
    random: &'a mut Random,
    counts: &'a mut Counts,
    flowing: bool,
    /// The stop has been ordered, and not taken back.
    stopping: bool,
    /// Messages since the peer was continued.
    since: Option<u64>,
}

impl Round<'_> {
    /// The deadline of the next operation.
    const fn limit(&self) -> Duration {
        if self.stopping { SHORT } else { PATIENCE }
    }

    /// Orders the first fault.
    fn begin(&mut self) {
        let after = Duration::from_micros(self.random.below(self.span_us));
        let first = if self.fault == Fault::Kill { libc::SIGKILL } else { libc::SIGSTOP };
        self.stopping = first == libc::SIGSTOP;
        self.counts.stops += u64::from(self.stopping);
        self.executioner.order(self.victim, first, after);
    }

    /// A message went or came. With the first one the fault is ordered.
    fn moved(&mut self) {
        self.counts.messages += 1;
        if !std::mem::replace(&mut self.flowing, true) {
            self.begin();
        }
        if let Some(since) = self.since.as_mut() {
            *since += 1;
            if *since == 3 {
                let after = Duration::from_micros(self.random.below(self.span_us));
                self.executioner.order(self.victim, libc::SIGKILL, after);
            }
        }
    }

    /// An operation ended by its own deadline. `talk` is what goes on meanwhile.
    fn late(&mut self, talk: impl FnOnce()) {
        assert!(self.stopping, "an operation ended by its deadline, though the peer was not stopped");
        self.counts.given_up += 1;
        if !self.executioner.is_done() {
            return;
        }
        self.counts.late += 1;
        talk();
        self.stopping = false;
        if self.fault == Fault::StopContinueKill {
            self.counts.continued += 1;
            self.since = Some(0);
            self.victim.signal(libc::SIGCONT);
        } else {
            self.executioner.order(self.victim, libc::SIGKILL, Duration::ZERO);
        }
    }
}

/// Runs a campaign and prints its row.
pub(crate) fn campaign(lane: &'static str, tier: &str, side: Side) {
    let (rounds, seed) = (rounds(), seed());
    let mut random = Random::new(seed);
    let mut world = World::new(lane, &MODES);
    let start = Instant::now();
    let executioner = Executioner::new(start);
    let mut counts = Counts::default();
    world.settle();
    // Where a kill hits is luck, and rarely inside a call where processors are few: the campaign goes on until it has.
    let (wanted, mut number) = (rounds + FIRST, 0);
    while number < wanted || (rounds >= FEW && number < wanted * GOES_ON && !counts.bites(lane, tier)) {
        if number == FIRST {
            // The first ones made what is made once.
            counts = Counts::default();
            world.settle();
        }
        // Each way of making progress meets each fault.
        let which = number as usize % MODES.len();
        let fault = FAULTS[random.below(FAULTS.len() as u64) as usize];
        round(&mut world, which, (tier, side, fault), (&executioner, start), &mut random, &mut counts);
        world.check(&format!("round {number} of {lane}/{tier}/{side:?}, {fault:?}, seed {seed}"));
        number += 1;
    }
    let heap = world.heap_per_loss(1);
    world.check_sockets();
    let bites = counts.bites(lane, tier);
    let Counts { inside, loans, stops, late, continued, messages, mut detected, mut rates, .. } = counts;
    let rate = middle(&mut rates);
    let more = if number > wanted {
        format!(" and {} more until all was hit", number - wanted)
    } else {
        String::new()
    };
    let side = format!("{side:?}").to_lowercase();
    let what = if Tier::named(tier).is_fetched() { "rendezvous" } else { "call" };
    crate::tell(format!(
        "kill/{lane}/{tier}/{side}: {rounds} rounds{more}, 0 wedged, 0 corrupted, 0 leaked, {inside} killed inside a {what}, {loans} with a loan held, {stops} stopped ({late} deadlines passed, {continued} continued), {messages} messages, detected in {}, partner at {rate:.2} of its rate, {heap} B of heap a loss, seed {seed}",
        detected.row(),
    ));
    assert!(rounds < FEW || bites, "no kill hit a {what}, a loan that was held, or a peer that stood still");
    assert!(rounds < FEW || rate > RATE_LEAST, "the partner has only {rate:.2} of its rate after a death");
}

fn round(
    world: &mut World,
    which: usize,
    (tier_name, side, fault): (&str, Side, Fault),
    (executioner, start): (&Executioner, Instant),
    random: &mut Random,
    counts: &mut Counts,
) {
    let tier = Tier::named(tier_name);
    let role = if side == Side::Sender { "send" } else { "receive" };
    let before = world.survivors[which].talk(TALK);
    let victim = world.herd.victim(0, &format!("{role} {tier_name}"));
    let peer = world.survivors[which].meet(&victim, world.lane);
    if tier == Tier::Across {
        let explain = peer.explain();
        assert!(explain.way(100_000).is_some_and(|way| way.way.contains("read across")), "{explain}");
    }
    let late = world.survivors[which].a.post_recv(Match::tag(LATE).from(peer.source()), vec![0; 8]).unwrap();
    let given_up_before = counts.given_up;
    let mut round = Round {
        fault,
        span_us: span_us(tier),
        executioner,
        victim: &victim,
        random,
        counts,
        flowing: false,
        stopping: false,
        since: None,
    };
    let loans = match side {
        Side::Sender => take(world, which, tier, &peer, &mut round),
        Side::Receiver => give(world, which, tier, &peer, &mut round),
    };
    let survivor = &mut world.survivors[which];
    assert_lost("a receive", &survivor.wait(late, PATIENCE));
    let died = start.elapsed().saturating_sub(executioner.sent_at());
    assert_lost_for_ever(&peer);
    survivor.talk(TALK);
    let after = survivor.talk(TALK);
    let diary = world.herd.diaries.of(0);
    assert_eq!(diary.wrong.load(Ordering::Acquire), 0, "the victim saw what must not be");
    let (missing, given_up) = (diary.missing.load(Ordering::Acquire), counts.given_up - given_up_before);
    assert!(missing <= given_up, "{missing} messages did not come to the victim, {given_up} were given up");
    counts.inside += u64::from(diary.is_inside());
    counts.loans += u64::from(diary.held.load(Ordering::Acquire) > 0 || loans > 0);
    counts.detected.add(died);
    counts.rates.push(after / before);
}

/// Receives from the victim until it is dead; how many loans of it were held then.
fn take(world: &mut World, which: usize, tier: Tier, peer: &Peer, round: &mut Round<'_>) -> usize {
    let survivor = &mut world.survivors[which];
    let at = survivor.a.clone();
    let mut receiver = Receiver::new(tier, &at, peer.source());
    let error = loop {
        match receiver.receive(round.limit(), None) {
            Ok(()) => round.moved(),
            Err(Ended::Late) => round.late(|| {
                survivor.talk(TALK);
            }),
            Err(Ended::Error(error)) => break error,
            Err(Ended::Wrong(what)) => panic!("{what}"),
        }
    };
    assert_lost("a receive of the stream", &Err::<(), _>(error));
    assert_eq!(receiver.missing, 0, "messages before the end did not come");
    receiver.check_loans()
}

/// Sends to the victim until it is dead.
fn give(world: &mut World, which: usize, tier: Tier, peer: &Peer, round: &mut Round<'_>) -> usize {
    let survivor = &mut world.survivors[which];
    let mut sender = Sender::new(tier, peer);
    let error = loop {
        let (limit, since) = (round.limit(), Instant::now());
        let sent = sender.send(limit, None);
        if sent.is_ok() {
            round.moved();
        }
        match sent {
            // Over sockets a send ends when the system has it, or its deadline has passed.
            Ok(()) if since.elapsed() < limit => {}
            Ok(()) | Err(OpError::TimedOut { .. }) => {
                if !round.stopping {
                    // For whoever reads why it failed.
                    eprintln!(
                        "{sent:?} after {:?}, peer {}\n{}\n{:?}",
                        since.elapsed(),
                        round.victim.state(),
                        peer.explain(),
                        survivor.a.counters()
                    );
                }
                round.late(|| {
                    survivor.talk(TALK);
                });
            }
            Err(error) => break error,
        }
    };
    assert_lost("a send of the stream", &Err::<(), _>(error));
    sender.expect_lost();
    0
}
