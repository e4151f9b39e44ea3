//! Registered memory, memory windows, device memory, hints of placement.
//!
//! Read by whoever registers memory; ibv_reg_mr(3), ibv_rereg_mr(3), ibv_alloc_mw(3), ibv_alloc_dm(3), ibv_advise_mr(3).
//! Nothing here calls anything.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::context::ibv_context;
use crate::layout::{abi, codes, constants};
use crate::pd::ibv_pd;
use core::ffi::{c_int, c_uint, c_void};

codes! {
    table CODES;

    /// Type of a memory window: 1 is bound by a call, 2 by a work request.
    pub struct IbvMwType(u32) as "enum ibv_mw_type", "IBV_MW_" {
        TYPE_1 = 1,
        TYPE_2 = 2,
    }

    /// What is left of a memory region whose change failed.
    pub struct IbvReregMrErrCode(i32) as "enum ibv_rereg_mr_err_code", "IBV_REREG_MR_ERR_" {
        /// The old one is valid: an argument was wrong.
        INPUT = -1,
        /// The old one is valid: the new range could not be kept from children.
        DONT_FORK_NEW = -2,
        /// The new one is valid: the old range could not be given back to children.
        DO_FORK_OLD = -3,
        /// None is valid.
        CMD = -4,
        /// None is valid, and the new range stays kept from children.
        CMD_AND_DO_FORK_NEW = -5,
    }

    /// Which advice is given about registered memory.
    pub struct IbvAdviseMrAdvice(u32) as "enum ibv_advise_mr_advice", "IBV_ADVISE_MR_ADVICE_" {
        PREFETCH = 0,
        PREFETCH_WRITE = 1,
        PREFETCH_NO_FAULT = 2,
    }

    /// The kind of memory that a hint of placement is about.
    pub struct IbvTphMemType(u32) as "enum ibv_tph_mem_type", "IBV_TPH_MEM_TYPE_" {
        /// Volatile.
        VM = 0,
        /// Persistent.
        PM = 1,
    }
}

constants! {
    table CONSTANTS;

    IBV_ACCESS_LOCAL_WRITE: u32 = 1;
    IBV_ACCESS_REMOTE_WRITE: u32 = 1 << 1;
    IBV_ACCESS_REMOTE_READ: u32 = 1 << 2;
    IBV_ACCESS_REMOTE_ATOMIC: u32 = 1 << 3;
    IBV_ACCESS_MW_BIND: u32 = 1 << 4;
    IBV_ACCESS_ZERO_BASED: u32 = 1 << 5;
    IBV_ACCESS_ON_DEMAND: u32 = 1 << 6;
    IBV_ACCESS_HUGETLB: u32 = 1 << 7;
    IBV_ACCESS_FLUSH_GLOBAL: u32 = 1 << 8;
    IBV_ACCESS_FLUSH_PERSISTENT: u32 = 1 << 9;
    IBV_ACCESS_RELAXED_ORDERING: u32 = IBV_ACCESS_OPTIONAL_FIRST;
    /// The first bit that a kernel may ignore.
    IBV_ACCESS_OPTIONAL_FIRST: u32 = 1 << 20;
    /// All bits that a kernel may ignore.
    IBV_ACCESS_OPTIONAL_RANGE: u32 = ((1 << 30) - 1) & !((1 << 20) - 1);

    IBV_REREG_MR_CHANGE_TRANSLATION: u32 = 1;
    IBV_REREG_MR_CHANGE_PD: u32 = 1 << 1;
    IBV_REREG_MR_CHANGE_ACCESS: u32 = 1 << 2;
    IBV_REREG_MR_FLAGS_SUPPORTED: u32 = 7;

    IBV_ADVISE_MR_FLAG_FLUSH: u32 = 1;

    IBV_DM_MASK_HANDLE: u32 = 1;

    IBV_REG_MR_MASK_IOVA: u64 = 1;
    IBV_REG_MR_MASK_ADDR: u64 = 1 << 1;
    IBV_REG_MR_MASK_FD: u64 = 1 << 2;
    IBV_REG_MR_MASK_FD_OFFSET: u64 = 1 << 3;
    IBV_REG_MR_MASK_DMAH: u64 = 1 << 4;
    IBV_REG_MR_MASK_BUF: u64 = 1 << 5;

    IBV_DMAH_INIT_ATTR_MASK_CPU_ID: u32 = 1;
    IBV_DMAH_INIT_ATTR_MASK_PH: u32 = 1 << 1;
    IBV_DMAH_INIT_ATTR_MASK_TPH_MEM_TYPE: u32 = 1 << 2;
}

/// A buffer that a driver allocated; only pointers to it exist.
#[repr(C)]
pub struct ibv_buf {
    _private: [u8; 0],
}

abi! {
    table STRUCTURES;

    /// A memory region.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_mr {
        pub context: *mut ibv_context,
        pub pd: *mut ibv_pd,
        pub addr: *mut c_void,
        pub length: usize,
        pub handle: u32,
        pub lkey: u32,
        pub rkey: u32,
    }

    /// A memory window.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_mw {
        pub context: *mut ibv_context,
        pub pd: *mut ibv_pd,
        pub rkey: u32,
        pub handle: u32,
        pub r#type = "type": IbvMwType,
    }

    /// What a window is bound to.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_mw_bind_info {
        pub mr: *mut ibv_mr,
        pub addr: u64,
        pub length: u64,
        /// Bits `IBV_ACCESS_*`.
        pub mw_access_flags: c_uint,
    }

    /// The binding of a window of type 1.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_mw_bind {
        pub wr_id: u64,
        pub send_flags: c_uint,
        pub bind_info: ibv_mw_bind_info,
    }

    /// How much device memory is wanted.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_alloc_dm_attr {
        pub length: usize,
        pub log_align_req: u32,
        pub comp_mask: u32,
    }

    /// Device memory. Its two functions are the driver's; the inlines call them.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_dm {
        pub context: *mut ibv_context,
        pub memcpy_to_dm: Option<unsafe extern "C" fn(*mut ibv_dm, u64, *const c_void, usize) -> c_int>,
        pub memcpy_from_dm: Option<unsafe extern "C" fn(*mut c_void, *mut ibv_dm, u64, usize) -> c_int>,
        pub comp_mask: u32,
        pub handle: u32,
    }

    /// A handle of hints about where the device places data. Since rdma-core 59.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_dmah {
        pub context: *mut ibv_context,
    }

    /// What such a handle says.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_dmah_init_attr {
        /// Bits `IBV_DMAH_INIT_ATTR_MASK_*`.
        pub comp_mask: u32,
        pub cpu_id: u32,
        pub ph: u8,
        /// The number of an [`IbvTphMemType`].
        pub tph_mem_type: u8,
    }

    /// What `ibv_reg_mr_ex` registers. Since rdma-core 59.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_mr_init_attr {
        pub length: usize,
        pub access: c_int,
        /// Bits `IBV_REG_MR_MASK_*`.
        pub comp_mask: u64,
        pub iova: u64,
        pub addr: *mut c_void,
        pub fd: c_int,
        pub fd_offset: u64,
        pub dmah: *mut ibv_dmah,
        /// Since rdma-core 64.
        pub buf: *mut ibv_buf,
    }
}

/// The next key of a window of type 2: the lower eight bits count, the others stay.
#[must_use]
pub const fn ibv_inc_rkey(rkey: u32) -> u32 {
    (rkey & !0xff) | (rkey.wrapping_add(1) & 0xff)
}

const _: () = assert!(size_of::<ibv_mr>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_key_changes_its_lower_byte_alone() {
        assert_eq!(ibv_inc_rkey(0x1234_5600), 0x1234_5601);
        assert_eq!(ibv_inc_rkey(0x1234_56ff), 0x1234_5600);
        assert_eq!(ibv_inc_rkey(u32::MAX), 0xffff_ff00);
    }
}
