//! Frames over a simulated connection.
#![allow(unsafe_code)]

mod arriving;
mod posted;
mod pulls;

use super::Style;
use super::memory::{Borrowed, Kept, Named, SimSegment, Target};
use crate::net::{EndId, Kind, MILLIS, Nanos, Piece, Shared, State, lock};
use crate::surroundings::{instant, nanos};
use arriving::{Arriving, Into};
use posted::Posted;
use pulls::Pulling;
use sinew_transport::{
    Backlog, Body, Buf, Descriptor, ErrorKind, Header, Lane, LaneError, LaneInfo, Peek, Peeked, PostError,
    Pull, Sink, Token, TransportError, Unacknowledged, View,
};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a lone acknowledgement waits.
const ACKNOWLEDGE_AFTER: Nanos = 5 * MILLIS;
/// Pulls of more than this take a while.
const PULL_AT_ONCE: usize = 64 << 10;

pub(super) struct SimLane {
    net: Shared,
    end: EndId,
    kind: Kind,
    style: Style,
    info: LaneInfo,
    peer_timeout: Nanos,
    posted: VecDeque<Posted>,
    bytes: usize,
    /// Bytes that were posted since the lane began.
    bytes_ever: u64,
    /// Of `posted`: how many were given to the kernel whole, and how much of the next.
    begun: usize,
    begun_bytes: usize,
    /// Frames that the peer has handed up.
    acknowledged: u64,
    released: Vec<Token>,
    told_full: bool,
    /// Something was confirmed since the last poll said so.
    has_room: bool,
    arriving: Option<Arriving>,
    /// A piece that is shown, or was put back.
    shown: Option<Arc<Piece>>,
    /// The engine has seen it.
    peeked: bool,
    handed_up: u64,
    said: u64,
    owes_since: Option<Nanos>,
    asked: bool,
    /// The peer is to be asked; frames posted in all, and how many of them the last question was about.
    wants_ask: bool,
    frames: u64,
    asked_for: u64,
    pulls: Vec<Pulling>,
    over: Option<LaneError>,
    closed: bool,
    swapped: Option<(Header, Vec<u8>)>,
}

impl SimLane {
    pub(super) fn new(
        net: Shared,
        end: EndId,
        kind: Kind,
        style: Style,
        info: LaneInfo,
        peer_timeout: Duration,
    ) -> Self {
        Self {
            net,
            end,
            kind,
            style,
            info,
            peer_timeout: crate::surroundings::length(peer_timeout),
            posted: VecDeque::new(),
            bytes: 0,
            bytes_ever: 0,
            begun: 0,
            begun_bytes: 0,
            acknowledged: 0,
            released: Vec::new(),
            told_full: false,
            has_room: false,
            arriving: None,
            shown: None,
            peeked: false,
            handed_up: 0,
            said: 0,
            owes_since: None,
            asked: false,
            wants_ask: false,
            frames: 0,
            asked_for: 0,
            pulls: Vec::new(),
            over: None,
            closed: false,
            swapped: None,
        }
    }

    fn error(&self, kind: ErrorKind, operation: &'static str) -> LaneError {
        TransportError::new(kind, operation, self.info.peer.clone())
    }

    fn check(&self, len: usize, max: usize) -> Result<(), PostError> {
        match &self.over {
            Some(error) => Err(PostError::Dead(error.clone())),
            None if len > max => Err(PostError::TooLarge),
            None => Ok(()),
        }
    }

    fn write_off(&mut self) {
        self.arriving = None;
        self.pulls.clear();
        self.shown = None;
    }
}

// SAFETY: borrowed memory is copied in calls of the engine only, and forgotten before `released`, by `reclaim` and by
// `recover`; targets are forgotten before `placed` and `pulled`, by `revoke` and by `recover`.
unsafe impl Lane for SimLane {
    fn info(&self) -> &LaneInfo {
        &self.info
    }

    fn try_post(&mut self, header: &Header, body: &[IoSlice<'_>]) -> Result<(), PostError> {
        let len = body.iter().map(|part| part.len()).sum();
        self.check(len, self.info.limits.frame_max)?;
        let kept = || Kept::Owned(body.iter().flat_map(|part| part.iter().copied()).collect());
        self.keep(header, kept, len)
    }

    unsafe fn try_post_borrowed(
        &mut self,
        header: &Header,
        data: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<(), PostError> {
        self.check(len, self.info.limits.borrowed_max_of(header.kind))?;
        // SAFETY: the caller's promise; the value becomes a copy or goes before `released`, in `reclaim`, `recover` and drop.
        let kept = || Kept::Borrowed(unsafe { Borrowed::new(data, len, token) });
        self.keep(header, kept, len)
    }

    fn reclaim(&mut self, token: Token) {
        for frame in &mut self.posted {
            if frame.kept.token() == Some(token) {
                frame.kept.own();
            }
        }
        self.released.retain(|released| *released != token);
    }

    fn flush(&mut self) -> Result<(), LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        self.push();
        Ok(())
    }

    fn is_held_up(&self) -> bool {
        self.kind != Kind::Near && self.begun < self.posted.len()
    }

    fn backlog(&self) -> Option<Backlog> {
        let queued = self.bytes as u64;
        (self.kind == Kind::Far).then(|| Backlog { arrived: self.bytes_ever - queued, queued })
    }

    fn has_more(&self) -> bool {
        self.shown.is_some()
    }

    fn peek(&mut self, take: bool, _looks: u32) -> Peek<'_> {
        if take {
            self.take_peeked();
        }
        if self.kind != Kind::Near
            || self.over.is_some()
            || self.arriving.is_some()
            || !self.released.is_empty()
        {
            return Peek::Poll;
        }
        if self.shown.is_none() {
            self.shown = lock(&self.net).take(self.end);
        }
        match self.shown.as_deref() {
            None => Peek::Nothing,
            Some(Piece::Head { header, len, bytes }) if bytes.len() == *len => {
                self.peeked = true;
                Peek::Frame(Peeked { header: *header, body: Body::from_slice(bytes) })
            }
            Some(_) => Peek::Poll,
        }
    }

    fn take_peeked(&mut self) {
        if std::mem::take(&mut self.peeked) && self.shown.take().is_some() {
            self.handed_up += 1;
            self.said = self.handed_up;
            Self::acknowledge_in(&mut lock(&self.net), self.end, self.handed_up);
        }
    }

    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        let state = {
            let mut net = lock(&self.net);
            let Some(end) = net.end(self.end) else {
                drop(net);
                let error = self.error(ErrorKind::Broken, "poll");
                self.over = Some(error.clone());
                return Err(error);
            };
            end.dirty = false;
            if self.kind == Kind::Near {
                let count = end.handed_up;
                drop(net);
                self.confirmed(count);
                net = lock(&self.net);
            }
            net.end(self.end).map_or(State::Over(ErrorKind::Broken), |end| end.state)
        };
        let mut count = self.end_pulls(sink);
        self.push();
        let mut handled = 0;
        while handled < budget.max(1) {
            let Some(piece) = self.next() else { break };
            handled += usize::from(self.handle(&piece, sink)?);
        }
        count += handled;
        for token in std::mem::take(&mut self.released) {
            sink.released(token);
            count += 1;
        }
        if self.handed_up > self.said {
            let mut net = lock(&self.net);
            let due = self.asked || self.handed_up - self.said >= self.style.acknowledge_every;
            if self.kind == Kind::Near || due {
                self.asked = false;
                self.said = self.handed_up;
                self.owes_since = None;
                Self::acknowledge_in(&mut net, self.end, self.handed_up);
            } else {
                let now = net.now;
                self.owes_since.get_or_insert(now);
            }
        } else if std::mem::take(&mut self.asked) {
            Self::acknowledge_in(&mut lock(&self.net), self.end, self.handed_up);
        }
        if std::mem::take(&mut self.has_room) && std::mem::take(&mut self.told_full) {
            count += 1;
        }
        let mut net = lock(&self.net);
        let waits = net.end(self.end).is_some_and(|end| !end.arrived.is_empty()) || self.shown.is_some();
        if waits {
            if let Some(end) = net.end(self.end) {
                end.dirty = true;
            }
        } else if let State::Over(kind) = state {
            drop(net);
            self.write_off();
            let error = self.error(kind, "poll");
            self.over = Some(error.clone());
            return Err(error);
        }
        Ok(count)
    }

    fn handle_timer(&mut self, now: Instant) -> Result<(), LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        let now = nanos(now);
        if self.owes_since.is_some_and(|since| since + ACKNOWLEDGE_AFTER <= now) {
            self.owes_since = None;
            self.said = self.handed_up;
            Self::acknowledge_in(&mut lock(&self.net), self.end, self.handed_up);
        }
        let owed = lock(&self.net).end(self.end).and_then(|end| end.owed_since);
        if self.kind == Kind::Far && owed.is_some_and(|since| since + self.peer_timeout <= now) {
            self.write_off();
            let error = self.error(ErrorKind::TimedOut, "wait for");
            self.over = Some(error.clone());
            return Err(error);
        }
        Ok(())
    }

    fn next_timer(&self) -> Option<Instant> {
        if self.over.is_some() {
            return None;
        }
        let owed = lock(&self.net).end(self.end).and_then(|end| end.owed_since);
        let silence = owed.filter(|_| self.kind == Kind::Far).map(|since| since + self.peer_timeout);
        let acknowledge = self.owes_since.map(|since| since + ACKNOWLEDGE_AFTER);
        let pull = self.pulls.iter().map(|pull| pull.due).min();
        silence.into_iter().chain(acknowledge).chain(pull).min().map(instant)
    }

    fn unacknowledged(&self) -> u64 {
        let known = if self.kind == Kind::Near {
            lock(&self.net).end(self.end).map_or(0, |end| end.handed_up.saturating_sub(self.acknowledged))
        } else {
            0
        };
        (self.posted.len() as u64).saturating_sub(known)
    }

    fn request_acknowledgement(&mut self) {
        // One question is enough for what is out now: the answer comes in its turn.
        if self.kind != Kind::Near && !self.posted.is_empty() && self.asked_for != self.frames {
            self.asked_for = self.frames;
            self.wants_ask = true;
        }
    }

    fn acknowledge(&mut self) {
        self.asked |= self.handed_up > self.said;
    }

    fn recover(&mut self) -> Vec<Unacknowledged> {
        self.write_off();
        if self.over.is_none() {
            self.over = Some(self.error(ErrorKind::Broken, "recover"));
        }
        if self.kind == Kind::Near {
            let count = lock(&self.net).end(self.end).map_or(0, |end| end.handed_up);
            self.confirmed(count);
        }
        self.released.clear();
        self.begun = 0;
        let posted = std::mem::take(&mut self.posted);
        lock(&self.net).reset(self.end);
        posted.into_iter().map(|frame| frame.kept.give_back(frame.header)).collect()
    }

    unsafe fn redirect(&mut self, from: Token, target: NonNull<u8>, to: Token) {
        if let Some(Arriving { into: Into::Placed(old), done, .. }) = &mut self.arriving
            && old.token == from
        {
            // SAFETY: as long as the old one, says the caller, and writable until `placed` or `revoke`, which drop it.
            *old = unsafe { old.moved(target, to, *done) };
        }
    }

    fn revoke(&mut self, token: Token) {
        if let Some(arriving) = &mut self.arriving
            && matches!(arriving.into, Into::Placed(target) if target.token == token)
        {
            arriving.into = Into::Nowhere;
        }
        self.pulls.retain(|pull| pull.target.token != token);
    }

    fn cool(&mut self) -> bool {
        let mut net = lock(&self.net);
        let Some(end) = net.end(self.end) else { return false };
        if end.dirty || self.over.is_some() || self.kind != Kind::Near {
            return false;
        }
        end.cooled = true;
        true
    }

    fn describe(&mut self, buf: &Buf) -> Result<Option<Descriptor>, LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        let Some((segment, offset)) = buf.segment().filter(|_| self.kind == Kind::Near) else {
            return Ok(None);
        };
        let Some(segment) = segment.as_any().downcast_ref::<SimSegment>() else { return Ok(None) };
        let recalled = lock(&self.net).end(self.end).map_or(0, |end| end.recalled);
        Ok(Some(segment.describe(offset, buf.len(), recalled)))
    }

    fn recall(&mut self) {
        if let Some(end) = lock(&self.net).end(self.end) {
            end.recalled += 1;
        }
    }

    unsafe fn pull(
        &mut self,
        from: &Descriptor,
        target: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<Pull, LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        let Some(named) = Named::find(from) else {
            return Err(self.error(ErrorKind::Protocol, "pull").hint("nothing is there"));
        };
        // SAFETY: the caller's promise; it is dropped when the pull is told, and by `revoke`.
        let target = unsafe { Target::new(target, token) };
        let mut net = lock(&self.net);
        if len > PULL_AT_ONCE || net.random.chance(300) {
            let due = net.now + net.random.below(2 * MILLIS);
            self.pulls.push(Pulling { from: named, target, len, due });
            return Ok(Pull::Pending);
        }
        drop(net);
        self.finish_pull(&named, target, len).map(|()| Pull::Done)
    }

    fn view(&mut self, from: &Descriptor) -> Result<View, LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        match Named::find(from) {
            Some(named) => Ok(named.view()),
            None => Err(self.error(ErrorKind::Protocol, "view").hint("nothing is there")),
        }
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        // What was posted goes out whatever the kernel's room.
        let mut net = lock(&self.net);
        if self.over.is_none() && self.handed_up > self.said {
            Self::acknowledge_in(&mut net, self.end, self.handed_up);
        }
        for at in self.begun..self.posted.len() {
            let frame = &self.posted[at];
            let from = if at == self.begun { self.begun_bytes } else { 0 };
            let bytes = frame.kept.part(from, frame.kept.len() - from);
            let piece = match from {
                0 => Piece::Head { header: frame.header, len: frame.kept.len(), bytes },
                _ => Piece::More(bytes),
            };
            net.put(self.end, piece);
        }
        net.put(self.end, Piece::Fin);
        net.leave(self.end);
        drop(net);
        for frame in &mut self.posted {
            frame.kept.own();
        }
        self.begun = self.posted.len();
        self.over.get_or_insert_with(|| {
            TransportError::new(ErrorKind::Broken, "use", self.info.peer.clone())
                .hint("this side closed the lane")
        });
    }
}

impl Drop for SimLane {
    fn drop(&mut self) {
        let abrupt = {
            let mut net = lock(&self.net);
            self.kind == Kind::Near || net.random.chance(500)
        };
        if abrupt && !self.closed {
            lock(&self.net).reset(self.end);
        } else {
            self.close();
        }
    }
}
