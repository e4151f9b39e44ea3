//! Transports around transports: what they add is no switch inside the wrapped one.
//!
//! Used by tests, the command and whoever wants to count or break things. A wrapper has the name, the addresses and the
//! capabilities of what it wraps, and keeps its contract.

pub mod fault;
mod forward;
pub mod meter;
