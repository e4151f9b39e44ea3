//! The directory of an engine's sockets and of its user's secret: which it is, made if need be, and whether it can be trusted.
//!
//! Used by engines, by local transports and by whoever shows where it is. What lies in it is theirs; this module only knows
//! the directory.

use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Why a directory is not used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuntimeDirError {
    /// The directory.
    pub path: PathBuf,
    /// What the system says; `None` when it is the directory that cannot be trusted.
    pub errno: Option<Errno>,
    /// What the user can do.
    pub hint: &'static str,
}

impl std::fmt::Display for RuntimeDirError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "runtime directory {}: ", self.path.display())?;
        if let Some(errno) = self.errno {
            write!(f, "{errno}; ")?;
        }
        f.write_str(self.hint)
    }
}

impl std::error::Error for RuntimeDirError {}

/// Where it is when nobody names one: `$XDG_RUNTIME_DIR/sinew` if that variable names an existing directory by an absolute
/// path, else `/tmp/sinew-UID` of the effective user.
#[must_use]
pub fn default_path() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(runtime) if runtime.is_absolute() && runtime.is_dir() => runtime.join("sinew"),
        _ => PathBuf::from(format!("/tmp/sinew-{}", rustix::process::geteuid().as_raw())),
    }
}

/// The directory, made with mode 0700 if it is missing, and checked: never a link. The default one is this user's and for
/// this user alone. One that is named belongs to this user or to root, and others can put files into it only where they
/// cannot take away those of others (as in `/tmp`); who may enter it is its maker's choice.
///
/// # Errors
/// [`RuntimeDirError`]: it cannot be made, or cannot be trusted.
pub fn prepare(named: Option<&Path>) -> Result<PathBuf, RuntimeDirError> {
    let path = named.map_or_else(default_path, Path::to_owned);
    let error = |errno, hint| RuntimeDirError { path: path.clone(), errno, hint };
    match rustix::fs::mkdir(&path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => {
            return Err(error(
                Some(errno),
                "name a runtime directory that this user can write (SINEW_RUNTIME_DIR)",
            ));
        }
    }
    check(&path, named.is_some()).map_err(|(errno, hint)| error(errno, hint))?;
    Ok(path)
}

fn check(path: &Path, named: bool) -> Result<(), (Option<Errno>, &'static str)> {
    let looked = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW);
    let stat = looked.map_err(|errno| (Some(errno), "name a runtime directory that this user can enter"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err((None, "it is no directory but a link or a file; remove it, or name another one"));
    }
    let mode = stat.st_mode & 0o7777;
    if stat.st_uid != rustix::process::geteuid().as_raw() && !(named && stat.st_uid == 0) {
        return Err((None, "it belongs to another user; remove it, or name another one"));
    }
    if !named && mode & 0o077 != 0 {
        return Err((None, "others may enter it; chmod 700 it, or name another one"));
    }
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        return Err((None, "others may replace what is in it; chmod go-w it, or name another one"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sinew-runtime-dir-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("made");
        path
    }

    fn refused(path: &Path, named: bool, word: &str) {
        let (errno, hint) = check(path, named).expect_err("refused");
        assert!(errno.is_none() && hint.contains(word), "{hint}");
    }

    #[test]
    fn a_missing_directory_is_made_for_this_user_alone() {
        let room = scratch("made");
        let path = room.join("run");
        assert_eq!(prepare(Some(&path)), Ok(path.clone()));
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        let error = prepare(Some(&room.join("no/parent"))).expect_err("no parent");
        assert_eq!(error.errno, Some(Errno::NOENT));
        std::fs::remove_dir_all(room).expect("removed");
    }

    #[test]
    fn a_directory_that_leads_astray_is_refused() {
        let room = scratch("astray");
        let (real, link) = (room.join("real"), room.join("link"));
        std::fs::create_dir(&real).expect("made");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        refused(&link, true, "link");
        let chmod = |mode| std::fs::set_permissions(&real, PermissionsExt::from_mode(mode)).expect("mode");
        for (mode, named, default) in [
            (0o700, None, None),
            (0o755, None, Some("enter")),
            (0o770, Some("replace"), Some("enter")),
            (0o777, Some("replace"), Some("enter")),
            (0o1777, None, Some("enter")),
        ] {
            chmod(mode);
            for (is_named, word) in [(true, named), (false, default)] {
                match word {
                    Some(word) => refused(&real, is_named, word),
                    None => assert_eq!(check(&real, is_named), Ok(()), "{mode:o}"),
                }
            }
        }
        chmod(0o700);
        if std::os::unix::fs::chown(&real, Some(12_345), None).is_ok() {
            refused(&real, true, "another user");
        } else {
            println!("SKIP cannot give a directory away here");
        }
        std::fs::remove_dir_all(room).expect("removed");
    }
}
