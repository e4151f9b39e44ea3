//! What happens to frames: posting into the own half (`post`), polling the peer's (`take`), waking, reading back; and what
//! caches are told meanwhile (`ahead`).
//!
//! Called by the lane for every frame. No system call, no lock, no allocation for a frame but the first use of a queue;
//! the only exceptions are the ones it is told to make: ringing a sleeper.
//!
//! # Slots
//! Word 0 {lap 8, kind 8, length 16, dst 32}, word 1 tag, word 2 {src 32, flags 8, zero 24}, then 40 bytes of body. A body
//! that does not fit has the length [`WINDOWED`] and one word {offset 32, length 32} of the window.

mod ahead;
mod post;
mod take;

use self::ahead::Ahead;
use super::segments::Segments;
use super::setup::Bell;
use crate::across::Across;
use crate::half::{DomainControl, Page};
use crate::options::ShmOptions;
use crate::registry::Watch;
use crate::shared::ring::{Consumer, Head, PAYLOAD_LEN, Producer};
use crate::shared::sleep::{Barrier, Waker};
use crate::window::{Mark, Window};
use sinew_base::guarded::GuardedFd;
use sinew_transport::{Token, Unacknowledged, UnacknowledgedBody};
use sinew_wire::frame::{Flags, Header, Kind};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

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
    /// Room came back while this side waited for it, and no poll has told so.
    room_found: bool,
    /// The peer has given room back since this side last waited for it in vain.
    patient: bool,
    ahead: Ahead,
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
            room_found: false,
            patient: true,
            ahead: Ahead::default(),
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

    /// Asks to be woken when the peer has taken more, and wakes the peer again if it has not taken everything: a hint or a
    /// ring may have been lost to a third.
    pub(crate) fn nudge(&mut self, socket: &GuardedFd) {
        // A forged index is found by the next post or poll.
        let moved = self.refresh() == Ok(true);
        self.room_found |= moved && self.starving;
        if self.unacknowledged() > 0 {
            // Who waits already has waited since an older index.
            if !self.starving {
                self.starve();
            }
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
