//! Notes: the fixed-size messages that two lanes exchange over their socket. `docs/wire/shm.md` describes every byte.
//!
//! Called by the lane's set-up and by its segments. A note judges its own form; sizes are bounded here, before anything
//! is allocated or mapped by them.

use crate::half::Geometry;
use crate::sys::across::TOKEN_LEN;
use sinew_transport::{ErrorKind, TransportError};

/// Bytes of a note.
pub(crate) const NOTE_LEN: usize = 128;
/// Encoded note.
pub(crate) type Bytes = [u8; NOTE_LEN];

/// First bytes of every note.
pub(crate) const MAGIC: [u8; 4] = *b"SNSM";
/// Oldest and newest version of the shared layout that this code speaks.
pub(crate) const VERSIONS: std::ops::RangeInclusive<u16> = 1..=1;

/// A lane without a hint bit: it never cools.
pub(crate) const NO_BIT: u32 = u32::MAX;

/// What one side tells the other about its half.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Setup {
    /// How the half is laid out.
    pub(crate) geometry: Geometry,
    /// The bit of this lane in the sender's hint page, or [`NO_BIT`].
    pub(crate) bit: u32,
    /// The sender uses `membarrier` when it arms.
    pub(crate) membarrier: bool,
    /// Doorbell and hint page come along.
    pub(crate) bell: bool,
    /// Segments that the sender is ready to map at a time.
    pub(crate) segments_max: u32,
    /// Where the sender's token lies in its memory, and the token, if the receiver may read messages there.
    pub(crate) token: Option<(u64, [u8; TOKEN_LEN])>,
}

impl Setup {
    /// Descriptors that come with it: half, domain page, and with a bell eventfd and hint page.
    pub(crate) const fn fds(&self) -> usize {
        if self.bell { 4 } else { 2 }
    }
}

/// A note.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// The first one.
    Setup(Setup),
    /// Here is a segment; its descriptor comes along.
    Segment {
        /// The sender's number for it, never used again on this lane.
        id: u32,
        /// Its length in bytes.
        len: u64,
    },
    /// That segment will not be described any more: unmap it.
    Gone {
        /// Its number.
        id: u32,
    },
    /// Look at the lane.
    Bell,
}

const SETUP: u8 = 1;
const SEGMENT: u8 = 2;
const GONE: u8 = 3;
const BELL: u8 = 4;
const FLAG_MEMBARRIER: u32 = 1;
const FLAG_BELL: u32 = 2;
const FLAG_TOKEN: u32 = 4;

impl Note {
    /// The bytes.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = [0; NOTE_LEN];
        out[..4].copy_from_slice(&MAGIC);
        out[6..8].copy_from_slice(&VERSIONS.start().to_le_bytes());
        out[8..10].copy_from_slice(&VERSIONS.end().to_le_bytes());
        let mut put32 = |at: usize, value: u32| out[at..at + 4].copy_from_slice(&value.to_le_bytes());
        match self {
            Self::Setup(setup) => {
                let geometry = &setup.geometry;
                put32(24, geometry.slots as u32);
                put32(28, geometry.window as u32);
                put32(32, setup.bit);
                let membarrier = if setup.membarrier { FLAG_MEMBARRIER } else { 0 };
                let bell = if setup.bell { FLAG_BELL } else { 0 };
                put32(36, membarrier | bell | setup.token.map_or(0, |_| FLAG_TOKEN));
                put32(40, setup.segments_max);
                out[16..24].copy_from_slice(&(geometry.len() as u64).to_le_bytes());
                if let Some((at, token)) = &setup.token {
                    out[48..56].copy_from_slice(&at.to_le_bytes());
                    out[56..72].copy_from_slice(token);
                }
                out[4] = SETUP;
            }
            Self::Segment { id, len } => {
                put32(24, *id);
                out[16..24].copy_from_slice(&len.to_le_bytes());
                out[4] = SEGMENT;
            }
            Self::Gone { id } => {
                put32(24, *id);
                out[4] = GONE;
            }
            Self::Bell => out[4] = BELL,
        }
        out
    }

    /// The note in the bytes; `None` for one that this version does not know and may skip.
    ///
    /// # Errors
    /// Not a note, a version that is not spoken here, or sizes that are not allowed.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Option<Self>, TransportError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[..4] != MAGIC {
            return Err(broken("not a note of a shared-memory lane"));
        }
        let (oldest, newest) = (u16_at(6), u16_at(8));
        if oldest > *VERSIONS.end() || newest < *VERSIONS.start() {
            return Err(broken("shared-memory versions").hint(format!(
                "the peer speaks versions {oldest} to {newest}, this engine {} to {}; update the older one",
                VERSIONS.start(),
                VERSIONS.end()
            )));
        }
        let note = match bytes[4] {
            SETUP => {
                let geometry = Geometry::checked(u32_at(24) as usize, u32_at(28) as usize)
                    .ok_or_else(|| broken("sizes of the shared memory"))?;
                if u64_at(16) != geometry.len() as u64 {
                    return Err(broken("length of the shared memory"));
                }
                let flags = u32_at(36);
                let mut token = [0; TOKEN_LEN];
                token.copy_from_slice(&bytes[56..72]);
                Self::Setup(Setup {
                    geometry,
                    bit: u32_at(32),
                    membarrier: flags & FLAG_MEMBARRIER != 0,
                    bell: flags & FLAG_BELL != 0,
                    segments_max: u32_at(40),
                    token: (flags & FLAG_TOKEN != 0).then(|| (u64_at(48), token)),
                })
            }
            SEGMENT => Self::Segment { id: u32_at(24), len: u64_at(16) },
            GONE => Self::Gone { id: u32_at(24) },
            BELL => Self::Bell,
            _ => return Ok(None),
        };
        Ok(Some(note))
    }
}

/// The peer broke the protocol in this respect.
pub(crate) fn broken(what: &str) -> TransportError {
    TransportError::new(ErrorKind::Protocol, "shared-memory lane", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> Setup {
        let geometry = Geometry::checked(256, 0x44000).expect("allowed");
        Setup { geometry, bit: 7, membarrier: true, bell: true, segments_max: 64, token: None }
    }

    #[test]
    fn the_golden_bytes_of_a_setup_stay() {
        let bytes = Note::Setup(setup()).encode();
        let mut golden = [0; NOTE_LEN];
        golden[..16].copy_from_slice(&[b'S', b'N', b'S', b'M', 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        golden[16..24].copy_from_slice(&[0x00, 0x90, 0x04, 0, 0, 0, 0, 0]);
        golden[24..44].copy_from_slice(&[0, 1, 0, 0, 0, 0x40, 4, 0, 7, 0, 0, 0, 3, 0, 0, 0, 64, 0, 0, 0]);
        assert_eq!(bytes, golden);
        let token = Some((0x0011_2233_4455_6677, *b"sixteen bytes ok"));
        golden[36] |= 4;
        golden[48..56].copy_from_slice(&[0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00]);
        golden[56..72].copy_from_slice(b"sixteen bytes ok");
        let with_token = Note::Setup(Setup { token, ..setup() });
        assert_eq!(with_token.encode(), golden);
        assert_eq!(Note::decode(&golden), Ok(Some(with_token)));
    }

    #[test]
    fn every_note_survives_the_round_trip() {
        for note in
            [Note::Setup(setup()), Note::Segment { id: 3, len: 1 << 40 }, Note::Gone { id: 9 }, Note::Bell]
        {
            assert_eq!(Note::decode(&note.encode()), Ok(Some(note)));
        }
    }

    #[test]
    fn other_versions_say_both_and_unknown_kinds_are_skipped() {
        let mut bytes = Note::Bell.encode();
        bytes[4] = 200;
        assert_eq!(Note::decode(&bytes), Ok(None));
        bytes[6..10].copy_from_slice(&[5, 0, 9, 0]);
        let error = Note::decode(&bytes).expect_err("too new");
        assert!(error.hint.contains("5 to 9") && error.hint.contains("1 to 1"), "{error}");
    }

    #[test]
    fn sizes_that_are_not_allowed_are_refused() {
        for (at, byte) in [(24, 3), (27, 0xff), (28, 1), (31, 0xff), (16, 1)] {
            let mut bytes = Note::Setup(setup()).encode();
            bytes[at] = byte;
            assert!(Note::decode(&bytes).is_err(), "byte {at} = {byte}");
        }
    }
}
