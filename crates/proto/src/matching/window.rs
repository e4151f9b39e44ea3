//! The oldest posted receives, at most sixteen: the oldest is compared at once, the others by a byte of fingerprint each, all
//! together.
//!
//! Used by the posted queue only. A ring in the order of age, with holes where younger receives went first. There is memory
//! for four until more are posted.

use super::{Compiled, Key};

const LANES_FIRST: usize = 4;
const LANES_MAX: usize = 16;
const EACH: u64 = 0x0101_0101_0101_0101;
const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// A byte that differs for most tags that differ.
#[inline]
const fn fingerprint(tag: u64) -> u8 {
    (tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// A receive in the window.
#[derive(Debug)]
pub(super) struct Lane<P> {
    pub(super) wanted: Compiled,
    pub(super) name: u64,
    /// `None` where there is no receive.
    pub(super) handle: Option<P>,
}

#[derive(Debug)]
pub(super) struct Window<P> {
    /// A power of two of them; the receive at an offset from the oldest is in lane `head + offset`, modulo their number.
    lanes: Box<[Lane<P>]>,
    head: u32,
    /// How many offsets were given out; what follows counts by offset and is zero beyond.
    span: u32,
    /// A bit for each offset that holds a receive, and for each whose tag is masked, so that its print says nothing.
    live: u32,
    masked: u32,
    /// A byte for each offset.
    prints: [u64; 2],
}

impl<P> Window<P> {
    pub(super) fn new() -> Self {
        Self::with(lanes(LANES_FIRST))
    }

    const fn with(lanes: Box<[Lane<P>]>) -> Self {
        Self { lanes, head: 0, span: 0, live: 0, masked: 0, prints: [0; 2] }
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub(super) const fn len(&self) -> usize {
        self.live.count_ones() as usize
    }

    /// Whether [`Window::push`] has room, after closing holes or growing if need be.
    #[inline]
    pub(super) fn has_room(&mut self) -> bool {
        (self.span as usize) < self.lanes.len() || self.make_room()
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self) -> bool {
        if self.lanes.len() < LANES_MAX {
            self.move_to(lanes(LANES_MAX));
        } else if self.len() <= LANES_MAX / 2 {
            self.close_holes();
        }
        (self.span as usize) < self.lanes.len()
    }

    /// Few enough receives to take a batch of younger ones in.
    #[inline]
    pub(super) const fn wants_refill(&self) -> bool {
        self.len() <= LANES_MAX / 4
    }

    /// Adds a receive younger than all others. The caller asked [`Window::has_room`].
    #[inline]
    pub(super) fn push(&mut self, wanted: &Compiled, name: u64, handle: P) {
        let offset = self.span;
        self.span += 1;
        let lane = self.lane_mut(offset);
        lane.wanted = *wanted;
        lane.name = name;
        lane.handle = Some(handle);
        self.note(offset, wanted);
    }

    /// Writes the bits and the print of an offset that has none.
    #[inline]
    fn note(&mut self, offset: u32, wanted: &Compiled) {
        self.prints[offset as usize / 8 % 2] |= u64::from(fingerprint(wanted.tag)) << (offset % 8 * 8);
        self.masked |= u32::from(wanted.kind.tag_bits != u64::MAX) << offset;
        self.live |= 1 << offset;
    }

    #[inline]
    fn lane(&self, offset: u32) -> &Lane<P> {
        let mask = self.lanes.len() - 1;
        &self.lanes[(self.head + offset) as usize & mask]
    }

    #[inline]
    fn lane_mut(&mut self, offset: u32) -> &mut Lane<P> {
        let mask = self.lanes.len() - 1;
        &mut self.lanes[(self.head + offset) as usize & mask]
    }

    /// Whether the oldest accepts the message. Only when not empty.
    #[inline]
    pub(super) fn oldest_accepts(&self, key: &Key) -> bool {
        self.lane(0).wanted.accepts(key)
    }

    /// Offset from the oldest of the oldest receive behind it that accepts the message.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        let print = EACH * u64::from(fingerprint(key.tag));
        let equal = zero_bytes(self.prints[0] ^ print) | zero_bytes(self.prints[1] ^ print) << 8;
        let mut candidates = (equal | self.masked) & self.live & !1;
        while candidates != 0 {
            let offset = candidates.trailing_zeros();
            if self.lane(offset).wanted.accepts(key) {
                return Some(offset);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// Removes the receive at an offset from the oldest.
    #[inline]
    pub(super) fn remove(&mut self, offset: u32) -> Option<P> {
        let handle = self.lane_mut(offset).handle.take();
        self.live &= !(1 << offset);
        if self.live & 1 == 0 {
            self.skip();
        }
        handle
    }

    /// Makes the oldest that is left offset 0.
    #[inline]
    fn skip(&mut self) {
        if self.live == 0 {
            (self.span, self.masked, self.prints) = (0, 0, [0; 2]);
            return;
        }
        let by = self.live.trailing_zeros();
        self.head = self.head.wrapping_add(by);
        self.span -= by;
        self.live >>= by;
        self.masked >>= by;
        let prints = (u128::from(self.prints[1]) << 64 | u128::from(self.prints[0])) >> (by * 8);
        self.prints = [prints as u64, (prints >> 64) as u64];
    }

    #[inline(never)]
    fn move_to(&mut self, lanes: Box<[Lane<P>]>) {
        let mut old = std::mem::replace(self, Self::with(lanes));
        for offset in 0..old.span {
            let lane = old.lane_mut(offset);
            if let Some(handle) = lane.handle.take() {
                self.push(&lane.wanted, lane.name, handle);
            }
        }
    }

    /// Moves all receives close together.
    fn close_holes(&mut self) {
        let span = self.span;
        (self.span, self.live, self.masked, self.prints) = (0, 0, 0, [0; 2]);
        for offset in 0..span {
            let lane = self.lane_mut(offset);
            if let Some(handle) = lane.handle.take() {
                let (wanted, name) = (lane.wanted, lane.name);
                self.push(&wanted, name, handle);
            }
        }
    }

    /// Offset from the oldest, and receive, of each, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, &Lane<P>)> {
        (0..self.span).map(|offset| (offset, self.lane(offset))).filter(|(_, lane)| lane.handle.is_some())
    }
}

fn lanes<P>(count: usize) -> Box<[Lane<P>]> {
    (0..count).map(|_| Lane { wanted: Compiled::NOTHING, name: 0, handle: None }).collect()
}

/// One bit for each byte that is zero, the lowest byte's first.
#[inline]
const fn zero_bytes(word: u64) -> u32 {
    let nonzero_high = ((word & LOW) + LOW) | word;
    let zero = !nonzero_high & !LOW;
    ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}
