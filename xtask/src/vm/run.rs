//! `cargo xtask vm run` and `cargo xtask vm pair`: a command of the host in a guest, or one in each of two.
//!
//! Called from the command line; `test` starts its guests through [`in_one`] and [`in_two`]. What the command writes is passed on as it
//! is; everything that this runner says itself goes to standard error.

use super::build::{self, Made};
use super::guest::{End, Ended, Plan, Running, Sink};
use super::job::{Device, Job, Side, is_name};
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// Memory of a guest unless somebody says otherwise.
pub(super) const MEMORY_MIB: u32 = 512;
/// The kernel with its devices does not start with less.
pub(super) const MEMORY_MIB_MIN: u32 = 96;
pub(super) const MEMORY_MIB_MAX: u32 = 32 << 10;
/// Packets that the wire between two guests holds.
const WIRE_BYTES: usize = 1 << 20;
const STATUS_OUT_OF_TIME: i32 = 124;
const STATUS_DIED: i32 = 125;

/// What every guest can be given.
#[derive(clap::Args)]
struct Common {
    /// A device `siw0` (iWARP) beside `rxe0` (RoCE v2)
    #[arg(long)]
    siw: bool,
    /// Two interfaces `veth1`, `veth2` with a wire between them, `rxe1` and `rxe2` on their ends (10.88.0.1, 10.88.0.2)
    #[arg(long)]
    wire: bool,
    /// Memory of the guest in MiB
    #[arg(long = "mem", value_name = "MIB", default_value_t = MEMORY_MIB, value_parser = clap::value_parser!(u32).range(MEMORY_MIB_MIN as i64..=MEMORY_MIB_MAX as i64))]
    memory: u32,
    /// Seconds after which it is ended, with everything that runs in it
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    timeout: u64,
    /// A variable for the command (may be given several times); SINEW_*, RUST_*, IBV_* … are passed on anyhow
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, OsString)>,
    /// A folder of the host that it may write (may be given several times); everything else that it writes is gone afterwards
    #[arg(long = "share", value_name = "FOLDER")]
    shared: Vec<PathBuf>,
}

/// How `vm run` was called.
#[derive(clap::Args)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    common: Common,
    /// The command, found as a shell finds it; it starts in the present folder
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How `vm pair` was called.
#[derive(clap::Args)]
pub(crate) struct PairOptions {
    #[command(flatten)]
    common: Common,
    /// The command of the first guest (10.77.0.1), `---`, that of the second (10.77.0.2), which both see each other before they start
    #[arg(last = true, required = true, value_name = "COMMAND")]
    commands: Vec<OsString>,
}

fn variable(text: &str) -> Result<(String, OsString), String> {
    match text.split_once('=') {
        Some((name, value)) if is_name(name) => Ok((name.to_owned(), value.into())),
        _ => Err("a variable looks like NAME=VALUE".to_owned()),
    }
}

impl Common {
    fn job(&self, workspace: &Workspace, command: &[OsString]) -> Result<Job> {
        let mut shown = vec![workspace.root.clone()];
        shown.extend(workspace.target.is_dir().then(|| workspace.target.clone()));
        let mut command = command.to_vec();
        for (at, word) in command.iter_mut().enumerate() {
            let path = PathBuf::from(&word);
            if !path.is_absolute() && (at > 0 || path.components().count() < 2) {
                continue;
            }
            // One that is not there may be a file of the guest's packages.
            if let Ok(there) = path.canonicalize() {
                shown.push(there);
                if at == 0 {
                    *word = std::path::absolute(&path)?.into();
                }
            }
        }
        Ok(Job {
            devices: if self.siw { vec![Device::Rxe, Device::Siw] } else { vec![Device::Rxe] },
            wire: self.wire,
            environment: self.environment.clone(),
            shared: self.shared.clone(),
            shown,
            folder: std::env::current_dir()?,
            command,
        })
    }

    fn limits(&self) -> Limits {
        Limits { memory_mib: self.memory, time: Duration::from_secs(self.timeout) }
    }
}

/// What a guest may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) memory_mib: u32,
    pub(super) time: Duration,
}

/// `cargo xtask vm run`. Ends this process with the status of the command.
///
/// # Errors
/// When the guest is not there or cannot be started.
pub(super) fn run(workspace: &Workspace, options: &RunOptions) -> Result<()> {
    let made = made(workspace)?;
    let job = options.common.job(workspace, &options.command)?;
    let limits = options.common.limits();
    let sinks: [Sink; 2] = [Box::new(io::stdout()), Box::new(io::stderr())];
    let ended = in_one(&made, &job, limits, sinks)?;
    drop(made);
    std::process::exit(tell("the guest", &ended, limits))
}

/// `cargo xtask vm pair`. Ends this process with the status of the second command, or of the first where that of the second is 0.
///
/// # Errors
/// When the guest is not there or cannot be started, or there is no `---` between two commands.
pub(super) fn pair(workspace: &Workspace, options: &PairOptions) -> Result<()> {
    let mut commands = options.commands.split(|word| word == "---");
    let (Some(first @ [_, ..]), Some(second @ [_, ..]), None) =
        (commands.next(), commands.next(), commands.next())
    else {
        bail!("two commands are needed, and one word `---` between them");
    };
    let made = made(workspace)?;
    let jobs = [options.common.job(workspace, first)?, options.common.job(workspace, second)?];
    let limits = options.common.limits();
    let sinks = |mark: &'static str| -> [Sink; 2] {
        [Box::new(Marked::new(mark, io::stdout())), Box::new(Marked::new(mark, io::stderr()))]
    };
    let ended = in_two(&made, &jobs, limits, [sinks("[1] "), sinks("[2] ")])?;
    drop(made);
    let statuses = [tell("the first guest", &ended[0], limits), tell("the second guest", &ended[1], limits)];
    std::process::exit(if statuses[1] == 0 { statuses[0] } else { statuses[1] })
}

fn made(workspace: &Workspace) -> Result<Made> {
    super::job::can_run_here()?;
    build::ready(workspace)?.context(
        "there is no guest yet, or not of the present files in tests/vm: `cargo xtask vm build` makes it in about four minutes",
    )
}

/// Runs a job in a guest.
///
/// # Errors
/// When it cannot be started.
pub(super) fn in_one(made: &Made, job: &Job, limits: Limits, sinks: [Sink; 2]) -> Result<Ended> {
    let plan = Plan { made, job, side: Side::Alone, wire: None, memory_mib: limits.memory_mib };
    plan.start(sinks)?.wait(limits.time)
}

/// Runs a job in each of two guests that are joined.
///
/// # Errors
/// When one cannot be started.
pub(super) fn in_two(
    made: &Made,
    jobs: &[Job; 2],
    limits: Limits,
    [first, second]: [[Sink; 2]; 2],
) -> Result<[Ended; 2]> {
    let (one, other) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    for end in [&one, &other] {
        sockopt::set_socket_send_buffer_size(end, WIRE_BYTES)?;
    }
    let start = |job, side, wire: OwnedFd, sinks| -> Result<Running> {
        Plan { made, job, side, wire: Some(wire), memory_mib: limits.memory_mib }.start(sinks)
    };
    let first = start(&jobs[0], Side::First, one, first)?;
    let second = start(&jobs[1], Side::Second, other, second)?;
    Ok([first.wait(limits.time)?, second.wait(limits.time)?])
}

/// Says what is wrong with a guest's end, and answers the status of the command.
fn tell(whose: &str, ended: &Ended, limits: Limits) -> i32 {
    match ended.end {
        End::Exited(status) => {
            if ended.console.contains("Out of memory") {
                eprintln!("xtask: {whose} ran out of its {} MiB of memory (`--mem`)", limits.memory_mib);
            }
            status
        }
        End::OutOfTime => {
            eprintln!(
                "xtask: {whose} was ended when its time was up (`--timeout`, {} s)",
                limits.time.as_secs()
            );
            STATUS_OUT_OF_TIME
        }
        End::Died => {
            eprintln!(
                "xtask: {whose} died before the command had ended; the end of its console:\n{}",
                ended.console
            );
            STATUS_DIED
        }
    }
}

/// Puts a mark in front of every line, as two guests write at the same time.
struct Marked<W: Write> {
    mark: &'static str,
    to: W,
    line: Vec<u8>,
}

impl<W: Write> Marked<W> {
    fn new(mark: &'static str, to: W) -> Self {
        Self { mark, to, line: Vec::new() }
    }
}

impl<W: Write> Write for Marked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend(bytes);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            self.to.write_all(&[self.mark.as_bytes(), &line].concat())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W: Write> Drop for Marked<W> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.line.push(b'\n');
            _ = self.to.write_all(&[self.mark.as_bytes(), &self.line].concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_a_name_and_a_value() {
        assert_eq!(variable("A=b=c").unwrap(), ("A".to_owned(), OsString::from("b=c")));
        assert_eq!(variable("A=").unwrap().1, OsString::new());
        assert!(variable("A").is_err() && variable("=b").is_err() && variable("a b=c").is_err());
    }

    #[test]
    fn lines_of_two_guests_are_told_apart() {
        let mut written = Vec::new();
        let mut marked = Marked::new("[1] ", &mut written);
        for piece in ["a", "b\nc\n", "\nd"] {
            marked.write_all(piece.as_bytes()).unwrap();
        }
        drop(marked);
        assert_eq!(String::from_utf8(written).unwrap(), "[1] ab\n[1] c\n[1] \n[1] d\n");
    }
}
