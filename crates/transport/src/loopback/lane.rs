//! One end of a loopback connection as a [`Lane`].
#![allow(unsafe_code)]

use super::SCHEME;
use super::flow::{Borrowed, Connection, Flow, Queued, QueuedBody, Side};
use crate::{
    Capabilities, Cost, ErrorKind, Lane, LaneError, LaneInfo, Limits, Placement, PostError, Sink, Token,
    TransportError, Unacknowledged,
};
use sinew_wire::frame::Header;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::Arc;

pub(super) const CAPABILITIES: Capabilities =
    Capabilities { pull: false, view: false, memory_polled: true, local: true, death_detected: true };
pub(super) const COST: Cost = Cost { latency_ns: 200, per_byte_ps: 60, overhead_ns: 150 };

const FRAME_MAX: usize = 64 << 10;
const BORROWED_MAX: usize = 1 << 20;
/// What may be under way in one direction; one frame always may.
const FRAMES_MAX: usize = 256;
const BYTES_MAX: usize = 4 << 20;
/// Bodies of fragments above this are placed, and so many of their bytes move in one poll.
const WHOLE_MAX: usize = 4 << 10;
const PIECE: usize = 32 << 10;

pub(super) struct LoopbackLane {
    connection: Arc<Connection>,
    side: Side,
    info: LaneInfo,
    placing: Option<Placing>,
    dead: Option<LaneError>,
    closed: bool,
    /// Kept for its memory.
    batch: Vec<Queued>,
}

/// The frame at the head of the incoming queue, begun.
struct Placing {
    header: Header,
    placement: Placement,
    len: usize,
    done: usize,
}

// SAFETY: the raw pointer in a placement is writable from the polling thread, whichever it is, by the contract of `place`.
unsafe impl Send for Placing {}

impl LoopbackLane {
    pub(super) fn new(connection: Arc<Connection>, side: Side, peer: String) -> Self {
        let limits = Limits { frame_max: FRAME_MAX, borrowed_max: BORROWED_MAX };
        let info = LaneInfo { transport: SCHEME, peer, capabilities: CAPABILITIES, cost: COST, limits };
        Self { connection, side, info, placing: None, dead: None, closed: false, batch: Vec::new() }
    }

    fn broken(&self, operation: &'static str) -> LaneError {
        TransportError::new(ErrorKind::Broken, operation, self.info.peer.clone())
    }

    fn post(&mut self, queued: impl FnOnce() -> Queued, len: usize) -> Result<(), PostError> {
        if let Some(error) = &self.dead {
            return Err(PostError::Dead(error.clone()));
        }
        {
            let mut flow = self.connection.outgoing(self.side);
            if self.closed || flow.receiver_left {
                drop(flow);
                return Err(PostError::Dead(self.broken("post")));
            }
            let room = flow.frames.len() < FRAMES_MAX && flow.bytes + len <= BYTES_MAX;
            if !room && !flow.frames.is_empty() {
                flow.wants_room = true;
                return Err(PostError::Full);
            }
            flow.frames.push_back(queued());
            flow.bytes += len;
            flow.posted += 1;
        }
        self.connection.notice(self.side.other()).tell();
        Ok(())
    }

    /// Hands up what the peer has taken of this end's posts, and counts room that was asked for.
    fn poll_outgoing(&mut self, sink: &mut dyn Sink) -> usize {
        let (released, room) = {
            let mut flow = self.connection.outgoing(self.side);
            let room = flow.wants_room && has_room(&flow);
            flow.wants_room &= !room;
            (std::mem::take(&mut flow.released), room)
        };
        for &token in &released {
            sink.released(token);
        }
        released.len() + usize::from(room)
    }

    /// Hands up whole frames, all that wait before the next body to place, `budget` at most.
    fn poll_whole(&mut self, sink: &mut dyn Sink, budget: usize) -> usize {
        let mut batch = std::mem::take(&mut self.batch);
        {
            let mut flow = self.connection.incoming(self.side);
            while batch.len() < budget && flow.frames.front().is_some_and(|frame| !is_placed(frame)) {
                batch.extend(flow.pop());
            }
        }
        let count = batch.len();
        for frame in &batch {
            sink.frame(&frame.header, frame.body.body());
        }
        self.delivered(count);
        batch.clear();
        self.batch = batch;
        count
    }

    /// Moves the next piece of the body that is being placed, and begins it if need be. Returns the frames completed, or
    /// `None` when no body waits to be placed.
    fn poll_placed(&mut self, sink: &mut dyn Sink) -> Option<usize> {
        if self.placing.is_none() {
            let flow = self.connection.incoming(self.side);
            let head = flow.frames.front().filter(|frame| is_placed(frame))?;
            let (header, len) = (head.header, head.body.len());
            drop(flow);
            self.placing = Some(Placing { header, placement: sink.place(&header, len), len, done: 0 });
        }
        let placing = self.placing.as_mut()?;
        let mut flow = self.connection.incoming(self.side);
        let Some(head) = flow.frames.front() else {
            // The sender left or recovered it midway: it never completes.
            drop(flow);
            self.placing = None;
            return None;
        };
        let count = PIECE.min(placing.len - placing.done);
        if let Placement::Into { target, .. } = placing.placement {
            // SAFETY: the sink promised `len` writable bytes until `placed` or `revoke`, which clears `placement`.
            unsafe {
                head.body.body().skip(placing.done).copy_to_raw(target.as_ptr().add(placing.done), count)
            };
        }
        placing.done += count;
        if placing.done < placing.len {
            return Some(0);
        }
        let (header, len) = (placing.header, placing.len);
        flow.pop_copied();
        drop(flow);
        self.placing = None;
        sink.placed(&header, len);
        self.delivered(1);
        Some(1)
    }

    /// Tells the sender that `count` frames have been handed up.
    fn delivered(&self, count: usize) {
        if count == 0 {
            return;
        }
        let tell = {
            let mut flow = self.connection.incoming(self.side);
            flow.delivered += count as u64;
            let Flow { handing, released, .. } = &mut *flow;
            released.append(handing);
            let all = flow.wants_delivered && flow.delivered >= flow.posted;
            flow.wants_delivered &= !all;
            all || !flow.released.is_empty() || flow.wants_room && flow.frames.len() <= FRAMES_MAX / 2
        };
        if tell {
            self.connection.notice(self.side.other()).tell();
        }
    }

    /// Whether something waits, and whether the peer will send more.
    fn look(&self) -> (bool, bool) {
        let peer_takes = !self.connection.outgoing(self.side).receiver_left;
        let flow = self.connection.incoming(self.side);
        (!flow.frames.is_empty(), !flow.sender_left && peer_takes)
    }
}

fn has_room(flow: &Flow) -> bool {
    flow.frames.len() < FRAMES_MAX && flow.bytes < BYTES_MAX
}

fn is_placed(frame: &Queued) -> bool {
    frame.header.kind.is_fragment() && frame.body.len() > WHOLE_MAX
}

// SAFETY: borrowed posts are read behind the lock of their flow only, from which `reclaim`, `recover` and drop take them;
// a target is forgotten before `placed` is called, by `revoke` and by `recover`.
unsafe impl Lane for LoopbackLane {
    fn info(&self) -> &LaneInfo {
        &self.info
    }

    fn try_post(&mut self, header: &Header, body: &[IoSlice<'_>]) -> Result<(), PostError> {
        let len = body.iter().map(|part| part.len()).sum();
        if len > FRAME_MAX {
            return Err(PostError::TooLarge);
        }
        let header = *header;
        let queued = || {
            let mut bytes = Vec::with_capacity(len);
            body.iter().for_each(|part| bytes.extend_from_slice(part));
            Queued { header, body: QueuedBody::Owned(bytes), token: None }
        };
        self.post(queued, len)
    }

    unsafe fn try_post_borrowed(
        &mut self,
        header: &Header,
        data: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<(), PostError> {
        if len > self.info.limits.borrowed_max_of(header.kind) {
            return Err(PostError::TooLarge);
        }
        // SAFETY: readable until `released`, `reclaim`, `recover` or drop, each of which removes or copies it under the lock.
        let body = QueuedBody::Borrowed(unsafe { Borrowed::new(data, len) });
        let header = *header;
        self.post(|| Queued { header, body, token: Some(token) }, len)
    }

    fn reclaim(&mut self, token: Token) {
        self.connection.outgoing(self.side).own(Some(token));
    }

    fn flush(&mut self) -> Result<(), LaneError> {
        self.dead.clone().map_or(Ok(()), Err)
    }

    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        if let Some(error) = &self.dead {
            return Err(error.clone());
        }
        if !self.connection.notice(self.side).take() {
            return Ok(0);
        }
        let mut count = self.poll_outgoing(sink);
        // One look with no room left would stop for ever at a body to place.
        let budget = budget.max(1);
        let mut pieces = 0;
        while count < budget {
            let whole = self.poll_whole(sink, budget - count);
            count += whole;
            match self.poll_placed(sink) {
                Some(placed) => count += placed,
                None if whole == 0 => break,
                None => {}
            }
            pieces += 1;
            if self.placing.is_some() || pieces > budget {
                break;
            }
        }
        let (waiting, alive) = self.look();
        if waiting {
            self.connection.notice(self.side).tell();
        } else if !alive {
            // What the peer released before it left is told before the end.
            self.poll_outgoing(sink);
            let error = self.broken("poll");
            self.dead = Some(error.clone());
            self.placing = None;
            return Err(error);
        }
        Ok(count)
    }

    fn unacknowledged(&self) -> u64 {
        let flow = self.connection.outgoing(self.side);
        // Above while the receiver hands up frames that `recover` no longer found.
        flow.posted.saturating_sub(flow.delivered)
    }

    fn request_acknowledgement(&mut self) {
        let mut flow = self.connection.outgoing(self.side);
        flow.wants_delivered |= flow.delivered < flow.posted;
    }

    fn recover(&mut self) -> Vec<Unacknowledged> {
        self.dead
            .get_or_insert_with(|| TransportError::new(ErrorKind::Broken, "recover", self.info.peer.clone()));
        self.placing = None;
        let recovered = {
            let mut flow = self.connection.outgoing(self.side);
            let recovered = flow.recover();
            flow.delivered = flow.posted;
            recovered
        };
        self.connection.leave(self.side, false);
        recovered
    }

    unsafe fn redirect(&mut self, _from: Token, _target: NonNull<u8>, _to: Token) {}

    fn revoke(&mut self, token: Token) {
        if let Some(placing) = &mut self.placing
            && let Placement::Into { token: of, .. } = placing.placement
            && of == token
        {
            placing.placement = Placement::Discard;
        }
    }

    fn cool(&mut self) -> bool {
        self.dead.is_none() && self.connection.notice(self.side).cool()
    }

    fn close(&mut self) {
        self.closed = true;
        self.connection.leave(self.side, true);
    }
}

impl Drop for LoopbackLane {
    fn drop(&mut self) {
        self.connection.leave(self.side, false);
    }
}
