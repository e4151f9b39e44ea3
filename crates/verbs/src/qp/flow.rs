//! Rules of steering: which received packets go to a queue pair of raw packets; ibv_create_flow(3).
//!
//! Order of use: a rule, layer by layer from the outside in; [`QueuePair::steer`] puts it in force, until it is ended or the queue pair is.
#![allow(unsafe_code)]

use super::pair::QueuePair;
use super::service::RawPacket;
use crate::error::{Error, Result};
use sinew_verbs_sys as sys;
use std::mem::offset_of;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A field of a header: the bits that are looked at, and what they are to be. By default none is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Match<T> {
    /// What the bits are to be.
    pub value: T,
    /// Which bits are looked at.
    pub mask: T,
}

/// Numbers and addresses that are compared bit by bit, up to 16 bytes.
pub trait Bits: Copy {
    /// All bits.
    const ALL: Self;

    /// Writes it to the beginning of a place, the most significant byte first.
    fn write(self, place: &mut [u8; 16]);
}

macro_rules! bits {
    ( $( $type:ty = $all:expr, |$value:ident| $bytes:expr; )* ) => { $(
        impl Bits for $type {
            const ALL: Self = $all;

            fn write(self, place: &mut [u8; 16]) {
                let $value = self;
                put(place, 0, &$bytes);
            }
        }
    )* };
}

bits! {
    u8 = Self::MAX, |value| [value];
    u16 = Self::MAX, |value| value.to_be_bytes();
    u32 = Self::MAX, |value| value.to_be_bytes();
    [u8; 6] = [u8::MAX; 6], |value| value;
    [u8; 16] = [u8::MAX; 16], |value| value;
}

impl<T: Bits> Match<T> {
    /// The whole field is this.
    pub const fn exactly(value: T) -> Self {
        Self { value, mask: T::ALL }
    }
}

impl Match<u32> {
    /// An address of IPv4.
    #[must_use]
    pub const fn ipv4(address: Ipv4Addr) -> Self {
        Self::exactly(address.to_bits())
    }
}

impl Match<[u8; 16]> {
    /// An address of IPv6.
    #[must_use]
    pub const fn ipv6(address: Ipv6Addr) -> Self {
        Self::exactly(address.octets())
    }
}

/// The header of Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[doc(alias = "ibv_flow_spec_eth")]
pub struct Ethernet {
    /// To whom.
    pub destination: Match<[u8; 6]>,
    /// From whom.
    pub source: Match<[u8; 6]>,
    /// What is inside: 0x0800 IPv4, 0x86dd IPv6 …
    pub ether_type: Match<u16>,
    /// Number of the virtual network, in the low 12 bits.
    pub vlan_tag: Match<u16>,
}

/// The header of IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[doc(alias = "ibv_flow_spec_ipv4")]
pub struct Ipv4 {
    /// From whom ([`Match::ipv4`]).
    pub source: Match<u32>,
    /// To whom.
    pub destination: Match<u32>,
}

/// The header of IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[doc(alias = "ibv_flow_spec_ipv6")]
pub struct Ipv6 {
    /// From whom ([`Match::ipv6`]).
    pub source: Match<[u8; 16]>,
    /// To whom.
    pub destination: Match<[u8; 16]>,
    /// Flow label, 20 bits.
    pub flow_label: Match<u32>,
    /// What is inside: 6 TCP, 17 UDP …
    pub next_header: Match<u8>,
    /// Traffic class.
    pub traffic_class: Match<u8>,
    /// Hops left.
    pub hop_limit: Match<u8>,
}

/// The ports of TCP or UDP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[doc(alias = "ibv_flow_spec_tcp_udp")]
pub struct Ports {
    /// From which.
    pub source: Match<u16>,
    /// To which.
    pub destination: Match<u16>,
}

/// Where the values and masks of a layer are.
struct Shape {
    len: usize,
    value: usize,
    mask: usize,
}

macro_rules! shape {
    ( $name:ident ) => {
        Shape {
            len: size_of::<sys::$name>(),
            value: offset_of!(sys::$name, val),
            mask: offset_of!(sys::$name, mask),
        }
    };
}

/// A rule. Layers are given from the outside in; without any it fits every packet of its kind.
#[derive(Clone, Debug)]
#[doc(alias = "ibv_flow_attr")]
pub struct FlowRule {
    kind: sys::IbvFlowAttrType,
    priority: u16,
    flags: u32,
    layers: u8,
    /// The layers as the ABI has them, one behind the other.
    parts: Vec<u8>,
}

/// Most bytes that the layers of a rule can take: what the ABI's `size` counts, without the head.
const PARTS_MAX: usize = u16::MAX as usize - size_of::<sys::ibv_flow_attr>();

impl FlowRule {
    /// Packets that fit the layers that are given.
    #[must_use]
    pub const fn new() -> Self {
        Self::of(sys::IbvFlowAttrType::NORMAL)
    }

    /// Packets that fit no other rule.
    #[must_use]
    #[doc(alias = "IBV_FLOW_ATTR_ALL_DEFAULT")]
    pub const fn everything_else() -> Self {
        Self::of(sys::IbvFlowAttrType::ALL_DEFAULT)
    }

    /// Packets to groups that fit no other rule.
    #[must_use]
    #[doc(alias = "IBV_FLOW_ATTR_MC_DEFAULT")]
    pub const fn other_groups() -> Self {
        Self::of(sys::IbvFlowAttrType::MC_DEFAULT)
    }

    /// A copy of every packet of the port.
    #[must_use]
    #[doc(alias = "IBV_FLOW_ATTR_SNIFFER")]
    pub const fn sniffer() -> Self {
        Self::of(sys::IbvFlowAttrType::SNIFFER)
    }

    const fn of(kind: sys::IbvFlowAttrType) -> Self {
        Self { kind, priority: 0, flags: 0, layers: 0, parts: Vec::new() }
    }

    /// Rules of a lower number are looked at first; 0 by default.
    #[must_use]
    pub const fn priority(mut self, priority: u16) -> Self {
        self.priority = priority;
        self
    }

    /// Packets go on to where they would go without the rule, too.
    #[must_use]
    #[doc(alias = "IBV_FLOW_ATTR_FLAGS_DONT_TRAP")]
    pub const fn copied(mut self) -> Self {
        self.flags |= sys::IBV_FLOW_ATTR_FLAGS_DONT_TRAP;
        self
    }

    /// With this header of Ethernet.
    #[must_use]
    pub fn ethernet(self, header: Ethernet) -> Self {
        let Ethernet { destination, source, ether_type, vlan_tag } = header;
        let fields = [
            (offset_of!(sys::ibv_flow_eth_filter, dst_mac), Field::of(destination)),
            (offset_of!(sys::ibv_flow_eth_filter, src_mac), Field::of(source)),
            (offset_of!(sys::ibv_flow_eth_filter, ether_type), Field::of(ether_type)),
            (offset_of!(sys::ibv_flow_eth_filter, vlan_tag), Field::of(vlan_tag)),
        ];
        self.layer(sys::IbvFlowSpecType::ETH, shape!(ibv_flow_spec_eth), &fields)
    }

    /// With this header of IPv4.
    #[must_use]
    pub fn ipv4(self, header: Ipv4) -> Self {
        let Ipv4 { source, destination } = header;
        let fields = [
            (offset_of!(sys::ibv_flow_ipv4_filter, src_ip), Field::of(source)),
            (offset_of!(sys::ibv_flow_ipv4_filter, dst_ip), Field::of(destination)),
        ];
        self.layer(sys::IbvFlowSpecType::IPV4, shape!(ibv_flow_spec_ipv4), &fields)
    }

    /// With this header of IPv6.
    #[must_use]
    pub fn ipv6(self, header: Ipv6) -> Self {
        let Ipv6 { source, destination, flow_label, next_header, traffic_class, hop_limit } = header;
        let fields = [
            (offset_of!(sys::ibv_flow_ipv6_filter, src_ip), Field::of(source)),
            (offset_of!(sys::ibv_flow_ipv6_filter, dst_ip), Field::of(destination)),
            (offset_of!(sys::ibv_flow_ipv6_filter, flow_label), Field::of(flow_label)),
            (offset_of!(sys::ibv_flow_ipv6_filter, next_hdr), Field::of(next_header)),
            (offset_of!(sys::ibv_flow_ipv6_filter, traffic_class), Field::of(traffic_class)),
            (offset_of!(sys::ibv_flow_ipv6_filter, hop_limit), Field::of(hop_limit)),
        ];
        self.layer(sys::IbvFlowSpecType::IPV6, shape!(ibv_flow_spec_ipv6), &fields)
    }

    /// Of TCP, with these ports.
    #[must_use]
    pub fn tcp(self, ports: Ports) -> Self {
        self.ports(sys::IbvFlowSpecType::TCP, ports)
    }

    /// Of UDP, with these ports.
    #[must_use]
    pub fn udp(self, ports: Ports) -> Self {
        self.ports(sys::IbvFlowSpecType::UDP, ports)
    }

    fn ports(self, kind: sys::IbvFlowSpecType, ports: Ports) -> Self {
        let fields = [
            (offset_of!(sys::ibv_flow_tcp_udp_filter, dst_port), Field::of(ports.destination)),
            (offset_of!(sys::ibv_flow_tcp_udp_filter, src_port), Field::of(ports.source)),
        ];
        self.layer(kind, shape!(ibv_flow_spec_tcp_udp), &fields)
    }

    /// Adds a layer: what is no field of it is zero.
    fn layer(mut self, kind: sys::IbvFlowSpecType, shape: Shape, fields: &[(usize, Field)]) -> Self {
        let start = self.parts.len();
        self.parts.resize(start + shape.len, 0);
        let part = &mut self.parts[start..];
        put(part, offset_of!(sys::ibv_flow_spec_hdr, r#type), &kind.0.to_ne_bytes());
        put(part, offset_of!(sys::ibv_flow_spec_hdr, size), &(shape.len as u16).to_ne_bytes());
        for (place, field) in fields {
            put(part, shape.value + place, &field.value[..field.len]);
            put(part, shape.mask + place, &field.mask[..field.len]);
        }
        self.layers = self.layers.saturating_add(1);
        self
    }

    /// As the ABI has it, for a port: the head, then the layers, at a multiple of 8 bytes.
    fn to_raw(&self, port: u8) -> Result<Vec<u64>> {
        let (head, parts) = (size_of::<sys::ibv_flow_attr>(), self.parts.len());
        if parts > PARTS_MAX || self.layers == u8::MAX {
            return Err(Error::invalid(
                "rule of steering",
                format!("{parts} bytes of layers"),
                "take fewer layers; devices know a handful",
            ));
        }
        let mut bytes = vec![0; head];
        put(&mut bytes, offset_of!(sys::ibv_flow_attr, r#type), &self.kind.0.to_ne_bytes());
        put(&mut bytes, offset_of!(sys::ibv_flow_attr, size), &((head + parts) as u16).to_ne_bytes());
        put(&mut bytes, offset_of!(sys::ibv_flow_attr, priority), &self.priority.to_ne_bytes());
        put(&mut bytes, offset_of!(sys::ibv_flow_attr, num_of_specs), &[self.layers]);
        put(&mut bytes, offset_of!(sys::ibv_flow_attr, port), &[port]);
        put(&mut bytes, offset_of!(sys::ibv_flow_attr, flags), &self.flags.to_ne_bytes());
        bytes.extend(&self.parts);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        Ok(bytes
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()))
            .collect())
    }
}

impl Default for FlowRule {
    fn default() -> Self {
        Self::new()
    }
}

fn put(bytes: &mut [u8], place: usize, value: &[u8]) {
    bytes[place..place + value.len()].copy_from_slice(value);
}

/// A field as it is on the wire: the most significant byte first.
struct Field {
    value: [u8; 16],
    mask: [u8; 16],
    len: usize,
}

impl Field {
    fn of<T: Bits>(of: Match<T>) -> Self {
        let mut field = Self { value: [0; 16], mask: [0; 16], len: size_of::<T>() };
        of.value.write(&mut field.value);
        of.mask.write(&mut field.mask);
        field
    }
}

/// A rule that is in force, by a name that no other has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(alias = "ibv_flow")]
pub struct Flow {
    number: u64,
}

/// The rules that steer to a queue pair: it takes them out of force before it ends.
#[derive(Default)]
pub(super) struct Flows(Mutex<InForce>);

#[derive(Default)]
struct InForce {
    rules: Vec<(u64, NonNull<sys::ibv_flow>)>,
}

/// How many rules there have been, of all queue pairs: one's name is nothing to another.
static COUNT: AtomicU64 = AtomicU64::new(0);

impl Flows {
    /// Takes all out of force: what the device does not let go of stays, and the end of the queue pair says so.
    ///
    /// # Safety
    /// The device is open.
    pub(super) unsafe fn end_all(&self) {
        let mut flows = self.lock();
        // SAFETY: put in force by us, and taken out once: what succeeds is forgotten.
        flows.rules.retain(|(_, flow)| unsafe { sys::ibv_destroy_flow(flow.as_ptr()) }.is_err());
    }

    fn lock(&self) -> MutexGuard<'_, InForce> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuePair<RawPacket> {
    /// Puts a rule in force for packets that arrive at a port, until [`end_steering`](Self::end_steering) or the end of the queue pair.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the device has no steering; [`Error::Call`]: `EPERM` without the right to raw packets (`CAP_NET_RAW`), `EINVAL` for
    /// layers that do not follow each other or that the device does not know.
    #[doc(alias = "ibv_create_flow")]
    pub fn steer(&self, port: u8, rule: &FlowRule) -> Result<Flow> {
        let mut raw = rule.to_raw(port)?;
        // SAFETY: the queue pair is alive; the rule's layers follow its head as it says, and live through the call.
        let flow = unsafe { sys::ibv_create_flow(self.as_raw(), raw.as_mut_ptr().cast()) };
        let flow = flow.and_then(|flow| NonNull::new(flow).ok_or(sys::Errno::UNKNOWN));
        let flow = flow.map_err(|errno| Error::call("ibv_create_flow", self.object(), errno.0))?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        self.flows().lock().rules.push((number, flow));
        Ok(Flow { number })
    }

    /// Takes a rule out of force.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is not in force here; [`Error::Call`] from the device: it is in force still.
    #[doc(alias = "ibv_destroy_flow")]
    pub fn end_steering(&self, flow: Flow) -> Result<()> {
        let mut flows = self.flows().lock();
        let Some(place) = flows.rules.iter().position(|(number, _)| *number == flow.number) else {
            let cause = format!("{flow:?} does not steer to {} any more", self.object());
            return Err(Error::invalid(
                "rule of steering",
                cause,
                "end each once, where it was put in force",
            ));
        };
        // SAFETY: put in force by us, and taken out once: what succeeds is forgotten.
        unsafe { sys::ibv_destroy_flow(flows.rules[place].1.as_ptr()) }
            .map_err(|errno| Error::call("ibv_destroy_flow", self.object(), errno.0))?;
        flows.rules.remove(place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_laid_out_as_its_structures_are() {
        let rule = FlowRule::new()
            .priority(7)
            .ethernet(Ethernet { ether_type: Match::exactly(0x0800), ..Ethernet::default() })
            .ipv4(Ipv4 { destination: Match::ipv4(Ipv4Addr::new(10, 1, 2, 3)), ..Ipv4::default() })
            .udp(Ports { destination: Match::exactly(4791), ..Ports::default() });
        let mut raw = rule.to_raw(2).unwrap();
        let head = raw.as_mut_ptr().cast::<sys::ibv_flow_attr>();
        // SAFETY: the head is there, and behind it three layers of these types, as their sizes say; every byte is written.
        unsafe {
            let (eth, ipv4) =
                (head.add(1).cast::<sys::ibv_flow_spec_eth>(), size_of::<sys::ibv_flow_spec_eth>());
            let ipv4 = eth.byte_add(ipv4).cast::<sys::ibv_flow_spec_ipv4>();
            let udp = ipv4.add(1).cast::<sys::ibv_flow_spec_tcp_udp>();
            let end = udp.add(1).addr() - head.addr();
            assert_eq!(((*head).num_of_specs, (*head).port, (*head).priority), (3, 2, 7));
            assert_eq!(usize::from((*head).size), end);
            let ((of_eth, mask), of_ipv4, of_udp) = (((*eth).val, (*eth).mask), (*ipv4).val, (*udp).val);
            assert_eq!((of_eth.ether_type, mask.ether_type), (0x0800_u16.to_be(), 0xffff));
            assert_eq!((of_eth.dst_mac, mask.dst_mac), ([0; 6], [0; 6]));
            assert_eq!(of_ipv4.dst_ip.to_ne_bytes(), [10, 1, 2, 3]);
            assert_eq!((of_udp.dst_port, of_udp.src_port), (4791_u16.to_be(), 0));
        }
    }

    #[test]
    fn a_rule_of_more_than_the_abi_can_count_is_refused() {
        let mut rule = FlowRule::new();
        for _ in 0..300 {
            rule = rule.ipv6(Ipv6::default());
        }
        assert!(rule.to_raw(1).is_err());
    }
}
