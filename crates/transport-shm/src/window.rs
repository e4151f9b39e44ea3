//! Who has which bytes of the own window: two rings of bytes, a small one for small bodies and a large one.
//!
//! Called by the lane's producer. Pure arithmetic: offsets in, offsets out. Bodies are contiguous; what does not fit
//! before the end of a ring starts at its beginning again. Room comes back in the order it was taken.

/// Where both rings stood after some frame.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    small: u64,
    large: u64,
}

/// The window.
#[derive(Debug)]
pub(crate) struct Window {
    small: Bytes,
    large: Bytes,
    small_max: usize,
}

#[derive(Debug)]
struct Bytes {
    base: usize,
    size: u64,
    head: u64,
    /// Where `head` is in the ring.
    at: u64,
    tail: u64,
}

/// Bodies start at cache lines.
const LINE: u64 = 64;

impl Bytes {
    #[inline]
    fn take(&mut self, len: usize) -> Option<usize> {
        let (start, at, len) = self.place(len)?;
        self.head = start + len;
        self.at = at + len;
        Some(self.base + at as usize)
    }

    /// Where the next `len` bytes go: the head before them, their place in the ring, their length in whole lines.
    #[inline]
    fn place(&self, len: usize) -> Option<(u64, u64, u64)> {
        let len = (len as u64).next_multiple_of(LINE);
        let (mut start, mut at) = (self.head, self.at);
        if at + len > self.size {
            start += self.size - at;
            at = 0;
        }
        (start + len - self.tail <= self.size).then_some((start, at, len))
    }
}

impl Window {
    /// A window of `small` and `large` bytes, each a multiple of the line; bodies up to `small_max` go to the small ring
    /// as long as it has room.
    pub(crate) fn new(small: usize, large: usize, small_max: usize) -> Self {
        let ring = |base, size| Bytes { base, size: size as u64, head: 0, at: 0, tail: 0 };
        Self { small: ring(0, small), large: ring(small, large), small_max }
    }

    /// Room for `len` bytes: its offset in the window. `None`: nothing now.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<usize> {
        if len <= self.small_max
            && let Some(offset) = self.small.take(len)
        {
            return Some(offset);
        }
        self.large.take(len)
    }

    /// Where [`Window::take`] would find room for `len` bytes now.
    #[inline]
    pub(crate) fn next(&self, len: usize) -> Option<usize> {
        let small = (len <= self.small_max).then(|| self.small.place(len)).flatten();
        if let Some((_, at, _)) = small {
            return Some(self.small.base + at as usize);
        }
        self.large.place(len).map(|(_, at, _)| self.large.base + at as usize)
    }

    /// Whether small bodies have overflowed into the large ring: worth a look at what came back.
    #[inline]
    pub(crate) fn small_is_full(&self, len: usize) -> bool {
        len <= self.small_max && self.small.head - self.small.tail + len as u64 + LINE > self.small.size
    }

    /// Where it stands now; kept beside the frame that was taken room for.
    #[inline]
    pub(crate) fn mark(&self) -> Mark {
        Mark { small: self.small.head, large: self.large.head }
    }

    /// Everything up to `mark` has come back.
    #[inline]
    pub(crate) fn release(&mut self, mark: Mark) {
        self.small.tail = mark.small;
        self.large.tail = mark.large;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn taken_ranges_never_overlap_and_all_comes_back() {
        let mut window = Window::new(4096, 16384, 1024);
        let mut held: VecDeque<(usize, usize, Mark)> = VecDeque::new();
        let mut seed = 1u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let len = 1 + (seed >> 33) as usize % 8192;
            let next = window.next(len);
            let taken = window.take(len);
            assert_eq!(next, taken, "what is said before is what is given");
            match taken {
                Some(at) => {
                    assert!(at + len <= 4096 + 16384 && (at >= 4096 || at + len <= 4096));
                    for (start, length, _) in &held {
                        assert!(at + len <= *start || start + length <= at, "overlap");
                    }
                    held.push_back((at, len, window.mark()));
                }
                None => {
                    let (_, _, mark) = held.pop_front().expect("an empty window has room");
                    window.release(mark);
                }
            }
        }
    }

    #[test]
    fn an_empty_window_takes_half_of_its_size_at_any_position() {
        let mut window = Window::new(4096, 16384, 0);
        for _ in 0..100 {
            window.take(5000).expect("room");
            let mark = window.mark();
            window.release(mark);
            window.take(8192).expect("room for half");
            let mark = window.mark();
            window.release(mark);
        }
    }
}
