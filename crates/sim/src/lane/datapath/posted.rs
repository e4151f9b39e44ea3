//! What was posted to a simulated lane: kept until the peer has it, given to the virtual kernel as that takes it.

use super::SimLane;
use crate::lane::memory::Kept;
use crate::net::{EndId, Kind, Net, Piece, State, lock};
use sinew_transport::{Header, PostError};

/// Frames that a lane keeps at most.
const FRAMES_MAX: usize = 128;

/// A frame that the peer has not acknowledged.
pub(super) struct Posted {
    pub(super) header: Header,
    pub(super) kept: Kept,
}

impl SimLane {
    pub(super) fn keep(
        &mut self,
        header: &Header,
        kept: impl FnOnce() -> Kept,
        len: usize,
    ) -> Result<(), PostError> {
        let room = self.posted.len() < FRAMES_MAX && self.bytes + len <= self.style.retention;
        if !room && !self.posted.is_empty() {
            self.told_full = true;
            return Err(PostError::Full);
        }
        self.posted.push_back(Posted { header: *header, kept: kept() });
        self.bytes += len;
        self.bytes_ever += len as u64;
        if header.kind == sinew_transport::Kind::STRIPE {
            lock(&self.net).stripes += 1;
        }
        self.frames += 1;
        if self.kind == Kind::Near || self.bytes > self.style.retention / 2 {
            self.push();
        }
        Ok(())
    }

    /// Gives the kernel what it takes.
    pub(super) fn push(&mut self) {
        let mut net = lock(&self.net);
        if self.handed_up > self.said && (self.asked || self.begun < self.posted.len()) {
            self.asked = false;
            Self::acknowledge_in(&mut net, self.end, self.handed_up);
            self.said = self.handed_up;
            self.owes_since = None;
        }
        while let Some(frame) = self.posted.get_mut(self.begun) {
            let Some(end) = net.end(self.end) else { return };
            let full = !end.has_room();
            end.wants_room = full;
            if full || end.state != State::Open {
                return;
            }
            let len = frame.kept.len();
            let most = 1 + net.random.index(self.style.piece);
            let size = most.max(if self.kind == Kind::Near { len } else { 0 }).min(len - self.begun_bytes);
            let bytes = frame.kept.part(self.begun_bytes, size);
            let piece = if self.begun_bytes == 0 {
                Piece::Head { header: frame.header, len, bytes }
            } else {
                Piece::More(bytes)
            };
            net.put(self.end, piece);
            self.begun_bytes += size;
            if self.begun_bytes == len {
                self.begun += 1;
                self.begun_bytes = 0;
                if let Some(token) = frame.kept.token() {
                    frame.kept.own();
                    // The last frame of a post lets go of it.
                    self.released.push(token);
                }
            }
        }
        if std::mem::take(&mut self.wants_ask) {
            net.put(self.end, Piece::Ask);
        }
    }

    pub(super) fn acknowledge_in(net: &mut Net, end: EndId, handed_up: u64) {
        let Some(peer) = net.end(end).map(|end| end.peer) else { return };
        if net.end(end).is_some_and(|end| end.kind == Kind::Near) {
            if let Some(peer) = net.end(peer) {
                peer.handed_up = handed_up;
            }
        } else {
            net.put(end, Piece::Acknowledge(handed_up));
        }
    }

    /// The peer has handed up so many.
    pub(super) fn confirmed(&mut self, count: u64) {
        while self.acknowledged < count.min(self.acknowledged + self.begun as u64) {
            self.acknowledged += 1;
            self.has_room = true;
            self.begun -= 1;
            if let Some(frame) = self.posted.pop_front() {
                self.bytes -= frame.kept.len();
            }
        }
    }
}
