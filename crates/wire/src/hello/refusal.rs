//! The record that says no, and why.

use super::{Header, Mode, Record, RecordKind, Versions, body, body_mut, take};
use core::fmt;

/// Longest text of a refusal, in bytes.
pub const REFUSAL_TEXT_MAX: usize = 200;

/// Why a link was refused. A newtype: a peer may send any number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u16);

impl Reason {
    /// The engines belong to different domains.
    pub const OTHER_DOMAIN: Self = Self(1);
    /// The proof failed; nothing more is told.
    pub const PROOF_FAILED: Self = Self(2);
    /// No version in common.
    pub const OTHER_VERSION: Self = Self(3);
    /// The dialer expected another engine.
    pub const UNKNOWN_ENGINE: Self = Self(4);
    /// The engine was restarted since the address was made.
    pub const ANOTHER_INCARNATION: Self = Self(5);
    /// No room for another link or session now: try again later.
    pub const FULL: Self = Self(6);
    /// The way of proving is not accepted here; the refusal's mode says which are.
    pub const OTHER_MODE: Self = Self(7);
    /// The peer lacks a feature that is required.
    pub const MISSING_FEATURE: Self = Self(8);
    /// The record made no sense.
    pub const MALFORMED: Self = Self(9);
    /// The session between these two incarnations has ended for ever.
    pub const FENCED: Self = Self(10);
    /// The engine is closing.
    pub const CLOSING: Self = Self(11);
    /// An engine reached itself.
    pub const MYSELF: Self = Self(12);
    /// The session is pinned to another transport than that of the link.
    pub const OTHER_TRANSPORT: Self = Self(13);

    /// Whether the same attempt may succeed later without anybody changing anything.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::FULL)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::OTHER_DOMAIN => "other domain",
            Self::PROOF_FAILED => "proof failed",
            Self::OTHER_VERSION => "other version",
            Self::UNKNOWN_ENGINE => "unknown engine",
            Self::ANOTHER_INCARNATION => "another incarnation",
            Self::FULL => "full",
            Self::OTHER_MODE => "other security mode",
            Self::MISSING_FEATURE => "missing feature",
            Self::MALFORMED => "malformed record",
            Self::FENCED => "session has ended",
            Self::CLOSING => "closing",
            Self::MYSELF => "an engine reached itself",
            Self::OTHER_TRANSPORT => "pinned to another transport",
            Self(other) => return write!(f, "Unknown({other:#06x})"),
        })
    }
}

/// No, and why. Not authenticated: whoever sits on the way can forge one, as they could cut the link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The class.
    pub reason: Reason,
    /// What the refuser speaks.
    pub versions: Versions,
    /// Which ways of proving the refuser would take.
    pub modes: Mode,
    /// For people: printable ASCII, at most [`REFUSAL_TEXT_MAX`] bytes; what does not fit is cut, other characters
    /// become `?`.
    pub text: String,
}

impl Refusal {
    /// The record: after the header u16 reason, u8 text length, u8 zero, text.
    #[must_use]
    pub fn encode(&self) -> Record {
        let header = Header {
            kind: RecordKind::REFUSAL,
            mode: self.modes,
            versions: self.versions,
            features: 0,
            required: 0,
        };
        let mut record = header.record();
        let body = body_mut(&mut record);
        body[..2].copy_from_slice(&self.reason.0.to_le_bytes());
        let text = printable(self.text.as_bytes());
        body[2] = text.len() as u8;
        body[4..4 + text.len()].copy_from_slice(text.as_bytes());
        record
    }

    /// Reads a refusal; its header was read before. Never fails: a refusal that is damaged is still one.
    #[must_use]
    pub fn decode(header: &Header, record: &Record) -> Self {
        let body = body(record);
        let len = usize::from(body[2]).min(REFUSAL_TEXT_MAX);
        Self {
            reason: Reason(u16::from_le_bytes(take(body, 0))),
            versions: header.versions,
            modes: header.mode,
            text: printable(&body[4..4 + len]),
        }
    }
}

fn printable(text: &[u8]) -> String {
    let plain = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '?' };
    text.iter().take(REFUSAL_TEXT_MAX).map(plain).collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        write!(f, " (it speaks version {} and takes {})", self.versions, self.modes)
    }
}
