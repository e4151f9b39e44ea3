//! Frames in a byte stream: nothing that is read is out of bounds, and what is a header comes back byte by byte.

use super::note;
use sinew_wire::frame::bundle::{Opened, Packer};
use sinew_wire::frame::stream::{HEADER_LEN, decode, encode};
use sinew_wire::frame::{Flags, Header, Kind};

/// Largest body that the reader here takes, as a lane would.
const FRAME_MAX: usize = 4096;

pub(super) fn run(data: &[u8]) -> u64 {
    fields(data);
    bundle(data);
    let (mut at, mut outcome) = (0, 0);
    while let Some(bytes) = data.get(at..).and_then(|rest| rest.first_chunk::<HEADER_LEN>()) {
        let (header, len) = match decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return note(outcome, 1);
            }
        };
        assert_eq!(encode(&header, len), *bytes);
        let _ = format!("{header:?} {:?}", header.kind.name());
        outcome = note(outcome, u64::from(header.kind.0.min(23)));
        if len as usize > FRAME_MAX {
            return note(outcome, 2);
        }
        at += HEADER_LEN + len as usize;
    }
    note(outcome, 3)
}

/// What opens as a bundle is packed into the same bytes again.
fn bundle(data: &[u8]) {
    let Some((&[count, untagged], body)) = data.split_first_chunk::<2>() else { return };
    let (mut opened, untagged) = (Opened::new(), untagged & 1 != 0);
    if opened.open(u64::from(count), untagged, body.len(), |into| into.copy_from_slice(body)).is_err() {
        return;
    }
    let mut packer = Packer::new();
    for (tag, data) in opened.messages() {
        assert!(packer.push(tag, untagged, data));
    }
    let packed = packer.parts().concat();
    // Zeros fill up the lengths; a peer may have put anything there.
    let (lengths, filled) = (2 * opened.count(), (2 * opened.count()).next_multiple_of(8));
    assert!(
        packed.len() == body.len()
            && packed[..lengths] == body[..lengths]
            && packed[filled..] == body[filled..]
    );
}

/// Any fields survive the way there and back, and no single flipped bit passes.
fn fields(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<HEADER_LEN>() else { return };
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let tag = u64::from(word(16)) | u64::from(word(20)) << 32;
    let header = Header { kind: Kind(bytes[4]), flags: Flags(bytes[5]), dst: word(8), src: word(12), tag };
    let mut encoded = encode(&header, word(0));
    assert_eq!(decode(&encoded), Ok((header, word(0))));
    // A stripe's place: a turn of 16 bits and an offset of 48.
    let (turn, offset) = header.stripe_place();
    assert!(offset < 1 << 48);
    let stripe = Header::stripe(tag, turn, offset);
    assert_eq!((stripe.stripe_place(), stripe.dst, stripe.src), ((turn, offset), header.dst, header.src));
    let bit = usize::from(bytes[6]) % (HEADER_LEN * 8);
    encoded[bit / 8] ^= 1 << (bit % 8);
    assert!(decode(&encoded).is_err());
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let frame = |header: Header, body: &[u8]| {
        let mut bytes = encode(&header, body.len() as u32).to_vec();
        bytes.extend(body);
        bytes
    };
    let eager = Header { kind: Kind::EAGER, flags: Flags::IMMEDIATE, dst: 1, src: 2, tag: 7 };
    let first = frame(eager, b"12345678payload");
    let two = [first.clone(), frame(Header::control(Kind::CREDIT, 0), &[0; 16])].concat();
    let mut packer = Packer::new();
    assert!(packer.push(1, false, b"one") && packer.push(2, false, b"two"));
    let bundle = [vec![2, 0], packer.parts().concat()].concat();
    vec![
        bundle,
        first,
        two,
        frame(Header::data(3, 1 << 40), &[9; 64]),
        frame(Header::stripe(3, 0xabcd, 1 << 40), &[9; 64]),
        frame(Header::control(Kind::LANES, 8), b""),
        frame(Header::control(Kind(200), 1), b""),
    ]
}
