//! What `cargo xtask vm` promises of its guests, tried with small commands before anything is believed that ran in one.
//!
//! Called by `test`. Each promise counts as a test; a guest that does not start at all is told apart, as no fault of the code.

use super::Lacking;
use super::build::Made;
use super::guest::{End, Ended};
use super::job::{Device, Job};
use super::run::{Limits, MEMORY_MIB_MIN, in_one};
use super::test::Output;
use crate::test::outcome::Outcome;
use crate::workspace::Workspace;
use anyhow::{Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMITS: Limits = Limits { memory_mib: MEMORY_MIB_MIN, time: Duration::from_secs(120) };
/// Long enough for the command to have begun, on most days; what it proves it proves in any case.
const SHORT: Duration = Duration::from_secs(3);

type Promise = fn(&Trial<'_>) -> Result<()>;

const PROMISES: [(&str, Promise); 4] = [
    ("output_and_status_are_those_of_the_command", output_and_status),
    ("a_command_that_never_ends_is_ended", never_ends),
    ("a_guest_that_dies_is_no_success", dies),
    ("what_is_written_inside_stays_inside_but_in_shared_folders", written),
];

/// What a promise is tried with.
struct Trial<'a> {
    made: &'a Made,
    /// A folder of the host, new and empty.
    folder: &'a Path,
}

/// Tries every promise.
///
/// # Errors
/// [`Lacking`] when guests do not start on this machine.
pub(super) fn keep(workspace: &Workspace, made: &Made) -> Result<Outcome> {
    let folder = workspace.scratch()?.join("vm-promises");
    let trial = Trial { made, folder: &folder };
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let (ended, ..) = trial.shell("true", &[], LIMITS.time)?;
    if ended.end != End::Exited(0) {
        // Where programs may not trace each other, for one.
        let last = ended.console.lines().last().unwrap_or("it says nothing");
        bail!(Lacking(format!("a guest does not start here ({last})")));
    }
    let mut outcome = Outcome::default();
    for (name, promise) in PROMISES {
        match promise(&trial) {
            Ok(()) => {
                outcome.passed += 1;
                outcome.passed_names.push(format!("xtask::vm::promises::{name}"));
            }
            Err(error) => outcome.failures.push(format!("{name}: {error:#}")),
        }
    }
    fs::remove_dir_all(&folder)?;
    Ok(outcome)
}

impl Trial<'_> {
    /// Runs a shell inside. Answers how it ended and what it wrote to its two outputs.
    fn shell(&self, script: &str, shared: &[PathBuf], time: Duration) -> Result<(Ended, String, String)> {
        let job = Job {
            devices: Vec::<Device>::new(),
            wire: false,
            environment: Vec::new(),
            shared: shared.to_vec(),
            shown: Vec::new(),
            folder: self.folder.to_owned(),
            command: ["sh", "-c", script].map(Into::into).to_vec(),
        };
        let (out, err) = (Output::default(), Output::default());
        let sinks = [out.sink(), err.sink()];
        let ended = in_one(self.made, &job, Limits { time, ..LIMITS }, sinks)?;
        Ok((ended, out.text(), err.text()))
    }
}

fn output_and_status(trial: &Trial<'_>) -> Result<()> {
    let (ended, out, err) =
        trial.shell("printf 'a\\r\\nb'; seq 9999; printf 'c d' >&2; exit 7", &[], LIMITS.time)?;
    let numbers: String = (1..=9999).map(|number| format!("{number}\n")).collect();
    if ended.end != End::Exited(7) || out != format!("a\r\nb{numbers}") || err != "c d" {
        bail!("{:?}, {} bytes of output, `{err}`", ended.end, out.len());
    }
    Ok(())
}

fn never_ends(trial: &Trial<'_>) -> Result<()> {
    let (ended, ..) = trial.shell("sleep 1000 & sleep 1000", &[], SHORT)?;
    if ended.end == End::OutOfTime { Ok(()) } else { bail!("{:?}", ended.end) }
}

fn dies(trial: &Trial<'_>) -> Result<()> {
    let (ended, out, _) =
        trial.shell("echo alive; sleep 1; /run/vm/busybox poweroff -f; sleep 1000", &[], LIMITS.time)?;
    if ended.end != End::Died || !ended.console.contains("Power down") || out != "alive\n" {
        bail!("{:?}, output `{out}`, console: {}", ended.end, ended.console);
    }
    Ok(())
}

fn written(trial: &Trial<'_>) -> Result<()> {
    let (inside, shared) = (trial.folder.join("inside"), trial.folder.join("shared"));
    fs::create_dir_all(&shared)?;
    let script = "echo 1 > inside && echo 2 > shared/file && cat inside shared/file";
    let (ended, out, err) = trial.shell(script, std::slice::from_ref(&shared), LIMITS.time)?;
    let kept = fs::read_to_string(shared.join("file")).unwrap_or_default();
    if ended.end != End::Exited(0) || out != "1\n2\n" || inside.exists() || kept != "2\n" {
        bail!(
            "{:?}, output `{out}`, errors `{err}`, outside {}, shared `{kept}`",
            ended.end,
            inside.exists()
        );
    }
    Ok(())
}
