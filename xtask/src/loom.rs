//! `cargo xtask loom`: the models of the concurrent parts, every interleaving of small cases.
//!
//! Called from the command line and by `cargo xtask test`. A model is a test of a library whose name contains `loom`, or any
//! test in `tests/loom.rs`, of the crates listed here; they are compiled with `--cfg loom` into a folder of their own, so that
//! nothing else is rebuilt.

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
        let log = logs.join(format!("loom-{name}.log"));
        let limit = if long { LIMIT_LONG } else { LIMIT };
        let mut one = Outcome::default();
        for place in places(workspace, name) {
            let mut models = Command::new(cargo());
            models.current_dir(&workspace.root).args(["test", "--package", name]).args(place.target);
            models.arg("--target-dir").arg(workspace.target.join("loom")).arg("--").args(place.filter);
            models.env("RUSTFLAGS", "--cfg loom").env("CARGO_TERM_COLOR", "never");
            models.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0");
            if long {
                models.env("XTASK_LONG", "1").arg("--include-ignored");
            }
            let finished = process::run(&mut models, &log, limit)?;
            let found = outcome::read(Runner::Cargo, &finished.output, "");
            one.absorb(if finished.ok { found } else { outcome::counted(Runner::Cargo, &finished, "") });
        }
        if one.passed + one.failures.len() == 0 {
            one.failures.push(format!("no model ran (output: {})", log.display()));
        }
        one.failures.iter_mut().for_each(|failure| *failure = format!("{name}: {failure}"));
        outcome.absorb(one);
    }
    Ok(outcome)
}

/// Where models stand: words for cargo that choose the target, and for the test binary that choose the tests.
struct Place {
    target: &'static [&'static str],
    filter: &'static [&'static str],
}

/// Tests of the library whose name contains `loom`, and all of `tests/loom.rs` where there is one.
fn places(workspace: &Workspace, name: &str) -> Vec<Place> {
    let mut places = vec![Place { target: &["--lib"], filter: &["loom"] }];
    let package = workspace.members().find(|package| package.name == name);
    let targets = package.into_iter().flat_map(|package| &package.targets);
    if targets.into_iter().any(|target| target.is("test") && target.name == "loom") {
        places.push(Place { target: &["--test", "loom"], filter: &[] });
    }
    places
}
