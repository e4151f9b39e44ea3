//! A transport that counts: [`Metered`], read by [`Meter`].
//!
//! Used by tests and by whoever wants the traffic of one transport without the engine's counters. It adds one atomic
//! increment to a frame.
#![allow(unsafe_code)]

use crate::{
    Availability, Body, Buf, Capabilities, Cost, Descriptor, Domain, DomainContext, Event, Identity, Lane,
    LaneError, LaneInfo, LaneParams, Link, LinkState, Locator, Placement, PostError, Pull, Record, Segment,
    Sink, Token, Transport, TransportError, Unacknowledged, View,
};
use sinew_wire::frame::Header;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What passed through the transports that were made with it. Clones count together.
#[derive(Clone, Default, Debug)]
pub struct Meter(Arc<Counts>);

#[derive(Default, Debug)]
struct Counts {
    frames_sent: AtomicU64,
    bytes_sent: AtomicU64,
    frames_received: AtomicU64,
    bytes_received: AtomicU64,
    full: AtomicU64,
    lanes: AtomicU64,
}

/// Counts at one moment; each is exact, together they may be of slightly different moments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// Frames taken by lanes.
    pub frames_sent: u64,
    /// Bytes of their bodies.
    pub bytes_sent: u64,
    /// Frames handed up.
    pub frames_received: u64,
    /// Bytes of their bodies.
    pub bytes_received: u64,
    /// Posts refused for want of room.
    pub full: u64,
    /// Lanes made.
    pub lanes: u64,
}

impl Meter {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counts now.
    #[must_use]
    pub fn read(&self) -> Reading {
        Reading {
            frames_sent: self.0.frames_sent.load(Relaxed),
            bytes_sent: self.0.bytes_sent.load(Relaxed),
            frames_received: self.0.frames_received.load(Relaxed),
            bytes_received: self.0.bytes_received.load(Relaxed),
            full: self.0.full.load(Relaxed),
            lanes: self.0.lanes.load(Relaxed),
        }
    }

    fn sent(&self, len: usize, result: Result<(), PostError>) -> Result<(), PostError> {
        match &result {
            Ok(()) => {
                self.0.frames_sent.fetch_add(1, Relaxed);
                self.0.bytes_sent.fetch_add(len as u64, Relaxed);
            }
            Err(PostError::Full) => {
                self.0.full.fetch_add(1, Relaxed);
            }
            Err(_) => {}
        }
        result
    }

    fn received(&self, len: usize) {
        self.0.frames_received.fetch_add(1, Relaxed);
        self.0.bytes_received.fetch_add(len as u64, Relaxed);
    }
}

/// A transport and the meter that counts its traffic.
pub struct Metered {
    inner: Box<dyn Transport>,
    meter: Meter,
}

impl Metered {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Box<dyn Transport>, meter: Meter) -> Self {
        Self { inner, meter }
    }
}

impl Transport for Metered {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn probe(&self) -> Availability {
        self.inner.probe()
    }

    fn expectation(&self) -> (Capabilities, Cost) {
        self.inner.expectation()
    }

    fn open(&self, context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        Ok(Box::new(MeteredDomain { inner: self.inner.open(context)?, meter: self.meter.clone() }))
    }
}

struct MeteredDomain {
    inner: Box<dyn Domain>,
    meter: Meter,
}

impl Domain for MeteredDomain {
    fn locators(&self) -> Vec<Locator> {
        self.inner.locators()
    }

    fn understands(&self, scheme: &str) -> bool {
        self.inner.understands(scheme)
    }

    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError> {
        Ok(Box::new(MeteredLink { inner: self.inner.dial(to, owner)?, meter: self.meter.clone() }))
    }

    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError> {
        let Some(inner) = self.inner.accept(owner)? else { return Ok(None) };
        Ok(Some(Box::new(MeteredLink { inner, meter: self.meter.clone() })))
    }

    fn handle_event(&mut self, event: Event) {
        self.inner.handle_event(event);
    }

    fn poll_warm(&mut self, owners: &mut Vec<u32>) {
        self.inner.poll_warm(owners);
    }

    fn arm(&mut self) -> bool {
        self.inner.arm()
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn allocate_segment(&mut self, len: usize) -> Result<Option<Arc<dyn Segment>>, TransportError> {
        self.inner.allocate_segment(len)
    }
}

struct MeteredLink {
    inner: Box<dyn Link>,
    meter: Meter,
}

impl Link for MeteredLink {
    fn poll(&mut self) -> Result<LinkState, TransportError> {
        self.inner.poll()
    }

    fn try_send(&mut self, record: &Record) -> Result<bool, TransportError> {
        self.inner.try_send(record)
    }

    fn try_recv(&mut self, record: &mut Record) -> Result<bool, TransportError> {
        self.inner.try_recv(record)
    }

    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn into_lane(self: Box<Self>, params: LaneParams) -> Result<Box<dyn Lane>, TransportError> {
        let inner = self.inner.into_lane(params)?;
        self.meter.0.lanes.fetch_add(1, Relaxed);
        Ok(Box::new(MeteredLane { inner, meter: self.meter }))
    }
}

struct MeteredLane {
    inner: Box<dyn Lane>,
    meter: Meter,
}

/// Passes on and counts what comes up.
struct MeteredSink<'a> {
    inner: &'a mut dyn Sink,
    meter: &'a Meter,
}

impl Sink for MeteredSink<'_> {
    fn frame(&mut self, header: &Header, body: Body<'_>) {
        self.meter.received(body.len());
        self.inner.frame(header, body);
    }

    fn place(&mut self, header: &Header, len: usize) -> Placement {
        self.inner.place(header, len)
    }

    fn placed(&mut self, header: &Header, len: usize) {
        self.meter.received(len);
        self.inner.placed(header, len);
    }

    fn released(&mut self, token: Token) {
        self.inner.released(token);
    }

    fn pulled(&mut self, token: Token, result: Result<(), LaneError>) {
        self.inner.pulled(token, result);
    }
}

impl Lane for MeteredLane {
    fn info(&self) -> &LaneInfo {
        self.inner.info()
    }

    fn try_post(&mut self, header: &Header, body: &[IoSlice<'_>]) -> Result<(), PostError> {
        let len = body.iter().map(|part| part.len()).sum();
        self.meter.sent(len, self.inner.try_post(header, body))
    }

    unsafe fn try_post_borrowed(
        &mut self,
        header: &Header,
        data: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<(), PostError> {
        // SAFETY: the same contract.
        let result = unsafe { self.inner.try_post_borrowed(header, data, len, token) };
        self.meter.sent(len, result)
    }

    fn reclaim(&mut self, token: Token) {
        self.inner.reclaim(token);
    }

    fn flush(&mut self) -> Result<(), LaneError> {
        self.inner.flush()
    }

    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        self.inner.poll(&mut MeteredSink { inner: sink, meter: &self.meter }, budget)
    }

    fn handle_event(&mut self, event: Event) {
        self.inner.handle_event(event);
    }

    fn handle_timer(&mut self, now: Instant) -> Result<(), LaneError> {
        self.inner.handle_timer(now)
    }

    fn next_timer(&self) -> Option<Instant> {
        self.inner.next_timer()
    }

    fn unacknowledged(&self) -> u64 {
        self.inner.unacknowledged()
    }

    fn request_acknowledgement(&mut self) {
        self.inner.request_acknowledgement();
    }

    fn acknowledge(&mut self) {
        self.inner.acknowledge();
    }

    fn recover(&mut self) -> Vec<Unacknowledged> {
        self.inner.recover()
    }

    fn revoke(&mut self, token: Token) {
        self.inner.revoke(token);
    }

    fn cool(&mut self) -> bool {
        self.inner.cool()
    }

    fn describe(&mut self, buf: &Buf) -> Result<Option<Descriptor>, LaneError> {
        self.inner.describe(buf)
    }

    unsafe fn pull(
        &mut self,
        from: &Descriptor,
        target: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<Pull, LaneError> {
        // SAFETY: the same contract.
        unsafe { self.inner.pull(from, target, len, token) }
    }

    fn view(&mut self, from: &Descriptor) -> Result<View, LaneError> {
        self.inner.view(from)
    }

    fn close(&mut self) {
        self.inner.close();
    }
}
