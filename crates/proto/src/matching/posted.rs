//! The posted receives of one endpoint, oldest first.
//!
//! Used by [`super::Matcher`] only. The oldest are in the [`Window`]; the others are listed in the slab and, but for the
//! youngest few, get into the index when a message first has to look for them. Everything in the window is older than everything listed, and something is
//! listed only while the window is not empty.

use super::slab::{NONE, Slab};
use super::table::{Hasher, Link, Reduced, Table};
use super::window::Window;
use super::{Compiled, Key, Pattern, PatternKind};

/// Kinds that own buckets are forgotten when they are empty and there are more kinds than this.
const KINDS_KEPT: usize = 16;

/// How many of the youngest are left out of the index.
const TAIL_MAX: usize = 8;

/// Set in the names of receives that were listed when posted; the others are numbered.
const LISTED: u64 = 1 << 63;

#[derive(Clone, Copy, Debug)]
struct Receive {
    wanted: Compiled,
    age: u64,
    indexed: bool,
}

#[derive(Debug)]
struct Kind {
    kind: PatternKind,
    table: Table,
}

#[derive(Debug)]
pub(super) struct PostedQueue<P> {
    window: Window<P>,
    slab: Slab<Receive, P>,
    links: Vec<Link>,
    kinds: Vec<Kind>,
    /// The oldest listed receive that is not in the index; all younger ones are not either. And how many these are.
    unindexed: u32,
    unindexed_len: usize,
    age_next: u64,
    hasher: Hasher,
}

#[inline]
fn key_of<P>(slab: &Slab<Receive, P>, at: u32) -> Reduced {
    let wanted = &slab.entry(at).wanted;
    (wanted.tag, wanted.source)
}

impl<P> PostedQueue<P> {
    pub(super) fn new(seed: u64, names: Names) -> Self {
        Self {
            window: Window::new(),
            slab: Slab::new(names.generation),
            links: Vec::new(),
            kinds: Vec::new(),
            unindexed: NONE,
            unindexed_len: 0,
            age_next: names.number,
            hasher: Hasher::new(seed),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.slab.len() + self.window.len()
    }

    /// Names that were not given out so far.
    pub(super) fn names_next(&self) -> Names {
        Names { generation: self.slab.generation_next(), number: self.age_next }
    }

    #[inline]
    pub(super) fn push(&mut self, wanted: &Compiled, handle: P) -> u64 {
        let age = self.age_next;
        self.age_next += 1;
        if (self.slab.oldest() == NONE || self.make_room()) && self.window.has_room() {
            self.window.push(wanted, age, handle);
            return age;
        }
        self.push_listed(wanted, age, handle)
    }

    /// Whether the window can take all that is listed, so that the next receive gets into it too.
    #[inline(never)]
    fn make_room(&mut self) -> bool {
        if self.window.wants_refill() {
            self.refill();
        }
        self.slab.oldest() == NONE
    }

    #[inline(never)]
    fn push_listed(&mut self, wanted: &Compiled, age: u64, handle: P) -> u64 {
        let at = self.slab.insert(Receive { wanted: *wanted, age, indexed: false }, handle);
        self.slab.list(at);
        if self.unindexed == NONE {
            self.unindexed = at;
        }
        self.unindexed_len += 1;
        self.slab.name(at) | LISTED
    }

    #[inline(always)]
    pub(super) fn may_want(&self, key: &Key) -> bool {
        self.slab.oldest() != NONE || (self.window.may_have(key) && self.window.has(key))
    }

    #[inline]
    pub(super) fn arrive(&mut self, key: &Key) -> Option<P> {
        match self.window.find(key) {
            Some(at) => self.take_from_window(at),
            None if self.slab.oldest() == NONE => None,
            None => self.arrive_indexed(key),
        }
    }

    #[inline]
    fn take_from_window(&mut self, at: u32) -> Option<P> {
        let handle = self.window.remove(at);
        if self.slab.oldest() != NONE && self.window.wants_refill() {
            self.refill();
        }
        handle
    }

    /// Moves the oldest listed receives into the window.
    #[inline(never)]
    fn refill(&mut self) {
        while self.slab.oldest() != NONE && self.window.has_room() {
            let at = self.slab.oldest();
            let name = self.slab.name(at) | LISTED;
            let wanted = self.slab.entry(at).wanted;
            if let Some(handle) = self.take_listed(at) {
                self.window.push(&wanted, name, handle);
            }
        }
    }

    /// Takes a listed receive out of index, list and place.
    fn take_listed(&mut self, at: u32) -> Option<P> {
        if self.unindexed == at {
            self.unindexed = self.slab.younger(at);
        }
        let Receive { wanted, indexed, .. } = self.slab.entry(at);
        if !*indexed {
            self.unindexed_len -= 1;
        } else if let Some(number) = self.kinds.iter().position(|known| known.kind == wanted.kind) {
            self.unindex(number, at);
        }
        self.slab.unlist(at);
        self.slab.free(at)
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
        let (at, number) = self.find_indexed(key);
        if at == NONE {
            let at = self.find_unindexed(key)?;
            return self.take_listed(at);
        }
        self.unindex(number, at);
        self.slab.unlist(at);
        self.slab.free(at)
    }

    /// [`PostedQueue::arrive`], with what the receive wanted: for messages that may be taken back.
    #[inline(never)]
    pub(super) fn arrive_wanted(&mut self, key: &Key) -> Option<(P, Compiled)> {
        if let Some(at) = self.window.find(key) {
            let wanted = *self.window.wanted(at);
            return self.take_from_window(at).map(|handle| (handle, wanted));
        }
        let at = match self.find_indexed(key).0 {
            NONE => self.find_unindexed(key)?,
            at => at,
        };
        let wanted = self.slab.entry(at).wanted;
        self.take_listed(at).map(|handle| (handle, wanted))
    }

    /// The oldest receive in the index that accepts the message, or [`NONE`], and the number of its kind.
    #[inline]
    fn find_indexed(&mut self, key: &Key) -> (u32, usize) {
        if self.unindexed_len > TAIL_MAX {
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
            if at != NONE && slab.entry(at).age < best.0 {
                best = (slab.entry(at).age, at, number);
            }
        }
        let (_, at, number) = best;
        (at, number)
    }

    /// The youngest few are compared one by one: what is matched soon after it was posted is never indexed.
    fn find_unindexed(&self, key: &Key) -> Option<u32> {
        let mut at = self.unindexed;
        while at != NONE {
            if self.slab.entry(at).wanted.accepts(key) {
                return Some(at);
            }
            at = self.slab.younger(at);
        }
        None
    }

    /// Brings the index up to date: each receive gets into it once at most.
    fn index(&mut self) {
        if self.links.len() < self.slab.places() {
            self.links.resize(self.slab.places().next_power_of_two(), Link::UNUSED);
        }
        self.unindexed_len = 0;
        while self.unindexed != NONE {
            let at = self.unindexed;
            self.unindexed = self.slab.younger(at);
            let receive = self.slab.entry_mut(at);
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
        let found = self.window.entries().find(|(_, lane)| lane.name == name).map(|(at, _)| at);
        match found {
            Some(at) => self.take_from_window(at),
            None if name & LISTED != 0 => {
                let at = self.slab.resolve(name & !LISTED)?;
                self.take_listed(at)
            }
            None => None,
        }
    }

    /// Adds a receive before those for which `is_younger` answers `true`, which are the youngest: they are posted again
    /// behind it, and `renamed` hears their new names.
    #[cold]
    pub(super) fn push_before(
        &mut self,
        wanted: &Compiled,
        handle: P,
        mut is_younger: impl FnMut(&P) -> bool,
        mut renamed: impl FnMut(P, u64),
    ) -> u64
    where
        P: Copy,
    {
        let mut younger = Vec::new();
        let windowed =
            self.window.entries().filter(|(_, lane)| lane.handle.as_ref().is_some_and(&mut is_younger));
        younger.extend(windowed.map(|(_, lane)| (lane.name, lane.wanted)));
        let mut at = self.slab.oldest();
        while at != NONE {
            if let Some((receive, listed)) = self.slab.both(at)
                && is_younger(listed)
            {
                let wanted = receive.wanted;
                younger.push((self.slab.name(at) | LISTED, wanted));
            }
            at = self.slab.younger(at);
        }
        let younger: Vec<(P, Compiled)> =
            younger.into_iter().filter_map(|(name, wanted)| Some((self.cancel(name)?, wanted))).collect();
        let own = self.push(wanted, handle);
        for (handle, wanted) in younger {
            renamed(handle, self.push(&wanted, handle));
        }
        own
    }

    /// Removes the oldest.
    pub(super) fn pop(&mut self) -> Option<P> {
        if self.window.is_empty() { None } else { self.take_from_window(self.window.oldest()) }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Pattern, &P) -> bool, mut removed: impl FnMut(P)) {
        let mut leaving = Vec::new();
        for (_, lane) in self.window.entries() {
            if lane.handle.as_ref().is_some_and(|handle| !keep(&lane.wanted.pattern(), handle)) {
                leaving.push(lane.name);
            }
        }
        let mut at = self.slab.oldest();
        while at != NONE {
            if let Some((receive, handle)) = self.slab.both(at)
                && !keep(&receive.wanted.pattern(), handle)
            {
                leaving.push(self.slab.name(at) | LISTED);
            }
            at = self.slab.younger(at);
        }
        for handle in leaving.into_iter().filter_map(|name| self.cancel(name)) {
            removed(handle);
        }
    }
}

/// Names that were never given out: everything from these on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Names {
    pub(super) generation: u32,
    pub(super) number: u64,
}
