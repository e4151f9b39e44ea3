//! Cross-memory attach: reading a message where it lies in the peer's process, in one copy made by the kernel.
//!
//! Called by the lane: set-up (who may read whom), descriptors of lent memory, pulls. It decides by what it has measured on
//! this very lane whether a long message is read across or asked for in pieces. Only the receiver reads; nobody ever writes
//! another process's memory. `docs/adr/0013-ways-of-a-message-and-cross-memory-attach.md` says what is believed, and what not.

use crate::options::CrossRead;
use crate::sys::across::{Process, TOKEN_LEN, Unread, reason, token};
use rustix::io::Errno;
use sinew_transport::{Crossing, ErrorKind, TransportError};
use std::time::{Duration, Instant};

/// Bytes of one read: a turn of progress has one.
pub(crate) const PIECE: usize = 512 << 10;
/// Samples of pieces, and of longer reads, before it is decided.
const SAMPLES: u32 = 16;
const READS: u32 = 6;
/// One sample counts at most as so long: a process that was not running says nothing of a copy.
const SAMPLE_MAX: Duration = Duration::from_micros(200);
/// Shortest message of each class of sizes that is decided for itself: what fits second caches, last caches, and the rest.
const CLASSES: [usize; 3] = [4 << 10, 2 << 20, 16 << 20];

/// What this process shows to peers so that they know that it is it that they read. Stays where it is.
#[derive(Debug)]
pub(crate) struct Token(Option<Box<[u8; TOKEN_LEN]>>);

impl Token {
    /// A new one; none where the option or the system forbids.
    pub(crate) fn new(option: CrossRead) -> Self {
        Self(if option == CrossRead::Off { None } else { token().map(Box::new) })
    }

    /// Its address and bytes, for the peer's eyes.
    pub(crate) fn shown(&self) -> Option<(u64, [u8; TOKEN_LEN])> {
        self.0.as_deref().map(|token| (token.as_ptr().addr() as u64, *token))
    }
}

/// Time and bytes of one way.
#[derive(Clone, Copy, Default, Debug)]
struct Rate {
    samples: u32,
    bytes: u64,
    time: Duration,
    /// The longest sample, which is left out.
    longest: (u64, Duration),
}

impl Rate {
    fn add(&mut self, bytes: usize, time: Duration) {
        let (bytes, time) = (bytes as u64, time.min(SAMPLE_MAX));
        self.samples += 1;
        self.bytes += bytes;
        self.time += time;
        if time > self.longest.1 {
            self.longest = (bytes, time);
        }
    }

    /// Picoseconds for a byte, without the longest sample.
    fn per_byte_ps(&self) -> u64 {
        let bytes = self.bytes - self.longest.0;
        let time = self.time.saturating_sub(self.longest.1);
        (time.as_nanos() as u64 * 1000).checked_div(bytes).unwrap_or(u64::MAX)
    }

    fn describe(&self) -> String {
        match self.per_byte_ps() {
            ps @ 1.. => format!("{:.1} GB/s", 1000.0 / ps as f64),
            0 => "no time".to_owned(),
        }
    }
}

/// One class of sizes.
#[derive(Clone, Copy, Default, Debug)]
struct Class {
    pieces: Rate,
    across: Rate,
    /// Whether messages are read across, once that is known.
    decided: Option<bool>,
    /// What was decided last, and by which figures.
    last: Option<(bool, Rate, Rate)>,
    /// How often it was decided, and for how many messages more that stands.
    rounds: u32,
    left: u64,
}

/// Messages that the first decision stands for; each further one for so many times as many.
const STANDS_FOR: u64 = 8;

impl Class {
    /// The first messages are the slowest, as the pages of their buffers are new: so what was decided by them is decided once
    /// more by later ones, and reading across, which may take a processor's time from the sender's work or give it some, now and then
    /// for ever.
    fn decide(&mut self) {
        if self.decided.is_none() && self.are_pieces_known() && self.across.samples >= READS {
            let across = self.across.per_byte_ps() < self.pieces.per_byte_ps();
            self.decided = Some(across);
            self.last = Some((across, self.pieces, self.across));
            self.rounds += 1;
            self.left = STANDS_FOR.saturating_pow(self.rounds.min(6));
        }
    }

    const fn are_pieces_known(&self) -> bool {
        self.pieces.samples >= SAMPLES
    }

    /// Pieces have won for good.
    fn is_settled(&self) -> bool {
        self.decided == Some(false) && self.rounds >= 2
    }

    /// Whether the next message is read across; `None`: to be measured.
    fn next(&mut self) -> Option<bool> {
        let decided = self.decided?;
        if self.is_settled() {
            return Some(false);
        }
        if self.left == 0 {
            *self = Self { rounds: self.rounds, last: self.last, ..Self::default() };
            return None;
        }
        self.left -= 1;
        Some(decided)
    }
}

fn class_of(len: usize) -> usize {
    CLASSES.iter().rposition(|&from| len >= from).unwrap_or(0)
}

/// What may be done across one lane.
#[derive(Debug)]
enum Standing {
    /// The peer has proven itself.
    Proven(Process),
    /// Nothing may be read; the text says why.
    Refused(String),
}

/// One lane's reading across.
#[derive(Debug)]
pub(crate) struct Across {
    option: CrossRead,
    standing: Standing,
    classes: [Class; CLASSES.len()],
    /// A message whose pieces are being timed: its class, what the next piece must be, and when the last one was there.
    timed: Option<Timed>,
}

#[derive(Clone, Copy, Debug)]
struct Timed {
    class: usize,
    last: Option<(u64, u64, Instant)>,
}

impl Across {
    /// Proves the process `pid` by what the peer has said of itself, if the peer is of the same user.
    pub(crate) fn prove(
        option: CrossRead,
        same_user: bool,
        pid: Option<u32>,
        said: Option<(u64, [u8; TOKEN_LEN])>,
    ) -> Self {
        let standing = match (option, same_user, pid, said) {
            (CrossRead::Off, ..) => Standing::Refused("switched off here (shm_cross_read)".into()),
            (_, false, ..) => Standing::Refused("the peer is of another user".into()),
            (_, _, None, _) => Standing::Refused("the peer is in another pid namespace".into()),
            (_, _, _, None) => Standing::Refused("the peer does not offer it".into()),
            (_, _, Some(pid), Some((token_at, token))) => {
                let process = Process { pid, token_at, token };
                match process.prove() {
                    Ok(()) => Standing::Proven(process),
                    Err(unread) => Standing::Refused(why(unread)),
                }
            }
        };
        Self { option, standing, classes: Default::default(), timed: None }
    }

    /// Which messages the peer should describe: bit *k* for those of 2^k to 2^(k+1) − 1 bytes.
    pub(crate) fn wanted(&self) -> u64 {
        let Standing::Proven(_) = self.standing else { return 0 };
        let from = match self.option {
            CrossRead::Off => return 0,
            CrossRead::Auto => CLASSES[0],
            CrossRead::From(from) => from.max(1),
        };
        (from.ilog2()..u64::BITS)
            .filter(|&bit| !self.classes[class_of((1u64 << bit) as usize)].is_settled())
            .fold(0, |mask, bit| mask | 1 << bit)
    }

    /// The process to read a message of `len` bytes from; `None`: ask for it in pieces.
    pub(crate) fn choose(&mut self, len: usize) -> Option<Process> {
        let Standing::Proven(process) = self.standing else { return None };
        let at = class_of(len);
        let class = &mut self.classes[at];
        let across = match self.option {
            CrossRead::Off => false,
            CrossRead::From(from) => len >= from,
            CrossRead::Auto => match class.next() {
                Some(decided) => decided,
                None => {
                    // Pieces are timed first: that costs them nothing.
                    let across = class.are_pieces_known();
                    self.timed = (!across).then_some(Timed { class: at, last: None });
                    across
                }
            },
        };
        across.then_some(process)
    }

    /// Whether pieces are to be shown to [`Across::piece_came`].
    #[inline]
    pub(crate) const fn is_timing(&self) -> bool {
        self.timed.is_some()
    }

    /// A piece of a message was taken. Those that follow each other in one message tell how fast pieces are.
    #[cold]
    pub(crate) fn piece_came(&mut self, message: u64, offset: u64, len: usize, now: Instant) {
        let Some(timed) = &mut self.timed else { return };
        let class = &mut self.classes[timed.class];
        if let Some((of, next, then)) = timed.last
            && (of, next) == (message, offset)
        {
            class.pieces.add(len, now - then);
        }
        timed.last = Some((message, offset.wrapping_add(len as u64), now));
        if class.are_pieces_known() {
            self.timed = None;
        }
    }

    /// Part of a message of `whole` bytes was read across in this time. Whether that settles which way such messages take.
    pub(crate) fn was_read(&mut self, whole: usize, len: usize, time: Duration) -> bool {
        let class = &mut self.classes[class_of(whole)];
        if self.option != CrossRead::Auto || class.decided.is_some() {
            return false;
        }
        class.across.add(len, time);
        class.decide();
        class.decided.is_some()
    }

    /// Nothing could be read: why, as an error of the pull. Nothing is read across this lane any more unless it was only the
    /// range that was no memory.
    pub(crate) fn failed(&mut self, unread: Unread) -> TransportError {
        let text = why(unread);
        match unread {
            Unread::Refused(_) => self.standing = Standing::Refused(text.clone()),
            Unread::NotThere => {}
        }
        TransportError::new(ErrorKind::Broken, "memory of the peer", text)
    }

    /// What `explain` says of messages that are longer than one frame takes.
    pub(crate) fn crossings(&self, pieces_from: usize, piece: usize) -> Vec<Crossing> {
        let pieces = |from_bytes, reason| Crossing {
            from_bytes,
            way: format!(
                "pieces of {} KiB through the window, copied in and out at the same time",
                piece >> 10
            ),
            reason,
        };
        let across = |from_bytes, reason| Crossing {
            from_bytes,
            way: "read across by the receiver (process_vm_readv), one copy".to_owned(),
            reason,
        };
        let process = match &self.standing {
            Standing::Proven(process) => process.pid,
            Standing::Refused(text) => {
                return vec![pieces(pieces_from, format!("cross-memory attach is not used: {text}"))];
            }
        };
        match self.option {
            CrossRead::Off => vec![pieces(pieces_from, String::new())],
            CrossRead::From(from) => {
                let said = || {
                    format!("the option shm_cross_read says from {from} bytes on; pid {process} may be read")
                };
                let mut rows = Vec::new();
                if from > pieces_from {
                    rows.push(pieces(pieces_from, said()));
                }
                rows.push(across(from.max(pieces_from), said()));
                rows
            }
            CrossRead::Auto => {
                let row = |(at, class): (usize, &Class)| {
                    let from = CLASSES[at].max(pieces_from);
                    match &class.last {
                        Some((true, of_pieces, of_reads)) => across(from, measured(of_pieces, of_reads)),
                        Some((false, of_pieces, of_reads)) => pieces(from, measured(of_pieces, of_reads)),
                        None => pieces(
                            from,
                            format!(
                                "pid {process} may be read; which is faster is measured on the first long messages"
                            ),
                        ),
                    }
                };
                let mut rows: Vec<Crossing> = self.classes.iter().enumerate().map(row).collect();
                while rows.len() > 1 && rows[1].from_bytes <= rows[0].from_bytes {
                    rows.remove(0);
                }
                rows
            }
        }
    }
}

fn measured(pieces: &Rate, across: &Rate) -> String {
    format!("measured on this lane: pieces {}, reading across {}", pieces.describe(), across.describe())
}

fn why(unread: Unread) -> String {
    match unread {
        Unread::Refused(Errno::SRCH) => reason(Errno::SRCH),
        Unread::Refused(errno) => reason(errno),
        Unread::NotThere => "not the peer's memory".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven(option: CrossRead) -> (Token, Across) {
        let token = Token::new(CrossRead::Auto);
        let across = Across::prove(option, true, Some(std::process::id()), token.shown());
        assert!(matches!(across.standing, Standing::Proven(_)), "{:?}", across.standing);
        (token, across)
    }

    /// One message in pieces that take so long each, then reads that take so long.
    fn time(across: &mut Across, len: usize, piece_ns: u64, read_ns: u64) {
        assert!(across.choose(len).is_none() && across.is_timing(), "pieces come first");
        let start = Instant::now();
        for piece in 0..=u64::from(SAMPLES) {
            across.piece_came(7, piece * 1000, 1000, start + Duration::from_nanos(piece * piece_ns));
        }
        assert!(across.choose(len).is_some() && !across.is_timing(), "pieces are known");
        while !across.was_read(len, 1000, Duration::from_nanos(read_ns)) {}
    }

    #[test]
    fn the_faster_way_is_taken_and_only_where_it_was_measured() {
        let (_token, mut across) = proven(CrossRead::Auto);
        time(&mut across, 1 << 20, 1000, 1);
        assert!(across.choose(1 << 20).is_some(), "{across:?}");
        time(&mut across, 32 << 20, 1000, 1001);
        for _ in 0..STANDS_FOR {
            assert!(across.choose(32 << 20).is_none(), "{across:?}");
        }
        assert_eq!(across.wanted() >> 25 & 1, 1, "not for good yet");
        time(&mut across, 32 << 20, 1000, 1001);
        assert!(across.choose(32 << 20).is_none(), "{across:?}");
        let wanted = across.wanted();
        assert_eq!((wanted >> 20 & 1, wanted >> 22 & 1, wanted >> 25 & 1), (1, 1, 0), "{wanted:#x}");
        let rows = across.crossings(65_537, 64 << 10);
        assert!(rows[0].way.contains("across") && rows[1].reason.contains("first"), "{rows:?}");
        assert!(rows[2].way.contains("pieces") && rows[2].reason.contains("GB/s"), "{rows:?}");
    }

    #[test]
    fn what_the_first_messages_said_is_asked_again_of_later_ones() {
        let (_token, mut across) = proven(CrossRead::Auto);
        // Pages that are touched for the first time make the pieces slow.
        time(&mut across, 1 << 20, 1000, 500);
        for _ in 0..STANDS_FOR {
            assert!(across.choose(1 << 20).is_some(), "{across:?}");
        }
        time(&mut across, 1 << 20, 100, 500);
        assert!(across.choose(1 << 20).is_none() && across.wanted() >> 20 & 1 == 0, "{across:?}");
    }

    #[test]
    fn a_size_that_was_chosen_is_kept_and_what_is_off_is_off() {
        let (_token, mut across) = proven(CrossRead::From(100_000));
        assert!(across.choose(100_000).is_some() && across.choose(99_999).is_none());
        let token = Token::new(CrossRead::Auto);
        let mut across = Across::prove(CrossRead::Off, true, Some(std::process::id()), token.shown());
        assert!(across.choose(1 << 30).is_none() && across.wanted() == 0);
        assert!(across.crossings(65_537, 64 << 10)[0].reason.contains("switched off"));
        assert!(Token::new(CrossRead::Off).shown().is_none(), "nothing is shown to peers");
    }

    #[test]
    fn whoever_does_not_prove_itself_is_not_read_and_explain_says_why() {
        let token = Token::new(CrossRead::Auto);
        let (at, bytes) = token.shown().expect("random bytes");
        let me = Some(std::process::id());
        let cases = [
            (false, me, Some((at, bytes)), "another user"),
            (true, None, Some((at, bytes)), "pid namespace"),
            (true, me, None, "does not offer"),
            (true, me, Some((at, [0; TOKEN_LEN])), "not the peer's memory"),
            (true, me, Some((0, bytes)), "not the peer's memory"),
            (true, Some(0x3fff_ffff), Some((at, bytes)), "not visible"),
        ];
        for (same_user, pid, said, text) in cases {
            let mut across = Across::prove(CrossRead::Auto, same_user, pid, said);
            assert!(across.choose(1 << 20).is_none() && across.wanted() == 0);
            let rows = across.crossings(65_537, 64 << 10);
            assert!(rows[0].reason.contains(text), "{rows:?}");
        }
    }
}
