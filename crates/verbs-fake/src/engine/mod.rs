//! What the device does: it takes requests out of queues, moves bytes between registered memory, and writes completions.
//!
//! Called by posting, polling and `Control`, in the caller's thread, until nothing moves any more. No pointer is followed outside
//! `bytes.rs`, and that one follows only what a registered key names.

pub(crate) mod bytes;
pub(crate) mod complete;
pub(crate) mod connected;
pub(crate) mod datagram;
pub(crate) mod keys;
pub(crate) mod run;
