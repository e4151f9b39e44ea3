//! The posted receives of one endpoint, oldest first.
//!
//! Used by [`super::Matcher`] only. The oldest are in the [`Window`]; the others are listed in the slab and get into the index
//! when a message first has to look for them. Everything in the window is older than everything listed.

use super::slab::{NONE, Slab};
use super::table::{Hasher, Link, Reduced, Table};
use super::window::{Window, fingerprint};
use super::{Compiled, Key, Pattern, PatternKind};

/// Kinds that own buckets are forgotten when they are empty and there are more kinds than this.
const KINDS_KEPT: usize = 16;

#[derive(Debug)]
struct Receive<P> {
    wanted: Compiled,
    age: u64,
    in_window: bool,
    indexed: bool,
    handle: P,
}

#[derive(Debug)]
struct Kind {
    kind: PatternKind,
    table: Table,
}

#[derive(Debug)]
pub(super) struct PostedQueue<P> {
    window: Window,
    slab: Slab<Receive<P>>,
    links: Vec<Link>,
    kinds: Vec<Kind>,
    /// The oldest listed receive that is not in the index; all younger ones are not either.
    unindexed: u32,
    age_next: u64,
    hasher: Hasher,
}

#[inline]
fn key_of<P>(slab: &Slab<Receive<P>>, at: u32) -> Reduced {
    slab.entry(at).map_or((0, 0), |receive| (receive.wanted.tag, receive.wanted.source))
}

impl<P> PostedQueue<P> {
    pub(super) fn new(seed: u64, generation: u32) -> Self {
        Self {
            window: Window::new(),
            slab: Slab::new(generation),
            links: Vec::new(),
            kinds: Vec::new(),
            unindexed: NONE,
            age_next: 0,
            hasher: Hasher::new(seed),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn generation_next(&self) -> u32 {
        self.slab.generation_next()
    }

    #[inline]
    pub(super) fn push(&mut self, wanted: Compiled, handle: P) -> u64 {
        let in_window = self.slab.oldest() == NONE && self.window.has_room();
        let age = self.age_next;
        self.age_next += 1;
        let at = self.slab.insert(Receive { wanted, age, in_window, indexed: false, handle });
        if in_window {
            self.window.push(at, fingerprint(wanted.tag), wanted.kind.tag_bits != u64::MAX);
        } else {
            self.slab.list(at);
            if self.unindexed == NONE {
                self.unindexed = at;
            }
        }
        self.slab.name(at)
    }

    #[inline]
    pub(super) fn arrive(&mut self, key: &Key) -> Option<P> {
        if self.window.is_empty() {
            return None;
        }
        if self.accepts(self.window.oldest(), key) {
            return self.take_from_window(0);
        }
        let mut candidates = self.window.candidates(fingerprint(key.tag));
        while candidates != 0 {
            let offset = candidates.trailing_zeros();
            if self.accepts(self.window.place(offset), key) {
                return self.take_from_window(offset);
            }
            candidates &= candidates - 1;
        }
        if self.slab.oldest() == NONE { None } else { self.arrive_indexed(key) }
    }

    #[inline]
    fn accepts(&self, at: u32, key: &Key) -> bool {
        self.slab.entry(at).is_some_and(|receive| receive.wanted.accepts(key))
    }

    #[inline]
    fn take_from_window(&mut self, offset: u32) -> Option<P> {
        let at = self.window.place(offset);
        self.window.remove(offset);
        if self.slab.oldest() != NONE && self.window.wants_refill() {
            self.refill();
        }
        self.slab.free(at).map(|receive| receive.handle)
    }

    /// Moves the oldest listed receives into the window.
    #[inline(never)]
    fn refill(&mut self) {
        while self.slab.oldest() != NONE && self.window.has_room() {
            let at = self.slab.oldest();
            self.unlist(at);
            if let Some(receive) = self.slab.entry_mut(at) {
                receive.in_window = true;
                let Compiled { tag, kind, .. } = receive.wanted;
                self.window.push(at, fingerprint(tag), kind.tag_bits != u64::MAX);
            }
        }
    }

    /// Takes a receive out of the index and the list; it stays in its place.
    fn unlist(&mut self, at: u32) {
        if self.unindexed == at {
            self.unindexed = self.slab.younger(at);
        }
        if let Some(receive) = self.slab.entry_mut(at)
            && std::mem::take(&mut receive.indexed)
        {
            let kind = receive.wanted.kind;
            if let Some(number) = self.kinds.iter().position(|known| known.kind == kind) {
                self.unindex(number, at);
            }
        }
        self.slab.unlist(at);
    }

    #[inline]
    fn unindex(&mut self, number: usize, at: u32) {
        let slab = &self.slab;
        let table = &mut self.kinds[number].table;
        table.remove(&mut self.links, &self.hasher, at, |at| key_of(slab, at));
        if table.is_empty() && (!table.has_buckets() || self.kinds.len() > KINDS_KEPT) {
            self.kinds.swap_remove(number);
        }
    }

    #[inline(never)]
    fn arrive_indexed(&mut self, key: &Key) -> Option<P> {
        if self.unindexed != NONE {
            self.index();
        }
        let slab = &self.slab;
        let mut best = (u64::MAX, NONE, 0);
        for (number, known) in self.kinds.iter().enumerate() {
            if known.kind.untagged != key.untagged {
                continue;
            }
            let wanted = known.kind.reduce(key);
            let at = known.table.find(&self.links, &self.hasher, wanted, |at| key_of(slab, at));
            if at != NONE
                && let Some(receive) = slab.entry(at)
                && receive.age < best.0
            {
                best = (receive.age, at, number);
            }
        }
        let (_, at, number) = best;
        if at == NONE {
            return None;
        }
        self.unindex(number, at);
        self.slab.unlist(at);
        self.slab.free(at).map(|receive| receive.handle)
    }

    /// Brings the index up to date: each receive gets into it once at most.
    fn index(&mut self) {
        if self.links.len() < self.slab.places() {
            self.links.resize(self.slab.places().next_power_of_two(), Link::UNUSED);
        }
        while self.unindexed != NONE {
            let at = self.unindexed;
            self.unindexed = self.slab.younger(at);
            let Some(receive) = self.slab.entry_mut(at) else { continue };
            receive.indexed = true;
            let kind = receive.wanted.kind;
            let number = self.kinds.iter().position(|known| known.kind == kind).unwrap_or_else(|| {
                self.kinds.push(Kind { kind, table: Table::new() });
                self.kinds.len() - 1
            });
            let slab = &self.slab;
            self.kinds[number].table.append(&mut self.links, &self.hasher, at, |at| key_of(slab, at));
        }
    }

    pub(super) fn cancel(&mut self, name: u64) -> Option<P> {
        let at = self.slab.resolve(name)?;
        self.take(at)
    }

    /// Removes the oldest.
    pub(super) fn pop(&mut self) -> Option<P> {
        if self.window.is_empty() { None } else { self.take_from_window(0) }
    }

    fn take(&mut self, at: u32) -> Option<P> {
        if self.slab.entry(at)?.in_window {
            let (offset, _) = self.window.entries().find(|(_, place)| *place == at)?;
            return self.take_from_window(offset);
        }
        self.unlist(at);
        self.slab.free(at).map(|receive| receive.handle)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Pattern, &P) -> bool, mut removed: impl FnMut(P)) {
        let mut all: Vec<u32> = self.window.entries().map(|(_, place)| place).collect();
        let mut at = self.slab.oldest();
        while at != NONE {
            all.push(at);
            at = self.slab.younger(at);
        }
        for at in all {
            let kept =
                self.slab.entry(at).is_none_or(|receive| keep(&receive.wanted.pattern(), &receive.handle));
            if !kept && let Some(handle) = self.take(at) {
                removed(handle);
            }
        }
    }
}
