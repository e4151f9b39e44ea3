//! The atomics of the shared words; loom's under `--cfg loom`, so that the protocols can be model-checked as they are.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// The model has no weaker fence than the real one.
#[cfg(loom)]
pub fn compiler_fence(order: Ordering) {
    fence(order);
}
