//! The sockets in the runtime directory: their names, and what dead processes left there.
//!
//! Called when a domain opens and when it dials. A locator's body is the socket's path, with bytes that a locator may not
//! have written as `%XX`.

use crate::sys::socket;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Ending of socket names.
const SUFFIX: &str = ".sock";
/// Dead sockets removed by one opening domain, at most.
const CLEAN_MAX: usize = 256;

/// The socket path of an engine.
pub(crate) fn socket_path(directory: &Path, engine: &[u8; 16]) -> PathBuf {
    let mut name: String = engine.iter().map(|byte| format!("{byte:02x}")).collect();
    name.push_str(SUFFIX);
    directory.join(name)
}

/// Removes the socket files of processes that are gone.
pub(crate) fn clean(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let ours = |name: &OsStr| {
        name.as_bytes()
            .strip_suffix(SUFFIX.as_bytes())
            .is_some_and(|id| id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit))
    };
    let named = entries.flatten().filter(|entry| ours(&entry.file_name()));
    for path in named.map(|entry| entry.path()).filter(|path| socket::is_stale(path)).take(CLEAN_MAX) {
        let _ = std::fs::remove_file(path);
    }
}

/// A path as the body of a locator.
pub(crate) fn to_body(path: &Path) -> String {
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
pub(crate) fn from_body(body: &str) -> Option<PathBuf> {
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
    let path = PathBuf::from(std::ffi::OsString::from_vec(bytes));
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
