//! A transport whose links a test holds the other ends of.

use super::wire::{Wire, WireLane, segment};
use sinew_transport::{
    Availability, Capabilities, Cost, Domain, DomainContext, ErrorKind, Event, Identity, Lane, LaneCount,
    LaneInfo, LaneParams, Limits, Link, LinkState, Locator, Record, Segment, Transport, TransportError,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that fails still ends its engine.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A transport.
#[derive(Clone)]
pub(super) struct Net {
    name: &'static str,
    latency_ns: u64,
    lanes: LaneCount,
    state: Arc<Mutex<NetState>>,
}

#[derive(Default)]
pub(super) struct NetState {
    /// Links that the engine has dialled: where, and their other ends.
    pub(super) dialled: Vec<(Locator, Line)>,
    /// A dial ends at once.
    pub(super) refuses: Option<ErrorKind>,
    /// Links that peers have dialled.
    pub(super) coming: VecDeque<Line>,
    /// Its listener is out of order.
    pub(super) deaf: bool,
    /// Owners of lanes that had been cooled and have something.
    pub(super) warm: Vec<u32>,
    /// What happened to its descriptors.
    pub(super) events: Vec<Event>,
    /// Armed, and how often.
    pub(super) armed: (bool, u32),
    /// Something is there: no time to sleep.
    pub(super) busy: bool,
    /// It has not what it needs here.
    pub(super) missing: bool,
    /// It has memory that its lanes can describe.
    pub(super) segments: bool,
    /// Where it says that it can be dialled.
    pub(super) here: Vec<Locator>,
    /// What its next lanes are.
    pub(super) memory_polled: bool,
    pub(super) local: bool,
}

impl Net {
    /// One whose lanes take so long, one way.
    pub(super) fn new(name: &'static str, latency_ns: u64) -> Self {
        Self { name, latency_ns, lanes: LaneCount::default(), state: Arc::default() }
    }

    /// One with several lanes for each session.
    pub(super) fn of_many(name: &'static str, min: usize, max: usize) -> Self {
        Self { lanes: LaneCount { min, max }, ..Self::new(name, 1000) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, NetState> {
        lock(&self.state)
    }

    /// A place of it.
    pub(super) fn at(&self, place: &str) -> Locator {
        Locator::new(self.name, place).unwrap()
    }

    /// What was dialled since the last call of this: the last one.
    pub(super) fn line(&self) -> Line {
        let mut dialled = std::mem::take(&mut self.state().dialled);
        assert!(!dialled.is_empty(), "nothing was dialled");
        dialled.pop().unwrap().1
    }

    /// Where was dialled since the last call of this.
    pub(super) fn places(&self) -> Vec<String> {
        let dialled = std::mem::take(&mut self.state().dialled);
        dialled.into_iter().map(|(to, _)| to.body().to_owned()).collect()
    }
}

impl Transport for Net {
    fn name(&self) -> &'static str {
        self.name
    }

    fn probe(&self) -> Availability {
        if self.state().missing {
            Availability::Missing(TransportError::new(ErrorKind::Unavailable, "probe", "a test"))
        } else {
            Availability::Usable("a test".to_owned())
        }
    }

    fn expectation(&self) -> (Capabilities, Cost) {
        (Capabilities::default(), Cost { latency_ns: self.latency_ns, per_byte_ps: 0, overhead_ns: 0 })
    }

    fn lanes_per_session(&self) -> LaneCount {
        self.lanes
    }

    fn open(&self, _context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        Ok(Box::new(self.clone()))
    }
}

impl Domain for Net {
    fn locators(&self) -> Vec<Locator> {
        self.state().here.clone()
    }

    fn understands(&self, scheme: &str) -> bool {
        scheme == self.name
    }

    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError> {
        let mut state = self.state();
        if let Some(kind) = state.refuses {
            return Err(TransportError::new(kind, "dial", to.to_string()));
        }
        let line = Line::new(self, &state, owner);
        state.dialled.push((to.clone(), line.clone()));
        Ok(Box::new(LineLink(line)))
    }

    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError> {
        let mut state = self.state();
        if state.deaf {
            return Err(TransportError::new(ErrorKind::Limit, "accept", ""));
        }
        let Some(line) = state.coming.pop_front() else { return Ok(None) };
        line.state().owner = owner;
        Ok(Some(Box::new(LineLink(line))))
    }

    fn handle_event(&mut self, event: Event) {
        self.state().events.push(event);
    }

    fn poll_warm(&mut self, owners: &mut Vec<u32>) {
        owners.append(&mut self.state().warm);
    }

    fn arm(&mut self) -> bool {
        let mut state = self.state();
        state.armed = (true, state.armed.1 + 1);
        !state.busy
    }

    fn allocate_segment(&mut self, len: usize) -> Result<Option<Box<dyn Segment>>, TransportError> {
        Ok(self.state().segments.then(|| segment(len)))
    }

    fn disarm(&mut self) {
        self.state().armed.0 = false;
    }
}

/// The other end of a link.
#[derive(Clone)]
pub(super) struct Line(Arc<Mutex<LineState>>);

pub(super) struct LineState {
    pub(super) owner: u32,
    /// Nobody has answered.
    pub(super) connecting: bool,
    /// It is over for this reason.
    pub(super) over: Option<ErrorKind>,
    /// There is no room for a record.
    pub(super) full: bool,
    /// What the engine has said, and what it is to hear.
    pub(super) said: VecDeque<Record>,
    pub(super) coming: VecDeque<Record>,
    /// Who the system says is there.
    pub(super) identity: Identity,
    /// The engine has it, as a link.
    pub(super) open: bool,
    /// No lane comes of it.
    pub(super) no_lane: bool,
    /// It is a lane, of this role.
    pub(super) lane: Option<LaneParams>,
    info: LaneInfo,
    pub(super) wire: Wire,
}

impl Line {
    pub(super) fn new(net: &Net, state: &NetState, owner: u32) -> Self {
        let cost = Cost { latency_ns: net.latency_ns, per_byte_ps: 0, overhead_ns: 0 };
        let capabilities = Capabilities {
            memory_polled: state.memory_polled,
            local: state.local,
            ..Capabilities::default()
        };
        let limits = Limits { frame_max: 4096, borrowed_max: 4096 };
        let wire = Wire::default();
        wire.state().counts = net.lanes.max > 1;
        Self(Arc::new(Mutex::new(LineState {
            owner,
            connecting: false,
            over: None,
            full: false,
            said: VecDeque::new(),
            coming: VecDeque::new(),
            identity: Identity::Remote("a test".to_owned()),
            open: true,
            no_lane: false,
            lane: None,
            info: LaneInfo { transport: net.name, peer: "a test".to_owned(), capabilities, cost, limits },
            wire,
        })))
    }

    /// One that a peer makes.
    pub(super) fn to(net: &Net) -> Self {
        let line = Self::new(net, &net.state(), 0);
        net.state().coming.push_back(line.clone());
        line
    }

    pub(super) fn state(&self) -> MutexGuard<'_, LineState> {
        lock(&self.0)
    }

    pub(super) fn wire(&self) -> Wire {
        self.state().wire.clone()
    }

    /// Whether the engine keeps it, as a link or a lane.
    pub(super) fn is_open(&self) -> bool {
        let state = self.state();
        let closed = state.wire.state().closed;
        state.open && !closed
    }
}

struct LineLink(Line);

impl Drop for LineLink {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open = state.lane.is_some();
    }
}

impl Link for LineLink {
    fn poll(&mut self) -> Result<LinkState, TransportError> {
        let state = self.0.state();
        match state.over {
            Some(kind) => Err(TransportError::new(kind, "link", "a test")),
            None if state.connecting => Ok(LinkState::Connecting),
            None => Ok(LinkState::Ready),
        }
    }

    fn try_send(&mut self, record: &Record) -> Result<bool, TransportError> {
        let mut state = self.0.state();
        if !state.full {
            state.said.push_back(*record);
        }
        Ok(!state.full)
    }

    fn try_recv(&mut self, record: &mut Record) -> Result<bool, TransportError> {
        let next = self.0.state().coming.pop_front();
        Ok(next.map(|next| *record = next).is_some())
    }

    fn identity(&self) -> Identity {
        self.0.state().identity.clone()
    }

    fn describe(&self) -> String {
        "somewhere".to_owned()
    }

    fn into_lane(self: Box<Self>, params: LaneParams) -> Result<Box<dyn Lane>, TransportError> {
        let mut state = self.0.state();
        if state.no_lane {
            return Err(TransportError::new(ErrorKind::Limit, "lane", "a test"));
        }
        state.lane = Some(params);
        Ok(Box::new(WireLane::new(state.info.clone(), state.wire.clone())))
    }
}
