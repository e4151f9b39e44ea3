//! Asks beforehand what the kernel would otherwise answer with a signal: `RLIMIT_FSIZE` (`SIGXFSZ`), and the memory that
//! the machine and the control group have left (the out-of-memory killer: a memfd has no limit of its own).
//!
//! Called before memory is made, and again for each piece of a large one. Best effort: others may take the rest meanwhile.

use rustix::process::{Resource, getrlimit};
use sinew_transport::{ErrorKind, TransportError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether a file of `len` bytes may be made.
pub(crate) fn check_file_size(len: u64, what: &str) -> Result<(), TransportError> {
    if let Some(limit) = getrlimit(Resource::Fsize).current
        && limit < len
    {
        return Err(TransportError::new(ErrorKind::Limit, "memfd_create", format!("{what} of {len} bytes"))
            .hint(format!("the limit of file sizes is {limit} bytes; raise it (ulimit -f, LimitFSIZE=)")));
    }
    Ok(())
}

/// Whether `len` bytes more can be had.
pub(crate) fn check_room(len: u64, what: &str) -> Result<(), TransportError> {
    if take_known_room(len) {
        return Ok(());
    }
    let machine = machine_room(Path::new("/proc/meminfo"));
    if let Some(room) = machine
        && room < len.saturating_add(KEEP)
    {
        return Err(TransportError::new(ErrorKind::Limit, "memfd_create", format!("{what} of {len} bytes"))
            .hint(format!("this machine has {room} bytes of memory left; free some or ask for less")));
    }
    let group = check_group(len, what)?;
    let room = machine.unwrap_or(u64::MAX).min(group.unwrap_or(u64::MAX));
    *known() = Some((Instant::now(), room.saturating_sub(len)));
    Ok(())
}

/// What was left when it was last asked; asking takes a fifth of a millisecond, too much for every lane.
fn known() -> MutexGuard<'static, Option<(Instant, u64)>> {
    static KNOWN: Mutex<Option<(Instant, u64)>> = Mutex::new(None);
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a small piece of what was plenty a moment ago.
fn take_known_room(len: u64) -> bool {
    match &mut *known() {
        Some((asked, room)) if len < 1 << 20 && *room > PLENTY && asked.elapsed() < FRESH => {
            *room -= len;
            true
        }
        _ => false,
    }
}

const PLENTY: u64 = 256 << 20;
const FRESH: Duration = Duration::from_secs(1);

fn check_group(len: u64, what: &str) -> Result<Option<u64>, TransportError> {
    match control_group_room(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")) {
        Some((room, group)) if room < len => {
            Err(TransportError::new(ErrorKind::Limit, "memfd_create", format!("{what} of {len} bytes")).hint(
                format!(
                    "the control group {} has {room} bytes left; raise its memory limit",
                    group.display()
                ),
            ))
        }
        room => Ok(room.map(|(room, _)| room)),
    }
}

/// Bytes that are left to the machine.
const KEEP: u64 = 32 << 20;

/// Bytes that the machine can give without swapping.
fn machine_room(meminfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes that the tightest control group still gives, and which it is. `None` when nothing limits or nothing is known.
fn control_group_room(membership: &Path, root: &Path) -> Option<(u64, PathBuf)> {
    let text = std::fs::read_to_string(membership).ok()?;
    let mut tightest: Option<(u64, PathBuf)> = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (base, limit, usage, cache) = if controllers.is_empty() {
            (root.to_path_buf(), "memory.max", "memory.current", "inactive_file ")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        } else {
            continue;
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let group = base.join(group);
            let number =
                |file: &str| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
            let (Some(limit), Some(usage)) = (number(limit), number(usage)) else { continue };
            if limit >= 1 << 60 {
                continue;
            }
            let reclaimable = cached(&group, cache);
            let room = limit.saturating_sub(usage.saturating_sub(reclaimable));
            if tightest.as_ref().is_none_or(|(least, _)| room < *least) {
                tightest = Some((room, group));
            }
        }
    }
    tightest
}

/// File pages of a group that can be dropped at once.
fn cached(group: &Path, key: &str) -> u64 {
    let Ok(text) = std::fs::read_to_string(group.join("memory.stat")) else { return 0 };
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_on_the_way_to_the_root_decides() {
        let dir = std::env::temp_dir().join(format!("sinew-limits-{}", std::process::id()));
        let deep = dir.join("sys/a/b");
        std::fs::create_dir_all(&deep).expect("made");
        std::fs::write(dir.join("self"), "3:cpu:/\n0::/a/b\n").expect("written");
        let write = |at: &Path, limit: &str, usage: &str| {
            std::fs::write(at.join("memory.max"), limit).expect("written");
            std::fs::write(at.join("memory.current"), usage).expect("written");
        };
        write(&deep, "max\n", "5\n");
        write(&dir.join("sys/a"), "1000\n", "600\n");
        std::fs::write(dir.join("sys/a/memory.stat"), "anon 1\ninactive_file 100\n").expect("written");
        let room = control_group_room(&dir.join("self"), &dir.join("sys"));
        std::fs::remove_dir_all(&dir).expect("removed");
        assert_eq!(room.map(|(room, _)| room), Some(500));
    }
}
