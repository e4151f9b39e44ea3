//! Flow steering: which packets go to which queue pair.
//!
//! Read by whoever steers raw packets; ibv_create_flow(3). Nothing here calls anything.
#![expect(
    missing_docs,
    reason = "fields and codes carry the names under which the manual pages explain them"
)]

use crate::ah::ETHERNET_LL_SIZE;
use crate::context::ibv_context;
use crate::counters::ibv_counters;
use crate::layout::{abi, codes, constants};
use core::ffi::c_void;

codes! {
    table CODES;

    /// Kind of a rule.
    pub struct IbvFlowAttrType(u32) as "enum ibv_flow_attr_type", "IBV_FLOW_ATTR_" {
        NORMAL = 0,
        ALL_DEFAULT = 1,
        MC_DEFAULT = 2,
        SNIFFER = 3,
    }

    /// Kind of one part of a rule. [`INNER`](Self::INNER) is a bit.
    pub struct IbvFlowSpecType(u32) as "enum ibv_flow_spec_type", "IBV_FLOW_SPEC_" {
        ETH = 0x20,
        IPV4 = 0x30,
        IPV6 = 0x31,
        IPV4_EXT = 0x32,
        ESP = 0x34,
        TCP = 0x40,
        UDP = 0x41,
        VXLAN_TUNNEL = 0x50,
        GRE = 0x51,
        MPLS = 0x60,
        INNER = 0x100,
        ACTION_TAG = 0x1000,
        ACTION_DROP = 0x1001,
        ACTION_HANDLE = 0x1002,
        ACTION_COUNT = 0x1003,
    }
}

constants! {
    table CONSTANTS;

    IBV_FLOW_ATTR_FLAGS_DONT_TRAP: u32 = 1 << 1;
    IBV_FLOW_ATTR_FLAGS_EGRESS: u32 = 1 << 2;
    IBV_FLOW_ACTION_ESP_MASK_ESN: u32 = 1;
}

abi! {
    table STRUCTURES;

    /// Fields of Ethernet, big-endian.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_eth_filter {
        pub dst_mac: [u8; ETHERNET_LL_SIZE],
        pub src_mac: [u8; ETHERNET_LL_SIZE],
        pub ether_type: u16,
        pub vlan_tag: u16,
    }

    /// Ethernet.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_eth {
        pub r#type = "type": IbvFlowSpecType,
        /// Size of this structure.
        pub size: u16,
        pub val: ibv_flow_eth_filter,
        pub mask: ibv_flow_eth_filter,
    }

    /// Fields of IPv4, big-endian.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_ipv4_filter {
        pub src_ip: u32,
        pub dst_ip: u32,
    }

    /// IPv4.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_ipv4 {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
        pub val: ibv_flow_ipv4_filter,
        pub mask: ibv_flow_ipv4_filter,
    }

    /// More fields of IPv4, big-endian.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_ipv4_ext_filter {
        pub src_ip: u32,
        pub dst_ip: u32,
        pub proto: u8,
        pub tos: u8,
        pub ttl: u8,
        pub flags: u8,
    }

    /// IPv4 with more fields.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_ipv4_ext {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
        pub val: ibv_flow_ipv4_ext_filter,
        pub mask: ibv_flow_ipv4_ext_filter,
    }

    /// Fields of IPv6, big-endian.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_ipv6_filter {
        pub src_ip: [u8; 16],
        pub dst_ip: [u8; 16],
        pub flow_label: u32,
        pub next_hdr: u8,
        pub traffic_class: u8,
        pub hop_limit: u8,
    }

    /// IPv6.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_ipv6 {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
        pub val: ibv_flow_ipv6_filter,
        pub mask: ibv_flow_ipv6_filter,
    }

    /// Fields of IPsec.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_esp_filter {
        pub spi: u32,
        pub seq: u32,
    }

    /// IPsec.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_esp {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
        pub val: ibv_flow_esp_filter,
        pub mask: ibv_flow_esp_filter,
    }

    /// Ports, big-endian.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_tcp_udp_filter {
        pub dst_port: u16,
        pub src_port: u16,
    }

    /// TCP or UDP.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_tcp_udp {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
        pub val: ibv_flow_tcp_udp_filter,
        pub mask: ibv_flow_tcp_udp_filter,
    }

    /// Fields of GRE, big-endian.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_gre_filter {
        pub c_ks_res0_ver: u16,
        pub protocol: u16,
        pub key: u32,
    }

    /// GRE.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_gre {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
        pub val: ibv_flow_gre_filter,
        pub mask: ibv_flow_gre_filter,
    }

    /// A label of MPLS, big-endian.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_mpls_filter {
        pub label: u32,
    }

    /// MPLS.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_mpls {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
        pub val: ibv_flow_mpls_filter,
        pub mask: ibv_flow_mpls_filter,
    }

    /// Number of a tunnel.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_tunnel_filter {
        pub tunnel_id: u32,
    }

    /// A tunnel.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_tunnel {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
        pub val: ibv_flow_tunnel_filter,
        pub mask: ibv_flow_tunnel_filter,
    }

    /// Tags what matched.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_action_tag {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
        pub tag_id: u32,
    }

    /// Drops what matched.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_action_drop {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
    }

    /// Does with it what an action says.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_action_handle {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
        pub action: *const ibv_flow_action,
    }

    /// Counts what matched.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_counter_action {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
        pub counters: *mut ibv_counters,
    }

    /// What every part of a rule starts with.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_spec_hdr as "__typeof__(((struct ibv_flow_spec *)0)->hdr)" {
        pub r#type = "type": IbvFlowSpecType,
        pub size: u16,
    }

    /// Any part of a rule; C has the union inside a structure of the same name. Parts in a rule are as long as their `size` says, not
    /// as this.
    #[derive(Clone, Copy)]
    pub union ibv_flow_spec as "struct ibv_flow_spec" {
        pub hdr: ibv_flow_spec_hdr,
        pub eth: ibv_flow_spec_eth,
        pub ipv4: ibv_flow_spec_ipv4,
        pub tcp_udp: ibv_flow_spec_tcp_udp,
        pub ipv4_ext: ibv_flow_spec_ipv4_ext,
        pub ipv6: ibv_flow_spec_ipv6,
        pub esp: ibv_flow_spec_esp,
        pub tunnel: ibv_flow_spec_tunnel,
        pub gre: ibv_flow_spec_gre,
        pub mpls: ibv_flow_spec_mpls,
        pub flow_tag: ibv_flow_spec_action_tag,
        pub drop: ibv_flow_spec_action_drop,
        pub handle: ibv_flow_spec_action_handle,
        pub flow_count: ibv_flow_spec_counter_action,
    }

    /// A rule. Its parts (`ibv_flow_spec_*`) follow it in memory without gaps; `size` counts them.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_attr {
        pub comp_mask: u32,
        pub r#type = "type": IbvFlowAttrType,
        pub size: u16,
        pub priority: u16,
        pub num_of_specs: u8,
        pub port: u8,
        pub flags: u32,
    }

    /// A rule that is in force.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow {
        pub comp_mask: u32,
        pub context: *mut ibv_context,
        pub handle: u32,
    }

    /// An action that rules name.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_action {
        pub context: *mut ibv_context,
    }

    /// How to make an action of IPsec. What the pointers lead to is the kernel's interface, in `rdma/ib_user_ioctl_verbs.h`.
    #[derive(Clone, Copy, Debug)]
    pub struct ibv_flow_action_esp_attr {
        pub esp_attr: *mut c_void,
        pub keymat_proto: u32,
        pub keymat_len: u16,
        pub keymat_ptr: *mut c_void,
        pub replay_proto: u32,
        pub replay_len: u16,
        pub replay_ptr: *mut c_void,
        pub esp_encap: *mut c_void,
        pub comp_mask: u32,
        pub esn: u32,
    }
}
