//! Percent-escapes, so that an address is one word for a shell and separators stay separators.

use super::{AddressError, AddressErrorKind};

/// What stands for itself: nothing that a POSIX shell interprets inside a word (brackets only where a file of that very
/// name exists), nor the comma that separates.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'.' | b'_' | b'-' | b'+' | b':' | b'/' | b'@' | b'=' | b'[' | b']')
}

pub(super) fn escape(text: &str, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// Undoes [`escape`]. What comes out may only be printable ASCII; positions are those in `text`.
pub(super) fn unescape(text: &str) -> Result<String, AddressError> {
    let (bytes, mut out, mut at) = (text.as_bytes(), String::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let mut byte = bytes[at];
        let from = at;
        if byte == b'%' {
            let digit = |at: usize| bytes.get(at).and_then(|digit| char::from(*digit).to_digit(16));
            let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
                return Err(AddressErrorKind::BadEscape.at(at));
            };
            byte = (high * 16 + low) as u8;
            at += 2;
        }
        at += 1;
        if !byte.is_ascii_graphic() {
            return Err(AddressErrorKind::BadBody.at(from));
        }
        out.push(char::from(byte));
    }
    Ok(out)
}
