//! Stream transports: `tcp` over IPv4 and IPv6, and `uds` over Unix-domain stream sockets, on one lane implementation.
//!
//! Made by the facade (or by whoever builds an engine) as [`TcpTransport`] and [`UdsTransport`]; driven by the engine through
//! the traits of `sinew-transport`. It knows frames, never endpoints, tags or sessions, and runs no thread of its own but
//! short-lived helpers: one that resolves a host name, one that waits until a listener without descriptors left may try again.
//!
//! # Files
//! `tcp/` and `uds/` make listeners and dial; `link.rs` carries the fixed-size records before there is a lane; `lane/` is
//! the lane: `send_log.rs` keeps what was taken until the peer has it, `receive.rs` parses in place and reads large bodies
//! straight to where they belong, `watch.rs` decides when to acknowledge and when a silent peer is dead.
//! `docs/wire/stream.md` describes every byte.
//!
//! # Memory safety
//! Unsafe code lives in `memory.rs` (a caller's memory between two calls), `socket.rs` (system calls that `rustix` lacks) and
//! at the two places of `lane/` where the transport contract hands memory over.
#![deny(unsafe_code)]

mod connector;
mod lane;
mod link;
mod listener;
mod memory;
mod options;
mod registered;
mod socket;
mod tcp;
mod uds;

pub use lane::{BORROWED_MAX, FRAME_MAX};
pub use options::{BadSockets, CongestionControl, Parallel, Sockets, StreamOptions, TcpOptions, UdsOptions};
pub use tcp::TcpTransport;
pub use uds::UdsTransport;
