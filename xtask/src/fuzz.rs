//! `cargo xtask fuzz`: every fuzz target for a bounded time.
//!
//! Called from the command line and by `cargo xtask test`. `fuzz/` is a workspace of its own; each of its binaries is a
//! target that runs on the stable toolchain and understands `--seconds N`. A target that ran no input has failed.

use crate::process::{self, Finished};
use crate::test::outcome::{self, Outcome, Runner};
use crate::workspace::{Workspace, cargo};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const BUILD_LIMIT: Duration = Duration::from_secs(10 * 60);
const SECONDS: u64 = 6;
/// For all targets together.
const SECONDS_LONG: u64 = 3600;

/// Runs one target or all, and prints what they said.
///
/// # Errors
/// When one fails, or there is none.
pub(crate) fn run(workspace: &Workspace, long: bool, target: Option<&str>) -> Result<()> {
    step(workspace, &workspace.scratch()?, long, target)?.conclude("fuzz")
}

/// The same as a step of the test command.
///
/// # Errors
/// When there is no target of that name, or cargo cannot be started.
pub(crate) fn step(workspace: &Workspace, logs: &Path, long: bool, target: Option<&str>) -> Result<Outcome> {
    let Some(fuzz) = workspace.load_fuzz()? else {
        bail!("there is no fuzz/Cargo.toml: no byte format is fuzzed");
    };
    let targets = fuzz.members().flat_map(|package| &package.targets).filter(|target| target.is("bin"));
    let names: Vec<&str> = targets.map(|target| target.name.as_str()).collect();
    let chosen: Vec<&str> =
        names.iter().copied().filter(|name| target.is_none_or(|wanted| wanted == *name)).collect();
    if chosen.is_empty() {
        bail!("no such fuzz target; there are: {}", names.join(", "));
    }
    let log = logs.join("fuzz.log");
    let built = process::run(&mut fuzz_cargo(workspace, &["build"]), &log, BUILD_LIMIT)?;
    if let Some(reason) = &built.reason {
        return Ok(Outcome::failed(format!("build: {reason}\n{}", built.tail(30))));
    }
    let mut outcome = if target.is_none() { checks(workspace, &log)? } else { Outcome::default() };
    let seconds = if long { SECONDS_LONG.div_ceil(chosen.len() as u64) } else { SECONDS };
    for name in chosen {
        let mut one = fuzz_cargo(workspace, &["run", "--bin", name]);
        one.args(["--", "--seconds", &seconds.to_string()]);
        let finished = process::run(&mut one, &log, Duration::from_secs(2 * seconds + 120))?;
        match verdict(&finished) {
            Ok(inputs) => {
                outcome.passed += 1;
                println!("       fuzz {name:<12} {inputs:>12} executions in {seconds} s");
                outcome.absorb(Outcome { note: format!("{name} {inputs} inputs"), ..Outcome::default() });
            }
            Err(problem) => outcome.failures.push(format!("{name}: {problem}")),
        }
    }
    Ok(outcome)
}

/// The tests of the fuzz workspace, its kept corpus among them, and its lints.
fn checks(workspace: &Workspace, log: &Path) -> Result<Outcome> {
    let tested = process::run(&mut fuzz_cargo(workspace, &["test"]), log, BUILD_LIMIT)?;
    let mut outcome = outcome::counted(Runner::Cargo, &tested, "");
    let mut clippy = fuzz_cargo(workspace, &["clippy", "--all-targets", "--", "-D", "warnings"]);
    let linted = process::run(&mut clippy, log, BUILD_LIMIT)?;
    outcome.failures.extend(outcome::whole(&linted, "").failures);
    Ok(outcome)
}

fn fuzz_cargo(workspace: &Workspace, words: &[&str]) -> Command {
    cargo_in(&workspace.root, &workspace.target.join("fuzz"), words)
}

/// Cargo for the fuzz workspace of the tree at `root`; each tree has its own `target`, as cargo takes a copy for the original.
pub(crate) fn cargo_in(root: &Path, target: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(cargo());
    command.current_dir(root.join("fuzz")).env("CARGO_TERM_COLOR", "never");
    command.arg(words[0]).args(["--release", "--target-dir"]).arg(target).args(&words[1..]);
    command
}

/// How many inputs ran, or what went wrong.
fn verdict(finished: &Finished) -> Result<u64, String> {
    if let Some(reason) = &finished.reason {
        return Err(format!("{reason}\n{}", finished.tail(30)));
    }
    match inputs(&finished.output) {
        Some(0) | None => Err(format!("ran no input: {}", finished.tail(3))),
        Some(inputs) => Ok(inputs),
    }
}

/// The number in front of the last `inputs`.
fn inputs(output: &str) -> Option<u64> {
    let words: Vec<&str> = output.split_whitespace().collect();
    let at = words.iter().rposition(|word| word.trim_end_matches([',', '.', ';']) == "inputs")?;
    words.get(at.checked_sub(1)?)?.replace(['_', ','], "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn finished(reason: Option<&str>, output: &str) -> Finished {
        let reason = reason.map(str::to_owned);
        Finished { ok: reason.is_none(), output: output.to_owned(), reason, log: PathBuf::new() }
    }

    #[test]
    fn a_target_that_ran_no_input_has_failed() {
        assert_eq!(verdict(&finished(None, "frame: 12,345 inputs, seed 7\n")), Ok(12_345));
        assert!(verdict(&finished(None, "frame: 0 inputs\n")).is_err());
        assert!(verdict(&finished(None, "done\n")).is_err());
        assert!(verdict(&finished(Some("signal 6"), "9 inputs\n")).is_err());
    }
}
