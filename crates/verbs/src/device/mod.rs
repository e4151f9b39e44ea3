//! Devices: what is there, what each can do, its ports and their addresses.

mod attributes;
mod context;
mod gid;
mod list;
mod port;
mod port_attributes;

pub use attributes::{AtomicReach, Capabilities, DeviceAttributes, OnDemandPaging, PacketPacing};
pub use context::Context;
pub(crate) use context::ForeignContexts;
pub use gid::{Choice, Gid, GidEntry, GidKind, Guid, PortBrief, choose};
pub use list::{Device, DeviceList, TransportType};
pub use port::{LinkLayer, PhysicalState, PortState, Speed, Width};
pub use port_attributes::PortAttributes;
