//! What the core takes from outside beside frames: the time and random bytes.
//!
//! Implemented by the shell of an engine ([`crate::system`]), and by whoever runs cores in a time of his own. The core names no
//! clock and no generator: the same answers make the same engine. Neither is asked for on the way of a message, but when
//! credit is missing, a lane is measured or made, or descriptors are looked at.

use sinew_transport::{Errno, Poller};
use std::time::Instant;

/// Where time and chance come from.
pub trait Surroundings: Send + Sync {
    /// The present moment; never earlier than one that was told before.
    fn now(&self) -> Instant;

    /// Fills `bytes` with what nobody can guess.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Errno>;

    /// What the engine asks for readiness, and sleeps on.
    fn poller(&self) -> Result<Poller, Errno> {
        Poller::new()
    }
}

impl dyn Surroundings + '_ {
    /// Random bytes.
    pub(crate) fn random<const N: usize>(&self) -> Result<[u8; N], Errno> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}
