//! Processes to be killed: forked from a process that does nothing else, so that one costs a few milliseconds.
//!
//! Used by survivors through [`Herd`] and [`Victim`]; the other side is [`process`], a role of this test program. Victims
//! write what they are doing into a page that the survivor reads when they are dead: so it is known what the fault hit.
#![allow(unsafe_code)]

use crate::common::{hear, say};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Instructions whose addresses a diary has room for.
const TRACE: usize = 1 << 16;
/// Victims at the same time.
pub(crate) const SLOTS: usize = 4;

/// What one victim says of itself. Its calls are numbered from 1.
#[repr(C)]
pub(crate) struct Diary {
    /// The last call that it began.
    pub(crate) begun: AtomicU64,
    /// The last call that ended.
    pub(crate) ended: AtomicU64,
    /// Loans that it holds.
    pub(crate) held: AtomicU64,
    /// Messages that did not come to it.
    pub(crate) missing: AtomicU64,
    /// It waits for [`Diary::go`] before the operation that is run in steps.
    pub(crate) ready: AtomicU64,
    pub(crate) go: AtomicU64,
    /// Where the count of instructions begins, if not at the beginning: an address, and which pass of it.
    pub(crate) at: AtomicU64,
    pub(crate) passes: AtomicU64,
    /// Instructions of that operation so far, and at how many it ends.
    pub(crate) steps: AtomicU64,
    pub(crate) limit: AtomicU64,
    /// The address of the instruction that it ended before, and one in the middle of the program.
    pub(crate) place: AtomicU64,
    pub(crate) program: AtomicU64,
    /// It ends at its limit.
    pub(crate) dying: AtomicU64,
    /// The operation was over before.
    pub(crate) done: AtomicU64,
    /// Not 0: it saw what must not be.
    pub(crate) wrong: AtomicU64,
    /// Addresses of the instructions that were counted.
    pub(crate) trace: [AtomicU64; TRACE],
}

impl Diary {
    /// Whether it was in the middle of a call when it died.
    pub(crate) fn is_inside(&self) -> bool {
        self.begun.load(Ordering::Acquire) > self.ended.load(Ordering::Acquire)
    }

    fn clear(&self) {
        let words = [&self.begun, &self.ended, &self.held, &self.missing, &self.wrong];
        let stepped = [
            &self.ready,
            &self.go,
            &self.at,
            &self.passes,
            &self.steps,
            &self.limit,
            &self.place,
            &self.program,
            &self.dying,
            &self.done,
        ];
        for word in words.into_iter().chain(stepped) {
            word.store(0, Ordering::Release);
        }
    }

    /// Runs one call of a victim.
    pub(crate) fn call<T>(&self, run: impl FnOnce() -> T) -> T {
        self.begun.fetch_add(1, Ordering::AcqRel);
        let done = run();
        self.ended.fetch_add(1, Ordering::AcqRel);
        done
    }
}

/// The diaries, shared with all victims.
pub(crate) struct Diaries(NonNull<[Diary; SLOTS]>);

// SAFETY: nothing but atomics in memory that is mapped as long as the process lives.
unsafe impl Send for Diaries {}
// SAFETY: as above.
unsafe impl Sync for Diaries {}

impl Diaries {
    fn map(path: &Path) -> Self {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        let len = size_of::<[Diary; SLOTS]>();
        file.set_len(len as u64).unwrap();
        let (prot, flags) =
            (rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE, rustix::mm::MapFlags::SHARED);
        // SAFETY: a new mapping, anywhere.
        let data = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, &file, 0) }.unwrap();
        Self(NonNull::new(data.cast()).expect("mapped"))
    }

    pub(crate) fn of(&self, slot: usize) -> &Diary {
        // SAFETY: mapped for ever, as long as all of them are, and any bytes are atomics.
        unsafe { &self.0.as_ref()[slot] }
    }
}

/// The survivor's side.
pub(crate) struct Herd {
    process: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) diaries: Diaries,
}

impl Herd {
    /// Starts the process whose children will be victims. `folder` is for their sockets.
    pub(crate) fn start(folder: &Path, lane: &str) -> Self {
        let diaries = Diaries::map(&folder.join("diaries"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["other_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env("OTHER_ROLE", "herd")
            .env("OTHER_LANE", lane)
            .env("CAMPAIGN_FOLDER", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().expect("another process");
        let lines = BufReader::new(process.stdout.take().expect("its output"));
        Self { process, lines, diaries }
    }

    /// A new process with a role; its diary is that of `slot`.
    pub(crate) fn victim(&mut self, slot: usize, role: &str) -> Victim {
        self.diaries.of(slot).clear();
        let stdin = self.process.stdin.as_mut().expect("its input");
        writeln!(stdin, "{slot} {role}").and_then(|()| stdin.flush()).expect("it reads");
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the herd has ended");
            if let Some(at) = line.find('@') {
                let (pid, address) = line[at + 1..].trim_end().split_once(' ').expect("pid and address");
                return Victim { pid: pid.parse().expect("a number"), address: address.to_owned() };
            }
        }
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A process that may be killed at any time; it is when this is dropped.
pub(crate) struct Victim {
    pub(crate) pid: i32,
    pub(crate) address: String,
}

impl Victim {
    pub(crate) fn signal(&self, signal: i32) {
        send_signal(self.pid, signal);
    }

    /// What the system says of it, for a person.
    pub(crate) fn state(&self) -> &'static str {
        match state(self.pid) {
            None | Some('Z' | 'X') => "dead",
            Some('T' | 't') => "stopped",
            Some(_) => "alive",
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
    }
}

/// Sends a signal to a victim that may be dead already: its number is not used again so soon.
pub(crate) fn send_signal(pid: i32, signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid, signal) };
}

fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Whether a process is there: the herd waits for none of its children.
pub(crate) fn is_alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Whether a process waits in a system call.
pub(crate) fn is_asleep(pid: i32) -> bool {
    state(pid) == Some('S')
}

/// Whether a process stands still.
pub(crate) fn is_stopped(pid: i32) -> bool {
    state(pid) == Some('T')
}

/// Bytes of memory that a process has.
pub(crate) fn resident(pid: i32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// The body of the process: forks for each line that it is told.
pub(crate) fn process() {
    let folder = PathBuf::from(std::env::var_os("CAMPAIGN_FOLDER").expect("set by the survivor"));
    let diaries = Diaries::map(&folder.join("diaries"));
    // SAFETY: dead children are not waited for.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    die_with_parent();
    crate::traffic::prepare();
    while let Some(line) = hear() {
        let (slot, role) = line.split_once(' ').expect("slot and role");
        // SAFETY: this process has one thread, which holds no lock here.
        if unsafe { libc::fork() } == 0 {
            die_with_parent();
            let slot = slot.parse().expect("a number");
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                crate::victims::live(role, &folder, diaries.of(slot));
            }));
            if done.is_err() {
                diaries.of(slot).wrong.store(99, Ordering::Release);
            }
            // SAFETY: ends the child without the exit handlers of its parent.
            unsafe { libc::_exit(0) };
        }
    }
}

/// Says who this victim is.
pub(crate) fn introduce(address: impl std::fmt::Display) {
    say(format!("{} {address}", std::process::id()));
}

/// What is left of a campaign that failed must not live on.
pub(crate) fn die_with_parent() {
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}
