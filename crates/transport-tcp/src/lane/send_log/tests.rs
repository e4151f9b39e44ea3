//! The log against an oracle that keeps every frame apart: random posts, partial writes, acknowledgements, reclaims.

use super::*;
use crate::lane::pieces::pad;
use sinew_wire::frame::Kind;
use std::ptr::NonNull;

const CAPACITY: usize = 1 << 12;
const FRAMES: u32 = 50;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

/// A frame as the oracle keeps it.
struct Posted {
    header: Header,
    body: Box<[u8]>,
    /// Named by this token, and still borrowed.
    token: Option<Token>,
    was_borrowed: bool,
}

/// What a receiver makes of the bytes.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    frames: usize,
}

impl Wire {
    /// Compares all frames that are whole with the oracle's.
    fn take_frames(&mut self, posted: &[Posted]) {
        while let Some(header) = self.bytes.first_chunk::<HEADER_LEN>() {
            let (header, len) = stream::decode(header).expect("the stream is in step");
            let pad = if header.flags.contains(PADDED) {
                let Some(&pad) = self.bytes.get(HEADER_LEN) else { return };
                usize::from(pad)
            } else {
                0
            };
            let body = HEADER_LEN + pad;
            if self.bytes.len() < body + len as usize {
                return;
            }
            let expected = &posted[self.frames];
            assert_eq!(header.tag, expected.header.tag);
            assert_eq!(self.bytes[body..body + len as usize], expected.body[..]);
            self.frames += 1;
            self.bytes.drain(..body + len as usize);
        }
    }
}

fn written(log: &mut SendLog, random: &mut Random, wire: &mut Wire) {
    let mut pieces = Pieces::new();
    let single = log.single().map(<[u8]>::to_vec);
    let (total, _) = log.gather(&mut pieces);
    let bytes: Vec<u8> = pieces.as_slice().iter().flat_map(|piece| piece.iter().copied()).collect();
    assert_eq!(bytes.len(), total);
    assert!(single.is_none_or(|single| single == bytes), "the short way shows the same");
    let count = if random.below(3) == 0 { total } else { random.below(total + 1) };
    wire.bytes.extend_from_slice(&bytes[..count]);
    log.advance(count);
}

/// Posts a copied frame, by one of the two ways if both are open.
fn post(
    log: &mut SendLog,
    header: &Header,
    body: &[u8],
    random: &mut Random,
    wire: &mut Wire,
) -> Result<(), PostError> {
    let (front, back) = body.split_at(body.len() / 2);
    let pieces = [IoSlice::new(front), IoSlice::new(back)];
    if log.has_unsent() || random.below(2) == 0 {
        log.post(header, &pieces, body.len())
    } else {
        let tail = &[0xaa; 24][..24 * random.below(2)];
        let (mut count, mut most) = (0, 0);
        let told = log.post_direct(header, &pieces, body.len(), tail, |all| {
            let all: Vec<u8> = all.iter().flat_map(|piece| piece.iter().copied()).collect();
            count = random.below(all.len() + 1);
            most = all.len() - tail.len();
            assert!(all.ends_with(tail));
            wire.bytes.extend_from_slice(&all[..count.min(most)]);
            count
        })?;
        assert_eq!(told, count.saturating_sub(most), "how much of the tail is gone");
        Ok(())
    }
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let mut log = SendLog::new(CAPACITY, FRAMES, true);
    let mut posted: Vec<Posted> = Vec::new();
    let (mut wire, mut acknowledged) = (Wire::default(), 0);
    for step in 0..3000u64 {
        match random.below(8) {
            0..3 => {
                let body: Box<[u8]> = (0..random.below(900)).map(|at| (at as u64 * 7 + step) as u8).collect();
                let header = Header { tag: step, ..Header::control(Kind::EAGER, 0) };
                let result = post(&mut log, &header, &body, &mut random, &mut wire);
                if result.is_ok() {
                    posted.push(Posted { header, body, token: None, was_borrowed: false });
                }
            }
            3 => {
                let len = random.below(2) * random.below(20_000);
                let body: Box<[u8]> = (0..len).map(|at| (at as u64 * 5 + step) as u8).collect();
                let token = Token(step % 7);
                let header = Header { tag: step, ..Header::control(Kind::DATA, 0) };
                let data = NonNull::from(&body[..]).cast();
                // SAFETY: `posted` keeps the box, whose memory does not move, until the end of the run.
                let bytes = unsafe { BorrowedBytes::new(data, len) };
                if log.post_borrowed(&header, bytes, token).is_ok() {
                    posted.push(Posted { header, body, token: Some(token), was_borrowed: true });
                }
            }
            4 | 5 => {
                written(&mut log, &mut random, &mut wire);
                wire.take_frames(&posted);
            }
            6 => {
                let count = acknowledged + random.below(wire.frames - acknowledged + 1);
                let mut released = Vec::new();
                log.acknowledge(count as u64, |token| released.push(token)).expect("the peer has them");
                let expected: Vec<Token> =
                    posted[acknowledged..count].iter().filter_map(|frame| frame.token).collect();
                assert_eq!(released, expected);
                acknowledged = count;
            }
            _ => {
                let token = Token(random.below(7) as u64);
                log.reclaim(token);
                for frame in posted[acknowledged..].iter_mut().filter(|frame| frame.token == Some(token)) {
                    frame.token = None;
                }
            }
        }
        assert_eq!(log.unacknowledged(), (posted.len() - acknowledged) as u64);
        let beyond = wire.frames as u64 + 1;
        if random.below(50) == 0 && beyond <= posted.len() as u64 && wire.bytes.is_empty() {
            // Not even begun: the peer cannot have it. The log may not be used after such a lie.
            let next = &posted[wire.frames];
            if !next.was_borrowed {
                assert!(log.acknowledge(beyond, |_| ()).is_err());
                return;
            }
        }
    }
    check_rest(&mut log, &posted[acknowledged..]);
}

/// What is given back in the end is what was not acknowledged.
fn check_rest(log: &mut SendLog, posted: &[Posted]) {
    let rest = log.take_unacknowledged();
    assert_eq!(rest.len(), posted.len());
    for (frame, expected) in rest.iter().zip(posted) {
        assert_eq!(frame.header, expected.header);
        match &frame.body {
            UnacknowledgedBody::Owned(body) => {
                assert!(expected.token.is_none());
                assert_eq!(body[..], expected.body[..]);
            }
            UnacknowledgedBody::Borrowed { data, len, token } => {
                assert_eq!(Some(*token), expected.token);
                assert_eq!((*data, *len), (expected.body.as_ptr(), expected.body.len()));
            }
        }
    }
    assert!(!log.has_unsent() && log.unacknowledged() == 0);
}

#[test]
fn the_log_sends_retains_and_gives_back_what_an_oracle_says() {
    for seed in 1..300 {
        run(seed * 0x9e37_79b9);
    }
}

#[test]
fn a_pad_is_asked_for_just_where_copies_are_slow() {
    for at in 0..8192usize {
        let data = std::ptr::without_provenance::<u8>(0x10_0000 + at);
        let pad = pad(HEADER_LEN, data);
        assert!(pad <= PAD_MAX);
        let ahead = (HEADER_LEN + pad).wrapping_sub(data.addr()) % 4096;
        assert!(!(1..64).contains(&ahead), "a body at {at} begins {ahead} bytes behind its source");
    }
}

#[test]
fn a_frame_of_which_a_byte_has_not_been_sent_cannot_be_acknowledged() {
    let body = [7u8; 100];
    let header = Header::control(Kind::DATA, 1);
    for borrows in [false, true] {
        let mut log = SendLog::new(CAPACITY, FRAMES, false);
        if borrows {
            // SAFETY: the body outlives the log.
            let bytes = unsafe { BorrowedBytes::new(NonNull::from(&body).cast(), body.len()) };
            log.post_borrowed(&header, bytes, Token(1)).expect("room");
        } else {
            log.post(&header, &[IoSlice::new(&body)], body.len()).expect("room");
        }
        for sent in 0..HEADER_LEN + body.len() {
            let refused = log.acknowledge(1, |token| panic!("{token:?} after {sent} bytes"));
            assert_eq!(refused, Err(BadAcknowledgement), "after {sent} bytes");
            log.advance(1);
        }
        let mut released = Vec::new();
        assert_eq!(log.acknowledge(1, |token| released.push(token)), Ok(()));
        assert_eq!((released.len(), log.unacknowledged()), (usize::from(borrows), 0));
        assert_eq!(log.acknowledge(2, |_| ()), Err(BadAcknowledgement));
    }
}
