//! An engine whose transports, peers, time and chance a test makes: for how lanes come to be.
//!
//! A [`Net`] is a transport, a [`Line`] the other end of a link, and of the lane that it becomes; a [`Peer`] speaks on lines as
//! another engine would. Time stands still but for what a test says.

pub(super) use super::net::{Line, Net};
pub(super) use super::peer::{GREATER, LESS, Peer};

use super::net::lock;
use crate::core::table::Key;
use crate::core::{ConnectState, Core, Owner, Purpose, Surroundings};
use crate::system::System;
use crate::{Engine, EngineOptions, Progress, Security};
use sinew_transport::{Errno, ErrorKind, Event, Locator, PollKey, Poller, Readiness, Transport as _};
use sinew_wire::frame::{Header, Kind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A time that a test sets, numbers one after the other for random ones, and readiness that it tells.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<WorldState>>);

pub(super) struct WorldState {
    pub(super) now: Instant,
    next: u8,
    /// There is no chance any more.
    pub(super) unlucky: bool,
    /// What the next look at descriptors finds.
    pub(super) ready: Vec<Event>,
    /// Looks so far.
    pub(super) looks: u32,
}

impl World {
    fn new() -> Self {
        let state = WorldState { now: System.now(), next: 0, unlucky: false, ready: Vec::new(), looks: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, WorldState> {
        lock(&self.0)
    }
}

impl Surroundings for World {
    fn now(&self) -> Instant {
        self.state().now
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), Errno> {
        let mut state = self.state();
        if state.unlucky {
            return Err(Errno::IO);
        }
        state.next = state.next.wrapping_add(1).max(1);
        bytes.fill(state.next);
        Ok(())
    }

    fn poller(&self) -> Result<Poller, Errno> {
        Poller::simulated(self.clone())
    }
}

impl Readiness for World {
    fn wait(&self, _timeout: Option<Duration>, events: &mut Vec<Event>) {
        let mut state = self.state();
        state.looks += 1;
        events.append(&mut state.ready);
    }
}

/// The engine of a test.
pub(super) struct Site {
    pub(super) engine: Engine,
    pub(super) world: World,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.engine.shared().with_in_drop(Core::shut_down);
    }
}

impl Site {
    pub(super) fn new<const N: usize>(nets: [&Net; N]) -> Self {
        Self::with(nets, Security::Open, EngineOptions::default())
    }

    pub(super) fn with<const N: usize>(nets: [&Net; N], security: Security, options: EngineOptions) -> Self {
        let world = World::new();
        let builder = Engine::builder().domain("rig").security(security).progress(Progress::Caller);
        let mut builder = builder.options(options).surroundings(world.clone());
        for net in nets {
            builder = builder.transport(net.clone());
        }
        Self { engine: builder.build().expect("an engine"), world }
    }

    pub(super) fn core<R>(&self, look: impl FnOnce(&mut Core) -> R) -> R {
        self.engine.shared().with(look)
    }

    pub(super) fn now(&self) -> Instant {
        self.world.now()
    }

    /// So much later, and no timer was looked at.
    pub(super) fn later(&self, time: Duration) {
        self.world.state().now += time;
    }

    /// So much later, when the engine looks at its timers.
    pub(super) fn passes(&self, time: Duration) {
        self.later(time);
        let now = self.now();
        self.core(|core| core.run_timers(now));
    }

    pub(super) fn passes_ms(&self, ms: u64) {
        self.passes(Duration::from_millis(ms));
    }

    /// How long until the engine wants to look at its timers.
    pub(super) fn timer(&self) -> Option<Duration> {
        let now = self.now();
        self.core(|core| core.next_timer(now)).map(|at| at.saturating_duration_since(now))
    }

    pub(super) fn timer_ms(&self) -> Option<u128> {
        self.timer().map(|left| left.as_millis())
    }

    /// Something happened on a descriptor of a link or lane.
    pub(super) fn stirs(&self, line: &Line) {
        let owner = line.state().owner;
        self.happens(owner);
    }

    /// Something happened on a descriptor of this owner.
    pub(super) fn happens(&self, owner: u32) -> usize {
        let key = PollKey { owner, sub: 0 };
        self.core(|core| core.dispatch(&[Event { key, readable: true, writable: false, closed: false }]))
    }

    /// The link ends.
    pub(super) fn fails(&self, line: &Line, kind: ErrorKind) {
        line.state().over = Some(kind);
        line.wire().state().over = Some(kind);
        self.stirs(line);
    }

    pub(super) fn connect(&self, expected: Option<([u8; 16], u64)>, to: &[Locator], purpose: Purpose) -> Key {
        let deadline = self.now() + Duration::from_secs(10);
        self.core(|core| core.start_connect(expected, to.to_vec(), deadline, purpose))
    }

    /// Ready, and with which session; or why not.
    pub(super) fn stands(&self, connect: Key) -> Option<Result<Key, String>> {
        match self.core(|core| core.connect_state(connect)) {
            ConnectState::Waiting => None,
            ConnectState::Ready(session) => Some(Ok(session)),
            ConnectState::Failed(why) => Some(Err(why)),
        }
    }

    /// The engine's lane of a line that is one.
    pub(super) fn lane(&self, line: &Line) -> Key {
        let owner = line.state().owner as usize;
        match self.core(|core| core.owners[owner]) {
            Owner::Lane(key) => key,
            other => panic!("no lane: {other:?}"),
        }
    }

    /// The peer posts a frame.
    pub(super) fn comes(&self, line: &Line, header: Header) {
        line.wire().state().arriving.push_back((header, Vec::new()));
        let lane = self.lane(line);
        self.core(|core| core.poll_lane(lane, 64));
    }

    /// Answers a probe, if there is one, after so long.
    pub(super) fn answers_probe(&self, line: &Line, rtt: Duration) -> bool {
        let Some(probe) = line.wire().of(Kind::PROBE).pop() else { return false };
        self.later(rtt);
        self.comes(line, Header::control(Kind::PROBE_REPLY, probe.tag));
        true
    }

    /// The lane is proven by round trips of so long.
    pub(super) fn proves(&self, line: &Line, rtt: Duration) {
        let begun = std::iter::repeat_with(|| self.answers_probe(line, rtt));
        let trips = begun.take_while(|answered| *answered).count();
        assert!(trips > 0, "no probe was sent");
    }

    /// The peer listens on a lane, and sends there: its first one of the session.
    pub(super) fn carries(&self, line: &Line) {
        self.comes(line, Header { src: 0, dst: 1, ..Header::control(Kind::RESUME, 0) });
        self.comes(line, Header { dst: 1, ..Header::control(Kind::SWITCH, 0) });
    }

    /// The peer listens on a lane beside others.
    pub(super) fn listens(&self, line: &Line) {
        self.comes(line, Header { src: 1, ..Header::control(Kind::RESUME, 0) });
    }
}

impl Site {
    /// The descriptor of a listener is ready.
    pub(super) fn looks_at(&self, net: &Net) -> usize {
        let at = self.core(|core| core.domains.iter().position(|slot| slot.name == net.name()).unwrap());
        let owner =
            self.core(|core| core.owners.iter().position(|owner| *owner == Owner::Domain(at)).unwrap());
        self.happens(owner as u32)
    }

    /// A session that this engine has dialled, carried both ways; its line.
    pub(super) fn session(&self, net: &Net, peer: &Peer) -> (Key, Line) {
        let connect = self.connect(None, &[net.at("there")], Purpose::Connect);
        let line = net.line();
        peer.answers(self, &line);
        self.proves(&line, Duration::from_micros(2));
        self.carries(&line);
        let Some(Ok(session)) = self.stands(connect) else { panic!("no session") };
        self.core(|core| core.end_connect(connect));
        self.core(Core::progress);
        line.wire().take();
        (session, line)
    }

    /// A session that the peer has dialled, carried both ways; its line.
    pub(super) fn accepted(&self, net: &Net, peer: &Peer) -> (Key, Line) {
        let (line, answer) = peer.dials(self, net);
        answer.expect("it is taken in");
        self.proves(&line, Duration::from_micros(2));
        self.carries(&line);
        self.core(Core::progress);
        line.wire().take();
        let lane = self.lane(&line);
        (self.core(|core| core.lanes.get(lane).unwrap().session), line)
    }
}
