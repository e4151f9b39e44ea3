//! Memory: of this process, registered; or a peer's, by address and key.
//!
//! | type | made of | `[u8]` in safe code | peers |
//! |---|---|---|---|
//! | [`Buffer`] | owned memory; moves into operations and comes back | yes, while no operation has it | never |
//! | [`BorrowedRegion`] | a borrowed slice | yes, through the borrow | never |
//! | [`ExposedRegion`] | owned memory | no: copies and whole words | as it was exposed |
//! | [`ForeignRegion`] | DMA-BUF, [`DeviceMemory`], nothing at all, or an address (`unsafe`) | no | as it was registered |
//! | [`MemoryWindow`] | a part of an `ExposedRegion` | no | as it was bound, until it is bound anew |
//! | [`RemoteRegion`] | a peer's address and key | no | it is the peer's |

mod access;
mod advise;
mod borrowed;
mod buffer;
mod device_memory;
mod element;
mod exposed;
mod host;
mod pool;
mod region;
mod remote;
mod window;
mod words;

pub use access::{RegistrationFlags, RemoteAccess};
pub use advise::Advice;
pub use borrowed::{BorrowedRegion, LocalKey};
pub use buffer::Buffer;
pub use device_memory::DeviceMemory;
pub use element::{Gather, Scatter};
pub use exposed::{ExposedPart, ExposedRegion, ForeignRegion};
pub use host::{Memory, PageSize};
pub use pool::BufferPool;
pub(crate) use region::{Kept, Registered, Terms};
pub use remote::{RemoteKey, RemoteRegion};
pub(crate) use window::Binding;
pub use window::{MemoryWindow, WindowType};
