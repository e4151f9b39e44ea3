//! Memory: registered here, or a peer's by address and key.

mod access;
mod remote;

pub use access::{RegistrationFlags, RemoteAccess};
pub use remote::{RemoteKey, RemoteRegion};
