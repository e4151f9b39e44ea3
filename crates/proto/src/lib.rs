//! Protocol logic without I/O: matching, flow control, the handshake, path choice.
//!
//! Called by `engine`. It reads no clock, owns no randomness, blocks never: events and `now` go in, actions come out.
#![forbid(unsafe_code)]

pub mod credit;
pub mod growth;
pub mod handshake;
pub mod matching;
pub mod select;
