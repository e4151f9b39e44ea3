//! Sessions as the two processes name them: each pairs up with one other, none ends without a reason, and nothing of one that
//! is over arrives later.

use super::ProcessId;
use crate::net::Nanos;
use std::collections::HashMap;

/// A session as one of its engines numbers it.
pub(super) type Own = (ProcessId, u64);

#[derive(Default)]
pub(super) struct Sessions {
    /// Whom a session is with, and since when it is known.
    with: HashMap<Own, (ProcessId, Nanos)>,
    /// The other side's number, as messages tell.
    paired: HashMap<Own, Own>,
    lost: HashMap<Own, Nanos>,
    /// Reasons for a session between two hosts to end, and from when until when they last.
    excuses: Vec<(usize, usize, Nanos, Nanos)>,
}

impl Sessions {
    pub(super) fn connected(&mut self, now: Nanos, own: Own, to: ProcessId) {
        self.with.entry(own).or_insert((to, now));
    }

    pub(super) fn lost(&mut self, now: Nanos, own: Own) {
        self.lost.entry(own).or_insert(now);
    }

    pub(super) fn is_lost(&self, own: Own) -> bool {
        self.lost.contains_key(&own)
    }

    pub(super) fn was_lost_before(&self, own: Own, at: Nanos) -> bool {
        self.lost.get(&own).is_some_and(|&lost| lost < at)
    }

    /// Whether either side has seen its end.
    pub(super) fn is_over(&self, own: Own) -> bool {
        self.is_lost(own) || self.paired.get(&own).is_some_and(|other| self.is_lost(*other))
    }

    /// Whether there was a reason for sessions between two hosts to end, since then.
    pub(super) fn may_have_ended(&self, here: usize, there: usize, since: Nanos) -> bool {
        let between = |one, other| (one, other) == (here, there) || (other, one) == (here, there);
        self.excuses.iter().any(|&(one, other, _, until)| between(one, other) && until >= since)
    }

    pub(super) fn excuse(&mut self, one: usize, other: usize, from: Nanos, until: Nanos) {
        self.excuses.push((one, other, from, until));
    }

    /// A message that was sent at `sent_at` on the session that its sender calls `theirs` came on the one called `ours`.
    pub(super) fn arrived(&mut self, theirs: Own, ours: Own, sent_at: Nanos) -> Result<(), String> {
        let there = *self.paired.entry(theirs).or_insert(ours);
        let here = *self.paired.entry(ours).or_insert(theirs);
        if there != ours || here != theirs {
            return Err(format!(
                "came on session {ours:?}, and was sent on {theirs:?}, which is paired with {there:?}"
            ));
        }
        match self.lost.get(&ours) {
            Some(&lost) if lost < sent_at => {
                Err("was sent after its receiver had declared the session lost, and came all the same"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Sessions that ended for nothing.
    pub(super) fn finish(&self, dead: &HashMap<ProcessId, Nanos>) -> Vec<String> {
        let mut lost: Vec<_> = self.lost.iter().collect();
        lost.sort();
        let mut found = Vec::new();
        for (own, &at) in lost {
            let Some(&(with, since)) = self.with.get(own) else { continue };
            let died = |process: ProcessId| dead.get(&process).is_some_and(|&died| died <= at);
            let excused = self.excuses.iter().any(|&(one, other, from, until)| {
                let (here, there) = (own.0.0, with.0);
                ((one, other) == (here, there) || (other, one) == (here, there))
                    && from <= at
                    && until >= since
            });
            if !died(own.0) && !died(with) && !excused {
                let at = at as f64 / 1e9;
                found.push(format!("session {own:?} with {with:?} was lost at {at:.6} for no reason"));
            }
        }
        found
    }
}
