//! What travels: packets with one piece of a stream each.

use super::EndId;
use sinew_transport::{Header, Record};
use std::sync::Arc;

/// A piece of what one end says to the other, in order.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A record of the handshake.
    Record(Box<Record>),
    /// A frame begins: `len` bytes of body in all, of which these are the first.
    Head { header: Header, len: usize, bytes: Vec<u8> },
    /// The body goes on.
    More(Vec<u8>),
    /// So many frames were handed up.
    Acknowledge(u64),
    /// Say what you have handed up.
    Ask,
    /// Nothing more comes.
    Fin,
}

impl Piece {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Record(record) => record.len(),
            Self::Head { bytes, .. } => 32 + bytes.len(),
            Self::More(bytes) => bytes.len(),
            Self::Acknowledge(_) | Self::Ask | Self::Fin => 16,
        }
    }
}

/// What a packet is for.
#[derive(Clone, Debug)]
pub(crate) enum Word {
    /// Let us be connected.
    Syn,
    /// We are.
    SynAnswer,
    Data {
        number: u64,
        piece: Arc<Piece>,
    },
    /// Only what every packet says besides.
    Acknowledge,
    /// Is there room again?
    Probe,
    /// There is nobody here.
    Reset,
}

impl Word {
    pub(crate) const fn code(&self) -> u64 {
        match self {
            Self::Syn => 1,
            Self::SynAnswer => 2,
            Self::Data { .. } => 3,
            Self::Acknowledge => 4,
            Self::Probe => 5,
            Self::Reset => 6,
        }
    }
}

/// One packet. Every one says what its sender has received and what it has room for.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from: EndId,
    pub(crate) to: EndId,
    pub(crate) word: Word,
    /// Pieces that arrived in order so far.
    pub(crate) received: u64,
    /// The first piece for which there is no room.
    pub(crate) edge: u64,
}
