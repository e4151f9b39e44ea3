//! Headers of newer rdma-cores than this system's, for the comparison in `crates/verbs-sys/tests/layout/`.
//!
//! Called by the step `setup` of `cargo xtask test`. apt fetches the packages with lists of its own, so that nothing of the system's
//! changes and no right is needed; they are unpacked under the target folder and stay there. It installs nothing.

use crate::process;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);
/// The suites of Debian, each newer than that of the machines that run this.
const SUITES: [&str; 2] = ["trixie", "sid"];
const PACKAGES: [&str; 2] = ["libibverbs-dev", "librdmacm-dev"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fetches what is not there yet into `folder`. Answers one sentence for each suite that cannot be had.
///
/// # Errors
/// When the folder or the log cannot be written.
pub(crate) fn fetch(folder: &Path, log: &Path) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for suite in SUITES {
        let unpacked = folder.join(suite);
        if has_headers(&unpacked) {
            continue;
        }
        if !crate::setup::has("apt-get") || !crate::setup::has("dpkg-deb") || !Path::new(KEYRING).is_file() {
            missing.push(format!("headers of {suite}: this is no Debian"));
        } else if !fetch_suite(suite, &unpacked, log)? {
            missing.push(format!("headers of {suite} cannot be fetched: see {}", log.display()));
        }
    }
    Ok(missing)
}

fn has_headers(unpacked: &Path) -> bool {
    unpacked.join("usr/include/infiniband/verbs.h").is_file()
        && unpacked.join("usr/include/rdma/rdma_cma.h").is_file()
}

fn fetch_suite(suite: &str, unpacked: &Path, log: &Path) -> Result<bool> {
    println!("      fetching headers of {suite}");
    let scratch = unpacked.with_extension("apt");
    for part in ["lists/partial", "cache/archives/partial", "packages"] {
        let part = scratch.join(part);
        std::fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    }
    let list = scratch.join("sources.list");
    std::fs::write(&list, format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian {suite} main\n"))?;
    let packages = scratch.join("packages");
    let fetched = process::run(apt(&scratch).arg("update"), log, LIMIT)?.ok
        && process::run(apt(&scratch).current_dir(&packages).arg("download").args(PACKAGES), log, LIMIT)?.ok;
    let whole = fetched && unpack(&packages, unpacked, log)?;
    // The lists are large, and old the next time.
    std::fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    Ok(whole && has_headers(unpacked))
}

/// apt with lists, a cache and a state of its own.
fn apt(scratch: &Path) -> Command {
    let mut apt = Command::new("apt-get");
    let option = |name: &str, path: PathBuf| format!("{name}={}", path.display());
    for setting in [
        option("Dir::Etc::sourcelist", scratch.join("sources.list")),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        option("Dir::State::lists", scratch.join("lists")),
        "Dir::State::status=/dev/null".to_owned(),
        option("Dir::Cache", scratch.join("cache")),
        "Acquire::Languages=none".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ] {
        apt.arg("-o").arg(setting);
    }
    apt
}

fn unpack(packages: &Path, unpacked: &Path, log: &Path) -> Result<bool> {
    let mut whole = true;
    for package in std::fs::read_dir(packages)? {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("-x").arg(package?.path()).arg(unpacked);
        whole &= process::run(&mut dpkg, log, LIMIT)?.ok;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_fetched_again() {
        let folder = std::env::temp_dir().join(format!("xtask-verbs-headers-{}", std::process::id()));
        for suite in SUITES {
            for header in ["usr/include/infiniband/verbs.h", "usr/include/rdma/rdma_cma.h"] {
                let header = folder.join(suite).join(header);
                std::fs::create_dir_all(header.parent().unwrap()).unwrap();
                std::fs::write(header, "").unwrap();
            }
        }
        assert!(fetch(&folder, Path::new("/nonexistent/log")).unwrap().is_empty());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
