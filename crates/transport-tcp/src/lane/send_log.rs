//! The frames that a lane has taken: serialised once, sent from here, kept until the peer's lane has handed them up.
//!
//! Used by the lane's send side. Pure bookkeeping: it makes no system call and reads no clock.
//!
//! Positions are bytes of an endless log, of which the ring holds a window: `tail ≤ sent ≤ head`. A header and a copied body
//! never straddle the ring's end; what is skipped for that is the gap, of which there is at most one. A borrowed body is
//! not in the ring: it belongs to the header that ends at `after`.

use super::pieces::{PAD_FROM, Pieces, pad, pad_before};
use crate::memory::BorrowedBytes;
use sinew_transport::{PostError, Token, Unacknowledged, UnacknowledgedBody};
use sinew_wire::frame::stream::{self, HEADER_LEN};
use sinew_wire::frame::{Flags, Header};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Flag bit of a frame (one of the lane's own): acknowledge soon what came up to and with this frame.
pub(super) const ASK: Flags = Flags(0x10);
/// Flag bit of a frame (one of the lane's own): a pad stands between header and body, whose first byte is its length.
pub(super) const PADDED: Flags = Flags(0x20);
/// Longest pad, in bytes.
pub(super) const PAD_MAX: usize = 64;
/// Flag bits that belong to the engine.
pub(super) const ENGINE_FLAGS: u8 = 0x0f;

/// Bytes that may go before a body in one write if that is to be aligned.
const PAD_BEHIND: usize = 2048;
const NO_GAP: u64 = u64::MAX;
/// Borrowed bytes after which the log asks for an acknowledgement.
const ASK_EVERY_BORROWED: usize = 8 << 20;

/// A body that is not in the ring.
#[derive(Debug)]
struct Held {
    /// Log position right behind its header.
    after: u64,
    body: HeldBody,
}

#[derive(Debug)]
enum HeldBody {
    Borrowed(BorrowedBytes, Token),
    /// It was borrowed and reclaimed.
    Copied(Box<[u8]>),
}

impl Held {
    fn bytes(&self) -> &[u8] {
        match &self.body {
            HeldBody::Borrowed(bytes, _) => bytes.as_slice(),
            HeldBody::Copied(bytes) => bytes,
        }
    }
}

/// The peer acknowledged what it cannot have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BadAcknowledgement;

/// See the module.
#[derive(Debug)]
pub(super) struct SendLog {
    ring: Box<[u8]>,
    tail: u64,
    sent: u64,
    head: u64,
    /// Where the ring's end was left unused, or [`NO_GAP`].
    gap: u64,
    held: VecDeque<Held>,
    /// Index of the first held body that is not sent wholly, and how much of it is.
    held_next: usize,
    held_sent: usize,
    frames_posted: u64,
    frames_acknowledged: u64,
    frames_max: u64,
    /// Bytes that wait to be sent, borrowed bodies among them.
    unsent: u64,
    /// Whether large bodies are aligned by pads.
    pads: bool,
    /// What was posted since a frame last asked for an acknowledgement.
    asked_at: u64,
    asked_frames: u64,
    asked_borrowed: usize,
}

impl SendLog {
    /// A log whose ring has `capacity` bytes, a power of two.
    pub(super) fn new(capacity: usize, frames_max: u32, pads: bool) -> Self {
        debug_assert!(capacity.is_power_of_two());
        Self {
            ring: vec![0; capacity].into_boxed_slice(),
            tail: 0,
            sent: 0,
            head: 0,
            gap: NO_GAP,
            held: VecDeque::new(),
            held_next: 0,
            held_sent: 0,
            frames_posted: 0,
            frames_acknowledged: 0,
            frames_max: u64::from(frames_max),
            unsent: 0,
            pads,
            asked_at: 0,
            asked_frames: 0,
            asked_borrowed: 0,
        }
    }

    /// Frames taken that the peer has not acknowledged.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.frames_posted - self.frames_acknowledged
    }

    /// Whether something waits to be sent.
    #[inline]
    pub(super) fn has_unsent(&self) -> bool {
        self.sent != self.head || self.held_next < self.held.len()
    }

    /// Bytes that wait to be sent, borrowed bodies among them.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Bytes of the ring that wait to be sent, borrowed bodies not counted.
    #[inline]
    pub(super) fn unsent_bytes(&self) -> u64 {
        self.head - self.sent
    }

    /// Takes a frame with a copied body of `len` bytes, the concatenation of `body`.
    #[inline]
    pub(super) fn post(
        &mut self,
        header: &Header,
        body: &[IoSlice<'_>],
        len: usize,
    ) -> Result<(), PostError> {
        let start = self.reserve(HEADER_LEN + len)?;
        self.write_header(start, header, len, 0);
        self.copy_body(start + HEADER_LEN, body);
        self.head += (HEADER_LEN + len) as u64;
        self.unsent += (HEADER_LEN + len) as u64;
        self.frames_posted += 1;
        Ok(())
    }

    #[inline]
    fn copy_body(&mut self, mut at: usize, body: &[IoSlice<'_>]) {
        for piece in body {
            self.ring[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
    }

    /// The same when nothing waits to be sent: `write` gives the kernel the frame straight from the caller's memory, with `tail`
    /// behind it, and says how much it took; the copy that is retained is made meanwhile with what the peer does with it. `body` has
    /// at most [`DIRECT_PIECES`] pieces. Answers how much of `tail` was taken.
    pub(super) fn post_direct(
        &mut self,
        header: &Header,
        body: &[IoSlice<'_>],
        len: usize,
        tail: &[u8],
        write: impl FnOnce(&[IoSlice<'_>]) -> usize,
    ) -> Result<usize, PostError> {
        let pad = if self.pads { pad_before(body) } else { 0 };
        let head_len = HEADER_LEN + pad;
        let start = self.reserve(head_len + len)?;
        self.write_header(start, header, len, pad);
        let mut pieces = Pieces::new();
        pieces.push(&self.ring[start..start + head_len]);
        body.iter().for_each(|piece| {
            pieces.push(piece);
        });
        pieces.push(tail);
        let taken = write(pieces.as_slice());
        let sent = taken.min(head_len + len);
        self.copy_body(start + head_len, body);
        self.head += (head_len + len) as u64;
        self.unsent += (head_len + len) as u64;
        self.frames_posted += 1;
        self.advance(sent);
        Ok(taken - sent)
    }

    /// Takes a frame whose body stays where it is.
    pub(super) fn post_borrowed(
        &mut self,
        header: &Header,
        bytes: BorrowedBytes,
        token: Token,
    ) -> Result<(), PostError> {
        let len = bytes.as_slice().len();
        // What waits is short where a pad is of use: an envelope, at most some answers.
        let before = self.unsent as usize;
        let pads = self.pads && len >= PAD_FROM && before <= PAD_BEHIND;
        let pad = if pads { pad(before + HEADER_LEN, bytes.as_ptr()) } else { 0 };
        let start = self.reserve(HEADER_LEN + pad)?;
        self.asked_borrowed += len;
        self.write_header(start, header, len, pad);
        self.head += (HEADER_LEN + pad) as u64;
        self.unsent += (HEADER_LEN + pad + len) as u64;
        self.frames_posted += 1;
        self.held.push_back(Held { after: self.head, body: HeldBody::Borrowed(bytes, token) });
        Ok(())
    }

    /// Makes room for `need` contiguous bytes at the head and says where in the ring they are.
    #[inline]
    fn reserve(&mut self, need: usize) -> Result<usize, PostError> {
        if self.unacknowledged() >= self.frames_max {
            return Err(PostError::Full);
        }
        let capacity = self.ring.len() as u64;
        let index = self.index(self.head);
        let to_end = self.ring.len() - index;
        let skip = if need <= to_end { 0 } else { to_end as u64 };
        if self.head + skip + need as u64 - self.tail > capacity {
            return Err(PostError::Full);
        }
        if skip != 0 {
            self.gap = self.head;
            if self.sent == self.head && self.held_next == self.held.len() {
                self.sent += skip;
            }
            self.head += skip;
            if self.tail == self.gap {
                self.tail = self.head;
                self.sent = self.head;
                self.gap = NO_GAP;
            }
        }
        Ok(self.index(self.head))
    }

    /// Writes header and pad; both have been reserved.
    #[inline]
    fn write_header(&mut self, start: usize, header: &Header, len: usize, pad: usize) {
        let quarter = (self.ring.len() / 4) as u64;
        let mut flags = Flags(header.flags.0 & ENGINE_FLAGS);
        if self.head - self.asked_at >= quarter
            || self.frames_posted + 1 - self.asked_frames >= self.frames_max / 4
            || self.asked_borrowed >= ASK_EVERY_BORROWED
        {
            flags = flags.with(ASK);
            self.asked_at = self.head;
            self.asked_frames = self.frames_posted + 1;
            self.asked_borrowed = 0;
        }
        if pad != 0 {
            flags = flags.with(PADDED);
        }
        // The callers have checked `len` against the lane's limits, which fit 32 bits.
        let bytes = stream::encode(&Header { flags, ..*header }, len as u32);
        self.ring[start..start + HEADER_LEN].copy_from_slice(&bytes);
        if let Some(first) = self.ring[start + HEADER_LEN..][..pad].first_mut() {
            *first = pad as u8;
            self.ring[start + HEADER_LEN + 1..][..pad - 1].fill(0);
        }
    }

    #[inline]
    fn index(&self, position: u64) -> usize {
        position as usize & (self.ring.len() - 1)
    }

    /// Where the ring begins again behind `position`.
    #[inline]
    fn next_lap(&self, position: u64) -> u64 {
        let mask = self.ring.len() as u64 - 1;
        (position + mask) & !mask
    }

    /// What is to be sent, when it is one run of the ring.
    #[inline]
    pub(super) fn single(&self) -> Option<&[u8]> {
        if self.held_next < self.held.len() || self.sent == self.head {
            return None;
        }
        self.ring[self.index(self.sent)..]
            .get(..(self.head - self.sent) as usize)
            .filter(|_| self.gap == NO_GAP)
    }

    /// Appends what is to be sent, in order, to `out` while it has room, and says how many bytes that is and whether the
    /// last of them ends a frame.
    #[inline]
    pub(super) fn gather<'a>(&'a self, out: &mut Pieces<'a>) -> (usize, bool) {
        let mut total = 0;
        let mut at = self.sent;
        let mut next = self.held_next;
        let mut skip = self.held_sent;
        loop {
            if let Some(held) = self.held.get(next)
                && held.after == at
            {
                let rest = &held.bytes()[skip..];
                if !out.push(rest) {
                    return (total, false);
                }
                total += rest.len();
                skip = 0;
                next += 1;
                if out.is_nearly_full() {
                    return (total, true);
                }
                continue;
            }
            if at == self.gap {
                at = self.next_lap(at);
            }
            if at == self.head {
                return (total, true);
            }
            let end = self.run_end(at, next);
            let run = &self.ring[self.index(at)..][..(end - at) as usize];
            if !out.push(run) {
                return (total, false);
            }
            total += run.len();
            at = end;
        }
    }

    /// Where the contiguous bytes that begin at `at` end: at a held body, the gap, the ring's end or the head.
    #[inline]
    fn run_end(&self, at: u64, next: usize) -> u64 {
        let mut end = self.head.min(self.next_lap(at + 1));
        if self.gap > at {
            end = end.min(self.gap);
        }
        if let Some(held) = self.held.get(next) {
            end = end.min(held.after);
        }
        end
    }

    /// The next `count` bytes that [`SendLog::gather`] or [`SendLog::single`] showed are with the kernel.
    #[inline]
    pub(super) fn advance(&mut self, mut count: usize) {
        self.unsent = self.unsent.saturating_sub(count as u64);
        loop {
            if let Some(held) = self.held.get(self.held_next)
                && held.after == self.sent
            {
                let rest = held.bytes().len() - self.held_sent;
                if count < rest {
                    self.held_sent += count;
                    return;
                }
                count -= rest;
                self.held_sent = 0;
                self.held_next += 1;
                continue;
            }
            if self.sent == self.gap {
                self.sent = self.next_lap(self.sent);
            }
            if count == 0 || self.sent == self.head {
                return;
            }
            let end = self.run_end(self.sent, self.held_next);
            let step = count.min((end - self.sent) as usize);
            self.sent += step as u64;
            count -= step;
        }
    }

    /// The peer has handed up `count` frames since the lane began. Calls `released` for every borrowed body among the new ones.
    pub(super) fn acknowledge(
        &mut self,
        count: u64,
        mut released: impl FnMut(Token),
    ) -> Result<(), BadAcknowledgement> {
        if count < self.frames_acknowledged || count > self.frames_posted {
            return Err(BadAcknowledgement);
        }
        while self.frames_acknowledged < count {
            let (after, len) = self.body_of(self.tail);
            let borrowed = self.held.front().is_some_and(|held| held.after == after);
            let end = if borrowed { after } else { after + len as u64 };
            if end > self.sent || (borrowed && self.held_next == 0) {
                return Err(BadAcknowledgement);
            }
            if self.tail == self.gap {
                self.gap = NO_GAP;
            }
            self.tail = end;
            self.frames_acknowledged += 1;
            if borrowed && let Some(held) = self.held.pop_front() {
                self.held_next -= 1;
                if let HeldBody::Borrowed(_, token) = held.body {
                    released(token);
                }
            }
        }
        if self.frames_acknowledged == self.frames_posted {
            // What comes unasked need not be asked for.
            (self.asked_at, self.asked_frames, self.asked_borrowed) = (self.head, self.frames_posted, 0);
        }
        if self.tail == self.head && self.tail != self.next_lap(self.tail) {
            // Empty: begin at the ring's start again, which is warm in the cache.
            let lap = self.next_lap(self.tail);
            self.asked_at = lap;
            (self.tail, self.sent, self.head, self.gap) = (lap, lap, lap, NO_GAP);
        }
        Ok(())
    }

    /// Where the frame at `position` really begins: behind a gap.
    #[inline]
    fn frame_at(&self, position: u64) -> u64 {
        if position == self.gap { self.next_lap(position) } else { position }
    }

    /// Where the body of the frame at `position` begins, if it is in the ring, and how long it is.
    #[inline]
    fn body_of(&self, position: u64) -> (u64, usize) {
        let at = self.frame_at(position);
        let index = self.index(at);
        let bytes = &self.ring[index..index + HEADER_LEN];
        let len = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let padded = Flags(bytes[5]).contains(PADDED);
        let pad = if padded { usize::from(self.ring[index + HEADER_LEN]) } else { 0 };
        (at + (HEADER_LEN + pad) as u64, len)
    }

    /// Gives up every reference to memory posted under `token`; what may still be needed is copied.
    pub(super) fn reclaim(&mut self, token: Token) {
        for held in &mut self.held {
            if let HeldBody::Borrowed(bytes, of) = &held.body
                && *of == token
            {
                held.body = HeldBody::Copied(bytes.as_slice().into());
            }
        }
    }

    /// Takes everything out that the peer has not acknowledged, oldest first. The log is empty afterwards.
    pub(super) fn take_unacknowledged(&mut self) -> Vec<Unacknowledged> {
        let mut out = Vec::with_capacity(self.unacknowledged() as usize);
        let mut at = self.tail;
        while self.frames_acknowledged < self.frames_posted {
            let (start, (after, len)) = (self.frame_at(at), self.body_of(at));
            let mut bytes = [0; HEADER_LEN];
            bytes.copy_from_slice(&self.ring[self.index(start)..][..HEADER_LEN]);
            let Ok((mut header, _)) = stream::decode(&bytes) else {
                debug_assert!(false, "the log holds what this lane wrote");
                break;
            };
            header.flags = Flags(header.flags.0 & ENGINE_FLAGS);
            let body = if self.held.front().is_some_and(|held| held.after == after) {
                at = after;
                match self.held.pop_front().map(|held| held.body) {
                    Some(HeldBody::Borrowed(bytes, token)) => UnacknowledgedBody::Borrowed {
                        data: bytes.as_ptr(),
                        len: bytes.as_slice().len(),
                        token,
                    },
                    Some(HeldBody::Copied(bytes)) => UnacknowledgedBody::Owned(bytes.into_vec()),
                    None => UnacknowledgedBody::Owned(Vec::new()),
                }
            } else {
                at = after + len as u64;
                UnacknowledgedBody::Owned(self.ring[self.index(after)..][..len].to_vec())
            };
            out.push(Unacknowledged { header, body });
            self.frames_acknowledged += 1;
        }
        self.held.clear();
        (self.tail, self.sent, self.gap) = (self.head, self.head, NO_GAP);
        (self.held_next, self.held_sent, self.unsent) = (0, 0, 0);
        out
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests;
