//! What a short message costs beside time: allocations, counted by this program's allocator, and system calls, counted by
//! `strace` over this program started again.
//!
//! One thread owns both engines, so that what one sends is there for the other at once and no schedule of the machine makes a
//! side wait: a side that waits long may look at its descriptors.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::OursArgs;
use super::alone::{Both, both};
use super::pairing::{check, stamp};
use crate::counting::allocations_of;
use sinew_yardstick::sample::Sample;

/// Enough to go around the rings and to return credit many times.
const MESSAGES: u64 = 100_000;
/// A system call that nothing else makes: it cuts the trace into pieces.
const MARK: &str = "getpriority(";

pub(super) fn mark() {
    let _ = rustix::process::getpriority_user(rustix::process::Uid::ROOT);
}

/// Whether `strace` can trace a process here.
pub(super) fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// There and back.
fn messages(both: &Both, size: usize) -> Result<()> {
    let (mut out, mut into) = ([0; 64], [0; 64]);
    for number in 1..=MESSAGES / 2 {
        stamp(&mut out[..size], number);
        both.peer.send(number, &out[..size])?;
        let got = both.there.recv(number, &mut into)?;
        ensure!(got.len == size, "message {number}: {got:?}");
        both.back.send(number, &into[..size])?;
        both.here.recv(number, &mut out)?;
        check(&out[..size], number)?;
    }
    Ok(())
}

/// The program that is traced.
pub(super) fn traced(args: &OursArgs) -> Result<()> {
    let both = both(args)?;
    messages(&both, args.size)?;
    mark();
    messages(&both, args.size)?;
    mark();
    Ok(())
}

fn system_calls() -> Result<u64> {
    count_between_marks(&trace(std::env::args_os().skip(1).chain(["--second".into()]))?, MESSAGES)
        .context("no two marks in the trace")
}

/// What `strace` writes of this program with these words.
pub(super) fn trace(words: impl Iterator<Item = OsString>) -> Result<String> {
    let log = std::env::temp_dir().join(format!("sinew-bench-{}.strace", std::process::id()));
    let traced = Command::new("strace")
        .args(["-f", "-o"])
        .arg(&log)
        .arg(std::env::current_exe()?)
        .args(words)
        .stdout(Stdio::null())
        .status();
    let text = std::fs::read_to_string(&log).context("what strace wrote");
    let _ = std::fs::remove_file(&log);
    let status = traced.context("strace cannot be started: apt-get install strace")?;
    ensure!(status.success(), "strace: {status}");
    text
}

/// System calls of the marking thread between its two marks, beside looks. Lines begin with the thread's number.
pub(super) fn count_between_marks(trace: &str, messages: u64) -> Option<u64> {
    let thread = trace.lines().find(|line| line.contains(MARK))?.split_whitespace().next()?;
    let mut own = trace.lines().filter_map(|line| line.strip_prefix(thread)).map(str::trim_start);
    own.find(|line| line.starts_with(MARK))?;
    let between: Vec<&str> = own.take_while(|line| !line.starts_with(MARK)).collect();
    let looks = between.iter().filter(|call| is_look(call)).count();
    let looks = if looks as u64 * LOOKS_EVERY <= messages { looks } else { 0 };
    Some((between.len() - looks) as u64)
}

/// Messages between two looks at other descriptors, at least; more frequent ones count.
const LOOKS_EVERY: u64 = 50;

/// Every few hundred turns a busy engine asks, without waiting, whether another of its descriptors has something: no
/// message's cost.
fn is_look(call: &str) -> bool {
    let (name, rest) = call.split_once('(').unwrap_or_default();
    let arguments = rest.split_once(')').unwrap_or_default().0;
    matches!(name, "epoll_wait" | "epoll_pwait") && arguments.split(", ").nth(3) == Some("0")
}

/// Allocations and system calls for each message.
pub(super) fn first(args: &OursArgs) -> Result<Sample> {
    let both = both(args)?;
    messages(&both, args.size)?;
    // Now and then, by the clock, an engine looks for better lanes and allocates for that: the fewest of several runs.
    let mut allocations = u64::MAX;
    for _ in 0..5 {
        let (outcome, count) = allocations_of(|| messages(&both, args.size));
        outcome?;
        allocations = allocations.min(count);
    }
    let total = allocations + system_calls()?;
    Ok(Sample { value: Some(total as f64 / MESSAGES as f64), ..Sample::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_of_the_marking_thread_between_its_marks_count() {
        let trace = "7 mmap(1)\n8 getpriority(2, 0) = 0\n7 read(3)\n8 write(1)\n\
            8 epoll_pwait(4, [], 64, 0, NULL, 8) = 0\n8 epoll_pwait(4, [], 64, 5, NULL, 8) = 0\n\
            8 getpriority(2, 0) = 0\n8 exit(0)\n";
        assert_eq!(count_between_marks(trace, MESSAGES), Some(2));
        assert_eq!(count_between_marks("7 write(1)\n", MESSAGES), None);
    }
}
