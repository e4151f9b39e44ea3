//! Batches: many messages of one call, for one lock, one flush and one turn of progress.
//!
//! Called by applications. A batch is a slice that the caller fills before the call: nothing of the application runs under
//! the engine's lock. What a batch did not do is told exactly, and nothing of it is lost.
//!
//! # Memory safety
//! Buffers are borrowed for the call only. Receives that have not ended when the call ends, at its deadline or by a panic in
//! a waker, are really cancelled first, so that the engine never writes a buffer that the caller has back.

mod receive;
mod send;

pub(crate) use receive::Place;
pub use receive::Receive;
pub use send::{Outgoing, Partial};
