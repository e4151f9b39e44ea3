//! Saying what was chosen, what was refused and why.

use super::session::Standing;
use super::sockets::SocketCount;
use super::table::Key;
use super::wireup::{Attempt, AttemptState};
use super::{Core, LaneSlot};
use crate::error::OpError;
use crate::pool::SegmentPool;
use sinew_proto::select::{Latency, Present};
use sinew_transport::{Crossing, Segment, TransportError};
use sinew_wire::address::Address;
use std::fmt;
use std::sync::Arc;

/// What became of one way to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// It carries what this engine sends.
    Chosen,
    /// It is proven and stands by.
    Works,
    /// It was not tried: something better worked.
    NotTried,
    /// It is being tried.
    Trying,
    /// It does not work; the reason says why.
    Refused,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Chosen => "chosen",
            Self::Works => "works",
            Self::NotTried => "not tried",
            Self::Trying => "trying",
            Self::Refused => "refused",
        })
    }
}

/// One row of an explanation.
#[derive(Clone, Debug)]
pub struct ExplainRow {
    /// The transport's name.
    pub transport: String,
    /// Where.
    pub locator: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, for people. May be empty.
    pub reason: String,
    /// Round trip of the smallest frame when it was proven, in nanoseconds.
    pub rtt_ns: Option<u64>,
    /// Round trip of a full frame when it was proven, in nanoseconds.
    pub full_rtt_ns: Option<u64>,
    /// What there is to know of the very lane (`congestion control cubic`), asked for when this was made. May be empty.
    pub remark: String,
    /// How often before it had ended. Of lanes that the peer has dialled only the last few have a row: then the ends of older
    /// ones of the same transport are counted here.
    pub earlier: u32,
}

/// Which paths to a peer there are, and why the present one was chosen. Prints as a table.
#[derive(Clone, Debug)]
pub struct Explain {
    /// The peer's engine, in hexadecimal digits.
    pub peer: String,
    /// The transport that the session is pinned to by an explicit connect; none: the engine chooses.
    pub pinned: Option<String>,
    /// The ways, in the order in which they were considered; each lane that the session has beside the first of its transport has a
    /// row of its own.
    pub rows: Vec<ExplainRow>,
    /// How many sockets carry the session and why so many; `None` where there is never more than one.
    pub sockets: Option<SocketCount>,
    /// Whether the bytes are authenticated on the way, for people.
    pub security: String,
    /// Which way a message takes over the chosen lane, by its length, shortest first.
    pub crossings: Vec<Crossing>,
    /// What memory the chosen lane has got: size of pages, node. May be empty.
    pub memory: String,
}

impl Explain {
    /// Which way a message of `len` bytes takes over the chosen lane, and why. `None`: all take the same, or there is no lane.
    #[must_use]
    pub fn way(&self, len: usize) -> Option<&Crossing> {
        self.crossings.iter().rev().find(|crossing| crossing.from_bytes <= len)
    }
}

impl fmt::Display for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}; ", self.peer)?;
        if let Some(transport) = &self.pinned {
            write!(f, "pinned to {transport}; ")?;
        }
        writeln!(f, "{}", self.security)?;
        for row in &self.rows {
            let rtt = row.rtt_ns.map_or_else(|| "-".to_owned(), |ns| format!("{:.1} us", ns as f64 / 1000.0));
            write!(f, "  {:<9} {:<6} {:>10}  {}", row.verdict, row.transport, rtt, row.locator)?;
            if !row.reason.is_empty() {
                write!(f, ": {}", row.reason)?;
            }
            if !row.remark.is_empty() {
                write!(f, " [{}]", row.remark)?;
            }
            if row.earlier > 0 {
                write!(f, " (ended {} times before)", row.earlier)?;
            }
            writeln!(f)?;
        }
        if let Some(sockets) = &self.sockets {
            writeln!(f, "  {sockets}")?;
        }
        for Crossing { from_bytes, way, reason } in &self.crossings {
            writeln!(f, "  from {:>9} bytes: {way}: {reason}", from_bytes)?;
        }
        if !self.memory.is_empty() {
            writeln!(f, "  memory: {}", self.memory)?;
        }
        Ok(())
    }
}

fn row_of(attempt: &Attempt) -> ExplainRow {
    let (verdict, reason) = match &attempt.state {
        AttemptState::Untried => (Verdict::NotTried, "a better one was proven first".to_owned()),
        AttemptState::Dialing(_) => (Verdict::Trying, "no answer yet".to_owned()),
        AttemptState::Proving(_) => (Verdict::Trying, "no full frame has come back yet".to_owned()),
        AttemptState::Verified(_) => (Verdict::Works, String::new()),
        AttemptState::StoodBy(text) => (Verdict::Works, text.clone()),
        AttemptState::Failed { text, .. } => (Verdict::Refused, text.clone()),
    };
    ExplainRow {
        transport: attempt.transport.clone(),
        locator: attempt.locator.clone(),
        verdict,
        reason,
        rtt_ns: attempt.rtt_ns,
        full_rtt_ns: attempt.full_rtt_ns,
        remark: String::new(),
        earlier: attempt.earlier,
    }
}

impl LaneSlot {
    /// What a small message costs on it, measured when it was proven: half a round trip, in nanoseconds.
    pub(crate) fn cost_ns(&self) -> u64 {
        let latency = Latency {
            recent_rtt: self.proof.recent.iter().flatten().min().copied(),
            proven_rtt: self.proof.rtt_ns,
            expected: self.lane.as_ref().map_or(u64::MAX, |lane| lane.info().cost.latency_ns),
        };
        latency.cost_ns()
    }
}

impl Core {
    /// What a small message should cost on a lane, in nanoseconds.
    pub(crate) fn expected_ns(&self, lane: Key) -> u64 {
        let transport = self.lanes.get(lane).map(|slot| slot.transport);
        let domain = self.domains.iter().find(|domain| Some(domain.name) == transport);
        domain.map_or(u64::MAX, |domain| domain.cost.predict_ns(64))
    }

    /// What is known of the lane that carries a session.
    pub(crate) fn present_path(&self, lane: Key) -> Present {
        let slot = self.lanes.get(lane);
        Present {
            cost: slot.map_or(u64::MAX, LaneSlot::cost_ns),
            expected: self.expected_ns(lane),
            well_measured: slot.is_some_and(|slot| slot.proof.recent.iter().all(Option::is_some)),
        }
    }

    /// What carries a session now.
    pub(crate) fn path_of(&self, session: Key) -> String {
        let Some(session) = self.sessions.get(session) else { return "none: the session is over".into() };
        match (session.active.and_then(|lane| self.lanes.get(lane)), &session.standing) {
            (_, Standing::Lost(error)) => format!("none: {error}"),
            (Some(slot), _) => {
                format!("{} {}", slot.transport, slot.lane.as_ref().map_or("", |lane| &lane.info().peer))
            }
            (None, _) => "none at present: looking for another lane".into(),
        }
    }

    pub(crate) fn explain_session(&self, session_key: Key) -> Explain {
        let Some(session) = self.sessions.get(session_key) else {
            return Explain {
                peer: "unknown".into(),
                pinned: None,
                rows: Vec::new(),
                sockets: None,
                security: "the session is over".into(),
                crossings: Vec::new(),
                memory: String::new(),
            };
        };
        let mut rows: Vec<ExplainRow> =
            self.history.get(&session.id()).into_iter().flatten().map(row_of).collect();
        for &lane in &session.lanes {
            let Some(slot) = self.lanes.get(lane) else { continue };
            let verdict = if session.active == Some(lane) { Verdict::Chosen } else { Verdict::Works };
            let remark = slot.lane.as_ref().map(|lane| lane.remark()).unwrap_or_default();
            let beside = slot.extra && session.active != Some(lane);
            let known = rows.iter_mut().filter(|_| !beside);
            match { known }.find(|row| row.transport == slot.transport && row.locator == slot.locator) {
                Some(row) => {
                    let stood_by = row.verdict == Verdict::Works && !row.reason.is_empty();
                    row.earlier += u32::from(row.verdict == Verdict::Refused || stood_by);
                    row.verdict = verdict;
                    row.reason.clear();
                    row.rtt_ns = slot.proof.rtt_ns;
                    row.full_rtt_ns = slot.proof.full_rtt_ns;
                    row.remark = remark;
                }
                None => rows.push(ExplainRow {
                    transport: slot.transport.to_owned(),
                    locator: slot.locator.clone(),
                    verdict,
                    reason: if beside { "carries long messages beside the chosen one" } else { "" }
                        .to_owned(),
                    rtt_ns: slot.proof.rtt_ns,
                    full_rtt_ns: slot.proof.full_rtt_ns,
                    remark,
                    earlier: 0,
                }),
            }
        }
        for absent in self.absent.iter().filter(|_| session.pinned.is_none()) {
            rows.push(ExplainRow {
                transport: absent.name.to_owned(),
                locator: "(here)".to_owned(),
                verdict: Verdict::Refused,
                reason: absent.error.to_string(),
                rtt_ns: None,
                full_rtt_ns: None,
                remark: String::new(),
                earlier: 0,
            });
        }
        let lane = session.active.and_then(|lane| self.lanes.get(lane)?.lane.as_deref());
        let crossings = lane.map_or_else(Vec::new, |lane| lane.crossings(self.config.eager_max));
        Explain {
            crossings,
            memory: lane.map_or_else(String::new, |lane| lane.memory()),
            peer: crate::hex(&session.peer.id),
            pinned: session.pinned.map(str::to_owned),
            rows,
            sockets: self.socket_count(session_key, session),
            security: self.config.security.describe().to_owned(),
        }
    }

    /// Why a session cannot be used, if it cannot.
    pub(crate) fn session_error(&self, session: Key) -> Result<(), OpError> {
        match self.sessions.get(session).map(|session| &session.standing) {
            Some(Standing::Up) => Ok(()),
            Some(Standing::Lost(error)) => Err(error.clone()),
            None => Err(OpError::PeerLost { reason: "the session is over".into(), unknown_fate: 0 }),
        }
    }

    /// The flow of a session towards an endpoint of the peer, and what stands for the peer's engine in sources.
    pub(crate) fn open_flow(&mut self, session: Key, dst: u32) -> Result<(u32, u32), OpError> {
        self.session_error(session)?;
        let session = self.sessions.get_mut(session).ok_or(OpError::EngineClosed)?;
        Ok((session.flow_to(dst), session.peer.number))
    }

    /// The address of an endpoint.
    pub(crate) fn address_of(&self, number: u32) -> Address {
        crate::connect::address(self.id, self.incarnation, number, &self.locators())
    }

    /// Memory that a transport can describe to peers; `None`: no transport here can.
    pub(crate) fn allocate_segment(
        &mut self,
        len: usize,
    ) -> Result<Option<Arc<dyn Segment>>, TransportError> {
        for slot in &mut self.domains {
            if let Some(segment) = slot.domain.allocate_segment(len)? {
                return Ok(Some(segment.into()));
            }
        }
        Ok(None)
    }

    /// The pool of buffers that only the peer of `session` is shown. When that is over, one that nobody keeps.
    pub(crate) fn pool_of(&mut self, session: Key) -> Arc<SegmentPool> {
        match self.sessions.get_mut(session).filter(|state| state.is_up()) {
            Some(state) => {
                let pool = state.pool.get_or_insert_with(|| Arc::new(SegmentPool::for_session(session)));
                Arc::clone(pool)
            }
            None => Arc::new(SegmentPool::for_session(session)),
        }
    }
}
