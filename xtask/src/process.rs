//! Runs one program: its output goes to a log, a heartbeat to the terminal, and it is ended when its time is up.
//!
//! Called by every command that starts another program. It never reads standard input and never asks anything.

use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

const HEARTBEAT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// How long processes that outlive the program may keep its output open.
const LEFT_BEHIND: Duration = Duration::from_secs(5);

/// What a program did.
pub(crate) struct Finished {
    pub(crate) ok: bool,
    pub(crate) output: String,
    /// Why it is not ok, in words.
    pub(crate) reason: Option<String>,
    pub(crate) log: PathBuf,
}

impl Finished {
    /// The last lines of the output.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let all: Vec<&str> = self.output.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Runs `command` with its output appended to `log`.
///
/// # Errors
/// When the program cannot be started or the log cannot be written; a program that fails is no error here.
pub(crate) fn run(command: &mut Command, log: &Path, limit: Duration) -> Result<Finished> {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    writeln!(file, "$ {}", words(command))?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", words(command)))?;
    let (lines, received) = mpsc::channel();
    read_lines(child.stdout.take(), lines.clone());
    read_lines(child.stderr.take(), lines);
    let begun = Instant::now();
    let mut collected = Collected { file, text: String::new(), beaten: begun, begun };
    let status = loop {
        collected.take(&received, POLL)?;
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > limit {
            end_with_descendants(child.id());
            child.wait()?;
            break None;
        }
    };
    let left_behind = collected.drain(&received)?;
    let reason = reason(status, limit, left_behind);
    Ok(Finished { ok: reason.is_none(), output: collected.text, reason, log: log.to_owned() })
}

fn reason(status: Option<ExitStatus>, limit: Duration, left_behind: bool) -> Option<String> {
    match status {
        None => Some(format!("ended after its limit of {} s", limit.as_secs())),
        Some(status) if !status.success() => Some(status.to_string()),
        Some(_) if left_behind => Some("left processes behind that hold its output open".to_owned()),
        Some(_) => None,
    }
}

/// The command as one would type it.
pub(crate) fn words(command: &Command) -> String {
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_string_lossy(), value?.to_string_lossy())));
    let mut words: Vec<String> =
        set.filter(|(name, _)| name != "PATH").map(|(name, value)| format!("{name}='{value}'")).collect();
    words.push(command.get_program().to_string_lossy().into_owned());
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

struct Collected {
    file: File,
    text: String,
    begun: Instant,
    beaten: Instant,
}

impl Collected {
    /// Takes what arrives within `wait`; tells the terminal now and then that the program is alive.
    fn take(&mut self, received: &Receiver<String>, wait: Duration) -> Result<()> {
        let until = Instant::now() + wait;
        while let Ok(line) = received.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.add(&line)?;
        }
        if self.beaten.elapsed() > HEARTBEAT {
            self.beaten = Instant::now();
            let last = self.text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let shown: String = last.trim().chars().take(90).collect();
            println!("      … {:>4} s  {shown}", self.begun.elapsed().as_secs());
        }
        Ok(())
    }

    fn add(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}")?;
        self.text.push_str(line);
        self.text.push('\n');
        Ok(())
    }

    /// Takes the rest. Answers whether somebody still holds the output open after the program has ended.
    fn drain(&mut self, received: &Receiver<String>) -> Result<bool> {
        let until = Instant::now() + LEFT_BEHIND;
        loop {
            match received.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.add(&line)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Err(RecvTimeoutError::Timeout) => return Ok(true),
            }
        }
    }
}

fn read_lines(stream: Option<impl Read + Send + 'static>, lines: Sender<String>) {
    let Some(stream) = stream else { return };
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            line.clear();
            if lines.send(text).is_err() {
                return;
            }
        }
    });
}

/// A program that goes on beside other work. Dropped, it and everything below it end.
pub(crate) struct Beside(Child);

/// Starts a program that takes the processors only while nobody else wants them; its output goes to `log`.
///
/// # Errors
/// When it cannot be started or the log cannot be written.
pub(crate) fn beside(program: &Path, arguments: &[&str], log: &Path) -> Result<Beside> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(program).args(arguments);
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().with_context(|| format!("cannot start {}", words(&command)))?;
    Ok(Beside(child))
}

impl Beside {
    /// Somebody waits for it now: from here on it competes with others, as far as this user may ask for that.
    pub(crate) fn hurry(&self) {
        for id in descendants(self.0.id()) {
            let mut command = Command::new("chrt");
            command.args(["--other", "--pid", "0", &id.to_string()]);
            // One that has ended meanwhile is not in the way.
            _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // One that has ended by itself has nothing below it, and its number may be another's.
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            end_with_descendants(self.0.id());
            _ = self.0.wait();
        }
    }
}

/// Ends the process and everything below it.
fn end_with_descendants(id: u32) {
    for id in descendants(id) {
        if let Some(pid) = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw) {
            // A process that is gone already is what was wanted.
            _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The process and everything below it, as `/proc` tells the tree at this moment: parents before their children.
fn descendants(id: u32) -> Vec<u32> {
    let (mut all, mut waiting) = (Vec::new(), vec![id]);
    while let Some(id) = waiting.pop() {
        all.push(id);
        waiting.extend(children(id));
    }
    all
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

/// The fourth field of `/proc/<id>/stat`; the second is a name in parentheses that may contain anything.
fn parent_of(id: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xtask-process-{}-{name}.log", std::process::id()))
    }

    fn shell(script: &str, name: &str, limit: Duration) -> Finished {
        let log = log(name);
        let finished = run(Command::new("sh").args(["-c", script]), &log, limit).unwrap();
        std::fs::remove_file(log).unwrap();
        finished
    }

    #[test]
    fn both_streams_are_collected() {
        let finished = shell("echo out; echo err >&2; exit 3", "streams", Duration::from_secs(60));
        assert!(!finished.ok);
        assert!(finished.output.contains("out\n") && finished.output.contains("err\n"));
        assert!(finished.reason.unwrap().contains('3'));
    }

    #[test]
    fn a_program_that_never_ends_is_ended_with_its_children() {
        let finished = shell("sleep 1000 & echo $!; sleep 1000", "limit", Duration::from_millis(300));
        assert!(finished.reason.unwrap().contains("limit"));
        let child: u32 = finished.output.trim().parse().unwrap();
        until("the child lives on", || parent_of(child).is_none_or(|parent| parent == 1));
    }

    /// The field of `/proc/<id>/stat` that says how it is scheduled: 0 as all others, 5 while nobody else wants to.
    fn policy(id: u32) -> String {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().nth(38).unwrap_or_default().to_owned()
    }

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_goes_on_beside_gives_way_until_somebody_waits_for_it_and_ends_with_its_children() {
        let log = log("beside");
        let beside = beside(Path::new("sh"), &["-c", "sleep 1000 & echo $!; wait"], &log).unwrap();
        until("nothing is said", || std::fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n')));
        let child: u32 = std::fs::read_to_string(&log).unwrap().trim().parse().unwrap();
        assert_eq!(policy(child), "5");
        if rustix::process::getuid().is_root() {
            beside.hurry();
            assert_eq!(policy(child), "0");
        }
        drop(beside);
        until("the child lives on", || parent_of(child).is_none_or(|parent| parent == 1));
        std::fs::remove_file(log).unwrap();
    }

    #[test]
    fn the_command_is_shown_with_its_environment() {
        let mut command = Command::new("cargo");
        command.arg("test").env("RUSTFLAGS", "--cfg loom");
        assert_eq!(words(&command), "RUSTFLAGS='--cfg loom' cargo test");
    }
}
