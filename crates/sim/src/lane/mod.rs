//! The simulated transports: [`Transport`] → [`Domain`] → [`Link`] → [`Lane`] over the virtual network.
//!
//! Given to engines by the world. They keep the contract of the traits, but for the breach that a test asks for; what the
//! contract leaves open (when a frame is sent, how bodies are cut, when the peer acknowledges, how a lane ends) is drawn
//! from the seed.
//!
//! [`Lane`]: sinew_transport::Lane

mod datapath;
mod link;
mod memory;

use crate::net::{EndId, Kind, MICROS, Share, Shared, lock};
use link::SimLink;
use memory::SimSegment;
use sinew_transport::{
    Availability, Capabilities, Cost, Domain, DomainContext, ErrorKind, LaneCount, Limits, Link, ListenScope,
    Locator, Segment, Transport, TransportError,
};

pub(crate) use memory::{forget_segments, segments_alive};

/// One family of lanes as the process on one host sees it.
#[derive(Clone)]
pub(crate) struct SimTransport {
    pub(crate) net: Shared,
    pub(crate) host: usize,
    pub(crate) kind: Kind,
    pub(crate) style: Style,
}

/// How the lanes of one host behave where the contract leaves it open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Another process that is born on the host has the same address.
    pub(crate) keeps_port: bool,
    /// Frames that the peer hands up before it says so unasked.
    pub(crate) acknowledge_every: u64,
    /// Largest part of a body that travels in one piece.
    pub(crate) piece: usize,
    /// Bytes that a lane keeps until they are acknowledged.
    pub(crate) retention: usize,
    /// The kernel vouches for who is there.
    pub(crate) vouches: bool,
    /// How many far lanes a session may have.
    pub(crate) lanes: LaneCount,
}

/// What lanes of a kind can do, what they are expected to cost, and their sizes.
fn expectation(kind: Kind) -> (Capabilities, Cost, Limits) {
    let none = Capabilities::default();
    match kind {
        Kind::Near => (
            Capabilities { pull: true, view: true, memory_polled: true, local: true, death_detected: true },
            Cost { latency_ns: 300, per_byte_ps: 60, overhead_ns: 50 },
            Limits { frame_max: 8 << 10, borrowed_max: 32 << 10 },
        ),
        Kind::Mid => (
            Capabilities { local: true, death_detected: true, ..none },
            Cost { latency_ns: 5 * MICROS, per_byte_ps: 300, overhead_ns: 500 },
            Limits { frame_max: 4 << 10, borrowed_max: 4 << 10 },
        ),
        Kind::Far => (
            none,
            Cost { latency_ns: 50 * MICROS, per_byte_ps: 1000, overhead_ns: 1000 },
            Limits { frame_max: 16 << 10, borrowed_max: 64 << 10 },
        ),
    }
}

impl Transport for SimTransport {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn probe(&self) -> Availability {
        Availability::Usable("simulated".to_owned())
    }

    fn expectation(&self) -> (Capabilities, Cost) {
        let (capabilities, cost, _) = expectation(self.kind);
        (capabilities, cost)
    }

    fn lanes_per_session(&self) -> LaneCount {
        if self.kind == Kind::Far { self.style.lanes } else { LaneCount::default() }
    }

    fn open(&self, context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        let mut net = lock(&self.net);
        let listens = context.listen != ListenScope::Nobody;
        let host = &mut net.hosts[self.host];
        host.shares[self.kind as usize] = Some(Share::new(context.owner, listens));
        let generation = host.generation;
        drop(net);
        Ok(Box::new(SimDomain { transport: self.clone(), generation, listens }))
    }
}

struct SimDomain {
    transport: SimTransport,
    generation: u32,
    listens: bool,
}

impl SimDomain {
    fn is_current(&self) -> bool {
        let net = lock(&self.transport.net);
        let host = &net.hosts[self.transport.host];
        host.alive && host.generation == self.generation
    }

    fn link(&self, end: EndId) -> SimLink {
        let SimTransport { net, kind, style, .. } = &self.transport;
        SimLink::new(net.clone(), *kind, *style, end)
    }
}

impl Domain for SimDomain {
    fn locators(&self) -> Vec<Locator> {
        if !self.listens {
            return Vec::new();
        }
        let SimTransport { host, kind, style, .. } = &self.transport;
        let port = if style.keeps_port && *kind == Kind::Far { 0 } else { self.generation };
        Locator::new(kind.name(), format!("{host}.{port}")).into_iter().collect()
    }

    fn understands(&self, scheme: &str) -> bool {
        scheme == self.transport.kind.name()
    }

    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError> {
        let error = |kind| TransportError::new(kind, "dial", to.to_string());
        let place =
            to.body().split_once('.').and_then(|(host, port)| Some((host.parse().ok()?, port.parse().ok()?)));
        let place = place.ok_or_else(|| error(ErrorKind::InvalidAddress))?;
        if !self.is_current() {
            return Err(error(ErrorKind::NoRoute));
        }
        let SimTransport { net, host, kind, .. } = &self.transport;
        let end = lock(net).dial(*kind, *host, place, owner).map_err(error)?;
        Ok(Box::new(self.link(end)))
    }

    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError> {
        if !self.is_current() {
            return Ok(None);
        }
        let mut net = lock(&self.transport.net);
        let share = net.share(self.transport.host, self.transport.kind);
        let Some(id) = share.and_then(|share| share.waiting.pop_front()) else { return Ok(None) };
        if let Some(end) = net.end(id) {
            end.owner = owner;
            end.news = true;
        }
        drop(net);
        Ok(Some(Box::new(self.link(id))))
    }

    fn poll_warm(&mut self, owners: &mut Vec<u32>) {
        if self.transport.kind == Kind::Near && self.is_current() {
            let mut net = lock(&self.transport.net);
            if let Some(share) = net.share(self.transport.host, Kind::Near) {
                owners.append(&mut share.warm);
            }
        }
    }

    fn arm(&mut self) -> bool {
        let SimTransport { net, host, kind, .. } = &self.transport;
        if *kind != Kind::Near || !self.is_current() {
            return true;
        }
        let mut net = lock(net);
        let dirty = net.has_dirty(*host, *kind);
        let Some(share) = net.share(*host, *kind) else { return true };
        share.armed = true;
        !dirty && share.warm.is_empty()
    }

    fn disarm(&mut self) {
        if self.is_current()
            && let Some(share) = lock(&self.transport.net).share(self.transport.host, self.transport.kind)
        {
            share.armed = false;
        }
    }

    fn allocate_segment(&mut self, len: usize) -> Result<Option<Box<dyn Segment>>, TransportError> {
        if self.transport.kind != Kind::Near {
            return Ok(None);
        }
        Ok(Some(Box::new(SimSegment::new(len))))
    }
}

impl Drop for SimDomain {
    fn drop(&mut self) {
        if !self.is_current() {
            return;
        }
        let SimTransport { net, host, kind, .. } = &self.transport;
        let mut net = lock(net);
        let share = net.hosts[*host].shares[*kind as usize].take();
        for id in share.into_iter().flat_map(|share| share.waiting) {
            net.reset(id);
        }
    }
}
