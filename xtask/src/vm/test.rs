//! `cargo xtask vm test`: test programs in the guest, and their results in the form of the test command.
//!
//! Called from the command line and by `cargo xtask test`. A program of libtest is run as it is, all its tests one after the other, and
//! its words are read as those of any other runner: what did not run is a SKIP with a reason, a program that ran nothing has failed.

use super::build::{self, Made};
use super::guest::{End, Ended, SKIPS, Sink};
use super::job::{Device, INSIDE, Job};
use super::run::{Limits, MEMORY_MIB, in_one, in_two};
use super::suites::{self, Built};
use super::{Lacking, promises};
use crate::process::Finished;
use crate::test::outcome::{self, Outcome};
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For programs that no suite names.
const BINARY_LIMITS: Limits = Limits { memory_mib: MEMORY_MIB, time: Duration::from_secs(600) };

/// How `vm test` was called.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A part of the names of suites, or else of tests
    filter: Option<String>,
    /// Test programs to run instead of the suites, with both kinds of devices
    #[arg(long = "binary", value_name = "PATH", num_args = 1..)]
    binaries: Vec<PathBuf>,
    /// Name the suites and end
    #[arg(long)]
    list: bool,
}

/// `cargo xtask vm test`: makes the guest where it is not there yet.
///
/// # Errors
/// When a test failed or none ran.
pub(super) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let suites = suites::all(workspace)?;
    if options.list {
        for suite in suites {
            println!(
                "{:<16} {}{}",
                suite.name,
                suite.place(),
                if suite.pair { " (in two guests)" } else { "" }
            );
        }
        return Ok(());
    }
    for path in &options.binaries {
        if !path.is_file() {
            bail!("{} is no file", path.display());
        }
    }
    let logs = workspace.scratch()?.join("vm-test");
    std::fs::create_dir_all(&logs)?;
    let made = build::make(workspace, false, &workspace.scratch()?.join("vm-build.log"))?;
    let filter = options.filter.as_deref();
    let mut outcome = Outcome::default();
    if filter.is_none() && options.binaries.is_empty() {
        outcome.absorb(promises::keep(workspace, &made)?);
    }
    let inside = Inside { workspace, made, logs, filter: None, again: false };
    outcome.absorb(if options.binaries.is_empty() {
        inside.chosen(suites, filter)?
    } else {
        inside.with_filter(filter).binaries(&options.binaries)?
    });
    outcome.conclude("vm")
}

/// The step of the test command. A machine that cannot have a guest skips it. With `again` a program of which a test failed is run once more.
///
/// # Errors
/// When the list of suites is wrong, a program does not build, or a guest cannot be started.
pub(crate) fn step(workspace: &Workspace, logs: &Path, so_far: &Outcome, again: bool) -> Result<Outcome> {
    let suites = suites::all(workspace)?;
    let made = build::make(workspace, false, &logs.join("vm-build.log"));
    let tried = made.and_then(|made| Ok((promises::keep(workspace, &made)?, made)));
    let (mut outcome, made) = match tried {
        Ok(tried) => tried,
        Err(error) => match error.downcast_ref::<Lacking>() {
            Some(lacking) => return Ok(Outcome::skipped("vm", format!("[vm] {lacking}"))),
            None => return Err(error),
        },
    };
    let inside = Inside { workspace, made, logs: logs.to_owned(), filter: None, again };
    outcome.absorb(inside.chosen(suites, None)?);
    // What is not run anywhere has been told once, by whoever did not run it first.
    outcome.skips.retain(|skip| {
        !so_far.skips.iter().any(|told| told.name == skip.name && told.reason.starts_with(&skip.reason))
    });
    Ok(outcome)
}

/// Programs run in guests.
struct Inside<'a> {
    workspace: &'a Workspace,
    made: Made,
    logs: PathBuf,
    /// A part of the names of tests.
    filter: Option<&'a str>,
    /// Whether programs of which a test failed are run once more, in a new guest.
    again: bool,
}

/// One program and its guest.
struct Program<'a> {
    name: &'a str,
    path: &'a Path,
    folder: PathBuf,
    place: String,
    devices: Vec<Device>,
    wire: bool,
    environment: Vec<(String, std::ffi::OsString)>,
    limits: Limits,
}

impl<'a> Inside<'a> {
    fn with_filter(self, filter: Option<&'a str>) -> Self {
        Self { filter, ..self }
    }

    /// Runs the suites whose name contains `filter`, or all with those tests whose name does.
    fn chosen(self, suites: Vec<suites::Suite>, filter: Option<&'a str>) -> Result<Outcome> {
        let names: Vec<String> = suites.iter().map(|suite| suite.name.clone()).collect();
        let is_meant = |suite: &suites::Suite| filter.is_none_or(|filter| suite.name.contains(filter));
        let by_name: Vec<suites::Suite> = suites.iter().filter(|suite| is_meant(suite)).cloned().collect();
        let (suites, inside) = match (by_name.is_empty(), filter) {
            (true, Some(_)) => (suites, self.with_filter(filter)),
            _ => (by_name, self),
        };
        let mut total = Outcome { note: format!("{} suites", suites.len()), ..Outcome::default() };
        for built in suites::build(inside.workspace, suites, &inside.logs.join("vm.log"))? {
            total.absorb(inside.suite(&built)?);
        }
        if let Some(filter) = inside.filter
            && total.passed + total.failures.len() + total.skips.len() == 0
        {
            bail!(
                "no suite and no test in the guest is called {filter}; the suites are {}",
                names.join(", ")
            );
        }
        Ok(total)
    }

    fn suite(&self, built: &Built) -> Result<Outcome> {
        let suite = &built.suite;
        let environment = suite.environment.iter().map(|(name, value)| (name.clone(), value.into()));
        let program = Program {
            name: &suite.name,
            path: &built.program,
            folder: built.folder.clone(),
            place: suite.place(),
            devices: suite.devices.clone(),
            wire: suite.wire,
            environment: environment.collect(),
            limits: suite.limits(),
        };
        let run = |log: &str| if suite.pair { self.pair(&program, log) } else { self.one(&program, log) };
        let first = run(&suite.name)?;
        if !self.again || first.failures.is_empty() {
            return Ok(first);
        }
        Ok(first.and_again(run(&format!("{}-again", suite.name))?))
    }

    fn binaries(&self, paths: &[PathBuf]) -> Result<Outcome> {
        let mut total = Outcome::default();
        for path in paths {
            let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = file.rsplit_once('-').map_or(file.as_str(), |(name, _)| name);
            let program = Program {
                name,
                path: &path,
                folder: std::env::current_dir()?,
                place: format!("{name}::"),
                devices: vec![Device::Rxe, Device::Siw],
                wire: false,
                environment: Vec::new(),
                limits: BINARY_LIMITS,
            };
            total.absorb(self.one(&program, name)?);
        }
        Ok(total)
    }

    fn job(&self, program: &Program<'_>) -> Job {
        let mut environment = vec![("XTASK_SKIP_LOG".to_owned(), format!("{INSIDE}/{SKIPS}").into())];
        environment.extend([("CARGO_MANIFEST_DIR".to_owned(), program.folder.clone().into())]);
        environment.extend(program.environment.iter().cloned());
        let words = ["--test-threads=1", "--show-output", "--color=never"];
        let mut command = vec![program.path.into()];
        command.extend(words.iter().map(Into::into).chain(self.filter.map(Into::into)));
        Job {
            devices: program.devices.clone(),
            wire: program.wire,
            environment,
            shared: Vec::new(),
            shown: vec![self.workspace.root.clone(), self.workspace.target.clone(), program.path.to_owned()],
            folder: program.folder.clone(),
            command,
        }
    }

    fn one(&self, program: &Program<'_>, log: &str) -> Result<Outcome> {
        let begun = Instant::now();
        let output = Output::default();
        let ended = in_one(&self.made, &self.job(program), program.limits, output.sinks())?;
        let outcome = self.read(program, log, &ended, &output)?;
        report(program.name, &outcome, begun.elapsed());
        Ok(outcome)
    }

    fn pair(&self, program: &Program<'_>, log: &str) -> Result<Outcome> {
        let begun = Instant::now();
        let outputs = [Output::default(), Output::default()];
        let jobs = [self.job(program), self.job(program)];
        let sinks = [outputs[0].sinks(), outputs[1].sinks()];
        let ended = in_two(&self.made, &jobs, program.limits, sinks)?;
        let logs = [1, 2].map(|number| format!("{log}-{number}"));
        let first = self.read(program, &logs[0], &ended[0], &outputs[0])?;
        let second = self.read(program, &logs[1], &ended[1], &outputs[1])?;
        let outcome = of_both(first, second);
        report(program.name, &outcome, begun.elapsed());
        Ok(outcome)
    }

    /// Keeps what a program wrote in the log of that name, and counts it.
    fn read(&self, program: &Program<'_>, log: &str, ended: &Ended, output: &Output) -> Result<Outcome> {
        let mut text = output.text();
        let reason = match ended.end {
            End::Exited(0) => None,
            // As a process that ended so would be shown.
            End::Exited(status) => Some(format!("exit status: {status}")),
            End::OutOfTime => Some(format!("ended after its limit of {} s", program.limits.time.as_secs())),
            End::Died => {
                text.push_str(&format!("\nthe end of the console:\n{}\n", ended.console));
                Some("the guest died".to_owned())
            }
        };
        let log = self.logs.join(format!("vm-{log}.log"));
        std::fs::write(&log, &text).with_context(|| format!("cannot write {}", log.display()))?;
        let finished = Finished { ok: reason.is_none(), output: text, reason, log };
        let mut outcome = outcome::counted_at(&program.place, &finished, &ended.skips);
        // A filter that fits elsewhere leaves this program without a test.
        if self.filter.is_some() && finished.ok && outcome.passed + outcome.skips.len() == 0 {
            outcome.failures.clear();
        }
        for failure in &mut outcome.failures {
            *failure = format!("{}: {failure}", program.name);
        }
        if !outcome.failures.is_empty() {
            outcome::panics(&finished.output).iter().for_each(|line| println!("       | {line}"));
        }
        Ok(outcome)
    }
}

fn report(name: &str, outcome: &Outcome, took: Duration) {
    println!(
        "      guest: {name:<16} {:>6.1} s  {} passed, {} failed, {} skipped",
        took.as_secs_f64(),
        outcome.passed,
        outcome.failures.len(),
        outcome.skips.len()
    );
}

/// The result of one program that ran in two guests: a test has passed when it passed in both.
fn of_both(first: Outcome, mut second: Outcome) -> Outcome {
    second.passed_names.retain(|name| first.passed_names.contains(name));
    second.passed = second.passed_names.len();
    second.failures.extend(first.failures);
    second.skips.extend(first.skips);
    second.skips.sort();
    second.skips.dedup();
    second
}

/// What a program writes, both streams as they come.
#[derive(Clone, Default)]
pub(super) struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Output {
    /// A place to write to.
    pub(super) fn sink(&self) -> Sink {
        Box::new(self.clone())
    }

    fn sinks(&self) -> [Sink; 2] {
        [self.sink(), self.sink()]
    }

    /// Everything that was written.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::outcome::Skip;

    fn passed(names: &[&str]) -> Outcome {
        let passed_names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Outcome { passed: names.len(), passed_names, ..Outcome::default() }
    }

    #[test]
    fn a_test_in_two_guests_has_passed_when_it_passed_in_both() {
        let (mut first, mut second) = (passed(&["a", "b"]), passed(&["a"]));
        first.failures.push("c".to_owned());
        second.skips.push(Skip { name: "b".to_owned(), reason: "no".to_owned() });
        let both = of_both(first, second);
        assert_eq!((both.passed, both.failures.len(), both.skips.len()), (1, 1, 1));
        assert_eq!(both.passed_names, ["a"]);
    }
}
