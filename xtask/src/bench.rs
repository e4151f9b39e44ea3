//! `cargo xtask bench`: builds the benchmarks in release mode and hands over to them; `--setup` installs the peers.
//!
//! Called from the command line only: a measurement on a busy machine proves nothing, so no test does it.

use crate::setup;
use crate::workspace::{Workspace, cargo};
use anyhow::{Context as _, Result, bail};
use std::process::Command;
use std::time::{Duration, Instant};

/// Debian packages of the peers that the benchmarks compare with.
const PEERS: [&str; 3] = ["ucx-utils", "libzmq5", "util-linux"];

/// Longest build of the command from nothing, on two cores, and its largest size without symbols.
const BUILD_MAX: Duration = Duration::from_secs(240);
const BINARY_BYTES_MAX: u64 = 12_000_000;

/// Builds the command as it is shipped, without symbols and from nothing, and judges time and size.
///
/// # Errors
/// When it cannot be built, or a budget is missed.
pub(crate) fn measure_build(workspace: &Workspace) -> Result<()> {
    let target = workspace.scratch()?.join("bench-build");
    if target.exists() {
        std::fs::remove_dir_all(&target).context("the last build cannot be removed")?;
    }
    let start = Instant::now();
    let status = Command::new(cargo())
        .args(["build", "--release", "--package", "sinew-cli", "--manifest-path"])
        .arg(workspace.root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .status()
        .context("cargo cannot be started")?;
    let took = start.elapsed();
    if !status.success() {
        bail!("the build ended with {status}");
    }
    let bytes = std::fs::metadata(target.join("release/sinew")).context("the binary")?.len();
    std::fs::remove_dir_all(&target).context("the build cannot be removed")?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let word = |met| if met { "met" } else { "MISSED" };
    let (fast, small) = (took <= BUILD_MAX, bytes <= BINARY_BYTES_MAX);
    println!(
        "build of sinew from nothing, {cores} cores: {:.0} s, budget {} s on two: {}",
        took.as_secs_f64(),
        BUILD_MAX.as_secs(),
        word(fast)
    );
    println!(
        "sinew without symbols: {:.1} MB, budget {} MB: {}",
        bytes as f64 / 1e6,
        BINARY_BYTES_MAX / 1_000_000,
        word(small)
    );
    if !(fast && small) {
        bail!("a budget of build time or size is missed");
    }
    Ok(())
}

/// Counts the instructions of verbs against C's, then measures the example `perf` against perftest in the guest.
///
/// # Errors
/// When they cannot be built, there is no guest, or a budget is missed.
pub(crate) fn verbs(workspace: &Workspace, words: &[String]) -> Result<()> {
    let mut build = Command::new(cargo());
    build.args(["build", "--release", "--package", "sinew-verbs", "--manifest-path"]);
    build.arg(workspace.root.join("Cargo.toml"));
    build.args(["--example", "instructions", "--example", "perf", "--example", "perf_against_perftest"]);
    if !build.status().context("cargo cannot be started")?.success() {
        bail!("the examples of sinew-verbs do not build");
    }
    let examples = workspace.target.join("release/examples");
    let counted = Command::new(examples.join("instructions")).status();
    if !counted.context("the counting cannot be started")?.success() {
        bail!("the instructions could not be counted");
    }
    let status = Command::new(std::env::current_exe().context("the path of this program")?)
        .args(["vm", "run", "--timeout", "3600", "--"])
        .arg(examples.join("perf_against_perftest"))
        .args(words)
        .status()
        .context("the guest cannot be started")?;
    if !status.success() {
        bail!("the measurement ended with {status}");
    }
    Ok(())
}

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
