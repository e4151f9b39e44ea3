//! Numbered places for entries in the order of their age, with names that go stale.
//!
//! Used by both queues. A place keeps its number while it is used, so names and index links stay valid; the order is a list
//! through the places, so removal anywhere costs the same.

/// No place.
pub(super) const NONE: u32 = u32::MAX;

/// Generations are numbers below: a name has its highest bit clear.
const GENERATIONS: u32 = 1 << 31;

#[derive(Debug)]
struct Place<T, H> {
    entry: T,
    /// `None` in a free place.
    handle: Option<H>,
    generation: u32,
    older: u32,
    /// The next younger entry; of a free place, the next free one.
    younger: u32,
}

/// Entries in places, each with a handle. An entry is *listed* (part of the age order) or not; the caller knows which.
///
/// Entries and handles are kept apart so that neither is moved as a whole: the processor would wait for narrow stores that a
/// wide load then reads.
#[derive(Debug)]
pub(super) struct Slab<T, H> {
    places: Vec<Place<T, H>>,
    free: u32,
    oldest: u32,
    youngest: u32,
    len: usize,
    generation_first: u32,
}

impl<T: Copy, H> Slab<T, H> {
    pub(super) const fn new(generation_first: u32) -> Self {
        Self { places: Vec::new(), free: NONE, oldest: NONE, youngest: NONE, len: 0, generation_first }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// How many places there are, used or not: every place number is below.
    pub(super) const fn places(&self) -> usize {
        self.places.len()
    }

    /// A generation that no name given out so far has.
    pub(super) fn generation_next(&self) -> u32 {
        self.places.iter().map(|place| place.generation.wrapping_add(1)).fold(self.generation_first, u32::max)
    }

    /// Puts an entry into a place, unlisted.
    #[inline]
    pub(super) fn insert(&mut self, entry: T, handle: H) -> u32 {
        self.len += 1;
        if self.free == NONE {
            return self.insert_new(entry, handle);
        }
        let at = self.free;
        let place = &mut self.places[at as usize];
        self.free = place.younger;
        place.entry = entry;
        place.handle = Some(handle);
        at
    }

    #[cold]
    fn insert_new(&mut self, entry: T, handle: H) -> u32 {
        let at = u32::try_from(self.places.len()).unwrap_or(NONE);
        assert!(at < NONE, "more than four thousand million entries in one matcher");
        let generation = self.generation_first;
        self.places.push(Place { entry, handle: Some(handle), generation, older: NONE, younger: NONE });
        at
    }

    /// Empties a place that is not listed. Its name goes stale.
    #[inline]
    pub(super) fn free(&mut self, at: u32) -> Option<H> {
        let place = &mut self.places[at as usize];
        let handle = place.handle.take()?;
        place.generation = (place.generation + 1) % GENERATIONS;
        place.younger = self.free;
        self.free = at;
        self.len -= 1;
        Some(handle)
    }

    /// Makes an entry the youngest of the list.
    #[inline]
    pub(super) fn list(&mut self, at: u32) {
        let before = self.youngest;
        let place = &mut self.places[at as usize];
        place.older = before;
        place.younger = NONE;
        self.youngest = at;
        if before == NONE {
            self.oldest = at;
        } else {
            self.places[before as usize].younger = at;
        }
    }

    /// Takes an entry out of the list; it stays in its place.
    #[inline]
    pub(super) fn unlist(&mut self, at: u32) {
        let (older, younger) = (self.places[at as usize].older, self.places[at as usize].younger);
        if older == NONE {
            self.oldest = younger;
        } else {
            self.places[older as usize].younger = younger;
        }
        if younger == NONE {
            self.youngest = older;
        } else {
            self.places[younger as usize].older = older;
        }
    }

    #[inline]
    pub(super) const fn oldest(&self) -> u32 {
        self.oldest
    }

    #[inline]
    pub(super) fn younger(&self, at: u32) -> u32 {
        self.places[at as usize].younger
    }

    #[inline]
    pub(super) fn entry(&self, at: u32) -> &T {
        &self.places[at as usize].entry
    }

    #[inline]
    pub(super) fn entry_mut(&mut self, at: u32) -> &mut T {
        &mut self.places[at as usize].entry
    }

    /// Entry and handle of a used place.
    pub(super) fn both(&mut self, at: u32) -> Option<(&T, &mut H)> {
        let place = &mut self.places[at as usize];
        place.handle.as_mut().map(|handle| (&place.entry, handle))
    }

    /// The name of a used place.
    #[inline]
    pub(super) fn name(&self, at: u32) -> u64 {
        u64::from(self.places[at as usize].generation) << 32 | u64::from(at)
    }

    /// The place that a name means, if it is not stale.
    pub(super) fn resolve(&self, name: u64) -> Option<u32> {
        let (at, generation) = ((name & 0xffff_ffff) as u32, (name >> 32) as u32);
        let place = self.places.get(at as usize)?;
        (place.generation == generation && place.handle.is_some()).then_some(at)
    }
}
