//! An asymmetric memory barrier: nearly free on the side that runs often, a system call on the side that runs seldom.
//!
//! Used by the biased lock. `light()` on one thread and `heavy()` on another order like two sequentially consistent
//! fences: of "A stores x, `light`, loads y" and "B stores y, `heavy`, loads x" at least one load sees the other's store.
//! It orders threads of this process only, never memory shared with another process.

/// How this process pairs its barriers; decided once, before the first lock is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pairing {
    /// `membarrier` (2) works: the light side only keeps the compiler from reordering.
    Asymmetric,
    /// The kernel refuses it: both sides execute a full fence.
    Symmetric,
}

/// The kernel took `membarrier` away after it had granted it, as a system-call filter installed late does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarrierLost;

#[cfg(all(not(loom), not(miri)))]
mod imp {
    use super::{BarrierLost, Pairing};
    use rustix::thread::{MembarrierCommand, membarrier};
    use std::sync::OnceLock;
    use std::sync::atomic::{Ordering, compiler_fence, fence};

    /// Registers the process with the kernel on the first call; later calls read the answer.
    pub fn pairing() -> Pairing {
        static PAIRING: OnceLock<Pairing> = OnceLock::new();
        *PAIRING.get_or_init(|| {
            let registered = membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok();
            if registered && membarrier(MembarrierCommand::PrivateExpedited).is_ok() {
                Pairing::Asymmetric
            } else {
                Pairing::Symmetric
            }
        })
    }

    /// The frequent side.
    #[inline(always)]
    pub fn light(pairing: Pairing) {
        match pairing {
            Pairing::Asymmetric => compiler_fence(Ordering::SeqCst),
            Pairing::Symmetric => fence(Ordering::SeqCst),
        }
    }

    /// The seldom side: about a microsecond, and an interrupt to each processor that runs a thread of this process.
    ///
    /// # Errors
    /// [`BarrierLost`]; nothing is ordered then.
    pub fn heavy(pairing: Pairing) -> Result<(), BarrierLost> {
        fence(Ordering::SeqCst);
        if pairing == Pairing::Asymmetric && membarrier(MembarrierCommand::PrivateExpedited).is_err() {
            // A child of fork may have lost the registration; it is allowed to register again.
            membarrier(MembarrierCommand::RegisterPrivateExpedited).map_err(|_| BarrierLost)?;
            membarrier(MembarrierCommand::PrivateExpedited).map_err(|_| BarrierLost)?;
        }
        fence(Ordering::SeqCst);
        Ok(())
    }
}

/// Models and interpreters know no `membarrier`: a pair of fences has the meaning that the kernel promises for it.
#[cfg(any(loom, miri))]
mod imp {
    use super::{BarrierLost, Pairing};
    #[cfg(loom)]
    use loom::sync::atomic::fence;
    #[cfg(not(loom))]
    use std::sync::atomic::fence;

    /// As the kernel would answer without `membarrier`.
    pub fn pairing() -> Pairing {
        Pairing::Symmetric
    }

    /// A full fence.
    pub fn light(_: Pairing) {
        fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// A full fence.
    ///
    /// # Errors
    /// Never.
    pub fn heavy(_: Pairing) -> Result<(), BarrierLost> {
        fence(std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}

pub use imp::{heavy, light, pairing};
