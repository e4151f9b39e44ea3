//! Which bytes of a message are there, when its fragments come in any order and some of them twice.
//!
//! Used by receives that fetch. Bounded: a peer that leaves gaps on purpose is told so before they cost memory.

/// Gaps that a message may have: fragments are at least 64 KiB, on at most a few lanes.
const PARTS_MAX: usize = 4096;

/// Ranges of bytes, apart from each other, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Where `start` stands among the ranges: the first that ends behind it.
    fn place(&self, start: u64) -> usize {
        // Most fragments come in order.
        match self.0.last() {
            Some(&(_, end)) if end <= start => self.0.len(),
            _ => self.0.partition_point(|&(_, end)| end <= start),
        }
    }

    /// Whether nothing of `start..end` is there, and it may be added.
    pub(crate) fn is_free(&self, start: u64, end: u64) -> bool {
        let at = self.place(start);
        self.0.get(at).is_none_or(|&(next, _)| end <= next) && self.0.len() < PARTS_MAX
    }

    /// Adds `start..end`. `false`: it was not free.
    pub(crate) fn add(&mut self, start: u64, end: u64) -> bool {
        if !self.is_free(start, end) {
            return false;
        }
        let at = self.place(start);
        let joins_next = self.0.get(at).is_some_and(|&(next, _)| next == end);
        let joins_last = at > 0 && self.0[at - 1].1 == start;
        match (joins_last, joins_next) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = end,
            (false, true) => self.0[at].0 = start,
            (false, false) => self.0.insert(at, (start, end)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_once_in_whatever_order_fragments_come() {
        let mut random = 7_u64;
        for _ in 0..200 {
            let (mut ranges, mut there) = (Ranges::default(), [false; 64]);
            for _ in 0..200 {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let start = (random >> 33) % 60;
                let end = start + 1 + (random >> 50) % 4;
                let free = !there[start as usize..end as usize].contains(&true);
                assert_eq!(ranges.is_free(start, end), free);
                assert_eq!(ranges.add(start, end), free);
                there[start as usize..end as usize].fill(true);
                if !free {
                    // What is not free is not added in part.
                    there = [false; 64];
                    for &(start, end) in &ranges.0 {
                        there[start as usize..end as usize].fill(true);
                    }
                }
                assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{ranges:?}");
            }
        }
    }

    #[test]
    fn gaps_are_bounded() {
        let mut ranges = Ranges::default();
        let added = (0..100_000).filter(|at| ranges.add(at * 2, at * 2 + 1)).count();
        assert_eq!(added, PARTS_MAX);
    }
}
