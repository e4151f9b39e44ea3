//! Protection domains, thread domains, parent domains, domains of extended connections.
//!
//! Read by whoever makes one; ibv_alloc_pd(3), ibv_alloc_td(3), ibv_alloc_parent_domain(3), ibv_open_xrcd(3). Nothing here calls
//! anything.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::context::ibv_context;
use crate::layout::{abi, constants};
use core::ffi::{c_int, c_void};

constants! {
    table CONSTANTS;

    IBV_XRCD_INIT_ATTR_FD: u32 = 1;
    IBV_XRCD_INIT_ATTR_OFLAGS: u32 = 1 << 1;

    IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS: u32 = 1;
    IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT: u32 = 1 << 1;
    IBV_PARENT_DOMAIN_INIT_ATTR_ALLOW_CC_UNPROTECTED_ALLOC: u32 = 1 << 2;
}

/// What an allocator of a parent domain answers to leave the allocation to the driver.
pub const IBV_ALLOCATOR_USE_DEFAULT: *mut c_void = core::ptr::without_provenance_mut(usize::MAX);

/// Gives a parent domain memory: domain, its `pd_context`, bytes, alignment, kind of resource of the driver.
pub type IbvAlloc = unsafe extern "C" fn(*mut ibv_pd, *mut c_void, usize, usize, u64) -> *mut c_void;

/// Takes it back: domain, its `pd_context`, memory, kind of resource of the driver.
pub type IbvFree = unsafe extern "C" fn(*mut ibv_pd, *mut c_void, *mut c_void, u64);

abi! {
    table STRUCTURES;

    /// A protection domain.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_pd {
        pub context: *mut ibv_context,
        pub handle: u32,
    }

    /// No bit of `comp_mask` is defined.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_td_init_attr {
        pub comp_mask: u32,
    }

    /// A thread domain: objects that one thread at a time uses.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_td {
        pub context: *mut ibv_context,
    }

    /// How to open a domain of extended connections: a file that stands for it, or -1, and `O_CREAT`, `O_EXCL`.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_xrcd_init_attr {
        pub comp_mask: u32,
        pub fd: c_int,
        pub oflags: c_int,
    }

    /// A domain of extended connections.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_xrcd {
        pub context: *mut ibv_context,
    }

    /// What a parent domain is made of.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_parent_domain_init_attr {
        /// Never null.
        pub pd: *mut ibv_pd,
        /// May be null.
        pub td: *mut ibv_td,
        pub comp_mask: u32,
        pub alloc: Option<IbvAlloc>,
        pub free: Option<IbvFree>,
        pub pd_context: *mut c_void,
    }
}
