//! Safe verbs: devices, memory, queue pairs, channels and networks over libibverbs, which is loaded at run time.
//!
//! Builds with rustc and its linker alone. Nothing here makes a device or a peer touch memory that safe code can free or read as `&[u8]`:
//! `docs/adr/0016-safe-verbs.md` says how. It knows nothing of Sinew's engine.

#![deny(unsafe_code)]

pub mod ah;
pub mod channel;
pub mod cq;
pub mod device;
mod error;
pub mod hub;
mod library;
pub mod memory;
mod pd;
pub mod qp;
pub mod srq;
mod wait;
pub mod work;

pub use channel::Channel;
pub use error::{Error, Result};
pub use hub::Hub;
pub use library::{Library, devices, open_device};
pub use pd::ProtectionDomain;
pub use sinew_verbs_sys as sys;
