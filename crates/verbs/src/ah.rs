//! Addresses of datagrams and of connections: where packets go, and handles of it for those queue pairs that ask for one per message.
//!
//! An [`Address`] is plain data: also what a connected queue pair is told about its peer. An [`AddressHandle`] is the device's form of
//! it, for datagrams (UD, SRD).
#![allow(unsafe_code)]

use crate::cq::WorkCompletion;
use crate::device::{Choice, Context, Gid, LinkLayer};
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use crate::qp::endpoint::Endpoint;
use sinew_verbs_sys as sys;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// Length of the global route before each datagram that was received with one, in bytes.
pub const GLOBAL_ROUTE_LEN: usize = 40;

/// How fast packets may go at most (`enum ibv_rate`), by its code. A number with names; what is unknown is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StaticRate(u8);

/// Rates by their codes, in Mbit/s, as ibv_rate_to_mbps(3) has them.
const RATES: [(u8, u32); 23] = [
    (2, 2_500),
    (3, 10_000),
    (4, 30_000),
    (5, 5_000),
    (6, 20_000),
    (7, 40_000),
    (8, 60_000),
    (9, 80_000),
    (10, 120_000),
    (11, 14_062),
    (12, 56_250),
    (13, 112_500),
    (14, 168_750),
    (15, 25_781),
    (16, 103_125),
    (17, 206_250),
    (18, 309_375),
    (19, 28_125),
    (20, 53_125),
    (21, 425_000),
    (22, 637_500),
    (23, 850_000),
    (24, 1_275_000),
];

impl StaticRate {
    /// As fast as the port is.
    pub const MAX: Self = Self(0);

    /// From the code of the ABI.
    #[must_use]
    pub const fn from_raw(code: u8) -> Self {
        Self(code)
    }

    /// The code of the ABI.
    #[must_use]
    pub const fn as_raw(self) -> u8 {
        self.0
    }

    /// The fastest rate that is at most `mbps` Mbit/s, or nothing below the slowest (2500).
    #[must_use]
    #[doc(alias = "mbps_to_ibv_rate")]
    pub fn at_most(mbps: u32) -> Option<Self> {
        let fitting = RATES.iter().filter(|(_, rate)| *rate <= mbps);
        fitting.max_by_key(|(_, rate)| *rate).map(|(code, _)| Self(*code))
    }

    /// In Mbit/s; nothing for [`MAX`](Self::MAX) and for codes that are not known.
    #[must_use]
    #[doc(alias = "ibv_rate_to_mbps")]
    pub fn mbps(self) -> Option<u32> {
        RATES.iter().find(|(code, _)| *code == self.0).map(|(_, rate)| *rate)
    }
}

impl fmt::Debug for StaticRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.mbps()) {
            (0, _) => f.write_str("maximum"),
            (_, Some(mbps)) => write!(f, "{mbps} Mbit/s"),
            (code, None) => write!(f, "Unknown({code})"),
        }
    }
}

/// The part of an address that routes: always there over Ethernet, and between InfiniBand subnets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(alias = "ibv_global_route")]
pub struct GlobalRoute {
    /// Where to.
    pub gid: Gid,
    /// Place of the sender's GID in its port's table.
    pub source_index: u8,
    /// Names a flow to switches; 20 bits, 0 by default (ECMP by other fields).
    pub flow_label: u32,
    /// How many routers it may pass; 64 by default.
    pub hop_limit: u8,
    /// Traffic class, over RoCE v2 the DSCP and ECN bits of IP; 0 by default.
    pub traffic_class: u8,
}

impl GlobalRoute {
    /// To that GID, from the GID at that place of the own port's table.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a place above 255, which the ABI cannot say.
    pub fn new(gid: Gid, source_index: u32) -> Result<Self> {
        let source_index = u8::try_from(source_index).map_err(|_| {
            Error::invalid(
                "place of the own GID",
                format!("{source_index}; an address names 0 to 255"),
                "take a GID of the first 256",
            )
        })?;
        Ok(Self { gid, source_index, flow_label: 0, hop_limit: 64, traffic_class: 0 })
    }
}

/// Where packets go and by which port (ibv_create_ah(3)). Plain data; what is wrong with it is said when it is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(alias = "ibv_ah_attr")]
pub struct Address {
    /// The own port, from 1.
    pub port: u8,
    /// The peer's local identifier; 0 over Ethernet.
    pub lid: u16,
    /// Low bits of the own local identifier, where the port has several.
    pub source_path_bits: u8,
    /// Service level, 0 to 15; over Ethernet the priority (0 to 7).
    pub service_level: u8,
    /// How fast at most; by default as fast as the port.
    pub static_rate: StaticRate,
    /// The route, where there is one.
    pub route: Option<GlobalRoute>,
}

impl Address {
    /// By local identifier, within an InfiniBand subnet.
    #[must_use]
    pub const fn local(port: u8, lid: u16) -> Self {
        Self { port, lid, source_path_bits: 0, service_level: 0, static_rate: StaticRate::MAX, route: None }
    }

    /// By a route.
    #[must_use]
    pub const fn global(port: u8, route: GlobalRoute) -> Self {
        Self { route: Some(route), ..Self::local(port, 0) }
    }

    /// To the port of a peer's queue pair, from the own port and GID that were chosen ([`Context::choose_gid`]).
    ///
    /// # Errors
    /// [`Error::Invalid`] when one side has a GID and the other has none, and there is no local identifier either; or as
    /// [`GlobalRoute::new`].
    pub fn to_endpoint(endpoint: &Endpoint, from: &Choice) -> Result<Self> {
        let route = match (endpoint.gid, &from.entry) {
            (Some(gid), Some(entry)) => Some(GlobalRoute::new(gid, entry.index)?),
            _ if endpoint.lid != 0 => None,
            (gid, entry) => {
                let says = |there: bool| if there { "a GID" } else { "no GID" };
                return Err(Error::invalid(
                    "address of an endpoint",
                    format!(
                        "the peer has {}, port {} {}",
                        says(gid.is_some()),
                        from.port,
                        says(entry.is_some())
                    ),
                    "give both ports an address (over Ethernet: an IP address on the network interface)",
                ));
            }
        };
        Ok(Self { route, ..Self::local(from.port, endpoint.lid) })
    }

    /// As the ABI has it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a port 0, a service level above 15, or a flow label of more than 20 bits.
    pub fn to_raw(&self) -> Result<sys::ibv_ah_attr> {
        let refuse = |cause: String, remedy| Err(Error::invalid("address", cause, remedy));
        if self.port == 0 {
            return refuse("port 0".to_owned(), "ports count from 1");
        }
        if self.service_level > 15 {
            return refuse(format!("service level {}", self.service_level), "take 0 to 15");
        }
        let mut raw = sys::ibv_ah_attr::zeroed();
        raw.port_num = self.port;
        raw.dlid = self.lid;
        raw.src_path_bits = self.source_path_bits;
        raw.sl = self.service_level;
        raw.static_rate = self.static_rate.as_raw();
        if let Some(route) = &self.route {
            if route.flow_label > sys::IB_GRH_FLOWLABEL_MASK {
                return refuse(format!("flow label {:#x}", route.flow_label), "it has 20 bits");
            }
            raw.is_global = 1;
            raw.grh = sys::ibv_global_route {
                dgid: sys::ibv_gid::from_bytes(route.gid.bytes()),
                flow_label: route.flow_label,
                sgid_index: route.source_index,
                hop_limit: route.hop_limit,
                traffic_class: route.traffic_class,
            };
        }
        Ok(raw)
    }

    /// From what the ABI has.
    #[must_use]
    pub fn from_raw(raw: &sys::ibv_ah_attr) -> Self {
        let route = (raw.is_global != 0).then(|| GlobalRoute {
            gid: Gid::from_bytes(raw.grh.dgid.bytes()),
            source_index: raw.grh.sgid_index,
            flow_label: raw.grh.flow_label,
            hop_limit: raw.grh.hop_limit,
            traffic_class: raw.grh.traffic_class,
        });
        Self {
            port: raw.port_num,
            lid: raw.dlid,
            source_path_bits: raw.src_path_bits,
            service_level: raw.sl,
            static_rate: StaticRate::from_raw(raw.static_rate),
            route,
        }
    }
}

impl Context {
    /// Where a datagram came from, so that it can be answered: from its completion, and from the first 40 bytes of its buffer when the
    /// completion says that a global route is there (over Ethernet always). Asks the GID table, no allocation is kept.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a completion that failed, or one with a route whose bytes are not given; [`Error::Call`] when the
    /// library finds no own GID that it was sent to.
    #[doc(alias = "ibv_init_ah_from_wc")]
    pub fn address_of_sender(
        &self,
        port: u8,
        completion: &WorkCompletion,
        route: Option<&[u8; GLOBAL_ROUTE_LEN]>,
    ) -> Result<Address> {
        let object = || format!("a datagram at port {port} of {}", self.name());
        if completion.ok().is_err() {
            return Err(Error::invalid(
                "completion",
                "it failed: nothing arrived",
                "answer only what was received",
            ));
        }
        if completion.has_global_route() && route.is_none() {
            return Err(Error::invalid(
                "completion",
                "it came with a global route, whose bytes are not given",
                "give the first 40 bytes of the buffer",
            ));
        }
        let mut wc = *completion.as_raw();
        let mut grh = sys::ibv_grh::zeroed();
        if let Some(bytes) = route {
            // SAFETY: 40 bytes into a structure of 40 bytes of plain numbers.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut grh).cast::<u8>(), bytes.len())
            };
        }
        let mut raw = sys::ibv_ah_attr::zeroed();
        // SAFETY: the context is open, the three places are locals.
        let answer =
            unsafe { (self.table().ibv_init_ah_from_wc)(self.as_raw(), port, &mut wc, &mut grh, &mut raw) };
        sys::Errno::check(answer).map_err(|errno| Error::call("ibv_init_ah_from_wc", object(), errno.0))?;
        Ok(Address::from_raw(&raw))
    }
}

/// An address as the device has it, for datagrams. `Clone` is another handle to the same; `Send` and `Sync`.
///
/// It holds its protection domain. A datagram names it when it is posted, and it must be there until the completion: what posts in
/// safe code keeps it.
#[derive(Clone)]
#[doc(alias = "ibv_ah")]
pub struct AddressHandle {
    shared: Arc<Made>,
}

struct Made {
    pd: ProtectionDomain,
    ah: NonNull<sys::ibv_ah>,
    address: Address,
}

// SAFETY: an address handle may be used and destroyed by any thread.
unsafe impl Send for Made {}
// SAFETY: the same.
unsafe impl Sync for Made {}

impl Drop for Made {
    fn drop(&mut self) {
        // SAFETY: made by us, destroyed once.
        let answer = unsafe { (self.pd.table().ibv_destroy_ah)(self.ah.as_ptr()) };
        if let Err(errno) = sys::Errno::check(answer) {
            self.pd.context().library().leaked("ibv_destroy_ah", &self.pd.context().name(), errno.0);
            std::mem::forget(self.pd.clone());
        }
    }
}

impl ProtectionDomain {
    /// A handle of an address. May ask the network for the peer's Ethernet address, and so take some milliseconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] as [`Address::to_raw`], or without a route over Ethernet; [`Error::Call`] where there is no way to the peer
    /// (`ENETUNREACH`, `ETIMEDOUT` …) or no room.
    #[doc(alias = "ibv_create_ah")]
    pub fn address_handle(&self, address: &Address) -> Result<AddressHandle> {
        let mut raw = address.to_raw()?;
        // SAFETY: the domain is alive, the attributes are a local.
        let ah = unsafe { (self.table().ibv_create_ah)(self.as_raw(), &mut raw) };
        let Some(ah) = NonNull::new(ah) else {
            return Err(self.no_handle(address, sys::Errno::last()));
        };
        let made = Made { pd: self.clone(), ah, address: *address };
        Ok(AddressHandle { shared: Arc::new(made) })
    }

    /// A handle of the sender of a datagram: [`Context::address_of_sender`], and of that a handle.
    ///
    /// # Errors
    /// As these.
    #[doc(alias = "ibv_create_ah_from_wc")]
    pub fn address_handle_of_sender(
        &self,
        port: u8,
        completion: &WorkCompletion,
        route: Option<&[u8; GLOBAL_ROUTE_LEN]>,
    ) -> Result<AddressHandle> {
        self.address_handle(&self.context().address_of_sender(port, completion, route)?)
    }

    /// Why there is none: drivers say only `EINVAL` when the route is missing.
    fn no_handle(&self, address: &Address, errno: sys::Errno) -> Error {
        let context = self.context();
        let port = context.port(address.port);
        if address.route.is_none() && port.is_ok_and(|port| port.link_layer() == LinkLayer::ETHERNET) {
            return Error::invalid(
                "address",
                format!("port {} of {} is Ethernet, and it has no route", address.port, context.name()),
                "give the peer's GID (`Address::global`)",
            );
        }
        Error::call("ibv_create_ah", format_args!("{address:?} of {}", context.name()), errno.0)
    }
}

impl AddressHandle {
    /// The address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.shared.address
    }

    /// The protection domain.
    #[must_use]
    pub fn protection_domain(&self) -> &ProtectionDomain {
        &self.shared.pd
    }

    /// The raw handle; it stays as long as a handle of this kind is there.
    #[must_use]
    #[inline]
    pub fn as_raw(&self) -> *mut sys::ibv_ah {
        self.shared.ah.as_ptr()
    }
}

impl fmt::Debug for AddressHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressHandle({:?} of {})", self.address(), self.shared.pd.context().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{GidEntry, GidKind};
    use crate::qp::config::{Mtu, PacketSequenceNumber};

    fn choice(gid: Option<(&str, u32)>) -> Choice {
        let entry = gid.map(|(gid, index)| GidEntry {
            gid: gid.parse().unwrap(),
            index,
            port: 2,
            kind: GidKind::ROCE_V2,
            interface_index: 0,
            interface: None,
        });
        Choice { port: 2, entry, explanation: String::new() }
    }

    fn endpoint(gid: Option<&str>, lid: u16) -> Endpoint {
        let psn = PacketSequenceNumber::new(0).unwrap();
        Endpoint { qp_num: 1, lid, gid: gid.map(|gid| gid.parse().unwrap()), psn, mtu: Mtu::B1024 }
    }

    #[test]
    fn an_endpoint_with_a_gid_is_reached_by_a_route_and_one_without_by_its_identifier() {
        let address =
            Address::to_endpoint(&endpoint(Some("::ffff:10.0.0.2"), 0), &choice(Some(("::1", 3)))).unwrap();
        let route = address.route.unwrap();
        assert_eq!(
            (address.port, route.gid.to_string(), route.source_index),
            (2, "::ffff:10.0.0.2".to_owned(), 3)
        );
        let address = Address::to_endpoint(&endpoint(None, 7), &choice(Some(("::1", 0)))).unwrap();
        assert_eq!((address.lid, address.route), (7, None));
        for (peer, own) in [(Some("::2"), None), (None, Some(("::1", 0))), (None, None)] {
            assert!(Address::to_endpoint(&endpoint(peer, 0), &choice(own)).is_err());
        }
    }

    #[test]
    fn a_place_that_eight_bits_cannot_say_is_refused_and_not_cut() {
        assert!(GlobalRoute::new(Gid::default(), 255).is_ok());
        let error = Address::to_endpoint(&endpoint(Some("::2"), 0), &choice(Some(("::1", 256)))).unwrap_err();
        assert!(error.to_string().contains("256"), "{error}");
    }

    #[test]
    fn an_address_comes_back_from_the_abi_as_it_went() {
        let route = GlobalRoute {
            gid: "fe80::1".parse().unwrap(),
            source_index: 5,
            flow_label: 0xf_ffff,
            hop_limit: 3,
            traffic_class: 104,
        };
        let address = Address {
            port: 1,
            lid: 9,
            source_path_bits: 2,
            service_level: 15,
            static_rate: StaticRate::at_most(100_000).unwrap(),
            route: Some(route),
        };
        assert_eq!(Address::from_raw(&address.to_raw().unwrap()), address);
        assert_eq!(Address::from_raw(&Address::local(1, 4).to_raw().unwrap()), Address::local(1, 4));
        assert!(Address { port: 0, ..address }.to_raw().is_err());
        assert!(Address { service_level: 16, ..address }.to_raw().is_err());
        let route = GlobalRoute { flow_label: 0x10_0000, ..route };
        assert!(Address { route: Some(route), ..address }.to_raw().is_err());
    }

    #[test]
    fn rates_are_found_by_speed_although_their_codes_are_not_in_order() {
        assert_eq!(StaticRate::at_most(10_000).unwrap().as_raw(), 3);
        assert_eq!(StaticRate::at_most(u32::MAX).unwrap().mbps(), Some(1_275_000));
        assert_eq!(StaticRate::at_most(2_499), None);
        assert_eq!(StaticRate::MAX.mbps(), None);
        assert_eq!(format!("{:?} {:?}", StaticRate::MAX, StaticRate::from_raw(99)), "maximum Unknown(99)");
    }
}
