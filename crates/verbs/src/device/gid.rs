//! Addresses of ports: GIDs, GUIDs, the kinds of entries in a GID table, and which entry to use when nobody says.
//!
//! The choice is pure: entries and ports in, a choice with its explanation out. `Context` feeds it.

use super::port::{LinkLayer, PortState};
use crate::error::Error;
use crate::number::named_number;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A 128-bit address of a port, written as an IPv6 address; over RoCE it is one. Text for `serde` (feature `serde`) too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
pub struct Gid([u8; 16]);

impl Gid {
    /// From its bytes, in the order of the wire.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, in the order of the wire.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// As an IPv6 address.
    #[must_use]
    pub const fn to_ipv6(self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.0)
    }

    /// The IPv4 address that it maps, as RoCE v2 over IPv4 has it.
    #[must_use]
    pub const fn to_ipv4(self) -> Option<Ipv4Addr> {
        self.to_ipv6().to_ipv4_mapped()
    }

    /// Whether an entry of a table is empty.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == [0; 16]
    }

    /// The upper half: the network.
    #[must_use]
    pub fn subnet_prefix(self) -> u64 {
        (u128::from_be_bytes(self.0) >> 64) as u64
    }

    /// The lower half: the port.
    #[must_use]
    pub fn interface_id(self) -> u64 {
        u128::from_be_bytes(self.0) as u64
    }

    /// Whether it is of `fe80::/10`: reaches neighbours only.
    #[must_use]
    pub const fn is_link_local(self) -> bool {
        self.0[0] == 0xfe && self.0[1] & 0xc0 == 0x80
    }
}

impl From<Ipv6Addr> for Gid {
    fn from(address: Ipv6Addr) -> Self {
        Self(address.octets())
    }
}

impl From<Ipv4Addr> for Gid {
    fn from(address: Ipv4Addr) -> Self {
        Self(address.to_ipv6_mapped().octets())
    }
}

impl From<Gid> for Ipv6Addr {
    fn from(gid: Gid) -> Self {
        gid.to_ipv6()
    }
}

impl std::str::FromStr for Gid {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<Ipv6Addr>().map(Self::from)
    }
}

impl From<Gid> for String {
    fn from(gid: Gid) -> Self {
        gid.to_string()
    }
}

impl TryFrom<String> for Gid {
    type Error = std::net::AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ipv6().fmt(f)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ipv6().fmt(f)
    }
}

/// A 64-bit name of a device or port, given by its maker; written as four groups of hexadecimal digits, for `serde` (feature `serde`) too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
pub struct Guid(u64);

impl Guid {
    /// From what the ABI gives: bytes in the order of the wire.
    #[must_use]
    pub const fn from_be(raw: u64) -> Self {
        Self(u64::from_be(raw))
    }

    /// As a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The maker: the upper 24 bits.
    #[must_use]
    pub const fn oui(self) -> u32 {
        (self.0 >> 40) as u32
    }

    /// All zeros: none was given.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl std::str::FromStr for Guid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let nonsense = || {
            let cause = format!("{text:?} is not four groups of four hexadecimal digits");
            Error::invalid("GUID", cause, "write it as 0002:c903:0001:0203")
        };
        let mut guid = 0;
        let mut groups = 0;
        for group in text.split(':') {
            let is_group = group.len() == 4 && group.bytes().all(|digit| digit.is_ascii_hexdigit());
            groups += 1;
            if !is_group || groups > 4 {
                return Err(nonsense());
            }
            guid = guid << 16 | u64::from_str_radix(group, 16).map_err(|_| nonsense())?;
        }
        if groups == 4 { Ok(Self(guid)) } else { Err(nonsense()) }
    }
}

impl From<Guid> for String {
    fn from(guid: Guid) -> Self {
        guid.to_string()
    }
}

impl TryFrom<String> for Guid {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |shift: u32| (self.0 >> shift) & 0xffff;
        write!(f, "{:04x}:{:04x}:{:04x}:{:04x}", part(48), part(32), part(16), part(0))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

named_number! {
    /// What a GID is for (`enum ibv_gid_type`). A number with names.
    GidKind: u32 {
        /// InfiniBand.
        INFINIBAND = 0 => "InfiniBand",
        /// RoCE v1: Ethernet frames of their own kind, one link.
        ROCE_V1 = 1 => "RoCE v1",
        /// RoCE v2: UDP, routed.
        ROCE_V2 = 2 => "RoCE v2",
    }
}

/// One entry of a device's GID table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GidEntry {
    /// The address.
    pub gid: Gid,
    /// Its place in its port's table.
    pub index: u32,
    /// Its port, from 1.
    pub port: u8,
    /// What it is for.
    pub kind: GidKind,
    /// Number of the network interface behind it, 0 where there is none.
    pub interface_index: u32,
    /// Name of that interface, where the process sees it.
    pub interface: Option<String>,
}

/// A port as far as the choice asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortBrief {
    /// Its number, from 1.
    pub number: u8,
    /// Whether it is up.
    pub state: PortState,
    /// Ethernet or InfiniBand.
    pub link_layer: LinkLayer,
}

/// A port and, where there is one, an entry of its GID table, with the reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The port.
    pub port: u8,
    /// The entry, or nothing on an InfiniBand port without global routing, and on iWARP.
    pub entry: Option<GidEntry>,
    /// Why this one, and why not each of the others, one line each.
    pub explanation: String,
}

/// How good an entry is, lowest first; the text says why.
fn rank(entry: &GidEntry, layer: LinkLayer) -> (u8, &'static str) {
    if layer == LinkLayer::INFINIBAND {
        return match (entry.index, entry.gid.is_link_local()) {
            (0, _) => (0, "the port's own GID"),
            (_, false) => (1, "a further GID of the port"),
            (_, true) => (2, "a further GID, of this subnet only"),
        };
    }
    match entry.kind {
        GidKind::ROCE_V2 if entry.gid.to_ipv4().is_some() => (0, "RoCE v2 over IPv4, routed"),
        GidKind::ROCE_V2 if !entry.gid.is_link_local() => (1, "RoCE v2 over IPv6, routed"),
        GidKind::ROCE_V2 => (2, "RoCE v2 over link-local IPv6, this link only"),
        GidKind::INFINIBAND => (3, "a GID of iWARP or of an unknown kind of Ethernet"),
        GidKind::ROCE_V1 => (4, "RoCE v1, this link only"),
        _ => (5, "of a kind that is not known"),
    }
}

/// Which port and GID to use when nobody says: a port that is up, a GID that is routed; among equals the first.
///
/// `port` limits the choice to one port. Nothing where no port fits.
#[must_use]
pub fn choose(ports: &[PortBrief], table: &[GidEntry], port: Option<u8>) -> Option<Choice> {
    use fmt::Write;
    let usable: Vec<_> =
        ports.iter().filter(|brief| port.is_none_or(|wanted| brief.number == wanted)).collect();
    // A port that is down can be set up beforehand, but only when there is no other.
    let best_port_rank = usable.iter().map(|brief| u8::from(!brief.state.is_usable())).min()?;
    let mut candidates = Vec::new();
    for brief in usable.iter().filter(|brief| u8::from(!brief.state.is_usable()) == best_port_rank) {
        let entries = table.iter().filter(|entry| entry.port == brief.number && !entry.gid.is_zero());
        candidates.extend(entries.map(|entry| (rank(entry, brief.link_layer), brief.number, Some(entry))));
        candidates.push(((u8::MAX, "no GID"), brief.number, None));
    }
    let (why, number, entry) = *candidates.iter().min_by_key(|((rank, _), number, entry)| {
        (*rank, *number, entry.map_or(u32::MAX, |entry| entry.index))
    })?;
    let mut explanation = match entry {
        Some(entry) => format!("port {number}, GID {} (index {}): {}", entry.gid, entry.index, why.1),
        None => format!("port {number} without a GID: its table is empty"),
    };
    if best_port_rank == 1 {
        explanation.push_str("; no port is up");
    }
    for brief in ports {
        if !usable.iter().any(|usable| usable.number == brief.number) {
            let _ = write!(explanation, "\nnot port {}: another was asked for", brief.number);
        } else if u8::from(!brief.state.is_usable()) != best_port_rank {
            let _ = write!(explanation, "\nnot port {}: it is {}", brief.number, brief.state);
        }
    }
    for ((_, text), number, other) in &candidates {
        if let Some(other) = other
            && Some(*other) != entry
        {
            let _ =
                write!(explanation, "\nnot port {number}, GID {} (index {}): {text}", other.gid, other.index);
        }
    }
    Some(Choice { port: number, entry: entry.cloned(), explanation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(port: u8, index: u32, kind: GidKind, gid: &str) -> GidEntry {
        GidEntry { gid: gid.parse().unwrap(), index, port, kind, interface_index: 0, interface: None }
    }

    fn port(number: u8, state: PortState, link_layer: LinkLayer) -> PortBrief {
        PortBrief { number, state, link_layer }
    }

    #[test]
    fn roce_v2_over_ipv4_wins_and_every_other_entry_is_explained() {
        let table = [
            entry(1, 0, GidKind::ROCE_V1, "fe80::1"),
            entry(1, 1, GidKind::ROCE_V2, "fe80::1"),
            entry(1, 2, GidKind::ROCE_V1, "::ffff:10.0.0.1"),
            entry(1, 3, GidKind::ROCE_V2, "::ffff:10.0.0.1"),
            entry(1, 4, GidKind::ROCE_V2, "2001:db8::1"),
        ];
        let choice = choose(&[port(1, PortState::ACTIVE, LinkLayer::ETHERNET)], &table, None).unwrap();
        assert_eq!(choice.entry.as_ref().unwrap().index, 3);
        assert_eq!(choice.explanation.lines().count(), 5, "{}", choice.explanation);
    }

    #[test]
    fn a_port_that_is_down_is_taken_only_when_no_other_is_up() {
        let ports =
            [port(1, PortState::DOWN, LinkLayer::ETHERNET), port(2, PortState::ACTIVE, LinkLayer::ETHERNET)];
        let table =
            [entry(1, 0, GidKind::ROCE_V2, "::ffff:10.0.0.1"), entry(2, 0, GidKind::ROCE_V2, "fe80::2")];
        let choice = choose(&ports, &table, None).unwrap();
        assert_eq!(choice.port, 2);
        assert!(choice.explanation.contains("not port 1: it is down"), "{}", choice.explanation);
        let choice = choose(&ports[..1], &table, None).unwrap();
        assert_eq!(choice.port, 1);
        assert!(choice.explanation.contains("no port is up"));
        assert_eq!(choose(&ports, &table, Some(1)).unwrap().port, 1);
        assert!(choose(&ports, &table, Some(3)).is_none());
    }

    #[test]
    fn an_infiniband_port_uses_its_own_gid_and_one_without_any_goes_without() {
        let ports = [port(1, PortState::ACTIVE, LinkLayer::INFINIBAND)];
        let table =
            [entry(1, 1, GidKind::INFINIBAND, "2001::2"), entry(1, 0, GidKind::INFINIBAND, "fe80::1")];
        assert_eq!(choose(&ports, &table, None).unwrap().entry.unwrap().index, 0);
        assert_eq!(choose(&ports, &[], None).unwrap().entry, None);
    }

    #[test]
    fn empty_entries_are_no_choice_and_unknown_kinds_are_data() {
        let ports = [port(1, PortState::ACTIVE, LinkLayer::ETHERNET)];
        let table = [entry(1, 0, GidKind::ROCE_V2, "::"), entry(1, 5, GidKind::from_raw(9), "2001::5")];
        assert_eq!(choose(&ports, &table, None).unwrap().entry.unwrap().index, 5);
        assert_eq!(GidKind::from_raw(9).to_string(), "Unknown(9)");
    }

    #[test]
    fn names_come_back_from_text_and_nonsense_is_refused() {
        let guid = Guid::from_be(u64::from_ne_bytes([0, 2, 0xc9, 3, 0, 1, 2, 3]));
        assert_eq!((guid.to_string().as_str(), guid.oui()), ("0002:c903:0001:0203", 0x0002c9));
        assert_eq!(guid.to_string().parse::<Guid>().unwrap(), guid);
        for text in
            ["", "0002:c903:0001", "0002:c903:0001:0203:0", "0002:c903:0001:203", "+002:c903:0001:0203"]
        {
            assert!(text.parse::<Guid>().is_err(), "{text}");
        }
        let gid: Gid = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(Gid::try_from(String::from(gid)).unwrap(), gid);
        assert!("10.0.0".parse::<Gid>().is_err());
        #[cfg(all(feature = "serde", feature = "network"))]
        {
            let text = serde_json::to_string(&(gid, guid)).unwrap();
            assert_eq!(text, r#"["::ffff:10.0.0.1","0002:c903:0001:0203"]"#);
            assert_eq!(serde_json::from_str::<(Gid, Guid)>(&text).unwrap(), (gid, guid));
            assert!(serde_json::from_str::<Guid>("\"nowhere\"").is_err());
        }
    }

    #[test]
    fn names_print_as_the_field_prints_them() {
        let guid = Guid::from_be(u64::from_ne_bytes([0x50, 0x54, 0x00, 0xff, 0xfe, 0x12, 0x34, 0x56]));
        assert_eq!(guid.to_string(), "5054:00ff:fe12:3456");
        assert_eq!(guid.oui(), 0x0050_5400);
        let gid = Gid::from(Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(gid.to_string(), "::ffff:10.0.0.1");
        assert_eq!(gid.to_ipv4(), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert!("fe80::1".parse::<Gid>().unwrap().is_link_local());
    }
}
