//! The sockets in the runtime directory: their names, and what dead processes left there.
//!
//! Called when a domain opens.

use crate::sys::socket;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
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
