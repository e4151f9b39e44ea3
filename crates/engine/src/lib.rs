//! The Sinew engine: endpoints and messages over whichever path to a peer really works.
//!
//! Called by applications through the facade `sinew`. It never names a concrete transport: they come as values.
//!
//! # Order of use
//! [`Engine::builder`] → [`Engine::endpoint`] → [`Endpoint::connect`] → [`Peer::send`], [`Endpoint::recv`]. Blocking,
//! `try_*`, scoped ([`Endpoint::scope`]), owned and asynchronous ([`SendOp`], [`RecvOp`] are futures), batch
//! ([`Peer::send_batch`], [`Endpoint::recv_batch`]) and handler forms ([`Endpoint::on_message`], [`SendOp::on_complete`],
//! [`RecvOp::on_complete`]) share these verbs.
//!
//! # Memory safety
//! Buffers are lent to a call or scope, which does not end before the operation has, or moved into the operation. Only the
//! engine's core touches them, under its lock, and never after the operation has left its table: a cancelled receive is
//! never written later. ADR 2 has the whole story.
//!
//! # Threads and processes
//! All handles are `Send` and `Sync`. After `fork` the child's handles answer [`OpError::Forked`].
#![deny(unsafe_code)]

mod anchor;
mod batch;
mod builder;
mod complete;
mod completion;
mod config;
mod connect;
mod core;
mod endpoint;
mod engine;
mod error;
pub mod events;
mod handler;
mod held;
mod histogram;
mod incoming;
mod message;
mod metrics;
mod op;
mod options;
mod panics;
mod peer;
mod pool;
mod progress;
mod scope;
mod shared;
mod signals;
mod system;
mod timeout;
mod user_secret;
mod waiting;

#[doc(hidden)]
pub use crate::core::Surroundings;
pub use crate::core::{Explain, ExplainRow, SocketCount, Verdict};
pub use batch::{Outgoing, Partial, Receive};
pub use builder::Builder;
pub use complete::OnComplete;
pub use completion::{Completion, Match, Source};
pub use config::{DomainSecret, Security};
pub use endpoint::Endpoint;
pub use engine::{Armed, Engine};
pub use error::{BuildError, ConnectError, Failed, OpError};
pub use handler::Handler;
pub use histogram::{EndpointHistograms, LaneHistograms, Latency};
pub use incoming::Incoming;
pub use message::Message;
pub use metrics::{EndpointCounters, EngineCounters, LaneCounters};
pub use op::{Received, RecvOp, SendOp};
pub use options::EngineOptions;
pub use peer::Peer;
pub use progress::Progress;
pub use scope::{Scope, ScopedRecv, ScopedSend};
pub use sinew_transport::{Buf, Bytes, Code, Crossing, Errno, ErrorKind, Transport, TransportError};
pub use sinew_wire::address::{
    Address, AddressError, AddressErrorKind, EndpointRef, Explicit, Name, Target, split_locator,
};
/// Frames, for those who write a transport of their own.
pub use sinew_wire::frame;
pub use timeout::Timeout;

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
