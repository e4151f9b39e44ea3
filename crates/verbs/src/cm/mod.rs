//! The connection manager (librdmacm): queue pairs connected by address.
//!
//! For programs that know an address of IP and not the peer's endpoint. Two levels:
//!
//! - blocking, with a deadline for each step: [`Connector`] and [`Acceptor`], which make a [`Connection`]; for datagrams
//!   [`Connector::look_up`], [`DatagramService`] and [`Group`], which say how a peer or a group is addressed;
//! - for event loops: [`EventChannel`] (a descriptor that does not block), [`Id`] and [`Event`].
//!
//! *Order of use.* The active side: resolve, make a queue pair on the device that was found, post receives, connect. The passive side:
//! bind, take a request, make a queue pair on the device that it came through, post receives, accept or reject. A [`Hub`](crate::hub::Hub) keeps the memory
//! of those receives where the queue pair is a member of it ([`Resolved::connect_member`], [`Incoming::accept_member`]).
//!
//! *Safety.* Events are copied and acknowledged when they are taken, so no event lives that an identifier would have to wait for. The
//! new identifier of a request comes with the one event that it is of, and is owned. Devices stay open as long as a handle to them.
//! Queue pairs are made and brought up by this crate, not by librdmacm.
//!
//! *Errors.* [`ConnectError`] where a peer has a say, [`Error`](crate::Error) otherwise.

mod accept;
mod address;
mod channel;
mod connect;
mod connection;
mod datagram;
mod devices;
mod event;
mod id;
mod parameters;
#[cfg(test)]
mod tests;
mod wait;

pub use accept::{Acceptor, Incoming};
pub use address::{Address, IbAddress};
pub use channel::EventChannel;
pub use connect::{Connector, Resolved};
pub use connection::{ConnectError, Connection, Ended, Line, NotConnected};
pub use datagram::{DatagramPeer, DatagramService, Group, Inquiry};
pub use event::{
    ConnectRequest, ConnectionAttributes, DatagramAttributes, Event, EventKind, IdNumber, Notice, Parameters,
    Status,
};
pub use id::Id;
pub use parameters::{ConnectionParameters, PortSpace, PrivateData};

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
