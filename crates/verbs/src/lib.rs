//! Safe verbs: devices, memory, queue pairs, channels and networks over libibverbs, which is loaded at run time.
//!
//! Builds with rustc and its linker alone. Nothing here makes a device or a peer touch memory that safe code can free or read as `&[u8]`:
//! `docs/adr/0016-safe-verbs.md` says how. It knows nothing of Sinew's engine.

#![deny(unsafe_code)]

pub mod device;
mod error;
mod hub;
pub mod memory;
#[cfg(feature = "network")]
pub mod network;
pub mod qp;
pub mod work;

pub use error::{Error, Result};
