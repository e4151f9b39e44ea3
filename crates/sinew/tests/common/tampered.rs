//! A transport whose lanes do what no engine does: a peer that forges frames, stops in the middle, or does not read.
//!
//! Included by the test files that need it.
#![allow(unsafe_code, dead_code, unreachable_pub)]

use crate::common::steady;
use sinew::transport::{
    Body, Descriptor, Domain, DomainContext, Header, Kind, Lane, LaneError, LaneParams, Link, Locator,
    PostError, Pull, Sink, Token, Transport, TransportError, forward,
};
use sinew::{Builder, Engine, Progress};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// What the tampered lanes of a test do.
#[derive(Default)]
pub struct Plan {
    /// Frames that go out beside those of the engine.
    pub forged: Mutex<VecDeque<(Header, Vec<u8>)>>,
    /// A lane stands still as soon as a body is under way on it.
    pub hold: AtomicBool,
    pub held: AtomicBool,
    /// Pulls never end, and each poll of their lane writes to their targets after it has handed everything up, as a device
    /// may.
    pub scribble: AtomicBool,
    /// The engine's frames of this kind go out with this tag.
    pub rewrite: Mutex<Option<(Kind, u64)>>,
    /// The next poll of a lane panics.
    pub panics: AtomicBool,
    /// Nothing is read from a lane.
    pub deaf: AtomicBool,
    /// A bit for each kind of frame that went out.
    pub kinds: AtomicU32,
}

impl Plan {
    fn note(&self, kind: Kind) {
        self.kinds.fetch_or(1_u32.checked_shl(u32::from(kind.0)).unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether a frame of this kind went out, or was about to.
    pub fn sent(&self, kind: Kind) -> bool {
        self.kinds.load(Ordering::Relaxed) & 1 << kind.0 != 0
    }
}

struct Tampered {
    inner: Box<dyn Transport>,
    plan: Arc<Plan>,
}

impl Transport for Tampered {
    forward! { Transport: name, probe, expectation, lanes_per_session }

    fn open(&self, context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        Ok(Box::new(TamperedDomain { inner: self.inner.open(context)?, plan: Arc::clone(&self.plan) }))
    }
}

struct TamperedDomain {
    inner: Box<dyn Domain>,
    plan: Arc<Plan>,
}

impl Domain for TamperedDomain {
    forward! { Domain: locators, understands, handle_event, poll_warm, arm, disarm, allocate_segment }

    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError> {
        Ok(Box::new(TamperedLink { inner: self.inner.dial(to, owner)?, plan: Arc::clone(&self.plan) }))
    }

    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError> {
        let Some(inner) = self.inner.accept(owner)? else { return Ok(None) };
        Ok(Some(Box::new(TamperedLink { inner, plan: Arc::clone(&self.plan) })))
    }
}

struct TamperedLink {
    inner: Box<dyn Link>,
    plan: Arc<Plan>,
}

impl Link for TamperedLink {
    forward! { Link: poll, try_send, try_recv, identity, describe }

    fn into_lane(self: Box<Self>, params: LaneParams) -> Result<Box<dyn Lane>, TransportError> {
        let inner = self.inner.into_lane(params)?;
        Ok(Box::new(TamperedLane { inner, plan: self.plan, held: false, targets: Vec::new() }))
    }
}

struct TamperedLane {
    inner: Box<dyn Lane>,
    plan: Arc<Plan>,
    held: bool,
    targets: Vec<(Token, NonNull<u8>, usize)>,
}

// SAFETY: the targets are used under the engine's lock only.
unsafe impl Send for TamperedLane {}

// SAFETY: all calls are passed on; a poll that is left out promises nothing; targets are forgotten when they are revoked.
unsafe impl Lane for TamperedLane {
    forward! { Lane:
    info, reclaim, flush, backlog, remark, handle_event, handle_timer, next_timer, unacknowledged,
    request_acknowledgement, acknowledge, recover, redirect, cool, describe, describe_lent, crossings, memory, recall, view, close }

    fn try_post(&mut self, header: &Header, parts: &[IoSlice<'_>]) -> Result<(), PostError> {
        let mut header = *header;
        if let Some((kind, tag)) = *self.plan.rewrite.lock().unwrap()
            && header.kind == kind
        {
            header.tag = tag;
        }
        self.plan.note(header.kind);
        self.inner.try_post(&header, parts)
    }

    unsafe fn try_post_borrowed(
        &mut self,
        header: &Header,
        data: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<(), PostError> {
        self.plan.note(header.kind);
        // SAFETY: as promised to this.
        unsafe { self.inner.try_post_borrowed(header, data, len, token) }
    }

    fn revoke(&mut self, token: Token) {
        self.targets.retain(|&(of, ..)| of != token);
        self.inner.revoke(token);
    }

    unsafe fn pull(
        &mut self,
        from: &Descriptor,
        target: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<Pull, LaneError> {
        if self.plan.scribble.load(Ordering::Acquire) {
            self.targets.push((token, target, len));
            return Ok(Pull::Pending);
        }
        // SAFETY: as promised to this.
        unsafe { self.inner.pull(from, target, len, token) }
    }

    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        assert!(!self.plan.panics.swap(false, Ordering::AcqRel), "a lane of somebody else");
        let mut forged = self.plan.forged.lock().unwrap();
        while let Some((header, body)) = forged.front()
            && self.inner.try_post(header, &[IoSlice::new(body)]).is_ok()
        {
            forged.pop_front();
        }
        drop(forged);
        self.inner.flush()?;
        if self.plan.deaf.load(Ordering::Acquire) {
            return Ok(0);
        }
        self.held &= self.plan.hold.load(Ordering::Acquire);
        if self.held {
            return Ok(0);
        }
        let mut watching = Watching { inner: sink, under_way: false };
        let done = self.inner.poll(&mut watching, budget);
        for &(_, target, len) in &self.targets {
            // SAFETY: writable until it is revoked.
            unsafe { target.write_bytes(0xee, len) };
        }
        if watching.under_way && !self.plan.held.load(Ordering::Acquire) {
            self.held = self.plan.hold.load(Ordering::Acquire);
            self.plan.held.store(self.held, Ordering::Release);
        }
        done
    }
}

struct Watching<'a> {
    inner: &'a mut dyn Sink,
    under_way: bool,
}

// SAFETY: all calls are passed on.
unsafe impl Sink for Watching<'_> {
    forward! { Sink: expected, released, pulled }

    fn frame(&mut self, header: &Header, body: Body<'_>) {
        self.inner.frame(header, body);
    }

    fn place(&mut self, header: &Header, len: usize) -> sinew::transport::Placement {
        self.under_way = true;
        self.inner.place(header, len)
    }

    fn place_message(&mut self, header: &Header, len: usize) -> Option<(NonNull<u8>, Token)> {
        let place = self.inner.place_message(header, len);
        self.under_way |= place.is_some();
        place
    }

    fn placed(&mut self, header: &Header, len: usize) {
        self.under_way = false;
        self.inner.placed(header, len);
    }
}

/// An engine in an event loop over such a transport.
pub fn tampered(transport: impl Transport + 'static) -> (Engine, Arc<Plan>) {
    tampered_by(transport, |builder| builder.progress(Progress::Event))
}

/// The same with more said to its builder. What is forged is for one lane and its legs: there is no second way.
pub fn tampered_by(
    transport: impl Transport + 'static,
    more: impl FnOnce(Builder) -> Builder,
) -> (Engine, Arc<Plan>) {
    let plan = Arc::new(Plan::default());
    let transport = Tampered { inner: Box::new(transport), plan: Arc::clone(&plan) };
    let builder = more(Engine::builder().domain("faults").options(steady()));
    (builder.without_own_transports().transport(transport).build().unwrap(), plan)
}
