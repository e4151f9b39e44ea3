//! Addresses of the connection manager: of IP, of InfiniBand, and any other family as data.

use crate::device::Gid;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Bytes of the largest address of a socket (`struct sockaddr_storage`).
pub(super) const STORAGE_LEN: usize = 128;

/// `AF_IB` of the kernel.
const FAMILY_IB: u16 = 27;

/// An end of a connection.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// By IP; the device that has the route to it is found by the system.
    Ip(SocketAddr),
    /// By InfiniBand's own numbers (`AF_IB`).
    Ib(IbAddress),
    /// Of a family that this crate does not know: its number, and the bytes behind it.
    Other {
        /// The number (`AF_…`).
        family: u16,
        /// What stands behind the number.
        bytes: Vec<u8>,
    },
}

/// An address of InfiniBand (`struct sockaddr_ib`, the kernel's `rdma/ib.h`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[doc(alias = "sockaddr_ib")]
pub struct IbAddress {
    /// Partition key; `0xffff` is the default one.
    pub pkey: u16,
    /// Traffic class and flow label.
    pub flow_info: u32,
    /// The port's GID.
    pub gid: Gid,
    /// Service identifier: port space and port.
    pub service_id: u64,
    /// Which bits of the service identifier count.
    pub service_id_mask: u64,
    /// Scope, as of an IPv6 address.
    pub scope_id: u64,
}

impl Address {
    /// As C has it, padded with zeros.
    pub(super) fn to_bytes(&self) -> [u8; STORAGE_LEN] {
        let mut bytes = [0; STORAGE_LEN];
        let mut put = |at: usize, value: &[u8]| {
            let len = value.len().min(STORAGE_LEN - at);
            bytes[at..at + len].copy_from_slice(&value[..len]);
        };
        match self {
            Self::Ip(SocketAddr::V4(address)) => {
                put(0, &(libc::AF_INET as u16).to_ne_bytes());
                put(2, &address.port().to_be_bytes());
                put(4, &address.ip().octets());
            }
            Self::Ip(SocketAddr::V6(address)) => {
                put(0, &(libc::AF_INET6 as u16).to_ne_bytes());
                put(2, &address.port().to_be_bytes());
                put(4, &address.flowinfo().to_ne_bytes());
                put(8, &address.ip().octets());
                put(24, &address.scope_id().to_ne_bytes());
            }
            Self::Ib(address) => {
                put(0, &FAMILY_IB.to_ne_bytes());
                put(2, &address.pkey.to_be_bytes());
                put(4, &address.flow_info.to_be_bytes());
                put(8, &address.gid.bytes());
                put(24, &address.service_id.to_be_bytes());
                put(32, &address.service_id_mask.to_be_bytes());
                put(40, &address.scope_id.to_ne_bytes());
            }
            Self::Other { family, bytes: rest } => {
                put(0, &family.to_ne_bytes());
                put(2, rest);
            }
        }
        bytes
    }

    /// From C's; nothing where none was set.
    pub(super) fn from_bytes(bytes: &[u8; STORAGE_LEN]) -> Option<Self> {
        let two = |at: usize| [bytes[at], bytes[at + 1]];
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let eight = |at: usize| -> [u8; 8] { std::array::from_fn(|place| bytes[at + place]) };
        let sixteen: [u8; 16] = std::array::from_fn(|place| bytes[8 + place]);
        let family = u16::from_ne_bytes(two(0));
        Some(match i32::from(family) {
            libc::AF_UNSPEC => return None,
            libc::AF_INET => {
                let port = u16::from_be_bytes(two(2));
                Self::Ip(SocketAddrV4::new(Ipv4Addr::from(four(4)), port).into())
            }
            libc::AF_INET6 => {
                let (flow, scope) = (u32::from_ne_bytes(four(4)), u32::from_ne_bytes(four(24)));
                let port = u16::from_be_bytes(two(2));
                Self::Ip(SocketAddrV6::new(Ipv6Addr::from(sixteen), port, flow, scope).into())
            }
            _ if family == FAMILY_IB => Self::Ib(IbAddress {
                pkey: u16::from_be_bytes(two(2)),
                flow_info: u32::from_be_bytes(four(4)),
                gid: Gid::from_bytes(sixteen),
                service_id: u64::from_be_bytes(eight(24)),
                service_id_mask: u64::from_be_bytes(eight(32)),
                scope_id: u64::from_ne_bytes(eight(40)),
            }),
            _ => Self::Other { family, bytes: bytes[2..].to_vec() },
        })
    }

    /// The address of IP, where it is one.
    #[must_use]
    pub const fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            _ => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl From<IbAddress> for Address {
    fn from(address: IbAddress) -> Self {
        Self::Ib(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Ib(address) => write!(f, "ib {} service {:#x}", address.gid, address.service_id),
            Self::Other { family, .. } => write!(f, "an address of family Unknown({family})"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_family_come_back_from_the_bytes_of_c() {
        let ib = IbAddress {
            pkey: 0xffff,
            flow_info: 5,
            gid: "fe80::1".parse().unwrap(),
            service_id: 0x0106_1234,
            service_id_mask: u64::MAX,
            scope_id: 3,
        };
        let v6 = SocketAddrV6::new("fe80::2".parse().unwrap(), 7, 1, 2);
        let other = Address::Other { family: 99, bytes: (0..126).collect() };
        for address in [
            Address::from("10.0.0.1:7471".parse::<SocketAddr>().unwrap()),
            Address::from(SocketAddr::from(v6)),
            Address::from(ib),
            other,
        ] {
            assert_eq!(Address::from_bytes(&address.to_bytes()), Some(address.clone()), "{address}");
        }
        assert_eq!(Address::from_bytes(&[0; STORAGE_LEN]), None);
    }

    #[test]
    fn an_address_of_ip_is_what_the_system_reads() {
        let bytes = Address::from("1.2.3.4:258".parse::<SocketAddr>().unwrap()).to_bytes();
        assert_eq!(bytes[..8], [2, 0, 1, 2, 1, 2, 3, 4]);
    }

    #[test]
    fn an_address_that_is_too_long_is_cut_and_not_written_past_the_end() {
        let address = Address::Other { family: 99, bytes: vec![7; 4096] };
        assert_eq!(address.to_bytes()[2..], [7; 126]);
    }
}
