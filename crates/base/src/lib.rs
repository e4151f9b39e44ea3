//! The kit that every Sinew crate shares: copies from memory that peers may write, the biased lock, options, units.
//!
//! Called by all crates. It knows nothing of frames, lanes or engines. Unsafe lives in `copy.rs`,
//! `biased.rs`, `bytes.rs`, `fork.rs` and `guarded.rs`.

#![deny(unsafe_code)]

pub mod barrier;
pub mod biased;
pub mod bytes;
pub mod copy;
pub mod fork;
pub mod guarded;
pub mod options;
pub mod runtime_dir;
pub mod sleepers;
pub mod socket_path;
pub mod units;
