//! Latency histograms: made, and clocks read, only when the option `histograms` is on.

use crate::endpoint::Endpoint;
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

    fn record(histogram: &Mutex<Histogram<u64>>, since: Instant) {
        let took = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(took.max(1));
    }

    #[cold]
    pub(crate) fn sent(&self, since: Instant) {
        Self::record(&self.send, since);
    }

    #[cold]
    pub(crate) fn received(&self, since: Instant) {
        Self::record(&self.recv, since);
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
