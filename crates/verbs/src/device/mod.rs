//! Devices: what is there, what each can do, its ports and their addresses.

mod async_event;
mod attributes;
mod context;
mod gid;
mod list;
mod numa;
mod port;
mod port_attributes;

pub use async_event::{AsyncEvent, AsyncEventType, AsyncEvents, Element, ObjectId};
pub use attributes::{AtomicReach, Capabilities, DeviceAttributes, OnDemandPaging, PacketPacing};
pub use context::Context;
pub(crate) use context::ForeignContexts;
pub use gid::{Choice, Gid, GidEntry, GidKind, Guid, PortBrief, choose};
pub use list::{Device, DeviceList, TransportType};
pub use numa::{Affinity, Pinned};
pub use port::{LinkLayer, PhysicalState, PortState, Speed, Width};
pub use port_attributes::PortAttributes;
