//! `cargo xtask loom`: the models of the concurrent parts, every interleaving of small cases.
//!
//! Called from the command line and by `cargo xtask test`. A model is a test of a library whose name contains `loom`, or any
//! test in `tests/loom.rs`, of the crates listed here; they are compiled with `--cfg loom` into a folder of their own, so that
//! nothing else is rebuilt.

use crate::process;
use crate::test::outcome::{self, Outcome, Runner};
use crate::workspace::{Workspace, cargo};
use anyhow::{Result, bail};
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

/// A place where the code says how memory is ordered, said weaker, and the models that must notice.
struct Weakened {
    package: &'static str,
    models: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const WEAKENED: [Weakened; 9] = [
    Weakened {
        package: "sinew-transport-shm",
        models: "loom_frames_arrive",
        file: "crates/transport-shm/src/shared/ring.rs",
        from: "slot.words[0].store(head.first | lap(self.next, self.shift), Ordering::Release);",
        to: "slot.words[0].store(head.first | lap(self.next, self.shift), Ordering::Relaxed);",
    },
    Weakened {
        package: "sinew-transport-shm",
        models: "loom_frames_arrive",
        file: "crates/transport-shm/src/shared/ring.rs",
        from: "fence(Ordering::Acquire);\n        let second",
        to: "let second",
    },
    Weakened {
        package: "sinew-transport-shm",
        models: "loom_a_consumer_that_sleeps",
        file: "crates/transport-shm/src/shared/sleep.rs",
        from: "        barrier.light();\n",
        to: "        let _ = barrier;\n",
    },
    Weakened {
        package: "sinew-transport-shm",
        models: "loom_a_cooled_lane",
        file: "crates/transport-shm/src/shared/sleep.rs",
        from: "            fence(Ordering::SeqCst);\n        }\n        let epoch",
        to: "        }\n        let epoch",
    },
    Weakened {
        package: "sinew-transport-shm",
        models: "loom_a_hint",
        file: "crates/transport-shm/src/shared/sleep.rs",
        from: "leaf.fetch_or(1 << (bit % 64), Ordering::AcqRel);\n        self.summary.fetch_or(1 << (bit / 64), Ordering::AcqRel);",
        to: "self.summary.fetch_or(1 << (bit / 64), Ordering::AcqRel);\n        leaf.fetch_or(1 << (bit % 64), Ordering::AcqRel);",
    },
    Weakened {
        package: "sinew-base",
        models: "biased::loom",
        file: "crates/base/src/biased.rs",
        from: "        barrier::light(self.pairing);\n        if ptr::eq",
        to: "        if ptr::eq",
    },
    Weakened {
        package: "sinew-base",
        models: "biased::loom",
        file: "crates/base/src/biased.rs",
        from: "self.slot.busy.store(false, Ordering::Release);",
        to: "self.slot.busy.store(false, Ordering::Relaxed);",
    },
    Weakened {
        package: "sinew-base",
        models: "biased::loom",
        file: "crates/base/src/biased.rs",
        from: "        if slot.busy.load(Ordering::Acquire) {",
        to: "        if slot.busy.load(Ordering::Relaxed) {",
    },
    Weakened {
        package: "sinew-base",
        models: "loom_whoever_waits",
        file: "crates/base/src/sleepers.rs",
        from: "self.0.fetch_add(1, Ordering::Relaxed);",
        to: "self.0.fetch_add(0, Ordering::Relaxed);",
    },
];

/// Weakens one ordering after the other in a copy of the code, and prints whether a model noticed.
///
/// # Errors
/// When none did, or a place is not there any more.
pub(crate) fn weakened(workspace: &Workspace) -> Result<()> {
    weakened_step(workspace, &workspace.scratch()?)?.conclude("weakened")
}

/// The same as a step of the test command.
///
/// # Errors
/// When a place is not there exactly once, or cargo cannot be started.
pub(crate) fn weakened_step(workspace: &Workspace, logs: &Path) -> Result<Outcome> {
    let tree = workspace.scratch()?.join("weakened");
    let log = logs.join("weakened.log");
    crate::mutants::copy_tree(workspace, &tree)?;
    let mut outcome = Outcome::default();
    for place in &WEAKENED {
        let file = tree.join(place.file);
        let text = std::fs::read_to_string(&file)?;
        if text.matches(place.from).count() != 1 {
            bail!("{} has not exactly one `{}`: mend the table of weakened places", place.file, place.from);
        }
        std::fs::write(&file, text.replace(place.from, place.to))?;
        let target: &[&str] = if place.package == "sinew-base" { &["--lib"] } else { &["--test", "loom"] };
        let mut models = models(workspace, place.package, target, "weakened");
        models.current_dir(&tree).arg("--").arg(place.models);
        let finished = process::run(&mut models, &log, LIMIT);
        std::fs::write(&file, &text)?;
        let finished = finished?;
        if !finished.output.contains("running ") {
            outcome.failures.push(format!("{}: it did not build\n{}", place.file, finished.tail(20)));
        } else if finished.ok {
            outcome.failures.push(format!("{}: no model notices `{}`", place.file, place.to));
        } else {
            outcome.passed += 1;
            println!("       noticed by {}: {} without `{}`", place.models, place.file, place.from.trim());
        }
    }
    Ok(outcome)
}

/// Cargo for the models of a crate. What is built of a copy goes into a folder of its own: cargo takes one for the other.
fn models(workspace: &Workspace, name: &str, target: &[&str], folder: &str) -> Command {
    let mut models = Command::new(cargo());
    models.current_dir(&workspace.root).args(["test", "--package", name]).args(target);
    models.arg("--target-dir").arg(workspace.target.join(folder));
    models.env("RUSTFLAGS", "--cfg loom").env("CARGO_TERM_COLOR", "never");
    models.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0");
    models
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
            let mut models = models(workspace, name, place.target, "loom");
            models.arg("--").args(place.filter);
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
