//! The sockets in the runtime directory: cleaned of what dead engines left.

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Temporary files younger than this are left alone: their engine may just be starting, and not listen yet. A socket with its
/// last name has listened before it got that.
const STALE_AFTER: Duration = Duration::from_secs(10);
/// Files that one start looks at.
const LOOK_MAX: usize = 1024;

/// Removes sockets on which nobody listens. Best effort.
pub(super) fn remove_stale(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut left = LOOK_MAX;
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some(extension) = path.extension() else { continue };
        let age = match extension.as_bytes() {
            b"uds" => Duration::ZERO,
            b"new" => STALE_AFTER,
            _ => continue,
        };
        if left == 0 {
            return;
        }
        left -= 1;
        if is_socket_of_age(&path, age) && is_deserted(&path) {
            let _ = rustix::fs::unlink(&path);
        }
    }
}

fn is_socket_of_age(path: &Path, age: Duration) -> bool {
    let Ok(stat) = rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
        && now.tv_sec.saturating_sub(stat.st_ctime) >= age.as_secs() as i64
}

/// Asked by a datagram socket, which whoever listens there never hears of: it is refused in one way by nobody and in another by a
/// socket for streams.
fn is_deserted(path: &Path) -> bool {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let Ok(address) = SocketAddrUnix::new(path) else { return false };
    let Ok(fd) = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None) else {
        return false;
    };
    rustix::net::connect(&fd, &address) == Err(Errno::CONNREFUSED)
}
