//! The connection manager (librdmacm): queue pairs connected by address.
//!
//! For programs that know an address of IP and not the peer's endpoint. Two forms, the first made of the second:
//!
//! - blocking, with a deadline for each step: [`Connector`] and [`Acceptor`], which make a [`Connection`]; for datagrams
//!   [`Connector::look_up`], [`DatagramService`] and [`Group`], which say how a peer or a group is addressed;
//! - for event loops: an [`EventChannel`], whose descriptor does not block, with any number of [`Id`]s, each of which has its state in its type.
//!
//! # Order of use
//! The active side: resolve, make a queue pair on the device that was found, post receives, connect. The passive side:
//! bind, take a request, make a queue pair on the device that it came through, post receives, accept or reject. A [`Hub`](crate::hub::Hub) keeps the memory
//! of those receives where the queue pair is a member of it ([`Resolved::connect_member`], [`Incoming::accept_member`]).
//!
//! # States of an identifier
//! A step takes the identifier and gives the next one, or itself back with the error ([`NotDone`]). Where the network decides, the identifier
//! [waits](Waits), and the event brings it on: [`Waits::handle`]. A step that is not drawn here does not compile.
//!
//! ```text
//!  EventChannel::id ─► Created ──bind──► Bound ──listen──► Listening ┄┄ Event::Request ┄┄► Requested ──reject──► (gone)
//!                         │               │                                                   │
//!                         └resolve_address┘                                                accept
//!                                 ▼                                                           │
//!                        ResolvingAddress ┄┄ADDR_ERROR┄┄► Bound                               │
//!                                 ┆ ADDR_RESOLVED                                             │
//!                                 ▼                                                           │
//!                         AddressResolved ──resolve_route──► ResolvingRoute                   │
//!                                 ▲                           ┆          ┆ ROUTE_RESOLVED     │
//!                                 └┄┄┄┄┄┄┄ROUTE_ERROR┄┄┄┄┄┄┄┄┄┘          ▼                    │
//!                                                                  RouteResolved ──connect──► Connecting<Q> ┄┄┄┄┄┐
//!                                                                                                ┆          REJECTED, UNREACHABLE,
//!                                                       CONNECT_RESPONSE (active), ESTABLISHED   ┆          CONNECT_ERROR: Q
//!                                                                                                ▼
//!    Q ◄┄┄TIMEWAIT_EXIT┄┄ Disconnected<Q> ◄┄┄DISCONNECTED┄┄┄┄ Established<Q> ◄──establish── Answered<Q>
//!                                ▲                               │ disconnect
//!                                └┄┄┄DISCONNECTED┄┄┄ Disconnecting<Q>
//! ```
//!
//! `──►` is a call, `┄┄►` an event. `Q` is what is connected: a [`QueuePair`](crate::qp::QueuePair) that moves in and comes out when it is connected no more, or a
//! [`Member`](crate::hub::Member) of a hub. Datagrams (`Id<_, Ud>`) go the same way to `RouteResolved`, then [`look_up`](Id::look_up) to a [`DatagramPeer`]; a
//! listener of theirs gets [`Event::Inquiry`]; `Bound` [joins](Id::join) a [`Group`]. `DEVICE_REMOVAL` ends every state that waits.
//!
//! A loop keeps its identifiers by their [number](Id::number), which each [`Notice`] carries, in an enum of the states that it uses; example `cm_event_loop`.
//! Timeouts are its own: an identifier that is dropped ends what is under way, and
//! [`into_queue_pair`](Id::<Connecting<crate::qp::QueuePair<crate::qp::Rc>>>::into_queue_pair) does and gives the queue pair back.
//!
//! # Safety
//! Events are copied and acknowledged when they are taken, so no event lives that an identifier would have to wait for. The
//! new identifier of a request comes with the one event that it is of, and is owned. Devices stay open as long as a handle to them.
//! Queue pairs are made and brought up by this crate, not by librdmacm.
//!
//! # Errors
//! [`ConnectError`] where a peer has a say, [`Error`](crate::Error) otherwise.
//!
//! Sources: rdma_cm(7) and the pages of the calls that each function names; for the states the kernel's `enum rdma_cm_state`.

mod accept;
mod address;
mod base;
mod channel;
mod connect;
mod connection;
mod datagram;
mod devices;
mod established;
mod event;
mod id;
mod parameters;
mod peer;
mod progress;
mod reaper;
#[cfg(test)]
mod tests;
mod wait;

pub use accept::{Acceptor, Incoming};
pub use address::{Address, IbAddress};
pub use channel::EventChannel;
pub use connect::{Connector, Resolved};
pub use connection::{Connection, Ended, Line};
pub use datagram::{DatagramPeer, DatagramService, Group, Inquiry, Joining, LookingUp};
pub use established::{Connectable, Disconnected, Disconnecting, Established};
pub use event::{ConnectionAttributes, DatagramAttributes, Event, EventKind, IdNumber, Notice, Status};
pub use id::{
    AddressResolved, Bound, Created, Id, Listening, OnDevice, ResolvingAddress, ResolvingRoute, RouteResolved,
};
pub use parameters::{ConnectionParameters, PortSpace, PrivateData};
pub use peer::{Answered, Connecting, Requested};
pub use progress::{ConnectError, NotDone, Progress, Waits};

/// Refuses to bring together what is of two opened devices, also of one device that was opened twice.
fn devices_match(wanted: &crate::device::Context, given: &crate::device::Context) -> crate::Result<()> {
    if wanted.is(given) {
        return Ok(());
    }
    Err(crate::Error::invalid(
        "queue pair",
        format!("it is of {} as somebody else opened it, the connection of {}", given.name(), wanted.name()),
        "make domain, queues and queue pair from the context of what was resolved or has come in",
    ))
}
