//! Safe verbs: devices, memory, queue pairs, channels and networks over libibverbs, which is loaded at run time.
//!
//! Builds with rustc and its linker alone. Nothing here makes a device or a peer touch memory that safe code can free or read as `&[u8]`:
//! `docs/adr/0016-safe-verbs.md` says how. It knows nothing of Sinew's engine.
//!
//! # What holds what, and how things end
//! Each object holds, by count, everything that must outlive it. So a program may drop its values in any order and on any thread: all of them are
//! `Send`. What the device has ends with the last that holds it.
//!
//! | value | holds | ends |
//! |---|---|---|
//! | [`Library`] | | never: it stays loaded |
//! | [`DeviceList`](device::DeviceList) | the library | when it is dropped; opened devices stay |
//! | [`Context`](device::Context) | the library | with the last thing made from it |
//! | [`AsyncEvents`](device::AsyncEvents) | the context | when it is dropped; events that nobody took wait for the next stream |
//! | [`ProtectionDomain`] | the context | with the last region, queue pair, window, address handle and shared receive queue of it |
//! | [`ThreadDomain`] | the context | with the last protection domain for it |
//! | [`Buffer`](memory::Buffer), [`BufferPool`](memory::BufferPool), [`ExposedRegion`](memory::ExposedRegion), [`ForeignRegion`](memory::ForeignRegion), their parts | the registration; that holds the domain, and the memory if it is its own | the registration with its last part, then the memory |
//! | [`BorrowedRegion`](memory::BorrowedRegion) | the domain, and borrows the memory | when it is dropped, before the borrow does |
//! | [`DeviceMemory`](memory::DeviceMemory) | the context | with the last region of it |
//! | [`MemoryWindow`](memory::MemoryWindow) | the domain, and the region that it is bound to | with its last handle |
//! | [`AddressHandle`](ah::AddressHandle) | the domain | with its last handle, or the last operation that names it |
//! | [`CompletionChannel`](cq::CompletionChannel) | the context | with the last queue of it |
//! | [`CompletionQueue`](cq::CompletionQueue) | the context, its channel | with the last queue pair and [`Poller`](cq::Poller) of it |
//! | [`SharedReceiveQueue`](srq::SharedReceiveQueue) | the domain; one of extended connections its [`XrcDomain`](qp::xrc::XrcDomain) and completion queue too | with the last queue pair of it |
//! | [`XrcDomain`](qp::xrc::XrcDomain) | the context | with the last receiver and shared receive queue of it |
//! | [`XrcReceiver`](qp::xrc::XrcReceiver) | its domain of extended connections | when it is dropped |
//! | [`QueuePair`](qp::QueuePair), [`PreparedQueuePair`](qp::PreparedQueuePair) | its completion queues, its shared receive queue, the domain; groups and rules of steering end with it | when it is dropped; what is posted is the caller's matter |
//! | [`Hub`] | its queue pairs, and the memory of each operation that is out | when it is dropped: queue pairs first, then memory |
//! | [`Pipe`](hub::Pipe) | its queue pair, and the buffers of what is out | the same |
//! | [`Channel`], [`MultiChannel`], `network::Node` | the same; what was submitted and what is unpolled hold it too | with the last of these; waiting has the deadline |
//! | [`cm::EventChannel`], [`cm::Id`], [`cm::Connection`] | an identifier its channel, and from the wish to connect on its queue pair (a hub's is the hub's); a connection both | when they are dropped; the device stays open as long as a [`Context`](device::Context) of it |
//!
//! No drop panics. None waits for a peer but that of unpolled work ([`channel::PendingWork`]), at most until the deadline. What a device refuses to end
//! stays for ever, with all that it holds; it is logged and counted ([`Library::leaked_objects`]). The one exception is memory that is borrowed: where a device does not let go of it, the process
//! ends ([`channel`]). A value that is forgotten (`mem::forget`) leaks; what it holds stays, and stays registered.

#![deny(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod ah;
pub mod channel;
pub mod cm;
pub mod cq;
pub mod device;
mod error;
pub mod hub;
mod library;
pub mod memory;
pub mod multi_channel;
#[cfg(feature = "network")]
pub mod network;
mod number;
mod pd;
pub mod qp;
pub mod srq;
mod thread_domain;
mod wait;
pub mod work;

pub use channel::Channel;
pub use error::{Error, Result};
pub use hub::Hub;
pub use library::{Library, devices, open_device};
pub use multi_channel::MultiChannel;
pub use pd::ProtectionDomain;
pub use sinew_verbs_sys as sys;
pub use thread_domain::ThreadDomain;
