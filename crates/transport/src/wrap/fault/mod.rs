//! A transport that fails on command: [`Faulty`], led by [`Faults`].
//!
//! Used by tests. Delays, cuts, refusals and black holes keep the contract of the traits: what was not delivered is
//! recovered, borrowed posts are released properly. Repeated, swapped and corrupted records break the contract of links on
//! purpose: what proves itself over a link must survive a hostile one.
//!
//! Memory safety: a delayed borrowed post is kept by pointer until it goes out, is reclaimed or recovered; then as in the
//! lane inside.

mod lane;

use crate::bell::Bell;
use crate::{
    Domain, DomainContext, ErrorKind, Lane, LaneParams, Link, LinkState, Locator, PollKey, Poller, Record,
    Transport, TransportError, forward,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// The `sub` of the wrapper's own descriptor among a lane's.
const SUB: u32 = u32::MAX;

/// Leads all lanes and links of the transports that were made with it. Clones lead the same ones; usable from any thread,
/// at any time; a sleeping engine is woken to notice.
#[derive(Clone, Default)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    settings: Mutex<Settings>,
    bells: Mutex<Vec<Weak<Bell>>>,
}

#[derive(Clone, Default)]
struct Settings {
    delay: Duration,
    blocked: bool,
    /// Lanes made before this many cuts are over.
    cuts: u64,
    cut_after: Option<u64>,
    refuse: Option<TransportError>,
    duplicate_records: bool,
    swap_records: bool,
    corrupt_record: Option<u64>,
    duplicate_probes: bool,
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on frames leave `delay` after they were posted, still in order. Zero: at once.
    pub fn delay(&self, delay: Duration) {
        self.change(|settings| settings.delay = delay);
    }

    /// Ends every lane that exists now with [`ErrorKind::Broken`].
    pub fn cut(&self) {
        self.change(|settings| settings.cuts += 1);
    }

    /// Takes `frames` more frames, on whichever lanes, then ends the lane that is to take the next.
    pub fn cut_after(&self, frames: u64) {
        self.change(|settings| settings.cut_after = Some(frames));
    }

    /// A black hole: from now on nothing leaves and nothing arrives, and nobody is told. A lane with something outstanding
    /// ends with [`ErrorKind::TimedOut`] after its `peer_timeout`; what was taken is recovered. `false` lets everything go on.
    pub fn block(&self, blocked: bool) {
        self.change(|settings| settings.blocked = blocked);
    }

    /// Dials fail with this error; `None`: they work again.
    pub fn refuse_dials(&self, error: Option<TransportError>) {
        self.change(|settings| settings.refuse = error);
    }

    /// Each record is sent twice.
    pub fn duplicate_records(&self, duplicate: bool) {
        self.change(|settings| settings.duplicate_records = duplicate);
    }

    /// Of each two records of a link the second is sent first.
    pub fn swap_records(&self, swap: bool) {
        self.change(|settings| settings.swap_records = swap);
    }

    /// One bit of the record after `records` further ones, on whichever link, arrives flipped.
    pub fn corrupt_record_after(&self, records: u64) {
        self.change(|settings| settings.corrupt_record = Some(records));
    }

    /// Frames of kind `PROBE` and `PROBE_REPLY` are sent twice. The frames of sessions must not be.
    pub fn duplicate_probes(&self, duplicate: bool) {
        self.change(|settings| settings.duplicate_probes = duplicate);
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings());
        let mut bells = self.shared.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|bell| bell.upgrade().inspect(|bell| bell.ring()).is_some());
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_bell(&self, poller: &Arc<Poller>, owner: u32) -> Result<Arc<Bell>, TransportError> {
        let bell = Arc::new(Bell::new(poller.clone(), PollKey { owner, sub: SUB })?);
        let mut bells = self.shared.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(Arc::downgrade(&bell));
        Ok(bell)
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let settings = self.settings();
        f.debug_struct("Faults")
            .field("delay", &settings.delay)
            .field("blocked", &settings.blocked)
            .field("cuts", &settings.cuts)
            .field("cut_after", &settings.cut_after)
            .field("refuse", &settings.refuse)
            .finish_non_exhaustive()
    }
}

/// A transport and the faults that befall it.
pub struct Faulty {
    inner: Box<dyn Transport>,
    faults: Faults,
}

impl Faulty {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Box<dyn Transport>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

impl Transport for Faulty {
    forward! { Transport: name, probe, expectation, lanes_per_session }

    fn open(&self, context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        let poller = context.poller.clone();
        Ok(Box::new(FaultyDomain { inner: self.inner.open(context)?, faults: self.faults.clone(), poller }))
    }
}

struct FaultyDomain {
    inner: Box<dyn Domain>,
    faults: Faults,
    poller: Arc<Poller>,
}

impl FaultyDomain {
    fn link(&self, inner: Box<dyn Link>) -> Box<dyn Link> {
        let (faults, poller) = (self.faults.clone(), self.poller.clone());
        Box::new(FaultyLink { inner, faults, poller, waiting: Vec::new(), swapped: None })
    }
}

impl Domain for FaultyDomain {
    forward! { Domain: locators, understands, handle_event, poll_warm, arm, disarm, allocate_segment }

    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError> {
        let refuse = self.faults.settings().refuse.clone();
        match refuse {
            Some(error) => Err(error),
            None => self.inner.dial(to, owner).map(|link| self.link(link)),
        }
    }

    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError> {
        Ok(self.inner.accept(owner)?.map(|link| self.link(link)))
    }
}

struct FaultyLink {
    inner: Box<dyn Link>,
    faults: Faults,
    poller: Arc<Poller>,
    /// Taken and not sent yet, oldest first.
    waiting: Vec<Record>,
    /// The first of two, until the second is there.
    swapped: Option<Record>,
}

impl FaultyLink {
    /// Sends what waits; `false` when some still does.
    fn send_waiting(&mut self) -> Result<bool, TransportError> {
        while let Some(record) = self.waiting.first() {
            if !self.inner.try_send(record)? {
                return Ok(false);
            }
            self.waiting.remove(0);
        }
        Ok(true)
    }
}

impl Link for FaultyLink {
    fn poll(&mut self) -> Result<LinkState, TransportError> {
        let state = self.inner.poll()?;
        if state == LinkState::Ready && !self.faults.settings().blocked {
            self.send_waiting()?;
        }
        Ok(state)
    }

    fn try_send(&mut self, record: &Record) -> Result<bool, TransportError> {
        let settings = self.faults.settings().clone();
        if settings.blocked || !self.send_waiting()? {
            return Ok(false);
        }
        if settings.corrupt_record.is_none() && !settings.duplicate_records && !settings.swap_records {
            return self.inner.try_send(record);
        }
        let mut record = *record;
        if let Some(left) = settings.corrupt_record {
            if left == 0 {
                record[record.len() / 2] ^= 0x10;
            }
            self.faults.settings().corrupt_record = left.checked_sub(1);
        }
        match self.swapped.take() {
            Some(first) => self.waiting.extend([record, first]),
            None if settings.swap_records => self.swapped = Some(record),
            None => self.waiting.push(record),
        }
        if settings.duplicate_records {
            self.waiting = self.waiting.iter().flat_map(|&record| [record, record]).collect();
        }
        self.send_waiting()?;
        Ok(true)
    }

    fn try_recv(&mut self, record: &mut Record) -> Result<bool, TransportError> {
        if self.faults.settings().blocked {
            return Ok(false);
        }
        self.inner.try_recv(record)
    }

    forward! { Link: identity, describe }

    fn into_lane(mut self: Box<Self>, params: LaneParams) -> Result<Box<dyn Lane>, TransportError> {
        if !self.send_waiting()? {
            return Err(TransportError::new(ErrorKind::Broken, "send", "records that the faults held back"));
        }
        let bell = self.faults.add_bell(&self.poller, params.key.owner)?;
        let inner = self.inner.into_lane(params)?;
        Ok(Box::new(lane::FaultyLane::new(inner, self.faults, bell, params.peer_timeout)))
    }
}
