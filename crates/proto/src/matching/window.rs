//! The oldest posted receives, at most sixty-four: the oldest is compared at once, the others by a byte of fingerprint each,
//! all together.
//!
//! Used by the posted queue only. A ring in the order of age, with holes where younger receives went first. Positions run
//! modulo sixty-four; there is memory for four until more are posted.

use super::{Compiled, Key};

const POSITIONS: u32 = 64;
const LANES_FIRST: usize = 4;
const LANES_MAX: usize = POSITIONS as usize;

/// A byte that differs for most tags that differ.
#[inline]
const fn fingerprint(tag: u64) -> u8 {
    (tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// A receive in the window. It stays in its lane while its position changes.
#[derive(Debug)]
pub(super) struct Lane<P> {
    pub(super) wanted: Compiled,
    pub(super) name: u64,
    /// `None` where there is no receive.
    pub(super) handle: Option<P>,
}

#[derive(Debug)]
pub(super) struct Window<P> {
    /// A power of two of them.
    lanes: Box<[Lane<P>]>,
    /// A bit for each lane without a receive, and the lane of each position.
    free: u64,
    lane_of: [u8; LANES_MAX],
    /// Position of the oldest, and how many positions from there on were given out.
    head: u32,
    span: u32,
    /// A bit for each position that holds a receive, and for each whose tag is masked, so that its print says nothing.
    live: u64,
    masked: u64,
    /// A byte for each position.
    prints: [u64; 8],
    /// A bit for each print: none is set in vain for long, and none is missing. What it does not have needs no search.
    known: [u64; 4],
    /// Receives that have gone since `known` was made.
    gone: u32,
}

/// Receives that may have gone before [`Window::known`] is made anew.
const GONE_MAX: u32 = 16;

impl<P> Window<P> {
    pub(super) fn new() -> Self {
        Self::with(lanes(LANES_FIRST))
    }

    const fn with(lanes: Box<[Lane<P>]>) -> Self {
        Self {
            free: u64::MAX >> (LANES_MAX - lanes.len()),
            lanes,
            lane_of: [0; LANES_MAX],
            head: 0,
            span: 0,
            live: 0,
            masked: 0,
            prints: [0; 8],
            known: [0; 4],
            gone: 0,
        }
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
        if self.lanes.len() < LANES_MAX && self.len() > self.lanes.len() / 2 {
            self.grow();
        } else if self.span as usize - self.len() >= self.lanes.len() / 4 {
            // So many go in before it is done again.
            self.close_holes();
        }
        (self.span as usize) < self.lanes.len()
    }

    /// Few enough receives to take a batch of younger ones in, however old some are that stay.
    #[inline]
    pub(super) const fn wants_refill(&self) -> bool {
        self.len() <= LANES_MAX - LANES_MAX / 4
    }

    /// Adds a receive younger than all others. The caller asked [`Window::has_room`].
    #[inline]
    pub(super) fn push(&mut self, wanted: &Compiled, name: u64, handle: P) {
        let position = (self.head + self.span) % POSITIONS;
        self.span += 1;
        let number = self.free.trailing_zeros();
        self.free &= self.free - 1;
        self.lane_of[position as usize] = number as u8;
        let lane = self.lane_mut(position);
        lane.wanted = *wanted;
        lane.name = name;
        lane.handle = Some(handle);
        let shift = position % 8 * 8;
        let print = fingerprint(wanted.tag);
        let word = &mut self.prints[position as usize / 8];
        *word = *word & !(0xff << shift) | u64::from(print) << shift;
        self.known[usize::from(print >> 6)] |= 1 << (print & 63);
        let bit = 1 << position;
        self.live |= bit;
        self.masked = if wanted.kind.tag_bits == u64::MAX { self.masked & !bit } else { self.masked | bit };
    }

    #[inline]
    fn lane(&self, position: u32) -> &Lane<P> {
        let mask = self.lanes.len() - 1;
        &self.lanes[usize::from(self.lane_of[(position % POSITIONS) as usize]) & mask]
    }

    #[inline]
    fn lane_mut(&mut self, position: u32) -> &mut Lane<P> {
        let mask = self.lanes.len() - 1;
        &mut self.lanes[usize::from(self.lane_of[(position % POSITIONS) as usize]) & mask]
    }

    /// Whether the oldest accepts the message. Only when not empty.
    #[inline]
    pub(super) fn oldest_accepts(&self, key: &Key) -> bool {
        self.lane(self.head).wanted.accepts(key)
    }

    /// Whether any receive might accept the message, without asking one.
    #[inline(always)]
    pub(super) fn may_have(&self, key: &Key) -> bool {
        let print = fingerprint(key.tag);
        self.masked & self.live != 0 || self.known[usize::from(print >> 6)] & 1 << (print & 63) != 0
    }

    /// Whether any receive accepts the message.
    #[cold]
    #[inline(never)]
    pub(super) fn has(&self, key: &Key) -> bool {
        !self.is_empty() && (self.oldest_accepts(key) || self.find(key).is_some())
    }

    /// Position of the oldest receive that accepts the message, but for the very oldest, which was asked before.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        if !self.may_have(key) {
            return None;
        }
        let equal = equal_bytes(&self.prints, fingerprint(key.tag));
        let mut candidates = ((equal | self.masked) & self.live).rotate_right(self.head) & !1;
        while candidates != 0 {
            let position = (self.head + candidates.trailing_zeros()) % POSITIONS;
            if self.lane(position).wanted.accepts(key) {
                return Some(position);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// Position of the oldest. Only when not empty.
    #[inline]
    pub(super) const fn oldest(&self) -> u32 {
        self.head
    }

    /// What the receive at a position wants.
    pub(super) fn wanted(&self, position: u32) -> Compiled {
        self.lane(position).wanted
    }

    /// Removes the receive at a position.
    #[inline]
    pub(super) fn remove(&mut self, position: u32) -> Option<P> {
        let handle = self.lane_mut(position).handle.take();
        self.free |= 1 << self.lane_of[position as usize];
        self.live &= !(1 << position);
        self.gone += 1;
        if self.gone >= GONE_MAX {
            self.know();
        }
        if self.live == 0 {
            self.span = 0;
        } else if position == self.head {
            let skipped = self.live.rotate_right(self.head).trailing_zeros();
            self.head = (self.head + skipped) % POSITIONS;
            self.span -= skipped;
        }
        handle
    }

    /// Makes `known` anew, of what is there.
    #[inline(never)]
    fn know(&mut self) {
        (self.known, self.gone) = ([0; 4], 0);
        let mut rest = self.live;
        while rest != 0 {
            let position = rest.trailing_zeros();
            let print = self.print(position);
            self.known[usize::from(print >> 6)] |= 1 << (print & 63);
            rest &= rest - 1;
        }
    }

    fn grow(&mut self) {
        let count = self.lanes.len() * 4;
        let mut old = std::mem::replace(self, Self::with(lanes(count)));
        let mut rest = old.live.rotate_right(old.head);
        while rest != 0 {
            let lane = old.lane_mut(old.head + rest.trailing_zeros());
            rest &= rest - 1;
            if let Some(handle) = lane.handle.take() {
                self.push(&lane.wanted, lane.name, handle);
            }
        }
    }

    /// Moves all positions close together.
    fn close_holes(&mut self) {
        let mut prints = [0; LANES_MAX];
        let mut lane_of = [0; LANES_MAX];
        let (mut masked, mut count) = (0, 0);
        let mut rest = self.live.rotate_right(self.head);
        while rest != 0 {
            let position = (self.head + rest.trailing_zeros()) % POSITIONS;
            prints[count] = self.print(position);
            lane_of[count] = self.lane_of[position as usize];
            masked |= (self.masked >> position & 1) << count;
            count += 1;
            rest &= rest - 1;
        }
        (self.lane_of, self.masked) = (lane_of, masked);
        let (words, _) = prints.as_chunks::<8>();
        self.prints = std::array::from_fn(|at| u64::from_le_bytes(words[at]));
        (self.head, self.span) = (0, count as u32);
        self.live = u64::MAX.checked_shr((LANES_MAX - count) as u32).unwrap_or(0);
    }

    #[inline]
    fn print(&self, position: u32) -> u8 {
        (self.prints[position as usize / 8] >> (position % 8 * 8)) as u8
    }

    /// Position and receive of each, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, &Lane<P>)> {
        (0..self.span)
            .map(|offset| (self.head + offset) % POSITIONS)
            .filter(|position| self.live >> position & 1 != 0)
            .map(|position| (position, self.lane(position)))
    }
}

fn lanes<P>(count: usize) -> Box<[Lane<P>]> {
    (0..count).map(|_| Lane { wanted: Compiled::NOTHING, name: 0, handle: None }).collect()
}

/// One bit for each byte that it is, the lowest byte of the first word first. Without branches: where it is cannot be
/// foreseen. The first loop is made for vector registers.
#[inline]
fn equal_bytes(words: &[u64; 8], byte: u8) -> u64 {
    const GATHER: u64 = 0x0101_0101_0101_0101;
    let mut bits = [0_u8; 64];
    for (at, (bit, other)) in bits.iter_mut().zip(words.map(u64::to_le_bytes).as_flattened()).enumerate() {
        *bit = if *other == byte { 1 << (at % 8) } else { 0 };
    }
    let (bits, _) = bits.as_chunks::<8>();
    u64::from_le_bytes(std::array::from_fn(|at| {
        // Each byte has a bit of its own, so the sum of them all, which ends up on top, is their union.
        (u64::from_le_bytes(bits[at]).wrapping_mul(GATHER) >> 56) as u8
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_with_the_byte_is_found_and_no_other() {
        let mut seed = 7u64;
        for _ in 0..2000 {
            let mut words = [0; 8];
            for word in &mut words {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Few different bytes, the extremes among them.
                *word = seed & 0x8101_0081_ff01_8000;
            }
            for byte in [0, 1, 0x80, 0x81, 0xff, (seed >> 56) as u8] {
                let bytes = words.iter().flat_map(|word| word.to_le_bytes());
                let plain = bytes.enumerate().fold(0, |bits, (at, b)| bits | u64::from(b == byte) << at);
                assert_eq!(equal_bytes(&words, byte), plain);
            }
        }
    }
}
