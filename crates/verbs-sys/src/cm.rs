//! Connection management: the types of librdmacm.
//!
//! Read by whoever connects by address; rdma_cm(7) and the page of each function. Nothing here calls anything: the functions are
//! in `CmTable`.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]
#![allow(unsafe_code)]

use crate::ah::{ibv_ah_attr, ibv_gid};
use crate::channel::ibv_comp_channel;
use crate::context::ibv_context;
use crate::cq::ibv_cq;
use crate::layout::{abi, codes, constants};
use crate::pd::ibv_pd;
use crate::qp::{IbvQpType, ibv_qp};
use crate::sa::ibv_sa_path_rec;
use crate::srq::ibv_srq;
use core::ffi::{c_char, c_int, c_void};

codes! {
    table CODES;

    /// What happened to a connection.
    pub struct RdmaCmEventType(u32) as "enum rdma_cm_event_type", "RDMA_CM_EVENT_" {
        ADDR_RESOLVED = 0,
        ADDR_ERROR = 1,
        ROUTE_RESOLVED = 2,
        ROUTE_ERROR = 3,
        CONNECT_REQUEST = 4,
        CONNECT_RESPONSE = 5,
        CONNECT_ERROR = 6,
        UNREACHABLE = 7,
        REJECTED = 8,
        ESTABLISHED = 9,
        DISCONNECTED = 10,
        DEVICE_REMOVAL = 11,
        MULTICAST_JOIN = 12,
        MULTICAST_ERROR = 13,
        ADDR_CHANGE = 14,
        TIMEWAIT_EXIT = 15,
        ADDRINFO_RESOLVED = 16,
        ADDRINFO_ERROR = 17,
        USER = 18,
        INTERNAL = 19,
    }

    /// Which ports a number is of.
    pub struct RdmaPortSpace(u32) as "enum rdma_port_space", "RDMA_PS_" {
        IPOIB = 0x0002,
        TCP = 0x0106,
        UDP = 0x0111,
        IB = 0x013F,
    }

    /// How to join a multicast group.
    pub struct RdmaCmMcJoinFlags(u32) as "enum rdma_cm_mc_join_flags", "RDMA_MC_JOIN_FLAG_" {
        FULLMEMBER = 0,
        SENDONLY_FULLMEMBER = 1,
    }
}

constants! {
    table CONSTANTS;

    RDMA_UDP_QKEY: u32 = 0x0123_4567;
    RDMA_MAX_RESP_RES: u8 = 0xff;
    RDMA_MAX_INIT_DEPTH: u8 = 0xff;

    RDMA_IB_IP_PS_MASK: u64 = 0xFFFF_FFFF_FFFF_0000;
    RDMA_IB_IP_PORT_MASK: u64 = 0xFFFF;
    RDMA_IB_IP_PS_TCP: u64 = 0x0106_0000;
    RDMA_IB_IP_PS_UDP: u64 = 0x0111_0000;
    RDMA_IB_PS_IB: u64 = 0x013F_0000;

    RAI_PASSIVE: c_int = 1;
    RAI_NUMERICHOST: c_int = 2;
    RAI_NOROUTE: c_int = 4;
    RAI_FAMILY: c_int = 8;
    RAI_SA: c_int = 0x10;
    RAI_DNS: c_int = 0x20;

    RDMA_CM_JOIN_MC_ATTR_ADDRESS: u32 = 1;
    RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS: u32 = 1 << 1;

    RDMA_OPTION_ID: c_int = 0;
    RDMA_OPTION_IB: c_int = 1;
    /// Type of service, one byte.
    RDMA_OPTION_ID_TOS: c_int = 0;
    /// An `int`.
    RDMA_OPTION_ID_REUSEADDR: c_int = 1;
    /// An `int`.
    RDMA_OPTION_ID_AFONLY: c_int = 2;
    /// One byte, the exponent of `ibv_qp_attr.timeout`.
    RDMA_OPTION_ID_ACK_TIMEOUT: c_int = 3;
    /// Some `ibv_path_data`.
    RDMA_OPTION_IB_PATH: c_int = 1;
}

abi! {
    table STRUCTURES;

    /// Addresses of InfiniBand.
    #[derive(Clone, Copy)]
    pub struct rdma_ib_addr {
        pub sgid: ibv_gid,
        pub dgid: ibv_gid,
        /// Big-endian.
        pub pkey: u16,
    }

    /// One end's address: C's anonymous unions in `rdma_addr`. Look at `sa_family` first.
    #[derive(Clone, Copy)]
    pub union rdma_sockaddr as "" {
        pub sockaddr: libc::sockaddr,
        pub sin: libc::sockaddr_in,
        pub sin6: libc::sockaddr_in6,
        pub storage: libc::sockaddr_storage,
    }

    /// Address by fabric.
    #[derive(Clone, Copy)]
    pub union rdma_addr_addr as "__typeof__(((struct rdma_addr *)0)->addr)" {
        pub ibaddr: rdma_ib_addr,
    }

    /// Both ends' addresses.
    #[derive(Clone, Copy)]
    pub struct rdma_addr {
        pub src ~ "src_storage": rdma_sockaddr,
        pub dst ~ "dst_storage": rdma_sockaddr,
        pub addr: rdma_addr_addr,
    }

    /// Addresses and paths of a connection.
    #[derive(Clone, Copy)]
    pub struct rdma_route {
        pub addr: rdma_addr,
        pub path_rec: *mut ibv_sa_path_rec,
        pub num_paths: c_int,
    }

    /// Where events of connections arrive.
    #[derive(Clone, Copy, Debug)]
    pub struct rdma_event_channel {
        pub fd: c_int,
    }

    /// One end of a connection.
    #[derive(Clone, Copy)]
    pub struct rdma_cm_id {
        pub verbs: *mut ibv_context,
        pub channel: *mut rdma_event_channel,
        pub context: *mut c_void,
        pub qp: *mut ibv_qp,
        pub route: rdma_route,
        pub ps: RdmaPortSpace,
        pub port_num: u8,
        pub event: *mut rdma_cm_event,
        pub send_cq_channel: *mut ibv_comp_channel,
        pub send_cq: *mut ibv_cq,
        pub recv_cq_channel: *mut ibv_comp_channel,
        pub recv_cq: *mut ibv_cq,
        pub srq: *mut ibv_srq,
        pub pd: *mut ibv_pd,
        pub qp_type: IbvQpType,
    }

    /// What two ends agree on.
    #[derive(Clone, Copy, Debug)]
    pub struct rdma_conn_param {
        pub private_data: *const c_void,
        pub private_data_len: u8,
        pub responder_resources: u8,
        pub initiator_depth: u8,
        pub flow_control: u8,
        /// Ignored by who accepts.
        pub retry_count: u8,
        pub rnr_retry_count: u8,
        /// This and what follows count only without a queue pair of the identifier.
        pub srq: u8,
        pub qp_num: u32,
    }

    /// How a peer's datagrams are addressed.
    #[derive(Clone, Copy)]
    pub struct rdma_ud_param {
        pub private_data: *const c_void,
        pub private_data_len: u8,
        pub ah_attr: ibv_ah_attr,
        pub qp_num: u32,
        pub qkey: u32,
    }

    /// What comes with an event.
    #[derive(Clone, Copy)]
    pub union rdma_cm_event_param as "__typeof__(((struct rdma_cm_event *)0)->param)" {
        pub conn: rdma_conn_param,
        pub ud: rdma_ud_param,
        /// Since rdma-core 60.
        pub arg: u64,
    }

    /// An event. Its private data is valid until it is acknowledged.
    #[derive(Clone, Copy)]
    pub struct rdma_cm_event {
        pub id: *mut rdma_cm_id,
        pub listen_id: *mut rdma_cm_id,
        pub event: RdmaCmEventType,
        /// Zero, a negated error number, or the fabric's reason of a rejection.
        pub status: c_int,
        pub param: rdma_cm_event_param,
    }

    /// What a name was resolved to.
    #[derive(Clone, Copy, Debug)]
    pub struct rdma_addrinfo {
        pub ai_flags: c_int,
        pub ai_family: c_int,
        pub ai_qp_type: c_int,
        pub ai_port_space: c_int,
        pub ai_src_len: libc::socklen_t,
        pub ai_dst_len: libc::socklen_t,
        pub ai_src_addr: *mut libc::sockaddr,
        pub ai_dst_addr: *mut libc::sockaddr,
        pub ai_src_canonname: *mut c_char,
        pub ai_dst_canonname: *mut c_char,
        pub ai_route_len: usize,
        pub ai_route: *mut c_void,
        pub ai_connect_len: usize,
        pub ai_connect: *mut c_void,
        pub ai_next: *mut rdma_addrinfo,
    }

    /// Which multicast group to join, and how.
    #[derive(Clone, Copy, Debug)]
    pub struct rdma_cm_join_mc_attr_ex {
        /// Bits `RDMA_CM_JOIN_MC_ATTR_*`.
        pub comp_mask: u32,
        /// The number of a [`RdmaCmMcJoinFlags`].
        pub join_flags: u32,
        pub addr: *mut libc::sockaddr,
    }
}

/// The address of this end, inside the identifier. Look at its family before anything else.
///
/// # Safety
/// The identifier is alive.
#[must_use]
pub unsafe fn rdma_get_local_addr(id: *mut rdma_cm_id) -> *mut libc::sockaddr {
    // SAFETY: the caller's promise: the place is within a live object.
    unsafe { (&raw mut (*id).route.addr.src).cast() }
}

/// The address of the other end, inside the identifier. Look at its family before anything else.
///
/// # Safety
/// The identifier is alive.
#[must_use]
pub unsafe fn rdma_get_peer_addr(id: *mut rdma_cm_id) -> *mut libc::sockaddr {
    // SAFETY: the caller's promise: the place is within a live object.
    unsafe { (&raw mut (*id).route.addr.dst).cast() }
}

const _: () = {
    assert!(size_of::<rdma_conn_param>() == 24);
    assert!(size_of::<rdma_addr>() == 296);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_inside_the_identifier() {
        let mut id = rdma_cm_id::zeroed();
        id.route.addr.src.sockaddr.sa_family = 2;
        id.route.addr.dst.sockaddr.sa_family = 10;
        // SAFETY: the identifier lives.
        let families = unsafe {
            ((*rdma_get_local_addr(&raw mut id)).sa_family, (*rdma_get_peer_addr(&raw mut id)).sa_family)
        };
        assert_eq!(families, (2, 10));
    }
}
