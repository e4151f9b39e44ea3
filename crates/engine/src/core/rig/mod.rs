//! For tests of the core: one session whose lanes a test holds the other ends of.
//!
//! Frames that the core posts lie in the [`Wire`]; what a test puts into it is what the lane brings at its next poll. Nothing moves by
//! itself: what a test says has happened is all that has.
#![allow(unsafe_code)]

mod bundle;
mod ending;
mod failover;
mod inbound;
mod lanes;
mod moves;
mod replay;
mod session;

use super::lanes::{BUDGET, Proof};
use super::session::{PeerEngine, Session, SessionId};
use super::table::Key;
use super::{Core, LaneSlot, SELF_OWNER};
use crate::{Engine, EngineOptions, Progress, Security};
use sinew_transport::loopback::Loopback;
use sinew_transport::{
    Body, Capabilities, Cost, ErrorKind, Lane, LaneError, LaneInfo, Limits, PostError, Sink, Token,
    Unacknowledged, UnacknowledgedBody,
};
use sinew_wire::frame::{Header, Kind};
use sinew_wire::hello::Features;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a test sees and says of a lane.
#[derive(Default)]
pub(crate) struct State {
    /// What the core has posted and nobody has acknowledged.
    pub(crate) posted: Vec<(Header, Vec<u8>)>,
    /// All that was ever posted.
    pub(crate) ever: Vec<Header>,
    /// What comes next.
    pub(crate) arriving: VecDeque<(Header, Vec<u8>)>,
    /// Whole messages go into the memory of their receive.
    pub(crate) places: bool,
    /// There is no room.
    pub(crate) full: bool,
    /// The lane is over for this reason.
    pub(crate) over: Option<ErrorKind>,
    /// How often the peer was asked what it has.
    pub(crate) asked: u32,
    /// Memory that the lane lets go of at its next poll.
    pub(crate) released: Vec<Token>,
    pub(crate) revoked: Vec<Token>,
    pub(crate) closed: bool,
    /// What was posted waits for the peer to read.
    pub(crate) held_up: bool,
    /// It is polled no more until something comes.
    pub(crate) cooled: bool,
}

/// The transport whose lanes are polled in memory.
pub(crate) const MEMORY: &str = "memory";

/// The other end of a lane.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<State>>);

impl Wire {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What was posted since the last call of this; the peer has it.
    pub(crate) fn take(&self) -> Vec<(Header, Vec<u8>)> {
        std::mem::take(&mut self.state().posted)
    }

    /// The headers of what was posted of these kinds since the last call; the peer has all.
    pub(crate) fn of(&self, kind: Kind) -> Vec<Header> {
        self.take().into_iter().map(|(header, _)| header).filter(|header| header.kind == kind).collect()
    }
}

struct WireLane {
    info: LaneInfo,
    wire: Wire,
}

// SAFETY: it copies what it is lent during the call, and writes to a target before it tells that it has.
unsafe impl Lane for WireLane {
    fn info(&self) -> &LaneInfo {
        &self.info
    }

    fn try_post(&mut self, header: &Header, body: &[IoSlice<'_>]) -> Result<(), PostError> {
        let mut state = self.wire.state();
        if state.full {
            return Err(PostError::Full);
        }
        let bytes: Vec<u8> = body.iter().flat_map(|part| part.iter().copied()).collect();
        if bytes.len() > self.info.limits.frame_max {
            return Err(PostError::TooLarge);
        }
        state.ever.push(*header);
        state.posted.push((*header, bytes));
        Ok(())
    }

    unsafe fn try_post_borrowed(
        &mut self,
        header: &Header,
        data: NonNull<u8>,
        len: usize,
        _token: Token,
    ) -> Result<(), PostError> {
        // SAFETY: readable for `len` bytes during the call, by this method's contract.
        let bytes = unsafe { std::slice::from_raw_parts(data.as_ptr(), len) };
        self.try_post(header, &[IoSlice::new(bytes)])
    }

    fn reclaim(&mut self, _token: Token) {}

    fn flush(&mut self) -> Result<(), LaneError> {
        Ok(())
    }

    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        let mut done = 0;
        while done < budget {
            let Some((header, bytes)) = self.wire.state().arriving.pop_front() else { break };
            let places = self.wire.state().places && header.kind == Kind::EAGER;
            if let Some((target, _)) = places.then(|| sink.place_message(&header, bytes.len())).flatten() {
                // SAFETY: writable for that many bytes until `placed`, which is told at once.
                unsafe { target.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
                sink.placed(&header, bytes.len());
            } else {
                sink.frame(&header, Body::from_slice(&bytes));
            }
            done += 1;
        }
        let released = std::mem::take(&mut self.wire.state().released);
        done += released.len();
        released.into_iter().for_each(|token| sink.released(token));
        match self.wire.state().over {
            Some(kind) if done == 0 => Err(LaneError::new(kind, "poll", "")),
            _ => Ok(done),
        }
    }

    fn is_held_up(&self) -> bool {
        self.wire.state().held_up
    }

    fn has_more(&self) -> bool {
        !self.wire.state().arriving.is_empty()
    }

    fn unacknowledged(&self) -> u64 {
        self.wire.state().posted.len() as u64
    }

    fn request_acknowledgement(&mut self) {
        self.wire.state().asked += 1;
    }

    fn recover(&mut self) -> Vec<Unacknowledged> {
        let posted = self.wire.take().into_iter();
        posted
            .map(|(header, bytes)| Unacknowledged { header, body: UnacknowledgedBody::Owned(bytes) })
            .collect()
    }

    unsafe fn redirect(&mut self, _from: Token, _target: NonNull<u8>, _to: Token) {}

    fn revoke(&mut self, token: Token) {
        self.wire.state().revoked.push(token);
    }

    fn cool(&mut self) -> bool {
        self.wire.state().cooled = true;
        true
    }

    fn close(&mut self) {
        self.wire.state().closed = true;
    }
}

/// An engine with one session, whose peer is this test.
pub(crate) struct Rig {
    engine: Engine,
    pub(crate) session: Key,
}

impl Rig {
    /// A session whose peer has this id: the greater one of the two decides about lanes.
    pub(crate) fn new(peer: [u8; 16]) -> Self {
        let options = EngineOptions::default()
            .endpoint_window(64_usize << 10)
            .session_window(96_usize << 10)
            .endpoint_envelopes(16_usize)
            .session_envelopes(24_usize);
        let builder = Engine::builder().domain("rig").security(Security::Open).progress(Progress::Caller);
        let engine = builder.options(options).transport(Loopback).build().expect("an engine");
        let session = engine.shared().with(|core| {
            let (windows, features) = (core.config.windows, Features(0));
            let peer = PeerEngine { id: peer, incarnation: 1, number: 1, locators: Vec::new(), features };
            let id = SessionId { engine: peer.id, pinned: None };
            let session = core.sessions.insert(Session::new(peer, None, 0, windows, windows));
            core.session_of.insert(id, session);
            session
        });
        Self { engine, session }
    }

    pub(crate) fn core<R>(&self, look: impl FnOnce(&mut Core) -> R) -> R {
        self.engine.shared().with(look)
    }

    /// A further lane of the session, proven.
    pub(crate) fn lane(&self, transport: &'static str, frame_max: usize) -> (Key, Wire) {
        let (key, wire) = self.unproven(transport, frame_max);
        self.core(|core| core.attach_lane(key));
        (key, wire)
    }

    /// A lane that the session does not know yet.
    pub(crate) fn unproven(&self, transport: &'static str, frame_max: usize) -> (Key, Wire) {
        let wire = Wire::default();
        let info = LaneInfo {
            transport,
            peer: "a test".to_owned(),
            capabilities: Capabilities { memory_polled: transport == MEMORY, ..Capabilities::default() },
            cost: Cost { latency_ns: 1000, per_byte_ps: 100, overhead_ns: 100 },
            limits: Limits { frame_max, borrowed_max: frame_max },
        };
        let lane = Box::new(WireLane { info, wire: wire.clone() });
        let key = self.core(|core| {
            let proof = Proof {
                verified: true,
                rtt_ns: Some(1000),
                ..Proof::new(0, 0, core.surroundings.now(), None)
            };
            let number = core.lanes.len() as u32 + 1;
            let slot = LaneSlot::new(lane, transport, (SELF_OWNER, self.session), proof);
            core.lanes.insert(LaneSlot { number, ..slot })
        });
        (key, wire)
    }

    /// The peer posts a frame on a lane, and the core looks.
    pub(crate) fn comes(&self, lane: Key, wire: &Wire, header: Header, body: &[u8]) {
        wire.state().arriving.push_back((header, body.to_vec()));
        self.core(|core| core.poll_lane(lane, BUDGET));
    }

    /// The peer listens on a lane, and has `count` frames, of which leg `leg` was the last and is fenced.
    pub(crate) fn resumes(&self, lane: Key, wire: &Wire, leg: u32, count: u64) {
        let header = Header { src: leg, dst: 1, ..Header::control(Kind::RESUME, count) };
        self.comes(lane, wire, header, &[]);
    }

    /// The peer begins leg `leg` on a lane, at frame `count`.
    pub(crate) fn switches(&self, lane: Key, wire: &Wire, leg: u32, count: u64) {
        self.comes(lane, wire, Header { dst: leg, ..Header::control(Kind::SWITCH, count) }, &[]);
    }

    /// A lane that carries the session both ways: `leg` is the first of both sides.
    pub(crate) fn carried(peer: [u8; 16]) -> (Self, Key, Wire) {
        let rig = Self::new(peer);
        let (lane, wire) = rig.lane("one", 4096);
        rig.resumes(lane, &wire, 0, 0);
        rig.switches(lane, &wire, 1, 0);
        wire.take();
        (rig, lane, wire)
    }
}
