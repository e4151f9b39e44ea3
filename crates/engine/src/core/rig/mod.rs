//! For tests of the core: one session whose lanes a test holds the other ends of.
//!
//! Frames that the core posts lie in the [`Wire`]; what a test puts into it is what the lane brings at its next poll. Nothing moves by
//! itself: what a test says has happened is all that has.
#![allow(unsafe_code)]

mod batch;
mod bundle;
mod connecting;
mod credit;
mod ending;
mod explain;
mod failover;
mod fetched;
mod inbound;
mod lanes;
mod link;
mod loans;
mod moves;
mod net;
mod operations;
mod outbound;
mod peer;
mod placing;
mod proof;
mod pushes;
mod receives;
mod redial;
mod rendezvous;
mod replay;
mod sends;
mod session;
mod short_sends;
mod short_sockets;
mod short_ways;
mod site;
mod sockets;
mod stripes;
mod turns;
mod upgrade;
mod wire;
mod wishes;
mod withdrawn;

use super::lanes::{BUDGET, Proof};
use super::op::{Memory, Op, RecvState};
use super::session::{PeerEngine, Session, SessionId};
use super::table::Key;
use super::{Core, Got, LaneSlot, Look, Owner, Receiving, Started, Tags, Taken};
use crate::completion::{Completion, Match};
use crate::{Engine, EngineOptions, Progress, Security};
use sinew_transport::loopback::Loopback;
use sinew_transport::{Capabilities, Cost, LaneInfo, Limits};
use sinew_wire::frame::{Flags, Header, Kind};
use sinew_wire::hello::Features;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Wake;
use wire::WireLane;

pub(crate) use wire::Wire;

/// A whole message for endpoint 1.
fn eager(tag: u64) -> Header {
    Header { kind: Kind::EAGER, flags: Flags(0), dst: 1, src: 3, tag }
}

/// A message for endpoint 1 that is announced.
fn envelope(tag: u64) -> Header {
    Header { dst: 1, src: 3, ..Header::control(Kind::ENVELOPE, tag) }
}

/// The bytes of a long message: each thousand has its number, which even an interpreter has written soon.
fn numbered_bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes.chunks_mut(1000).enumerate().for_each(|(at, part)| part.fill(at as u8));
    bytes
}

/// Numbers of 64 bits, one after the other.
fn words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The transport whose lanes are polled in memory.
pub(crate) const MEMORY: &str = "memory";

/// An engine with one session, whose peer is this test.
pub(crate) struct Rig {
    engine: Engine,
    pub(crate) session: Key,
}

/// Nobody reads what a test has left in a lane: the engine need not wait for that.
impl Drop for Rig {
    fn drop(&mut self) {
        self.engine.shared().with_in_drop(Core::shut_down);
    }
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
        let memory_polled = transport == MEMORY;
        self.unproven_with(transport, frame_max, Capabilities { memory_polled, ..Capabilities::default() })
    }

    fn unproven_with(
        &self,
        transport: &'static str,
        frame_max: usize,
        capabilities: Capabilities,
    ) -> (Key, Wire) {
        let wire = Wire::default();
        let info = LaneInfo {
            transport,
            peer: "a test".to_owned(),
            capabilities,
            cost: Cost { latency_ns: 1000, per_byte_ps: 100, overhead_ns: 100 },
            limits: Limits { frame_max, borrowed_max: frame_max },
        };
        let lane = Box::new(WireLane::new(info, wire.clone()));
        let key = self.core(|core| {
            let proof = Proof {
                verified: true,
                rtt_ns: Some(1000),
                ..Proof::new(0, 0, core.surroundings.now(), None)
            };
            let number = core.lanes.len() as u32 + 1;
            let owner = core.new_owner(Owner::Lane(core.lanes.next_key()));
            let slot = LaneSlot::new(lane, transport, (owner, self.session), proof);
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
        Self::carried_by(peer, "one")
    }

    fn carried_by(peer: [u8; 16], transport: &'static str) -> (Self, Key, Wire) {
        let rig = Self::new(peer);
        let (lane, wire) = rig.lane(transport, 4096);
        rig.resumes(lane, &wire, 0, 0);
        rig.switches(lane, &wire, 1, 0);
        wire.take();
        (rig, lane, wire)
    }

    /// A lane in memory that has just brought something, and endpoint 1: where short ways are tried.
    pub(crate) fn hot() -> (Self, Key, Wire) {
        let (rig, lane, wire) = Self::carried_by([0; 16], MEMORY);
        rig.core(|core| {
            core.create_endpoint(None).expect("an endpoint");
            core.heat(lane);
        });
        rig.comes(lane, &wire, Header::control(Kind::WITHDRAW, 1), &[]);
        rig.core(Core::progress);
        wire.take();
        (rig, lane, wire)
    }

    /// A receive of endpoint 1 for which no message waits.
    pub(crate) fn post(&self, pattern: impl Into<Match>, room: usize) -> Key {
        self.post_into(pattern, Memory::Owned(vec![0; room].into()))
    }

    pub(crate) fn post_into(&self, pattern: impl Into<Match>, memory: Memory) -> Key {
        let pattern = pattern.into();
        match self.core(|core| core.start_recv(1, pattern, memory, None)) {
            Started::Pending(key) => key,
            Started::Done(result, ..) => panic!("a message was there: {result:?}"),
        }
    }

    pub(crate) fn is_posted(&self, key: Key) -> bool {
        self.core(|core| core.is_posted(key))
    }

    /// The bytes that a receive has got.
    pub(crate) fn got(&self, key: Key) -> Option<Vec<u8>> {
        self.core(|core| {
            let Some(Op::Recv(op)) = core.ops.get(key) else { return None };
            let (RecvState::Finished(Ok(info)), Memory::Owned(buf)) = (&op.state, &op.memory) else {
                return None;
            };
            Some(buf.as_slice()[..info.len].to_vec())
        })
    }

    /// A lane writes to where it was told that a receive lies.
    pub(crate) fn writes(&self, key: Key, bytes: &[u8]) {
        self.core(|core| {
            let Some(Op::Recv(op)) = core.ops.get(key) else { panic!("it is there") };
            assert!(bytes.len() <= op.memory.len());
            // SAFETY: the receive is in the table, so its memory is lent, and has room for them.
            unsafe { op.memory.data().as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        });
    }

    /// What a call that looks for a message of endpoint 1 takes the short way.
    pub(crate) fn takes(core: &mut Core, pattern: impl Into<Match>, buf: &mut [u8]) -> Option<Completion> {
        let (look, got) = Self::looks(core, 1, &pattern.into(), buf);
        matches!(look, Look::Done).then(|| got.info())
    }

    fn looks(core: &mut Core, endpoint: u32, pattern: &Match, buf: &mut [u8]) -> (Look, Got) {
        let (tags, mut got) = (Tags::of(pattern).expect("no source"), Got::NOTHING);
        let memory = (NonNull::from(&mut *buf).cast(), buf.len());
        // SAFETY: `buf` is borrowed meanwhile.
        let look = unsafe { core.recv_quick(endpoint, tags, memory, &mut got) };
        (look, got)
    }

    /// One turn of a call that waits for a message at endpoint 1; what becomes an operation is over when this returns.
    pub(crate) fn in_turn<R>(
        &self,
        pattern: impl Into<Match>,
        buf: &mut [u8],
        look: impl FnOnce(Option<Taken>) -> R,
    ) -> R {
        let data = NonNull::from(&mut *buf).cast();
        let receiving = Receiving { endpoint: 1, pattern: pattern.into(), data, room: buf.len() };
        // SAFETY: `buf` is borrowed until `Ends` has taken an operation that refers to it out of the table.
        let taken = self.core(|core| unsafe { core.recv_in_turn(&receiving) });
        let _ends = match taken {
            Some(Taken::Pending(key)) => Some(Ends(self, key)),
            _ => None,
        };
        look(taken)
    }
}

/// Takes a receive out of the engine.
struct Ends<'a>(&'a Rig, Key);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.core(|core| core.cancel_recv(self.1));
    }
}

/// What a test is woken by, and how often it was.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    fn times(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}
