//! The header as byte streams carry it: 24 bytes, little endian, then the body.
//!
//! ```text
//!  0 u32 body length   4 u8 kind   5 u8 flags   6 u16 check   8 u32 dst   12 u32 src   16 u64 tag
//! ```

use super::{Flags, Header, Kind};

/// Bytes of a header in a stream.
pub const HEADER_LEN: usize = 24;

/// Why 24 bytes are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// The check field does not fit the rest: the stream is out of step or the peer is broken.
    Check {
        /// What the bytes call for.
        expected: u16,
        /// What they say.
        found: u16,
    },
}

impl core::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Check { expected, found } => {
                write!(
                    f,
                    "frame header check is {found:#06x}, expected {expected:#06x}: the stream is out of step"
                )
            }
        }
    }
}

impl core::error::Error for HeaderError {}

/// Writes the header of a frame whose body has `body_len` bytes.
#[must_use]
#[inline]
pub fn encode(header: &Header, body_len: u32) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    let first = u64::from(body_len) | u64::from(header.kind.0) << 32 | u64::from(header.flags.0) << 40;
    let second = u64::from(header.dst) | u64::from(header.src) << 32;
    let check = check(first, second, header.tag);
    out[..8].copy_from_slice(&(first | u64::from(check) << 48).to_le_bytes());
    out[8..16].copy_from_slice(&second.to_le_bytes());
    out[16..].copy_from_slice(&header.tag.to_le_bytes());
    out
}

/// Reads a header and the length of its body. The length is the peer's word: check it against the lane's limit.
///
/// # Errors
/// [`HeaderError::Check`] when the bytes cannot be a header.
#[inline]
pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<(Header, u32), HeaderError> {
    let word = |at: usize| {
        u64::from_le_bytes([
            bytes[at],
            bytes[at + 1],
            bytes[at + 2],
            bytes[at + 3],
            bytes[at + 4],
            bytes[at + 5],
            bytes[at + 6],
            bytes[at + 7],
        ])
    };
    let (first, second, tag) = (word(0), word(8), word(16));
    let found = (first >> 48) as u16;
    let expected = check(first & 0x0000_ffff_ffff_ffff, second, tag);
    if found != expected {
        return Err(HeaderError::Check { expected, found });
    }
    let header = Header {
        kind: Kind((first >> 32) as u8),
        flags: Flags((first >> 40) as u8),
        dst: (second & 0xffff_ffff) as u32,
        src: (second >> 32) as u32,
        tag,
    };
    Ok((header, (first & 0xffff_ffff) as u32))
}

/// Finds a stream that is out of step; no protection against a peer that means harm.
#[inline]
fn check(first: u64, second: u64, tag: u64) -> u16 {
    let mixed = (first ^ second.rotate_left(17) ^ tag.rotate_left(31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as u16 ^ 0x5157
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_out_of_step_is_told_with_what_was_found() {
        let text = HeaderError::Check { expected: 0x1234, found: 0x5 }.to_string();
        assert_eq!(text, "frame header check is 0x0005, expected 0x1234: the stream is out of step");
    }

    #[test]
    fn a_header_survives_the_round_trip_and_any_flipped_bit_is_found() {
        let header = Header {
            kind: Kind::EAGER,
            flags: Flags::IMMEDIATE,
            dst: 7,
            src: 0xffff_fffe,
            tag: 0x0123_4567_89ab_cdef,
        };
        let bytes = encode(&header, 4096);
        assert_eq!(decode(&bytes), Ok((header, 4096)));
        for bit in 0..HEADER_LEN * 8 {
            let mut broken = bytes;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&broken).is_err(), "bit {bit}");
        }
    }
}
