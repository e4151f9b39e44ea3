//! A device that does nothing as fast as possible: posting writes the request's number into a ring, polling gives it back as a
//! success. For counting the instructions that a layer above costs.
//!
//! Called by instruction counts: by Rust through [`NullDevice`], by a C program through the functions `sinew_null_*`, which a
//! dynamic library that contains this crate exports, or which are handed over as pointers. So both sides run the same machine code.
//!
//! It touches no memory but its own, keeps nothing of a request but its number, knows neither locks nor threads, and completes every
//! request that is signaled at once. It must not be used to test anything.

mod data_path;
mod device;

pub use device::{
    NullDevice, sinew_null_completion_queue, sinew_null_free, sinew_null_new, sinew_null_queue_pair,
};
