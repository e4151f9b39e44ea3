//! The raw ABI of libibverbs and librdmacm: types, tables of functions, and what C has as inlines.
//!
//! Called by `sinew-verbs`, and by whoever brings a device of their own. It decides nothing, owns nothing but opened libraries, and
//! needs neither a header nor a C compiler nor the library itself to build: [`Library::open`] finds the library when the program
//! runs, and says what is missing when it does not.
//!
//! # Order of use
//!
//! [`Library::open`] → [`Library::verbs`] gives the exported functions → those give objects (`ibv_context`, `ibv_qp`, …) → the
//! inlines (`ibv_post_send`, `ibv_wr_send`, …) call through the objects, exactly as C does. So whoever fills a [`VerbsTable`] and the
//! functions in the objects *is* a device: [`Library::from_table`].
//!
//! # Names
//!
//! Structures and functions have their C names. C's enumerations are numbers with names (`enum ibv_qp_state` is [`IbvQpState`],
//! `IBV_QPS_RTS` is [`IbvQpState::RTS`]), because a newer kernel or device may give a value that this crate has never heard of. Masks
//! are plain constants with their C names. Fields that C has in anonymous unions are named in the documentation of the structure.
//!
//! # Versions
//!
//! The declarations are those of rdma-core 65, which only adds to those of the years before. A library may be older: functions that it
//! lacks are `None`, functions of its objects are looked for within the size that it states, and structures that it fills should be
//! zero before (`ibv_port_attr::zeroed()`). `tests/layout.rs` compares every size, offset and value with the headers of several
//! versions.
//!
//! # Safety
//!
//! Nearly everything is `unsafe` in the same way as in C: pointers must be to live objects of the device, and memory that a device may
//! touch is nobody else's meanwhile. What is added to C is that nothing is ever called through null.
//!
//! Linux on 64-bit processors only; elsewhere the crate is empty.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]
#![deny(unsafe_code)]
#![allow(non_camel_case_types, reason = "structures have the names under which C programmers know them")]

mod ah;
mod async_event;
mod channel;
mod cm;
mod context;
mod counters;
mod cq;
mod device;
mod efa;
mod errno;
mod flow;
mod inline;
pub mod layout;
mod library;
mod mlx5;
mod mr;
mod ops;
mod pd;
mod port;
mod qp;
mod qp_ex;
mod report;
mod resolve;
mod sa;
mod srq;
mod symbols;
mod symbols_cm;
mod table;
mod wc;
mod wq;
mod wr;

pub use ah::*;
pub use async_event::*;
pub use channel::*;
pub use cm::*;
pub use context::*;
pub use counters::*;
pub use cq::*;
pub use device::*;
pub use efa::*;
pub use errno::Errno;
pub use flow::*;
pub use inline::cq::*;
pub use inline::cq_ex::*;
pub use inline::device::*;
pub use inline::efa::*;
pub use inline::flow::*;
pub use inline::mr::*;
pub use inline::pd::*;
pub use inline::qp::*;
pub use inline::srq::*;
pub use inline::wq::*;
pub use inline::wr::*;
pub use library::{Library, OpenError};
pub use mlx5::*;
pub use mr::*;
pub use ops::{is_extended, knows_offset, missing_data_path, verbs_get_ctx};
pub use pd::*;
pub use port::*;
pub use qp::*;
pub use qp_ex::*;
pub use report::{LibraryReport, Missing, Origin, Report, Version};
pub use sa::*;
pub use srq::*;
pub use symbols::VerbsTable;
pub use symbols_cm::{CmTable, EfaTable, Mlx5Table};
pub use table::{Signature, Symbol};
pub use wc::*;
pub use wq::*;
pub use wr::*;
