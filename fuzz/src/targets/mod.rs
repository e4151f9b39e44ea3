//! One file for each format or machine under test.
//!
//! A target returns a number that stands for what happened: inputs with a new one are worth mutating further.

mod address;
mod frame;
mod hello;
mod matching;
mod operations;
mod options;
mod ring;

/// A target by name.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The binary's and the corpus folder's name.
    pub name: &'static str,
    /// Runs one input and says what happened.
    pub run: fn(&[u8]) -> u64,
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Headers and streams of frames.
pub const FRAME: Target = Target { name: "frame", run: frame::run, seeds: frame::seeds };
/// Records of the hello, and the handshake that takes them.
pub const HELLO: Target = Target { name: "hello", run: hello::run, seeds: hello::seeds };
/// Addresses and URLs, in text and packed.
pub const ADDRESS: Target = Target { name: "address", run: address::run, seeds: address::seeds };
/// Sequences of operations on the matcher, against a plain list.
pub const MATCHING: Target = Target { name: "matching", run: matching::run, seeds: matching::seeds };

/// What a peer writes into its ring, its window and its control words, read by a real lane.
pub const RING: Target = Target { name: "ring", run: ring::run, seeds: ring::seeds };
/// Options as the environment says them.
pub const OPTIONS: Target = Target { name: "options", run: options::run, seeds: options::seeds };
/// Sequences of operations of two engines, against what was sent.
pub const OPERATIONS: Target = Target { name: "operations", run: operations::run, seeds: operations::seeds };

/// All of them.
pub const ALL: [Target; 7] = [FRAME, HELLO, ADDRESS, MATCHING, RING, OPTIONS, OPERATIONS];

/// Reads numbers from the front of an input; zeros after its end.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, at| word | u64::from(self.byte()) << (8 * at))
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }
}

/// Mixes what happened into one number.
fn note(outcome: u64, event: u64) -> u64 {
    (outcome ^ event).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}
