//! A lane of somebody else's whose frames are shorter than messages that go whole on other lanes carries them all the same:
//! alone, and when it takes over what a wider lane has left.

mod common;

use common::{Pair, connected, content, options, until};
use sinew::tcp::{TcpOptions, TcpTransport, UdsOptions, UdsTransport};
use sinew::transport::{
    Domain, DomainContext, ErrorKind, Lane, LaneInfo, LaneParams, Link, Locator, PostError, Token, Transport,
    TransportError, forward,
};
use sinew::{Engine, Progress};
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The least that a lane must take.
const NARROW: usize = 4096;

/// A transport whose lanes take short frames, or that can be closed.
struct Bent {
    inner: Box<dyn Transport>,
    narrow: bool,
    closed: Arc<AtomicBool>,
}

impl Transport for Bent {
    forward! { Transport: name, probe, expectation }

    fn open(&self, context: DomainContext) -> Result<Box<dyn Domain>, TransportError> {
        let inner = self.inner.open(context)?;
        Ok(Box::new(BentDomain { inner, narrow: self.narrow, closed: Arc::clone(&self.closed) }))
    }
}

struct BentDomain {
    inner: Box<dyn Domain>,
    narrow: bool,
    closed: Arc<AtomicBool>,
}

impl BentDomain {
    fn bend(&self, inner: Box<dyn Link>) -> Box<dyn Link> {
        Box::new(BentLink { inner, narrow: self.narrow })
    }
}

impl Domain for BentDomain {
    forward! { Domain: locators, understands, handle_event, poll_warm, arm, disarm, allocate_segment }

    fn dial(&mut self, to: &Locator, owner: u32) -> Result<Box<dyn Link>, TransportError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(TransportError::new(ErrorKind::Refused, "dial", "closed by the test"));
        }
        let inner = self.inner.dial(to, owner)?;
        Ok(self.bend(inner))
    }

    fn accept(&mut self, owner: u32) -> Result<Option<Box<dyn Link>>, TransportError> {
        let Some(inner) = self.inner.accept(owner)? else { return Ok(None) };
        Ok(Some(self.bend(inner)))
    }
}

struct BentLink {
    inner: Box<dyn Link>,
    narrow: bool,
}

impl Link for BentLink {
    forward! { Link: poll, try_send, try_recv, identity, describe }

    fn into_lane(self: Box<Self>, params: LaneParams) -> Result<Box<dyn Lane>, TransportError> {
        let inner = self.inner.into_lane(params)?;
        if !self.narrow {
            return Ok(inner);
        }
        let mut info = inner.info().clone();
        (info.limits.frame_max, info.limits.borrowed_max) = (NARROW, NARROW);
        Ok(Box::new(NarrowLane { inner, info }))
    }
}

struct NarrowLane {
    inner: Box<dyn Lane>,
    info: LaneInfo,
}

// SAFETY: calls are passed on or refused.
#[allow(unsafe_code)]
unsafe impl Lane for NarrowLane {
    forward! { Lane:
    reclaim, flush, poll, handle_event, handle_timer, next_timer, unacknowledged, is_held_up, has_more,
    request_acknowledgement, acknowledge, recover, revoke, redirect, cool, describe, pull, view, close }

    fn info(&self) -> &LaneInfo {
        &self.info
    }

    fn try_post(&mut self, header: &sinew::transport::Header, body: &[IoSlice<'_>]) -> Result<(), PostError> {
        if body.iter().map(|part| part.len()).sum::<usize>() > NARROW {
            return Err(PostError::TooLarge);
        }
        self.inner.try_post(header, body)
    }

    unsafe fn try_post_borrowed(
        &mut self,
        header: &sinew::transport::Header,
        data: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<(), PostError> {
        if len > NARROW {
            return Err(PostError::TooLarge);
        }
        // SAFETY: as promised to this.
        unsafe { self.inner.try_post_borrowed(header, data, len, token) }
    }
}

/// Two engines with a narrow lane, and with a wide one if they are given its switch.
fn engines(wide: Option<&Arc<AtomicBool>>) -> Pair {
    let engine = || {
        let builder = Engine::builder().domain("faults").progress(Progress::Event).options(options());
        let bend = |inner: Box<dyn Transport>, narrow, closed| Bent { inner, narrow, closed };
        let mut builder = builder.without_own_transports().transport(bend(
            Box::new(TcpTransport::new(TcpOptions::default())),
            true,
            Arc::default(),
        ));
        if let Some(closed) = wide {
            let inner = Box::new(UdsTransport::new(UdsOptions::default()));
            builder = builder.transport(bend(inner, false, Arc::clone(closed)));
        }
        builder.build().expect("an engine")
    };
    connected(engine(), engine())
}

const SIZES: [usize; 10] = [0, 40, 4000, 4088, 4090, 4096, 4097, 20_000, 60_000, 65_536];

/// Sends messages of all sizes in both kinds; all of them are with their lane or further when this returns.
fn send_all(p: &Pair) -> u64 {
    let mut number = 0;
    for _ in 0..3 {
        for len in SIZES.into_iter().chain([300_000]) {
            let message = p.to_b.message(1);
            let message = if number % 2 == 0 { message.immediate(number) } else { message };
            drop(message.post(content(len, number)).unwrap());
            number += 1;
        }
    }
    p.here.progress();
    number
}

fn receive_all(p: &Pair, count: u64) {
    let sizes: Vec<usize> = SIZES.into_iter().chain([300_000]).collect();
    for number in 0..count {
        let mut recv = p.b.post_recv(1, vec![0; 300_000]).unwrap();
        let mut result = None;
        until("the message comes", || {
            p.here.process();
            p.there.process();
            result = result.take().or_else(|| recv.try_wait());
            result.is_some()
        });
        let got = result.unwrap().expect("a message");
        let len = sizes[number as usize % sizes.len()];
        assert_eq!((got.info.len, got.info.immediate), (len, (number % 2 == 0).then_some(number)));
        assert!(*got.buf == *content(len, number), "content of {number}");
    }
    until("nothing is left", || {
        p.here.process();
        p.there.process();
        p.here.counters().operations + p.there.counters().operations == 0
    });
}

#[test]
fn a_lane_of_short_frames_carries_messages_of_all_sizes() {
    let p = engines(None);
    assert!(p.to_b.path().starts_with("tcp"), "{}", p.to_b.path());
    for _ in 0..3 {
        let count = send_all(&p);
        receive_all(&p, count);
    }
}

#[test]
fn a_lane_of_short_frames_takes_over_long_ones() {
    for round in 0..5 {
        let closed = Arc::new(AtomicBool::new(false));
        // A busy machine may prove the narrow one first.
        let wide = |p: &Pair| p.to_b.path().starts_with("uds");
        let p = (0..100).map(|_| engines(Some(&closed))).find(wide).expect("the wide lane is the better one");
        let count = send_all(&p);
        // Some of it has arrived, in some rounds.
        for _ in 0..round {
            p.there.progress();
        }
        closed.store(true, Ordering::Release);
        assert!(p.here.cut(&p.to_b));
        receive_all(&p, count);
        assert!(p.to_b.path().starts_with("tcp"), "{}", p.to_b.path());
        assert!(p.to_b.is_connected());
        // No credit was lost on the way: far more than a window passes.
        let data = content(60_000, 7);
        for _ in 0..100 {
            drop(p.to_b.post_send(2, data.clone()).unwrap());
            let mut recv = p.b.post_recv(2, vec![0; 60_000]).unwrap();
            until("the message comes", || {
                p.here.process();
                p.there.process();
                recv.try_wait().is_some()
            });
        }
    }
}
