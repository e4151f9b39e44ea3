//! Messages of each tier: how they are sent and received, and how their content is checked.
//!
//! Used by survivors and victims alike. A message says its number in its first 8 bytes; the rest follows from the number.

use crate::herd::Diary;
use sinew::{Buf, Endpoint, Failed, Incoming, Match, OpError, Outgoing, Peer, Receive, SendOp, Source};
use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(crate) const HELLO: u64 = 0x10;
pub(crate) const FLOW: u64 = 0x20;
/// Nobody ever sends it.
pub(crate) const LATE: u64 = 0x30;
pub(crate) const PING: u64 = 0x40;

/// Longest message.
pub(crate) const LONGEST: usize = 1 << 20;
/// Messages of a batch.
const BATCH: u64 = 16;
/// Loans that a receiver holds at the same time.
const HELD: usize = 2;

/// How a message travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tier {
    /// In one slot of the ring, or a little more.
    Inline,
    /// Whole, through the window.
    Eager,
    /// Fetched by the receiver in pieces.
    Pipelined,
    /// Read by the receiver where it lies in the sender's process.
    Across,
    /// From the pool, read where it is.
    InPlace,
    /// From the pool into the receiver's memory.
    OneCopy,
    /// Many short ones in one call.
    Batch,
}

impl Tier {
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "inline" => Self::Inline,
            "eager" => Self::Eager,
            "pipelined" => Self::Pipelined,
            "across" => Self::Across,
            "in_place" => Self::InPlace,
            "one_copy" => Self::OneCopy,
            "batch" => Self::Batch,
            other => panic!("no tier {other}"),
        }
    }

    /// Bytes of message `number`.
    fn len(self, number: u64) -> usize {
        let chance = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let range = match self {
            Self::Inline => 8..48,
            Self::Eager => 100..60_000,
            Self::Pipelined | Self::Across => 70_000..LONGEST,
            Self::InPlace | Self::OneCopy => 4096..LONGEST / 2,
            Self::Batch if number.is_multiple_of(7) => 3000..6000,
            Self::Batch => 8..200,
        };
        range.start + chance as usize % (range.end - range.start)
    }

    /// Whether a message waits with its sender until it is fetched.
    pub(crate) const fn is_fetched(self) -> bool {
        matches!(self, Self::Pipelined | Self::Across | Self::InPlace | Self::OneCopy)
    }
}

/// What all contents are cut from.
fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| crate::common::content(LONGEST + 4096, 7))
}

/// Made before victims are forked, so that they need not.
pub(crate) fn prepare() {
    noise();
}

fn rest(number: u64, len: usize) -> &'static [u8] {
    &noise()[number as usize % 4096..][..len]
}

/// Fills `bytes` with the content of message `number`.
pub(crate) fn fill(bytes: &mut [u8], number: u64) {
    let (head, tail) = bytes.split_at_mut(8);
    head.copy_from_slice(&number.to_le_bytes());
    tail.copy_from_slice(rest(number, tail.len()));
}

/// Whether these are the bytes of message `number`.
pub(crate) fn is_whole(bytes: &[u8], number: u64) -> bool {
    bytes.len() >= 8 && bytes[..8] == number.to_le_bytes() && bytes[8..] == *rest(number, bytes.len() - 8)
}

/// Sends messages in order.
pub(crate) struct Sender<'a> {
    pub(crate) tier: Tier,
    pub(crate) to: &'a Peer,
    /// The next one.
    pub(crate) number: u64,
    bytes: Vec<u8>,
    /// Loans that the receiver has not given back.
    lent: VecDeque<SendOp>,
    /// Buffers of those that were taken back at their deadline: the receiver may read them still, so nothing else is written there.
    taken_back: Vec<Buf>,
}

impl<'a> Sender<'a> {
    pub(crate) fn new(tier: Tier, to: &'a Peer) -> Self {
        Self { tier, to, number: 0, bytes: vec![0; LONGEST], lent: VecDeque::new(), taken_back: Vec::new() }
    }

    /// Sends the next message, or batch. One whole message that fails was not sent; one that is fetched and given up at its
    /// deadline may have been fetched already, so its number is not used again.
    pub(crate) fn send(&mut self, limit: Duration, diary: Option<&Diary>) -> Result<(), OpError> {
        let (tier, number) = (self.tier, self.number);
        let len = tier.len(number);
        let sent = match tier {
            Tier::Batch => return self.send_batch(limit, diary),
            Tier::InPlace | Tier::OneCopy => {
                let mut buf = self.to.alloc(len).expect("a pool buffer");
                fill(buf.as_mut_slice().expect("writable"), number);
                self.lend(buf, limit, diary)
            }
            Tier::Inline | Tier::Eager | Tier::Pipelined | Tier::Across => {
                fill(&mut self.bytes[..len], number);
                let bytes = &self.bytes[..len];
                inside(diary, || self.to.message(FLOW).timeout(limit).send(bytes))
            }
        };
        if sent.is_ok() || tier.is_fetched() {
            self.number += 1;
        }
        sent
    }

    /// Sends a pool buffer. In place, the next ones go while the receiver still reads the last ones.
    fn lend(&mut self, buf: Buf, limit: Duration, diary: Option<&Diary>) -> Result<(), OpError> {
        let most = if self.tier == Tier::InPlace { HELD + 1 } else { 0 };
        inside(diary, || {
            self.lent.push_back(self.to.post_send(FLOW, buf)?);
            while self.lent.len() > most {
                let oldest = self.lent.pop_front().expect("there is one");
                if let Err(Failed { buf, error }) = oldest.wait_within(limit) {
                    self.taken_back.push(buf);
                    return Err(error);
                }
            }
            Ok(())
        })
    }

    /// That sends to a peer which is lost have ended.
    pub(crate) fn expect_lost(&mut self) {
        for send in self.lent.drain(..) {
            let ended = send.wait_within(crate::common::PATIENCE);
            assert!(
                matches!(ended, Ok(_) | Err(Failed { error: OpError::PeerLost { .. }, .. })),
                "a loan to the dead one: {ended:?}"
            );
        }
    }

    fn send_batch(&mut self, limit: Duration, diary: Option<&Diary>) -> Result<(), OpError> {
        let numbers = self.number..self.number + BATCH;
        let mut rest = &mut self.bytes[..];
        let mut parts: Vec<&[u8]> = Vec::new();
        for number in numbers {
            let (part, more) = rest.split_at_mut(self.tier.len(number));
            fill(part, number);
            parts.push(part);
            rest = more;
        }
        let batch: Vec<Outgoing<'_>> = parts.iter().map(|part| Outgoing::tagged(FLOW, part)).collect();
        let sent = inside(diary, || self.to.send_batch_within(&batch, limit));
        match sent {
            Ok(()) => self.number += BATCH,
            Err(partial) => {
                self.number += partial.sent as u64;
                return Err(partial.error);
            }
        }
        Ok(())
    }
}

fn inside<T>(diary: Option<&Diary>, run: impl FnOnce() -> T) -> T {
    match diary {
        Some(diary) => diary.call(run),
        None => run(),
    }
}

/// Receives messages of one sender and checks that each comes once, in order and whole.
pub(crate) struct Receiver<'a> {
    tier: Tier,
    at: &'a Endpoint,
    from: Source,
    /// The number that must come next, unless its sender has given it up.
    expected: u64,
    /// Messages that did not come.
    pub(crate) missing: u64,
    buf: Vec<u8>,
    /// Loans of the last messages.
    pub(crate) held: Vec<(u64, Incoming)>,
}

/// Why nothing was received.
pub(crate) enum Ended {
    /// The deadline passed.
    Late,
    /// The peer is lost, or something else is.
    Error(OpError),
    /// A message that must not be.
    Wrong(String),
}

impl From<OpError> for Ended {
    fn from(error: OpError) -> Self {
        match error {
            OpError::TimedOut { .. } => Self::Late,
            error => Self::Error(error),
        }
    }
}

impl<'a> Receiver<'a> {
    pub(crate) fn new(tier: Tier, at: &'a Endpoint, from: Source) -> Self {
        Self { tier, at, from, expected: 0, missing: 0, buf: vec![0; LONGEST], held: Vec::new() }
    }

    fn pattern(&self) -> Match {
        Match::tag(FLOW).from(self.from)
    }

    fn check(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let head = bytes.get(..8).and_then(|head| head.try_into().ok()).map(u64::from_le_bytes);
        let number = head.unwrap_or(u64::MAX);
        let in_order = number == self.expected || self.tier.is_fetched() && number > self.expected;
        if !in_order || bytes.len() != self.tier.len(number) || !is_whole(bytes, number) {
            return Err(Ended::Wrong(format!(
                "{:?}: message {} expected, {} bytes with the number {head:?} came",
                self.tier,
                self.expected,
                bytes.len()
            )));
        }
        self.missing += number - self.expected;
        self.expected = number + 1;
        Ok(())
    }

    /// Receives the next message, or some of a batch.
    pub(crate) fn receive(&mut self, limit: Duration, diary: Option<&Diary>) -> Result<(), Ended> {
        let received = self.receive_one(limit, diary);
        if let Some(diary) = diary {
            diary.missing.store(self.missing, Ordering::Release);
        }
        received
    }

    fn receive_one(&mut self, limit: Duration, diary: Option<&Diary>) -> Result<(), Ended> {
        match self.tier {
            Tier::Batch => self.receive_batch(limit, diary),
            Tier::InPlace => self.receive_in_place(limit, diary),
            _ => {
                let mut buf = std::mem::take(&mut self.buf);
                let (at, pattern) = (self.at, self.pattern());
                let got = inside(diary, || at.recv_within(pattern, &mut buf, limit));
                let checked = match got {
                    Ok(info) => self.check(&buf[..info.len]),
                    Err(error) => Err(error.into()),
                };
                self.buf = buf;
                checked
            }
        }
    }

    fn receive_in_place(&mut self, limit: Duration, diary: Option<&Diary>) -> Result<(), Ended> {
        let (at, pattern) = (self.at, self.pattern());
        let message = inside(diary, || at.recv_message_within(pattern, LONGEST, limit))?;
        self.check(&message.to_vec())?;
        self.held.push((self.expected - 1, message));
        if self.held.len() > HELD {
            let (number, oldest) = self.held.remove(0);
            if !is_whole(&oldest.to_vec(), number) {
                return Err(Ended::Wrong(format!("the loan of {number} has changed")));
            }
        }
        if let Some(diary) = diary {
            let lent = self.held.iter().filter(|(_, message)| message.is_lent()).count();
            diary.held.store(lent as u64, Ordering::Release);
        }
        Ok(())
    }

    fn receive_batch(&mut self, limit: Duration, diary: Option<&Diary>) -> Result<(), Ended> {
        let pattern = self.pattern();
        let mut buf = std::mem::take(&mut self.buf);
        let pieces = buf.chunks_mut(8192).take(BATCH as usize);
        let mut receives: Vec<Receive<'_>> = pieces.map(|piece| Receive::new(pattern, piece)).collect();
        let at = self.at;
        let ended = inside(diary, || at.recv_batch_within(&mut receives, limit)).map_err(Ended::from);
        let mut result = ended.map(|_| ());
        for receive in &receives {
            match receive.result() {
                Some(Ok(_)) if result.is_ok() => result = self.check(receive.data()),
                Some(Ok(_)) => result = Err(Ended::Wrong("a message behind one that failed".to_owned())),
                Some(Err(error)) if result.is_ok() => result = Err(error.clone().into()),
                Some(Err(_)) | None => {}
            }
        }
        drop(receives);
        self.buf = buf;
        result
    }

    /// That loans are as they came, also when their sender is dead; how many there are. Gives them back.
    pub(crate) fn check_loans(&mut self) -> usize {
        let lent = self.held.iter().filter(|(_, message)| message.is_lent()).count();
        for (number, message) in self.held.drain(..) {
            assert!(is_whole(&message.to_vec(), number), "the loan of {number} has changed");
        }
        lent
    }
}
