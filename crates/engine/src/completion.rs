//! What a receive asks for and what it answers.

use std::fmt;

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

    /// The same, but from this endpoint only.
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

/// An endpoint of a peer, as seen from this engine: valid while the session with that peer lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    pub(crate) session: u64,
    pub(crate) endpoint: u32,
}

impl Source {
    /// The endpoint's number in the peer's engine.
    #[must_use]
    pub const fn endpoint(&self) -> u32 {
        self.endpoint
    }

    /// One key for both halves: the session's slot and the endpoint. Sessions are fenced for ever, and a slot is reused
    /// only after its receives have ended.
    pub(crate) const fn key(&self) -> u64 {
        (self.session & 0xffff_ffff) << 32 | self.endpoint as u64
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} endpoint {}", self.session & 0xffff_ffff, self.endpoint)
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
