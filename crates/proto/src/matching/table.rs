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
    /// The only key and its oldest place, while there are no buckets: most kinds have one, and it is compared in place.
    single_key: Reduced,
    single: u32,
    /// Keys in buckets.
    keys: u32,
    /// A power of two of buckets, or none while there was never more than one key.
    buckets: Vec<u32>,
}

const BUCKETS_FIRST: usize = 32;

impl Table {
    pub(super) const fn new() -> Self {
        Self { single_key: (0, 0), single: NONE, keys: 0, buckets: Vec::new() }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.keys == 0 && self.single == NONE
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

    /// Only when there are buckets.
    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        (hash >> 32) as usize & self.buckets.len().wrapping_sub(1)
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
        if self.buckets.is_empty() {
            let differing = (key.0 ^ self.single_key.0) | (key.1 ^ self.single_key.1);
            return if differing == 0 { self.single } else { NONE };
        }
        self.search(links, self.bucket(hasher.hash(key)), key, key_of)
    }

    #[inline]
    fn search(&self, links: &[Link], bucket: usize, key: Reduced, key_of: impl Fn(u32) -> Reduced) -> u32 {
        let mut at = self.buckets[bucket];
        while at != NONE && key_of(at) != key {
            at = links[at as usize].chain;
        }
        at
    }

    /// Adds a place as the youngest of its key.
    #[inline]
    pub(super) fn append(
        &mut self,
        links: &mut [Link],
        hasher: &Hasher,
        at: u32,
        key_of: impl Fn(u32) -> Reduced,
    ) {
        let key = key_of(at);
        if self.buckets.is_empty() {
            if self.single == NONE {
                (self.single_key, self.single) = (key, at);
                links[at as usize] = Link { chain: NONE, younger: NONE, older: at };
                return;
            }
            if self.single_key == key {
                add_youngest(links, self.single, at);
                return;
            }
            self.start_buckets(links, hasher);
        }
        let mut bucket = self.bucket(hasher.hash(key));
        let oldest = self.search(links, bucket, key, &key_of);
        if oldest != NONE {
            add_youngest(links, oldest, at);
            return;
        }
        if self.keys as usize == self.buckets.len() {
            self.grow(links, hasher, &key_of);
            bucket = self.bucket(hasher.hash(key));
        }
        self.keys += 1;
        links[at as usize] = Link { chain: self.buckets[bucket], younger: NONE, older: at };
        self.buckets[bucket] = at;
    }

    /// Removes a place that was appended.
    #[inline]
    pub(super) fn remove(
        &mut self,
        links: &mut [Link],
        hasher: &Hasher,
        at: u32,
        key_of: impl Fn(u32) -> Reduced,
    ) {
        let Link { chain, younger, older } = links[at as usize];
        if links[older as usize].younger == at {
            // Not the oldest of its key.
            links[older as usize].younger = younger;
            if younger == NONE {
                let oldest = self.find(links, hasher, key_of(at), key_of);
                links[oldest as usize].older = older;
            } else {
                links[younger as usize].older = older;
            }
            return;
        }
        let mut replacement = chain;
        if younger != NONE {
            // `older` of the oldest is the youngest of the key: itself when only two were left.
            links[younger as usize].older = older;
            links[younger as usize].chain = chain;
            replacement = younger;
        }
        if self.buckets.is_empty() {
            self.single = replacement;
            return;
        }
        self.keys -= u32::from(younger == NONE);
        let bucket = self.bucket(hasher.hash(key_of(at)));
        let mut before = self.buckets[bucket];
        if before == at {
            self.buckets[bucket] = replacement;
            return;
        }
        while links[before as usize].chain != at {
            before = links[before as usize].chain;
        }
        links[before as usize].chain = replacement;
    }

    #[cold]
    fn start_buckets(&mut self, links: &mut [Link], hasher: &Hasher) {
        self.buckets = vec![NONE; BUCKETS_FIRST];
        let bucket = self.bucket(hasher.hash(self.single_key));
        self.buckets[bucket] = self.single;
        links[self.single as usize].chain = NONE;
        (self.single, self.keys) = (NONE, 1);
    }

    #[cold]
    fn grow(&mut self, links: &mut [Link], hasher: &Hasher, key_of: impl Fn(u32) -> Reduced) {
        let wanted = self.buckets.len() * 2;
        for first in std::mem::replace(&mut self.buckets, vec![NONE; wanted]) {
            let mut at = first;
            while at != NONE {
                let next = links[at as usize].chain;
                let bucket = self.bucket(hasher.hash(key_of(at)));
                links[at as usize].chain = self.buckets[bucket];
                self.buckets[bucket] = at;
                at = next;
            }
        }
    }
}

/// Adds a place behind the others of its key.
#[inline]
fn add_youngest(links: &mut [Link], oldest: u32, at: u32) {
    let youngest = links[oldest as usize].older;
    links[youngest as usize].younger = at;
    links[at as usize] = Link { chain: NONE, younger: NONE, older: youngest };
    links[oldest as usize].older = at;
}
