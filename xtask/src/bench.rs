//! `cargo xtask bench`: builds the benchmarks in release mode and hands over to them; `--setup` installs the peers.
//!
//! Called from the command line only: a measurement on a busy machine proves nothing, so no test does it.

use crate::setup;
use crate::workspace::{Workspace, cargo};
use anyhow::{Context as _, Result, bail};
use std::process::Command;

/// Debian packages of the peers that the benchmarks compare with.
const PEERS: [&str; 3] = ["ucx-utils", "libzmq5", "util-linux"];

/// Installs the peers if asked, then runs the benchmarks with `words`, on this terminal.
///
/// # Errors
/// When something cannot be installed, or the benchmarks fail.
pub(crate) fn run(workspace: &Workspace, install: bool, words: &[String]) -> Result<()> {
    if install {
        if !setup::may_install() {
            bail!("--setup needs root and apt-get: apt-get install {}", PEERS.join(" "));
        }
        if !setup::install_packages(&PEERS, &workspace.scratch()?.join("bench-setup.log"))? {
            bail!("apt-get could not install {}: see target/xtask/bench-setup.log", PEERS.join(" "));
        }
    }
    let status = Command::new(cargo())
        .args(["run", "--release", "--package", "sinew-bench", "--manifest-path"])
        // Not from the root: files that `words` name belong to the folder of whoever calls.
        .arg(workspace.root.join("Cargo.toml"))
        .arg("--")
        .args(words)
        .status()
        .context("cargo cannot be started")?;
    if !status.success() {
        bail!("the benchmarks ended with {status}");
    }
    Ok(())
}
