//! Where `sinew listen` puts the bytes: standard output, something special, or a file that gets its name in the end.
//!
//! What had the name of the file stays as it is until everything is right, however this process ends.

use crate::failure::Failure;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Where the bytes go.
pub(super) enum Sink {
    Stdout,
    /// Something that is no plain file, as `/dev/null` or a pipe.
    Special(File, PathBuf),
    /// A file without a name, which the system forgets when this process ends.
    Unnamed(File, PathBuf),
    /// Where there are no such files: one beside its place.
    Part {
        file: File,
        part: PathBuf,
        path: PathBuf,
        kept: bool,
    },
}

impl Sink {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        let failed = |error| cannot_write(path, &error);
        if let Ok(meta) = std::fs::metadata(path)
            && !meta.is_file()
        {
            let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
            return Ok(Self::Special(file, path.to_owned()));
        }
        let Some(part) = part_of(path) else {
            return Err(Failure::usage(format!("{} names no file", path.display())));
        };
        if let Some(file) = unnamed_in(path.parent()) {
            return Ok(Self::Unnamed(file, path.to_owned()));
        }
        let file = OpenOptions::new().write(true).create_new(true).open(&part).map_err(failed)?;
        Ok(Self::Part { file, part, path: path.to_owned(), kept: false })
    }

    pub(super) fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout => std::io::stdout().lock().write_all(data).map_err(|error| Failure::stdout(&error)),
            Self::Special(file, path) | Self::Unnamed(file, path) | Self::Part { file, path, .. } => {
                file.write_all(data).map_err(|error| cannot_write(path, &error))
            }
        }
    }

    /// Everything is right: the file gets its name.
    pub(super) fn keep(&mut self) -> Result<(), Failure> {
        match self {
            Self::Stdout => std::io::stdout().lock().flush().map_err(|error| Failure::stdout(&error)),
            Self::Special(..) => Ok(()),
            Self::Unnamed(file, path) => {
                let done = file.sync_all().and_then(|()| name(file, path));
                done.map_err(|error| cannot_write(path, &error))
            }
            Self::Part { file, part, path, kept } => {
                let done = file.sync_all().and_then(|()| std::fs::rename(&*part, &*path));
                done.map_err(|error| cannot_write(path, &error))?;
                *kept = true;
                Ok(())
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Self::Part { part, kept: false, .. } = self {
            let _ = std::fs::remove_file(part);
        }
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {error}", path.display()))
}

/// `.FILE.PID.part` beside `path`.
fn part_of(path: &Path) -> Option<PathBuf> {
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name()?);
    hidden.push(format!(".{}.part", std::process::id()));
    Some(path.with_file_name(hidden))
}

/// A file without a name on the file system of a directory. `None`: not there, or it could not be given a name.
fn unnamed_in(directory: Option<&Path>) -> Option<File> {
    let directory = directory.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    let file = File::from(rustix::fs::open(directory, flags, mode).ok()?);
    // By this it gets its name, without a privilege.
    std::fs::metadata(handle_of(&file)).ok()?;
    Some(file)
}

fn handle_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Gives a file without a name its own, in one step, also where something else has it.
fn name(file: &File, path: &Path) -> std::io::Result<()> {
    let link = |to: &Path| rustix::fs::linkat(CWD, handle_of(file), CWD, to, AtFlags::SYMLINK_FOLLOW);
    match link(path) {
        // A link replaces nothing, a renaming does.
        Err(rustix::io::Errno::EXIST) => {
            let part = part_of(path).ok_or(rustix::io::Errno::INVAL)?;
            link(&part)?;
            std::fs::rename(&part, path).inspect_err(|_| drop(std::fs::remove_file(&part)))
        }
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own, which is gone in the end.
    struct Room(PathBuf);

    impl Room {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sinew-sink-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn entries(&self) -> usize {
            std::fs::read_dir(&self.0).expect("a directory").count()
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn part(path: &Path) -> Sink {
        let part = part_of(path).expect("a name");
        let file = OpenOptions::new().write(true).create_new(true).open(&part).expect("a file");
        Sink::Part { file, part, path: path.to_owned(), kept: false }
    }

    #[test]
    fn a_file_gets_its_name_in_the_end_and_replaces_what_had_it_only_then() {
        let room = Room::new("named");
        let path = room.0.join("copy");
        let open = |path: &Path| Sink::open(Some(path)).map_err(|_| "not opened").expect("a sink");
        for make in [open, part] {
            for content in ["first", "second"] {
                let before = std::fs::read(&path).unwrap_or_default();
                for keeps in [false, true] {
                    let mut sink = make(&path);
                    sink.write(content.as_bytes()).map_err(|_| "not written").expect("room");
                    assert_eq!(std::fs::read(&path).unwrap_or_default(), before);
                    if keeps {
                        sink.keep().map_err(|_| "not kept").expect("a name");
                    }
                }
                assert_eq!(std::fs::read_to_string(&path).expect("the file"), content);
                assert_eq!(room.entries(), 1, "nothing is left beside it");
            }
            std::fs::remove_file(&path).expect("it is there");
        }
    }
}
