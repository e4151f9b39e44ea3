//! An RDMA device inside the process, behind the table of libibverbs, for tests of what stands on `sinew-verbs-sys`.
//!
//! Called by tests and instruction counts only. It has no thread and no clock: what can move moves in the call that posts, polls, or
//! steers, so that every run of a single-threaded test is the same. It must not be used as a transport, and depends on nothing of
//! ours but the ABI.
//!
//! - [`FakeDevice::new`] → a library of devices as [`Options`] describe them, and a [`Control`]: what fails, what waits, what the
//!   device saw that a program must not do ([`Fault`]), what it may still touch ([`Touch`]).
//! - [`null::NullDevice::library`] → a device that does nothing as fast as possible, for counting instructions.
//! - [`recorder`] → a wrapper around another table that writes down calls with all their arguments.
//!
//! # What it does as real devices do
//!
//! Keys, ranges, domains and rights are checked when memory is touched, not when a request is posted. Queue pairs follow the
//! specification's table of states and attributes; packets whose numbers the peer does not expect are lost. A place in a queue is
//! free when its completion, or one after it, was *polled*. Send completions of reliable queue pairs come after the message was
//! delivered. A queue that is full refuses, a completion queue that overruns loses completions and says so.
//!
//! # What it does not
//!
//! No extended connections (XRC), raw packets, flow steering, tag matching, and no paths with loss. On-demand paging is accepted and
//! changes nothing; a DMA-BUF is any descriptor that can be mapped.
//!
//! # Safety
//!
//! What it copies is named by registered keys only (`engine/bytes.rs`), so a program is sound with it exactly when it keeps registered
//! memory alive, as with a real device.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]
#![deny(unsafe_code)]

mod call;
mod control;
mod engine;
mod fault;
mod mapped;
mod notify;
pub mod null;
mod object;
mod options;
mod pointer;
pub mod recorder;
mod request;
mod slots;
mod table;
mod world;

pub use call::Call;
pub use control::Control;
pub use fault::{Alteration, Fault, Hold, Kind, Refusal, Touch};
pub use options::{DeviceOptions, Efa, Gid, Options, PortOptions};
pub use table::FakeDevice;
