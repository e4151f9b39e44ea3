//! The user's own secret: it proves on loopback TCP that both ends are the same user, by a file only that user can read.

use crate::error::BuildError;
use rustix::fs::{Mode, OFlags};
use sinew_proto::handshake::Secret;
use sinew_transport::{ErrorKind, TransportError};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zeroize::Zeroizing;

const NAME: &str = "secret";
const LEN: usize = 32;

/// Reads the secret, or makes it. The directory is the transports' runtime directory.
pub(crate) fn load(dir: Option<&Path>) -> Result<Secret, BuildError> {
    let dir = sinew_base::runtime_dir::prepare(dir).map_err(|error| BuildError::System(error.into()))?;
    let path = dir.join(NAME);
    for _ in 0..3 {
        match read(&path) {
            Ok(Some(secret)) => return Ok(Secret::new(&*secret)),
            Ok(None) => make(&dir, &path)?,
            Err(error) => return Err(error),
        }
    }
    Err(wrong(&path, "is not a secret of this version; remove it"))
}

fn wrong(path: &Path, hint: &str) -> BuildError {
    BuildError::System(
        TransportError::new(ErrorKind::PermissionDenied, "user secret", path.display().to_string())
            .hint(hint),
    )
}

fn failed(path: &Path, error: &std::io::Error) -> BuildError {
    let errno = rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO);
    let hint = match errno {
        rustix::io::Errno::MFILE | rustix::io::Errno::NFILE => "",
        _ => "choose a writable private directory by SINEW_RUNTIME_DIR",
    };
    BuildError::System(TransportError::os(errno, "user secret", path.display().to_string()).hint(hint))
}

fn read(path: &Path) -> Result<Option<Zeroizing<[u8; LEN]>>, BuildError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(path, &errno.into())),
    };
    let meta = file.metadata().map_err(|error| failed(path, &error))?;
    if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(wrong(path, "must belong to this user and be readable by nobody else (chmod 600)"));
    }
    if meta.len() != LEN as u64 {
        return Err(wrong(path, "is not a secret of this version; remove it"));
    }
    let mut secret = Zeroizing::new([0; LEN]);
    (&file).read_exact(&mut *secret).map_err(|error| failed(path, &error))?;
    Ok(Some(secret))
}

/// Makes the file whole before it has its name, so that nobody reads half of it.
fn make(dir: &Path, path: &Path) -> Result<(), BuildError> {
    let random = |errno: rustix::io::Errno| failed(path, &errno.into());
    let secret: Zeroizing<[u8; LEN]> = Zeroizing::new(crate::system::random().map_err(random)?);
    let name: [u8; 4] = crate::system::random().map_err(random)?;
    let own = dir.join(format!(".secret-{}-{}", std::process::id(), crate::hex(&name)));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let made = rustix::fs::open(&own, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| failed(&own, &errno.into()))?;
    let written = std::fs::File::from(made).write_all(&*secret);
    let linked = written.and_then(|()| match std::fs::hard_link(&own, path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let _ = std::fs::remove_file(&own);
    linked.map_err(|error| failed(path, &error))
}
