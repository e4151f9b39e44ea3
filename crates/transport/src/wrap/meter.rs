//! A transport that counts: [`Metered`], read by [`Meter`].
//!
//! Used by tests and by whoever wants the traffic of one transport without the engine's counters. It adds one atomic
//! increment to a frame.
#![allow(unsafe_code)]

use crate::{
    Body, Domain, DomainContext, Lane, LaneError, LaneParams, Link, Locator, PostError, Sink, Token,
    Transport, TransportError, forward,
};
use sinew_wire::frame::Header;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    forward! { Transport: name, probe, expectation, lanes_per_session }

    fn open(&self, context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        Ok(Box::new(MeteredDomain { inner: self.inner.open(context)?, meter: self.meter.clone() }))
    }
}

struct MeteredDomain {
    inner: Box<dyn Domain>,
    meter: Meter,
}

impl Domain for MeteredDomain {
    forward! { Domain: locators, understands, handle_event, poll_warm, arm, disarm, allocate_segment }

    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError> {
        Ok(Box::new(MeteredLink { inner: self.inner.dial(to, owner)?, meter: self.meter.clone() }))
    }

    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError> {
        let Some(inner) = self.inner.accept(owner)? else { return Ok(None) };
        Ok(Some(Box::new(MeteredLink { inner, meter: self.meter.clone() })))
    }
}

struct MeteredLink {
    inner: Box<dyn Link>,
    meter: Meter,
}

impl Link for MeteredLink {
    forward! { Link: poll, try_send, try_recv, identity, describe }

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

// SAFETY: all calls are passed on, so the placements are the inner sink's and end as it promises.
unsafe impl Sink for MeteredSink<'_> {
    fn frame(&mut self, header: &Header, body: Body<'_>) {
        self.meter.received(body.len());
        self.inner.frame(header, body);
    }

    forward! { Sink: place, place_message, expected, released, pulled }

    fn placed(&mut self, header: &Header, len: usize) {
        self.meter.received(len);
        self.inner.placed(header, len);
    }
}

// SAFETY: all calls are passed on.
unsafe impl Lane for MeteredLane {
    forward! { Lane:
    info, reclaim, flush, is_held_up, backlog, remark, has_more, handle_event, handle_timer, next_timer, unacknowledged, request_acknowledgement,
    acknowledge, recover, revoke, redirect, cool, describe, describe_lent, crossings, memory, recall, pull, view, take_view, close }

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

    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        self.inner.poll(&mut MeteredSink { inner: sink, meter: &self.meter }, budget)
    }
}
