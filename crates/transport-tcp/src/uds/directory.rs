//! The sockets in the runtime directory: cleaned of what dead engines left.

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::path::Path;
use std::time::Duration;

/// Files younger than this are left alone: their engine may just be starting, and most are alive.
const STALE_AFTER: Duration = Duration::from_secs(10);
/// Files that one start looks at.
const LOOK_MAX: usize = 64;

/// Removes sockets on which nobody listens. Best effort.
pub(super) fn remove_stale(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let candidates = entries.flatten().filter(|entry| {
        let path = entry.path();
        path.extension().is_some_and(|extension| extension == "uds" || extension == "new")
    });
    for entry in candidates.take(LOOK_MAX) {
        let path = entry.path();
        if is_old_socket(&path) && is_deserted(&path) {
            let _ = rustix::fs::unlink(&path);
        }
    }
}

fn is_old_socket(path: &Path) -> bool {
    let Ok(stat) = rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
        && now.tv_sec.saturating_sub(stat.st_ctime) >= STALE_AFTER.as_secs() as i64
}

fn is_deserted(path: &Path) -> bool {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let Ok(address) = SocketAddrUnix::new(path) else { return false };
    let Ok(fd) = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None) else {
        return false;
    };
    rustix::net::connect(&fd, &address) == Err(Errno::CONNREFUSED)
}
