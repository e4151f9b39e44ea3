//! `cargo xtask sim`: builds the simulator and hands over to it, as to replay a seed that failed.
//!
//! Called from the command line; the tests of the crate `sim` run their seeds themselves.

use crate::workspace::{Workspace, cargo};
use anyhow::{Context as _, Result, bail};
use std::process::Command;

/// Runs the simulator with `words`, on this terminal.
///
/// # Errors
/// When a seed fails, or cargo cannot be started.
pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<()> {
    let status = Command::new(cargo())
        .current_dir(&workspace.root)
        .args(["run", "--quiet", "--package", "sinew-sim", "--"])
        .args(words)
        .status()
        .context("cargo cannot be started")?;
    if !status.success() {
        bail!("the simulator ended with {status}");
    }
    Ok(())
}
