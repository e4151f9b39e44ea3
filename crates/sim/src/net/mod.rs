//! The virtual network and its clock: hosts, paths between them, and connections that lose, delay, double and reorder
//! packets below an ordered stream, as IP does below TCP.
//!
//! Driven by the world, used by the simulated lanes. It knows packets and pieces of frames; engines, sessions and messages it
//! never sees. Everything random comes from its own generator.

mod end;
mod host;
mod packet;
mod path;

pub(crate) use end::{End, State};
pub(crate) use host::{Host, Share};
pub(crate) use packet::{Packet, Piece, Word};
pub(crate) use path::Path;

use crate::random::Random;
use crate::trace::Trace;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One end of a connection; never used again.
pub(crate) type EndId = usize;

/// A nanosecond's worth of virtual time is 1.
pub(crate) type Nanos = u64;
pub(crate) const MICROS: Nanos = 1_000;
pub(crate) const MILLIS: Nanos = 1_000_000;
pub(crate) const SECONDS: Nanos = 1_000_000_000;

/// The families of simulated lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Like shared memory: nothing is lost, death is noticed, memory can be pulled.
    Near,
    /// Like a socket on one machine: small frames, nothing is lost.
    Mid,
    /// Like TCP.
    Far,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Near, Self::Mid, Self::Far];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Mid => "mid",
            Self::Far => "far",
        }
    }

    /// Whether its packets go through the network, and so get lost.
    const fn is_lossy(self) -> bool {
        matches!(self, Self::Far)
    }
}

/// What the world asked to be told at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Alarm {
    /// The application of a host does its next thing.
    Act(usize),
    /// The engine of a host runs.
    Step(usize),
    /// A sleep of a host's ends: the number of the sleep.
    Nap(usize, u64),
    /// The fault with this index in the plan.
    Fault(usize),
}

enum Event {
    Arrival(Packet),
    Resend { end: EndId, round: u64 },
    KeepAlive { end: EndId },
    Alarm(Alarm),
}

struct Queued {
    at: Nanos,
    order: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A breach of the lane contract that is made on purpose, to see that the checker notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Breach {
    /// One message frame of a live lane is dropped.
    Drop,
    /// One is delivered twice.
    Twice,
    /// Two are swapped.
    Swap,
    /// One byte of one is changed.
    Garble,
}

/// Where an end is.
#[derive(Clone, Copy, Debug)]
struct Place {
    kind: Kind,
    host: usize,
    /// It was made once: it is never made again.
    used: bool,
}

/// The whole network.
pub(crate) struct Net {
    pub(crate) now: Nanos,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
    pub(crate) random: Random,
    pub(crate) hosts: Vec<Host>,
    pub(crate) ends: Vec<Option<End>>,
    /// Where each end is, also when it is gone.
    places: Vec<Place>,
    /// From each host to each, row by row.
    pub(crate) paths: Vec<Path>,
    pub(crate) trace: Trace,
    /// Hosts to which something happened that may wake them.
    pub(crate) touched: Vec<usize>,
    /// The contract that lanes break once: what, and how many frames of messages from now.
    pub(crate) breach: Option<(Breach, u64)>,
    /// It was broken.
    pub(crate) breached: bool,
    /// Fragments outside the sequence that were posted.
    pub(crate) stripes: u64,
    /// Readings of the clock since it last moved: a loop without an end shows here.
    pub(crate) readings: u64,
}

/// The network as lanes, engines and the world share it. One thread uses it; the lock is for the compiler.
pub(crate) type Shared = Arc<Mutex<Net>>;

pub(crate) fn lock(net: &Shared) -> MutexGuard<'_, Net> {
    net.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Net {
    pub(crate) fn new(hosts: usize, random: Random, trace: Trace) -> Self {
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            order: 0,
            random,
            hosts: (0..hosts).map(|_| Host::default()).collect(),
            ends: Vec::new(),
            places: Vec::new(),
            paths: vec![Path::default(); hosts * hosts],
            trace,
            touched: Vec::new(),
            breach: None,
            breached: false,
            stripes: 0,
            readings: 0,
        }
    }

    fn push(&mut self, at: Nanos, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Queued { at, order: self.order, event }));
    }

    pub(crate) fn alarm(&mut self, after: Nanos, alarm: Alarm) {
        self.push(self.now + after, Event::Alarm(alarm));
    }

    /// Moves time to the next thing that happens before `until` and does it; an alarm is the world's to handle. `None`:
    /// nothing happens before `until`, which is the present now.
    pub(crate) fn advance(&mut self, until: Nanos) -> Option<Option<Alarm>> {
        self.readings = 0;
        if self.queue.peek().is_none_or(|Reverse(next)| next.at > until) {
            self.now = self.now.max(until);
            return None;
        }
        let Reverse(next) = self.queue.pop()?;
        self.now = self.now.max(next.at);
        match next.event {
            Event::Arrival(packet) => self.arrive(packet),
            Event::Resend { end, round } => self.resend(end, round),
            Event::KeepAlive { end } => self.keep_alive(end),
            Event::Alarm(alarm) => return Some(Some(alarm)),
        }
        Some(None)
    }

    pub(crate) fn end(&mut self, id: EndId) -> Option<&mut End> {
        self.ends.get_mut(id)?.as_mut()
    }

    pub(crate) fn touch(&mut self, host: usize) {
        if !self.touched.contains(&host) {
            self.touched.push(host);
        }
    }

    pub(crate) fn path(&mut self, from: usize, to: usize) -> &mut Path {
        let hosts = self.hosts.len();
        &mut self.paths[from * hosts + to]
    }

    /// Ends whose owner still holds them.
    pub(crate) fn held_ends(&self) -> usize {
        self.ends.iter().flatten().filter(|end| !end.abandoned).count()
    }
}
