//! The memory of a message that is sent from several places without being copied together first.
//!
//! Made by [`crate::Message::send_slices`] for long messages; fragments are cut at the ends of its parts. Messages that
//! fit a frame never come here: lanes gather those themselves.
#![allow(unsafe_code)]

use super::op::Memory;
use std::io::IoSlice;
use std::ptr::NonNull;

/// Parts shorter than this on average are copied into one piece: a frame for each would cost more. Measured: a hundred parts
/// of 4 KiB over TCP take twice as long one by one; from 64 KiB on copying them together takes 1.1 (TCP) to 1.8 (shared
/// memory) times as long.
const PART_FROM: usize = 16 << 10;

/// Parts of a message, none of them empty.
#[derive(Debug)]
pub(crate) struct Gathered {
    parts: Box<[Part]>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    /// Offset in the message.
    start: usize,
    data: NonNull<u8>,
    len: usize,
}

impl Gathered {
    /// Bytes of the message.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The bytes from `at` on, up to `max` of them, or up to the end of their part. Empty only beyond the end.
    pub(crate) fn piece(&self, at: usize, max: usize) -> (NonNull<u8>, usize) {
        let number = self.parts.partition_point(|part| part.start + part.len <= at);
        let Some(part) = self.parts.get(number) else { return (NonNull::dangling(), 0) };
        let skip = at - part.start;
        // SAFETY: `skip < part.len`, as the part is the first that ends beyond `at`.
        (unsafe { part.data.add(skip) }, (part.len - skip).min(max))
    }
}

/// The slices in one piece.
pub(crate) fn flatten(parts: &[IoSlice<'_>], len: usize) -> Vec<u8> {
    let mut whole = Vec::with_capacity(len);
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole
}

impl Memory {
    /// Memory of a message that its call lends from several places. One that may fit a frame, or has many short parts, is
    /// copied into one piece.
    pub(crate) fn lent(parts: &[IoSlice<'_>], len: usize, frame_max: usize) -> Self {
        if let [part] = parts {
            return Self::Borrowed { data: NonNull::from(&**part).cast(), len };
        }
        if len <= frame_max || len / parts.len().max(1) < PART_FROM {
            return Self::Owned(flatten(parts, len).into());
        }
        let mut start = 0;
        let parts = parts.iter().filter(|part| !part.is_empty()).map(|part| {
            let own = Part { start, data: NonNull::from(&**part).cast(), len: part.len() };
            start += part.len();
            own
        });
        Self::Gathered(Gathered { parts: parts.collect(), len })
    }

    /// The bytes of a message from `at` on, up to `max` of them, as far as they lie together.
    pub(crate) fn piece(&self, at: usize, max: usize) -> (NonNull<u8>, usize) {
        match self {
            Self::Gathered(gathered) => gathered.piece(at, max),
            Self::Owned(_) | Self::Borrowed { .. } => {
                let at = at.min(self.len());
                // SAFETY: `at` is at most the length of the memory.
                (unsafe { self.data().add(at) }, (self.len() - at).min(max))
            }
            Self::Later { .. } | Self::Viewed { .. } => (NonNull::dangling(), 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(memory: &Memory, max: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < memory.len() {
            let (data, len) = memory.piece(all.len(), max);
            assert!(len > 0 && len <= max);
            // SAFETY: the parts outlive the memory in these tests.
            all.extend_from_slice(unsafe { std::slice::from_raw_parts(data.as_ptr(), len) });
        }
        assert_eq!(memory.piece(all.len(), max).1, 0);
        all
    }

    #[test]
    fn pieces_of_any_size_make_the_message() {
        let parts: Vec<Vec<u8>> = [0, 1, 39, 16_385, 0, 0, 170_000, 1, 0]
            .iter()
            .enumerate()
            .map(|(at, &len)| vec![at as u8; len])
            .collect();
        let whole = parts.concat();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let memory = Memory::lent(&slices, whole.len(), 100);
        assert!(matches!(memory, Memory::Gathered(_)));
        for max in [1000, 16_385, 1 << 20] {
            assert_eq!(bytes(&memory, max), whole);
        }
    }

    #[test]
    fn short_parts_and_short_messages_are_copied_into_one_piece() {
        let data = vec![3; 100_000];
        let short: Vec<IoSlice<'_>> = data.chunks(100).map(IoSlice::new).collect();
        let memory = Memory::lent(&short, data.len(), 100);
        assert!(matches!(memory, Memory::Owned(_)));
        assert_eq!(bytes(&memory, 4096), data);
        let two = [IoSlice::new(&data[..50_000]), IoSlice::new(&data[50_000..])];
        assert!(matches!(Memory::lent(&two, data.len(), 100_000), Memory::Owned(_)));
        let long = [IoSlice::new(&data[..PART_FROM]), IoSlice::new(&data[..PART_FROM])];
        assert!(matches!(Memory::lent(&long, 2 * PART_FROM, 100), Memory::Gathered(_)), "just long enough");
        assert!(matches!(Memory::lent(&two[..1], 50_000, 100), Memory::Borrowed { .. }));
        assert_eq!(Memory::lent(&[], 0, 100).len(), 0);
    }
}
