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
    value: Option<T>,
}

#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    /// The key that the next insert will give.
    pub(crate) fn next_key(&self) -> Key {
        match self.free.last() {
            Some(&index) => Key::new(index, self.slots[index as usize].generation),
            None => Key::new(self.slots.len() as u32, 1),
        }
    }

    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.value = Some(value);
            return Key::new(index, slot.generation);
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot { generation: 1, value: Some(value) });
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
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        self.free.push(key.index());
        Some(value)
    }

    /// Drops an entry where it is: an operation is long, and moving it out costs more than the rest of its end.
    #[inline]
    pub(crate) fn discard(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key.index() as usize) else { return };
        if slot.generation == key.generation() && slot.value.is_some() {
            slot.value = None;
            slot.generation = slot.generation.checked_add(1).unwrap_or(1);
            self.free.push(key.index());
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
        self.slots.len() - self.free.len()
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
}
