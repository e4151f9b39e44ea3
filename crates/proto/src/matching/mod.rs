//! Tag matching: which posted receive gets which message, in the order of posting and of arrival.
//!
//! Called by the engine for each endpoint; it knows neither buffers nor sessions, and does no I/O. Handles of receives
//! (`P`) and of messages (`U`) are the caller's and only handed back.
//!
//! # Order
//! A message goes to the *oldest* posted receive that matches it; a receive takes the *oldest* unexpected message that it
//! matches. This is MPI's rule, and it holds whatever mixture of exact tags, masks and sources is posted.
//!
//! # Order of use
//! For a message: [`Matcher::arrive`]; on `None`, [`Matcher::store`]. For a receive: [`Matcher::post`], which takes a message
//! or queues. When the message that a receive has matched is taken back by its sender: [`Matcher::post_before`]. A receive is never queued while a message that it matches is stored, if the caller keeps to this.
//!
//! # Cost
//! The sixty-four oldest posted receives are compared by fingerprint, all at once. Only a message that matches none of
//! them builds an index of the others, one hash table per *kind* of pattern (which bits matter, source known or not), so the
//! cost grows with the number of different masks posted, never with the number of receives. Unexpected messages are indexed
//! when a receive first looks beyond the oldest few, once per kind of pattern; the [`KINDS_MAX`] most recently used kinds
//! stay indexed. Nothing allocates once the high-water mark is reached; a matcher that was never used owns no heap.

mod posted;
mod slab;
mod table;
mod unexpected;
mod window;

#[cfg(test)]
mod tests;

use posted::{Names, PostedQueue};
use unexpected::UnexpectedQueue;

pub use unexpected::KINDS_MAX;

/// What a message says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Arrival {
    /// The sender's tag; without meaning when `untagged`.
    pub tag: u64,
    /// Sent untagged: only untagged receives match it.
    pub untagged: bool,
    /// Who sent it: an opaque key, such as session and endpoint number.
    pub source: u64,
}

/// Which messages a receive wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pattern {
    /// The tag; without meaning when `untagged`.
    pub tag: u64,
    /// Bits of the tag that do not matter; `u64::MAX` takes any tag.
    pub ignore: u64,
    /// Only from this source; `None` takes any.
    pub source: Option<u64>,
    /// Only messages that were sent untagged; otherwise only tagged ones.
    pub untagged: bool,
}

impl Pattern {
    /// Exactly this tag from anybody.
    #[must_use]
    pub const fn tag(tag: u64) -> Self {
        Self { tag, ignore: 0, source: None, untagged: false }
    }

    /// Untagged messages from anybody.
    #[must_use]
    pub const fn untagged() -> Self {
        Self { tag: 0, ignore: 0, source: None, untagged: true }
    }

    /// The same, but only from `source`.
    #[must_use]
    pub const fn from(self, source: u64) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The same, with the bits of `ignore` not mattering.
    #[must_use]
    pub const fn ignoring(self, ignore: u64) -> Self {
        Self { ignore, ..self }
    }

    /// Whether a receive with this pattern takes that message.
    #[must_use]
    #[inline]
    pub fn matches(&self, arrival: &Arrival) -> bool {
        Compiled::new(self).accepts(&Key::of(arrival))
    }
}

/// A pattern made ready to be asked often.
#[derive(Clone, Copy, Debug)]
pub struct Wanted(Compiled);

impl Wanted {
    /// Takes the place of a pattern where there is none.
    pub const NOTHING: Self = Self(Compiled::NOTHING);

    /// The same as `pattern`.
    #[must_use]
    #[inline]
    pub fn new(pattern: &Pattern) -> Self {
        Self(Compiled::new(pattern))
    }

    /// Whether a receive with this pattern takes that message.
    #[must_use]
    #[inline]
    pub fn accepts(&self, arrival: &Arrival) -> bool {
        self.0.accepts(&Key::of(arrival))
    }

    /// The only source that it takes messages from, if there is only one.
    #[must_use]
    pub const fn source(&self) -> Option<u64> {
        if self.0.kind.source_bits != 0 { Some(self.0.source) } else { None }
    }

    /// As it was written.
    #[must_use]
    pub fn pattern(&self) -> Pattern {
        self.0.pattern()
    }
}

/// Names a posted receive; worthless after it was matched or cancelled, also when its place is used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PostId(u64);

/// Names a stored message; worthless after it was taken, also when its place is used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UnexpectedId(u64);

macro_rules! plain_number {
    ($name:ident) => {
        impl $name {
            /// As a number, to be kept where only numbers fit.
            #[must_use]
            pub const fn to_u64(self) -> u64 {
                self.0
            }

            /// Back from [`Self::to_u64`]. Any other number names nothing, or something else.
            #[must_use]
            pub const fn from_u64(number: u64) -> Self {
                Self(number)
            }
        }
    };
}
plain_number!(PostId);
plain_number!(UnexpectedId);

/// What became of a receive that was posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Posted<P, U> {
    /// It took this stored message; the receive's handle comes back.
    Matched(P, Arrival, U),
    /// It waits.
    Queued(PostId),
}

/// The posted receives and the unexpected messages of one endpoint.
///
/// `Send` and `Sync` as its handles are; every change needs `&mut`.
#[derive(Debug)]
pub struct Matcher<P, U> {
    posted: Option<Box<PostedQueue<P>>>,
    unexpected: Option<Box<UnexpectedQueue<U>>>,
    seed: u64,
    /// What was given out before [`Matcher::release_memory`] ends here.
    names: Names,
}

impl<P, U> Matcher<P, U> {
    /// An empty matcher. `seed` should be unpredictable for peers: with a known one they can choose tags that collide in the
    /// index and slow this endpoint down.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { posted: None, unexpected: None, seed, names: Names { generation: 0, number: 0 } }
    }

    /// Posts a receive: takes the oldest stored message that it matches, or queues it.
    #[inline]
    pub fn post(&mut self, pattern: Pattern, handle: P) -> Posted<P, U> {
        let wanted = Compiled::new(&pattern);
        if let Some(stored) = &mut self.unexpected
            && !stored.is_empty()
            && let Some((arrival, message)) = stored.take_matching(&wanted)
        {
            return Posted::Matched(handle, arrival, message);
        }
        let queue = match &mut self.posted {
            Some(queue) => queue,
            none => Self::start(none, self.seed, self.names),
        };
        Posted::Queued(PostId(queue.push(&wanted, handle)))
    }

    /// Queues a receive while no message is stored; `None`: one is, which [`Matcher::post`] looks at.
    #[inline]
    pub fn queue(&mut self, pattern: Pattern, handle: P) -> Option<PostId> {
        if self.has_unexpected() {
            return None;
        }
        let queue = match &mut self.posted {
            Some(queue) => queue,
            none => Self::start(none, self.seed, self.names),
        };
        Some(PostId(queue.push(&Compiled::new(&pattern), handle)))
    }

    #[cold]
    #[inline(never)]
    fn start(none: &mut Option<Box<PostedQueue<P>>>, seed: u64, names: Names) -> &mut PostedQueue<P> {
        none.insert(Box::new(PostedQueue::new(seed, names)))
    }

    /// Takes the oldest stored message that a receive would take, without queuing anything.
    pub fn claim(&mut self, pattern: &Pattern) -> Option<(Arrival, U)> {
        self.unexpected.as_mut()?.take_matching(&Compiled::new(pattern))
    }

    /// Whether any message is stored.
    #[must_use]
    #[inline]
    pub fn has_unexpected(&self) -> bool {
        self.unexpected.as_ref().is_some_and(|stored| !stored.is_empty())
    }

    /// Whether a receive would take a stored message; `None` when too many are stored to look through them at once.
    #[must_use]
    #[inline]
    pub fn has_waiting(&self, pattern: &Pattern) -> Option<bool> {
        self.unexpected.as_ref().map_or(Some(false), |stored| stored.has_waiting(&Compiled::new(pattern)))
    }

    /// Withdraws a queued receive. `None`: it was matched or cancelled before.
    pub fn cancel(&mut self, id: PostId) -> Option<P> {
        self.posted.as_mut()?.cancel(id.0)
    }

    /// Offers a message: removes the oldest posted receive that matches it and returns its handle. On `None`
    /// [`Matcher::store`] it.
    #[inline]
    pub fn arrive(&mut self, arrival: &Arrival) -> Option<P> {
        self.posted.as_mut()?.arrive(&Key::of(arrival))
    }

    /// Whether [`Matcher::arrive`] might find a receive for the message: `false` is sure. Changes nothing.
    #[must_use]
    #[inline(always)]
    pub fn may_want(&self, arrival: &Arrival) -> bool {
        self.posted.as_ref().is_some_and(|queue| queue.may_want(&Key::of(arrival)))
    }

    /// [`Matcher::arrive`] for a message that its sender may take back: the answer says also what the receive wanted, so that
    /// it can be posted again in its old place.
    pub fn arrive_wanted(&mut self, arrival: &Arrival) -> Option<(P, Pattern)> {
        let (handle, wanted) = self.posted.as_mut()?.arrive_wanted(&Key::of(arrival))?;
        Some((handle, wanted.pattern()))
    }

    /// Posts a receive that is older than others: it takes the oldest stored message that it matches, or is queued before
    /// all receives for which `is_younger` answers `true`. Those must be the youngest; they get new names, which `renamed`
    /// hears. Time in proportion to all queued ones.
    pub fn post_before(
        &mut self,
        pattern: Pattern,
        handle: P,
        is_younger: impl FnMut(&P) -> bool,
        mut renamed: impl FnMut(P, PostId),
    ) -> Posted<P, U>
    where
        P: Copy,
    {
        let wanted = Compiled::new(&pattern);
        if let Some((arrival, message)) = self.claim(&pattern) {
            return Posted::Matched(handle, arrival, message);
        }
        let queue = match &mut self.posted {
            Some(queue) => queue,
            none => Self::start(none, self.seed, self.names),
        };
        let name = queue.push_before(&wanted, handle, is_younger, |other, name| renamed(other, PostId(name)));
        Posted::Queued(PostId(name))
    }

    /// Keeps a message that no posted receive matched.
    pub fn store(&mut self, arrival: Arrival, message: U) -> UnexpectedId {
        let (seed, generation) = (self.seed, self.names.generation);
        let queue = self.unexpected.get_or_insert_with(|| Box::new(UnexpectedQueue::new(seed, generation)));
        UnexpectedId(queue.push(arrival, message))
    }

    /// Keeps a message that was taken and is given back: before all others that are stored, but behind the last one that is
    /// older, as `is_older` says. Time in proportion to all stored ones; names given out before are worthless.
    pub fn store_behind(
        &mut self,
        arrival: Arrival,
        message: U,
        mut is_older: impl FnMut(&Arrival, &U) -> bool,
    ) {
        let mut rest = Vec::with_capacity(self.unexpected_len() + 1);
        self.retain_unexpected(|_, _| false, |arrival, message| rest.push((arrival, message)));
        let older = rest.iter().rposition(|(arrival, message)| is_older(arrival, message));
        rest.insert(older.map_or(0, |at| at + 1), (arrival, message));
        for (arrival, message) in rest {
            self.store(arrival, message);
        }
    }

    /// Keeps a message that was taken and is given back: behind all others that are stored, and behind it those that are younger, as
    /// `is_younger` says, in their order. Time in proportion to all stored ones; names given out before are worthless.
    pub fn store_last(
        &mut self,
        arrival: Arrival,
        message: U,
        mut is_younger: impl FnMut(&Arrival, &U) -> bool,
    ) {
        let mut rest = Vec::with_capacity(self.unexpected_len());
        self.retain_unexpected(|_, _| false, |arrival, message| rest.push((arrival, message)));
        let (younger, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|(arrival, message)| is_younger(arrival, message));
        for (arrival, message) in others.into_iter().chain([(arrival, message)]).chain(younger) {
            self.store(arrival, message);
        }
    }

    /// The oldest stored message that a receive would take, left in place. `&mut` because it may build an index.
    pub fn probe(&mut self, pattern: &Pattern) -> Option<(UnexpectedId, &Arrival, &mut U)> {
        let stored = self.unexpected.as_mut()?;
        let at = stored.find(&Compiled::new(pattern))?;
        let (id, arrival, message) = stored.view(at)?;
        Some((UnexpectedId(id), arrival, message))
    }

    /// Takes a stored message by name. `None`: it was taken before.
    pub fn take(&mut self, id: UnexpectedId) -> Option<(Arrival, U)> {
        self.unexpected.as_mut()?.take(id.0)
    }

    /// A stored message by name. `None`: it was taken before.
    pub fn get_mut(&mut self, id: UnexpectedId) -> Option<(&Arrival, &mut U)> {
        self.unexpected.as_mut()?.get_mut(id.0)
    }

    /// How many receives are queued.
    #[must_use]
    pub fn posted_len(&self) -> usize {
        self.posted.as_ref().map_or(0, |queue| queue.len())
    }

    /// How many messages are stored.
    #[must_use]
    pub fn unexpected_len(&self) -> usize {
        self.unexpected.as_ref().map_or(0, |queue| queue.len())
    }

    /// Removes all queued receives, oldest first. What the iterator did not yield stays queued.
    pub fn drain_posted(&mut self) -> impl Iterator<Item = P> {
        std::iter::from_fn(move || self.posted.as_mut()?.pop())
    }

    /// Removes the queued receives for which `keep` answers `false`, oldest first, as when their source is lost.
    /// Time in proportion to all queued ones.
    pub fn retain_posted(&mut self, keep: impl FnMut(&Pattern, &P) -> bool, removed: impl FnMut(P)) {
        if let Some(queue) = &mut self.posted {
            queue.retain(keep, removed);
        }
    }

    /// Removes the stored messages for which `keep` answers `false`, oldest first, as when their source is lost.
    /// Time in proportion to all stored ones.
    pub fn retain_unexpected(
        &mut self,
        keep: impl FnMut(&Arrival, &mut U) -> bool,
        removed: impl FnMut(Arrival, U),
    ) {
        if let Some(queue) = &mut self.unexpected {
            queue.retain(keep, removed);
        }
    }

    /// Gives memory back that is not in use: all of it when nothing is queued or stored. Names given out before stay
    /// worthless.
    pub fn release_memory(&mut self) {
        if self.posted_len() == 0
            && let Some(queue) = self.posted.take()
        {
            let Names { generation, number } = queue.names_next();
            self.names = Names { generation: self.names.generation.max(generation), number };
        }
        if self.unexpected_len() == 0
            && let Some(queue) = self.unexpected.take()
        {
            self.names.generation = self.names.generation.max(queue.generation_next());
        }
    }
}

/// What of an arrival is compared; tag 0 for untagged ones, so that they are equal among themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    tag: u64,
    source: u64,
    untagged: bool,
}

impl Key {
    #[inline]
    const fn of(arrival: &Arrival) -> Self {
        Self {
            tag: arrival.tag & !all_if(arrival.untagged),
            source: arrival.source,
            untagged: arrival.untagged,
        }
    }
}

/// All ones or zero, without a branch.
#[inline]
const fn all_if(condition: bool) -> u64 {
    (condition as u64).wrapping_neg()
}

/// Which bits of a key matter to a pattern: patterns of one kind can share a hash table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PatternKind {
    tag_bits: u64,
    /// All ones or zero.
    source_bits: u64,
    untagged: bool,
}

impl PatternKind {
    /// The key with the bits that do not matter cleared.
    #[inline]
    const fn reduce(&self, key: &Key) -> (u64, u64) {
        (key.tag & self.tag_bits, key.source & self.source_bits)
    }
}

/// A pattern made ready for comparing without branches.
#[derive(Clone, Copy, Debug)]
struct Compiled {
    tag: u64,
    source: u64,
    kind: PatternKind,
}

impl Compiled {
    /// Fills places that hold no pattern.
    const NOTHING: Self =
        Self { tag: 0, source: 0, kind: PatternKind { tag_bits: 0, source_bits: 0, untagged: false } };

    #[inline]
    fn new(pattern: &Pattern) -> Self {
        let untagged = all_if(pattern.untagged);
        let tag_bits = !pattern.ignore | untagged;
        let tag = pattern.tag & tag_bits & !untagged;
        let source_bits = all_if(pattern.source.is_some());
        let source = pattern.source.unwrap_or(0);
        Self { tag, source, kind: PatternKind { tag_bits, source_bits, untagged: pattern.untagged } }
    }

    #[inline]
    fn accepts(&self, key: &Key) -> bool {
        let differing = ((self.tag ^ key.tag) & self.kind.tag_bits)
            | ((self.source ^ key.source) & self.kind.source_bits)
            | u64::from(self.kind.untagged != key.untagged);
        differing == 0
    }

    fn pattern(&self) -> Pattern {
        Pattern {
            tag: self.tag,
            ignore: !self.kind.tag_bits,
            source: (self.kind.source_bits != 0).then_some(self.source),
            untagged: self.kind.untagged,
        }
    }
}
