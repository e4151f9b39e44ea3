//! A hash table from keys to queues: for each different key the places that have it, oldest first.
//!
//! Used by both queues. It stores place numbers only; who asks gives the keys of places by a closure. Places of one key hang
//! behind the oldest of them, so ten thousand equal keys cost a search for another key nothing.

use super::slab::NONE;

/// Links of one place in one table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Next key in the bucket; meaningful for the oldest place of a key only.
    chain: u32,
    /// Next younger place of the same key.
    younger: u32,
    /// Next older place of the same key; of the oldest, the youngest.
    older: u32,
}

impl Link {
    pub(super) const UNUSED: Self = Self { chain: NONE, younger: NONE, older: NONE };
}

/// A key with the bits that do not matter cleared.
pub(super) type Reduced = (u64, u64);

/// Spreads keys over buckets; the multipliers come from the matcher's seed, so that a peer cannot aim at one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hasher {
    tag: u64,
    source: u64,
}

impl Hasher {
    pub(super) const fn new(seed: u64) -> Self {
        Self { tag: mix(seed) | 1, source: mix(seed ^ 0x6a09_e667_f3bc_c908) | 1 }
    }

    #[inline]
    pub(super) const fn hash(&self, key: Reduced) -> u64 {
        let sum = key.0.wrapping_mul(self.tag).wrapping_add(key.1.wrapping_mul(self.source));
        (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

const fn mix(seed: u64) -> u64 {
    let first = (seed ^ seed >> 30).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let second = (first ^ first >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    second ^ second >> 31
}

/// The table of one kind of pattern.
#[derive(Debug)]
pub(super) struct Table {
    /// One bucket without heap, as most kinds have few keys.
    single: u32,
    /// A power of two of buckets, or none while `single` is enough.
    buckets: Vec<u32>,
    keys: u32,
}

const SINGLE_MAX: u32 = 2;
const BUCKETS_FIRST: usize = 32;

impl Table {
    pub(super) const fn new() -> Self {
        Self { single: NONE, buckets: Vec::new(), keys: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Whether it owns memory that is worth keeping.
    pub(super) const fn has_buckets(&self) -> bool {
        !self.buckets.is_empty()
    }

    /// Forgets everything, keeps its memory.
    pub(super) fn clear(&mut self) {
        self.single = NONE;
        self.buckets.fill(NONE);
        self.keys = 0;
    }

    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        (hash >> 32) as usize & self.buckets.len().wrapping_sub(1)
    }

    #[inline]
    fn first(&self, hash: u64) -> u32 {
        if self.buckets.is_empty() { self.single } else { self.buckets[self.bucket(hash)] }
    }

    #[inline]
    fn set_first(&mut self, hash: u64, at: u32) {
        if self.buckets.is_empty() {
            self.single = at;
        } else {
            let bucket = self.bucket(hash);
            self.buckets[bucket] = at;
        }
    }

    /// The oldest place with that key, or [`NONE`].
    #[inline]
    pub(super) fn find(
        &self,
        links: &[Link],
        hasher: &Hasher,
        key: Reduced,
        key_of: impl Fn(u32) -> Reduced,
    ) -> u32 {
        let mut at = if self.buckets.is_empty() { self.single } else { self.first(hasher.hash(key)) };
        while at != NONE && key_of(at) != key {
            at = links[at as usize].chain;
        }
        at
    }

    /// Adds a place as the youngest of its key.
    pub(super) fn append(
        &mut self,
        links: &mut [Link],
        hasher: &Hasher,
        at: u32,
        key_of: impl Fn(u32) -> Reduced,
    ) {
        let key = key_of(at);
        let oldest = self.find(links, hasher, key, &key_of);
        if oldest != NONE {
            let youngest = links[oldest as usize].older;
            links[youngest as usize].younger = at;
            links[at as usize] = Link { chain: NONE, younger: NONE, older: youngest };
            links[oldest as usize].older = at;
            return;
        }
        self.keys += 1;
        self.grow_if_needed(links, hasher, &key_of);
        let hash = hasher.hash(key);
        links[at as usize] = Link { chain: self.first(hash), younger: NONE, older: at };
        self.set_first(hash, at);
    }

    /// Removes a place that was appended.
    pub(super) fn remove(
        &mut self,
        links: &mut [Link],
        hasher: &Hasher,
        at: u32,
        key_of: impl Fn(u32) -> Reduced,
    ) {
        let Link { chain, younger, older } = links[at as usize];
        if links[older as usize].younger == at {
            links[older as usize].younger = younger;
            if younger == NONE {
                let oldest = self.find(links, hasher, key_of(at), key_of);
                links[oldest as usize].older = older;
            } else {
                links[younger as usize].older = older;
            }
            return;
        }
        let replacement = if younger == NONE {
            self.keys -= 1;
            chain
        } else {
            // `older` of the oldest is the youngest of the key: itself when only two were left.
            links[younger as usize].older = older;
            links[younger as usize].chain = chain;
            younger
        };
        let hash = hasher.hash(key_of(at));
        let mut before = self.first(hash);
        if before == at {
            self.set_first(hash, replacement);
            return;
        }
        while links[before as usize].chain != at {
            before = links[before as usize].chain;
        }
        links[before as usize].chain = replacement;
    }

    #[inline]
    fn grow_if_needed(&mut self, links: &mut [Link], hasher: &Hasher, key_of: impl Fn(u32) -> Reduced) {
        let full = if self.buckets.is_empty() {
            self.keys > SINGLE_MAX
        } else {
            self.keys as usize > self.buckets.len()
        };
        if full {
            self.grow(links, hasher, key_of);
        }
    }

    #[cold]
    fn grow(&mut self, links: &mut [Link], hasher: &Hasher, key_of: impl Fn(u32) -> Reduced) {
        let wanted = (self.buckets.len() * 2).max(BUCKETS_FIRST);
        let old = std::mem::replace(&mut self.buckets, vec![NONE; wanted]);
        let single = std::mem::replace(&mut self.single, NONE);
        for first in old.into_iter().chain([single]) {
            let mut at = first;
            while at != NONE {
                let next = links[at as usize].chain;
                let hash = hasher.hash(key_of(at));
                links[at as usize].chain = self.first(hash);
                self.set_first(hash, at);
                at = next;
            }
        }
    }
}
