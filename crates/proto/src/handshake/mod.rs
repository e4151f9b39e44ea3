//! The mutual proof on a link, before anything else of a peer is interpreted: three fixed-size records.
//!
//! Called by the engine for each link that it dials or accepts. No I/O, no clock, no
//! randomness of its own; nothing is allocated by a size that the peer says.
//!
//! # Order of use
//! Dialer: [`Handshake::dialer`] gives the first record; [`Handshake::handle`] of the answer gives
//! [`Step::SendAndDone`]. Acceptor: [`Handshake::acceptor`]; `handle` of the first record gives [`Step::Introduced`]; the
//! engine decides and calls [`Handshake::answer`] (or [`Handshake::refuse`]) and sends the result; `handle` of the third record
//! gives [`Step::Done`]. After an error send what [`Handshake::refusal_for`] returns, if anything, and close the link.
//!
//! # What is proven
//! With a secret (`Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s`): both know it, neither record is a replay, nothing was changed on
//! the way, and what the records say is hidden. The secret should have at least 128 bits of randomness: whoever sees the first
//! record can try guesses at leisure. Without one ([`Trust::plain`]): only that somebody answers *now*; who, must be
//! known from the link itself. What an acceptor learns before [`Step::Done`] may be a replay: decide by it, change nothing.

mod errors;
mod session;

#[cfg(test)]
mod tests;

pub use errors::HandshakeError;
pub use session::{Secret, domain_hash};

use session::{Session, Side};
use sinew_wire::hello::{Header, Hello, Mode, Reason, Record, RecordKind, Refusal, Versions};

/// Bytes of randomness that one handshake needs. From the system's generator, never used twice.
pub type Entropy = [u8; 32];

/// Which proofs are accepted on a link.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The domain's secret, if it has one.
    pub secret: Option<Secret>,
    /// No proof by secret is needed: the kernel vouches on this link that the peer is the same user, or the domain was
    /// declared open.
    pub plain: bool,
}

impl Trust {
    /// The ways of proving that are accepted.
    #[must_use]
    pub fn modes(&self) -> Mode {
        let secret = if self.secret.is_some() { Mode::SECRET } else { Mode(0) };
        if self.plain { secret.with(Mode::PLAIN) } else { secret }
    }
}

/// Who this engine is, for a handshake.
#[derive(Clone, Debug)]
pub struct Config {
    /// The engine's identity.
    pub engine: [u8; 16],
    /// Its incarnation.
    pub incarnation: u64,
    /// [`domain_hash`] of the domain's name.
    pub domain: [u8; 32],
    /// What is accepted on this link.
    pub trust: Trust,
    /// Wire versions that are spoken; [`Versions::THIS`] but in tests.
    pub versions: Versions,
    /// Features that are offered.
    pub features: u64,
    /// Those of them that the peer must have.
    pub required: u64,
}

impl Config {
    fn header(&self, kind: RecordKind, mode: Mode) -> Header {
        let Self { versions, features, required, .. } = *self;
        Header { kind, mode, versions, features, required }
    }

    fn sign(&self, hello: Hello) -> Hello {
        Hello { engine: self.engine, incarnation: self.incarnation, domain: self.domain, ..hello }
    }
}

/// How a peer was proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// It knows the domain's secret.
    Secret,
    /// By the link alone.
    Plain,
}

/// Who is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerHello {
    /// What it says about itself; engine and domain are checked.
    pub hello: Hello,
    /// The wire version to speak.
    pub version: u16,
    /// Features that both have.
    pub features: u64,
    /// How it was proven.
    pub proof: Proof,
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Acceptor: somebody wants in. Call [`Handshake::answer`] with the same `pinned`, or [`Handshake::refuse`]. Not proven
    /// to be fresh yet.
    Introduced(Box<PeerHello>),
    /// Dialer: send this record, then the link can become a lane.
    SendAndDone(Box<Record>, Box<PeerHello>),
    /// Acceptor: the link can become a lane.
    Done(Box<PeerHello>),
}

enum State {
    /// Dialer sent the first record.
    Dialed {
        first: Box<Record>,
        expected: Expected,
        /// The transport to which the session is pinned; empty: the implicit session.
        pinned: String,
        session: Session,
    },
    /// Acceptor waits for the first record.
    Listening {
        entropy: Entropy,
    },
    /// Acceptor was told who is there and has to answer.
    Deciding {
        peer: Box<PeerHello>,
        session: Session,
    },
    /// Acceptor answered.
    Answered {
        peer: Box<PeerHello>,
        session: Session,
    },
    Over,
}

/// Whom the dialer wants; zeros: anybody.
#[derive(Clone, Copy)]
struct Expected {
    engine: [u8; 16],
    incarnation: u64,
}

impl Expected {
    fn check(&self, engine: [u8; 16], incarnation: u64) -> Result<(), HandshakeError> {
        if self.engine != [0; 16] && self.engine != engine {
            return Err(HandshakeError::UnknownEngine { expected: self.engine, found: engine });
        }
        if self.incarnation != 0 && self.incarnation != incarnation {
            return Err(HandshakeError::AnotherIncarnation {
                expected: self.incarnation,
                found: incarnation,
            });
        }
        Ok(())
    }
}

/// One handshake on one link. `Send`; used by one thread at a time.
pub struct Handshake {
    config: Config,
    state: State,
}

impl Handshake {
    /// Starts as the one who dialled. `hello` is what to say; engine, incarnation and domain are filled in from `config`. A
    /// peer other than `hello.expected_engine`, or one that answers for another session than the one of `hello.pinned`, is an
    /// error. A link that vouches for itself ([`Trust::plain`]) is not proven
    /// by secret as well; if the acceptor sees that otherwise, its refusal's modes say so, and the engine may dial again
    /// with `plain` off.
    ///
    /// # Errors
    /// [`HandshakeError::NothingToProveWith`] when `config.trust` accepts nothing.
    pub fn dialer(config: Config, hello: Hello, entropy: Entropy) -> Result<(Self, Record), HandshakeError> {
        let mode = match (config.trust.plain, &config.trust.secret) {
            (true, _) => Mode::PLAIN,
            (false, Some(_)) => Mode::SECRET,
            (false, None) => return Err(HandshakeError::NothingToProveWith),
        };
        let expected = Expected { engine: hello.expected_engine, incarnation: hello.expected_incarnation };
        let mut record = config.header(RecordKind::FIRST, mode).record();
        let mut session = Session::start(&config, mode, &record, entropy, Side::Dialer)?;
        let pinned = hello.pinned.clone();
        session.write(&mut record, &config.sign(hello))?;
        let state = State::Dialed { first: Box::new(record), expected, pinned, session };
        Ok((Self { config, state }, record))
    }

    /// Starts as the one who accepted.
    #[must_use]
    pub const fn acceptor(config: Config, entropy: Entropy) -> Self {
        Self { config, state: State::Listening { entropy } }
    }

    /// Takes a record of the peer. After an error the handshake is over.
    ///
    /// # Errors
    /// [`HandshakeError`]; tell the peer by [`Handshake::refusal_for`].
    pub fn handle(&mut self, record: &Record) -> Result<Step, HandshakeError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Listening { entropy } => self.handle_first(record, entropy),
            State::Dialed { first, expected, pinned, session } => {
                if *record == *first {
                    return Err(HandshakeError::Reflected);
                }
                self.handle_second(record, expected, pinned, session)
            }
            State::Answered { peer, session } => self.handle_third(record, peer, session),
            State::Deciding { .. } | State::Over => Err(HandshakeError::Over),
        }
    }

    fn handle_first(&mut self, record: &Record, entropy: Entropy) -> Result<Step, HandshakeError> {
        let header = self.read_header(record, RecordKind::FIRST)?;
        let known = header.mode == Mode::SECRET || header.mode == Mode::PLAIN;
        if !known || !self.config.trust.modes().contains(header.mode) {
            return Err(HandshakeError::OtherMode { ours: self.config.trust.modes(), theirs: header.mode });
        }
        let mut session = Session::start(&self.config, header.mode, record, entropy, Side::Acceptor)?;
        let peer = self.introduce(&header, record, &mut session)?;
        let expected =
            Expected { engine: peer.hello.expected_engine, incarnation: peer.hello.expected_incarnation };
        expected.check(self.config.engine, self.config.incarnation)?;
        self.state = State::Deciding { peer: peer.clone(), session };
        Ok(Step::Introduced(peer))
    }

    fn handle_second(
        &self,
        record: &Record,
        expected: Expected,
        pinned: String,
        mut session: Session,
    ) -> Result<Step, HandshakeError> {
        let header = self.read_header(record, RecordKind::SECOND)?;
        if header.mode != session.mode() {
            return Err(HandshakeError::OtherMode { ours: session.mode(), theirs: header.mode });
        }
        let peer = self.introduce(&header, record, &mut session)?;
        expected.check(peer.hello.engine, peer.hello.incarnation)?;
        if peer.hello.pinned != pinned {
            return Err(HandshakeError::OtherSession { asked: pinned, answered: peer.hello.pinned });
        }
        let mut third = self.config.header(RecordKind::THIRD, session.mode()).record();
        session.write_confirmation(&mut third)?;
        Ok(Step::SendAndDone(Box::new(third), peer))
    }

    fn handle_third(
        &self,
        record: &Record,
        peer: Box<PeerHello>,
        mut session: Session,
    ) -> Result<Step, HandshakeError> {
        let header = self.read_header(record, RecordKind::THIRD)?;
        if header.mode != session.mode() {
            return Err(HandshakeError::OtherMode { ours: session.mode(), theirs: header.mode });
        }
        session.read_confirmation(record)?;
        Ok(Step::Done(peer))
    }

    /// After [`Step::Introduced`]: the second record, to be sent. Engine, incarnation and domain are filled in.
    ///
    /// # Errors
    /// [`HandshakeError::Over`] when there is nothing to answer.
    pub fn answer(&mut self, hello: Hello) -> Result<Record, HandshakeError> {
        let State::Deciding { peer, mut session } = std::mem::replace(&mut self.state, State::Over) else {
            return Err(HandshakeError::Over);
        };
        let mut record = self.config.header(RecordKind::SECOND, session.mode()).record();
        session.write(&mut record, &self.config.sign(hello))?;
        self.state = State::Answered { peer, session };
        Ok(record)
    }

    /// A record that tells the peer no; send it and close the link. The handshake is over.
    pub fn refuse(&mut self, reason: Reason, text: impl Into<String>) -> Record {
        self.state = State::Over;
        let (versions, modes) = (self.config.versions, self.config.trust.modes());
        Refusal { reason, versions, modes, text: text.into() }.encode()
    }

    /// What to send before closing after an error of [`Handshake::handle`]. `None`: nothing, as to somebody who does not
    /// speak this protocol, or who has refused.
    pub fn refusal_for(&mut self, error: &HandshakeError) -> Option<Record> {
        error.reason().map(|reason| self.refuse(reason, error.tell()))
    }

    /// What holds for each record, whatever its kind.
    fn read_header(&self, record: &Record, kind: RecordKind) -> Result<Header, HandshakeError> {
        let header = Header::read(record)?;
        if header.kind == RecordKind::REFUSAL {
            return Err(HandshakeError::Refused(Box::new(Refusal::decode(&header, record))));
        }
        if self.config.versions.common(header.versions).is_none() {
            return Err(HandshakeError::OtherVersion { ours: self.config.versions, theirs: header.versions });
        }
        if header.kind != kind {
            return Err(HandshakeError::OutOfOrder { expected: kind, found: header.kind });
        }
        let missing = header.required & !self.config.features;
        if missing != 0 {
            return Err(HandshakeError::MissingFeature { missing, here: true });
        }
        let missing = self.config.required & !header.features;
        if missing != 0 {
            return Err(HandshakeError::MissingFeature { missing, here: false });
        }
        Ok(header)
    }

    /// Reads who the peer is, and checks what does not depend on the role.
    fn introduce(
        &self,
        header: &Header,
        record: &Record,
        session: &mut Session,
    ) -> Result<Box<PeerHello>, HandshakeError> {
        let content = session.read(record)?;
        let hello = Hello::decode(&content, record)?;
        if hello.domain != self.config.domain {
            return Err(HandshakeError::OtherDomain);
        }
        if hello.engine == self.config.engine {
            return Err(HandshakeError::Myself);
        }
        let version = self.config.versions.common(header.versions).unwrap_or(self.config.versions.max);
        let features = self.config.features & header.features;
        let proof = if session.mode() == Mode::SECRET { Proof::Secret } else { Proof::Plain };
        Ok(Box::new(PeerHello { hello, version, features, proof }))
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Dialed { .. } => "dialed",
            State::Listening { .. } => "listening",
            State::Deciding { .. } => "deciding",
            State::Answered { .. } => "answered",
            State::Over => "over",
        };
        f.debug_struct("Handshake").field("state", &state).finish_non_exhaustive()
    }
}
