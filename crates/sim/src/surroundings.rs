//! Virtual time, seeded chance and simulated readiness, as an engine takes them.
//!
//! Given to each engine by the world. Its clock is the network's; for a process that is dead its own, which passes as fast as
//! it waits, so that what is left of it ends.

use crate::net::{Nanos, Shared, lock};
use crate::random::Random;
use crate::world;
use sinew_engine::Surroundings;
use sinew_transport::{Errno, Event, Poller, Readiness};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// When virtual time began: any moment will do.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// A virtual time as engines take it.
pub(crate) fn instant(at: Nanos) -> Instant {
    origin() + Duration::from_nanos(at)
}

/// The virtual time that an engine names.
pub(crate) fn nanos(at: Instant) -> Nanos {
    length(at.saturating_duration_since(origin()))
}

/// A length of time.
pub(crate) fn length(of: Duration) -> Nanos {
    u64::try_from(of.as_nanos()).unwrap_or(u64::MAX)
}

/// Readings of the clock without any of them moving, after which an engine is taken to run in circles.
const READINGS_MAX: u64 = 100_000;

/// What one process has around it. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(crate) struct Around {
    net: Shared,
    host: usize,
    generation: u32,
    random: Arc<Mutex<Random>>,
    /// How far the clock of a dead process is ahead.
    ahead: Arc<AtomicU64>,
}

impl Around {
    pub(crate) fn new(net: Shared, host: usize, generation: u32, random: Random) -> Self {
        Self { net, host, generation, random: Arc::new(Mutex::new(random)), ahead: Arc::default() }
    }

    fn is_dead(&self) -> bool {
        let net = lock(&self.net);
        let host = &net.hosts[self.host];
        !host.alive || host.generation != self.generation
    }
}

impl Surroundings for Around {
    fn now(&self) -> Instant {
        let mut net = lock(&self.net);
        net.readings += 1;
        if net.readings >= READINGS_MAX {
            let mut events = Vec::new();
            net.ready(self.host, &mut events);
            let ends = net.hosts[self.host].ends.clone();
            let ends: Vec<_> =
                ends.iter().filter_map(|&id| Some((id, net.ends[id].as_ref()?.brief()))).collect();
            drop(net);
            panic!(
                "host {} runs in circles: its clock stands still; ready: {events:?}; ends: {ends:?}",
                self.host
            );
        }
        instant(net.now + self.ahead.load(Ordering::Relaxed))
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), Errno> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
        Ok(())
    }

    fn poller(&self) -> Result<Poller, Errno> {
        Poller::simulated(self.clone())
    }
}

impl Readiness for Around {
    fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>) {
        let look = |events: &mut Vec<Event>| {
            lock(&self.net).ready(self.host, events);
            !events.is_empty()
        };
        if self.is_dead() {
            let forward =
                timeout.map_or(1, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX / 4));
            self.ahead.fetch_add(forward.max(1), Ordering::Relaxed);
            lock(&self.net).readings = 0;
            return;
        }
        if look(events) || timeout == Some(Duration::ZERO) {
            return;
        }
        world::let_pass(self.host, timeout, &mut || self.is_dead() || look(events));
    }
}
