//! The stream header byte by byte, as `docs/wire/frame.md` describes it.

use sinew_wire::frame::bundle::Packer;
use sinew_wire::frame::stream::{HEADER_LEN, HeaderError, decode, encode};
use sinew_wire::frame::{Flags, Header, Kind};

const GOLDEN: [u8; HEADER_LEN] = [
    0x00, 0x10, 0x00, 0x00, // body length 4096
    0x02, // ENVELOPE
    0x09, // IMMEDIATE, UNTAGGED
    0xd1, 0xca, // check
    0x04, 0x03, 0x02, 0x01, // dst
    0x08, 0x07, 0x06, 0x05, // src
    0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01, // tag
];

const HEADER: Header = Header {
    kind: Kind::ENVELOPE,
    flags: Flags(0b1001),
    dst: 0x0102_0304,
    src: 0x0506_0708,
    tag: 0x0123_4567_89ab_cdef,
};

#[test]
fn golden_bytes_of_the_stream_header() {
    assert_eq!(encode(&HEADER, 4096), GOLDEN);
    assert_eq!(decode(&GOLDEN), Ok((HEADER, 4096)));
}

#[test]
fn the_check_is_what_the_page_says() {
    let word = |at: usize| u64::from_le_bytes(*GOLDEN[at..].first_chunk().expect("eight bytes"));
    let (a, b, c) = (word(0) & 0x0000_ffff_ffff_ffff, word(8), word(16));
    let mixed = (a ^ b.rotate_left(17) ^ c.rotate_left(31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let check = (mixed >> 48) as u16 ^ 0x5157;
    assert_eq!(GOLDEN[6..8], check.to_le_bytes());
    let mut other = GOLDEN;
    other[6] ^= 1;
    assert_eq!(decode(&other), Err(HeaderError::Check { expected: check, found: check ^ 1 }));
}

#[test]
fn the_body_of_a_bundle_is_exactly_these_bytes() {
    let mut packer = Packer::new();
    assert!(
        packer.push(0x0102_0304_0506_0708, false, b"one")
            && packer.push(9, false, b"")
            && packer.push(10, false, b"three")
    );
    #[rustfmt::skip]
    let golden = [
        3, 0, 0, 0, 5, 0, 0, 0,
        8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0,
        b'o', b'n', b'e', b't', b'h', b'r', b'e', b'e',
    ];
    assert_eq!(packer.parts().concat(), golden);
    packer.clear();
    assert!(packer.push(1, true, b"a") && packer.push(2, true, b"bc"));
    assert_eq!(packer.parts().concat(), [1, 0, 2, 0, 0, 0, 0, 0, b'a', b'b', b'c']);
}

#[test]
fn numbers_of_kinds_are_never_given_to_another_kind() {
    let names = [
        "EMPTY",
        "EAGER",
        "ENVELOPE",
        "FETCH",
        "DATA",
        "DONE",
        "CREDIT",
        "FLUSH",
        "FLUSH_REPLY",
        "LOOKUP",
        "LOOKUP_REPLY",
        "ENDPOINT_CLOSED",
        "WITHDRAW",
        "PROBE",
        "PROBE_REPLY",
        "SWITCH",
        "LANE_DOWN",
        "RESUME",
        "GOODBYE",
        "FENCE",
        "BUNDLE",
        "STRIPE",
        "LANES",
        "PUSH",
    ];
    for (number, name) in names.iter().enumerate() {
        let kind = Kind(number as u8);
        assert_eq!(kind.name(), Some(*name));
        assert_eq!(kind.is_sequenced(), (1..13).contains(&number) || [0, 20, 23].contains(&number));
    }
    assert_eq!(format!("{:?}", Kind(24)), "Unknown(0x18)");
    assert_eq!((Flags::IMMEDIATE.0, Flags::DESCRIPTOR.0, Flags::OPTIONAL.0, Flags::UNTAGGED.0), (1, 2, 4, 8));
    let stripe = Header::stripe(7, 0x0910, 0x0304_0506_0708);
    assert_eq!(
        (stripe.kind, stripe.tag, stripe.dst, stripe.src),
        (Kind::STRIPE, 7, 0x0506_0708, 0x0910_0304)
    );
    assert_eq!(stripe.stripe_place(), (0x0910, 0x0304_0506_0708));
    let data = Header::data(7, 0x0102_0304_0506_0708);
    assert_eq!((data.dst, data.src, data.offset()), (0x0506_0708, 0x0102_0304, 0x0102_0304_0506_0708));
    assert_eq!(Header::push(7, 0x0102_0304_0506_0708), Header { kind: Kind::PUSH, ..data });
    let fragments = (0..=255).map(Kind).filter(|kind| kind.is_fragment());
    assert_eq!(fragments.collect::<Vec<_>>(), [Kind::DATA, Kind::STRIPE, Kind::PUSH]);
}

#[test]
fn flags_are_sets_of_bits() {
    let (one, both) = (Flags::IMMEDIATE, Flags::IMMEDIATE.with(Flags::UNTAGGED));
    assert_eq!(both, Flags(0b1001));
    assert_eq!(both.with(one), both, "what is there stays");
    assert!(both.contains(one) && both.contains(both) && both.contains(Flags(0)));
    assert!(!one.contains(both) && !Flags(0).contains(one) && !one.contains(Flags::OPTIONAL));
    assert_eq!((both.without(one), one.without(Flags::OPTIONAL)), (Flags::UNTAGGED, one));
    assert_eq!(one.without(both), Flags(0));
}

#[test]
fn fragments_are_data_and_stripes() {
    let fragments = (0..=u8::MAX).map(Kind).filter(|kind| kind.is_fragment());
    assert!(fragments.eq([Kind::DATA, Kind::STRIPE]));
}
