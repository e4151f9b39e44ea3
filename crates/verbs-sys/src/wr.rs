//! Work requests: scatter lists, sends, receives, operations on the list of tags.
//!
//! Read by whoever posts; ibv_post_send(3), ibv_post_recv(3), ibv_post_srq_ops(3). Nothing here calls anything.
#![allow(unsafe_code)]
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::ah::ibv_ah;
use crate::layout::{abi, codes, constants};
use crate::mr::{ibv_mw, ibv_mw_bind_info};
use core::ffi::{c_int, c_uint, c_void};
use core::mem::MaybeUninit;

codes! {
    table CODES;

    /// What a send request does.
    pub struct IbvWrOpcode(u32) as "enum ibv_wr_opcode", "IBV_WR_" {
        RDMA_WRITE = 0,
        RDMA_WRITE_WITH_IMM = 1,
        SEND = 2,
        SEND_WITH_IMM = 3,
        RDMA_READ = 4,
        ATOMIC_CMP_AND_SWP = 5,
        ATOMIC_FETCH_AND_ADD = 6,
        LOCAL_INV = 7,
        BIND_MW = 8,
        SEND_WITH_INV = 9,
        TSO = 10,
        DRIVER1 = 11,
        FLUSH = 14,
        ATOMIC_WRITE = 15,
    }

    /// What a request on a list of tags does.
    pub struct IbvOpsWrOpcode(u32) as "enum ibv_ops_wr_opcode", "IBV_WR_TAG_" {
        ADD = 0,
        DEL = 1,
        SYNC = 2,
    }

    /// How much a flush reaches.
    pub struct IbvSelectivityLevel(u32) as "enum ibv_selectivity_level", "IBV_FLUSH_" {
        RANGE = 0,
        MR = 1,
    }
}

constants! {
    table CONSTANTS;

    IBV_SEND_FENCE: u32 = 1;
    IBV_SEND_SIGNALED: u32 = 1 << 1;
    IBV_SEND_SOLICITED: u32 = 1 << 2;
    IBV_SEND_INLINE: u32 = 1 << 3;
    IBV_SEND_IP_CSUM: u32 = 1 << 4;

    IBV_OPS_SIGNALED: u32 = 1;
    IBV_OPS_TM_SYNC: u32 = 1 << 1;

    /// Where a flush goes to: visible to all.
    IBV_FLUSH_GLOBAL: u32 = 1;
    /// Where a flush goes to: kept without power.
    IBV_FLUSH_PERSISTENT: u32 = 1 << 1;
}

abi! {
    table STRUCTURES;

    /// A piece of the caller's own memory, for inline data.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_data_buf {
        pub addr: *mut c_void,
        pub length: usize,
    }

    /// A piece of registered memory.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_sge {
        pub addr: u64,
        pub length: u32,
        pub lkey: u32,
    }

    /// Where a read or write goes.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_send_wr_rdma as "__typeof__(((struct ibv_send_wr *)0)->wr.rdma)" {
        pub remote_addr: u64,
        pub rkey: u32,
    }

    /// Where an atomic operation goes, and its operands.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_send_wr_atomic as "__typeof__(((struct ibv_send_wr *)0)->wr.atomic)" {
        pub remote_addr: u64,
        pub compare_add: u64,
        pub swap: u64,
        pub rkey: u32,
    }

    /// Whom a datagram goes to.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_send_wr_ud as "__typeof__(((struct ibv_send_wr *)0)->wr.ud)" {
        pub ah: *mut ibv_ah,
        pub remote_qpn: u32,
        pub remote_qkey: u32,
    }

    /// What depends on the operation.
    #[derive(Clone, Copy)]
    pub union ibv_send_wr_wr as "__typeof__(((struct ibv_send_wr *)0)->wr)" {
        pub rdma: ibv_send_wr_rdma,
        pub atomic: ibv_send_wr_atomic,
        pub ud: ibv_send_wr_ud,
    }

    /// The shared receive queue that an extended connection names.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_send_wr_xrc as "__typeof__(((struct ibv_send_wr *)0)->qp_type.xrc)" {
        pub remote_srqn: u32,
    }

    /// What depends on the type of the queue pair.
    #[derive(Clone, Copy)]
    pub union ibv_send_wr_qp_type as "__typeof__(((struct ibv_send_wr *)0)->qp_type)" {
        pub xrc: ibv_send_wr_xrc,
    }

    /// The window to bind.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_send_wr_bind_mw as "__typeof__(((struct ibv_send_wr *)0)->bind_mw)" {
        pub mw: *mut ibv_mw,
        pub rkey: u32,
        pub bind_info: ibv_mw_bind_info,
    }

    /// The header of segments.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_send_wr_tso as "__typeof__(((struct ibv_send_wr *)0)->tso)" {
        pub hdr: *mut c_void,
        pub hdr_sz: u16,
        pub mss: u16,
    }

    /// C's last, anonymous union of a send request, which has no name there.
    #[derive(Clone, Copy)]
    pub union ibv_send_wr_more as "" {
        pub bind_mw: ibv_send_wr_bind_mw,
        pub tso: ibv_send_wr_tso,
    }

    /// A send request. Requests of one call are linked by `next`.
    #[derive(Clone, Copy)]
    pub struct ibv_send_wr {
        pub wr_id: u64,
        pub next: *mut ibv_send_wr,
        pub sg_list: *mut ibv_sge,
        pub num_sge: c_int,
        pub opcode: IbvWrOpcode,
        /// Bits `IBV_SEND_*`.
        pub send_flags: c_uint,
        /// Opcodes with immediate data: these, big-endian. Opcodes that invalidate: the key, in the order of this machine (C's
        /// `invalidate_rkey`).
        #[doc(alias = "invalidate_rkey")]
        pub imm_data ~ "imm_data": u32,
        pub wr: ibv_send_wr_wr,
        pub qp_type: ibv_send_wr_qp_type,
        /// C's anonymous union of `bind_mw` and `tso`.
        pub more ~ "bind_mw": ibv_send_wr_more,
    }

    /// A receive request.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_recv_wr {
        pub wr_id: u64,
        pub next: *mut ibv_recv_wr,
        pub sg_list: *mut ibv_sge,
        pub num_sge: c_int,
    }

    /// A tag to wait for.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_ops_wr_tm_add as "__typeof__(((struct ibv_ops_wr *)0)->tm.add)" {
        pub recv_wr_id: u64,
        pub sg_list: *mut ibv_sge,
        pub num_sge: c_int,
        pub tag: u64,
        pub mask: u64,
    }

    /// What is done to the list of tags.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_ops_wr_tm as "__typeof__(((struct ibv_ops_wr *)0)->tm)" {
        pub unexpected_cnt: u32,
        pub handle: u32,
        pub add: ibv_ops_wr_tm_add,
    }

    /// A request on the list of tags of a shared receive queue.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_ops_wr {
        pub wr_id: u64,
        pub next: *mut ibv_ops_wr,
        pub opcode: IbvOpsWrOpcode,
        /// Bits `IBV_OPS_*`.
        pub flags: c_int,
        pub tm: ibv_ops_wr_tm,
    }
}

const _: () = {
    assert!(size_of::<ibv_send_wr>() == 128);
    assert!(size_of::<ibv_recv_wr>() == 32);
    assert!(size_of::<ibv_sge>() == 16);
};

macro_rules! unset {
    ($($name:ident),*) => { $(
        impl $name {
            /// None of its fields: bytes that nobody reads, and that cost nothing to write.
            // SAFETY: a union of numbers and pointers may have any bytes, also none that were written; to read a field is unsafe.
            pub const UNSET: Self = unsafe { MaybeUninit::uninit().assume_init() };
        }
    )* };
}

unset!(ibv_send_wr_wr, ibv_send_wr_qp_type, ibv_send_wr_more);
