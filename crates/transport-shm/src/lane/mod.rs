//! The lane: a link's socket and two halves of shared memory.
//!
//! Called by the engine through [`Lane`]. This file is the lane's life: its calls and its end. What happens to frames is in
//! `datapath`, what the socket says in `hearing.rs`, the exchange of halves in `setup.rs`.
//!
//! # Order of events
//! Setting up (posts are full) → open → over. Over keeps the halves, so that [`Lane::recover`] can read back what the peer
//! did not take; the first error is answered from then on.

mod datapath;
mod hearing;
mod lent;
mod segments;
mod setup;

use crate::half::{CLOSED, REFUSED};
use crate::link::Peer;
use crate::note::NOTE_LEN;
use crate::registry::Registry;
use crate::segment::Fetch;
use crate::shared::sleep::HOT;
use crate::sys::socket;
use crate::transport::{CAPABILITIES, COST};
use datapath::Open;
use rustix::fd::OwnedFd;
use setup::Setup;
use sinew_base::fork::ForkGuard;
use sinew_base::guarded::GuardedFd;
use sinew_transport::{
    Buf, Crossing, Descriptor, ErrorKind, Event, Lane, LaneError, LaneInfo, LaneParams, Limits, Peek,
    PostError, Pull, Sink, Token, TransportError, Unacknowledged, View,
};
use sinew_wire::frame::Header;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A lane of the shared-memory transport.
pub(crate) struct ShmLane {
    info: LaneInfo,
    registry: Arc<Registry>,
    socket: GuardedFd,
    /// Until both halves are known.
    setup: Option<Setup>,
    /// From then on, also when the lane is over.
    open: Option<Box<Open>>,
    /// The process that it belongs to.
    fork: ForkGuard,
    /// Open and not over: the one thing that the data path looks at.
    live: bool,
    over: Option<LaneError>,
    /// The socket has ended or was given up: out of the poller.
    deaf: bool,
    note: [u8; NOTE_LEN],
    note_len: usize,
    passed: Vec<OwnedFd>,
}

impl ShmLane {
    /// A lane over a connected socket. `unsent` is what the link still owes.
    pub(crate) fn new(
        registry: Arc<Registry>,
        socket: GuardedFd,
        peer: Peer,
        unsent: Vec<u8>,
        params: LaneParams,
    ) -> Result<Self, TransportError> {
        let options = &registry.options;
        let info = LaneInfo {
            transport: "shm",
            peer: peer.describe(),
            capabilities: CAPABILITIES,
            cost: COST,
            limits: Limits { frame_max: options.frame_max, borrowed_max: options.chunk_max },
        };
        let fork = registry.fork;
        let setup = Setup::new(&registry, &peer, unsent, params.key.owner)?;
        let mut lane = Self {
            info,
            registry,
            socket,
            setup: Some(setup),
            open: None,
            fork,
            live: false,
            over: None,
            deaf: false,
            note: [0; NOTE_LEN],
            note_len: 0,
            passed: Vec::new(),
        };
        // Starts the exchange; its failures are found by the first poll.
        let _ = lane.progress_setup();
        Ok(lane)
    }

    /// Ends the lane with `error`, unless it has ended before, and answers what it ended with.
    #[cold]
    fn end(&mut self, error: LaneError) -> LaneError {
        self.live = false;
        let word = if error.kind == ErrorKind::Protocol { REFUSED } else { CLOSED };
        let first = self.over.get_or_insert(error).clone();
        if let Some(open) = &mut self.open {
            open.watch.over.store(true, Ordering::Relaxed);
            open.announce_end(word, &self.socket);
        }
        socket::finish(&self.socket);
        first
    }

    /// What a call answers when the lane is not live.
    #[cold]
    fn not_live(&self) -> PostError {
        match &self.over {
            Some(error) => PostError::Dead(error.clone()),
            None if self.registry.fork.forked() => PostError::Dead(crate::forked()),
            None => PostError::Full,
        }
    }

    #[cold]
    fn poll_slowly(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        if self.registry.fork.forked() {
            return Err(crate::forked());
        }
        self.progress_setup()?;
        if self.live { self.poll(sink, budget) } else { Ok(0) }
    }

    /// The next poll has something to report though nothing arrives: the engine must neither sleep nor leave the lane cold.
    fn poll_me(&self) {
        if let Some(open) = &self.open {
            open.watch.pending.store(true, Ordering::Relaxed);
            if open.watch.own.control().state.load(Ordering::Relaxed) != HOT {
                self.registry.hints.set(open.bit);
            }
        }
    }

    /// The refusal of a post. A lane that waits for room must be polled: nobody else would look for it.
    #[cold]
    fn refuse(&mut self, error: PostError) -> PostError {
        match error {
            PostError::Dead(error) => PostError::Dead(self.end(error)),
            PostError::Full => {
                if let Some(open) = &self.open
                    && open.watch.own.control().state.load(Ordering::Relaxed) != HOT
                {
                    self.registry.hints.set(open.bit);
                }
                PostError::Full
            }
            PostError::TooLarge => PostError::TooLarge,
        }
    }

    #[inline(never)]
    fn post_whole(&mut self, header: &Header, body: &[u8]) -> bool {
        self.try_post(header, &[IoSlice::new(body)]).is_ok()
    }

    #[inline]
    fn is_usable(&self) -> bool {
        self.live && !self.fork.forked()
    }
}

#[cold]
fn before_setup() -> LaneError {
    TransportError::new(ErrorKind::Protocol, "descriptor of the peer", "before set-up")
}

// SAFETY: borrowed posts are copied before they are taken; a fetch is dropped before `pulled`, and in `revoke` and
// `recover`; nothing is given back as borrowed.
#[allow(unsafe_code)]
unsafe impl Lane for ShmLane {
    fn info(&self) -> &LaneInfo {
        &self.info
    }

    #[inline]
    fn try_post(&mut self, header: &Header, body: &[IoSlice<'_>]) -> Result<(), PostError> {
        if !self.is_usable() {
            return Err(self.not_live());
        }
        let Some(open) = &mut self.open else { return Err(PostError::Full) };
        match open.post(header, body, self.info.limits.frame_max, &self.socket) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.refuse(error)),
        }
    }

    #[inline]
    fn post_short(&mut self, header: &Header, body: &[u8]) -> bool {
        if self.is_usable()
            && let Some(open) = &mut self.open
            && open.post_short(header, body, self.info.limits.frame_max, &self.socket)
        {
            return true;
        }
        self.post_whole(header, body)
    }

    unsafe fn try_post_borrowed(
        &mut self,
        header: &Header,
        data: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<(), PostError> {
        if !self.is_usable() {
            return Err(self.not_live());
        }
        if len > self.info.limits.borrowed_max {
            return Err(PostError::TooLarge);
        }
        let Some(open) = &mut self.open else { return Err(PostError::Full) };
        // SAFETY: readable for `len` bytes, says the caller; copied before this returns.
        match unsafe { open.post_raw(header, data.as_ptr(), len, &self.socket) } {
            Ok(()) => {
                open.released.push_back(token);
                self.poll_me();
                Ok(())
            }
            Err(error) => Err(self.refuse(error)),
        }
    }

    fn reclaim(&mut self, token: Token) {
        if let Some(open) = &mut self.open {
            open.released.retain(|&there| there != token);
        }
    }

    #[inline]
    fn flush(&mut self) -> Result<(), LaneError> {
        match (&self.over, &mut self.open) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(open)) => open.segments.tell_freed(&self.socket),
            (None, None) => Ok(()),
        }
    }

    #[inline]
    fn peek(&mut self, take: bool, looks: u32) -> Peek<'_> {
        match &mut self.open {
            Some(open) if self.live && !self.fork.forked() => open.peek(take, looks, &self.socket),
            _ => Peek::Poll,
        }
    }

    #[inline]
    fn take_peeked(&mut self) {
        if let Some(open) = &mut self.open {
            open.take_peeked(&self.socket);
        }
    }

    #[inline]
    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        if !self.is_usable() {
            return self.poll_slowly(sink, budget);
        }
        let Some(open) = &mut self.open else { return Ok(0) };
        match open.poll(sink, budget, &self.socket) {
            Ok(done) => Ok(done),
            Err(error) => Err(self.end(error)),
        }
    }

    fn handle_event(&mut self, _event: Event) {
        if self.deaf || self.open.is_none() || self.registry.fork.forked() {
            return;
        }
        if let Err(error) = self.hear() {
            self.end(error);
        }
    }

    fn unacknowledged(&self) -> u64 {
        if self.fork.forked() {
            return 0;
        }
        self.open.as_ref().map_or(0, |open| open.unacknowledged())
    }

    fn request_acknowledgement(&mut self) {
        if self.is_usable()
            && let Some(open) = &mut self.open
        {
            open.nudge(&self.socket);
        }
    }

    fn recover(&mut self) -> Vec<Unacknowledged> {
        if self.registry.fork.forked() {
            return Vec::new();
        }
        self.live = false;
        let ended = || TransportError::new(ErrorKind::Broken, "shared-memory lane", "given up by this side");
        self.over.get_or_insert_with(ended);
        if let Some(open) = &self.open {
            open.watch.over.store(true, Ordering::Relaxed);
        }
        self.open.as_mut().map_or_else(Vec::new, |open| open.recover())
    }

    unsafe fn redirect(&mut self, _from: Token, _target: NonNull<u8>, _to: Token) {}

    fn revoke(&mut self, token: Token) {
        if let Some(open) = &mut self.open {
            open.segments.revoke(token);
        }
    }

    fn cool(&mut self) -> bool {
        match &self.open {
            Some(open) if self.is_usable() => self.registry.cool(open.bit),
            _ => false,
        }
    }

    fn describe(&mut self, buf: &Buf) -> Result<Option<Descriptor>, LaneError> {
        match (&self.over, &mut self.open) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(open)) if !self.registry.fork.forked() => {
                let recalled = open.recalled();
                open.segments.describe(buf, recalled, &self.socket)
            }
            _ => Ok(None),
        }
    }

    fn describe_lent(&mut self, data: NonNull<u8>, len: usize) -> Result<Option<Descriptor>, LaneError> {
        match &self.over {
            Some(error) => Err(error.clone()),
            None => Ok(self.lend(data, len)),
        }
    }

    fn crossings(&self, whole_max: usize) -> Vec<Crossing> {
        self.explain_sizes(whole_max)
    }

    fn memory(&self) -> String {
        let Some(open) = &self.open else { return String::new() };
        let window = (open.watch.own.window_len()) >> 10;
        let segments = match self.registry.last_segment() {
            none if none.is_empty() => "none so far".to_owned(),
            got => got,
        };
        format!("window of {window} KiB: {}; segments of alloc: {segments}", open.got)
    }

    fn recall(&mut self) {
        if let Some(open) = &self.open
            && !self.registry.fork.forked()
        {
            open.recall();
        }
    }

    unsafe fn pull(
        &mut self,
        from: &Descriptor,
        target: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<Pull, LaneError> {
        if let Some(lent) = segments::lent(from) {
            // SAFETY: the same contract.
            return unsafe { self.pull_lent(from, lent, target, len, token) };
        }
        let (segment, offset, there) = self.resolve(from)?;
        let outside =
            || TransportError::new(ErrorKind::Protocol, "descriptor of the peer", "shorter than the pull");
        if len > there {
            return Err(outside());
        }
        let segment = Arc::clone(segment);
        // SAFETY: the caller's promise; ends with `Done`, `Sink::pulled` or `revoke`.
        let mut fetch = unsafe { Fetch::new(segment, offset, target, len) }.ok_or_else(outside)?;
        let Some(open) = &mut self.open else { return Err(outside()) };
        if len <= segments::AT_ONCE {
            fetch.step(len);
            return segments::check_still_there(from, &open.watch.peer).map(|()| Pull::Done);
        }
        open.segments.queue(token, from, segments::Work::Copy(fetch));
        self.poll_me();
        Ok(Pull::Pending)
    }

    fn view(&mut self, from: &Descriptor) -> Result<View, LaneError> {
        if segments::lent(from).is_some() {
            return Err(TransportError::new(ErrorKind::Unsupported, "view", "memory of the peer's process"));
        }
        self.ready_to_resolve(from)?;
        match &mut self.open {
            Some(open) => open.segments.view(from, &open.watch.peer),
            None => Err(before_setup()),
        }
    }

    #[inline]
    fn take_view(&mut self, view: View) -> Option<View> {
        match &mut self.open {
            Some(open) => open.segments.take_view(view),
            None => Some(view),
        }
    }

    fn close(&mut self) {
        self.end(TransportError::new(ErrorKind::Broken, "shared-memory lane", "closed by this side"));
    }
}

impl Drop for ShmLane {
    fn drop(&mut self) {
        if self.registry.fork.forked() {
            return;
        }
        self.close();
        if let Some(setup) = self.setup.take() {
            setup.abandon(&self.registry);
        }
        if let Some(open) = &self.open {
            self.registry.close(open.bit);
        }
        self.go_deaf();
    }
}
