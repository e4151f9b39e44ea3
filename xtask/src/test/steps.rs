//! The steps of the test command, in the order of their cost: what fails quickly comes first.
//!
//! Called by `test::run`. Each step answers with counted results; none stops the others.

use super::outcome::{self, Outcome, Runner};
use super::{Context, Step};
use super::{campaigns, no_c};
use crate::process::{self, Finished};
use crate::workspace::{Workspace, cargo};
use crate::{features, fuzz, loom, nightly, setup, verbs_headers, vm};
use anyhow::{Result, bail};
use std::process::Command;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Every step.
pub(super) const ALL: [Step; 26] = [
    Step { name: "setup", what: "the programs that tests call are here", run: install },
    Step { name: "lockfile", what: "Cargo.lock fits the manifests", run: lockfile },
    Step { name: "fmt", what: "the code is formatted", run: format },
    Step { name: "tidy", what: "rules of style", run: |context, _| own(context, "tidy") },
    Step { name: "layers", what: "imports go down only", run: |context, _| own(context, "layers") },
    Step {
        name: "dependencies",
        what: "licences, bans, reasons",
        run: |context, _| own(context, "dependencies"),
    },
    Step {
        name: "features",
        what: "FEATURES.md names what exists",
        run: |context, _| own(context, "features"),
    },
    Step { name: "clippy", what: "no warning, all targets, all features", run: clippy },
    Step { name: "no-features", what: "builds without default features", run: no_features },
    Step { name: "tests", what: "unit and integration tests", run: tests },
    Step { name: "campaigns", what: "faults by the dozen, or the thousand", run: campaigns::step },
    Step { name: "doc-tests", what: "examples in the documentation run", run: doc_tests },
    Step { name: "rustdoc", what: "documentation builds without a warning", run: rustdoc },
    Step { name: "examples", what: "every example runs and ends well", run: examples },
    Step {
        name: "vm",
        what: "tests in a guest whose kernel has RDMA devices",
        run: |context, so_far| vm::step(&context.workspace, &context.logs, so_far, context.again),
    },
    Step {
        name: "loom",
        what: "models of the concurrent parts",
        run: |context, _| loom::step(&context.workspace, &context.logs, context.long),
    },
    Step {
        name: "fuzz",
        what: "every fuzz target for a bounded time",
        run: |context, _| fuzz::step(&context.workspace, &context.logs, context.long, None),
    },
    Step { name: "weakened", what: "a model fails when an ordering is weakened", run: weakened },
    Step { name: "planted", what: "every fuzz target finds the fault that is planted for it", run: planted },
    Step { name: "sanitize", what: "the tests under AddressSanitizer", run: sanitize },
    Step { name: "miri", what: "what Miri can interpret", run: miri },
    Step {
        name: "no-c",
        what: "builds where cc refuses to compile C",
        run: |context, _| no_c::step(&context.workspace, &context.logs),
    },
    Step { name: "command", what: "the command that was built without C shows every path", run: command },
    Step { name: "package", what: "every published crate packages", run: package },
    Step { name: "advisories", what: "no known vulnerability (needs a network)", run: advisories },
    Step { name: "proven", what: "the tests that FEATURES.md calls proof passed in this run", run: proven },
];

/// Runs cargo with a log of the step's name.
pub(super) fn run_cargo(
    context: &Context,
    step: &str,
    limit: Duration,
    set_up: impl FnOnce(&mut Command),
) -> Result<Finished> {
    let mut command = Command::new(cargo());
    command.current_dir(&context.workspace.root).env("CARGO_TERM_COLOR", "never");
    set_up(&mut command);
    process::run(&mut command, &context.logs.join(format!("{step}.log")), limit)
}

fn install(context: &Context, _: &Outcome) -> Result<Outcome> {
    let log = context.logs.join("setup.log");
    let mut missing = setup::install(&setup::FOR_TESTS, &log)?;
    missing.extend(verbs_headers::fetch(&context.workspace.target.join("verbs-headers"), &log)?);
    let mut outcome = Outcome::one(format!("runner: {:?}", context.runner).to_lowercase());
    for sentence in missing {
        outcome.absorb(Outcome::skipped("setup", sentence));
    }
    Ok(outcome)
}

fn lockfile(context: &Context, _: &Outcome) -> Result<Outcome> {
    let finished = run_cargo(context, "lockfile", 5 * MINUTE, |cargo| {
        cargo.args(["tree", "--workspace", "--locked", "--depth", "0"]);
    })?;
    Ok(outcome::whole(&finished, ""))
}

fn format(context: &Context, _: &Outcome) -> Result<Outcome> {
    let mut finished = run_cargo(context, "fmt", MINUTE, |cargo| {
        cargo.args(["fmt", "--all", "--check"]);
    })?;
    if finished.ok && context.workspace.root.join("fuzz/Cargo.toml").is_file() {
        finished = run_cargo(context, "fmt", MINUTE, |cargo| {
            cargo.args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--all", "--check"]);
        })?;
    }
    Ok(outcome::whole(&finished, ""))
}

/// One of this runner's own commands, in a process of its own so that its output is logged like any other. Started through
/// `/proc`, as a build may have replaced the file meanwhile.
fn own(context: &Context, name: &str) -> Result<Outcome> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(name).current_dir(&context.workspace.root);
    let finished = process::run(&mut command, &context.logs.join(format!("{name}.log")), 5 * MINUTE)?;
    Ok(outcome::whole(&finished, finished.output.lines().last().unwrap_or_default()))
}

fn clippy(context: &Context, _: &Outcome) -> Result<Outcome> {
    let finished = run_cargo(context, "clippy", 15 * MINUTE, |cargo| {
        cargo.args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]);
    })?;
    Ok(outcome::whole(&finished, ""))
}

fn no_features(context: &Context, _: &Outcome) -> Result<Outcome> {
    let libraries =
        published(&context.workspace).filter(|package| package.targets.iter().any(|target| target.is("lib")));
    let names: Vec<&str> = libraries.map(|package| package.name.as_str()).collect();
    let finished = run_cargo(context, "no-features", 10 * MINUTE, |cargo| {
        cargo.args(["check", "--no-default-features", "--lib"]);
        cargo.args(names.iter().flat_map(|name| ["--package", name]));
    })?;
    Ok(outcome::whole(&finished, &format!("{} crates", names.len())))
}

fn tests(context: &Context, _: &Outcome) -> Result<Outcome> {
    let finished =
        run_cargo(context, "tests", if context.long { 60 * MINUTE } else { 40 * MINUTE }, |cargo| {
            cargo.env("XTASK_SKIP_LOG", &context.skip_log);
            if context.long {
                cargo.env("XTASK_LONG", "1");
            }
            let what = ["--workspace", "--all-features", "--lib", "--bins", "--tests", "--no-fail-fast"];
            match context.runner {
                Runner::Nextest => {
                    cargo
                        .args(["nextest", "run", "--profile", if context.again { "ci" } else { "default" }])
                        .args(what);
                    cargo.args([
                        "--success-output=immediate",
                        "--failure-output=immediate",
                        "--status-level=all",
                    ]);
                    if context.long {
                        cargo.arg("--run-ignored=all");
                    }
                }
                Runner::Cargo => {
                    cargo.arg("test").args(what).args(["--", "--show-output"]);
                    if context.long {
                        cargo.arg("--include-ignored");
                    }
                }
            }
        })?;
    let mut outcome = outcome::counted(context.runner, &finished, &read_skips(context));
    for skip in outcome.skips.iter_mut().filter(|skip| skip.reason == outcome::IGNORED) {
        if let Some(reason) = ignored_because(&context.workspace, outcome::last_segment(&skip.name))? {
            skip.reason = if reason.starts_with(outcome::CHILD) {
                reason
            } else {
                format!("{reason} (`--long` runs it)")
            };
        }
    }
    outcome.skips.retain(|skip| !skip.reason.starts_with(outcome::CHILD));
    Ok(outcome)
}

/// The text of `#[ignore = "…"]` above the test of that name.
fn ignored_because(workspace: &Workspace, test: &str) -> Result<Option<String>> {
    for file in workspace.files()?.iter().filter(|file| file.extension().is_some_and(|kind| kind == "rs")) {
        let text = std::fs::read_to_string(file)?;
        if let Some(reason) = ignore_text(&text, test) {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

fn ignore_text(text: &str, test: &str) -> Option<String> {
    let above = text.split_once(&format!("fn {test}("))?.0;
    let (_, attribute) = above.rsplit_once("#[ignore")?;
    let lines = attribute.lines().count();
    let quoted = attribute.split('"').nth(1)?;
    (lines <= 4 && !attribute.contains('}')).then(|| quoted.to_owned())
}

fn read_skips(context: &Context) -> String {
    std::fs::read_to_string(&context.skip_log).unwrap_or_default()
}

fn doc_tests(context: &Context, _: &Outcome) -> Result<Outcome> {
    let finished = run_cargo(context, "doc-tests", 15 * MINUTE, |cargo| {
        cargo.args(["test", "--workspace", "--all-features", "--doc", "--no-fail-fast"]);
    })?;
    let mut outcome = outcome::counted(Runner::Cargo, &finished, "");
    for skip in outcome.skips.iter_mut().filter(|skip| skip.reason == outcome::IGNORED) {
        skip.reason = "the code block is marked `ignore`".to_owned();
    }
    Ok(outcome)
}

fn rustdoc(context: &Context, _: &Outcome) -> Result<Outcome> {
    let libraries =
        context.workspace.members().filter(|package| package.targets.iter().any(|target| target.is("lib")));
    let names: Vec<&str> = libraries.map(|package| package.name.as_str()).collect();
    let finished = run_cargo(context, "rustdoc", 10 * MINUTE, |cargo| {
        cargo.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--no-deps", "--all-features"]);
        cargo.args(names.iter().flat_map(|name| ["--package", name]));
    })?;
    Ok(outcome::whole(&finished, &format!("{} crates", names.len())))
}

/// Packages whose examples need a device: suites of `tests/vm/suites.toml` run them.
const IN_THE_GUEST: [&str; 1] = ["sinew-verbs"];

/// Examples that measure. They are compiled with everything else, and run by hand: on a busy machine their figures prove
/// nothing, and they take minutes.
const MEASUREMENTS: [&str; 3] = ["lane_probe", "matching", "ratios"];

fn examples(context: &Context, _: &Outcome) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for package in
        context.workspace.members().filter(|package| !IN_THE_GUEST.contains(&package.name.as_str()))
    {
        let examples = package.targets.iter().filter(|target| target.is("example"));
        for target in examples.filter(|target| !MEASUREMENTS.contains(&target.name.as_str())) {
            let finished = run_cargo(context, "examples", 5 * MINUTE, |cargo| {
                cargo.args(["run", "--all-features", "--package", &package.name, "--example", &target.name]);
            })?;
            let one = outcome::whole(&finished, "");
            outcome.failures.extend(one.failures.iter().map(|failure| format!("{}: {failure}", target.name)));
            outcome.passed += one.passed;
        }
    }
    Ok(outcome)
}

/// What `cargo run --release` does, with the command that the step before has built.
fn command(context: &Context, _: &Outcome) -> Result<Outcome> {
    let built = no_c::built_command(&context.workspace);
    if !built.is_file() {
        bail!("{} is not there: the step no-c builds it", built.display());
    }
    let bytes = std::fs::metadata(&built)?.len();
    let mut command = Command::new(&built);
    command.current_dir(&context.workspace.root);
    let finished = process::run(&mut command, &context.logs.join("command.log"), 2 * MINUTE)?;
    if finished.ok && finished.output.lines().count() < 2 {
        return Ok(Outcome::failed("the command printed nothing"));
    }
    Ok(outcome::whole(&finished, &format!("{:.1} MB", bytes as f64 / 1e6)))
}

fn published(workspace: &Workspace) -> impl Iterator<Item = &crate::workspace::Package> {
    workspace.members().filter(|package| package.is_published())
}

/// Packs every published crate and, in the long run, builds each from its own archive.
fn package(context: &Context, _: &Outcome) -> Result<Outcome> {
    let names: Vec<&str> = published(&context.workspace).map(|package| package.name.as_str()).collect();
    if names.is_empty() {
        bail!("no crate is published");
    }
    let finished = run_cargo(context, "package", 15 * MINUTE, |cargo| {
        cargo.args(["package", "--allow-dirty"]).args(names.iter().flat_map(|name| ["--package", name]));
        if !context.long {
            cargo.arg("--no-verify");
        }
    })?;
    let packed = finished.output.matches("Packaged ").count();
    if finished.ok && packed < names.len() {
        return Ok(Outcome::failed(format!("{packed} archives for {} crates", names.len())));
    }
    Ok(outcome::whole(&finished, &format!("{packed} crates")))
}

/// What only the long run does: it builds everything once more, in its own way.
fn in_long_run(context: &Context, name: &str, step: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    if context.long {
        return step();
    }
    Ok(Outcome::skipped(name, "[long] builds everything anew, for minutes (`--long` does it)"))
}

fn planted(context: &Context, _: &Outcome) -> Result<Outcome> {
    in_long_run(context, "planted", || crate::planted::step(&context.workspace, &context.logs, None))
}

fn weakened(context: &Context, _: &Outcome) -> Result<Outcome> {
    in_long_run(context, "weakened", || loom::weakened_step(&context.workspace, &context.logs))
}

fn sanitize(context: &Context, _: &Outcome) -> Result<Outcome> {
    in_long_run(context, "sanitize", || nightly::sanitize_step(&context.workspace, &context.logs))
}

fn miri(context: &Context, _: &Outcome) -> Result<Outcome> {
    in_long_run(context, "miri", || nightly::miri_step(&context.workspace, &context.logs))
}

/// Known vulnerabilities, by cargo-deny. Its database is a git repository on the network.
fn advisories(context: &Context, _: &Outcome) -> Result<Outcome> {
    if !setup::has("cargo-deny") && context.long {
        let finished = run_cargo(context, "advisories", 15 * MINUTE, |cargo| {
            cargo.args(["install", "--locked", "cargo-deny"]);
        })?;
        if !finished.ok {
            return Ok(Outcome::skipped("advisories", "[advisories] cargo-deny cannot be installed here"));
        }
    }
    if !setup::has("cargo-deny") {
        return Ok(Outcome::skipped(
            "advisories",
            "[advisories] cargo-deny is not installed (2 to 3 minutes to build; `--long` does it); licences and bans are checked by the step dependencies",
        ));
    }
    let finished = run_cargo(context, "advisories", 5 * MINUTE, |cargo| {
        cargo.args(["deny", "--all-features", "check", "advisories"]);
    })?;
    if !finished.ok && finished.output.contains("failed to fetch advisory database") {
        return Ok(Outcome::skipped(
            "advisories",
            "[advisories] the advisory database cannot be fetched from here",
        ));
    }
    Ok(outcome::whole(&finished, ""))
}

/// Every test that a proven row of FEATURES.md names has passed in this run, under its own name.
fn proven(context: &Context, so_far: &Outcome) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let rows = features::rows(&context.workspace)?;
    for row in rows.iter().filter(|row| row.state == features::State::Proven) {
        for test in row.tests.iter().filter(|test| !test.contains('/')) {
            if so_far.passed_names.iter().any(|passed| outcome::is_named(passed, test)) {
                outcome.passed += 1;
            } else if so_far.skips.iter().any(|skip| outcome::is_named(&skip.name, test)) {
                outcome.absorb(Outcome::skipped(
                    test,
                    format!("{} is proven by it, but not in this run", row.id),
                ));
            } else {
                outcome.failures.push(format!("{}: the test {test} did not pass in this run", row.id));
            }
        }
    }
    if outcome.passed + outcome.failures.len() + outcome.skips.len() == 0 {
        return Ok(Outcome::one(format!("no row of {} is called proven", rows.len())));
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_test_says_why() {
        let text =
            "#[test]\n#[ignore = \"takes an hour\"]\nfn slow() {}\n#[test]\n#[ignore]\nfn silent() {}\n";
        assert_eq!(ignore_text(text, "slow").as_deref(), Some("takes an hour"));
        assert_eq!(ignore_text(text, "silent"), None);
        assert_eq!(ignore_text(text, "other"), None);
    }

    #[test]
    fn steps_have_names_of_their_own() {
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
