//! Work completions as `ibv_poll_cq` gives them.
//!
//! Read by whoever polls; ibv_poll_cq(3). Nothing here calls anything.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::layout::{abi, codes, constants};
use core::ffi::c_uint;

codes! {
    table CODES;

    /// How a work request ended.
    pub struct IbvWcStatus(u32) as "enum ibv_wc_status", "IBV_WC_" {
        SUCCESS = 0,
        LOC_LEN_ERR = 1,
        LOC_QP_OP_ERR = 2,
        LOC_EEC_OP_ERR = 3,
        LOC_PROT_ERR = 4,
        WR_FLUSH_ERR = 5,
        MW_BIND_ERR = 6,
        BAD_RESP_ERR = 7,
        LOC_ACCESS_ERR = 8,
        REM_INV_REQ_ERR = 9,
        REM_ACCESS_ERR = 10,
        REM_OP_ERR = 11,
        RETRY_EXC_ERR = 12,
        RNR_RETRY_EXC_ERR = 13,
        LOC_RDD_VIOL_ERR = 14,
        REM_INV_RD_REQ_ERR = 15,
        REM_ABORT_ERR = 16,
        INV_EECN_ERR = 17,
        INV_EEC_STATE_ERR = 18,
        FATAL_ERR = 19,
        RESP_TIMEOUT_ERR = 20,
        GENERAL_ERR = 21,
        TM_ERR = 22,
        TM_RNDV_INCOMPLETE = 23,
    }

    /// What completed. Valid on success only. A receive has bit [`RECV`](Self::RECV).
    pub struct IbvWcOpcode(u32) as "enum ibv_wc_opcode", "IBV_WC_" {
        SEND = 0,
        RDMA_WRITE = 1,
        RDMA_READ = 2,
        COMP_SWAP = 3,
        FETCH_ADD = 4,
        BIND_MW = 5,
        LOCAL_INV = 6,
        TSO = 7,
        FLUSH = 8,
        ATOMIC_WRITE = 9,
        RECV = 128,
        RECV_RDMA_WITH_IMM = 129,
        TM_ADD = 130,
        TM_DEL = 131,
        TM_SYNC = 132,
        TM_RECV = 133,
        TM_NO_TAG = 134,
        DRIVER1 = 135,
        DRIVER2 = 136,
        DRIVER3 = 137,
    }
}

constants! {
    table CONSTANTS;

    IBV_WC_GRH: u32 = 1;
    IBV_WC_WITH_IMM: u32 = 1 << 1;
    IBV_WC_IP_CSUM_OK_SHIFT: u32 = 2;
    IBV_WC_IP_CSUM_OK: u32 = 1 << 2;
    IBV_WC_WITH_INV: u32 = 1 << 3;
    IBV_WC_TM_SYNC_REQ: u32 = 1 << 4;
    IBV_WC_TM_MATCH: u32 = 1 << 5;
    IBV_WC_TM_DATA_VALID: u32 = 1 << 6;
}

abi! {
    table STRUCTURES;

    /// A work completion. After a failure only `wr_id`, `status`, `qp_num` and `vendor_err` are valid.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_wc {
        pub wr_id: u64,
        pub status: IbvWcStatus,
        pub opcode: IbvWcOpcode,
        pub vendor_err: u32,
        pub byte_len: u32,
        /// With `IBV_WC_WITH_IMM`: the immediate data, big-endian. With `IBV_WC_WITH_INV`: the key that was invalidated, in the
        /// order of this machine (C's `invalidated_rkey`).
        #[doc(alias = "invalidated_rkey")]
        pub imm_data ~ "imm_data": u32,
        pub qp_num: u32,
        pub src_qp: u32,
        /// Bits `IBV_WC_*`.
        pub wc_flags: c_uint,
        pub pkey_index: u16,
        pub slid: u16,
        pub sl: u8,
        pub dlid_path_bits: u8,
    }
}

const _: () = assert!(size_of::<ibv_wc>() == 48);
