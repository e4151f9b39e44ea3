//! What befalls packets from one host to another.

use super::{Event, Place};
use super::{Kind, MICROS, Nanos, Net, Packet, Word};

/// One direction between two hosts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    /// Nothing passes.
    pub(crate) blocked: bool,
    /// Packets lost, of a thousand.
    pub(crate) loss: u64,
    /// Packets doubled, of a thousand.
    pub(crate) doubled: u64,
    /// Shortest way, and how much longer it may take: what is sent later may arrive earlier.
    pub(crate) delay: Nanos,
    pub(crate) jitter: Nanos,
}

impl Net {
    /// Gives a packet to the network.
    pub(crate) fn transmit(&mut self, kind: Kind, from: usize, to: usize, packet: Packet) {
        if !self.hosts[from].is_up || !self.hosts[to].is_up && kind != Kind::Far {
            return;
        }
        let (least, jitter) = match kind {
            Kind::Near => (100, 400),
            Kind::Mid => (3 * MICROS, 4 * MICROS),
            Kind::Far => {
                let path = self.path(from, to);
                (path.delay, path.jitter)
            }
        };
        let mut copies = 1;
        if kind.is_lossy() {
            let path = self.path(from, to).clone();
            if path.blocked {
                return;
            }
            copies = u64::from(!self.random.chance(path.loss)) + u64::from(self.random.chance(path.doubled));
        }
        for _ in 0..copies {
            let after = least + self.random.below(jitter + 1);
            self.push(self.now + after, Event::Arrival(packet.clone()));
        }
    }

    /// A packet is where it was sent to, unless the way was cut behind it.
    pub(super) fn arrive(&mut self, packet: Packet) {
        let Place { kind, host: to, .. } = self.places[packet.to];
        let from = self.places[packet.from].host;
        if !self.hosts[to].is_up || kind.is_lossy() && self.path(from, to).blocked {
            return;
        }
        let (now, code) = (self.now, packet.word.code());
        let number = if let Word::Data { number, .. } = packet.word { number } else { 0 };
        self.trace.note(
            now,
            &[code, packet.from as u64, packet.to as u64, number, packet.received],
            format_args!(
                "  {} {from}→{to} end {}→{} {:?}",
                kind.name(),
                packet.from,
                packet.to,
                Brief(&packet.word)
            ),
        );
        self.touch(to);
        self.receive(kind, packet);
    }
}

struct Brief<'a>(&'a Word);

impl std::fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Word::Data { number, piece } => match &**piece {
                super::Piece::Record(_) => write!(f, "#{number} record"),
                super::Piece::Head { header, len, bytes } => {
                    write!(f, "#{number} {header:?} {}/{len}", bytes.len())
                }
                super::Piece::More(bytes) => write!(f, "#{number} more {}", bytes.len()),
                other => write!(f, "#{number} {other:?}"),
            },
            other => write!(f, "{other:?}"),
        }
    }
}
