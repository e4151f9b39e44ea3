//! Counters of flows, and counters of completions (the latter since rdma-core 65).
//!
//! Read by whoever counts; ibv_create_counters(3), ibv_create_comp_cntr(3). Nothing here calls anything.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::context::ibv_context;
use crate::layout::{abi, codes, constants};

codes! {
    table CODES;

    /// What a counter counts.
    pub struct IbvCounterDescription(u32) as "enum ibv_counter_description", "IBV_COUNTER_" {
        PACKETS = 0,
        BYTES = 1,
    }

    /// What a counter of completions counts.
    pub struct IbvCompCntrType(u32) as "enum ibv_comp_cntr_type", "IBV_COMP_CNTR_TYPE_" {
        WRS = 0,
        BYTES = 1,
    }
}

constants! {
    table CONSTANTS;

    IBV_READ_COUNTERS_ATTR_PREFER_CACHED: u32 = 1;

    IBV_QP_ATTACH_COMP_CNTR_OP_SEND: u32 = 1;
    IBV_QP_ATTACH_COMP_CNTR_OP_RECV: u32 = 1 << 1;
    IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_READ: u32 = 1 << 2;
    IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_READ: u32 = 1 << 3;
    IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_WRITE: u32 = 1 << 4;
    IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_WRITE: u32 = 1 << 5;
}

abi! {
    table STRUCTURES;

    /// No bit of `comp_mask` is defined.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_counters_init_attr {
        pub comp_mask: u32,
    }

    /// A set of counters.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_counters {
        pub context: *mut ibv_context,
    }

    /// What to count, and at which place of the set.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_counter_attach_attr {
        pub counter_desc: IbvCounterDescription,
        pub index: u32,
        pub comp_mask: u32,
    }

    /// Limits of counters of completions.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_comp_cntr_caps {
        pub max_value: u64,
        pub max_counters: u32,
        /// Bits `IBV_QP_ATTACH_COMP_CNTR_OP_*`.
        pub supported_qp_attach_ops: u32,
    }

    /// A counter of completions.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_comp_cntr {
        pub context: *mut ibv_context,
        pub handle: u32,
    }

    /// How to make one.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_comp_cntr_init_attr {
        pub comp_mask: u32,
        pub r#type = "type": IbvCompCntrType,
        pub flags: u32,
    }

    /// Which operations of a queue pair it counts.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_qp_attach_comp_cntr_attr {
        pub comp_mask: u32,
        pub op_mask: u32,
    }
}
