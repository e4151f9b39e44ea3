//! A slab whose keys carry a generation: a key of something gone finds nothing, whatever has its slot now.

/// Names an entry: index in the low half, generation in the high half. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key(pub(crate) u64);

impl Key {
    /// Finds nothing.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn index(self) -> u32 {
        self.0 as u32
    }

    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    const fn new(index: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | index as u64)
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    /// In a free slot: the next free one.
    next_free: u32,
    value: Option<T>,
}

/// Ends the list of free slots.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    /// The slot that was freed last.
    free: u32,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: NONE, len: 0 }
    }
}

impl<T> Table<T> {
    /// The key that the next insert will give.
    #[inline(always)]
    pub(crate) fn next_key(&self) -> Key {
        match self.slots.get(self.free as usize) {
            Some(slot) => Key::new(self.free, slot.generation),
            None => Key::new(self.slots.len() as u32, 1),
        }
    }

    #[inline(always)]
    pub(crate) fn insert(&mut self, value: T) -> Key {
        let index = self.free;
        let Some(slot) = self.slots.get_mut(index as usize) else { return self.insert_new(value) };
        self.free = slot.next_free;
        self.len += 1;
        // There is none: that need not be asked before the new one is written.
        std::mem::forget(slot.value.replace(value));
        Key::new(index, slot.generation)
    }

    #[cold]
    #[inline(never)]
    fn insert_new(&mut self, value: T) -> Key {
        let index = u32::try_from(self.slots.len()).unwrap_or(NONE);
        assert!(index < NONE, "more than four thousand million entries in one table");
        self.len += 1;
        self.slots.push(Slot { generation: 1, next_free: NONE, value: Some(value) });
        Key::new(index, 1)
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index() as usize)?;
        if slot.generation == key.generation() { slot.value.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index() as usize)?;
        if slot.generation == key.generation() { slot.value.as_mut() } else { None }
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index() as usize)?;
        if slot.generation != key.generation() {
            return None;
        }
        let value = slot.value.take()?;
        self.free(key);
        Some(value)
    }

    /// Takes an entry out in which nothing is left that has to be dropped: its parts were taken. An operation is long, and moving it as a
    /// whole costs more than the rest of its end.
    #[inline(always)]
    pub(crate) fn forget(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key.index() as usize) else { return };
        if slot.generation == key.generation() && slot.value.is_some() {
            std::mem::forget(slot.value.take());
            self.free(key);
        }
    }

    #[inline(always)]
    fn free(&mut self, key: Key) {
        if let Some(slot) = self.slots.get_mut(key.index() as usize) {
            slot.generation = slot.generation.checked_add(1).unwrap_or(1);
            slot.next_free = self.free;
            self.free = key.index();
            self.len -= 1;
        }
    }

    /// Drops an entry where it is.
    #[inline]
    pub(crate) fn discard(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key.index() as usize) else { return };
        if slot.generation == key.generation() && slot.value.is_some() {
            slot.value = None;
            self.free(key);
        }
    }

    /// Key of the live entry in slot `index`.
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        let slot = self.slots.get(index as usize)?;
        slot.value.as_ref().map(|_| Key::new(index, slot.generation))
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        (0..self.slots.len() as u32).filter_map(|index| self.key_at(index)).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            slot.value.as_ref().map(|value| (Key::new(index as u32, slot.generation), value))
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_something_gone_finds_nothing() {
        let mut table = Table::default();
        let first = table.insert("first");
        assert_eq!(table.remove(first), Some("first"));
        let next = table.next_key();
        let second = table.insert("second");
        assert_eq!(next, second);
        assert_eq!(first.index(), second.index());
        assert_eq!((table.get(first), table.get(second)), (None, Some(&"second")));
        assert_eq!(table.remove(first), None);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn an_entry_goes_once_whichever_way_and_its_place_is_used_again() {
        for goes in [Table::forget, Table::discard, |table: &mut Table<u32>, key| {
            assert!(table.remove(key) != Some(0))
        }] {
            let mut table = Table::default();
            let (one, two) = (table.insert(1), table.insert(2));
            goes(&mut table, one);
            goes(&mut table, one);
            goes(&mut table, Key::new(7, 1));
            assert_eq!((table.len(), table.get(one), table.get(two)), (1, None, Some(&2)));
            // What is there now is another.
            let three = table.insert(3);
            assert_eq!((three.index(), three != one), (one.index(), true));
            goes(&mut table, one);
            assert_eq!((table.len(), table.get(three)), (2, Some(&3)));
            goes(&mut table, three);
            // A free place has nothing to take out.
            let free = table.next_key();
            goes(&mut table, free);
            assert_eq!(table.len(), 1);
            let (four, five) = (table.insert(4), table.insert(5));
            assert_eq!((four.index(), five.index(), table.len()), (0, 2, 3));
        }
    }
}
