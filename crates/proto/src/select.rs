//! Choosing a path: candidates, what was found out about each, which one is best, and a table that explains it.
//!
//! Called by the engine for each peer. It dials nothing and measures nothing: the engine tells what happened to a candidate
//! and asks what to do. A candidate may carry traffic only after it was verified by a round trip on itself.

mod explain;

pub use explain::{Explain, Row};

/// By how much a path must be better than the one in use before traffic moves, in percent of the better one's cost.
pub const HYSTERESIS_PERCENT: u64 = 15;

/// Size in bytes of the message whose predicted time is a path's cost, unless the caller says otherwise.
pub const REFERENCE_LEN: u64 = 4096;

/// What a transport expects of itself, before anything was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hint {
    /// One way, smallest message, with the sender's own time, in nanoseconds.
    pub latency_ns: u64,
    /// Picoseconds for each further byte (1000 = 1 GB/s).
    pub per_byte_ps: u64,
}

/// What was measured on a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Measured {
    /// A round trip of a small frame, in nanoseconds.
    pub rtt_ns: u64,
    /// Bytes per second; `None`: not measured, the hint holds.
    pub bandwidth: Option<u64>,
}

/// What is known about a candidate.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum State {
    /// Nothing was tried.
    Untried,
    /// Being connected and verified.
    Dialling,
    /// It did not work, and why.
    Refused(String),
    /// A round trip succeeded; it stands by.
    Verified(Measured),
    /// It carries the traffic.
    Active(Measured),
    /// It worked and then ended, and why.
    Lost(String),
}

impl State {
    const fn measured(&self) -> Option<Measured> {
        match self {
            Self::Verified(measured) | Self::Active(measured) => Some(*measured),
            _ => None,
        }
    }
}

/// Names a candidate in its [`Candidates`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct CandidateId(pub usize);

/// A way by which a peer may be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The transport's name.
    pub transport: String,
    /// Where it leads: a locator, or what names the link that the peer dialled.
    pub locator: String,
    /// What the transport expects.
    pub hint: Hint,
    /// What is known.
    pub state: State,
}

impl Candidate {
    /// Predicted nanoseconds, one way, of a message of `len` bytes: by measurement where there is one.
    #[must_use]
    pub fn cost_ns(&self, len: u64) -> u64 {
        let measured = self.state.measured();
        let latency = measured.map_or(self.hint.latency_ns, |measured| measured.rtt_ns / 2);
        let per_byte_ps = measured
            .and_then(|measured| measured.bandwidth)
            .filter(|bandwidth| *bandwidth > 0)
            .map_or(self.hint.per_byte_ps, |bandwidth| 1_000_000_000_000 / bandwidth);
        latency.saturating_add(len.saturating_mul(per_byte_ps) / 1000)
    }
}

/// All candidates for one peer. Plain data, `Send` and `Sync`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidates {
    all: Vec<Candidate>,
    reference_len: u64,
}

impl Default for Candidates {
    fn default() -> Self {
        Self::new(REFERENCE_LEN)
    }
}

impl Candidates {
    /// None yet; paths are compared by the time of a message of `reference_len` bytes.
    #[must_use]
    pub const fn new(reference_len: u64) -> Self {
        Self { all: Vec::new(), reference_len }
    }

    /// Adds a candidate, or finds the one with the same transport and locator.
    pub fn add(&mut self, transport: &str, locator: &str, hint: Hint) -> CandidateId {
        let same = |known: &Candidate| known.transport == transport && known.locator == locator;
        let known = self.all.iter().position(same);
        CandidateId(known.unwrap_or_else(|| {
            let (transport, locator) = (transport.into(), locator.into());
            self.all.push(Candidate { transport, locator, hint, state: State::Untried });
            self.all.len() - 1
        }))
    }

    /// A candidate by name.
    #[must_use]
    pub fn candidate(&self, id: CandidateId) -> Option<&Candidate> {
        self.all.get(id.0)
    }

    /// All of them, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (CandidateId, &Candidate)> {
        self.all.iter().enumerate().map(|(number, candidate)| (CandidateId(number), candidate))
    }

    /// Tells what became of a candidate. Making one [`State::Active`] makes the one that was active verified.
    pub fn set(&mut self, id: CandidateId, state: State) {
        if matches!(state, State::Active(_)) {
            for (number, other) in self.all.iter_mut().enumerate() {
                if number != id.0
                    && let State::Active(measured) = other.state
                {
                    other.state = State::Verified(measured);
                }
            }
        }
        if let Some(candidate) = self.all.get_mut(id.0) {
            candidate.state = state;
        }
    }

    /// Makes a verified candidate the active one. `false`: it is not verified.
    pub fn activate(&mut self, id: CandidateId) -> bool {
        let Some(measured) = self.candidate(id).and_then(|candidate| candidate.state.measured()) else {
            return false;
        };
        self.set(id, State::Active(measured));
        true
    }

    /// A round trip was observed on a verified or active candidate: an eighth of the difference is believed. For any other
    /// candidate it means nothing.
    pub fn observe_rtt(&mut self, id: CandidateId, rtt_ns: u64) {
        if let Some(State::Verified(measured) | State::Active(measured)) =
            self.all.get_mut(id.0).map(|candidate| &mut candidate.state)
        {
            let old = measured.rtt_ns;
            let step = (rtt_ns.abs_diff(old) / 8).max(u64::from(rtt_ns != old));
            measured.rtt_ns = if rtt_ns > old { old.saturating_add(step) } else { old - step };
        }
    }

    /// A bandwidth was measured on a verified or active candidate.
    pub fn observe_bandwidth(&mut self, id: CandidateId, bytes_per_second: u64) {
        if let Some(State::Verified(measured) | State::Active(measured)) =
            self.all.get_mut(id.0).map(|candidate| &mut candidate.state)
        {
            measured.bandwidth = Some(bytes_per_second);
        }
    }

    /// The candidate that carries the traffic.
    #[must_use]
    pub fn active(&self) -> Option<CandidateId> {
        self.iter().find(|(_, candidate)| matches!(candidate.state, State::Active(_))).map(|(id, _)| id)
    }

    /// The verified (or active) candidate of the lowest cost; of equal ones the first added.
    #[must_use]
    pub fn best(&self) -> Option<CandidateId> {
        self.iter()
            .filter(|(_, candidate)| candidate.state.measured().is_some())
            .min_by_key(|(_, candidate)| candidate.cost_ns(self.reference_len))
            .map(|(id, _)| id)
    }

    /// The candidate that traffic should move to now: the best one when none is active, or when it is better than the
    /// active one by more than [`HYSTERESIS_PERCENT`].
    #[must_use]
    pub fn should_switch(&self) -> Option<CandidateId> {
        let best = self.best()?;
        let Some(active) = self.active() else { return Some(best) };
        let cost = |id: CandidateId| self.candidate(id).map_or(u64::MAX, |it| it.cost_ns(self.reference_len));
        let with_margin = u128::from(cost(best)) * u128::from(100 + HYSTERESIS_PERCENT);
        (best != active && with_margin < u128::from(cost(active)) * 100).then_some(best)
    }

    /// The untried candidate of the lowest expected cost.
    #[must_use]
    pub fn next_to_dial(&self) -> Option<CandidateId> {
        self.iter()
            .filter(|(_, candidate)| candidate.state == State::Untried)
            .min_by_key(|(_, candidate)| candidate.cost_ns(self.reference_len))
            .map(|(id, _)| id)
    }

    /// Whether nothing works, nothing is under way and nothing is left to try.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.all.iter().all(|candidate| matches!(candidate.state, State::Refused(_) | State::Lost(_)))
    }

    /// What was tried, what came of it, and what was chosen: the chosen one first, then by cost, the refused last.
    #[must_use]
    pub fn explain(&self) -> Explain {
        Explain::of(&self.all, self.reference_len)
    }
}

#[cfg(test)]
mod tests;
