//! Two processes: the first side starts the second as a re-execution of this program, hands it descriptors as standard
//! input and output, and ends it. Every raw program and every program over Sinew uses it. It measures nothing.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Pins this thread to `cpu`; nothing to do without one.
pub fn pin(cpu: Option<usize>) -> Result<()> {
    cpu.map_or(Ok(()), |cpu| allow(&[cpu]))
}

/// Lets this thread run on any of `cpus`, and no other; an error if the machine lacks one.
pub fn allow(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        ensure!(cpu < CpuSet::MAX_CPU, "there is no core {cpu}");
        set.set(cpu);
    }
    sched_setaffinity(None, &set).with_context(|| format!("cannot pin to cores {cpus:?}"))?;
    // The system takes those that it has.
    let got = sched_getaffinity(None).context("cannot ask for the cores of this thread")?;
    let lacks = cpus.iter().find(|&&cpu| !got.is_set(cpu));
    lacks.map_or(Ok(()), |cpu| Err(anyhow::anyhow!("there is no core {cpu}, or it may not be used")))
}

/// Whether [`allow`] would do, told by a thread of its own.
pub fn may_use(cpus: &[usize]) -> Result<()> {
    std::thread::scope(|scope| scope.spawn(|| allow(cpus)).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Makes the kernel end this process when the one that started it ends.
pub fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("prctl(PR_SET_PDEATHSIG)")
}

/// The second side, killed when dropped.
pub struct Second(Child);

impl Second {
    /// Starts this program again with the same arguments and `--second`; `input` and `output` become its
    /// descriptors 0 and 1. `cpus` are the cores of the two sides: for the moment of the start both may use either,
    /// as a child born on the first side's core alone would have to get past a spinning parent.
    pub fn start(cpus: &[usize], input: impl Into<Stdio>, output: impl Into<Stdio>) -> Result<Self> {
        allow(cpus)?;
        let second = Self::spawn(input, output);
        pin(cpus.first().copied())?;
        second
    }

    fn spawn(input: impl Into<Stdio>, output: impl Into<Stdio>) -> Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        arguments.push("--second".into());
        let child = Command::new(program)
            .args(arguments)
            .stdin(input)
            .stdout(output)
            .spawn()
            .context("cannot start the second side")?;
        Ok(Self(child))
    }

    /// The process number of the second side.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // A second side that has already ended is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The second side's descriptor 0, as its first side gave it.
pub fn input() -> Result<OwnedFd> {
    std::io::stdin().as_fd().try_clone_to_owned().context("descriptor 0")
}

/// The second side's descriptor 1, as its first side gave it.
pub fn output() -> Result<OwnedFd> {
    std::io::stdout().as_fd().try_clone_to_owned().context("descriptor 1")
}
