//! The records by which two engines introduce and prove themselves on a fresh link. `docs/wire/hello.md` describes every byte.
//!
//! Called by `proto`'s handshake. Each record has [`RECORD_LEN`] bytes: a clear [`Header`] whose form never changes, so that
//! engines of any two versions can at least tell each other their versions, and a body by [`RecordKind`] and [`Mode`].
//! Integers are little endian.

mod content;
mod refusal;

pub use content::{
    Credits, HELLO_LEN, Hello, LOCATORS_MAX, PART_LOCATORS, PART_PINNED, PART_REQUIRED, PINNED_MAX,
    is_transport_name,
};
pub use refusal::{REFUSAL_TEXT_MAX, Reason, Refusal};

use core::fmt;

/// Bytes of a record. Fixed, so that no peer chooses an allocation.
pub const RECORD_LEN: usize = 512;

/// One record.
pub type Record = [u8; RECORD_LEN];

/// The first bytes of every record.
pub const MAGIC: [u8; 8] = *b"SINEWHEL";

/// Bytes of the clear header; the body follows.
pub const HEADER_LEN: usize = 32;

/// Bytes of the body.
pub const BODY_LEN: usize = RECORD_LEN - HEADER_LEN;

/// What the encrypted (or plain) content repeats of the clear header, so that nobody changes it on the way.
pub const ECHO_LEN: usize = 24;

const ECHO_AT: usize = 8;

/// What a record is for. A newtype: a peer may send any number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordKind(pub u8);

impl RecordKind {
    /// Dialer to acceptor: who is there, for whom.
    pub const FIRST: Self = Self(1);
    /// Acceptor to dialer: who answers.
    pub const SECOND: Self = Self(2);
    /// Dialer to acceptor: proves that the first was no replay.
    pub const THIRD: Self = Self(3);
    /// Either: no, and why; the link ends.
    pub const REFUSAL: Self = Self(4);
}

impl fmt::Debug for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FIRST => f.write_str("first record"),
            Self::SECOND => f.write_str("second record"),
            Self::THIRD => f.write_str("third record"),
            Self::REFUSAL => f.write_str("refusal"),
            Self(other) => write!(f, "record of unknown kind {other}"),
        }
    }
}

/// How a link is proven; in a refusal, the union of what the refuser would take.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mode(pub u8);

impl Mode {
    /// `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` with the domain's secret.
    pub const SECRET: Self = Self(1);
    /// Clear records: the link itself vouches for the same user, or the domain is open by choice.
    pub const PLAIN: Self = Self(2);

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("nothing"),
            1 => f.write_str("proof by secret"),
            2 => f.write_str("plain"),
            3 => f.write_str("proof by secret or plain"),
            other => write!(f, "unknown mode {other}"),
        }
    }
}

/// A range of wire versions, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Versions {
    /// The oldest that is spoken.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl Versions {
    /// What this build speaks.
    pub const THIS: Self = Self { min: 1, max: 1 };

    /// The newest version that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.max)
        } else {
            write!(f, "{} to {}", self.min, self.max)
        }
    }
}

/// Optional features, a bit each: which kinds of frames the sender of a record takes beside those that all take. A sender uses those
/// that both sides have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Features(pub u64);

impl Features {
    /// Several short messages in a frame: `BUNDLE`.
    pub const BUNDLES: Self = Self(1);
    /// Several lanes of one transport that carry long messages together: `STRIPE`, `LANES`, the flag `resumes` of a hello.
    pub const STRIPES: Self = Self(2);
    /// The beginning of a long message behind its envelope: `PUSH`.
    pub const PUSHES: Self = Self(4);
    /// What this build has.
    pub const THIS: Self = Self(Self::BUNDLES.0 | Self::STRIPES.0 | Self::PUSHES.0);

    /// Whether all of `other` is in it.
    #[must_use]
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What is clear in every record, of every version, for ever.
///
/// ```text
/// 0 "SINEWHEL"  8 u8 kind  9 u8 mode  10 u16 version min  12 u16 version max  14 u16 zero  16 u64 features  24 u64 required
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the record is for.
    pub kind: RecordKind,
    /// How the link is to be proven.
    pub mode: Mode,
    /// What the sender speaks.
    pub versions: Versions,
    /// Optional features that the sender has ([`Features`]), one bit each; those that both have are used.
    pub features: u64,
    /// Those of them without which the sender does not go on.
    pub required: u64,
}

impl Header {
    /// An empty record that starts with this header.
    #[must_use]
    pub fn record(&self) -> Record {
        let mut record = [0; RECORD_LEN];
        record[..8].copy_from_slice(&MAGIC);
        record[8] = self.kind.0;
        record[9] = self.mode.0;
        record[10..12].copy_from_slice(&self.versions.min.to_le_bytes());
        record[12..14].copy_from_slice(&self.versions.max.to_le_bytes());
        record[16..24].copy_from_slice(&self.features.to_le_bytes());
        record[24..32].copy_from_slice(&self.required.to_le_bytes());
        record
    }

    /// Reads the header of a record.
    ///
    /// # Errors
    /// [`HelloError::NotARecord`] and [`HelloError::EmptyVersions`].
    pub fn read(record: &Record) -> Result<Self, HelloError> {
        if record[..8] != MAGIC {
            return Err(HelloError::NotARecord);
        }
        let versions =
            Versions { min: u16::from_le_bytes(take(record, 10)), max: u16::from_le_bytes(take(record, 12)) };
        if versions.min > versions.max {
            return Err(HelloError::EmptyVersions { versions });
        }
        Ok(Self {
            kind: RecordKind(record[8]),
            mode: Mode(record[9]),
            versions,
            features: u64::from_le_bytes(take(record, 16)),
            required: u64::from_le_bytes(take(record, 24)),
        })
    }
}

/// The clear header's bytes that the content repeats.
#[must_use]
pub fn echo(record: &Record) -> [u8; ECHO_LEN] {
    take(record, ECHO_AT)
}

/// The body of a record.
#[must_use]
pub fn body(record: &Record) -> &[u8; BODY_LEN] {
    record.last_chunk().unwrap_or(&[0; BODY_LEN])
}

/// The body of a record, to be written.
#[must_use]
pub fn body_mut(record: &mut Record) -> &mut [u8] {
    &mut record[HEADER_LEN..]
}

/// `N` bytes of a longer array; zeros beyond its end, which no caller here asks for.
fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// Why bytes are no record of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HelloError {
    /// It does not start with the magic.
    NotARecord,
    /// The oldest version is newer than the newest.
    EmptyVersions {
        /// As found.
        versions: Versions,
    },
    /// The content repeats another header than the record has.
    EchoDiffers,
    /// The engine's identity is all zero.
    NoEngine,
    /// A part of the content runs beyond its end.
    PartTooLong {
        /// Offset of the part in the content.
        at: usize,
    },
    /// A part that must be understood is not known here.
    UnknownPart {
        /// Its type.
        part: u8,
    },
    /// The locators are longer than allowed or not printable ASCII.
    BadLocators,
    /// What the session is pinned to is no name of a transport, or is said twice.
    BadTransportName,
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecord => f.write_str("it does not start as a Sinew record: something else is there"),
            Self::EmptyVersions { versions } => {
                write!(f, "its range of versions is empty ({} > {})", versions.min, versions.max)
            }
            Self::EchoDiffers => f.write_str("its clear part was changed on the way"),
            Self::NoEngine => f.write_str("the engine's identity is zero"),
            Self::PartTooLong { at } => write!(f, "the part at byte {at} runs beyond the end"),
            Self::UnknownPart { part } => {
                write!(f, "part {part:#04x} must be understood and is not known: the peer is newer")
            }
            Self::BadLocators => {
                write!(f, "locators are at most {LOCATORS_MAX} printable ASCII characters and spaces")
            }
            Self::BadTransportName => write!(
                f,
                "the transport that the session is pinned to is named once, by 1 to {PINNED_MAX} characters of a-z, 0-9, + and -"
            ),
        }
    }
}

impl core::error::Error for HelloError {}

#[cfg(test)]
mod tests;
