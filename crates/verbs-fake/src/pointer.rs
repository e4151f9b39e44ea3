//! Why a carried pointer may go between threads.
//!
//! Used by `world.rs`.
#![allow(unsafe_code)]

use crate::world::Pointer;

// SAFETY: the pointer itself is a number with a memory of where it comes from; whoever follows it says why it may.
unsafe impl<T> Send for Pointer<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Pointer<T> {}
