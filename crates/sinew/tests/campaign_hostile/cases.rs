//! Every frame kind with each of its fields at its extremes, and cut short: what is sent over streams as it is, and put into slots
//! of a ring.

use sinew::frame::{Flags, Header, Kind};

/// One frame. `claim` is the length that its header says, if that is not the body's.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
    pub(crate) claim: Option<u32>,
}

/// Kinds that there are, some that are not, and some of a lane's own.
pub(crate) fn kinds() -> Vec<u8> {
    (0..=23).chain([24, 127, 128, 191, 192, 193, 194, 255]).collect()
}

const EXTREMES_32: [u32; 7] = [0, 1, 2, u32::MAX, u32::MAX - 1, 1 << 31, (1 << 31) - 1];
const EXTREMES_64: [u64; 8] = [0, 1, u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, 1 << 32, (1 << 32) - 1];
/// All bits, each of them, the engine's and the lane's.
const FLAGS: [u8; 11] = [0, 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x0f, 0xff];

/// Words of the body that a kind calls for, the longest form.
fn words(kind: u8) -> Vec<u64> {
    match Kind(kind) {
        Kind::EAGER => vec![7, 7],
        // Operation, length, descriptor {segment and recalls, offset, length}.
        Kind::ENVELOPE => vec![5, 4096, 1, 0, 4096],
        Kind::FETCH => vec![3, 0, 4096],
        Kind::DATA | Kind::STRIPE => vec![1, 2, 3],
        Kind::DONE | Kind::GOODBYE => vec![0],
        Kind::CREDIT => vec![1 << 20, 1 << 10, 1 << 20, 1 << 10],
        // Two messages of eight bytes each: lengths, tags, bytes.
        Kind::BUNDLE => vec![8 | 8 << 16, 7, 7, 7, 7],
        Kind::LANES => Vec::new(),
        Kind::LOOKUP => vec![u64::from_le_bytes(*b"endpoint")],
        _ => vec![1],
    }
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// All cases for messages from endpoint `src` to endpoint `dst`.
pub(crate) fn all(dst: u32, src: u32) -> Vec<Case> {
    kinds().into_iter().flat_map(|kind| of_kind(kind, dst, src)).collect()
}

fn of_kind(kind: u8, dst: u32, src: u32) -> Vec<Case> {
    let own = kind >= Kind::LANE_PRIVATE;
    let words = if own { Vec::new() } else { words(kind) };
    // What an envelope describes is taken from the segment that was passed before.
    let flags = if kind == Kind::ENVELOPE.0 { Flags::DESCRIPTOR } else { Flags(0) };
    let base = Header { kind: Kind(kind), flags, dst, src, tag: if kind == Kind::BUNDLE.0 { 2 } else { 3 } };
    let mut cases = Vec::new();
    let mut add = |header: Header, body: Vec<u8>, claim| cases.push(Case { header, body, claim });
    for dst in EXTREMES_32 {
        add(Header { dst, ..base }, bytes(&words), None);
    }
    for src in EXTREMES_32 {
        add(Header { src, ..base }, bytes(&words), None);
    }
    for tag in EXTREMES_64 {
        add(Header { tag, ..base }, bytes(&words), None);
    }
    for flags in FLAGS {
        add(Header { flags: Flags(flags), ..base }, bytes(&words), None);
    }
    for at in 0..words.len() {
        for value in EXTREMES_64 {
            let mut words = words.clone();
            words[at] = value;
            add(base, bytes(&words), None);
        }
    }
    // Whole frames whose bodies are too short, by each byte, or too long.
    let whole = bytes(&words);
    for len in 0..whole.len() {
        add(base, whole[..len].to_vec(), None);
    }
    add(base, vec![0xff; whole.len() + 8], None);
    add(base, vec![0x5a; 4000], None);
    // Lengths that are not the body's.
    for claim in EXTREMES_32.into_iter().chain([65_536, 65_537, 1 << 20, (1 << 20) + 1]) {
        add(base, whole.clone(), Some(claim));
    }
    cases
}

/// What a survivor said that fetches: its operation, and the turn of the fetch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    pub(crate) operation: u64,
    pub(crate) turn: u16,
}

/// Fragments of a message of `len` bytes that is just being fetched, with every field at its extremes.
pub(crate) fn fragments(fetch: Fetch, len: u64) -> Vec<Case> {
    let Fetch { operation, turn } = fetch;
    let offsets = [0, 1, len - 1, len, len + 1, 1 << 47, (1 << 48) - 1];
    let operations = [operation, operation ^ 1, operation | 1 << 31, operation ^ 1 << 32, 0, u64::MAX];
    let turns = [turn, turn.wrapping_add(1), turn.wrapping_sub(1), 0, u16::MAX];
    let mut cases = Vec::new();
    for operation in operations {
        for offset in offsets {
            for len in [0, 1, 4000] {
                let mut add = |header| cases.push(Case { header, body: vec![0xaa; len], claim: None });
                turns.iter().for_each(|&turn| add(Header::stripe(operation, turn, offset)));
                add(Header::data(operation, offset));
            }
        }
    }
    cases
}
