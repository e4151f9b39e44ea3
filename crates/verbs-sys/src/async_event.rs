//! Asynchronous events of a device.
//!
//! Read by whoever watches a device; ibv_get_async_event(3). Nothing here calls anything.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::cq::ibv_cq;
use crate::layout::{abi, codes};
use crate::qp::ibv_qp;
use crate::srq::ibv_srq;
use crate::wq::ibv_wq;
use core::ffi::c_int;

codes! {
    table CODES;

    /// What happened.
    pub struct IbvEventType(u32) as "enum ibv_event_type", "IBV_EVENT_" {
        CQ_ERR = 0,
        QP_FATAL = 1,
        QP_REQ_ERR = 2,
        QP_ACCESS_ERR = 3,
        COMM_EST = 4,
        SQ_DRAINED = 5,
        PATH_MIG = 6,
        PATH_MIG_ERR = 7,
        DEVICE_FATAL = 8,
        PORT_ACTIVE = 9,
        PORT_ERR = 10,
        LID_CHANGE = 11,
        PKEY_CHANGE = 12,
        SM_CHANGE = 13,
        SRQ_ERR = 14,
        SRQ_LIMIT_REACHED = 15,
        QP_LAST_WQE_REACHED = 16,
        CLIENT_REREGISTER = 17,
        GID_CHANGE = 18,
        WQ_FATAL = 19,
        DEVICE_SPEED_CHANGE = 20,
    }
}

abi! {
    table STRUCTURES;

    /// What it happened to; the type says which member is valid.
    #[derive(Clone, Copy)]
    pub union ibv_async_event_element as "__typeof__(((struct ibv_async_event *)0)->element)" {
        pub cq: *mut ibv_cq,
        pub qp: *mut ibv_qp,
        pub srq: *mut ibv_srq,
        pub wq: *mut ibv_wq,
        pub port_num: c_int,
    }

    /// An event. Each that was got is acknowledged once: destroying the object waits for that.
    #[derive(Clone, Copy)]
    pub struct ibv_async_event {
        pub element: ibv_async_event_element,
        pub event_type: IbvEventType,
    }
}

const _: () = assert!(size_of::<ibv_async_event>() == 16);
