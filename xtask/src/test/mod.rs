//! `cargo xtask test`: the one command that proves a checkout. It passes on a fresh machine and needs nobody to answer it.
//!
//! Called by people and by `.ci/run`. It runs every step, prints one line for each with its time, then every SKIP with its
//! reason, then every failure, and at last `N passed, N failed, N skipped`. A step with nothing to do has failed.

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
    /// Who runs the tests [default: nextest where it is installed]
    #[arg(long)]
    runner: Option<Runner>,
}

/// What the steps share.
struct Context {
    workspace: Workspace,
    long: bool,
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
    Ok(Context { long: options.long, runner: options.runner.unwrap_or(installed), skip_log, logs, workspace })
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
    if !outcome.failures.is_empty() {
        for failure in outcome.failures.iter().take(SHOWN) {
            println!("       failed: {failure}");
        }
        let log =
            std::fs::read_to_string(context.logs.join(format!("{}.log", step.name))).unwrap_or_default();
        for line in panics(&log) {
            println!("       | {line}");
        }
    }
    outcome.note.clear();
    outcome
}

/// Failures of a step, and panics in its log, that are shown at once: a reader of a cut log sees them too.
const SHOWN: usize = 8;

/// Where and why the tests of a log panicked.
fn panics(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().collect();
    let places = (0..lines.len()).filter(|&at| lines[at].contains(" panicked at "));
    places.take(SHOWN).flat_map(|at| &lines[at..lines.len().min(at + 4)]).map(|line| line.trim()).collect()
}

fn conclude(total: Outcome, elapsed: Duration) -> Result<()> {
    println!();
    for skip in &total.skips {
        println!("SKIP {}: {}", skip.name, skip.reason);
    }
    for failure in &total.failures {
        println!("FAILED {failure}");
    }
    println!("{} tests and checks in {} s", total.passed + total.failures.len(), elapsed.as_secs());
    println!("{} passed, {} failed, {} skipped", total.passed, total.failures.len(), total.skips.len());
    if total.failures.is_empty() { Ok(()) } else { std::process::exit(1) }
}
