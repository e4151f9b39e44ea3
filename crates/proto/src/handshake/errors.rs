//! Why a handshake ended without a lane.

use sinew_wire::hello::{HelloError, Mode, Reason, RecordKind, Refusal, Versions};
use std::fmt;

/// Why a handshake ended without a lane. The text names cause and remedy.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// What came is no record of this protocol, or makes no sense.
    Malformed(HelloError),
    /// A record that does not belong here.
    OutOfOrder {
        /// What should have come.
        expected: RecordKind,
        /// What came.
        found: RecordKind,
    },
    /// The own first record came back.
    Reflected,
    /// The engine reached itself.
    Myself,
    /// No wire version in common.
    OtherVersion {
        /// What this engine speaks.
        ours: Versions,
        /// What the peer speaks.
        theirs: Versions,
    },
    /// The peer proves itself in a way that is not accepted here.
    OtherMode {
        /// What is accepted here.
        ours: Mode,
        /// What the peer wants.
        theirs: Mode,
    },
    /// A feature that one side requires is not there on the other.
    MissingFeature {
        /// One bit each.
        missing: u64,
        /// It is missing here, not at the peer.
        here: bool,
    },
    /// The secrets differ, or the record was changed, replayed or made up.
    ProofFailed,
    /// A plain record does not repeat the nonce: a replay, or an answer to somebody else.
    NotFresh,
    /// The peer belongs to another domain.
    OtherDomain,
    /// Another engine than expected.
    UnknownEngine {
        /// Who was wanted.
        expected: [u8; 16],
        /// Who is there.
        found: [u8; 16],
    },
    /// The engine was restarted since its address was made.
    AnotherIncarnation {
        /// Which was wanted.
        expected: u64,
        /// Which is there.
        found: u64,
    },
    /// The peer takes the link for one of another session than it was asked for.
    OtherSession {
        /// The transport to which the wanted session is pinned; empty: the implicit session.
        asked: String,
        /// What the peer answered.
        answered: String,
    },
    /// The peer said no.
    Refused(Box<Refusal>),
    /// The peer is not vouched for by the link, and there is no secret.
    NothingToProveWith,
    /// The handshake had ended, or it is not this side's turn.
    Over,
    /// The cryptographic library failed in a way that no record explains.
    Crypto(String),
}

impl HandshakeError {
    /// What to tell the peer; `None` where nothing is to be told.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::Malformed(HelloError::NotARecord)
            | Self::Refused(_)
            | Self::Reflected
            | Self::NothingToProveWith
            | Self::Over => return None,
            Self::Malformed(_) | Self::OutOfOrder { .. } | Self::Crypto(_) | Self::OtherSession { .. } => {
                Reason::MALFORMED
            }
            Self::Myself => Reason::MYSELF,
            Self::OtherVersion { .. } => Reason::OTHER_VERSION,
            Self::OtherMode { .. } => Reason::OTHER_MODE,
            Self::MissingFeature { .. } => Reason::MISSING_FEATURE,
            Self::ProofFailed | Self::NotFresh => Reason::PROOF_FAILED,
            Self::OtherDomain => Reason::OTHER_DOMAIN,
            Self::UnknownEngine { .. } => Reason::UNKNOWN_ENGINE,
            Self::AnotherIncarnation { .. } => Reason::ANOTHER_INCARNATION,
        })
    }

    /// The text that goes to the peer: nothing about this engine that the peer does not know or need.
    pub(super) fn tell(&self) -> String {
        match self {
            Self::UnknownEngine { .. } => "another engine listens here".into(),
            Self::AnotherIncarnation { .. } => "the engine was restarted".into(),
            Self::OtherMode { ours, .. } => format!("here {ours} is accepted"),
            Self::OtherVersion { ours, .. } => format!("here version {ours} is spoken"),
            Self::MissingFeature { missing, here } => {
                format!("feature bits {missing:#x} are missing {}", if *here { "here" } else { "there" })
            }
            Self::Malformed(error) => error.to_string(),
            Self::OutOfOrder { expected, found } => format!("{found} came instead of {expected}"),
            Self::OtherSession { .. } => "the answer is for another session".into(),
            // Of a proof that fails a stranger learns nothing.
            _ => String::new(),
        }
    }

    /// Whether dialling again may succeed without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.reason.is_retryable())
    }
}

impl From<HelloError> for HandshakeError {
    fn from(error: HelloError) -> Self {
        // Under the secret a changed header shows as a failed proof before; plain, it is damage.
        Self::Malformed(error)
    }
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How people call a session.
fn session(pinned: &str) -> String {
    if pinned.is_empty() { "the implicit session".into() } else { format!("the session pinned to {pinned}") }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "not a valid record: {error}"),
            Self::OutOfOrder { expected, found } => {
                write!(f, "{found} came instead of {expected}: the peer broke the protocol")
            }
            Self::Reflected => f.write_str("the own record came back: something on the way echoes; check the address"),
            Self::Myself => f.write_str("the engine reached itself: check the address"),
            Self::OtherVersion { ours, theirs } => write!(
                f,
                "no wire version in common: this engine speaks {ours}, the peer {theirs}; update the older one"
            ),
            Self::OtherMode { ours, theirs } => write!(
                f,
                "the peer wants {theirs}, here {ours} is accepted: give both engines the same domain secret, or both none"
            ),
            Self::MissingFeature { missing, here: true } => {
                write!(f, "the peer requires feature bits {missing:#x}, which this version lacks; update it")
            }
            Self::MissingFeature { missing, here: false } => {
                write!(f, "the peer lacks feature bits {missing:#x}, which are required here; update it")
            }
            Self::ProofFailed => {
                f.write_str("proof failed: the domain secrets differ; give both engines the same one")
            }
            Self::NotFresh => f.write_str("proof failed: the answer was not to this attempt; try again"),
            Self::OtherDomain => {
                f.write_str("other domain: the peer's engine belongs to another domain; name the same one on both")
            }
            Self::UnknownEngine { expected, found } => write!(
                f,
                "unknown engine: {} was expected, {} is there; get a new address from the peer",
                hex(expected),
                hex(found)
            ),
            Self::AnotherIncarnation { expected, found } => write!(
                f,
                "another incarnation: {expected:x} was expected, {found:x} is there; the peer was restarted, get its new address"
            ),
            Self::OtherSession { asked, answered } => write!(
                f,
                "the peer broke the protocol: asked for {}, it answered for {}",
                session(asked),
                session(answered)
            ),
            Self::Refused(refusal) => write!(f, "refused by the peer: {refusal}{}", remedy(refusal.reason)),
            Self::NothingToProveWith => f.write_str(
                "no proof is possible: the link does not vouch for the peer and the domain has no secret; give it one",
            ),
            Self::Over => f.write_str("the handshake is over or not at this step"),
            Self::Crypto(text) => write!(f, "the cryptographic library failed: {text}"),
        }
    }
}

/// What the one who was refused can do.
const fn remedy(reason: Reason) -> &'static str {
    match reason {
        Reason::OTHER_DOMAIN => "; name the same domain on both",
        Reason::PROOF_FAILED | Reason::OTHER_MODE => "; give both engines the same domain secret",
        Reason::OTHER_VERSION | Reason::MISSING_FEATURE => "; update the older one",
        Reason::UNKNOWN_ENGINE | Reason::ANOTHER_INCARNATION => "; get a new address from the peer",
        Reason::FULL => "; try again later",
        _ => "",
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    fn refused(reason: Reason) -> HandshakeError {
        let (versions, modes, text) = (Versions::THIS, Mode::SECRET, "because".to_owned());
        HandshakeError::Refused(Box::new(Refusal { reason, versions, modes, text }))
    }

    /// Each error: what the peer is told, and a part of what people are told.
    fn all() -> Vec<(HandshakeError, &'static str, &'static str)> {
        let (ours, theirs) = (Versions { min: 3, max: 4 }, Versions { min: 1, max: 1 });
        let (expected, found) = ([0xab; 16], [0x0c; 16]);
        let other_session = HandshakeError::OtherSession { asked: String::new(), answered: "tcp".into() };
        vec![
            (HandshakeError::ProofFailed, "", "the domain secrets differ"),
            (HandshakeError::NotFresh, "", "not to this attempt"),
            (HandshakeError::OtherDomain, "", "other domain"),
            (HandshakeError::Over, "", "is over"),
            (
                HandshakeError::UnknownEngine { expected, found },
                "another engine listens here",
                "abababababababababababababababab was expected, 0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c is there",
            ),
            (
                HandshakeError::AnotherIncarnation { expected: 10, found: 11 },
                "the engine was restarted",
                "a was expected, b is there",
            ),
            (
                HandshakeError::OtherMode { ours: Mode::SECRET, theirs: Mode::PLAIN },
                "is accepted",
                "is accepted: give both engines the same domain secret",
            ),
            (
                HandshakeError::OtherVersion { ours, theirs },
                "here version 3 to 4 is spoken",
                "update the older one",
            ),
            (
                HandshakeError::MissingFeature { missing: 0x30, here: true },
                "feature bits 0x30 are missing here",
                "which this version lacks",
            ),
            (
                HandshakeError::MissingFeature { missing: 0x30, here: false },
                "feature bits 0x30 are missing there",
                "the peer lacks feature bits 0x30",
            ),
            (HandshakeError::Malformed(HelloError::NotARecord), "", "not a valid record"),
            (
                HandshakeError::OutOfOrder { expected: RecordKind::FIRST, found: RecordKind::THIRD },
                " came instead of ",
                "the peer broke the protocol",
            ),
            (
                other_session,
                "the answer is for another session",
                "asked for the implicit session, it answered for the session pinned to tcp",
            ),
        ]
    }

    #[test]
    fn the_peer_is_told_what_it_needs_and_people_what_to_do() {
        for (error, told, shown) in all() {
            assert!(error.tell().contains(told), "{error:?} tells {:?}", error.tell());
            let tells = !told.is_empty() || matches!(error, HandshakeError::Malformed(_));
            assert_eq!(error.tell().is_empty(), !tells, "{error:?} tells {:?}", error.tell());
            assert!(error.to_string().contains(shown), "{error}");
            assert!(!error.is_retryable(), "{error:?}");
            assert_eq!(error.source().is_some(), matches!(error, HandshakeError::Malformed(_)));
        }
    }

    #[test]
    fn one_who_is_refused_hears_what_to_do() {
        let remedies = [
            (Reason::OTHER_DOMAIN, "; name the same domain on both"),
            (Reason::PROOF_FAILED, "; give both engines the same domain secret"),
            (Reason::OTHER_MODE, "; give both engines the same domain secret"),
            (Reason::OTHER_VERSION, "; update the older one"),
            (Reason::MISSING_FEATURE, "; update the older one"),
            (Reason::UNKNOWN_ENGINE, "; get a new address from the peer"),
            (Reason::ANOTHER_INCARNATION, "; get a new address from the peer"),
            (Reason::FULL, "; try again later"),
        ];
        for (reason, remedy) in remedies {
            let text = refused(reason).to_string();
            assert!(text.starts_with("refused by the peer: ") && text.ends_with(remedy), "{text}");
        }
        assert!(!refused(Reason::MYSELF).to_string().contains(';'));
        assert!(refused(Reason::FULL).is_retryable() && !refused(Reason::OTHER_DOMAIN).is_retryable());
    }
}
