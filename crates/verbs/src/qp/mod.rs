//! Queue pairs: made, connected, changed, asked, posted to.

mod attributes;
mod builder;
pub mod config;
mod each;
pub mod endpoint;
pub mod flow;
mod lent;
mod multicast;
mod pair;
mod post;
mod prepared;
mod reliable_datagram;
mod request;
mod service;
pub mod state;
mod tuning;
pub mod xrc;

pub use attributes::{Attributes, Path, Route};
pub use builder::QueuePairBuilder;
pub(crate) use each::Begun;
pub use endpoint::Endpoint;
pub use lent::QueuePairMut;
pub use pair::{Depths, QueuePair};
pub use post::PostError;
pub(crate) use post::write_request;
pub(crate) use prepared::Plan;
pub use prepared::PreparedQueuePair;
pub use request::{Destination, ReceiveRequest, SendRequest};
pub(crate) use request::{link_receives, needs};
pub use service::{
    Atomics, Connected, Datagram, Operations, RawPacket, Rc, Reads, Service, Srd, Uc, Ud, Writes, XrcSend,
};
pub(crate) use service::{Destined, Way};
pub use tuning::{DataOrder, Extensions, RateLimit, Transfer};
