//! Devices: what is there, what each can do, its ports and their addresses.

mod gid;
mod port;

pub use gid::{Choice, Gid, GidEntry, GidKind, Guid, PortBrief, choose};
pub use port::{LinkLayer, PhysicalState, PortState, Speed, Width};
