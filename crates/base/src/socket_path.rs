//! The path of a socket as the body of a locator: bytes that a locator may not have are written as `%XX`, and so is `%`.
//!
//! For the transports whose locators are paths. It opens nothing and knows no runtime directory.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A path as the body of a locator.
#[must_use]
pub fn to_body(path: &Path) -> String {
    let mut body = String::new();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            body.push(byte as char);
        } else {
            body.push_str(&format!("%{byte:02X}"));
        }
    }
    body
}

/// The path in the body of a locator; `None` when it is no absolute path.
#[must_use]
pub fn from_body(body: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(body.len());
    let mut rest = body.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok().filter(|&byte| byte != 0)?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    let path = PathBuf::from(OsString::from_vec(bytes));
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_survives_the_locator() {
        for text in ["/tmp/a b/é%41.sock", "/x", "/tmp/\u{1}\n.sock"] {
            let body = to_body(Path::new(text));
            assert!(body.bytes().all(|byte| byte.is_ascii_graphic()), "{body}");
            assert_eq!(from_body(&body), Some(PathBuf::from(text)));
        }
        for bad in ["relative", "/a%", "/a%4", "/a%zz", "/a%00", "/a%+1", ""] {
            assert_eq!(from_body(bad), None, "{bad}");
        }
    }
}
