//! The seam between the engine and whatever moves bytes: [`Transport`] → [`Domain`] → [`Link`] → [`Lane`].
//!
//! Called by `engine`, implemented by `transport-*` and by anybody's crate. It knows frames (from `wire`), never endpoints,
//! tags or sessions. `docs/adr/0008-transport-trait.md` works the contract through for shm, TCP, RC verbs and libfabric RDM.
//!
//! # Order of use
//! 1. [`Transport::probe`] says whether this machine can do it at all; [`Transport::open`] makes one [`Domain`] per engine.
//! 2. [`Domain::locators`] are published in the engine's address. [`Domain::dial`] starts a [`Link`] to one of a peer's
//!    locators; [`Domain::accept`] returns links that peers started.
//! 3. A link carries a few fixed-size records, by which the engines prove to each other who they are, before anything else
//!    of the peer is interpreted. [`Link::into_lane`] then makes the [`Lane`].
//! 4. The engine proves the lane by a small and a full probe frame, then lets a session use it.
//!
//! # Memory safety
//! A lane touches memory of the caller only (a) during a call that was given it, (b) between [`Lane::try_post_borrowed`] and
//! [`Sink::released`] or [`Lane::reclaim`], (c) between [`Sink::place`] and [`Sink::placed`] or [`Lane::revoke`], (d) between
//! [`Lane::pull`] and [`Sink::pulled`] or [`Lane::revoke`]. `reclaim` and `revoke` are synchronous: when they return, the
//! lane holds no pointer any more. Memory that a peer may write is only ever handed out as a [`Body`], never as a slice.
//!
//! # Threads
//! Domains, links and lanes are `Send`, used by one thread at a time (the engine's core lock), never shared.
#![deny(unsafe_code)]

mod bell;
mod body;
pub mod buf;
mod cost;
mod domain;
mod error;
mod lane;
mod link;
mod locator;
pub mod loopback;
mod poller;
pub mod wrap;

pub use body::Body;
pub use buf::Buf;
/// Reference-counted bytes, which a [`Buf`] can be made of, for sending only.
pub use bytes::Bytes;
pub use cost::{Capabilities, Cost};
pub use domain::{Availability, Domain, DomainContext, LaneCount, ListenScope, Segment, Transport};
pub use error::{Code, ErrorKind, LaneError, TransportError};
pub use lane::{
    Backlog, Crossing, Descriptor, Lane, LaneInfo, Limits, Peek, Peeked, Placement, PostError, Pull, Sink,
    Token, Unacknowledged, UnacknowledgedBody, View,
};
pub use link::{Identity, LaneParams, Link, LinkState, RECORD_LEN, Record, Role};
pub use locator::{Locator, LocatorError};
pub use poller::{Event, Interest, PollKey, Poller, Readiness};
/// A number of the system's, as [`TransportError::os`] takes it.
pub use rustix::io::Errno;
/// What frames are made of, as [`Lane`] and [`Sink`] take them.
pub use sinew_wire::frame::{Flags, Header, Kind};
