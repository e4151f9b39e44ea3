//! Runs another process instruction by instruction, by ptrace.
//!
//! Used by [`crate::steps`] from one thread, as ptrace wants. A victim marks a place by stopping itself.
#![allow(unsafe_code)]

use std::io;
use std::ptr::null_mut;

/// What a traced process did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// One instruction.
    Stepped,
    /// It stands at a mark.
    Marked,
    /// It is dead.
    Gone,
}

/// A process that is traced, until it is dead.
pub(crate) struct Tracee {
    pid: i32,
    steps: u32,
}

/// Marks a place in the process that calls it: its tracer sees it stop there.
pub(crate) fn mark(pid: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
}

fn ptrace(request: libc::c_uint, pid: i32, address: i64, data: i64) -> io::Result<()> {
    // SAFETY: the requests used here read and write memory of the other process only.
    match unsafe { libc::ptrace(request, pid, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

impl Tracee {
    /// Traces a running process. It dies with its tracer.
    pub(crate) fn seize(pid: i32) -> io::Result<Self> {
        ptrace(libc::PTRACE_SEIZE, pid, 0, i64::from(libc::PTRACE_O_EXITKILL))?;
        Ok(Self { pid, steps: 0 })
    }

    /// What it did, if it did something.
    fn look(&self, flags: i32) -> Option<Stop> {
        let mut status = 0;
        // SAFETY: `status` is writable.
        let pid = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL | flags) };
        if pid == 0 {
            return None;
        }
        if pid < 0 || !libc::WIFSTOPPED(status) {
            return Some(Stop::Gone);
        }
        Some(if libc::WSTOPSIG(status) == libc::SIGTRAP { Stop::Stepped } else { Stop::Marked })
    }

    /// Waits for what it does next.
    fn wait(&self) -> Stop {
        self.look(0).unwrap_or(Stop::Gone)
    }

    /// Waits for its first mark; `idle` is run meanwhile.
    pub(crate) fn first(&mut self, mut idle: impl FnMut()) -> Stop {
        loop {
            if let Some(stop) = self.look(libc::WNOHANG) {
                return stop;
            }
            idle();
            std::thread::yield_now();
        }
    }

    /// Runs one instruction; what repeats itself counts a few times only, and then goes on to its end at once.
    pub(crate) fn step(&mut self) -> Stop {
        self.steps += 1;
        #[cfg(target_arch = "x86_64")]
        if self.steps.is_multiple_of(Self::LOOK_EVERY)
            && let Some(stop) = self.run_over()
        {
            return stop;
        }
        if ptrace(libc::PTRACE_SINGLESTEP, self.pid, 0, 0).is_err() {
            return Stop::Gone;
        }
        self.wait()
    }

    /// Ends it, wherever it stands.
    pub(crate) fn kill(self) {
        crate::herd::send_signal(self.pid, libc::SIGKILL);
        while self.look(0) != Some(Stop::Gone) {}
    }
}

#[cfg(target_arch = "x86_64")]
impl Tracee {
    /// The instruction pointer among the words of a stopped process.
    const POINTER: i64 = 16 * 8;
    /// Steps between two looks whether it stands at an instruction that repeats itself.
    const LOOK_EVERY: u32 = 8;

    fn peek(&self, request: libc::c_uint, address: i64) -> i64 {
        // SAFETY: reads a word of the other process; the answer of the C library is the word.
        unsafe { libc::ptrace(request, self.pid, address, null_mut::<libc::c_void>()) }
    }

    /// Runs over an instruction that repeats itself, if it stands at one, by a breakpoint behind it.
    fn run_over(&mut self) -> Option<Stop> {
        let at = self.peek(libc::PTRACE_PEEKUSER, Self::POINTER);
        let code = self.peek(libc::PTRACE_PEEKTEXT, at).to_le_bytes();
        let len = match code {
            [0xf3, 0xa4 | 0xa5 | 0xaa | 0xab, ..] => 2,
            [0xf3, 0x48, 0xa5 | 0xab, ..] => 3,
            _ => return None,
        };
        let behind = at + len;
        let word = self.peek(libc::PTRACE_PEEKTEXT, behind);
        ptrace(libc::PTRACE_POKETEXT, self.pid, behind, (word & !0xff) | 0xcc).ok()?;
        ptrace(libc::PTRACE_CONT, self.pid, 0, 0).ok()?;
        let stop = self.wait();
        ptrace(libc::PTRACE_POKETEXT, self.pid, behind, word).ok()?;
        ptrace(libc::PTRACE_POKEUSER, self.pid, Self::POINTER, behind).ok()?;
        Some(stop)
    }
}
