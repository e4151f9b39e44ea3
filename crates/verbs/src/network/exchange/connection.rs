//! One connection of an exchange, without its socket: bytes in, bytes out.
//!
//! Called by the round. Order of use: [`Connection::dialer`] or [`Connection::acceptor`]; then [`Connection::wanted`] says how many bytes it
//! waits for and [`Connection::handle_input`] takes at most that many; [`Connection::poll_output`] lends what is to be written and
//! [`Connection::handle_written`] says how much was. It reads no clock and allocates what has arrived, never what was announced.

use super::heard::{Phase, What};
use super::wire::{
    GREETING_LEN, Greeting, Kind, Mode, RECORD_LEN, Reason, Record, Seal, Side, Unopened, VERSION,
    unproven_reason, value_digest,
};

/// What all connections of a round say of this rank.
pub(super) struct Local {
    pub(super) rank: u32,
    pub(super) world_size: u32,
    pub(super) round: u32,
    pub(super) job: [u8; 32],
    pub(super) incarnation: u64,
    pub(super) key: [u8; 32],
    pub(super) mode: Mode,
    pub(super) value_max: usize,
    pub(super) values: Vec<Vec<u8>>,
    pub(super) digests: Vec<[u8; 32]>,
    /// The process that each rank was heard from, once a pair was finished.
    pub(super) incarnations: Vec<Option<u64>>,
}

impl Local {
    pub(super) fn record(&self, kind: Kind, peer: u32) -> Record {
        let value = self.values.get(peer as usize);
        Record {
            kind,
            world_size: self.world_size,
            rank: self.rank,
            peer,
            value_len: value.map_or(0, |value| value.len() as u32),
            round: self.round,
            job: self.job,
            incarnation: self.incarnation,
            value_digest: self.digests.get(peer as usize).copied().unwrap_or_default(),
        }
    }

    /// Whether a hello is of whom it should be: of `expected` where this side dialled, of a higher rank otherwise.
    fn judge(&self, hello: &Record, expected: Option<u32>) -> Result<(), Reason> {
        let right_rank = match expected {
            Some(peer) => hello.rank == peer,
            None => hello.rank > self.rank && hello.rank < self.world_size,
        };
        if hello.job != self.job {
            Err(Reason::OtherJob)
        } else if hello.world_size != self.world_size {
            Err(Reason::OtherWorldSize)
        } else if !right_rank || hello.peer != self.rank {
            Err(Reason::NotThatRank)
        } else if hello.round != self.round {
            Err(Reason::OtherRound)
        } else if self.incarnations[hello.rank as usize].is_some_and(|known| known != hello.incarnation) {
            Err(Reason::RankTaken)
        } else if usize::try_from(hello.value_len).map_or(true, |len| len > self.value_max) {
            Err(Reason::TooLarge)
        } else {
            Ok(())
        }
    }
}

/// What became known by some input.
#[derive(Debug)]
pub(super) enum Event {
    /// Nothing but that it goes on.
    Nothing,
    /// An acceptor knows that it speaks with this rank.
    Proven(u32),
    /// The value of this rank is here, whole.
    Value(u32, Vec<u8>),
    /// The pair is finished, on this side: this rank of this process has our value, and we its.
    Finished(u32, u64),
}

/// A connection that goes no further. What is still to be written should be, then it is closed.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) what: What,
    /// Who is there, if that is proven.
    pub(super) rank: Option<u32>,
    /// The other side's round, where it said that it is in another.
    pub(super) round: Option<u32>,
}

impl From<What> for Ended {
    fn from(what: What) -> Self {
        Self { what, rank: None, round: None }
    }
}

pub(super) struct Connection {
    side: Side,
    /// Whom this side dialled, or who has been proven to be there.
    peer: Option<u32>,
    greeting: Greeting,
    seal: Option<Seal>,
    hello: Option<Record>,
    phase: Phase,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

impl Connection {
    pub(super) fn dialer(local: &Local, peer: u32, nonce: [u8; 16]) -> Self {
        let mut connection = Self::new(Side::Dialer, Some(peer), local, nonce);
        connection.output.extend_from_slice(&connection.greeting.to_bytes());
        connection
    }

    pub(super) fn acceptor(local: &Local, nonce: [u8; 16]) -> Self {
        Self::new(Side::Acceptor, None, local, nonce)
    }

    fn new(side: Side, peer: Option<u32>, local: &Local, nonce: [u8; 16]) -> Self {
        Self {
            side,
            peer,
            greeting: Greeting::new(local.mode, nonce),
            seal: None,
            hello: None,
            phase: Phase::Greeting,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
        }
    }

    /// What it waits for.
    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the other side has said who it is, and proven it where there is a secret.
    pub(super) const fn is_proven(&self) -> bool {
        self.hello.is_some()
    }

    /// How many bytes it waits for; 0 when it has all.
    pub(super) fn wanted(&self) -> usize {
        let whole = match self.phase {
            Phase::Greeting => GREETING_LEN,
            Phase::Hello | Phase::Done => RECORD_LEN,
            Phase::Value => self.hello.map_or(0, |hello| hello.value_len as usize),
            Phase::Over => 0,
        };
        whole.saturating_sub(self.input.len())
    }

    pub(super) fn poll_output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    pub(super) fn handle_written(&mut self, count: usize) {
        self.written += count;
        if self.written >= self.output.len() {
            self.output.clear();
            self.written = 0;
        }
    }

    /// Takes bytes, at most [`Connection::wanted`].
    pub(super) fn handle_input(&mut self, bytes: &[u8], local: &Local) -> Result<Event, Ended> {
        debug_assert!(bytes.len() <= self.wanted());
        self.input.extend_from_slice(bytes);
        if self.phase == Phase::Greeting
            && !GREETING_START.starts_with(&self.input[..self.input.len().min(8)])
        {
            return Err(What::Garbage("no magic").into());
        }
        if self.wanted() > 0 {
            return Ok(Event::Nothing);
        }
        let input = std::mem::take(&mut self.input);
        match self.phase {
            Phase::Greeting => self.greeted(&input, local),
            Phase::Hello => self.heard_hello(&input, local),
            Phase::Value => self.heard_value(input, local),
            Phase::Done => self.heard_done(&input, local),
            Phase::Over => Ok(Event::Nothing),
        }
    }

    fn other(&self) -> Side {
        if self.side == Side::Dialer { Side::Acceptor } else { Side::Dialer }
    }

    fn send(&mut self, local: &Local, kind: Kind, peer: u32) {
        if let Some(seal) = &self.seal {
            self.output.extend_from_slice(&seal.seal(self.side, &local.record(kind, peer)));
        }
    }

    fn greeted(&mut self, input: &[u8], local: &Local) -> Result<Event, Ended> {
        let Some(bytes) = input.first_chunk() else { return Ok(Event::Nothing) };
        let theirs = Greeting::from_bytes(bytes).map_err(|garbage| What::Garbage(garbage.0))?;
        if self.side == Side::Acceptor {
            self.output.extend_from_slice(&self.greeting.to_bytes());
        }
        if theirs.version_min > VERSION || theirs.version_max < VERSION {
            let (min, max) = (theirs.version_min, theirs.version_max);
            return Err(What::OtherVersion { min, max, ours: VERSION }.into());
        }
        if theirs.mode != self.greeting.mode {
            return Err(What::OtherMode { ours_has_secret: self.greeting.mode == Mode::Secret }.into());
        }
        let (dialer, acceptor) =
            if self.side == Side::Dialer { (&self.greeting, &theirs) } else { (&theirs, &self.greeting) };
        self.seal = Some(Seal::new(&local.key, dialer, acceptor));
        self.phase = Phase::Hello;
        if let (Side::Dialer, Some(peer)) = (self.side, self.peer) {
            self.send(local, Kind::Hello, peer);
        }
        Ok(Event::Nothing)
    }

    /// A record of the other side that is proven; a refusal ends the connection.
    fn opened(&mut self, input: &[u8], local: &Local) -> Result<Record, Ended> {
        let (Some(seal), Some(bytes)) = (&self.seal, input.first_chunk()) else {
            return Err(What::Garbage("a record too early").into());
        };
        let record = match seal.open(self.other(), bytes) {
            Ok(record) => record,
            Err(Unopened::Garbage(garbage)) => {
                self.refuse(local, Reason::Malformed);
                return Err(What::Garbage(garbage.0).into());
            }
            Err(Unopened::Proof) => {
                if let Some(reason) = unproven_reason(bytes) {
                    return Err(What::Refused { reason, proven: false, theirs: None }.into());
                }
                self.refuse(local, Reason::Proof);
                return Err(What::Refuses { reason: Reason::Proof, rank: None, theirs: None }.into());
            }
        };
        match record.kind {
            Kind::Refusal(reason) => Err(Ended {
                what: What::Refused { reason, proven: true, theirs: Some(job_number(&record)) },
                rank: Some(record.rank),
                round: (reason == Reason::OtherRound).then_some(record.round),
            }),
            _ => Ok(record),
        }
    }

    /// Only an acceptor tells: what a dialer would say could be taken for its value.
    fn refuse(&mut self, local: &Local, reason: Reason) {
        if self.side == Side::Acceptor {
            self.send(local, Kind::Refusal(reason), self.peer.unwrap_or(u32::MAX));
        }
    }

    fn heard_hello(&mut self, input: &[u8], local: &Local) -> Result<Event, Ended> {
        let hello = self.opened(input, local)?;
        let expected = self.peer.filter(|_| self.side == Side::Dialer);
        let judged =
            if hello.kind == Kind::Hello { local.judge(&hello, expected) } else { Err(Reason::Malformed) };
        if let Err(reason) = judged {
            self.refuse(local, reason);
            let what = What::Refuses { reason, rank: Some(hello.rank), theirs: Some(job_number(&hello)) };
            let of_job = hello.job == local.job && hello.world_size == local.world_size;
            return Err(Ended { what, rank: of_job.then_some(hello.rank), round: None });
        }
        self.peer = Some(hello.rank);
        self.hello = Some(hello);
        self.phase = Phase::Value;
        if self.side == Side::Acceptor {
            self.send(local, Kind::Hello, hello.rank);
        }
        self.output.extend_from_slice(&local.values[hello.rank as usize]);
        Ok(Event::Proven(hello.rank))
    }

    /// Whether a value of no bytes is to be taken now: nothing will arrive for it.
    pub(super) fn is_empty_value(&self) -> bool {
        self.phase == Phase::Value && self.wanted() == 0
    }

    fn heard_value(&mut self, value: Vec<u8>, local: &Local) -> Result<Event, Ended> {
        let Some(hello) = self.hello else { return Ok(Event::Nothing) };
        if value_digest(&value) != hello.value_digest {
            return Err(What::Garbage("a value that is not what its hello said").into());
        }
        self.phase = Phase::Done;
        if self.side == Side::Dialer {
            self.send(local, Kind::Done, hello.rank);
        }
        Ok(Event::Value(hello.rank, value))
    }

    fn heard_done(&mut self, input: &[u8], local: &Local) -> Result<Event, Ended> {
        let done = self.opened(input, local)?;
        let Some(hello) = self.hello else { return Ok(Event::Nothing) };
        if done != (Record { kind: Kind::Done, ..hello }) {
            return Err(What::Garbage("a last word that does not fit its hello").into());
        }
        if self.side == Side::Acceptor {
            self.send(local, Kind::Done, hello.rank);
        }
        self.phase = Phase::Over;
        Ok(Event::Finished(hello.rank, hello.incarnation))
    }
}

const GREETING_START: &[u8] = b"SINEWNET";

/// What people see of a job's digest.
fn job_number(record: &Record) -> u32 {
    super::heard::job_number(&record.job)
}
