//! The sixteen oldest posted receives, findable without touching them: a byte of fingerprint each, compared all at once.
//!
//! Used by the posted queue only. A ring of lanes in the order of age, with holes where younger ones went first.

const LANES: u32 = 16;
const EACH: u64 = 0x0101_0101_0101_0101;
const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// A byte that differs for most tags that differ.
#[inline]
pub(super) const fn fingerprint(tag: u64) -> u8 {
    (tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

#[derive(Debug)]
pub(super) struct Window {
    prints: [u64; 2],
    places: [u32; LANES as usize],
    live: u16,
    /// Lanes whose pattern has a mask: their fingerprint says nothing.
    masked: u16,
    /// Lane of the oldest entry, and how many lanes from there on were given out.
    head: u32,
    span: u32,
}

impl Window {
    pub(super) const fn new() -> Self {
        Self { prints: [0; 2], places: [0; LANES as usize], live: 0, masked: 0, head: 0, span: 0 }
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Whether [`Window::push`] has room, after closing holes if that is worth it.
    #[inline]
    pub(super) fn has_room(&mut self) -> bool {
        if self.span == LANES && self.live.count_ones() <= LANES / 2 {
            self.close_holes();
        }
        self.span < LANES
    }

    /// Few enough entries to take a batch of younger ones in.
    #[inline]
    pub(super) const fn wants_refill(&self) -> bool {
        self.live.count_ones() <= LANES / 4
    }

    /// Adds an entry younger than all others. The caller asked [`Window::has_room`].
    #[inline]
    pub(super) fn push(&mut self, place: u32, print: u8, masked: bool) {
        let lane = (self.head + self.span) % LANES;
        self.span += 1;
        self.places[lane as usize] = place;
        let shift = lane % 8 * 8;
        let word = &mut self.prints[lane as usize / 8];
        *word = *word & !(0xff << shift) | u64::from(print) << shift;
        self.live |= 1 << lane;
        self.masked = self.masked & !(1 << lane) | u16::from(masked) << lane;
    }

    /// Removes the entry at an offset from the oldest.
    #[inline]
    pub(super) fn remove(&mut self, offset: u32) {
        self.live &= !(1 << ((self.head + offset) % LANES));
        if self.live == 0 {
            self.span = 0;
            return;
        }
        if offset == 0 {
            let skipped = self.live.rotate_right(self.head).trailing_zeros();
            self.head = (self.head + skipped) % LANES;
            self.span -= skipped;
        }
    }

    /// Place of the oldest entry. Only when not empty.
    #[inline]
    pub(super) const fn oldest(&self) -> u32 {
        self.places[self.head as usize]
    }

    /// Entries behind the oldest that may match, as offsets from it in the order of age: a bit each.
    #[inline]
    pub(super) const fn candidates(&self, print: u8) -> u16 {
        let equal = zero_bytes(self.prints[0] ^ (EACH * print as u64))
            | zero_bytes(self.prints[1] ^ (EACH * print as u64)) << 8;
        ((equal | self.masked) & self.live).rotate_right(self.head) & !1
    }

    /// Place at an offset from the oldest.
    #[inline]
    pub(super) const fn place(&self, offset: u32) -> u32 {
        self.places[((self.head + offset) % LANES) as usize]
    }

    #[cold]
    fn close_holes(&mut self) {
        let mut fresh = Self::new();
        for offset in 0..self.span {
            let lane = (self.head + offset) % LANES;
            if self.live & 1 << lane != 0 {
                let print = (self.prints[lane as usize / 8] >> (lane % 8 * 8)) as u8;
                fresh.push(self.places[lane as usize], print, self.masked & 1 << lane != 0);
            }
        }
        *self = fresh;
    }

    /// Offset from the oldest and place of each entry, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..self.span)
            .map(|offset| (offset, (self.head + offset) % LANES))
            .filter(|(_, lane)| self.live & 1 << lane != 0)
            .map(|(offset, lane)| (offset, self.places[lane as usize]))
    }
}

/// One bit for each byte that is zero, the lowest byte's first.
#[inline]
const fn zero_bytes(word: u64) -> u16 {
    let nonzero_high = ((word & LOW) + LOW) | word;
    let zero = !nonzero_high & !LOW;
    ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u16
}
