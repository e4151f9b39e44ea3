//! Runs the binary with a deadline and in a directory of its own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest that one run may take; machines under load are slow.
const DEADLINE: Duration = Duration::from_secs(60);

/// A directory that is removed at the end; also the runtime directory of what is run in it.
pub(crate) struct Room {
    path: PathBuf,
}

impl Room {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sinew-cli-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        std::fs::create_dir_all(path.join("run")).expect("a directory");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path.join("run"), PermissionsExt::from_mode(0o700)).expect("a mode");
        Self { path }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file with this content.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// A secret as the command wants it.
    pub(crate) fn secret(&self, name: &str, content: &[u8]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file(name, content);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("a mode");
        path
    }

    /// The binary, without the options of whoever runs the tests.
    pub(crate) fn sinew(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SINEW_") {
                command.env_remove(name);
            }
        }
        command.args(args).current_dir(&self.path).env("SINEW_RUNTIME_DIR", self.path("run"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
        finish(self.sinew(args).spawn().expect("the binary starts"))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A run that has ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.out[..self.out.len().min(4000)];
        write!(
            f,
            "exit code {:?}\n{}\n--- standard error\n{}",
            self.code,
            String::from_utf8_lossy(shown),
            self.err
        )
    }
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.out.clone()).expect("text on standard output")
    }

    /// The text of standard error, when the exit code is this one.
    #[track_caller]
    pub(crate) fn failed_with(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        &self.err
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// Waits for its end, with a deadline.
pub(crate) fn finish(child: Child) -> Ran {
    let id = child.id();
    let (done, waiter) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match waiter.recv_timeout(DEADLINE) {
        Ok(output) => ran(output.expect("output")),
        Err(_) => {
            kill(id, "KILL");
            panic!(
                "it did not end in {DEADLINE:?}; so far: {:?}",
                waiter.recv().map(|output| output.map(ran))
            );
        }
    }
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Sends a signal to a process that this test started.
pub(crate) fn kill(id: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &id.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{signal} {id}");
}

/// Whether a process lives; one that nobody has waited for yet does not.
pub(crate) fn lives(id: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

/// Waits until `what` holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes that a process has started.
pub(crate) fn children(id: u32) -> Vec<u32> {
    let path = format!("/proc/{id}/task/{id}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// A listening command and its address, the first line on its standard error.
pub(crate) struct Listening {
    child: Child,
    err: BufReader<ChildStderr>,
    pub(crate) address: String,
}

impl Listening {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let mut err = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut address = String::new();
        err.read_line(&mut address).expect("a line");
        Self { child, err, address: address.trim_end().to_owned() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The locator of a scheme in its address, as a URL.
    pub(crate) fn url(&self, scheme: &str) -> String {
        let found = self.address.split(',').find_map(|part| part.strip_prefix(&format!("{scheme}:")));
        format!("{scheme}://{}", found.unwrap_or_else(|| panic!("{scheme} in {}", self.address)))
    }

    /// Takes what it writes, for tests that close it.
    pub(crate) fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("a pipe")
    }

    pub(crate) fn finish(mut self) -> Ran {
        let err = self.err;
        let reader = std::thread::spawn(move || {
            let (mut text, mut err) = (String::new(), err);
            let _ = err.read_to_string(&mut text);
            text
        });
        self.child.stderr = None;
        let mut ran = finish(self.child);
        ran.err = reader.join().expect("text");
        ran
    }
}

/// Bytes that differ everywhere.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[track_caller]
pub(crate) fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

pub(crate) fn arg(path: &Path) -> String {
    path.display().to_string()
}
