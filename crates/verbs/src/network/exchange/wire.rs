//! The bytes of the exchange: the greeting, the record, the proof. `docs/wire/exchange.md` describes every one.
//!
//! Called by the connection. It allocates nothing, and judges only what the bytes can say by themselves.

use blake2::digest::{FixedOutput, KeyInit, Mac, Update};
use blake2::{Blake2s256, Blake2sMac256, Digest};

/// Length of a greeting.
pub(super) const GREETING_LEN: usize = 32;
/// Length of a record, its proof included.
pub(super) const RECORD_LEN: usize = 128;
const PROOF_AT: usize = 96;
const MAGIC: [u8; 8] = *b"SINEWNET";
/// The version of the wire that this code speaks.
pub(super) const VERSION: u8 = 1;

/// The first bytes of each side: not yet proven, told to be of this protocol, and a number used once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Greeting {
    pub(super) version_min: u8,
    pub(super) version_max: u8,
    pub(super) mode: Mode,
    /// Zeros of this version; kept, because the proof is over the bytes that were sent.
    reserved: [u8; 5],
    pub(super) nonce: [u8; 16],
}

/// Whether a side has a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Secret,
    Open,
    Unknown(u8),
}

impl Mode {
    const fn code(self) -> u8 {
        match self {
            Self::Secret => 1,
            Self::Open => 2,
            Self::Unknown(code) => code,
        }
    }
}

/// Bytes that are none of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Garbage(pub(super) &'static str);

impl Greeting {
    pub(super) const fn new(mode: Mode, nonce: [u8; 16]) -> Self {
        Self { version_min: VERSION, version_max: VERSION, mode, reserved: [0; 5], nonce }
    }

    pub(super) fn to_bytes(self) -> [u8; GREETING_LEN] {
        let mut bytes = [0; GREETING_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = self.version_min;
        bytes[9] = self.version_max;
        bytes[10] = self.mode.code();
        bytes[11..16].copy_from_slice(&self.reserved);
        bytes[16..].copy_from_slice(&self.nonce);
        bytes
    }

    /// Unknown modes and versions are told, not refused: the other side is to say what it is.
    pub(super) fn from_bytes(bytes: &[u8; GREETING_LEN]) -> Result<Self, Garbage> {
        if bytes[..8] != MAGIC {
            return Err(Garbage("no magic"));
        }
        let mode = match bytes[10] {
            1 => Mode::Secret,
            2 => Mode::Open,
            code => Mode::Unknown(code),
        };
        let mut greeting = Self { version_min: bytes[8], version_max: bytes[9], ..Self::new(mode, [0; 16]) };
        greeting.reserved.copy_from_slice(&bytes[11..16]);
        greeting.nonce.copy_from_slice(&bytes[16..]);
        Ok(greeting)
    }
}

/// What a record is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Who the sender is, and of what length and digest its value for the receiver.
    Hello,
    /// The sender has the receiver's value, whole.
    Done,
    /// The sender goes no further.
    Refusal(Reason),
}

/// Why a side goes no further.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// It belongs to another job.
    OtherJob,
    /// Its job has another number of ranks.
    OtherWorldSize,
    /// It is not the rank that was wanted.
    NotThatRank,
    /// It has heard the sender's rank from another process.
    RankTaken,
    /// It is in another round of exchanges.
    OtherRound,
    /// The value is longer than it takes.
    TooLarge,
    /// The proof of the secret is wrong.
    Proof,
    /// Bytes that make no sense.
    Malformed,
    /// One that this version does not know.
    Unknown(u8),
}

impl Reason {
    const TABLE: [(Self, u8); 8] = [
        (Self::OtherJob, 1),
        (Self::OtherWorldSize, 2),
        (Self::NotThatRank, 3),
        (Self::RankTaken, 4),
        (Self::OtherRound, 5),
        (Self::TooLarge, 6),
        (Self::Proof, 7),
        (Self::Malformed, 8),
    ];

    fn code(self) -> u8 {
        match self {
            Self::Unknown(code) => code,
            known => Self::TABLE.iter().find(|(reason, _)| *reason == known).map_or(0, |(_, code)| *code),
        }
    }

    fn from_code(code: u8) -> Self {
        Self::TABLE
            .iter()
            .find(|(_, known)| *known == code)
            .map_or(Self::Unknown(code), |(reason, _)| *reason)
    }
}

/// All fields of a record but the proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) world_size: u32,
    /// The sender.
    pub(super) rank: u32,
    /// Whom the sender takes the receiver for.
    pub(super) peer: u32,
    pub(super) value_len: u32,
    /// Which exchange of this job it is, from 1.
    pub(super) round: u32,
    pub(super) job: [u8; 32],
    /// Of the sending process, random.
    pub(super) incarnation: u64,
    pub(super) value_digest: [u8; 32],
}

impl Record {
    fn body(&self) -> [u8; PROOF_AT] {
        let mut bytes = [0; PROOF_AT];
        (bytes[0], bytes[1]) = match self.kind {
            Kind::Hello => (1, 0),
            Kind::Done => (2, 0),
            Kind::Refusal(reason) => (3, reason.code()),
        };
        let numbers = [self.world_size, self.rank, self.peer, self.value_len, self.round];
        for (at, number) in numbers.into_iter().enumerate() {
            bytes[4 + 4 * at..][..4].copy_from_slice(&number.to_le_bytes());
        }
        bytes[24..56].copy_from_slice(&self.job);
        bytes[56..64].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[64..96].copy_from_slice(&self.value_digest);
        bytes
    }

    fn parse(bytes: &[u8; RECORD_LEN]) -> Result<Self, Garbage> {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let kind = match (bytes[0], bytes[1]) {
            (1, 0) => Kind::Hello,
            (2, 0) => Kind::Done,
            (3, reason) if reason != 0 => Kind::Refusal(Reason::from_code(reason)),
            _ => return Err(Garbage("a record of no known kind")),
        };
        if bytes[2] != 0 || bytes[3] != 0 {
            return Err(Garbage("a record with something where zeros belong"));
        }
        let mut record = Self {
            kind,
            world_size: number(4),
            rank: number(8),
            peer: number(12),
            value_len: number(16),
            round: number(20),
            job: [0; 32],
            incarnation: u64::from(number(56)) | (u64::from(number(60)) << 32),
            value_digest: [0; 32],
        };
        record.job.copy_from_slice(&bytes[24..56]);
        record.value_digest.copy_from_slice(&bytes[64..96]);
        Ok(record)
    }
}

/// Which side of a connection a record is from: it is part of the proof, so that none can be thrown back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Dialer,
    Acceptor,
}

/// The key of one connection, after both greetings.
#[derive(Clone)]
pub(super) struct Seal {
    key: [u8; 32],
    greetings: [u8; 2 * GREETING_LEN],
}

impl Seal {
    pub(super) fn new(key: &[u8; 32], dialer: &Greeting, acceptor: &Greeting) -> Self {
        let mut greetings = [0; 2 * GREETING_LEN];
        greetings[..GREETING_LEN].copy_from_slice(&dialer.to_bytes());
        greetings[GREETING_LEN..].copy_from_slice(&acceptor.to_bytes());
        Self { key: *key, greetings }
    }

    fn mac(&self, from: Side, body: &[u8]) -> Option<Blake2sMac256> {
        let mut mac = <Blake2sMac256 as KeyInit>::new_from_slice(&self.key).ok()?;
        Update::update(&mut mac, b"sinew exchange proof 1");
        Update::update(&mut mac, &[if from == Side::Dialer { 1 } else { 2 }]);
        Update::update(&mut mac, &self.greetings);
        Update::update(&mut mac, body);
        Some(mac)
    }

    pub(super) fn seal(&self, from: Side, record: &Record) -> [u8; RECORD_LEN] {
        let body = record.body();
        let mut bytes = [0; RECORD_LEN];
        bytes[..PROOF_AT].copy_from_slice(&body);
        bytes[PROOF_AT..].copy_from_slice(&self.proof(from, &body));
        bytes
    }

    pub(super) fn proof(&self, from: Side, body: &[u8]) -> [u8; 32] {
        self.mac(from, body).map_or([0; 32], |mac| mac.finalize_fixed().into())
    }

    /// The record, if its proof is right; nothing of it is interpreted before. Takes the same time whatever the proof is.
    pub(super) fn open(&self, from: Side, bytes: &[u8; RECORD_LEN]) -> Result<Record, Unopened> {
        let proven = self
            .mac(from, &bytes[..PROOF_AT])
            .is_some_and(|mac| Mac::verify_slice(mac, &bytes[PROOF_AT..]).is_ok());
        if !proven {
            return Err(Unopened::Proof);
        }
        Record::parse(bytes).map_err(Unopened::Garbage)
    }
}

/// Why a record is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unopened {
    Proof,
    Garbage(Garbage),
}

/// What a record says that a side could not open: a refusal shows its reason to people, unproven.
pub(super) fn unproven_reason(bytes: &[u8; RECORD_LEN]) -> Option<Reason> {
    (bytes[0] == 3 && bytes[1] != 0).then(|| Reason::from_code(bytes[1]))
}

/// The key that a secret stands for; without one all zeros, and the proof is a checksum.
pub(super) fn key(secret: Option<&[u8]>) -> [u8; 32] {
    secret.map_or([0; 32], |secret| {
        digest(&[b"sinew exchange secret 1", &(secret.len() as u64).to_le_bytes(), secret])
    })
}

/// What stands for a job on the wire.
pub(super) fn job(name: &[u8]) -> [u8; 32] {
    digest(&[b"sinew exchange job 1", name])
}

pub(super) fn value_digest(value: &[u8]) -> [u8; 32] {
    digest(&[b"sinew exchange value 1", value])
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    for part in parts {
        Digest::update(&mut hash, part);
    }
    hash.finalize().into()
}
