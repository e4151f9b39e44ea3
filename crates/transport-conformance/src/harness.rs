//! Two engines in miniature: each [`Side`] has a poller, a domain and a lane, and records what its lane hands up.
#![allow(unsafe_code)]

use crate::Fixture;
use sinew_transport::{
    Body, Domain, DomainContext, Event, Lane, LaneError, LaneParams, Link, LinkState, ListenScope, Placement,
    PollKey, Poller, PostError, RECORD_LEN, Role, Sink, Token, UnacknowledgedBody,
};
use sinew_wire::frame::{Flags, Header, Kind};
use std::collections::HashMap;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Nothing here takes nearly as long unless it is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30 * sinew_testing::SLOWNESS);

/// The `owner` of a side's domain in poll keys.
const DOMAIN: u32 = 1;
/// The `owner` of a side's first link and lane.
pub(crate) const LANE: u32 = 2;

/// A generator of test data: good enough to be different everywhere, the same on every run.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Next 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }

    /// A header of a message; the tag is `tag`.
    pub fn header(&mut self, tag: u64) -> Header {
        let flags = Flags(self.next() as u8 & 0x0f);
        Header { kind: Kind::EAGER, flags, dst: self.next() as u32, src: self.next() as u32, tag }
    }
}

/// The header of a borrowed frame number `tag`: only `DATA` may be larger than `frame_max`.
pub(crate) fn borrowed_header(tag: u64, len: usize, frame_max: usize) -> Header {
    if len > frame_max { Header::data(tag, tag * 1_000_003) } else { Random(tag).header(tag) }
}

/// One frame as a sink has had it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Got {
    /// Its header.
    pub header: Header,
    /// Its body; `None` when the sink had it discarded.
    pub body: Option<Vec<u8>>,
}

/// Memory that a lane writes by pointer while nobody else looks.
pub(crate) struct Target(NonNull<[u8]>);

// SAFETY: owned memory, like a `Box<[u8]>`.
unsafe impl Send for Target {}

impl Target {
    pub(crate) fn filled(len: usize, byte: u8) -> Self {
        Self(NonNull::from(Box::leak(vec![byte; len].into_boxed_slice())))
    }

    pub(crate) fn data(&self) -> NonNull<u8> {
        self.0.cast()
    }

    /// A copy of what is there. The lane must not write meanwhile: same thread, or told to be done.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        // SAFETY: initialised and owned; nobody writes now.
        unsafe { self.0.as_ref() }.to_vec()
    }

    pub(crate) fn fill(&mut self, byte: u8) {
        // SAFETY: as above.
        unsafe { self.0.as_mut() }.fill(byte);
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // SAFETY: leaked in `filled`, freed once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// What a side's lane handed up.
#[derive(Default)]
pub struct Recorder {
    /// Frames, oldest first.
    pub got: Vec<Got>,
    /// Released posts, in order.
    pub released: Vec<Token>,
    /// Ended pulls.
    pub pulled: Vec<(Token, Result<(), LaneError>)>,
    /// Bodies that the lane asked a place for.
    pub places: usize,
    /// Read `DATA` bodies aside.
    pub discard: bool,
    pub(crate) placing: HashMap<u64, (Token, Target)>,
}

// SAFETY: a target stays in `placing`, untouched, until it is placed or a check has revoked it; a side drops its lane before
// its recorder.
unsafe impl Sink for Recorder {
    fn frame(&mut self, header: &Header, body: Body<'_>) {
        self.got.push(Got { header: *header, body: Some(body.to_vec()) });
    }

    fn place(&mut self, header: &Header, len: usize) -> Placement {
        assert!(header.kind.is_fragment(), "only fragments are placed");
        self.places += 1;
        if self.discard {
            return Placement::Discard;
        }
        let token = Token(0x0123_0000 + self.places as u64);
        let target = Target::filled(len, 0xee);
        let data = target.data();
        let before = self.placing.insert(header.tag, (token, target));
        assert!(before.is_none(), "a body of tag {} is being placed already", header.tag);
        Placement::Into { target: data, token }
    }

    fn placed(&mut self, header: &Header, len: usize) {
        let body = self.placing.remove(&header.tag).map(|(_, target)| target.to_vec());
        assert!(body.as_ref().is_none_or(|body| body.len() == len), "placed length");
        self.got.push(Got { header: *header, body });
    }

    fn released(&mut self, token: Token) {
        self.released.push(token);
    }

    fn pulled(&mut self, token: Token, result: Result<(), LaneError>) {
        self.pulled.push((token, result));
    }
}

/// One engine's share.
pub struct Side {
    pub(crate) poller: Arc<Poller>,
    pub(crate) domain: Box<dyn Domain>,
    pub(crate) lane: Option<Box<dyn Lane>>,
    pub(crate) owner: u32,
    /// What came.
    pub seen: Recorder,
    /// Why the lane is over.
    pub over: Option<LaneError>,
}

impl Side {
    pub(crate) fn open(fixture: &Fixture, listen: ListenScope) -> Self {
        static ENGINES: AtomicU64 = AtomicU64::new(1);
        let mut engine = [0; 16];
        engine[..8].copy_from_slice(&ENGINES.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        engine[8..12].copy_from_slice(&std::process::id().to_le_bytes());
        let poller = Arc::new(Poller::new().expect("epoll"));
        let context = DomainContext { engine, listen, poller: poller.clone(), owner: DOMAIN };
        let domain = fixture.transport.open(context).unwrap_or_else(|error| panic!("open: {error}"));
        Self { poller, domain, lane: None, owner: LANE, seen: Recorder::default(), over: None }
    }

    pub(crate) fn lane(&mut self) -> &mut dyn Lane {
        self.lane.as_mut().expect("the side has a lane").as_mut()
    }

    /// Waits for readiness up to `timeout` and passes events on.
    pub(crate) fn events(&mut self, timeout: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        self.poller.wait(Some(timeout), &mut events).expect("epoll_wait");
        for &event in &events {
            if event.key.owner == DOMAIN {
                self.domain.handle_event(event);
            } else if event.key.owner == self.owner
                && let Some(lane) = &mut self.lane
            {
                lane.handle_event(event);
            }
        }
        events
    }

    /// One turn of progress without waiting; the end of the lane is noted in `over`.
    pub(crate) fn turn(&mut self, budget: usize) -> usize {
        self.events(Duration::ZERO);
        self.progress(budget)
    }

    /// A turn without a look at descriptors.
    pub(crate) fn progress(&mut self, budget: usize) -> usize {
        let Some(lane) = &mut self.lane else { return 0 };
        if self.over.is_some() {
            return 0;
        }
        let now = Instant::now();
        let due = lane.next_timer().is_some_and(|at| at <= now);
        let timer = if due { lane.handle_timer(now) } else { Ok(()) };
        let flushed = timer.and_then(|()| lane.flush());
        // Polled also when flushing failed: what arrived before the end is still there.
        match lane.poll(&mut self.seen, budget) {
            Ok(count) => {
                self.over = flushed.err();
                count
            }
            Err(error) => {
                self.over = Some(error);
                0
            }
        }
    }

    /// Posts a copied frame; `false` when the lane is full.
    pub(crate) fn post(&mut self, header: &Header, body: &[u8]) -> bool {
        match self.lane().try_post(header, &[IoSlice::new(body)]) {
            Ok(()) => true,
            Err(PostError::Full) => false,
            Err(error) => panic!("post of {} bytes: {error:?}", body.len()),
        }
    }

    /// Posts memory that the caller keeps alive and unchanged as the contract demands.
    pub(crate) fn try_post_borrowed(
        &mut self,
        header: &Header,
        body: &Target,
        token: Token,
    ) -> Result<(), PostError> {
        // SAFETY: every check keeps `body` alive and unwritten until `released`, `reclaim`, `recover` or drop of the lane.
        unsafe { self.lane().try_post_borrowed(header, body.data(), body.0.len(), token) }
    }

    /// As above; `false` when the lane is full.
    pub(crate) fn post_borrowed(&mut self, header: &Header, body: &Target, token: Token) -> bool {
        match self.try_post_borrowed(header, body, token) {
            Ok(()) => true,
            Err(PostError::Full) => false,
            Err(error) => panic!("borrowed post of {} bytes: {error:?}", body.0.len()),
        }
    }

    /// Ends the lane without a word, as the death of its process would.
    pub(crate) fn die(&mut self) {
        self.lane = None;
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Before the places that it may write.
        self.lane = None;
    }
}

/// Two sides with a lane between them.
pub struct Pair {
    /// The side that dialled.
    pub a: Side,
    /// The side that accepted.
    pub b: Side,
}

impl Pair {
    /// Opens, dials, accepts, exchanges a record each way, and makes lanes of the links.
    ///
    /// # Panics
    /// When any of it fails.
    #[must_use]
    pub fn new(fixture: &Fixture) -> Self {
        Self::with_timeout(fixture, Duration::from_secs(20))
    }

    /// As [`Pair::new`], with a `peer_timeout`.
    pub(crate) fn with_timeout(fixture: &Fixture, peer_timeout: Duration) -> Self {
        let mut a = Side::open(fixture, ListenScope::Nobody);
        let mut b = Side::open(fixture, ListenScope::ThisUser);
        let (mut dialled, mut accepted) = connect(&mut a, &mut b, LANE);
        greet(&mut a, &mut *dialled, &mut b, &mut *accepted);
        a.lane = Some(into_lane(dialled, Role::Dialer, LANE, peer_timeout));
        b.lane = Some(into_lane(accepted, Role::Acceptor, LANE, peer_timeout));
        Self { a, b }
    }

    /// A frame passes and is forgotten: both lanes stand, nothing is outstanding.
    pub(crate) fn stand(&mut self) {
        self.send(&Header::control(Kind::PROBE, 0), b"hello");
        self.drive("a first frame arrived", |_, b| !b.seen.got.is_empty());
        self.a.lane().request_acknowledgement();
        self.drive("and is acknowledged", |a, _| a.lane().unacknowledged() == 0);
        self.b.seen.got.clear();
    }

    /// Turns both sides until `done`, or panics with `what` at the deadline.
    pub(crate) fn drive(&mut self, what: &str, mut done: impl FnMut(&mut Side, &mut Side) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        let mut idle = 0;
        while !done(&mut self.a, &mut self.b) {
            let moved = self.a.turn(64) + self.b.turn(64);
            idle = if moved > 0 { 0 } else { idle + 1 };
            if idle > 50 {
                std::thread::sleep(Duration::from_micros(50));
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}; got {} and {} frames, {} unacknowledged; over: {:?} / {:?}",
                self.a.seen.got.len(),
                self.b.seen.got.len(),
                self.a.lane.as_ref().map_or(0, |lane| lane.unacknowledged()),
                self.a.over,
                self.b.over
            );
        }
    }

    /// Posts from `a`, turning both sides while it is full.
    pub(crate) fn send(&mut self, header: &Header, body: &[u8]) {
        self.drive("the lane has room", |a, _| a.post(header, body));
    }

    /// Posts from `a`, turning only `a`: nothing of `b` is polled.
    pub(crate) fn send_only(&mut self, header: &Header, body: &[u8]) {
        let deadline = Instant::now() + DEADLINE;
        while !self.a.post(header, body) {
            self.a.turn(8);
            assert!(Instant::now() < deadline, "the lane never has room");
        }
    }

    /// As [`Pair::send`], borrowed.
    pub(crate) fn send_borrowed(&mut self, header: &Header, body: &Target, token: Token) {
        self.drive("the lane has room", |a, _| a.post_borrowed(header, body, token));
    }
}

/// Dials `b`'s first locator from `a` and accepts it; both links are ready.
pub(crate) fn connect(a: &mut Side, b: &mut Side, owner: u32) -> (Box<dyn Link>, Box<dyn Link>) {
    let locator = b.domain.locators().into_iter().next().expect("a listening domain has a locator");
    let mut dialled =
        a.domain.dial(&locator, owner).unwrap_or_else(|error| panic!("dial {locator}: {error}"));
    let mut accepted: Option<Box<dyn Link>> = None;
    let deadline = Instant::now() + DEADLINE;
    loop {
        a.events(Duration::ZERO);
        b.events(Duration::ZERO);
        if accepted.is_none() {
            accepted = b.domain.accept(owner).unwrap_or_else(|error| panic!("accept: {error}"));
        }
        let ready = dialled.poll().unwrap_or_else(|error| panic!("dialled link: {error}"));
        if let Some(link) = &mut accepted {
            let other = link.poll().unwrap_or_else(|error| panic!("accepted link: {error}"));
            if (ready, other) == (LinkState::Ready, LinkState::Ready)
                && let Some(link) = accepted.take()
            {
                // Accepting until there is nobody is what ends the domain's readiness.
                assert!(
                    b.domain.accept(owner).expect("nothing is no error").is_none(),
                    "one dial, two links"
                );
                return (dialled, link);
            }
        }
        assert!(Instant::now() < deadline, "no connection to {locator}");
        std::thread::yield_now();
    }
}

/// One record each way, so that both know of each other.
fn greet(a: &mut Side, dialled: &mut dyn Link, b: &mut Side, accepted: &mut dyn Link) {
    exchange(a, dialled, b, accepted, &[[7; RECORD_LEN]]);
    exchange(b, accepted, a, dialled, &[[9; RECORD_LEN]]);
}

/// Sends `records` from `from` to `to` and checks that they arrive.
pub(crate) fn exchange(
    from_side: &mut Side,
    from: &mut dyn Link,
    to_side: &mut Side,
    to: &mut dyn Link,
    records: &[[u8; RECORD_LEN]],
) {
    let (mut sent, mut received) = (0, 0);
    let deadline = Instant::now() + DEADLINE;
    while received < records.len() {
        from_side.events(Duration::ZERO);
        to_side.events(Duration::ZERO);
        from.poll().unwrap_or_else(|error| panic!("link: {error}"));
        to.poll().unwrap_or_else(|error| panic!("link: {error}"));
        if sent < records.len() && from.try_send(&records[sent]).expect("the link lives") {
            sent += 1;
        }
        let mut record = [0; RECORD_LEN];
        if to.try_recv(&mut record).expect("the link lives") {
            assert!(record == records[received], "record {received} arrived changed or out of order");
            received += 1;
        }
        assert!(Instant::now() < deadline, "{sent} of {} records sent, {received} received", records.len());
    }
}

/// The bytes of a recovered frame.
pub(crate) fn copy_of(body: UnacknowledgedBody) -> Vec<u8> {
    match body {
        UnacknowledgedBody::Owned(bytes) => bytes,
        UnacknowledgedBody::Borrowed { data, len, .. } => {
            // SAFETY: as posted; every check keeps what it posted until the lane is gone.
            unsafe { std::slice::from_raw_parts(data, len) }.to_vec()
        }
    }
}

pub(crate) fn into_lane(
    link: Box<dyn Link>,
    role: Role,
    owner: u32,
    peer_timeout: Duration,
) -> Box<dyn Lane> {
    let params = LaneParams { role, key: PollKey { owner, sub: 0 }, peer_timeout };
    link.into_lane(params).unwrap_or_else(|error| panic!("into_lane: {error}"))
}
