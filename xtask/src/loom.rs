//! `cargo xtask loom`: the models of the concurrent parts, every interleaving of small cases.
//!
//! Called from the command line and by `cargo xtask test`. A model is a test whose name contains `loom`, in one of the
//! crates listed here; it is compiled with `--cfg loom` into a folder of its own, so that nothing else is rebuilt.

use crate::process;
use crate::test::outcome::{self, Outcome, Runner};
use crate::workspace::{Workspace, cargo};
use anyhow::Result;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Crates with models.
const CRATES: [&str; 2] = ["sinew-base", "sinew-transport-shm"];
const LIMIT: Duration = Duration::from_secs(15 * 60);
const LIMIT_LONG: Duration = Duration::from_secs(3600);

/// Runs the models and prints what they said.
///
/// # Errors
/// When one fails or a crate has none.
pub(crate) fn run(workspace: &Workspace, long: bool) -> Result<()> {
    step(workspace, &workspace.scratch()?, long)?.conclude("loom")
}

/// The same as a step of the test command. Each crate must have a model.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn step(workspace: &Workspace, logs: &Path, long: bool) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for name in CRATES {
        let mut models = Command::new(cargo());
        models.current_dir(&workspace.root).args([
            "test",
            "--package",
            name,
            "--lib",
            "--tests",
            "--target-dir",
        ]);
        models.arg(workspace.target.join("loom")).args(["--", "loom"]);
        models.env("RUSTFLAGS", "--cfg loom").env("CARGO_TERM_COLOR", "never");
        models.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0");
        if long {
            models.env("XTASK_LONG", "1").arg("--include-ignored");
        }
        let limit = if long { LIMIT_LONG } else { LIMIT };
        let finished = process::run(&mut models, &logs.join(format!("loom-{name}.log")), limit)?;
        let mut one = outcome::counted(Runner::Cargo, &finished, "");
        for failure in &mut one.failures {
            *failure = format!("{name}: {failure}");
        }
        outcome.absorb(one);
    }
    Ok(outcome)
}
