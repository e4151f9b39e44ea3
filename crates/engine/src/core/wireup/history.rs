//! What was tried for a session and how it ended, for `explain`: the newest of each way, and how many came before.
//!
//! Bounded, however often lanes come and go: a row for each candidate of the last connect or redial, and a few for each transport
//! of the lanes that the peer has dialled, as each of those comes from another place.

use super::{Attempt, AttemptState, Core, LaneSlot};
use crate::core::session::{Session, SessionId};
use sinew_transport::ErrorKind;

/// Rows of one transport for what is no candidate of this engine.
const KEPT: usize = 4;

impl Attempt {
    /// How many ends it stands for.
    fn ends(&self) -> u32 {
        let ended = matches!(self.state, AttemptState::Failed { .. } | AttemptState::StoodBy(_));
        self.earlier.saturating_add(u32::from(ended))
    }

    fn is_same_way(&self, other: &Self) -> bool {
        self.transport == other.transport && self.locator == other.locator
    }
}

/// Adds a row to a history, in the place of the one of the same way.
fn add(rows: &mut Vec<Attempt>, new: Attempt) {
    if let Some(row) = rows.iter_mut().find(|row| row.is_same_way(&new)) {
        let earlier = row.ends();
        let (rtt_ns, full_rtt_ns) = (new.rtt_ns.or(row.rtt_ns), new.full_rtt_ns.or(row.full_rtt_ns));
        *row = Attempt { rtt_ns, full_rtt_ns, earlier, to: row.to.take(), ..new };
        return;
    }
    let alike = |row: &Attempt| row.to.is_none() && row.transport == new.transport;
    let earlier = match rows.iter().position(alike) {
        Some(oldest) if rows.iter().filter(|row| alike(row)).count() >= KEPT => rows.remove(oldest).ends(),
        _ => 0,
    };
    // The oldest row stands for those that went before it.
    if let Some(oldest) = rows.iter_mut().find(|row| alike(row)) {
        oldest.earlier = oldest.earlier.saturating_add(earlier);
    }
    rows.push(new);
}

impl Core {
    /// Remembers the candidates of a connect or redial that has come to its end.
    pub(super) fn remember(&mut self, id: SessionId, mut attempts: Vec<Attempt>) {
        let rows = self.history.entry(id).or_default();
        for attempt in &mut attempts {
            let before = rows.iter().find(|row| row.is_same_way(attempt));
            attempt.earlier = before.map_or(0, Attempt::ends);
        }
        let dialled_by_peer = std::mem::take(rows).into_iter().filter(|row| row.to.is_none());
        let others: Vec<_> =
            dialled_by_peer.filter(|row| !attempts.iter().any(|attempt| attempt.is_same_way(row))).collect();
        *rows = attempts;
        rows.extend(others);
    }

    /// Remembers what became of a lane.
    pub(crate) fn note(&mut self, slot: &LaneSlot, text: &str) {
        let active = self.sessions.get(slot.session).and_then(|session| session.active);
        let other_carries = active.is_some_and(|active| self.lanes.get(active).is_some());
        let text = text.to_owned();
        let state = if slot.proof.verified && other_carries && !slot.inbound {
            AttemptState::StoodBy(text)
        } else {
            AttemptState::Failed { kind: ErrorKind::Broken, text }
        };
        let Some(id) = self.sessions.get(slot.session).map(Session::id) else { return };
        let new = Attempt {
            transport: slot.transport.to_owned(),
            locator: slot.locator.clone(),
            state,
            rtt_ns: slot.proof.rtt_ns,
            full_rtt_ns: slot.proof.full_rtt_ns,
            earlier: 0,
            before: None,
            to: None,
        };
        add(self.history.entry(id).or_default(), new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(locator: &str, text: &str) -> Attempt {
        Attempt {
            transport: "tcp".into(),
            locator: locator.into(),
            state: AttemptState::Failed { kind: ErrorKind::Broken, text: text.into() },
            rtt_ns: None,
            full_rtt_ns: None,
            earlier: 0,
            before: None,
            to: None,
        }
    }

    #[test]
    fn the_newest_of_each_way_is_kept_and_all_others_are_counted() {
        let mut rows = vec![Attempt { to: "tcp:host:1".parse().ok(), ..attempt("tcp:host:1", "first") }];
        for round in 0..1000 {
            add(&mut rows, attempt("tcp:host:1", &format!("dialled {round}")));
            add(&mut rows, attempt(&format!("from port {round}"), "accepted"));
        }
        assert_eq!(rows.len(), 1 + KEPT);
        assert_eq!(rows.iter().map(Attempt::ends).sum::<u32>(), 2001, "nothing is forgotten");
        assert_eq!((rows[0].earlier, rows[0].to.is_some()), (1000, true));
        assert_eq!(rows[0].state, attempt("", "dialled 999").state);
        let newest: Vec<&str> = rows[1..].iter().map(|row| row.locator.as_str()).collect();
        assert_eq!(newest, ["from port 996", "from port 997", "from port 998", "from port 999"]);
    }

    #[test]
    fn what_was_measured_before_stands_until_it_is_measured_again() {
        let trips = |row: &Attempt| (row.rtt_ns, row.full_rtt_ns);
        let measured = |rtt_ns, full_rtt_ns| Attempt { rtt_ns, full_rtt_ns, ..attempt("tcp:host:1", "it") };
        let mut rows = vec![measured(Some(1), Some(2))];
        add(&mut rows, measured(None, None));
        assert_eq!(trips(&rows[0]), (Some(1), Some(2)));
        add(&mut rows, measured(Some(3), None));
        assert_eq!(trips(&rows[0]), (Some(3), Some(2)));
        add(&mut rows, measured(None, Some(4)));
        assert_eq!(trips(&rows[0]), (Some(3), Some(4)));
        assert_eq!(rows.len(), 1);
    }
}
