//! The lane's two clocks: when a lone acknowledgement is due, and when a silent peer counts as dead.
//!
//! Used by the lane. Both run only while there is a reason: an idle lane arms nothing. Deadlines begin when
//! [`Watch::next`] is first asked with the reason present, so that the data path reads no clock.

use crate::socket;
use rustix::fd::BorrowedFd;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a lone acknowledgement waits for data to travel with.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Watch {
    tcp: bool,
    peer_timeout: Duration,
    acknowledge_at: Cell<Option<Instant>>,
    check_at: Cell<Option<Instant>>,
    /// Since when the peer's kernel has owed an answer at every check.
    owed_since: Option<Instant>,
}

impl Watch {
    pub(super) fn new(tcp: bool, peer_timeout: Duration) -> Self {
        Self {
            tcp,
            peer_timeout,
            acknowledge_at: Cell::new(None),
            check_at: Cell::new(None),
            owed_since: None,
        }
    }

    /// An acknowledgement of everything has been sent.
    pub(super) fn acknowledged(&self) {
        self.acknowledge_at.set(None);
    }

    pub(super) fn acknowledgement_is_due(&self, now: Instant) -> bool {
        self.acknowledge_at.get().is_some_and(|at| at <= now)
    }

    /// When a timer is wanted, given that frames are unacknowledged by this side (`owing`) or by the peer (`outstanding`).
    pub(super) fn next(&self, owing: bool, outstanding: bool) -> Option<Instant> {
        let acknowledge = arm(&self.acknowledge_at, owing, ACKNOWLEDGE_AFTER);
        let check = arm(&self.check_at, outstanding && self.tcp, self.interval());
        match (acknowledge, check) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    fn interval(&self) -> Duration {
        (self.peer_timeout / 4).clamp(Duration::from_millis(10), Duration::from_secs(5))
    }

    /// Looks after the peer's kernel when that is due. The error is how long it has been silent.
    pub(super) fn check(
        &mut self,
        now: Instant,
        outstanding: bool,
        fd: BorrowedFd<'_>,
    ) -> Result<(), Duration> {
        if !outstanding || !self.tcp {
            self.check_at.set(None);
            self.owed_since = None;
            return Ok(());
        }
        if self.check_at.get().is_none_or(|at| at > now) {
            return Ok(());
        }
        self.check_at.set(Some(now + self.interval()));
        let Ok(state) = socket::tcp_state(fd) else { return Ok(()) };
        // A peer with a closed window answers probes, and one that computes has its kernel acknowledge: neither owes.
        if state.unacked == 0 && state.probes == 0 {
            self.owed_since = None;
            return Ok(());
        }
        let since = *self.owed_since.get_or_insert(now);
        let silent =
            Duration::from_millis(u64::from(state.silent_ms)).min(now.saturating_duration_since(since));
        if silent >= self.peer_timeout { Err(silent) } else { Ok(()) }
    }
}

/// The deadline in `cell`: kept while `wanted`, begun now when it is new, forgotten otherwise.
fn arm(cell: &Cell<Option<Instant>>, wanted: bool, after: Duration) -> Option<Instant> {
    if !wanted {
        cell.set(None);
    } else if cell.get().is_none() {
        cell.set(Some(Instant::now() + after));
    }
    cell.get()
}
