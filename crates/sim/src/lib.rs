//! Deterministic simulation: real engines in a virtual network, from one seed.
//!
//! Run by its tests, by `cargo run -p sinew-sim` and by `cargo xtask sim`. Everything of a simulation runs on one thread in
//! virtual time: the same seed gives the same events. What happened is judged by a checker that shares no code with what it
//! judges. `docs/simulation.md` tells how to read and replay a failure.
#![deny(unsafe_code)]

mod checker;
pub mod command;
mod lane;
mod net;
mod plan;
pub mod random;
mod surroundings;
mod trace;
mod world;

pub use net::Breach;
pub use plan::Weather;
pub use world::{Report, Setting, run};
