//! Ways to peers, and handles of them for those queue pairs that ask for one per message.
//!
//! A [`Path`] is plain data: also what a connected queue pair is told about its peer. An [`AddressHandle`] is the device's form of it,
//! for datagrams (UD, SRD).
#![allow(unsafe_code)]

use crate::cq::WorkCompletion;
use crate::device::{Choice, Context, Gid, LinkLayer};
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use crate::qp::{Destination, Endpoint, Path, Route};
use sinew_verbs_sys as sys;
use std::fmt;
use std::marker::PhantomData;
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

impl Route {
    /// To that GID, from the GID at that place of the own port's table; 64 routers at most, no traffic class, no flow label.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a place above 255, which the ABI cannot say.
    pub fn new(gid: Gid, gid_index: u32) -> Result<Self> {
        let gid_index = u8::try_from(gid_index).map_err(|_| {
            Error::invalid(
                "place of the own GID",
                format!("{gid_index}; an address names 0 to 255"),
                "take a GID of the first 256",
            )
        })?;
        Ok(Self { gid, gid_index, hop_limit: 64, traffic_class: 0, flow_label: 0 })
    }
}

impl Path {
    /// By local identifier, within an InfiniBand subnet.
    #[must_use]
    pub const fn local(port: u8, lid: u16) -> Self {
        Self { port, lid, route: None, service_level: 0, path_bits: 0 }
    }

    /// By a route.
    #[must_use]
    pub const fn global(port: u8, route: Route) -> Self {
        Self { route: Some(route), ..Self::local(port, 0) }
    }

    /// To the port of a peer's queue pair, from the own port and GID that were chosen ([`Context::choose_gid`]).
    ///
    /// # Errors
    /// [`Error::Invalid`] when one side has a GID and the other has none, and there is no local identifier either; or as
    /// [`Route::new`].
    pub fn to_endpoint(endpoint: &Endpoint, from: &Choice) -> Result<Self> {
        let route = match (endpoint.gid, &from.entry) {
            (Some(gid), Some(entry)) => Some(Route::new(gid, entry.index)?),
            _ if endpoint.lid != 0 => None,
            (gid, entry) => {
                let says = |there: bool| if there { "a GID" } else { "no GID" };
                let (peer, own) = (says(gid.is_some()), says(entry.is_some()));
                return Err(Error::invalid(
                    "way to an endpoint",
                    format!("the peer has {peer}, port {} {own}", from.port),
                    "give both ports an address (over Ethernet: an IP address on the network interface)",
                ));
            }
        };
        Ok(Self { route, ..Self::local(from.port, endpoint.lid) })
    }

    /// What the ABI can say of it.
    fn check(&self) -> Result<()> {
        let refuse = |cause: String, remedy| Err(Error::invalid("way to a peer", cause, remedy));
        if self.port == 0 {
            return refuse("port 0".to_owned(), "ports count from 1");
        }
        if self.service_level > 15 {
            return refuse(format!("service level {}", self.service_level), "take 0 to 15");
        }
        match &self.route {
            Some(route) if route.flow_label > sys::IB_GRH_FLOWLABEL_MASK => {
                refuse(format!("flow label {:#x}", route.flow_label), "it has 20 bits")
            }
            _ => Ok(()),
        }
    }

    /// From what the ABI has; all but the static rate.
    #[must_use]
    pub fn from_raw(raw: &sys::ibv_ah_attr) -> Self {
        let route = (raw.is_global != 0).then(|| Route {
            gid: Gid::from_bytes(raw.grh.dgid.bytes()),
            gid_index: raw.grh.sgid_index,
            hop_limit: raw.grh.hop_limit,
            traffic_class: raw.grh.traffic_class,
            flow_label: raw.grh.flow_label,
        });
        Self { port: raw.port_num, lid: raw.dlid, route, service_level: raw.sl, path_bits: raw.src_path_bits }
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
    pub fn path_to_sender(
        &self,
        port: u8,
        completion: &WorkCompletion,
        route: Option<&[u8; GLOBAL_ROUTE_LEN]>,
    ) -> Result<Path> {
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
        Ok(Path::from_raw(&raw))
    }
}

/// A way to a peer as the device has it, for datagrams. `Clone` is another handle to the same; `Send` and `Sync`.
///
/// Destroyed with its last handle, on whichever thread; it holds its protection domain. A datagram names it when it is posted, and it must be there until the completion: what posts in
/// safe code keeps it.
#[derive(Clone)]
#[doc(alias = "ibv_ah")]
pub struct AddressHandle {
    shared: Arc<Made>,
}

struct Made {
    pd: ProtectionDomain,
    ah: NonNull<sys::ibv_ah>,
    path: Path,
    rate: StaticRate,
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
    /// A handle of a way, as fast as the port. May ask the network for the peer's Ethernet address, and so take some milliseconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a port 0, a service level above 15, a flow label of more than 20 bits, or no route over Ethernet;
    /// [`Error::Call`] where there is no way to the peer (`ENETUNREACH`, `ETIMEDOUT` …) or no room.
    #[doc(alias = "ibv_create_ah")]
    pub fn address_handle(&self, path: &Path) -> Result<AddressHandle> {
        self.address_handle_at(path, StaticRate::MAX)
    }

    /// The same for packets that are sent no faster than `rate`.
    ///
    /// # Errors
    /// As of [`address_handle`](Self::address_handle).
    #[doc(alias = "ibv_create_ah")]
    pub fn address_handle_at(&self, path: &Path, rate: StaticRate) -> Result<AddressHandle> {
        path.check()?;
        let mut raw = path.to_raw();
        raw.static_rate = rate.as_raw();
        // SAFETY: the domain is alive, the attributes are a local.
        let ah = unsafe { (self.table().ibv_create_ah)(self.as_raw(), &mut raw) };
        let Some(ah) = NonNull::new(ah) else {
            return Err(self.no_handle(path, sys::Errno::last()));
        };
        Ok(AddressHandle { shared: Arc::new(Made { pd: self.clone(), ah, path: *path, rate }) })
    }

    /// A handle to the sender of a datagram: [`Context::path_to_sender`], and of that a handle.
    ///
    /// # Errors
    /// As these.
    #[doc(alias = "ibv_create_ah_from_wc")]
    pub fn address_handle_to_sender(
        &self,
        port: u8,
        completion: &WorkCompletion,
        route: Option<&[u8; GLOBAL_ROUTE_LEN]>,
    ) -> Result<AddressHandle> {
        self.address_handle(&self.context().path_to_sender(port, completion, route)?)
    }

    /// Why there is none: drivers say only `EINVAL` when the route is missing.
    fn no_handle(&self, path: &Path, errno: sys::Errno) -> Error {
        let context = self.context();
        let port = context.port(path.port);
        if path.route.is_none() && port.is_ok_and(|port| port.link_layer() == LinkLayer::ETHERNET) {
            return Error::invalid(
                "way to a peer",
                format!("port {} of {} is Ethernet, and it has no route", path.port, context.name()),
                "give the peer's GID (`Path::global`)",
            );
        }
        Error::call("ibv_create_ah", format_args!("{path:?} of {}", context.name()), errno.0)
    }
}

impl AddressHandle {
    /// The way.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// How fast at most.
    #[must_use]
    pub fn static_rate(&self) -> StaticRate {
        self.shared.rate
    }

    /// The protection domain.
    #[must_use]
    pub fn protection_domain(&self) -> &ProtectionDomain {
        &self.shared.pd
    }

    /// A queue pair there, as what a datagram is sent to.
    #[must_use]
    #[inline]
    pub fn destination(&self, qp_num: u32, qkey: u32) -> Destination<'_> {
        Destination { handle: self.as_raw(), qp_num, qkey, borrow: PhantomData }
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
        write!(f, "AddressHandle({:?} of {})", self.path(), self.shared.pd.context().name())
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
        let gid = gid.map(|gid| gid.parse().unwrap());
        Endpoint { qp_num: 1, lid, gid, psn, mtu: Mtu::B1024, responder_resources: 1 }
    }

    #[test]
    fn an_endpoint_with_a_gid_is_reached_by_a_route_and_one_without_by_its_identifier() {
        let path =
            Path::to_endpoint(&endpoint(Some("::ffff:10.0.0.2"), 0), &choice(Some(("::1", 3)))).unwrap();
        let route = path.route.unwrap();
        assert_eq!((path.port, route.gid.to_string(), route.gid_index), (2, "::ffff:10.0.0.2".to_owned(), 3));
        let path = Path::to_endpoint(&endpoint(None, 7), &choice(Some(("::1", 0)))).unwrap();
        assert_eq!((path.lid, path.route), (7, None));
        for (peer, own) in [(Some("::2"), None), (None, Some(("::1", 0))), (None, None)] {
            assert!(Path::to_endpoint(&endpoint(peer, 0), &choice(own)).is_err());
        }
    }

    #[test]
    fn a_place_that_eight_bits_cannot_say_is_refused_and_not_cut() {
        assert!(Route::new(Gid::default(), 255).is_ok());
        let error = Path::to_endpoint(&endpoint(Some("::2"), 0), &choice(Some(("::1", 256)))).unwrap_err();
        assert!(error.to_string().contains("256"), "{error}");
    }

    #[test]
    fn a_way_comes_back_from_the_abi_as_it_went() {
        let route = Route {
            gid: "fe80::1".parse().unwrap(),
            gid_index: 5,
            flow_label: 0xf_ffff,
            hop_limit: 3,
            traffic_class: 104,
        };
        let path = Path { port: 1, lid: 9, path_bits: 2, service_level: 15, route: Some(route) };
        assert_eq!(Path::from_raw(&path.to_raw()), path);
        assert_eq!(Path::from_raw(&Path::local(1, 4).to_raw()), Path::local(1, 4));
        assert!(path.check().is_ok());
        assert!(Path { port: 0, ..path }.check().is_err());
        assert!(Path { service_level: 16, ..path }.check().is_err());
        let route = Route { flow_label: 0x10_0000, ..route };
        assert!(Path { route: Some(route), ..path }.check().is_err());
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
