//! Latency histograms: made, and clocks read, only when the option `histograms` is on.

use crate::core::table::Key;
use crate::core::{Core, LaneSlot};
use crate::endpoint::{Endpoint, EndpointInner};
use crate::engine::Engine;
use hdrhistogram::Histogram;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What an endpoint measures.
pub(crate) struct Measures {
    send: Mutex<Histogram<u64>>,
    recv: Mutex<Histogram<u64>>,
}

/// A distribution of times.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Their mean.
    pub mean: Duration,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 % took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// How long blocking calls took whose messages went or came by one lane. It is gone with the lane.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct LaneHistograms {
    /// The transport's name.
    pub transport: String,
    /// The other end.
    pub peer: String,
    /// From the call of a send to its return, by the lane that carried the session's messages then.
    pub send: Latency,
    /// From the call of a receive to its return with a message, by the lane on which its sender's messages come.
    pub recv: Latency,
}

/// How long blocking calls of an endpoint took.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct EndpointHistograms {
    /// From the call of a send to its return.
    pub send: Latency,
    /// From the call of a receive to its return with a message.
    pub recv: Latency,
}

/// Longest time that is told apart, in nanoseconds; longer ones count as this.
const LONGEST_NS: u64 = 600_000_000_000;

impl Measures {
    pub(crate) fn new() -> Option<Box<Self>> {
        let make = || Histogram::new_with_bounds(1, LONGEST_NS, 3).ok().map(Mutex::new);
        Some(Box::new(Self { send: make()?, recv: make()? }))
    }

    const fn of(&self, way: Way) -> &Mutex<Histogram<u64>> {
        match way {
            Way::Send => &self.send,
            Way::Recv => &self.recv,
        }
    }

    fn record(&self, way: Way, took_ns: u64) {
        self.of(way).lock().unwrap_or_else(PoisonError::into_inner).saturating_record(took_ns.max(1));
    }
}

/// Which call was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Send,
    Recv,
}

impl EndpointInner {
    /// When a call began, if that is measured.
    #[inline]
    pub(crate) fn clock(&self) -> Option<Instant> {
        self.measures.as_ref().map(|_| Instant::now())
    }

    /// Counts a call that has succeeded, for the endpoint and for the lane to the session.
    #[cold]
    pub(crate) fn measured(&self, way: Way, since: Instant, session: Key) {
        let took_ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(measures) = &self.measures {
            measures.record(way, took_ns);
        }
        self.shared.with_aside(|core| core.measure_lane(way, took_ns, session));
    }
}

impl Core {
    fn measure_lane(&mut self, way: Way, took_ns: u64, session: Key) {
        let Some(session) = self.sessions.get(session) else { return };
        let lane = match way {
            Way::Send => session.active,
            Way::Recv => {
                let inbound = |lane: &&Key| self.lanes.get(**lane).is_some_and(|slot| slot.inbound);
                session.lanes.iter().find(inbound).copied()
            }
        };
        let Some(slot) = lane.and_then(|lane| self.lanes.get_mut(lane)) else { return };
        if slot.measures.is_none() {
            slot.measures = Measures::new();
        }
        if let Some(measures) = &slot.measures {
            measures.record(way, took_ns);
        }
    }

    fn lane_histograms(&self) -> Vec<LaneHistograms> {
        let shown = |slot: &LaneSlot| {
            let measures = slot.measures.as_ref()?;
            Some(LaneHistograms {
                transport: slot.transport.to_owned(),
                peer: slot.lane.as_ref().map(|lane| lane.info().peer.clone()).unwrap_or_default(),
                send: latency(&measures.send),
                recv: latency(&measures.recv),
            })
        };
        self.lanes.iter().filter_map(|(_, slot)| shown(slot)).collect()
    }
}

fn latency(histogram: &Mutex<Histogram<u64>>) -> Latency {
    let histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
    let at = |quantile| Duration::from_nanos(histogram.value_at_quantile(quantile));
    Latency {
        count: histogram.len(),
        mean: Duration::from_nanos(histogram.mean() as u64),
        p50: at(0.5),
        p99: at(0.99),
        max: Duration::from_nanos(histogram.max()),
    }
}

impl Endpoint {
    /// How long blocking sends and receives took; `None` unless the option `histograms` is on.
    #[must_use]
    pub fn histograms(&self) -> Option<EndpointHistograms> {
        let measures = self.inner.measures.as_ref()?;
        Some(EndpointHistograms { send: latency(&measures.send), recv: latency(&measures.recv) })
    }
}

impl Engine {
    /// How long blocking sends and receives took, for each lane that carried some and still lives; empty unless the option
    /// `histograms` is on.
    #[must_use]
    pub fn lane_histograms(&self) -> Vec<LaneHistograms> {
        self.shared().with_unless_forked(Vec::new(), |core| core.lane_histograms())
    }
}
