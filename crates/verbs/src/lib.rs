//! Safe verbs: devices, memory, queue pairs, channels and networks over libibverbs, which is loaded at run time.
//!
//! Builds with rustc and its linker alone. Nothing here makes a device or a peer touch memory that safe code can free or read as `&[u8]`:
//! `docs/adr/0016-safe-verbs.md` says how. It knows nothing of Sinew's engine.

#![deny(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod ah;
pub mod channel;
pub mod cm;
pub mod cq;
pub mod device;
mod error;
pub mod hub;
mod library;
pub mod memory;
pub mod multi_channel;
#[cfg(feature = "network")]
pub mod network;
mod number;
mod pd;
pub mod qp;
pub mod srq;
mod wait;
pub mod work;

pub use channel::Channel;
pub use error::{Error, Result};
pub use hub::Hub;
pub use library::{Library, devices, open_device};
pub use multi_channel::MultiChannel;
pub use pd::ProtectionDomain;
pub use sinew_verbs_sys as sys;
