//! The private directory of the sockets: which it is, whether it can be trusted, and what dead processes left there.
//!
//! Called when a domain opens and when it dials. A locator's body is the socket's path, with bytes that a locator may not
//! have written as `%XX`.

use crate::options::ShmOptions;
use crate::sys::socket;
use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;
use sinew_transport::{ErrorKind, TransportError};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Ending of socket names.
const SUFFIX: &str = ".sock";
/// Dead sockets removed by one opening domain, at most.
const CLEAN_MAX: usize = 256;

/// The directory, existing and checked.
pub(crate) fn prepare(options: &ShmOptions) -> Result<PathBuf, TransportError> {
    if let Some(directory) = &options.runtime_dir {
        check(directory, false)?;
        return Ok(directory.clone());
    }
    let directory = default();
    match rustix::fs::mkdir(&directory, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => {
            return Err(TransportError::os(errno, "mkdir", directory.display().to_string())
                .hint("set runtime_dir to a directory that this user can write"));
        }
    }
    check(&directory, true)?;
    Ok(directory)
}

fn default() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(base) if Path::new(&base).is_absolute() => Path::new(&base).join("sinew"),
        _ => PathBuf::from(format!("/tmp/sinew-{}", rustix::process::geteuid().as_raw())),
    }
}

/// Refuses a directory that somebody else could have laid out for us.
fn check(directory: &Path, private: bool) -> Result<(), TransportError> {
    let object = || directory.display().to_string();
    let stat = rustix::fs::statat(CWD, directory, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| {
        TransportError::os(errno, "stat", object()).hint("runtime_dir must be an existing directory")
    })?;
    let refuse = |why: &str| {
        Err(TransportError::new(ErrorKind::PermissionDenied, "runtime directory", object()).hint(why))
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return refuse("it is a link or no directory; remove it or set runtime_dir elsewhere");
    }
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid != me && (private || stat.st_uid != 0) {
        return refuse("it belongs to another user; remove it or set runtime_dir elsewhere");
    }
    let mode = stat.st_mode & 0o7777;
    if private && mode & 0o077 != 0 {
        return refuse("others may enter it; chmod 700, or set runtime_dir elsewhere");
    }
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        return refuse("anybody may replace what is in it; take the write permission of others away");
    }
    Ok(())
}

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
