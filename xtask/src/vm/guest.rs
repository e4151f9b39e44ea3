//! One guest from its start to its end.
//!
//! Called by `run` and `test`. The guest is a program: it is started with the folder of its job as its working directory, writes what the
//! command says into two pipes and what its kernel says into a file, and leaves the exit status in the folder. It never outlives
//! this runner.

use super::build::Made;
use super::job::{Folder, Job, Side};
use crate::setup;
use anyhow::{Context as _, Result};
use rustix::fs::StatVfsMountFlags;
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use rustix::thread::CpuSet;
use std::fs::{self, File};
use std::io::{PipeReader, Read as _, Write};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the end of a guest is looked for.
const POLL: Duration = Duration::from_millis(3);
/// What the kernel needs beside the memory of the guest.
const SPARE_BYTES: u64 = 8 << 20;
/// Lines of the console that are shown when something went wrong.
const CONSOLE_LINES: usize = 40;
const CONSOLE: &str = "console";
const SAID: &str = "said";
/// Where tests inside write why they did not run.
pub(super) const SKIPS: &str = "skips";

/// How a guest is to be started.
pub(super) struct Plan<'a> {
    pub(super) made: &'a Made,
    pub(super) job: &'a Job,
    pub(super) side: Side,
    /// The end of the wire to the other guest.
    pub(super) wire: Option<OwnedFd>,
    pub(super) memory_mib: u32,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The command ended by itself, with this exit status as a shell tells it.
    Exited(i32),
    /// It was ended when its time was up.
    OutOfTime,
    /// It ended without saying how the command ended.
    Died,
}

/// A guest that has ended.
pub(super) struct Ended {
    pub(super) end: End,
    /// The last lines of what its kernel said.
    pub(super) console: String,
    /// What tests wrote into the file [`SKIPS`] of their job.
    pub(super) skips: String,
}

/// A guest that runs.
pub(super) struct Running {
    child: Child,
    folder: Folder,
    /// They end with their pipes.
    readers: Vec<JoinHandle<()>>,
    begun: Instant,
    is_over: bool,
}

/// Where output goes, piece by piece as it comes.
pub(super) type Sink = Box<dyn Write + Send>;

impl Plan<'_> {
    /// Starts the guest. `sinks` are those of standard output and of standard error.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(&self, sinks: [Sink; 2]) -> Result<Running> {
        let folder = self.job.prepare(self.side, &self.made.packages(), &self.made.initrd()?)?;
        let console = File::create(folder.path.join(CONSOLE))?;
        let said = File::create(folder.path.join(SAID))?;
        let ((out, out_end), (err, err_end)) = (std::io::pipe()?, std::io::pipe()?);
        let mut words = vec![
            format!("mem={}M", self.memory_mib),
            "initrd=initrd con=null umid=guest uml_dir=./ quiet panic=-1".to_owned(),
            format!("con0=null,fd:{}", inherited(&console)?),
            format!("con1=null,fd:{}", inherited(&out_end)?),
            format!("con2=null,fd:{}", inherited(&err_end)?),
        ];
        if let Some(wire) = &self.wire {
            let (number, wire) = (self.side.number(), inherited(wire)?);
            words.push(format!("vec0:transport=fd,fd={wire},mac=52:54:00:77:00:0{number}"));
        }
        let mut command = command(&self.made.kernel());
        command.args(words.iter().flat_map(|words| words.split(' ')));
        command.current_dir(&folder.path).env("TMPDIR", memory_folder(self.memory_mib)?).process_group(0);
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let child = on_one_processor(self.side, || command.spawn())
            .with_context(|| format!("cannot start {}", self.made.kernel().display()))?;
        let readers = [out, err].into_iter().zip(sinks);
        let readers = readers.map(|(pipe, sink)| std::thread::spawn(move || copy(pipe, sink))).collect();
        Ok(Running { child, folder, readers, begun: Instant::now(), is_over: false })
    }
}

impl Running {
    /// Waits for the end, for at most `limit` since the start.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(super) fn wait(mut self, limit: Duration) -> Result<Ended> {
        let in_time = loop {
            if has_ended(&self.child)? {
                break true;
            }
            if self.begun.elapsed() > limit {
                break false;
            }
            std::thread::sleep(POLL);
        };
        self.end();
        // Nobody is left who could write, so the pipes have an end; whoever reads this runner's output may take his time.
        for reader in self.readers.drain(..) {
            _ = reader.join();
        }
        let end = match (status(&self.folder.path), in_time) {
            (_, false) => End::OutOfTime,
            (Some(status), true) => End::Exited(status),
            (None, true) => End::Died,
        };
        let skips = fs::read(self.folder.path.join(SKIPS)).unwrap_or_default();
        let skips = String::from_utf8_lossy(&skips).into_owned();
        Ok(Ended { end, console: console(&self.folder.path), skips })
    }

    /// Ends it with every process that belongs to it.
    fn end(&mut self) {
        if self.is_over {
            return;
        }
        self.is_over = true;
        // The guest's kernel is not reaped yet, so the number is still that of its group. Nobody left in it is what was wanted.
        _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether it has ended. It stays to be reaped.
fn has_ended(child: &Child) -> Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(Pid::from_child(child)), options)?.is_some())
}

/// The kernel as a command that ends with this runner, where the system has a program for that.
fn command(kernel: &Path) -> Command {
    if !setup::has("setpriv") {
        return Command::new(kernel);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(kernel);
    command
}

/// Lets the next program have a file, and answers its number there.
fn inherited(file: &impl AsFd) -> Result<i32> {
    let file = file.as_fd();
    rustix::io::fcntl_setfd(file, FdFlags::empty())?;
    Ok(file.as_raw_fd())
}

/// A folder that holds the memory of the guest: one in memory when there is room.
fn memory_folder(memory_mib: u32) -> Result<PathBuf> {
    let needed = (u64::from(memory_mib) << 20) + SPARE_BYTES;
    let folders = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    let fits = |folder: &&PathBuf| {
        rustix::fs::statvfs(folder.as_path()).is_ok_and(|space| {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            // The guest's programs are run from there.
            free >= needed && !space.f_flag.contains(StatVfsMountFlags::NOEXEC)
        })
    };
    folders.iter().find(fits).cloned().with_context(|| {
        let [one, other] = folders.each_ref().map(|folder| folder.display());
        format!(
            "neither {one} nor {other} has room for {memory_mib} MiB of memory that programs may be run from"
        )
    })
}

/// Starts something on one of the processors that this runner may use: the guest's kernel and its processes hand over to each other
/// all the time, which is quicker where they need not move.
fn on_one_processor<T>(side: Side, start: impl FnOnce() -> T) -> T {
    let Ok(all) = rustix::thread::sched_getaffinity(None) else { return start() };
    let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&number| all.is_set(number)).collect();
    let turn = std::process::id() as usize + usize::from(side.number());
    let mut one = CpuSet::new();
    one.set(usable[turn % usable.len().max(1)]);
    // It also works on several.
    _ = rustix::thread::sched_setaffinity(None, &one);
    let started = start();
    _ = rustix::thread::sched_setaffinity(None, &all);
    started
}

fn copy(mut pipe: PipeReader, mut sink: Sink) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = pipe.read(&mut piece) {
        // A reader who has gone must not stop the guest.
        _ = sink.write_all(&piece[..length]).and_then(|()| sink.flush());
    }
}

fn status(folder: &Path) -> Option<i32> {
    fs::read_to_string(folder.join("status")).ok()?.trim().parse().ok()
}

fn console(folder: &Path) -> String {
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_default();
    let text = [read(CONSOLE), read(SAID)].concat();
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_where_there_is_room_for_it() {
        assert!(memory_folder(1).is_ok());
        assert!(memory_folder(u32::MAX).unwrap_err().to_string().contains("room"));
    }

    #[test]
    fn a_program_that_is_started_on_one_processor_leaves_the_runner_on_all() {
        let before = rustix::thread::sched_getaffinity(None).unwrap();
        let inside = on_one_processor(Side::First, || rustix::thread::sched_getaffinity(None).unwrap());
        assert_eq!(inside.count(), 1);
        assert_eq!(rustix::thread::sched_getaffinity(None).unwrap().count(), before.count());
    }
}
