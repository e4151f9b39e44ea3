//! The directory of the sockets: found or made, checked to be this user's, cleaned of what dead engines left.

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sinew_transport::{ErrorKind, TransportError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files younger than this are left alone: their engine may just be starting, and most are alive.
const STALE_AFTER: Duration = Duration::from_secs(10);
/// Files that one start looks at.
const LOOK_MAX: usize = 64;

/// The directory, made if need be.
pub(super) fn open(named: Option<&Path>) -> Result<PathBuf, TransportError> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => default_path(),
    };
    match rustix::fs::mkdir(&path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => {
            return Err(TransportError::os(errno, "make the directory", path.display().to_string())
                .hint("name another one with the option for the runtime directory"));
        }
    }
    check(&path, named.is_some())?;
    Ok(path)
}

fn default_path() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(runtime) if runtime.is_absolute() && runtime.is_dir() => runtime.join("sinew"),
        _ => PathBuf::from(format!("/tmp/sinew-{}", rustix::process::geteuid().as_raw())),
    }
}

/// A directory, not a link to one; of this user and for this user alone. One that was named by the user may be shared, as
/// long as only its owner removes files from it.
fn check(path: &Path, named: bool) -> Result<(), TransportError> {
    let shown = || path.display().to_string();
    let refuse = |hint: &str| {
        Err(TransportError::new(ErrorKind::PermissionDenied, "use the directory", shown()).hint(hint))
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let os = |errno| TransportError::os(errno, "use the directory", shown());
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(os)?;
    let stat = rustix::fs::fstat(&fd).map_err(os)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return refuse(
            "it is no directory but a link or a file: somebody may want to lead this program astray",
        );
    }
    let mode = stat.st_mode & 0o7777;
    let others_write = mode & 0o022 != 0;
    let sticky = mode & 0o1000 != 0;
    if named && (sticky || !others_write) {
        return Ok(());
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return refuse("it belongs to another user: remove it, or name another runtime directory");
    }
    if mode & 0o077 != 0 {
        return refuse("others may enter it: `chmod 700` it, or name another runtime directory");
    }
    Ok(())
}

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
