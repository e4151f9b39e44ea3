//! What happens to frames: posting into the own half, polling the peer's, credit, waking, reading back.
//!
//! Called by the lane for every frame. No system call, no lock, no allocation for a frame but the first use of a queue;
//! the only exceptions are the ones it is told to make: ringing a sleeper.
//!
//! # Slots
//! Word 0 {lap 8, kind 8, length 16, dst 32}, word 1 tag, word 2 {src 32, flags 8, zero 24}, then 40 bytes of body. A body
//! that does not fit has the length [`WINDOWED`] and one word {offset 32, length 32} of the window.

use super::segments::Segments;
use super::setup::Bell;
use crate::across::Across;
use crate::half::{DomainControl, Page, REFUSED};
use crate::note::broken;
use crate::options::ShmOptions;
use crate::registry::Watch;
use crate::shared::ring::{Consumer, Forged, Head, PAYLOAD_LEN, PAYLOAD_WORDS, Producer};
use crate::shared::sleep::{Barrier, Waker};
use crate::window::{Mark, Window};
use sinew_base::guarded::GuardedFd;
use sinew_transport::{
    ErrorKind, LaneError, Peek, Peeked, PostError, Sink, Token, TransportError, Unacknowledged,
    UnacknowledgedBody,
};
use sinew_wire::frame::{Flags, Header, Kind};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

/// Pieces of long messages that one poll hands up beyond its budget.
const PIECES_MORE: usize = 16;
/// Looks at the consumer's index before a long body is refused: at most about two microseconds, and none while the peer takes
/// nothing.
const LOOKS_FOR_ROOM: u32 = 100;
/// Length field of a frame whose body lies in the window.
const WINDOWED: u16 = 0xffff;

/// An open lane.
#[derive(Debug)]
pub(crate) struct Open {
    producer: Producer,
    consumer: Consumer,
    waker: Waker,
    barrier: Barrier,
    window: Window,
    /// Where the window stood after each frame, by slot.
    marks: Box<[Mark]>,
    mask: u64,
    starving: bool,
    /// The peer has given room back since this side last waited for it in vain.
    patient: bool,
    recovered: bool,
    /// Bytes of windowed bodies taken since the index was last published, and how many call for it.
    taken: usize,
    taken_max: usize,
    /// A frame was shown and may be taken: so many bytes of it lie in the window.
    peeked: Option<u32>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) bit: u32,
    peer_page: Page<DomainControl>,
    bell: Bell,
    /// Borrowed posts to report.
    pub(crate) released: VecDeque<Token>,
    pub(crate) segments: Segments,
    pub(crate) across: Across,
    /// What pages the own half has got, for people.
    pub(crate) got: String,
}

/// What set-up has found out.
pub(crate) struct Ends {
    /// Both halves.
    pub(crate) watch: Arc<Watch>,
    /// The lane's place in the registry.
    pub(crate) bit: u32,
    /// Where the peer's domain says that it sleeps.
    pub(crate) peer_page: Page<DomainControl>,
    /// How to wake it.
    pub(crate) bell: Bell,
    /// How the sleep protocol is ordered.
    pub(crate) barrier: Barrier,
    /// Segments that the peer is ready to map.
    pub(crate) segments_max: u32,
    /// What may be read of the peer's memory.
    pub(crate) across: Across,
    /// What pages the own half has got, for people.
    pub(crate) got: String,
}

impl Open {
    /// A lane with these ends.
    pub(crate) fn new(options: &ShmOptions, ends: Ends) -> Self {
        let Ends { watch, bit, peer_page, bell, barrier, segments_max, across, got } = ends;
        let (own_slots, peer_slots) = (watch.own.ring().len(), watch.peer.ring().len());
        let taken_max = watch.peer.window_len() / 16;
        Self {
            producer: Producer::new(own_slots),
            consumer: Consumer::new(peer_slots),
            waker: Waker::default(),
            barrier,
            window: Window::new(options.small_window, options.large_window, options.small_max),
            marks: vec![Mark::default(); own_slots].into(),
            mask: own_slots as u64 - 1,
            starving: false,
            patient: true,
            recovered: false,
            taken: 0,
            taken_max,
            peeked: None,
            watch,
            bit,
            peer_page,
            bell,
            released: VecDeque::new(),
            segments: Segments::new(segments_max),
            across,
            got,
        }
    }

    /// Publishes a frame, and wakes the peer if it sleeps.
    #[inline]
    pub(crate) fn post(
        &mut self,
        header: &Header,
        parts: &[IoSlice<'_>],
        frame_max: usize,
        socket: &GuardedFd,
    ) -> Result<(), PostError> {
        if let [part] = parts
            && part.len() <= PAYLOAD_LEN
        {
            return self.post_small(header, part, socket);
        }
        self.post_parts(header, parts, frame_max, socket)
    }

    /// Publishes a frame, if there is room for it. `false`: nothing has happened.
    #[inline]
    pub(crate) fn post_short(
        &mut self,
        header: &Header,
        body: &[u8],
        frame_max: usize,
        socket: &GuardedFd,
    ) -> bool {
        if !self.producer.has_room() {
            return false;
        }
        if body.len() > PAYLOAD_LEN {
            return self.post_in_window(header, body, frame_max, socket);
        }
        self.publish_body(header, body);
        self.notify(socket);
        true
    }

    #[inline(never)]
    fn post_in_window(&mut self, header: &Header, body: &[u8], frame_max: usize, socket: &GuardedFd) -> bool {
        let len = body.len();
        // A full small window is worth another look at what came back: that is the long way.
        if len > frame_max || self.window.small_is_full(len) {
            return false;
        }
        let Some(offset) = self.window.take(len) else { return false };
        self.watch.own.fill(offset, &[IoSlice::new(body)]);
        self.publish_windowed(header, offset, len);
        self.notify(socket);
        true
    }

    /// A body that fits a slot.
    #[inline]
    fn post_small(&mut self, header: &Header, body: &[u8], socket: &GuardedFd) -> Result<(), PostError> {
        if !self.producer.has_room() {
            self.look_for_room()?;
        }
        self.publish_body(header, body);
        self.notify(socket);
        Ok(())
    }

    #[inline]
    fn publish_body(&mut self, header: &Header, body: &[u8]) {
        if let Ok(word) = <[u8; 8]>::try_from(body) {
            self.publish(header, 8, &[u64::from_le_bytes(word), 0, 0, 0, 0], 8);
        } else {
            self.publish_padded(header, body);
        }
    }

    #[inline(never)]
    fn publish_padded(&mut self, header: &Header, body: &[u8]) {
        self.publish(header, body.len() as u16, &words_of(body), body.len());
    }

    #[inline(never)]
    fn post_parts(
        &mut self,
        header: &Header,
        parts: &[IoSlice<'_>],
        frame_max: usize,
        socket: &GuardedFd,
    ) -> Result<(), PostError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len <= PAYLOAD_LEN {
            let mut bytes = [0; PAYLOAD_LEN];
            let mut at = 0;
            for part in parts {
                bytes[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            return self.post_small(header, &bytes[..len], socket);
        }
        if len > frame_max {
            return Err(PostError::TooLarge);
        }
        let offset = self.take_room(len)?;
        self.watch.own.fill(offset, parts);
        self.publish_windowed(header, offset, len);
        self.notify(socket);
        Ok(())
    }

    /// The same for one piece of raw memory, through the window unless it fits a slot.
    ///
    /// # Safety
    /// `data` is readable for `len` bytes during the call, and `len` is at most half of the large window.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn post_raw(
        &mut self,
        header: &Header,
        data: *const u8,
        len: usize,
        socket: &GuardedFd,
    ) -> Result<(), PostError> {
        if len <= PAYLOAD_LEN {
            let mut bytes = [0; PAYLOAD_LEN];
            // SAFETY: readable for `len` bytes, says the caller; `len` is at most the array's.
            unsafe { std::ptr::copy_nonoverlapping(data, bytes.as_mut_ptr(), len) };
            return self.post_small(header, &bytes[..len], socket);
        }
        let offset = self.take_room(len)?;
        // SAFETY: readable for `len` bytes, says the caller.
        unsafe { self.watch.own.fill_raw(offset, data, len) };
        self.publish_windowed(header, offset, len);
        self.notify(socket);
        Ok(())
    }

    #[inline]
    fn publish_windowed(&mut self, header: &Header, offset: usize, len: usize) {
        let payload = [offset as u64 | (len as u64) << 32, 0, 0, 0, 0];
        self.publish(header, WINDOWED, &payload, 8);
    }

    #[inline]
    fn publish(&mut self, header: &Header, len: u16, payload: &[u64; PAYLOAD_WORDS], used: usize) {
        let head = Head {
            first: u64::from(header.kind.0) << 8 | u64::from(len) << 16 | u64::from(header.dst) << 32,
            second: header.tag,
            third: u64::from(header.src) | u64::from(header.flags.0) << 32,
        };
        let place = (self.producer.next() & self.mask) as usize;
        self.producer.publish(self.watch.own.ring(), head, payload, used);
        // After the peer can see the frame: it is in no hurry.
        self.marks[place] = self.window.mark();
    }

    /// Wakes the peer if it needs it: after publishing a frame, an index or the end.
    #[inline]
    fn notify(&mut self, socket: &GuardedFd) {
        let state = &self.watch.peer.control().state;
        let bell = &self.bell;
        if self.waker.look(self.barrier, state, &self.peer_page.armed, || hint(bell, socket)) {
            ring(bell, socket);
        }
    }

    /// Room for a slot and `len` bytes of the window.
    #[inline]
    fn take_room(&mut self, len: usize) -> Result<usize, PostError> {
        if !self.producer.has_room() || self.window.small_is_full(len) {
            // The small window is worth a look: it stays in the first cache.
            self.refresh()?;
        }
        if self.producer.has_room()
            && let Some(offset) = self.window.take(len)
        {
            return Ok(offset);
        }
        // A receiver that copies gives room back in a moment: that is cheaper to wait for than to be told of.
        let mut looks = if std::mem::take(&mut self.patient) { LOOKS_FOR_ROOM } else { 1 };
        while looks > 0 {
            if self.refresh()?
                && self.producer.has_room()
                && let Some(offset) = self.window.take(len)
            {
                self.patient = true;
                return Ok(offset);
            }
            looks -= 1;
            std::hint::spin_loop();
        }
        self.starve();
        Err(PostError::Full)
    }

    #[cold]
    fn look_for_room(&mut self) -> Result<(), PostError> {
        self.refresh()?;
        if self.producer.has_room() {
            return Ok(());
        }
        self.starve();
        Err(PostError::Full)
    }

    /// Learns what the peer is done with; whether that is more than before.
    fn refresh(&mut self) -> Result<bool, PostError> {
        match self.producer.refresh(&self.watch.peer.control().consumed) {
            Ok(true) => {
                self.window.release(self.marks[((self.producer.consumed() - 1) & self.mask) as usize]);
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(Forged) => Err(PostError::Dead(broken("consumer index"))),
        }
    }

    /// Asks the peer to wake us when there is room.
    fn starve(&mut self) {
        if !self.starving {
            self.starving = true;
            self.watch.own.control().starving.store(1, Ordering::Relaxed);
        }
        self.watch.waiting_at.store(self.producer.consumed(), Ordering::Relaxed);
    }

    /// Whether room has come back since the last refusal.
    #[cold]
    fn check_room(&mut self) -> Result<bool, LaneError> {
        match self.refresh() {
            Ok(true) => {
                self.starving = false;
                self.patient = true;
                self.watch.own.control().starving.store(0, Ordering::Relaxed);
                self.watch.waiting_at.store(u64::MAX, Ordering::Relaxed);
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(PostError::Dead(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Hands up what is there.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        sink: &mut dyn Sink,
        budget: usize,
        socket: &GuardedFd,
    ) -> Result<usize, LaneError> {
        let mut done = 0;
        self.peeked = None;
        if self.has_to_report() {
            done = self.report(sink)?;
        }
        let mut drained = false;
        // A piece of a long message costs a turn of its own only when it comes late.
        let (mut budget, pieces) = (budget, budget.saturating_add(PIECES_MORE));
        while done < budget {
            let Some(kind) = self.take_one(sink)? else {
                drained = true;
                break;
            };
            done += 1;
            if kind == Kind::DATA && budget < pieces {
                budget += 1;
            }
            if self.has_much_to_give_back() {
                self.publish_index(socket);
            }
        }
        if self.consumer.unpublished() > 0 {
            self.watch.position.store(self.consumer.next(), Ordering::Relaxed);
            // A drained ring gives everything back, so that the peer knows what has arrived.
            if drained || self.consumer.peek(self.watch.peer.ring()).is_none() {
                self.publish_index(socket);
            }
        }
        if drained && done == 0 && !self.segments.is_fetching() {
            self.check_end()?;
        }
        Ok(done)
    }

    /// Whether a poll hands up more than frames.
    #[inline]
    fn has_to_report(&self) -> bool {
        !self.released.is_empty() || self.starving || self.segments.is_fetching()
    }

    /// Shows the next frame, after taking the one before if told to. What is wrong with a frame is for [`Open::poll`] to say.
    #[inline]
    pub(crate) fn peek(&mut self, take: bool, looks: u32, socket: &GuardedFd) -> Peek<'_> {
        if take {
            self.take_shown(socket);
        }
        if self.has_to_report() {
            return Peek::Poll;
        }
        let Some(head) =
            self.consumer.peek(self.watch.peer.ring()).or_else(|| self.look_again(looks, socket))
        else {
            return Peek::Nothing;
        };
        let header = header_of(head);
        if !is_known(header.kind) {
            return Peek::Poll;
        }
        let peer = &self.watch.peer;
        let slot = self.consumer.slot(peer.ring());
        let len = (head.first >> 16) as u16;
        let (body, windowed) = if usize::from(len) <= PAYLOAD_LEN {
            (peer.slot_body(slot, usize::from(len)), 0)
        } else if len == WINDOWED {
            let (offset, len) = place_of(slot.payload_word(0));
            match peer.window_body(offset, len) {
                Some(body) => (body, len),
                None => return Peek::Poll,
            }
        } else {
            return Peek::Poll;
        };
        self.peeked = Some(windowed as u32);
        Peek::Frame(Peeked { header, body })
    }

    /// The head of the next frame, which is not there at the first of `looks`.
    #[inline]
    fn look_again(&mut self, looks: u32, socket: &GuardedFd) -> Option<Head> {
        // A drained ring gives everything back, so that the peer knows what has arrived.
        if self.consumer.unpublished() > 0 {
            self.publish_index(socket);
        }
        let ring = self.watch.peer.ring();
        (1..looks).find_map(|_| {
            std::hint::spin_loop();
            self.consumer.peek(ring)
        })
    }

    /// Takes the frame that was shown.
    pub(crate) fn take_peeked(&mut self, socket: &GuardedFd) {
        self.take_shown(socket);
    }

    #[inline(always)]
    fn take_shown(&mut self, socket: &GuardedFd) {
        let Some(windowed) = self.peeked.take() else { return };
        self.taken += windowed as usize;
        self.consumer.advance();
        self.watch.position.store(self.consumer.next(), Ordering::Relaxed);
        if self.has_much_to_give_back() {
            self.publish_index(socket);
        }
    }

    /// Whether the peer should hear of room before the ring is drained.
    #[inline]
    fn has_much_to_give_back(&self) -> bool {
        self.consumer.unpublished() >= self.consumer.slots() / 4 || self.taken >= self.taken_max
    }

    /// Reports releases, room and ended fetches; how many.
    #[cold]
    fn report(&mut self, sink: &mut dyn Sink) -> Result<usize, LaneError> {
        let mut done = 0;
        while let Some(token) = self.released.pop_front() {
            sink.released(token);
            done += 1;
        }
        if self.starving && self.check_room()? {
            done += 1;
        }
        if self.segments.is_fetching() {
            done += self.segments.step(sink, &self.watch.peer, &mut self.across);
            self.tell_wanted();
        }
        self.watch.pending.store(self.segments.is_fetching(), Ordering::Relaxed);
        Ok(done)
    }

    /// Hands up the next frame, if there is one: of which kind it was.
    #[inline]
    fn take_one(&mut self, sink: &mut dyn Sink) -> Result<Option<Kind>, LaneError> {
        let ring = self.watch.peer.ring();
        let Some(head) = self.consumer.peek(ring) else { return Ok(None) };
        let slot = self.consumer.slot(ring);
        let header = header_of(head);
        if !is_known(header.kind) {
            return Err(broken("kind of a frame"));
        }
        let len = (head.first >> 16) as u16;
        let body = if usize::from(len) <= PAYLOAD_LEN {
            self.watch.peer.slot_body(slot, usize::from(len))
        } else if len == WINDOWED {
            let (offset, len) = place_of(slot.payload_word(0));
            self.taken += len;
            match self.watch.peer.window_body(offset, len) {
                Some(body) => body,
                None => return Err(broken("place of a body")),
            }
        } else {
            return Err(broken("length of a frame"));
        };
        // Before the sink is called: should it panic, the frame is not handed up twice.
        self.consumer.advance();
        sink.frame(&header, body);
        if header.kind == Kind::DATA && self.across.is_timing() {
            self.across.piece_came(header.tag, header.offset(), body.len(), Instant::now());
        }
        Ok(Some(header.kind))
    }

    /// Gives room back to the peer, and wakes it if it waits for that.
    #[inline]
    fn publish_index(&mut self, socket: &GuardedFd) {
        self.consumer.publish(&self.watch.own.control().consumed);
        self.watch.position.store(self.consumer.next(), Ordering::Relaxed);
        self.taken = 0;
        self.barrier.light();
        if self.watch.peer.control().starving.load(Ordering::Relaxed) != 0 {
            self.notify(socket);
        }
    }

    /// Whether the peer has ended, once there is no frame.
    #[inline]
    fn check_end(&mut self) -> Result<(), LaneError> {
        let closed = self.watch.peer.control().closed.load(Ordering::Acquire);
        if closed == 0 && !self.watch.ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.end_seen(closed)
    }

    #[cold]
    fn end_seen(&mut self, closed: u64) -> Result<(), LaneError> {
        // Frames that were published before the end come first.
        std::sync::atomic::fence(Ordering::Acquire);
        if self.consumer.peek(self.watch.peer.ring()).is_some() {
            return Ok(());
        }
        let error = |kind, object| TransportError::new(kind, "shared-memory lane", object);
        Err(match closed {
            0 => error(ErrorKind::PeerDead, "the peer's process ended"),
            REFUSED => error(ErrorKind::Broken, "closed by the peer")
                .hint("the peer says that this side broke the protocol: are both of the same version?"),
            _ => error(ErrorKind::Broken, "closed by the peer"),
        })
    }

    /// Asks to be woken when the peer has taken more, and wakes the peer again if it has not taken everything: a hint or a
    /// ring may have been lost to a third.
    pub(crate) fn nudge(&mut self, socket: &GuardedFd) {
        // A forged index is found by the next post or poll.
        let _ = self.refresh();
        if self.unacknowledged() > 0 {
            self.starve();
            self.waker.forget();
            self.notify(socket);
        }
    }

    /// Tells the peer that this side has ended.
    pub(crate) fn announce_end(&mut self, why: u64, socket: &GuardedFd) {
        // Memory that was described goes back to its owner with the lane.
        self.recall();
        let closed = &self.watch.own.control().closed;
        if closed.load(Ordering::Relaxed) == 0 {
            closed.store(why, Ordering::Release);
            self.notify(socket);
        }
    }

    /// Tells the peer which messages to describe so that they can be read across.
    pub(crate) fn tell_wanted(&self) {
        let (word, wanted) = (&self.watch.own.control().reads, self.across.wanted());
        if word.load(Ordering::Relaxed) != wanted {
            word.store(wanted, Ordering::Relaxed);
        }
    }

    /// How often memory that was described has been taken back: the low half, which descriptors carry.
    pub(crate) fn recalled(&self) -> u32 {
        self.watch.own.control().recalled.load(Ordering::Relaxed) as u32
    }

    /// From now on the peer believes nothing of what was described.
    pub(crate) fn recall(&self) {
        self.watch.own.control().recalled.fetch_add(1, Ordering::Relaxed);
        // The word is stored before whatever the owner of the memory writes there.
        fence(Ordering::SeqCst);
    }

    /// Frames that the peer is not known to have taken.
    pub(crate) fn unacknowledged(&self) -> u64 {
        let seen = self.watch.peer.control().consumed.load(Ordering::Relaxed);
        self.producer.next() - seen.clamp(self.producer.consumed(), self.producer.next())
    }

    /// Reads back from the own half what the peer is not known to have taken.
    pub(crate) fn recover(&mut self) -> Vec<Unacknowledged> {
        self.released.clear();
        self.segments.revoke_all();
        if std::mem::replace(&mut self.recovered, true) {
            return Vec::new();
        }
        let first = self.producer.next() - self.unacknowledged();
        let mut frames = Vec::new();
        for index in first..self.producer.next() {
            let (head, payload) = self.producer.read_back(self.watch.own.ring(), index);
            let len = (head.first >> 16) as u16;
            let body = if len == WINDOWED {
                let (offset, len) = place_of(payload[0]);
                self.watch.own.read_back(offset, len).unwrap_or_default()
            } else {
                let bytes: Vec<u8> = payload.iter().flat_map(|word| word.to_le_bytes()).collect();
                bytes[..usize::from(len).min(PAYLOAD_LEN)].to_vec()
            };
            frames.push(Unacknowledged { header: header_of(head), body: UnacknowledgedBody::Owned(body) });
        }
        frames
    }
}

#[cold]
#[inline(never)]
fn hint(bell: &Bell, socket: &GuardedFd) {
    bell.hint(socket);
}

#[cold]
#[inline(never)]
fn ring(bell: &Bell, socket: &GuardedFd) {
    bell.ring(socket);
}

/// Whether a session may have a frame of this kind.
#[inline]
fn is_known(kind: Kind) -> bool {
    // One comparison for both ends: nothing is below the empty kind.
    const { assert!(Kind::EMPTY.0 == 0) };
    kind.0.wrapping_sub(1) < Kind::LANE_PRIVATE - 1
}

/// Offset and length of a body in the window.
#[inline]
const fn place_of(word: u64) -> (usize, usize) {
    ((word & 0xffff_ffff) as usize, (word >> 32) as usize)
}

/// A frame's header as a slot has it; any words give one.
#[inline]
fn header_of(head: Head) -> Header {
    Header {
        kind: Kind((head.first >> 8) as u8),
        flags: Flags((head.third >> 32) as u8),
        dst: (head.first >> 32) as u32,
        src: head.third as u32,
        tag: head.second,
    }
}

/// At most 40 bytes of body as words, without a call.
#[inline]
fn words_of(bytes: &[u8]) -> [u64; PAYLOAD_WORDS] {
    let mut words = [0; PAYLOAD_WORDS];
    let Some(last) = bytes.last_chunk::<8>() else {
        words[0] = short_word(bytes);
        return words;
    };
    let (whole, rest) = bytes.as_chunks::<8>();
    for (word, bytes) in words.iter_mut().zip(whole) {
        *word = u64::from_le_bytes(*bytes);
    }
    if !rest.is_empty()
        && let Some(word) = words.get_mut(whole.len())
    {
        *word = u64::from_le_bytes(*last) >> (8 * (8 - rest.len()));
    }
    words
}

/// Fewer than eight bytes as a word.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let shift = 8 * (bytes.len() - 4);
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << shift;
    }
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_body_becomes_its_words() {
        let bytes: Vec<u8> = (1..=40).collect();
        for len in 0..=40 {
            let out: Vec<u8> = words_of(&bytes[..len]).iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(out[..len], bytes[..len]);
            assert!(out[len..].iter().all(|&byte| byte == 0), "{len}");
        }
    }
}
