//! Debian packages without installing them: which versions the mirror has, fetching them, unpacking them into a folder.
//!
//! Called by `build`. It uses `apt-get` with a state of its own in the folder of the build, so that the machine's own lists stay as
//! they are and an ordinary user can do it. apt checks the signatures.

use super::Lacking;
use crate::process::{self, Finished};
use crate::setup;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);
/// Whose signatures are believed.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Names another mirror than the one that this machine's own apt uses.
const MIRROR_VARIABLE: &str = "SINEW_VM_MIRROR";
const MIRROR: &str = "http://deb.debian.org/debian";
const MIRROR_SECURITY: &str = "http://deb.debian.org/debian-security";
/// Folders of the old layout that are links into `usr` in the new one.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// What nobody reads in a guest.
const PAGES: [&str; 6] = ["doc", "man", "locale", "lintian", "bash-completion", "bug"];

/// `tests/vm/packages.toml`; what each list is for is told there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    pub(super) releases: Vec<String>,
    pub(super) kernel: String,
    pub(super) boot: String,
    pub(super) over: Vec<String>,
    pub(super) under: Vec<String>,
}

/// A package as the mirror has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// Its file, in the folder of the mirror once it is fetched.
    pub(super) file: String,
}

/// Debian's archive, seen through apt.
pub(super) struct Mirror<'a> {
    folder: PathBuf,
    log: &'a Path,
}

impl<'a> Mirror<'a> {
    /// Fetches the lists of packages into `folder`.
    ///
    /// # Errors
    /// [`Lacking`] when there is no apt, no key to check signatures with, or no network.
    pub(super) fn open(folder: PathBuf, releases: &[String], log: &'a Path) -> Result<Self> {
        if !setup::has("apt-get") || !setup::has("dpkg-deb") {
            bail!(Lacking("the guest is made of Debian packages, and there is no apt-get here".to_owned()));
        }
        if !Path::new(KEYRING).is_file() && setup::may_install() {
            setup::install_packages(&["debian-archive-keyring"], log)?;
        }
        if !Path::new(KEYRING).is_file() {
            bail!(Lacking(format!("{KEYRING} is missing: apt-get install debian-archive-keyring")));
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mirror = Self { folder, log };
        mirror.configure(releases)?;
        let updated = mirror.apt(&["update"])?;
        if !updated.ok {
            bail!(Lacking(format!("no list of Debian packages can be fetched: {}", complaint(&updated))));
        }
        Ok(mirror)
    }

    fn configure(&self, releases: &[String]) -> Result<()> {
        let mut mirrors = sites();
        if let Some(named) = std::env::var(MIRROR_VARIABLE).ok().filter(|named| !named.is_empty()) {
            mirrors.0 = named;
        }
        let sources: String = releases
            .iter()
            .map(|release| {
                let site = if release.ends_with("-security") { &mirrors.1 } else { &mirrors.0 };
                format!("deb [arch=amd64 signed-by={KEYRING}] {site} {release} main\n")
            })
            .collect();
        fs::write(self.folder.join("sources.list"), sources)?;
        let folder = self.folder.display();
        let settings = format!(
            "Dir::Etc::SourceList \"{folder}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\nDir::State::Lists \"{folder}/lists\";\n\
             Dir::Cache \"{folder}/cache\";\nAPT::Sandbox::User \"\";\nAPT::Update::Error-Mode \"any\";\nAPT::Architecture \"amd64\";\n\
             APT::Update::Post-Invoke {{}};\nAPT::Update::Post-Invoke-Success {{}};\nAcquire::Languages \"none\";\nAcquire::Retries \"2\";\n\
             Acquire::http::Timeout \"30\";\nAcquire::https::Timeout \"30\";\n"
        );
        fs::write(self.folder.join("apt.conf"), settings)?;
        Ok(())
    }

    fn apt(&self, words: &[&str]) -> Result<Finished> {
        let mut command = Command::new("apt-get");
        command.current_dir(&self.folder).env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        process::run(command.arg("--quiet").args(words), self.log, LIMIT)
    }

    /// What the mirror has of each of these packages now.
    ///
    /// # Errors
    /// When it does not have one.
    pub(super) fn look(&self, names: &[&str]) -> Result<Vec<Package>> {
        let listed = self.apt(&[&["download", "--print-uris"], names].concat())?;
        if !listed.ok {
            bail!("tests/vm/packages.toml: {}", complaint(&listed));
        }
        let mut found: Vec<Package> = listed.output.lines().filter_map(package).collect();
        if let Some(missing) = names.iter().find(|name| !found.iter().any(|package| package.name == **name)) {
            bail!("tests/vm/packages.toml: the mirror has no package {missing}");
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Fetches packages that [`Mirror::look`] has found.
    ///
    /// # Errors
    /// [`Lacking`] when the mirror does not deliver.
    pub(super) fn fetch(&self, packages: &[Package]) -> Result<()> {
        let words: Vec<String> =
            packages.iter().map(|package| format!("{}={}", package.name, package.version)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let fetched = self.apt(&[&["download"], &words[..]].concat())?;
        if !fetched.ok {
            bail!(Lacking(format!("Debian packages cannot be fetched: {}", complaint(&fetched))));
        }
        Ok(())
    }

    /// Unpacks a fetched package into `folder` and removes its file.
    ///
    /// # Errors
    /// When its file is not there or not whole, or the disk is full.
    pub(super) fn unpack(&self, package: &Package, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let file = self.folder.join(&package.file);
        let mut command = Command::new("dpkg-deb");
        let unpacked = process::run(command.arg("--extract").arg(&file).arg(folder), self.log, LIMIT)?;
        if !unpacked.ok {
            bail!("{} cannot be unpacked: {}", package.file, unpacked.tail(3));
        }
        fs::remove_file(&file)?;
        Ok(())
    }
}

/// The mirrors of this machine's apt, for Debian and for its security updates.
fn sites() -> (String, String) {
    let listed = Command::new("apt-get").args(["indextargets", "--format", "$(SITE) $(RELEASE)"]).output();
    let listed =
        listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    (
        site(&listed, |release| release == "bookworm").unwrap_or_else(|| MIRROR.to_owned()),
        site(&listed, |release| release == "bookworm-security").unwrap_or_else(|| MIRROR_SECURITY.to_owned()),
    )
}

fn site(listed: &str, fits: impl Fn(&str) -> bool) -> Option<String> {
    let mut pairs = listed.lines().filter_map(|line| line.split_once(' '));
    pairs.find(|(_, release)| fits(release)).map(|(site, _)| site.to_owned())
}

/// What apt says that is wrong.
fn complaint(finished: &Finished) -> String {
    let mut errors = finished.output.lines().filter_map(|line| line.strip_prefix("E: "));
    errors.next().map_or_else(|| finished.tail(2), str::to_owned)
}

/// `'http://…/perftest_4.5+0.17-1_amd64.deb' perftest_4.5+0.17-1_amd64.deb 253812 SHA512:…`
fn package(line: &str) -> Option<Package> {
    let file = line.strip_prefix('\'')?.split_once("' ")?.1.split(' ').next()?;
    let (name, rest) = file.split_once('_')?;
    let version = rest.rsplit_once('_')?.0.replace("%3a", ":");
    Some(Package { name: name.to_owned(), version, file: file.to_owned() })
}

/// Brings an unpacked system into the layout that every system has today, where `bin`, `sbin` and `lib` are folders of `usr`, as
/// a folder would hide the link that the host has in its place.
///
/// # Errors
/// When a file cannot be moved.
pub(super) fn settle(folder: &Path) -> Result<()> {
    for name in MERGED {
        let old = folder.join(name);
        if old.is_dir() {
            move_into(&old, &folder.join("usr").join(name))?;
        }
    }
    for name in PAGES {
        let pages = folder.join("usr/share").join(name);
        if pages.is_dir() {
            fs::remove_dir_all(pages)?;
        }
    }
    Ok(())
}

fn move_into(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && target.is_dir() {
            move_into(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), target)?;
        }
    }
    fs::remove_dir(from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_and_version_of_a_package_are_read_from_its_file() {
        let line = "'http://deb.debian.org/debian/pool/main/b/bison/bison_3.8.2_amd64.deb' bison_2%3a3.8.2+dfsg-1+b1_amd64.deb 1174528 SHA256:00";
        let bison = package(line).unwrap();
        assert_eq!((bison.name.as_str(), bison.version.as_str()), ("bison", "2:3.8.2+dfsg-1+b1"));
        assert_eq!(bison.file, "bison_2%3a3.8.2+dfsg-1+b1_amd64.deb");
        assert_eq!(package("Reading package lists..."), None);
    }

    #[test]
    fn the_machines_own_mirror_is_taken_when_it_has_the_release() {
        let listed = "http://a.example/ubuntu noble\nhttp://b.example/debian bookworm\nhttp://c.example bookworm-security\n";
        assert_eq!(site(listed, |release| release == "bookworm").unwrap(), "http://b.example/debian");
        assert_eq!(site("http://a.example/ubuntu noble\n", |release| release == "bookworm"), None);
    }

    #[test]
    fn the_old_layout_is_merged_into_the_new_one() {
        let folder = std::env::temp_dir().join(format!("xtask-vm-settle-{}", std::process::id()));
        for path in [
            "sbin/tc",
            "lib/x86/libmnl.so.0",
            "usr/lib/x86/libnl.so",
            "usr/share/doc/x/y",
            "etc/libibverbs.d/rxe.driver",
        ] {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        settle(&folder).unwrap();
        let is = |path: &str| folder.join(path).exists();
        assert!(is("usr/sbin/tc") && is("usr/lib/x86/libmnl.so.0") && is("usr/lib/x86/libnl.so"));
        assert!(is("etc/libibverbs.d/rxe.driver") && !is("sbin") && !is("lib") && !is("usr/share/doc"));
        fs::remove_dir_all(folder).unwrap();
    }
}
