//! Candidates: what became of each, and how that is told.
//!
//! Kept by connects ([`super::connecting`]) and by the history of sessions.

use crate::core::Core;
use crate::core::table::Key;
use sinew_transport::{ErrorKind, Locator, TransportError};

/// What became of a candidate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AttemptState {
    Untried,
    Dialing(Key),
    Proving(Key),
    Verified(Key),
    /// It worked and ended while another one carried the session; the text says how.
    StoodBy(String),
    Failed {
        kind: ErrorKind,
        text: String,
    },
}

/// One way that was considered.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) transport: String,
    pub(crate) locator: String,
    pub(crate) state: AttemptState,
    pub(crate) rtt_ns: Option<u64>,
    pub(crate) full_rtt_ns: Option<u64>,
    /// Ends before this one that have no row of their own.
    pub(crate) earlier: u32,
    pub(super) to: Option<Locator>,
    /// How the try before the present one ended.
    pub(super) before: Option<String>,
}

impl Core {
    /// Candidates as attempts, the best expectation first; those that no transport here understands fail at once.
    pub(super) fn order(&self, candidates: Vec<Locator>) -> Vec<Attempt> {
        let mut rated: Vec<(u64, Attempt)> = candidates
            .into_iter()
            .map(|locator| {
                let transport = self.domains.iter().find(|slot| slot.domain.understands(locator.scheme()));
                let state = match transport {
                    Some(_) => AttemptState::Untried,
                    None => self.absence(locator.scheme()),
                };
                let cost = transport.map_or(u64::MAX, |slot| slot.cost.predict_ns(64));
                let attempt = Attempt {
                    transport: transport
                        .map_or_else(|| locator.scheme().to_owned(), |slot| slot.name.to_owned()),
                    locator: locator.to_string(),
                    state,
                    rtt_ns: None,
                    full_rtt_ns: None,
                    earlier: 0,
                    before: None,
                    to: Some(locator),
                };
                (cost, attempt)
            })
            .collect();
        rated.sort_by_key(|(cost, _)| *cost);
        rated.into_iter().map(|(_, attempt)| attempt).collect()
    }

    /// What becomes of a candidate that no transport here understands.
    pub(super) fn absence(&self, scheme: &str) -> AttemptState {
        let text = match self.absent.iter().find(|absent| absent.name == scheme) {
            Some(absent) => format!("the transport could not be opened: {}", absent.error),
            None => "no transport of this engine understands it (option transports)".to_owned(),
        };
        AttemptState::Failed { kind: ErrorKind::Unavailable, text }
    }
}

pub(super) fn failed(error: &TransportError) -> AttemptState {
    AttemptState::Failed { kind: error.kind, text: error.to_string() }
}

pub(super) fn table_text(attempts: &[Attempt]) -> String {
    if attempts.is_empty() {
        return "  (there was nothing to try: the address has no locator)".to_owned();
    }
    let mut text = String::new();
    for attempt in attempts {
        let verdict = match (&attempt.state, &attempt.before) {
            (AttemptState::Untried | AttemptState::Dialing(_), Some(before)) => before.clone(),
            (state, _) => describe(state),
        };
        text.push_str(&format!("  {:<6} {}: {verdict}\n", attempt.transport, attempt.locator));
    }
    text
}

fn describe(state: &AttemptState) -> String {
    match state {
        AttemptState::Untried => "not tried yet".to_owned(),
        AttemptState::Dialing(_) => "no answer yet".to_owned(),
        AttemptState::Proving(_) => "answered, but a full frame has not come back yet".to_owned(),
        AttemptState::Verified(_) => "works".to_owned(),
        AttemptState::StoodBy(text) => format!("worked; {text}"),
        AttemptState::Failed { text, .. } => text.clone(),
    }
}
