//! The shared-memory transport: frames between two processes of one machine, about as fast as a cache line travels.
//!
//! Called by the facade, which registers a [`ShmTransport`] with the engine; everything else goes through the traits of
//! `sinew_transport`. It knows frames, never endpoints, tags or sessions.
//!
//! # How it works
//! A Unix stream socket in a private directory carries the first records and tells who is there. Then each side makes one
//! sealed memfd that only it can write: its ring of 64-byte slots, its window for larger bodies, and the words by which it
//! speaks to the peer's producer. Posting a small frame is a few stores into one cache line; no atomic read-modify-write,
//! no fence, no system call. `docs/wire/shm.md` has every byte, `docs/adr/0005-shared-memory-trust.md` what is believed.
//!
//! # Memory safety
//! The peer's memory is mapped for reading only and never becomes a reference except to atomics. Every length and offset
//! of the peer is copied once, checked, then used. `unsafe` lives in `half.rs`, `segment.rs` and `sys/`.
//!
//! # Descriptors
//! Three memory files or eventfds and a listener for each domain; for each connected peer of the same user its socket and
//! its doorbell, for others the socket alone; one descriptor for each segment that no peer has been given yet.
//!
//! # Needs
//! Linux 5.1 (`F_SEAL_FUTURE_WRITE`). Newer kernels add: memory marked not executable (6.3). The barrier that spares
//! producers a fence is as old as 4.16; where a sandbox refuses it, fences are used.
#![deny(unsafe_code)]

#[cfg(all(target_os = "linux", not(loom)))]
mod across;
#[cfg(all(target_os = "linux", not(loom)))]
mod domain;
#[cfg(all(target_os = "linux", not(loom)))]
mod half;
#[cfg(all(target_os = "linux", not(loom)))]
mod lane;
#[cfg(all(target_os = "linux", not(loom)))]
mod link;
#[cfg(all(target_os = "linux", not(loom)))]
mod note;
#[cfg(not(loom))]
mod options;
#[cfg(all(target_os = "linux", not(loom)))]
mod registry;
#[cfg(all(target_os = "linux", not(loom)))]
mod runtime_dir;
#[cfg(all(target_os = "linux", not(loom)))]
mod segment;
#[doc(hidden)]
pub mod shared;
#[cfg(all(target_os = "linux", not(loom)))]
mod sys;
#[cfg(not(loom))]
mod transport;
#[cfg(all(target_os = "linux", not(loom)))]
mod window;

#[cfg(not(loom))]
pub use options::{CrossRead, HugePages, Numa, ShmOptions};
#[cfg(not(loom))]
pub use transport::{SCHEME, ShmTransport};

/// What to do about a system call that made no descriptor, when it is not that descriptors are short.
#[cfg(all(target_os = "linux", not(loom)))]
const fn no_descriptor(errno: rustix::io::Errno) -> &'static str {
    match errno {
        rustix::io::Errno::MFILE | rustix::io::Errno::NFILE => "",
        _ => "a sandbox (seccomp) around this process may refuse it",
    }
}

/// The answer to a forked child that uses its parent's handles.
#[cfg(all(target_os = "linux", not(loom)))]
fn forked() -> sinew_transport::TransportError {
    let kind = sinew_transport::ErrorKind::Broken;
    sinew_transport::TransportError::new(kind, "shared-memory lane", "forked")
        .hint("it belongs to the process that forked this one; open an engine of your own after fork")
}
