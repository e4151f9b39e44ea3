//! What a receive asks for and what it answers.

use std::fmt;
use std::hash::{Hash, Hasher};

/// Which messages a receive takes: tag, bits of the tag that do not matter, and who sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Match {
    pub(crate) tag: u64,
    pub(crate) ignore: u64,
    pub(crate) source: Option<Source>,
    pub(crate) untagged: bool,
}

impl Match {
    /// Messages with exactly this tag, from anybody.
    #[must_use]
    pub const fn tag(tag: u64) -> Self {
        Self { tag, ignore: 0, source: None, untagged: false }
    }

    /// Messages with any tag, from anybody.
    #[must_use]
    pub const fn any_tag() -> Self {
        Self { tag: 0, ignore: u64::MAX, source: None, untagged: false }
    }

    /// Messages that were sent untagged.
    #[must_use]
    pub const fn untagged() -> Self {
        Self { tag: 0, ignore: u64::MAX, source: None, untagged: true }
    }

    /// The same, but bits set in `mask` may differ from the tag.
    #[must_use]
    pub const fn ignoring(mut self, mask: u64) -> Self {
        self.ignore = mask;
        self
    }

    /// The same, but from this endpoint only, whichever session its messages come on.
    #[must_use]
    pub const fn from(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }
}

impl From<u64> for Match {
    fn from(tag: u64) -> Self {
        Self::tag(tag)
    }
}

/// An endpoint of a peer, as seen from this engine.
///
/// It is the same endpoint whichever session a message came on: the implicit one, or one that is pinned to a transport (see
/// [`crate::Endpoint::connect`]). So sources of both are equal, and a receive that names one takes messages of all. Messages of
/// one session come in the order in which they were sent; those of two sessions have no order among them. An answer
/// ([`crate::Endpoint::reply_to`]) goes on the session on which this message came.
///
/// Valid while a session with the peer's engine lives. When none is left, receives that name it end with
/// [`crate::OpError::PeerLost`], and what the engine sends after connecting anew has another source.
#[derive(Clone, Copy)]
pub struct Source {
    /// The session on which the message came.
    pub(crate) session: u64,
    /// The engine's number in the upper half, the endpoint's in the lower: what a source is compared by.
    pub(crate) key: u64,
}

impl Source {
    pub(crate) const fn new(session: u64, engine: u32, endpoint: u32) -> Self {
        Self { session, key: (engine as u64) << 32 | endpoint as u64 }
    }

    /// The receiving engine's name of the session, for those who check sessions in tests.
    #[doc(hidden)]
    #[must_use]
    pub const fn session(&self) -> u64 {
        self.session
    }

    /// The endpoint's number in the peer's engine.
    #[must_use]
    pub const fn endpoint(&self) -> u32 {
        self.key as u32
    }

    /// What stands for the peer's engine while a session with it lives.
    pub(crate) const fn engine(&self) -> u32 {
        (self.key >> 32) as u32
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Source {}

impl Hash for Source {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine {} endpoint {}", self.engine(), self.endpoint())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A message that has been received, or is waiting to be ([`crate::Endpoint::probe`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// Bytes of the message: exactly what was sent.
    pub len: usize,
    /// Its tag; 0 for an untagged one.
    pub tag: u64,
    /// 64 bits beside the payload, if the sender gave them.
    pub immediate: Option<u64>,
    /// Who sent it.
    pub source: Source,
}
