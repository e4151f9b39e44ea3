//! TCP segments in IPv4 packets: as much of them as a wire must know to end connections as a middlebox would.
//!
//! Used by [`crate::wire`]. It allocates and is in no hurry.

use std::net::Ipv4Addr;

pub(crate) const FIN: u8 = 1;
pub(crate) const RST: u8 = 4;
const ACK: u8 = 16;
const SYN: u8 = 2;

/// One direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Flow {
    pub(crate) from: (Ipv4Addr, u16),
    pub(crate) to: (Ipv4Addr, u16),
}

impl Flow {
    pub(crate) const fn back(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// What a segment says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) flow: Flow,
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    pub(crate) flags: u8,
    /// Bytes of its payload.
    pub(crate) len: usize,
}

impl Segment {
    /// Of a packet, if it is one of TCP over IPv4.
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        let ip_len = usize::from(packet.first()? & 15) * 4;
        if packet[0] >> 4 != 4 || *packet.get(9)? != 6 {
            return None;
        }
        let tcp = packet.get(ip_len..).filter(|tcp| tcp.len() >= 20)?;
        let number = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        Some(Self {
            flow: Flow { from: (address(12), port(0)), to: (address(16), port(2)) },
            sequence: number(4),
            acknowledged: number(8),
            flags: tcp[13],
            len: tcp.len().checked_sub(usize::from(tcp[12] >> 4) * 4)?,
        })
    }

    /// Whether it is the first of a connection.
    pub(crate) const fn begins(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// The sequence number after it.
    pub(crate) const fn end(&self) -> u32 {
        let marks = (self.flags & SYN != 0) as u32 + (self.flags & FIN != 0) as u32;
        self.sequence.wrapping_add(self.len as u32).wrapping_add(marks)
    }
}

/// A packet with a segment without payload.
pub(crate) fn bare(flow: Flow, sequence: u32, acknowledged: u32, flags: u8) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x45;
    packet[3] = 40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&flow.from.0.octets());
    packet[16..20].copy_from_slice(&flow.to.0.octets());
    let sum = checksum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&flow.from.1.to_be_bytes());
    packet[22..24].copy_from_slice(&flow.to.1.to_be_bytes());
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[28..32].copy_from_slice(&acknowledged.to_be_bytes());
    packet[32] = 5 << 4;
    packet[33] = flags | ACK;
    packet[34..36].copy_from_slice(&u16::MAX.to_be_bytes());
    let pseudo = [&packet[12..20], &[0, 6, 0, 20], &packet[20..]].concat();
    let sum = checksum(&[&pseudo]);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[test]
fn a_bare_segment_reads_as_it_was_written() {
    let flow = Flow { from: (Ipv4Addr::new(10, 1, 0, 1), 4000), to: (Ipv4Addr::new(10, 1, 0, 2), 5) };
    let packet = bare(flow, u32::MAX, 7, FIN);
    let segment = Segment::of(&packet).unwrap();
    assert_eq!((segment.flow, segment.sequence, segment.acknowledged), (flow, u32::MAX, 7));
    assert_eq!((segment.len, segment.end(), segment.flow.back().to), (0, 0, flow.from));
    assert_eq!(checksum(&[&packet[..20]]), 0, "sums to nothing with its own");
}
