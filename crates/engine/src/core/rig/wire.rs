//! A lane whose other end a test holds: what it was told, and what it is to do.
#![allow(unsafe_code)]

use crate::core::table::Key;
use sinew_transport::buf::Pool;
use sinew_transport::{
    Backlog, Body, Buf, Crossing, Descriptor, ErrorKind, Event, Lane, LaneError, LaneInfo, Peek, Peeked,
    Placement, PostError, Pull, Segment, Sink, Token, Unacknowledged, UnacknowledgedBody, View,
};
use sinew_wire::frame::{Header, Kind};
use std::any::Any;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    /// Fragments go straight into place, or are read aside.
    pub(crate) places_parts: bool,
    /// There is no room.
    pub(crate) full: bool,
    /// Nothing can be posted or flushed any more.
    pub(crate) dead: bool,
    /// How often it was polled.
    pub(crate) polls: u32,
    /// How often what was held back was sent, and what has come acknowledged.
    pub(crate) flushed: u32,
    pub(crate) acknowledged: u32,
    /// The lane is over for this reason.
    pub(crate) over: Option<ErrorKind>,
    /// How often the peer was asked what it has.
    pub(crate) asked: u32,
    /// Memory that the lane lets go of at its next poll.
    pub(crate) released: Vec<Token>,
    pub(crate) revoked: Vec<Token>,
    /// Memory that a sender has back.
    pub(crate) reclaimed: Vec<Token>,
    /// How often what was described was taken back.
    pub(crate) recalled: u32,
    /// Messages under way whose memory was changed: from whom, to whom.
    pub(crate) redirected: Vec<(Token, Token)>,
    /// It knows its queue, which is all that was posted.
    pub(crate) counts: bool,
    /// Bytes that have arrived at the other end.
    pub(crate) arrived: u64,
    /// Bytes that wait beside what was posted.
    pub(crate) queued: u64,
    /// When it wants to be looked at, and when it was, and what comes of that.
    pub(crate) timer: Option<Instant>,
    pub(crate) timed: Vec<Instant>,
    pub(crate) timed_out: bool,
    /// What happened on its descriptor.
    pub(crate) events: u32,
    /// What there is to know of it.
    pub(crate) remark: String,
    pub(crate) memory: String,
    pub(crate) crossings: Vec<Crossing>,
    /// The next frame is shown where it lies.
    pub(crate) peeks: bool,
    /// What arrives is with the system, and reads bring it: a frame each.
    pub(crate) reads: bool,
    /// What they bring only a poll can tell.
    pub(crate) reads_for_polls: bool,
    /// How often the system was asked.
    pub(crate) asked_system: u32,
    /// Flushes find that the lane is over.
    pub(crate) flush_fails: bool,
    /// What a pull answers; it brings sevens.
    pub(crate) pulls: Option<Pull>,
    /// Pulls so far: for whom, and how many bytes.
    pub(crate) pulled: Vec<(Token, usize)>,
    /// Pulls that end with the next poll, and whether well.
    pub(crate) pull_ends: Vec<(Token, bool)>,
    /// What lies in the engine's pool can be described.
    pub(crate) describes: bool,
    /// So can memory of this process.
    pub(crate) lends: bool,
    /// What a view shows.
    pub(crate) views: Option<Arc<Vec<u8>>>,
    pub(crate) closed: bool,
    /// What was posted waits for the peer to read.
    pub(crate) held_up: bool,
    /// It is polled no more until something comes.
    pub(crate) cooled: bool,
}

/// The other end of a lane.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<State>>);

impl Wire {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A test that fails still ends its engine.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

pub(super) struct WireLane {
    info: LaneInfo,
    wire: Wire,
    /// The frame that is being shown.
    shown: Option<(Header, Vec<u8>)>,
}

impl WireLane {
    pub(super) fn new(info: LaneInfo, wire: Wire) -> Self {
        Self { info, wire, shown: None }
    }
}

// SAFETY: it copies what it is lent during the call, and writes to a target before it tells that it has.
unsafe impl Lane for WireLane {
    fn info(&self) -> &LaneInfo {
        &self.info
    }

    fn try_post(&mut self, header: &Header, body: &[IoSlice<'_>]) -> Result<(), PostError> {
        let mut state = self.wire.state();
        if state.dead {
            return Err(PostError::Dead(LaneError::new(ErrorKind::Broken, "post", "")));
        }
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

    fn reclaim(&mut self, token: Token) {
        self.wire.state().reclaimed.push(token);
    }

    fn recall(&mut self) {
        self.wire.state().recalled += 1;
    }

    fn peek(&mut self, take: bool, _looks: u32) -> Peek<'_> {
        if take {
            self.shown = None;
        }
        let mut state = self.wire.state();
        if !state.peeks {
            return Peek::Poll;
        }
        if self.shown.is_none() {
            self.shown = state.arriving.pop_front();
        }
        match &self.shown {
            Some((header, bytes)) => Peek::Frame(Peeked { header: *header, body: Body::from_slice(bytes) }),
            None => Peek::Nothing,
        }
    }

    fn read(&mut self, take: bool, looks: u32) -> Peek<'_> {
        if !self.wire.state().reads {
            return self.peek(take, looks);
        }
        if take {
            self.shown = None;
        }
        let mut state = self.wire.state();
        if self.shown.is_none() {
            state.asked_system += looks;
            self.shown = state.arriving.pop_front();
        }
        match &self.shown {
            Some(_) if state.reads_for_polls => Peek::Poll,
            Some((header, bytes)) => Peek::Frame(Peeked { header: *header, body: Body::from_slice(bytes) }),
            None => Peek::Nothing,
        }
    }

    fn take_peeked(&mut self) {
        self.shown = None;
    }

    unsafe fn pull(
        &mut self,
        _from: &Descriptor,
        target: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<Pull, LaneError> {
        let mut state = self.wire.state();
        state.pulled.push((token, len));
        let Some(pull) = state.pulls.clone() else {
            return Err(LaneError::new(ErrorKind::Unsupported, "pull", ""));
        };
        if pull != Pull::Declined {
            // SAFETY: writable for that many bytes until this returns, says the contract.
            unsafe { target.as_ptr().write_bytes(7, len) };
        }
        Ok(pull)
    }

    fn describe(&mut self, _buf: &Buf) -> Result<Option<Descriptor>, LaneError> {
        Ok(self.wire.state().describes.then_some(Descriptor([1; 24])))
    }

    fn describe_lent(&mut self, _data: NonNull<u8>, _len: usize) -> Result<Option<Descriptor>, LaneError> {
        Ok(self.wire.state().lends.then_some(Descriptor([2; 24])))
    }

    fn view(&mut self, _from: &Descriptor) -> Result<View, LaneError> {
        let Some(bytes) = self.wire.state().views.clone() else {
            return Err(LaneError::new(ErrorKind::Unsupported, "view", ""));
        };
        let data = NonNull::from(&bytes[..]).cast();
        // SAFETY: readable while the view keeps them, and never written.
        Ok(unsafe { View::new(data, bytes.len(), bytes) })
    }

    fn flush(&mut self) -> Result<(), LaneError> {
        let mut state = self.wire.state();
        state.flushed += 1;
        let fails = state.dead || state.flush_fails;
        if fails { Err(LaneError::new(ErrorKind::Broken, "flush", "")) } else { Ok(()) }
    }

    fn acknowledge(&mut self) {
        self.wire.state().acknowledged += 1;
    }

    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        self.wire.state().polls += 1;
        let mut done = 0;
        while done < budget {
            let next = self.shown.take().or_else(|| self.wire.state().arriving.pop_front());
            let Some((header, bytes)) = next else { break };
            let places = self.wire.state().places && header.kind == Kind::EAGER;
            if let Some((target, _)) = places.then(|| sink.place_message(&header, bytes.len())).flatten() {
                // SAFETY: writable for that many bytes until `placed`, which is told at once.
                unsafe { target.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
                sink.placed(&header, bytes.len());
            } else if self.wire.state().places_parts && header.kind.is_fragment() {
                if let Placement::Into { target, .. } = sink.place(&header, bytes.len()) {
                    // SAFETY: as above.
                    unsafe { target.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
                }
                sink.placed(&header, bytes.len());
            } else {
                sink.frame(&header, Body::from_slice(&bytes));
            }
            done += 1;
        }
        let released = std::mem::take(&mut self.wire.state().released);
        done += released.len();
        released.into_iter().for_each(|token| sink.released(token));
        let ended = std::mem::take(&mut self.wire.state().pull_ends);
        done += ended.len();
        for (token, well) in ended {
            let broken = || LaneError::new(ErrorKind::Broken, "pull", "");
            sink.pulled(token, if well { Ok(()) } else { Err(broken()) });
        }
        match self.wire.state().over {
            Some(kind) if done == 0 => Err(LaneError::new(kind, "poll", "")),
            _ => Ok(done),
        }
    }

    fn handle_event(&mut self, _event: Event) {
        self.wire.state().events += 1;
    }

    fn next_timer(&self) -> Option<Instant> {
        self.wire.state().timer
    }

    fn handle_timer(&mut self, now: Instant) -> Result<(), LaneError> {
        let mut state = self.wire.state();
        state.timed.push(now);
        if state.timed_out { Err(LaneError::new(ErrorKind::TimedOut, "timer", "")) } else { Ok(()) }
    }

    fn remark(&self) -> String {
        self.wire.state().remark.clone()
    }

    fn memory(&self) -> String {
        self.wire.state().memory.clone()
    }

    fn crossings(&self, _whole_max: usize) -> Vec<Crossing> {
        self.wire.state().crossings.clone()
    }

    fn is_held_up(&self) -> bool {
        self.wire.state().held_up
    }

    fn backlog(&self) -> Option<Backlog> {
        let state = self.wire.state();
        let queued: u64 = state.posted.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        state.counts.then_some(Backlog { arrived: state.arrived, queued: queued + state.queued })
    }

    fn has_more(&self) -> bool {
        let state = self.wire.state();
        self.shown.is_some() || (!state.reads && !state.arriving.is_empty())
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

    unsafe fn redirect(&mut self, from: Token, _target: NonNull<u8>, to: Token) {
        self.wire.state().redirected.push((from, to));
    }

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

/// Memory of a pool that one peer may be shown.
struct ShownTo(u64);

impl Pool for ShownTo {
    fn release(&self, _segment: &Arc<dyn Segment>, _offset: usize, _capacity: usize) {}

    fn may_be_shown(&self, peer: u64) -> bool {
        peer == self.0
    }
}

struct Bytes(Vec<AtomicU8>);

// SAFETY: the bytes are where they are until the segment is dropped, and may be written through shared references, as they are
// atomic; nobody has them but who has the segment.
unsafe impl Segment for Bytes {
    fn data(&self) -> NonNull<u8> {
        NonNull::from(&self.0[..]).cast()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_shown(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Memory that nobody else has.
pub(super) fn segment(len: usize) -> Box<dyn Segment> {
    Box::new(Bytes(std::iter::repeat_with(AtomicU8::default).take(len).collect()))
}

/// A buffer that the peer of a session may be shown.
pub(super) fn pooled(session: Key, len: usize) -> Buf {
    let segment = segment(len).into();
    // SAFETY: all of a segment that nobody else has; it begins with zeros.
    let mut buf = unsafe { Buf::from_pool(Arc::new(ShownTo(session.0)), segment, 0, len) };
    buf.set_len(len);
    buf
}
