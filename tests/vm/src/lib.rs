//! Programs that run beside a test in the guest: servers and clients of rdma-core, and later ours.
//!
//! Called by the tests of this package. Every wait has a deadline, and nothing outlives its test. It must not be used outside the
//! guest: what the programs do there to the machine's network is nobody's business.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything. The guest has one processor, and the host may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The address of this guest's devices.
///
/// # Panics
/// Outside the guest.
#[must_use]
pub fn address() -> String {
    std::env::var("SINEW_VM_ADDRESS").expect("not in the guest: `cargo xtask vm test` runs these")
}

/// Waits until something is so.
///
/// # Panics
/// When it is not so for a minute.
pub fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not after {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A program that runs. Killed when it is dropped.
pub struct Program {
    words: String,
    child: Child,
    output: File,
}

impl Program {
    /// Starts a program, words separated by spaces.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(words: &str) -> Self {
        let path = std::env::temp_dir().join(format!("output-{}", words.replace(['/', ' '], "_")));
        let output = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let output = output.expect("a file for the output");
        // It is ours by its descriptor.
        std::fs::remove_file(path).expect("the name of the output's file");
        let mut parts = words.split_whitespace();
        let mut command = Command::new(parts.next().expect("a program"));
        command.args(parts).stdin(Stdio::null());
        command
            .stdout(output.try_clone().expect("its output"))
            .stderr(output.try_clone().expect("its errors"));
        let child = command.spawn().unwrap_or_else(|error| panic!("{words}: {error}"));
        Self { words: words.to_owned(), child, output }
    }

    /// Waits until it listens on this TCP port.
    ///
    /// # Panics
    /// When it ends before, or never does.
    #[must_use]
    pub fn listening(self, port: u16) -> Self {
        self.when(|| is_listening(port))
    }

    /// Waits until it listens by rdma cm on this port. A client that came too early would spoil a server that counts its connections.
    ///
    /// # Panics
    /// When it ends before, or never does.
    #[must_use]
    pub fn listening_by_cm(self, port: u16) -> Self {
        let place = format!(":{port} ");
        self.when(|| {
            run("rdma resource show cm_id").lines().any(|id| id.contains("LISTEN") && id.contains(&place))
        })
    }

    fn when(mut self, mut is_ready: impl FnMut() -> bool) -> Self {
        await_that(&format!("{} listens", self.words), || {
            if let Ok(Some(status)) = self.child.try_wait() {
                let said = self.said();
                panic!("{} ended with {status}: {said}", self.words);
            }
            is_ready()
        });
        self
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it never ends.
    pub fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status, self.said());
            }
            if Instant::now() > deadline {
                let said = self.said();
                panic!("{} does not end: {said}", self.words);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end, which must be a good one. Answers what it said.
    ///
    /// # Panics
    /// When it fails or never ends.
    #[must_use]
    pub fn success(self) -> String {
        let words = self.words.clone();
        let (status, said) = self.end();
        assert!(status.success(), "{words}: {status}: {said}");
        said
    }

    fn said(&mut self) -> String {
        let mut bytes = Vec::new();
        self.output.rewind().and_then(|()| self.output.read_to_end(&mut bytes)).expect("what it said");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Runs a program that must end well, and answers what it said.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn run(words: &str) -> String {
    Program::start(words).success()
}

/// Whether some program of this guest listens on a TCP port.
fn is_listening(port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        text.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            matches!(fields[..], [_, local, _, "0A", ..] if local.ends_with(&wanted))
        })
    })
}

/// How many times a counter of the kernel was counted.
///
/// # Panics
/// When there is no such counter.
#[must_use]
pub fn counter(path: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.trim().parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The server and the client of one of libibverbs' ping-pong programs, `times` there and back, with events. The client is judged; the
/// server is given back, as it cannot end well where the client's last acknowledgement may be lost.
///
/// # Panics
/// When the client fails, or counts otherwise.
#[must_use]
pub fn ping_pong_of_client(
    program: &str,
    times: u32,
    [server_device, client_device]: [&str; 2],
    server_address: &str,
) -> Program {
    let words = |device: &str| format!("{program} -d {device} -g 1 -n {times} -e");
    let server = Program::start(&words(server_device)).listening(18515);
    let client = run(&format!("{} {server_address}", words(client_device)));
    assert!(client.contains(&format!("{times} iters in")), "{client}");
    server
}

/// The same, and both are judged.
///
/// # Panics
/// When a side fails, or counts otherwise.
pub fn ping_pong(program: &str, times: u32, devices: [&str; 2], server_address: &str) {
    let server = ping_pong_of_client(program, times, devices, server_address).success();
    assert!(server.contains(&format!("{times} iters in")), "{server}");
}

/// `rping` with itself: connections, sends, writes and reads by rdma cm, contents compared.
///
/// # Panics
/// When a side fails.
pub fn rping(server_address: &str, client_address: &str) {
    let words = format!("rping -s -a {server_address} -p 7174 -C 20 -V -v");
    let server = Program::start(&words).listening_by_cm(7174);
    let client = run(&format!("rping -c -a {server_address} -I {client_address} -p 7174 -C 20 -V -v"));
    assert_eq!(client.matches("ping data: rdma-ping-").count(), 20, "{client}");
    let server = server.success();
    assert_eq!(server.matches("server ping data: rdma-ping-").count(), 20, "{server}");
}

/// `ucmatose` with itself: several connections of rdma cm at once, messages both ways, disconnect.
///
/// # Panics
/// When a side fails.
pub fn ucmatose(server_address: &str) {
    let server =
        Program::start(&format!("ucmatose -b {server_address} -p 7471 -c 4 -C 10")).listening_by_cm(7471);
    let client = run(&format!("ucmatose -s {server_address} -p 7471 -c 4 -C 10"));
    for said in [client, server.success()] {
        assert!(said.contains("return status 0"), "{said}");
    }
}
