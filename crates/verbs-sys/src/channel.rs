//! Completion channels: the descriptor by which a completion queue wakes a thread.
//!
//! Read by whoever waits; ibv_create_comp_channel(3). Nothing here calls anything.
#![expect(missing_docs, reason = "fields carry the names under which the manual pages explain them")]

use crate::context::ibv_context;
use crate::layout::abi;
use core::ffi::c_int;

abi! {
    table STRUCTURES;

    /// A completion channel.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_comp_channel {
        pub context: *mut ibv_context,
        /// Readable when an event waits.
        pub fd: c_int,
        /// Queues that use it; the library counts.
        pub refcnt: c_int,
    }
}
