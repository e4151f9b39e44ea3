//! Pairs of lanes over real sockets, a sink that records, and waiting by condition.
#![allow(dead_code, unreachable_pub)]

use sinew_transport::{
    Body, Domain, DomainContext, Lane, LaneError, LaneParams, Link, LinkState, ListenScope, Locator,
    Placement, PollKey, Poller, RECORD_LEN, Role, Sink, Token, Transport,
};
use sinew_transport_tcp::{StreamOptions, TcpOptions, TcpTransport, UdsOptions, UdsTransport};
use sinew_wire::frame::{Header, Kind};
use std::collections::HashMap;
use std::net::TcpStream;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a condition is waited for.
pub const DEADLINE: Duration = Duration::from_secs(20 * sinew_testing::SLOWNESS);
/// `peer_timeout` of lanes where nothing else is said.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
    Uds,
}

/// The families that this machine has; prints the ones left out.
pub fn families() -> Vec<Family> {
    let v6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !v6 {
        println!("SKIP family V6: no IPv6 loopback here");
    }
    [Family::V4, Family::V6, Family::Uds].into_iter().filter(|family| *family != Family::V6 || v6).collect()
}

/// A directory that is removed on drop.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("sinew-t-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn context(poller: &Arc<Poller>, listen: ListenScope, owner: u32) -> DomainContext {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut engine = [0; 16];
    engine[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    engine[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    DomainContext { engine, listen, poller: Arc::clone(poller), owner }
}

/// Two domains, one of which listens, on one poller.
pub struct Net {
    pub poller: Arc<Poller>,
    pub server: Box<dyn Domain>,
    pub client: Box<dyn Domain>,
    pub to: Locator,
    _folder: Folder,
}

impl Net {
    /// A link that is ready, whose other end is a bare socket.
    pub fn accept_socket(&mut self) -> (Box<dyn Link>, TcpStream) {
        let socket = TcpStream::connect(self.to.body()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut link = None;
        wait("the link", || {
            link = self.server.accept(11).unwrap();
            link.is_some()
        });
        let mut link = link.unwrap();
        assert_eq!(link.poll().unwrap(), LinkState::Ready);
        (link, socket)
    }

    pub fn new(family: Family, stream: StreamOptions) -> Self {
        let poller = Arc::new(Poller::new().unwrap());
        let folder = Folder::new();
        let transport: Box<dyn Transport> = match family {
            Family::Uds => {
                let mut options = UdsOptions::default();
                options.runtime_dir = Some(folder.0.clone());
                options.stream = stream;
                Box::new(UdsTransport::new(options))
            }
            _ => {
                let mut options = TcpOptions::default();
                options.stream = stream;
                Box::new(TcpTransport::new(options))
            }
        };
        let server = transport.open(context(&poller, ListenScope::ThisUser, 1)).unwrap();
        let client = transport.open(context(&poller, ListenScope::Nobody, 2)).unwrap();
        let is_wanted = |to: &Locator| match family {
            Family::V4 => to.body().starts_with("127."),
            Family::V6 => to.body().starts_with('['),
            Family::Uds => true,
        };
        let to = server.locators().into_iter().find(is_wanted).expect("a locator of the family");
        Self { poller, server, client, to, _folder: folder }
    }

    /// A connected pair of links: the dialler's, the acceptor's.
    pub fn links(&mut self) -> (Box<dyn Link>, Box<dyn Link>) {
        let mut dialled = self.client.dial(&self.to, 10).unwrap();
        let mut accepted = None;
        wait("the link to stand", || {
            if accepted.is_none() {
                accepted = self.server.accept(11).unwrap();
            }
            dialled.poll().unwrap() == LinkState::Ready && accepted.is_some()
        });
        let mut accepted = accepted.unwrap();
        wait("the accepted link to stand", || accepted.poll().unwrap() == LinkState::Ready);
        (dialled, accepted)
    }

    /// A pair of lanes, after one record in each direction.
    pub fn lanes(&mut self) -> (Box<dyn Lane>, Box<dyn Lane>) {
        self.lanes_with(PEER_TIMEOUT)
    }

    pub fn lanes_with(&mut self, peer_timeout: Duration) -> (Box<dyn Lane>, Box<dyn Lane>) {
        let (mut one, mut other) = self.links();
        exchange(&mut one, &mut other, 1);
        exchange(&mut other, &mut one, 2);
        (lane(one, Role::Dialer, 10, peer_timeout), lane(other, Role::Acceptor, 11, peer_timeout))
    }
}

pub fn lane(link: Box<dyn Link>, role: Role, owner: u32, peer_timeout: Duration) -> Box<dyn Lane> {
    link.into_lane(LaneParams { role, key: PollKey { owner, sub: 0 }, peer_timeout }).unwrap()
}

pub fn exchange(from: &mut Box<dyn Link>, to: &mut Box<dyn Link>, mark: u8) {
    let record = [mark; RECORD_LEN];
    let mut got = [0; RECORD_LEN];
    wait("a record to be sent", || from.try_send(&record).unwrap());
    wait("a record to come", || {
        from.poll().unwrap();
        to.try_recv(&mut got).unwrap()
    });
    assert_eq!(got, record);
}

/// Waits for a condition by asking again and again; panics at the deadline.
pub fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        std::thread::yield_now();
    }
}

/// What a sink does with `DATA` that has only begun to arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    Place,
    Discard,
}

/// A sink that remembers everything.
pub struct Recorder {
    pub policy: Policy,
    pub frames: Vec<(Header, Vec<u8>)>,
    pub released: Vec<Token>,
    /// Targets by the token given out.
    pub targets: HashMap<u64, Box<[u8]>>,
    /// How many placements were asked for, and how many ended.
    pub places: u64,
    pub placed: u64,
    open: Option<u64>,
    next_token: u64,
}

impl Recorder {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            frames: Vec::new(),
            released: Vec::new(),
            targets: HashMap::new(),
            places: 0,
            placed: 0,
            open: None,
            next_token: 1,
        }
    }

    /// The token of the placement under way.
    pub fn open_placement(&self) -> Option<Token> {
        self.open.map(Token)
    }
}

// SAFETY: a target stays in `targets`, untouched, until it is placed; tests that take one away revoke it first, and end the
// lane before the recorder.
#[allow(unsafe_code)]
unsafe impl Sink for Recorder {
    fn frame(&mut self, header: &Header, body: Body<'_>) {
        self.frames.push((*header, body.to_vec()));
    }

    fn place(&mut self, header: &Header, len: usize) -> Placement {
        assert!(header.kind.is_fragment());
        self.places += 1;
        if self.policy == Policy::Discard {
            self.open = Some(0);
            return Placement::Discard;
        }
        let token = self.next_token;
        self.next_token += 1;
        let target = self.targets.entry(token).or_insert(vec![0xee; len].into());
        self.open = Some(token);
        Placement::Into { target: NonNull::new(target.as_mut_ptr()).unwrap(), token: Token(token) }
    }

    fn placed(&mut self, header: &Header, len: usize) {
        let token = self.open.take().expect("placed without place");
        self.placed += 1;
        let body = self.targets.remove(&token).map_or_else(Vec::new, |target| target.to_vec());
        assert!(body.is_empty() || body.len() == len);
        self.frames.push((*header, body));
    }

    fn released(&mut self, token: Token) {
        self.released.push(token);
    }

    fn pulled(&mut self, _: Token, _: Result<(), LaneError>) {
        panic!("this lane pulls nothing");
    }
}

/// One turn of an engine: poll, timers, flush.
pub fn turn(lane: &mut Box<dyn Lane>, sink: &mut Recorder) -> Result<usize, LaneError> {
    let handled = lane.poll(sink, 64)?;
    let now = Instant::now();
    if lane.next_timer().is_some_and(|at| at <= now) {
        lane.handle_timer(now)?;
    }
    lane.flush()?;
    Ok(handled)
}

/// A lane with its sink.
pub struct End {
    pub lane: Box<dyn Lane>,
    pub sink: Recorder,
}

impl End {
    pub fn new(lane: Box<dyn Lane>) -> Self {
        Self { lane, sink: Recorder::new(Policy::Place) }
    }

    pub fn turn(&mut self) -> usize {
        turn(&mut self.lane, &mut self.sink).unwrap()
    }

    /// Takes turns until the lane is over.
    pub fn error(&mut self) -> LaneError {
        let mut error = None;
        wait("the lane to end", || {
            error = turn(&mut self.lane, &mut self.sink).err();
            error.is_some()
        });
        error.unwrap()
    }
}

/// A pair of lanes with sinks.
pub fn ends(net: &mut Net) -> (End, End) {
    let (one, other) = net.lanes();
    (End::new(one), End::new(other))
}

/// Lets the poller tell the lanes what is ready, as an engine that sleeps would.
pub fn sleep_on(poller: &Poller, ends: &mut [(u32, &mut End)], timeout: Duration) -> usize {
    let mut events = Vec::new();
    poller.wait(Some(timeout), &mut events).unwrap();
    for event in &events {
        for (owner, end) in &mut *ends {
            if event.key.owner == *owner {
                end.lane.handle_event(*event);
            }
        }
    }
    events.len()
}

/// Deterministic numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

pub fn eager(tag: u64) -> Header {
    Header { kind: Kind::EAGER, flags: Default::default(), dst: 7, src: 9, tag }
}

pub fn small_buffers() -> StreamOptions {
    let mut options = StreamOptions::default();
    options.socket_send_bytes = Some(8 << 10);
    options.socket_receive_bytes = Some(8 << 10);
    options
}
