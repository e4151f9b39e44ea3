//! Addresses: GIDs, routes, address handles, rates.
//!
//! Read by whoever addresses a peer; ibv_create_ah(3), ibv_query_gid(3), ibv_rate_to_mbps(3). Nothing here calls anything.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]
#![allow(unsafe_code)]

use crate::context::ibv_context;
use crate::layout::{abi, codes, constants};
use crate::pd::ibv_pd;

codes! {
    table CODES;

    /// Rate of a path, as a code that is not in order of speed.
    pub struct IbvRate(u32) as "enum ibv_rate", "IBV_" {
        RATE_MAX = 0,
        RATE_2_5_GBPS = 2,
        RATE_5_GBPS = 5,
        RATE_10_GBPS = 3,
        RATE_20_GBPS = 6,
        RATE_30_GBPS = 4,
        RATE_40_GBPS = 7,
        RATE_60_GBPS = 8,
        RATE_80_GBPS = 9,
        RATE_120_GBPS = 10,
        RATE_14_GBPS = 11,
        RATE_56_GBPS = 12,
        RATE_112_GBPS = 13,
        RATE_168_GBPS = 14,
        RATE_25_GBPS = 15,
        RATE_100_GBPS = 16,
        RATE_200_GBPS = 17,
        RATE_300_GBPS = 18,
        RATE_28_GBPS = 19,
        RATE_50_GBPS = 20,
        RATE_400_GBPS = 21,
        RATE_600_GBPS = 22,
        RATE_800_GBPS = 23,
        RATE_1200_GBPS = 24,
    }
}

constants! {
    table CONSTANTS;

    IB_ROCE_UDP_ENCAP_VALID_PORT_MIN: u16 = 0xC000;
    IB_ROCE_UDP_ENCAP_VALID_PORT_MAX: u16 = 0xFFFF;
    IB_GRH_FLOWLABEL_MASK: u32 = 0x000F_FFFF;
    ETHERNET_LL_SIZE: usize = 6;
}

abi! {
    table STRUCTURES;

    /// The two halves of a GID, big-endian.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_gid_global as "__typeof__(((union ibv_gid *)0)->global)" {
        pub subnet_prefix: u64,
        pub interface_id: u64,
    }

    /// A global identifier: 16 bytes, on RoCE an IPv6 address or a mapped IPv4 address.
    #[derive(Clone, Copy)]
    pub union ibv_gid {
        pub raw: [u8; 16],
        pub global: ibv_gid_global,
    }

    /// The part of an address that routes between subnets, and always on RoCE.
    #[derive(Clone, Copy)]
    pub struct ibv_global_route {
        pub dgid: ibv_gid,
        pub flow_label: u32,
        /// Row of the sender's table of GIDs.
        pub sgid_index: u8,
        pub hop_limit: u8,
        pub traffic_class: u8,
    }

    /// The header of 40 bytes before each datagram that was received with a route.
    #[derive(Clone, Copy)]
    pub struct ibv_grh {
        /// Big-endian: version, traffic class, flow label.
        pub version_tclass_flow: u32,
        /// Big-endian.
        pub paylen: u16,
        pub next_hdr: u8,
        pub hop_limit: u8,
        pub sgid: ibv_gid,
        pub dgid: ibv_gid,
    }

    /// Where packets go.
    #[derive(Clone, Copy)]
    pub struct ibv_ah_attr {
        pub grh: ibv_global_route,
        pub dlid: u16,
        pub sl: u8,
        pub src_path_bits: u8,
        pub static_rate: u8,
        /// Not zero: `grh` is valid.
        pub is_global: u8,
        pub port_num: u8,
    }

    /// An address handle.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_ah {
        pub context: *mut ibv_context,
        pub pd: *mut ibv_pd,
        pub handle: u32,
    }
}

impl ibv_gid {
    /// The 16 bytes in the order of the wire.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 16] {
        // SAFETY: both members are 16 bytes of plain numbers.
        unsafe { self.raw }
    }

    /// From the 16 bytes in the order of the wire.
    #[must_use]
    pub const fn from_bytes(raw: [u8; 16]) -> Self {
        Self { raw }
    }
}

/// The source port of RoCE v2 that spreads flows as this label does.
#[must_use]
pub const fn ibv_flow_label_to_udp_sport(flow_label: u32) -> u16 {
    let low = flow_label & 0x3fff;
    let high = (flow_label & 0xf_c000) >> 14;
    (low ^ high) as u16 | IB_ROCE_UDP_ENCAP_VALID_PORT_MIN
}

impl core::fmt::Debug for ibv_gid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(&core::net::Ipv6Addr::from(self.bytes()), f)
    }
}

const _: () = {
    assert!(size_of::<ibv_gid>() == 16);
    assert!(size_of::<ibv_grh>() == 40);
    assert!(size_of::<ibv_ah_attr>() == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_a_port_of_the_range_for_it() {
        assert_eq!(ibv_flow_label_to_udp_sport(0), 0xC000);
        assert_eq!(ibv_flow_label_to_udp_sport(0x3fff), 0xFFFF);
        assert_eq!(ibv_flow_label_to_udp_sport(0xf_ffff), 0xFFC0);
        assert_eq!(ibv_flow_label_to_udp_sport(0x1_2345), 0xC000 | (0x2345 ^ 0x4));
    }
}
