//! What a guest is told: the folder of its job, which `tests/vm/init` reads inside, and the files of the host that it sees.
//!
//! Called by `guest`. The folder lies among the temporary files, is readable by nobody else, and goes with the [`Folder`]; what a
//! killed runner leaves is removed by the next one. Texts from the command line go into shell scripts, so all are quoted.

use super::Lacking;
use anyhow::{Context as _, Result, bail};
use rustix::fs::FlockOperation;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the guest sees the folder of its job.
pub(super) const INSIDE: &str = "/run/vm/job";
const PREFIX: &str = "sinew-vm-";
/// Folders of which the guest has its own.
const ITS_OWN: [&str; 5] = ["/tmp", "/run", "/dev", "/proc", "/sys"];
/// Variables of the caller that a command inside gets too, by how their names begin.
const PASSED_ON: [&str; 12] =
    ["SINEW_", "XTASK_", "RUST_", "IBV_", "RDMAV_", "RXE_", "SIW_", "MLX", "LANG", "LC_", "HOME", "TERM"];

/// Whether this machine can run the guest at all.
///
/// # Errors
/// [`Lacking`].
pub(super) fn can_run_here() -> Result<()> {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(());
    }
    bail!(Lacking("the guest is a program for Linux on x86-64".to_owned()))
}

/// Kinds of devices.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Device {
    /// RoCE v2.
    Rxe,
    /// iWARP.
    Siw,
}

impl Device {
    fn word(self) -> &'static str {
        match self {
            Self::Rxe => "rxe",
            Self::Siw => "siw",
        }
    }
}

/// Which of two guests it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// It has no other.
    Alone,
    First,
    Second,
}

impl Side {
    /// 1 or 2.
    pub(super) fn number(self) -> u8 {
        if self == Self::Second { 2 } else { 1 }
    }

    fn address(self) -> &'static str {
        if self == Self::Second { "10.77.0.2" } else { "10.77.0.1" }
    }

    fn peer(self) -> &'static str {
        match self {
            Self::Alone => "",
            Self::First => "10.77.0.2",
            Self::Second => "10.77.0.1",
        }
    }
}

/// What a guest is to do.
#[derive(Clone)]
pub(super) struct Job {
    /// The devices on `eth0`, and on both ends of the wire where there is one.
    pub(super) devices: Vec<Device>,
    /// Two more interfaces with a wire between them.
    pub(super) wire: bool,
    /// Variables beside those that are passed on.
    pub(super) environment: Vec<(String, OsString)>,
    /// Folders of the host that it may write.
    pub(super) shared: Vec<PathBuf>,
    /// Folders and files of the host that it must see even if they lie where it has its own.
    pub(super) shown: Vec<PathBuf>,
    /// Where the command starts.
    pub(super) folder: PathBuf,
    /// Program and arguments.
    pub(super) command: Vec<OsString>,
}

impl Job {
    /// Writes the folder of the job.
    ///
    /// # Errors
    /// When it cannot be written, or a path that must be seen is not there.
    pub(super) fn prepare(&self, side: Side, packages: &[(&str, PathBuf)], initrd: &[u8]) -> Result<Folder> {
        let folder = Folder::new()?;
        let write = |name: &str, text: &[u8]| {
            let path = folder.path.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        for (name, target) in packages {
            symlink(target, folder.path.join(name))?;
        }
        write("initrd", initrd)?;
        write("settings", self.settings(side).as_bytes())?;
        write("places", &self.places()?)?;
        write("command", &self.script(side))?;
        Ok(folder)
    }

    fn settings(&self, side: Side) -> String {
        let devices: Vec<&str> = self.devices.iter().map(|device| device.word()).collect();
        format!(
            "SIDE={} ADDRESS={} PEER={} DEVICES='{}' WIRE={} CLOCK_MHZ={}\n",
            side.number(),
            side.address(),
            side.peer(),
            devices.join(" "),
            if self.wire { "1" } else { "" },
            clock_mhz().unwrap_or_default()
        )
    }

    fn places(&self) -> Result<Vec<u8>> {
        let mut places = Vec::new();
        let mut shown = Vec::new();
        for path in self.shown.iter().chain([&self.folder]) {
            let there = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
            if ITS_OWN.iter().any(|own| there.starts_with(own) && there != Path::new(own)) {
                shown.push(there);
            }
        }
        shown.sort();
        shown.dedup();
        for path in &shown {
            // What lies in a folder that is shown is there already.
            if !shown.iter().any(|other| path != other && path.starts_with(other)) {
                line(&mut places, "show", path);
            }
        }
        for path in &self.shared {
            let there = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
            if !there.is_dir() || there == Path::new("/") {
                bail!("{} is no folder that can be shared", path.display());
            }
            line(&mut places, "share", &there);
        }
        Ok(places)
    }

    fn script(&self, side: Side) -> Vec<u8> {
        let mut script = Vec::new();
        let devices = self.devices.iter().map(|device| format!("{}0", device.word()));
        let devices = devices.collect::<Vec<_>>().join(" ");
        let own = [
            ("SINEW_VM", side.number().to_string()),
            ("SINEW_VM_ADDRESS", side.address().to_owned()),
            ("SINEW_VM_DEVICES", devices),
        ];
        let peer = (side != Side::Alone).then(|| ("SINEW_VM_PEER", side.peer().to_owned()));
        let own = own.into_iter().chain(peer).map(|(name, value)| (name.to_owned(), OsString::from(value)));
        let passed = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let passed = passed.filter(|(name, _)| is_passed_on(name));
        for (name, value) in passed.chain(own).chain(self.environment.iter().cloned()) {
            script.extend(format!("export {name}=").bytes());
            quote(&mut script, &value);
            script.push(b'\n');
        }
        script.extend(b"cd ");
        quote(&mut script, self.folder.as_os_str());
        script.extend(b" || exit 125\nexec");
        for word in &self.command {
            script.push(b' ');
            quote(&mut script, word);
        }
        script.push(b'\n');
        script
    }
}

fn line(script: &mut Vec<u8>, call: &str, path: &Path) {
    script.extend(call.bytes());
    script.push(b' ');
    quote(script, path.as_os_str());
    script.push(b'\n');
}

/// A word that the shell takes as it is.
fn quote(script: &mut Vec<u8>, word: &OsStr) {
    script.push(b'\'');
    for byte in word.as_bytes() {
        match byte {
            b'\'' => script.extend(b"'\\''"),
            byte => script.push(*byte),
        }
    }
    script.push(b'\'');
}

/// Whether the shell takes it as the name of a variable.
pub(super) fn is_name(name: &str) -> bool {
    let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    name.chars().all(letters) && name.starts_with(|first: char| !first.is_ascii_digit())
}

fn is_passed_on(name: &str) -> bool {
    is_name(name) && PASSED_ON.iter().any(|beginning| name.starts_with(beginning))
}

/// How fast the host's clock counts, as it tells it itself.
fn clock_mhz() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("cpu MHz"))?;
    let rate = line.split_once(':')?.1.trim();
    rate.parse::<f64>().is_ok().then(|| rate.to_owned())
}

/// The folder of one job.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    _held: File,
}

impl Folder {
    fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parent = std::env::temp_dir();
        remove_left_behind(&parent);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        let held = File::open(&path)?;
        rustix::fs::flock(&held, FlockOperation::LockShared)?;
        Ok(Self { path, _held: held })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next.
        _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes folders whose runner is gone. Those of other users cannot be opened.
fn remove_left_behind(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()))
    {
        let Ok(folder) = File::open(entry.path()) else { continue };
        // A folder that is just being made has no lock yet, but is new.
        let age = folder.metadata().ok().and_then(|data| data.modified().ok()?.elapsed().ok());
        let is_old = age.is_some_and(|age| age.as_secs() > 60);
        if is_old && rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(command: &[&str]) -> Job {
        Job {
            devices: vec![Device::Rxe, Device::Siw],
            wire: true,
            environment: vec![("WORD".to_owned(), "it's\n$HOME".into())],
            shared: Vec::new(),
            shown: Vec::new(),
            folder: std::env::temp_dir(),
            command: command.iter().map(OsString::from).collect(),
        }
    }

    #[test]
    fn words_reach_the_command_as_they_are() {
        let script = job(&["printf", "%s|", "a b", "it's", "\"$x\" \\", "", "$WORD"]).script(Side::Alone);
        let output =
            std::process::Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "a b|it's|\"$x\" \\||$WORD|");
        let script = job(&["printenv", "WORD"]).script(Side::Alone);
        let output =
            std::process::Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's\n$HOME\n");
    }

    #[test]
    fn folders_that_the_guest_has_itself_are_shown_by_name() {
        let parent = std::env::temp_dir().canonicalize().unwrap();
        let folder = parent.join(format!("xtask vm,job-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut job = job(&["true"]);
        let inside = folder.join("a file");
        fs::write(&inside, "").unwrap();
        job.shown = vec![inside.clone(), folder.clone(), PathBuf::from("/usr")];
        let places = String::from_utf8(job.places().unwrap()).unwrap();
        if parent.starts_with("/tmp") {
            assert_eq!(places, format!("show '{}'\n", folder.display()));
            job.shown = vec![inside.clone()];
            assert_eq!(job.places().unwrap(), format!("show '{}'\n", inside.display()).into_bytes());
        }
        job.shown.clear();
        job.shared = vec![folder.clone()];
        assert!(
            String::from_utf8(job.places().unwrap())
                .unwrap()
                .ends_with(&format!("share '{}'\n", folder.display()))
        );
        fs::remove_dir_all(folder).unwrap();
        assert!(job.places().unwrap_err().to_string().contains("cannot find"));
    }

    #[test]
    fn the_root_of_the_host_is_not_shared() {
        let mut job = job(&["true"]);
        job.shared = vec![PathBuf::from("/")];
        assert!(job.places().is_err());
    }

    #[test]
    fn names_of_variables_are_judged() {
        assert!(
            is_name("A_1")
                && is_name("_")
                && !is_name("1A")
                && !is_name("A-B")
                && !is_name("")
                && !is_name("A B")
        );
        assert!(is_passed_on("SINEW_REQUIRE") && !is_passed_on("PATH") && !is_passed_on("RUST_x y"));
    }

    #[test]
    fn two_guests_know_each_other() {
        let (first, second) = (job(&[]).settings(Side::First), job(&[]).settings(Side::Second));
        assert!(first.starts_with("SIDE=1 ADDRESS=10.77.0.1 PEER=10.77.0.2 DEVICES='rxe siw' WIRE=1"));
        assert!(second.starts_with("SIDE=2 ADDRESS=10.77.0.2 PEER=10.77.0.1 "));
        assert!(job(&[]).settings(Side::Alone).contains("PEER= "));
    }

    #[test]
    fn the_folder_of_a_job_goes_with_it() {
        let folder = Folder::new().unwrap();
        let path = folder.path.clone();
        assert!(path.is_dir());
        drop(folder);
        assert!(!path.exists());
    }
}
