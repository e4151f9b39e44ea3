//! Starting programs and waiting for them without using a core: the runner sleeps in the kernel while they measure.
//! The runner and the peers call it. It knows no peer and no budget.

use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// A command line that can be shown, then started: environment, program, arguments.
#[derive(Debug, Clone, Default)]
pub struct CommandLine {
    /// Names and values.
    pub environment: Vec<(String, String)>,
    /// The program, by path or by a name to look for.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl fmt::Display for CommandLine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            write!(out, "{name}={value} ")?;
        }
        write!(out, "{}", self.program)?;
        for argument in &self.arguments {
            write!(out, " {argument}")?;
        }
        Ok(())
    }
}

/// A started program; it and all that it started are killed when this is dropped.
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts `line` in a process group of its own, its output kept for [`Running::finish`].
    pub fn start(line: &CommandLine) -> Result<Self> {
        let child = Command::new(&line.program)
            .args(&line.arguments)
            .envs(line.environment.iter().cloned())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", line.program))?;
        Ok(Self { child, name: line.to_string() })
    }

    /// Waits until the program ends, at most until `deadline`, and returns what it wrote. Output beyond a pipe's
    /// 64 KiB would stop the program, so this is for programs that print little.
    pub fn finish(mut self, deadline: Instant) -> Result<String> {
        let status = loop {
            if let Some(status) = self.child.try_wait().context("wait")? {
                break status;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                bail!("{}: still running at its deadline, killed", self.name);
            };
            await_end(&self.child, left)?;
        };
        let mut text = String::new();
        if let Some(mut output) = self.child.stdout.take() {
            output.read_to_string(&mut text).context("output")?;
        }
        if !status.success() {
            let mut errors = String::new();
            if let Some(mut output) = self.child.stderr.take() {
                output.read_to_string(&mut errors).context("error output")?;
            }
            bail!("{}: {status}: {}{}", self.name, text, errors.trim());
        }
        Ok(text)
    }
}

/// Sleeps until `child` ends or `left` is over.
fn await_end(child: &Child, left: Duration) -> Result<()> {
    let pid = Pid::from_child(child);
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    let limit = Timespec::try_from(left).context("deadline")?;
    rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit)).context("poll")?;
    Ok(())
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // The group is this child's own; if it ended meanwhile there is nobody left to kill.
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(program: &str, arguments: &[&str]) -> CommandLine {
        CommandLine {
            environment: vec![("SAY".into(), "hello".into())],
            program: program.into(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn the_output_and_the_environment_of_a_program_arrive() {
        let text = Running::start(&line("sh", &["-c", "echo $SAY"])).and_then(|run| run.finish(soon()));
        assert_eq!(text.expect("runs"), "hello\n");
    }

    #[test]
    fn a_failing_program_is_an_error_with_its_own_words() {
        let failure = Running::start(&line("sh", &["-c", "echo broken >&2; exit 3"]))
            .and_then(|run| run.finish(soon()))
            .expect_err("fails");
        assert!(failure.to_string().contains("broken"), "{failure}");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_at_its_deadline() {
        let running = Running::start(&line("sleep", &["1000"])).expect("starts");
        let pid = Pid::from_child(&running.child);
        let failure = running.finish(Instant::now() + Duration::from_millis(10)).expect_err("too slow");
        assert!(failure.to_string().contains("deadline"), "{failure}");
        assert!(rustix::process::test_kill_process(pid).is_err(), "the program is gone");
    }
}
