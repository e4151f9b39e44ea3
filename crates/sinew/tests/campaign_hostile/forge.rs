//! Frames with their fields at the extremes as they stand in a ring, and bodies at every place of a window and beyond.

use crate::cases;
use sinew::frame::{Header, Kind};

/// The words of a slot without its lap, and what lies at the start of the window.
pub(crate) struct Forgery {
    pub(crate) slot: [u64; 8],
    pub(crate) window: Vec<u8>,
}

/// The length of a body that lies in the window.
const WINDOWED: u64 = 0xffff;
/// Bytes of the windows of the default options.
const WINDOW: u64 = (16 << 10) + (256 << 10);

fn slot(header: &Header, len: u64) -> [u64; 8] {
    let first = u64::from(header.kind.0) << 8 | (len & 0xffff) << 16 | u64::from(header.dst) << 32;
    [first, header.tag, u64::from(header.src) | u64::from(header.flags.0) << 32, 0, 0, 0, 0, 0]
}

/// Bytes as words, the last one filled up with zeros.
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    })
}

/// All of them, always in the same order.
pub(crate) fn all() -> Vec<Forgery> {
    let mut all: Vec<Forgery> = cases::all(2, 1).into_iter().map(of_case).collect();
    let most = u64::from(u32::MAX);
    let places = [0, 1, 63, 64, WINDOW - 1, WINDOW, WINDOW + 1, 1 << 31, (1 << 31) - 1, most - 1, most];
    for kind in cases::kinds() {
        let header = Header { dst: 2, src: 1, ..Header::control(Kind(kind), 3) };
        // Each of both at its extremes; of a message all of both.
        let crossed = header.kind == Kind::EAGER;
        let pairs = places.iter().flat_map(|offset| places.iter().map(move |len| (*offset, *len)));
        for (offset, len) in pairs.filter(|&(offset, len)| crossed || offset == 0 || len == 8 || len == 1) {
            let mut slot = slot(&header, WINDOWED);
            slot[3] = offset | len << 32;
            all.push(Forgery { slot, window: Vec::new() });
        }
        // The bits that are to be zero, all at once.
        let mut slot = slot(&header, 8);
        slot[2] |= !0 << 40;
        all.push(Forgery { slot, window: Vec::new() });
    }
    all
}

fn of_case(case: cases::Case) -> Forgery {
    let len = u64::from(case.claim.unwrap_or(case.body.len() as u32));
    if case.body.len() > 40 {
        let mut slot = slot(&case.header, WINDOWED);
        slot[3] = len << 32;
        return Forgery { slot, window: case.body };
    }
    // The length stands in the slot, whatever it is.
    let mut slot = slot(&case.header, len);
    words(&case.body).enumerate().for_each(|(at, word)| slot[3 + at] = word);
    Forgery { slot, window: Vec::new() }
}
