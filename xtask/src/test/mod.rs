//! `cargo xtask test`: the one command that proves a checkout. It passes on a fresh machine and needs nobody to answer it.
//!
//! Called by people and by `.ci/run`. It runs every step, prints one line for each with its time, then every SKIP with its
//! reason, then every test that passed only when it was run again, then every failure, and at last `N passed, N failed, N skipped`. A step
//! with nothing to do has failed.

pub(crate) mod campaigns;
mod no_c;
pub(crate) mod outcome;
mod steps;

use crate::process;
use crate::workspace::Workspace;
use anyhow::{Result, bail};
use outcome::{Outcome, Runner};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How the command was called.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Longer fuzzing and models, campaigns of a thousand rounds, ignored tests, and what takes minutes to install
    #[arg(long)]
    long: bool,
    /// Only these steps (may be given several times); `--list` names them
    #[arg(long)]
    only: Vec<String>,
    /// Name the steps and end
    #[arg(long)]
    list: bool,
    /// Stop after the first step that fails
    #[arg(long)]
    fail_fast: bool,
    /// Run no failed test again (else one that passes the second time is told as FLAKY; a few of them fail nothing)
    #[arg(long)]
    strict: bool,
    /// Who runs the tests [default: nextest where it is installed]
    #[arg(long)]
    runner: Option<Runner>,
}

/// What the steps share.
struct Context {
    workspace: Workspace,
    long: bool,
    /// Whether tests that fail are run a second time.
    again: bool,
    runner: Runner,
    /// The folder of logs.
    logs: PathBuf,
    /// Where tests write their skips.
    skip_log: PathBuf,
}

/// One step.
struct Step {
    name: &'static str,
    /// What it proves.
    what: &'static str,
    run: fn(&Context, &Outcome) -> Result<Outcome>,
}

/// Runs the steps.
///
/// # Errors
/// When anything failed, or something was skipped that `SINEW_REQUIRE` promises.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.list {
        for step in &steps::ALL {
            println!("{:<14} {}", step.name, step.what);
        }
        return Ok(());
    }
    let chosen: Vec<&Step> = steps::ALL
        .iter()
        .filter(|step| options.only.is_empty() || options.only.iter().any(|name| name == step.name))
        .collect();
    if let Some(unknown) = options.only.iter().find(|name| !steps::ALL.iter().any(|step| step.name == **name))
    {
        bail!("no step is called {unknown}; `cargo xtask test --list` names them");
    }
    let context = context(options)?;
    let begun = Instant::now();
    let mut total = Outcome::default();
    let mut guest = None;
    for (at, step) in chosen.iter().enumerate() {
        let before = total.failures.len();
        if let (GUEST, Some(guest)) = (step.name, &guest) {
            process::Beside::hurry(guest);
        }
        total.absorb(one_step(step, &context, &total));
        if step.name == "setup" && chosen[at..].iter().any(|later| later.name == GUEST) {
            guest = begin_guest(&context);
        }
        if options.fail_fast && total.failures.len() > before {
            break;
        }
    }
    drop(guest);
    conclude(total, begun.elapsed())
}

/// The step that needs a guest.
const GUEST: &str = "vm";

/// Makes the guest, which takes minutes, in what processor time the steps before it leave. The step that needs it waits for this, or makes it
/// itself where this fails.
fn begin_guest(context: &Context) -> Option<process::Beside> {
    let program = std::env::current_exe().ok()?;
    process::beside(&program, &["vm", "build"], &context.logs.join("vm-build-beside.log")).ok()
}

fn context(options: &Options) -> Result<Context> {
    let workspace = Workspace::load()?;
    let logs = workspace.scratch()?.join("test");
    if logs.exists() {
        std::fs::remove_dir_all(&logs)?;
    }
    std::fs::create_dir_all(&logs)?;
    let installed = if crate::setup::has("cargo-nextest") { Runner::Nextest } else { Runner::Cargo };
    let skip_log = logs.join("skips");
    println!("logs: {}", workspace.relative(&logs));
    let again = !options.strict && !options.long;
    let runner = options.runner.unwrap_or(installed);
    Ok(Context { long: options.long, again, runner, skip_log, logs, workspace })
}

fn one_step(step: &Step, context: &Context, so_far: &Outcome) -> Outcome {
    let begun = Instant::now();
    println!("   … {:<14} {}", step.name, step.what);
    let mut outcome =
        (step.run)(context, so_far).unwrap_or_else(|error| Outcome::failed(format!("{error:#}")));
    let required = std::env::var("SINEW_REQUIRE").unwrap_or_default();
    let forbidden = outcome::forbidden(&outcome.skips, &required);
    let broken = forbidden
        .iter()
        .map(|skip| format!("{} was skipped though SINEW_REQUIRE={required}: {}", skip.name, skip.reason));
    outcome.failures.extend(broken.collect::<Vec<_>>());
    if outcome.passed + outcome.failures.len() + outcome.skips.len() == 0 {
        outcome.failures.push("nothing to do: an empty step proves nothing".to_owned());
    }
    if outcome.flaky.len() > FLAKY {
        outcome
            .failures
            .push(format!("{} tests passed only the second time: more than chance", outcome.flaky.len()));
    }
    for failure in &mut outcome.failures {
        *failure = format!("{}: {failure}", step.name);
    }
    let verdict = if outcome.failures.is_empty() { "ok" } else { "FAILED" };
    let (passed, failed, skipped) = (outcome.passed, outcome.failures.len(), outcome.skips.len());
    println!(
        "{verdict:>6} {:<14} {:>7.1} s  {passed} passed, {failed} failed, {skipped} skipped  {}",
        step.name,
        begun.elapsed().as_secs_f64(),
        outcome.note
    );
    if !outcome.failures.is_empty() || !outcome.flaky.is_empty() {
        for failure in outcome.failures.iter().take(SHOWN) {
            println!("       failed: {failure}");
        }
        for name in &outcome.flaky {
            println!("       flaky: {name}");
        }
        let log =
            std::fs::read_to_string(context.logs.join(format!("{}.log", step.name))).unwrap_or_default();
        for line in outcome::panics(&log) {
            println!("       | {line}");
        }
    }
    outcome.note.clear();
    outcome
}

/// Tests of one step that may fail at first and pass the second time. These machines are shared: now and then another's load ends a test
/// that waits with a deadline. More than these have a cause.
const FLAKY: usize = 3;

/// Failures of a step that are shown at once: a reader of a cut log sees them too.
const SHOWN: usize = 8;

fn conclude(total: Outcome, elapsed: Duration) -> Result<()> {
    println!();
    total.tell();
    println!("{} tests and checks in {} s", total.passed + total.failures.len(), elapsed.as_secs());
    println!(
        "{} passed ({} of them the second time), {} failed, {} skipped",
        total.passed,
        total.flaky.len(),
        total.failures.len(),
        total.skips.len()
    );
    if total.failures.is_empty() { Ok(()) } else { std::process::exit(1) }
}
