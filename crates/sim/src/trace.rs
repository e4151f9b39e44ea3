//! What happened, as one number and, when asked for, as lines.
//!
//! Fed by the network and the world. Two runs of one seed have the same number. It must be told nothing that depends on the
//! machine: no addresses of memory, no real time, no process numbers.

use std::fmt::Arguments;

/// The number so far, and who wants lines.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    prints: bool,
}

impl Trace {
    /// Nothing has happened. `prints`: every event goes to standard output as a line.
    #[must_use]
    pub(crate) const fn new(prints: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, prints }
    }

    /// Something happened at `now`: `numbers` count, `line` is for people.
    pub(crate) fn note(&mut self, now: u64, numbers: &[u64], line: Arguments<'_>) {
        self.count(now);
        for &number in numbers {
            self.count(number);
        }
        if self.prints {
            println!("{:>12.6} {line}", now as f64 / 1e9);
        }
    }

    const fn count(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3);
        self.hash ^= self.hash >> 29;
    }

    /// The number.
    #[must_use]
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }
}
