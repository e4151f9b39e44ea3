//! Every byte that Sinew puts on a wire, into a ring or into a printed address.
//!
//! Called by `proto`, `transport*` and `engine`. It judges form, not meaning: no I/O, no clock, no `unsafe`, no
//! dependency. Two levels, as everywhere: readers that judge nothing, and representations that cannot be wrong.
#![forbid(unsafe_code)]

pub mod address;
pub mod frame;
pub mod hello;
