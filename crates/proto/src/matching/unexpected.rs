//! The messages of one endpoint that no receive has matched, oldest first.
//!
//! Used by [`super::Matcher`] only. A receive looks at the few oldest, then asks the index for its kind of pattern. An index
//! is made when its kind is first asked for and brought up to date only when it is asked again.

use super::slab::{NONE, Slab};
use super::table::{Hasher, Link, Reduced, Table};
use super::{Arrival, Compiled, Key, PatternKind};

/// How many kinds of pattern (which bits matter, source known or not) have an index of the unexpected messages at a time;
/// a receive of another kind takes over the least recently used one, at a cost in proportion to the messages stored.
pub const KINDS_MAX: usize = 8;

/// How many of the oldest are compared one by one.
const LOOK_MAX: usize = 4;
/// The same where a scan spares a receive the long way.
const SCAN_MAX: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Stored {
    arrival: Arrival,
    age: u64,
}

#[derive(Debug)]
struct Index {
    kind: PatternKind,
    table: Table,
    links: Vec<Link>,
    /// The oldest message that is not in it, and the age from which on messages are not.
    next: u32,
    age_next: u64,
    used: u64,
}

#[derive(Debug)]
pub(super) struct UnexpectedQueue<U> {
    slab: Slab<Stored, U>,
    indexes: Vec<Index>,
    age_next: u64,
    uses: u64,
    hasher: Hasher,
}

#[inline]
fn key_of<U>(slab: &Slab<Stored, U>, kind: &PatternKind, at: u32) -> Reduced {
    kind.reduce(&Key::of(&slab.entry(at).arrival))
}

impl Index {
    fn update<U>(&mut self, slab: &Slab<Stored, U>, hasher: &Hasher) {
        if self.links.len() < slab.places() {
            self.links.resize(slab.places().next_power_of_two(), Link::UNUSED);
        }
        while self.next != NONE {
            let at = self.next;
            self.next = slab.younger(at);
            let stored = slab.entry(at);
            self.age_next = stored.age + 1;
            if stored.arrival.untagged == self.kind.untagged {
                let kind = self.kind;
                self.table.append(&mut self.links, hasher, at, |at| key_of(slab, &kind, at));
            }
        }
    }

    fn remove<U>(&mut self, slab: &Slab<Stored, U>, hasher: &Hasher, at: u32) {
        let stored = slab.entry(at);
        if self.next == at {
            self.next = slab.younger(at);
        } else if stored.age < self.age_next && stored.arrival.untagged == self.kind.untagged {
            let kind = self.kind;
            self.table.remove(&mut self.links, hasher, at, |at| key_of(slab, &kind, at));
        }
    }
}

impl<U> UnexpectedQueue<U> {
    pub(super) const fn new(seed: u64, generation: u32) -> Self {
        Self {
            slab: Slab::new(generation),
            indexes: Vec::new(),
            age_next: 0,
            uses: 0,
            hasher: Hasher::new(seed),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn generation_next(&self) -> u32 {
        self.slab.generation_next()
    }

    pub(super) fn push(&mut self, arrival: Arrival, message: U) -> u64 {
        let age = self.age_next;
        self.age_next += 1;
        let at = self.slab.insert(Stored { arrival, age }, message);
        self.slab.list(at);
        for index in &mut self.indexes {
            if index.next == NONE {
                index.next = at;
            }
        }
        self.slab.name(at)
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.slab.oldest() == NONE
    }

    /// Removes the oldest message that the pattern accepts.
    #[inline(never)]
    pub(super) fn take_matching(&mut self, wanted: &Compiled) -> Option<(Arrival, U)> {
        let at = self.find(wanted)?;
        self.remove(at)
    }

    /// Place of the oldest message that the pattern accepts.
    #[inline]
    pub(super) fn find(&mut self, wanted: &Compiled) -> Option<u32> {
        let mut at = self.slab.oldest();
        for _ in 0..LOOK_MAX {
            if at == NONE {
                return None;
            }
            if wanted.accepts(&Key::of(&self.slab.entry(at).arrival)) {
                return Some(at);
            }
            at = self.slab.younger(at);
        }
        if at == NONE { None } else { self.find_indexed(wanted) }
    }

    /// Whether the pattern accepts a message; `None` when there are more than [`SCAN_MAX`] and none of the oldest is accepted.
    pub(super) fn has_waiting(&self, wanted: &Compiled) -> Option<bool> {
        let mut at = self.slab.oldest();
        for _ in 0..SCAN_MAX {
            if at == NONE {
                return Some(false);
            }
            if wanted.accepts(&Key::of(&self.slab.entry(at).arrival)) {
                return Some(true);
            }
            at = self.slab.younger(at);
        }
        if at == NONE { Some(false) } else { None }
    }

    #[inline(never)]
    fn find_indexed(&mut self, wanted: &Compiled) -> Option<u32> {
        let number = match self.indexes.iter().position(|index| index.kind == wanted.kind) {
            Some(number) => number,
            None => self.new_index(wanted.kind),
        };
        self.uses += 1;
        let (index, slab) = (&mut self.indexes[number], &self.slab);
        index.used = self.uses;
        if index.next != NONE {
            index.update(slab, &self.hasher);
        }
        let (tag, source) = (wanted.tag, wanted.source);
        let at =
            index.table.find(&index.links, &self.hasher, (tag, source), |at| key_of(slab, &wanted.kind, at));
        (at != NONE).then_some(at)
    }

    #[cold]
    fn new_index(&mut self, kind: PatternKind) -> usize {
        let next = self.slab.oldest();
        if self.indexes.len() < KINDS_MAX {
            let table = Table::new();
            self.indexes.push(Index { kind, table, links: Vec::new(), next, age_next: 0, used: 0 });
            return self.indexes.len() - 1;
        }
        let oldest = self.indexes.iter().enumerate().min_by_key(|(_, index)| index.used);
        let number = oldest.map_or(0, |(number, _)| number);
        let index = &mut self.indexes[number];
        index.table.clear();
        (index.kind, index.next, index.age_next) = (kind, next, 0);
        number
    }

    /// Takes the message of a place that [`UnexpectedQueue::find`] returned.
    #[inline]
    pub(super) fn remove(&mut self, at: u32) -> Option<(Arrival, U)> {
        for index in &mut self.indexes {
            index.remove(&self.slab, &self.hasher, at);
        }
        self.slab.unlist(at);
        let arrival = self.slab.entry(at).arrival;
        self.slab.free(at).map(|message| (arrival, message))
    }

    pub(super) fn take(&mut self, name: u64) -> Option<(Arrival, U)> {
        let at = self.slab.resolve(name)?;
        self.remove(at)
    }

    pub(super) fn view(&mut self, at: u32) -> Option<(u64, &Arrival, &mut U)> {
        let name = self.slab.name(at);
        self.slab.both(at).map(|(stored, message)| (name, &stored.arrival, message))
    }

    pub(super) fn get_mut(&mut self, name: u64) -> Option<(&Arrival, &mut U)> {
        let at = self.slab.resolve(name)?;
        self.slab.both(at).map(|(stored, message)| (&stored.arrival, message))
    }

    pub(super) fn retain(
        &mut self,
        mut keep: impl FnMut(&Arrival, &mut U) -> bool,
        mut removed: impl FnMut(Arrival, U),
    ) {
        let mut at = self.slab.oldest();
        while at != NONE {
            let younger = self.slab.younger(at);
            let kept = self.slab.both(at).is_none_or(|(stored, message)| keep(&stored.arrival, message));
            if !kept && let Some((arrival, message)) = self.remove(at) {
                removed(arrival, message);
            }
            at = younger;
        }
    }
}
