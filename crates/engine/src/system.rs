//! The clock and the random numbers of the system, for the core and for set-up.
//!
//! Called when an engine is built, and by its core. It keeps nothing.

use crate::core::Surroundings;
use std::time::Instant;

/// This machine.
pub(crate) struct System;

impl Surroundings for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), rustix::io::Errno> {
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(got) => filled += got,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// Bytes of the system's generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], rustix::io::Errno> {
    let system: &dyn Surroundings = &System;
    system.random()
}
