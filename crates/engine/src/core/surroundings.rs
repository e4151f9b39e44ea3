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

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills with numbers from five on, as many as it has.
    struct Given(usize);

    impl Surroundings for Given {
        fn now(&self) -> Instant {
            Instant::now()
        }

        fn fill(&self, bytes: &mut [u8]) -> Result<(), Errno> {
            bytes.iter_mut().zip(5..).for_each(|(byte, number)| *byte = number);
            if bytes.len() <= self.0 { Ok(()) } else { Err(Errno::IO) }
        }
    }

    #[test]
    fn what_nobody_can_guess_is_what_was_given_or_an_error() {
        let given: &dyn Surroundings = &Given(4);
        assert_eq!(given.random(), Ok([5, 6, 7, 8]));
        assert_eq!(given.random::<5>(), Err(Errno::IO));
    }
}
