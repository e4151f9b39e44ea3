//! Sinew: messages between programs over whichever path really works, at the speed of that path.
//!
//! For applications. The only crate that names every transport; everything else it re-exports from the engine.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = sinew::Engine::builder().domain("demo").build()?;
//! let (alice, bob) = (engine.endpoint("alice")?, engine.endpoint("bob")?);
//! let peer = alice.connect(bob.address())?;
//! peer.send(7, b"hello")?;
//! let mut buf = [0; 64];
//! let received = bob.recv(7, &mut buf)?;
//! assert_eq!(&buf[..received.len], b"hello");
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

mod builder;
#[cfg(feature = "tokio")]
pub mod on_tokio;
mod options;

pub use builder::{Builder, Engine, transport_names};
pub use options::TransportOptions;
pub use sinew_base::options::{Kind as OptionKind, OptionError, OptionRow};
pub use sinew_base::runtime_dir::default_path as default_runtime_dir;
pub use sinew_engine::*;
pub use sinew_transport as transport;
#[cfg(feature = "shm")]
pub use sinew_transport_shm as shm;
#[cfg(feature = "tcp")]
pub use sinew_transport_tcp as tcp;

/// The program at the top of the README, as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

/// Every option with its default, cost and help.
#[must_use]
pub fn option_tables() -> Vec<&'static [OptionRow]> {
    vec![EngineOptions::TABLE, TransportOptions::TABLE]
}
