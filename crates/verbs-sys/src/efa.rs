//! The extras of Amazon's EFA: libefa.so.1, for scalable reliable datagrams (SRD).
//!
//! Read by whoever drives an EFA device; efadv(7). Every call takes the size of the structure, so an older library fills less:
//! zero it first. The functions are in `EfaTable`; `ibv_wc_*`-like ones are called in `inline/efa.rs`.
#![expect(missing_docs, reason = "fields carry the names under which the manual pages explain them")]

use crate::ah::ibv_gid;
use crate::layout::{abi, constants};
use core::ffi::c_int;

constants! {
    table CONSTANTS;

    EFADV_QP_DRIVER_TYPE_SRD: u32 = 0;

    EFADV_QP_FLAGS_UNSOLICITED_WRITE_RECV: u16 = 1;
    EFADV_QP_FLAGS_INLINE_WRITE: u16 = 1 << 1;
    EFADV_WR_EX_WITH_PROCESSING_HINTS: u64 = 1;

    EFADV_DEVICE_ATTR_CAPS_RDMA_READ: u32 = 1;
    EFADV_DEVICE_ATTR_CAPS_RNR_RETRY: u32 = 1 << 1;
    EFADV_DEVICE_ATTR_CAPS_CQ_WITH_SGID: u32 = 1 << 2;
    EFADV_DEVICE_ATTR_CAPS_RDMA_WRITE: u32 = 1 << 3;
    EFADV_DEVICE_ATTR_CAPS_UNSOLICITED_WRITE_RECV: u32 = 1 << 4;
    EFADV_DEVICE_ATTR_CAPS_CQ_WITH_EXT_MEM_DMABUF: u32 = 1 << 5;
    EFADV_DEVICE_ATTR_CAPS_COMP_CNTR: u32 = 1 << 6;

    EFADV_WC_EX_WITH_SGID: u64 = 1;
    EFADV_WC_EX_WITH_IS_UNSOLICITED: u64 = 1 << 1;

    EFADV_MR_ATTR_VALIDITY_RECV_IC_ID: u16 = 1;
    EFADV_MR_ATTR_VALIDITY_RDMA_READ_IC_ID: u16 = 1 << 1;
    EFADV_MR_ATTR_VALIDITY_RDMA_RECV_IC_ID: u16 = 1 << 2;
}

abi! {
    table STRUCTURES;

    /// How to make a queue pair of SRD.
    #[derive(Clone, Copy, Debug)]
    pub struct efadv_qp_init_attr {
        pub comp_mask: u64,
        pub driver_qp_type: u32,
        pub flags: u16,
        pub sl: u8,
        pub reserved: u8,
        /// Not in headers of rdma-core 56 yet.
        pub wr_flags: u64,
    }

    /// What an EFA device can do.
    #[derive(Clone, Copy, Debug)]
    pub struct efadv_device_attr {
        pub comp_mask: u64,
        pub max_sq_wr: u32,
        pub max_rq_wr: u32,
        pub max_sq_sge: u16,
        pub max_rq_sge: u16,
        pub inline_buf_size: u16,
        /// Not in headers of rdma-core 56 yet: reserved there.
        pub inline_buf_size_ex: u16,
        pub device_caps: u32,
        pub max_rdma_size: u32,
    }

    /// The number by which the device knows an address.
    #[derive(Clone, Copy, Debug)]
    pub struct efadv_ah_attr {
        pub comp_mask: u64,
        pub ahn: u16,
        pub reserved: [u8; 6],
    }

    /// The extras of a completion queue, the device's own functions.
    #[derive(Clone, Copy, Debug)]
    pub struct efadv_cq {
        pub comp_mask: u64,
        pub wc_read_sgid: Option<unsafe extern "C" fn(*mut efadv_cq, *mut ibv_gid) -> c_int>,
        pub wc_is_unsolicited: Option<unsafe extern "C" fn(*mut efadv_cq) -> bool>,
    }

    /// Memory of the caller's for a completion queue.
    #[derive(Clone, Copy, Debug)]
    pub struct efadv_cq_ext_mem_dmabuf as "__typeof__(((struct efadv_cq_init_attr *)0)->ext_mem_dmabuf)" {
        pub buffer: *mut u8,
        pub length: u64,
        pub offset: u64,
        pub fd: i32,
        pub reserved: [u8; 4],
    }

    /// How to make a completion queue with extras.
    #[derive(Clone, Copy, Debug)]
    pub struct efadv_cq_init_attr {
        pub comp_mask: u64,
        /// Bits `EFADV_WC_EX_*`.
        pub wc_flags: u64,
        /// This and what follows are not in headers of rdma-core 56 yet.
        pub flags: u64,
        pub ext_mem_dmabuf: efadv_cq_ext_mem_dmabuf,
    }

    /// Which interconnects reach a memory region.
    #[derive(Clone, Copy, Debug)]
    pub struct efadv_mr_attr {
        pub comp_mask: u64,
        pub ic_id_validity: u16,
        pub recv_ic_id: u16,
        pub rdma_read_ic_id: u16,
        pub rdma_recv_ic_id: u16,
    }
}
