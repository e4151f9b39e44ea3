//! The ring: slots of one cache line, one producer, one consumer, published by one store.
//!
//! Called by the lane (producer over its own memory, consumer over the peer's, which it only reads). It knows nothing of
//! what the words mean beyond the lap in the lowest byte of word 0, and believes nothing of the peer: a foreign consumer
//! index is checked against what was produced, a foreign slot gives words and nothing else.
//!
//! Slots are loaded with relaxed loads and an acquire fence because the consumer's mapping is read-only, where Rust
//! guarantees nothing stronger.

use super::sync::{AtomicU64, Ordering, fence};

/// Payload words of a slot, after word 0 (lap and head), word 1 and word 2.
pub const PAYLOAD_WORDS: usize = 5;
/// Payload bytes of a slot.
pub const PAYLOAD_LEN: usize = PAYLOAD_WORDS * 8;
/// Offset of the payload in a slot.
pub const PAYLOAD_AT: usize = 24;

/// One slot: one cache line.
#[repr(C, align(64))]
#[derive(Default, Debug)]
pub struct Slot {
    words: [AtomicU64; 8],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 64 && align_of::<Slot>() == 64);

/// The three words in front of a slot's payload. The lowest byte of the first belongs to the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Word 0 without its lowest byte, which is zero here.
    pub first: u64,
    /// Word 1.
    pub second: u64,
    /// Word 2.
    pub third: u64,
}

/// A consumer index that the peer cannot have reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forged;

/// Lap of the slot at `index`: counts up each time around, starts at 1, so that zeroed memory is empty.
#[inline]
const fn lap(index: u64, shift: u32) -> u64 {
    ((index >> shift) + 1) & 0xff
}

/// The writing end. Owns the ring's memory.
#[derive(Debug)]
pub struct Producer {
    next: u64,
    consumed: u64,
    mask: u64,
    shift: u32,
}

impl Producer {
    /// A producer over `slots` slots, a power of two.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        assert!(slots.is_power_of_two(), "a ring of {slots} slots");
        Self { next: 0, consumed: 0, mask: slots as u64 - 1, shift: slots.trailing_zeros() }
    }

    /// Frames published so far.
    #[must_use]
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Frames that the consumer was last seen to be done with.
    #[must_use]
    #[inline]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether a frame fits, by what is known without looking at the consumer's index.
    #[must_use]
    #[inline]
    pub fn has_room(&self) -> bool {
        self.next - self.consumed <= self.mask
    }

    /// Looks at the consumer's index; whether it moved.
    ///
    /// # Errors
    /// The index is behind what it was, or beyond what was produced.
    #[inline]
    pub fn refresh(&mut self, index: &AtomicU64) -> Result<bool, Forged> {
        let seen = index.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if seen < self.consumed || seen > self.next {
            return Err(Forged);
        }
        let moved = seen != self.consumed;
        self.consumed = seen;
        Ok(moved)
    }

    /// Writes and publishes one frame of which `used` payload bytes count. The caller has seen [`Producer::has_room`].
    #[inline]
    pub fn publish(&mut self, ring: &[Slot], head: Head, payload: &[u64; PAYLOAD_WORDS], used: usize) {
        debug_assert!(self.has_room() && head.first & 0xff == 0);
        let slot = &ring[(self.next & self.mask) as usize];
        slot.words[1].store(head.second, Ordering::Relaxed);
        slot.words[2].store(head.third, Ordering::Relaxed);
        slot.words[3].store(payload[0], Ordering::Relaxed);
        if used > 8 {
            // All at once: they share the line, and a loop costs more than four stores.
            for (at, word) in payload.iter().enumerate().skip(1) {
                slot.words[3 + at].store(*word, Ordering::Relaxed);
            }
        }
        slot.words[0].store(head.first | lap(self.next, self.shift), Ordering::Release);
        self.next += 1;
    }

    /// Asks for the line of the next slot as to be written.
    #[cfg(not(loom))]
    #[inline]
    pub fn ask_for_slot(&self, ring: &[Slot]) {
        sinew_base::copy::soon_written(core::ptr::from_ref(&ring[(self.next & self.mask) as usize]).cast());
    }

    /// Reads back the frame `index`, which is not overwritten yet: at most one ring behind [`Producer::next`].
    #[must_use]
    pub fn read_back(&self, ring: &[Slot], index: u64) -> (Head, [u64; PAYLOAD_WORDS]) {
        let slot = &ring[(index & self.mask) as usize];
        let word = |at: usize| slot.words[at].load(Ordering::Relaxed);
        let head = Head { first: word(0) & !0xff, second: word(1), third: word(2) };
        (head, std::array::from_fn(|at| word(3 + at)))
    }
}

/// The reading end. Its ring lies in the peer's memory.
#[derive(Debug)]
pub struct Consumer {
    next: u64,
    published: u64,
    mask: u64,
    /// What the lowest byte of word 0 is in the next frame.
    lap: u64,
}

impl Consumer {
    /// A consumer over `slots` slots, a power of two.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        assert!(slots.is_power_of_two(), "a ring of {slots} slots");
        Self { next: 0, published: 0, mask: slots as u64 - 1, lap: lap(0, slots.trailing_zeros()) }
    }

    /// Frames taken so far.
    #[must_use]
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The slot of the next frame.
    #[must_use]
    #[inline]
    pub fn slot<'a>(&self, ring: &'a [Slot]) -> &'a Slot {
        &ring[(self.next & self.mask) as usize]
    }

    /// The head of the next frame, if it is published. The payload may be read afterwards.
    #[must_use]
    #[inline]
    pub fn peek(&self, ring: &[Slot]) -> Option<Head> {
        let slot = self.slot(ring);
        let first = slot.words[0].load(Ordering::Relaxed);
        if first & 0xff != self.lap {
            return None;
        }
        fence(Ordering::Acquire);
        let second = slot.words[1].load(Ordering::Relaxed);
        let third = slot.words[2].load(Ordering::Relaxed);
        Some(Head { first: first & !0xff, second, third })
    }

    /// Takes the frame that [`Consumer::peek`] showed. Its slot stays valid until [`Consumer::publish`].
    #[inline]
    pub fn advance(&mut self) {
        self.next += 1;
        if self.next & self.mask == 0 {
            self.lap = (self.lap + 1) & 0xff;
        }
    }

    /// Frames taken since the index was last published.
    #[must_use]
    #[inline]
    pub fn unpublished(&self) -> u64 {
        self.next - self.published
    }

    /// Slots of the ring.
    #[must_use]
    #[inline]
    pub fn slots(&self) -> u64 {
        self.mask + 1
    }

    /// Tells the producer what it may overwrite.
    #[inline]
    pub fn publish(&mut self, index: &AtomicU64) {
        index.store(self.next, Ordering::Release);
        self.published = self.next;
    }
}

/// Whether the frame at `index` is published in a ring of `1 << shift` slots: [`Consumer::peek`] for whoever only watches.
#[must_use]
#[inline]
pub fn is_published(ring: &[Slot], index: u64) -> bool {
    let shift = ring.len().trailing_zeros();
    let slot = &ring[(index & (ring.len() as u64 - 1)) as usize];
    let there = slot.words[0].load(Ordering::Relaxed) & 0xff == lap(index, shift);
    fence(Ordering::Acquire);
    there
}

#[cfg(not(loom))]
impl Slot {
    /// First byte of the payload.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> *const u8 {
        core::ptr::from_ref(self).cast::<u8>().wrapping_add(PAYLOAD_AT)
    }

    /// One payload word.
    #[must_use]
    #[inline]
    pub fn payload_word(&self, at: usize) -> u64 {
        self.words[3 + at].load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_in_order_over_three_hundred_laps() {
        let ring: Vec<Slot> = (0..4).map(|_| Slot::default()).collect();
        let (mut producer, mut consumer) = (Producer::new(4), Consumer::new(4));
        let index = AtomicU64::new(0);
        for round in 0..1200u64 {
            let head = Head { first: round << 8, second: round, third: !round };
            assert!(producer.has_room());
            assert_eq!(consumer.peek(&ring), None);
            producer.publish(&ring, head, &[round; 5], 40);
            assert_eq!(consumer.peek(&ring), Some(head));
            assert_eq!(consumer.slot(&ring).payload_word(4), round);
            consumer.advance();
            consumer.publish(&index);
            assert_eq!(producer.refresh(&index), Ok(true));
        }
    }

    #[test]
    fn a_full_ring_takes_nothing_until_the_index_moves() {
        let ring: Vec<Slot> = (0..2).map(|_| Slot::default()).collect();
        let mut producer = Producer::new(2);
        let index = AtomicU64::new(0);
        let head = Head { first: 0, second: 0, third: 0 };
        producer.publish(&ring, head, &[0; 5], 0);
        producer.publish(&ring, head, &[0; 5], 0);
        assert!(!producer.has_room());
        assert_eq!(producer.refresh(&index), Ok(false));
        index.store(1, Ordering::Relaxed);
        assert_eq!(producer.refresh(&index), Ok(true));
        assert!(producer.has_room());
    }

    #[test]
    fn a_forged_index_is_refused() {
        let mut producer = Producer::new(2);
        assert_eq!(producer.refresh(&AtomicU64::new(1)), Err(Forged));
        assert_eq!(producer.refresh(&AtomicU64::new(u64::MAX)), Err(Forged));
    }
}
