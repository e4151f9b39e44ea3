//! What a lane can do and what it costs: plain data that path choice scores.

/// What a lane is able to do beyond frames in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// The receiver can fetch from memory that the sender described ([`crate::Lane::describe`], [`crate::Lane::pull`]).
    pub pull: bool,
    /// The receiver can look at described memory in place ([`crate::Lane::view`]).
    pub view: bool,
    /// Polling it costs a memory read, not a system call: the engine polls it on every turn.
    pub memory_polled: bool,
    /// It stays on this machine.
    pub local: bool,
    /// The peer's death closes it at once, without a word of the peer.
    pub death_detected: bool,
}

/// A linear model: moving `n` bytes takes `latency_ns + n × per_byte_ps / 1000`, and occupies the sender's processor for
/// `overhead_ns`. Hints until the engine has measured the lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// One way, smallest message, in nanoseconds.
    pub latency_ns: u64,
    /// Picoseconds for each further byte (1000 = 1 GB/s).
    pub per_byte_ps: u64,
    /// Sender's processor time for one message, in nanoseconds.
    pub overhead_ns: u64,
}

impl Cost {
    /// Nanoseconds that a message of `len_bytes` takes.
    #[must_use]
    pub const fn predict_ns(&self, len_bytes: u64) -> u64 {
        self.latency_ns
            .saturating_add(self.overhead_ns)
            .saturating_add(len_bytes.saturating_mul(self.per_byte_ps) / 1000)
    }
}
