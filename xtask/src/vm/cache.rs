//! Where the guest is kept, under which key, and who may touch it when.
//!
//! Called by `build`, which writes, and by everything that boots a guest, which reads. A part of the guest (the kernel, the
//! system around it) is a folder that is put in place whole, by a rename, under a name made of everything that it depends on. Nothing
//! changes it afterwards.

use crate::workspace::Workspace;
use anyhow::{Context as _, Result};
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Names another folder than `target/vm`, for several checkouts to share, or for a cache between runs of CI.
const FOLDER_VARIABLE: &str = "SINEW_VM_CACHE";
/// How folders that are built in are called, before the number of the process.
const WORK: &str = "work-";
/// The file in a part that says which versions of which packages it was made of.
pub(super) const MADE_OF: &str = "made-of";

/// The folder of guests.
pub(super) struct Cache {
    pub(super) folder: PathBuf,
}

/// A part of the guest that is in place. It is not removed while somebody holds this.
pub(super) struct Part {
    pub(super) folder: PathBuf,
    _held: File,
}

impl Cache {
    /// The folder that is meant; it need not be there.
    pub(super) fn of(workspace: &Workspace) -> Self {
        let named = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty());
        let folder = named.map_or_else(|| workspace.target.join("vm"), PathBuf::from);
        Self { folder: std::path::absolute(&folder).unwrap_or(folder) }
    }

    /// Waits until nobody else builds.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn lock(&self) -> Result<File> {
        let path = self.folder.join("lock");
        fs::create_dir_all(&self.folder)
            .and_then(|()| File::options().create(true).append(true).open(&path))
            .with_context(|| format!("cannot write {}", path.display()))
            .and_then(|file| {
                if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                    println!("      another build of the guest is under way in {}", self.folder.display());
                    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
                }
                Ok(file)
            })
    }

    /// A new folder to build in, for who holds the lock. Those of builds that were killed are removed, as far as what they have left
    /// running lets go of them.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn work(&self) -> Result<PathBuf> {
        for entry in fs::read_dir(&self.folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(WORK) {
                _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = self.folder.join(format!("{WORK}{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    fn place(&self, kind: &str, key: u64) -> PathBuf {
        self.folder.join(format!("{kind}-{key:016x}"))
    }

    /// The part of that key, when it is there.
    pub(super) fn part(&self, kind: &str, key: u64) -> Option<Part> {
        let folder = self.place(kind, key);
        let held = File::open(&folder).ok()?;
        rustix::fs::flock(&held, FlockOperation::LockShared).ok()?;
        // Between opening and locking it may have been removed.
        folder.join(MADE_OF).is_file().then_some(Part { folder, _held: held })
    }

    /// Puts a finished folder in the place of that key and removes other ones of the kind that nobody uses.
    ///
    /// # Errors
    /// When a folder cannot be moved or removed.
    pub(super) fn put(&self, kind: &str, key: u64, made: &Path) -> Result<()> {
        let place = self.place(kind, key);
        remove_unused(&place)?;
        fs::rename(made, &place).with_context(|| format!("cannot make {}", place.display()))?;
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let name = entry.file_name();
            let is_old = name.to_string_lossy().starts_with(&format!("{kind}-")) && entry.path() != place;
            if is_old {
                remove_unused(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Removes a part unless somebody runs it. One that is to be replaced at once is moved aside first.
fn remove_unused(part: &Path) -> Result<()> {
    let Ok(held) = File::open(part) else { return Ok(()) };
    let aside = part.with_extension(format!("old-{}", std::process::id()));
    if rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() {
        fs::rename(part, &aside)?;
        fs::remove_dir_all(&aside).with_context(|| format!("cannot remove {}", aside.display()))?;
    }
    Ok(())
}

/// 64 bits that change with any of the texts or their order (FNV-1a: it must be the same in every build of this runner).
pub(super) fn key(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Free space for an ordinary user where `folder` is or would be.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|folder| folder.is_dir())?;
    let space = rustix::fs::statvfs(there).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(name: &str) -> Cache {
        let folder = std::env::temp_dir().join(format!("xtask-vm-cache-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Cache { folder }
    }

    fn put(cache: &Cache, key: u64) {
        let made = cache.folder.join("work");
        fs::create_dir_all(&made).unwrap();
        fs::write(made.join(MADE_OF), "").unwrap();
        cache.put("kernel", key, &made).unwrap();
    }

    #[test]
    fn a_key_changes_with_every_text_and_their_borders() {
        let keys = [key(&["ab", "c"]), key(&["a", "bc"]), key(&["abc"]), key(&["c", "ab"]), key(&[])];
        let different: std::collections::BTreeSet<u64> = keys.into_iter().collect();
        assert_eq!(different.len(), keys.len());
    }

    #[test]
    fn a_new_part_replaces_the_old_one_but_not_while_it_is_used() {
        let cache = cache("replace");
        put(&cache, 1);
        let used = cache.part("kernel", 1).unwrap();
        put(&cache, 2);
        assert!(cache.part("kernel", 1).is_some() && cache.part("kernel", 2).is_some());
        drop(used);
        put(&cache, 3);
        assert!(cache.part("kernel", 1).is_none() && cache.part("kernel", 2).is_none());
        assert!(cache.part("kernel", 3).is_some() && cache.part("system", 3).is_none());
        fs::remove_dir_all(cache.folder).unwrap();
    }

    #[test]
    fn a_part_without_its_list_is_none() {
        let cache = cache("halves");
        fs::create_dir_all(cache.place("kernel", 1)).unwrap();
        assert!(cache.part("kernel", 1).is_none());
        fs::remove_dir_all(cache.folder).unwrap();
    }

    #[test]
    fn what_a_killed_build_has_left_is_removed_by_the_next() {
        let cache = cache("left");
        let left = cache.folder.join("work-1/source");
        fs::create_dir_all(&left).unwrap();
        let work = cache.work().unwrap();
        assert!(work.is_dir() && !left.exists());
        fs::remove_dir_all(cache.folder).unwrap();
    }

    #[test]
    fn free_space_is_told_of_folders_that_are_not_there_yet() {
        assert!(free_bytes(&std::env::temp_dir().join("not/there/yet")).unwrap() > 0);
    }
}
