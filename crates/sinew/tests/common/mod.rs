//! What the integration tests share: pairs of engines on one lane, waiting by condition, child processes.
//!
//! Used by the test files beside it, each of which uses its own part. It asserts nothing about speed.
#![allow(dead_code, unreachable_pub)]

use sinew::{Address, Endpoint, Engine, EngineOptions, Peer, Progress};
use sinew_testing::SLOWNESS;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a wait may last before the test fails: far beyond what anything needs.
pub const PATIENCE: Duration = Duration::from_secs(30 * SLOWNESS);

/// An engine on one lane. `self` opens all transports and uses none.
pub fn engine(lane: &str, progress: Progress) -> Engine {
    engine_with(lane, progress, options())
}

pub fn options() -> EngineOptions {
    EngineOptions::default().timeout(Duration::from_secs(20 * SLOWNESS))
}

pub fn engine_with(lane: &str, progress: Progress, options: EngineOptions) -> Engine {
    let builder = Engine::builder().domain("faults").progress(progress).options(options);
    let builder = if lane == "self" { builder.transports(["uds"]) } else { builder.transports([lane]) };
    builder.build().expect("an engine")
}

/// With these the first way that is tried and works stays the only one, however busy the machine is: a second one to the same
/// engine, as over IPv6 beside IPv4, would be tried meanwhile, and what is sent could go over to it.
pub fn steady() -> EngineOptions {
    options().stagger(PATIENCE)
}

/// Two engines and an endpoint in each, connected; the second makes progress by itself. On the lane `self` both are one.
pub struct Pair {
    pub to_b: Peer,
    pub a: Endpoint,
    pub b: Endpoint,
    pub here: Engine,
    pub there: Engine,
}

pub fn pair(lane: &str) -> Pair {
    pair_with(lane, Progress::Caller, Progress::Thread { cpu: None }, options())
}

pub fn pair_with(lane: &str, first: Progress, second: Progress, options: EngineOptions) -> Pair {
    let there = engine_with(lane, second, options.clone());
    let here = if lane == "self" { there.clone() } else { engine_with(lane, first, options) };
    let pair = connected(here, there);
    assert!(pair.to_b.path().starts_with(lane), "{lane} is wanted, {} is used", pair.to_b.path());
    pair
}

/// Two engines that are driven by hand, between which nothing of a long message goes before its receiver asks for it.
pub fn pair_by_hand_without_pushes(lane: &str) -> Pair {
    let engine = || {
        let builder = Engine::builder().domain("faults").progress(Progress::Event).options(options());
        builder.transports([lane]).wire_features(WITHOUT_PUSHES).build().expect("an engine")
    };
    connected(engine(), engine())
}

/// Bits of a hello: bundles and stripes.
pub const WITHOUT_PUSHES: u64 = 0b011;

/// An endpoint in each of two engines, connected.
pub fn connected(here: Engine, there: Engine) -> Pair {
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    // The other side may have nobody to make its progress.
    let connected = AtomicBool::new(false);
    let to_b = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !connected.load(Ordering::Acquire) {
                there.process();
                std::thread::yield_now();
            }
        });
        let to_b = a.connect(b.address());
        connected.store(true, Ordering::Release);
        to_b.expect("a path")
    });
    Pair { to_b, a, b, here, there }
}

/// The explicit form of an address, by one transport.
pub fn explicit(address: &Address, transport: &str) -> String {
    let number = address.endpoint().to_string();
    let text = address.to_string();
    let find = |start: &str| {
        let rest = text.split(',').find_map(|part| part.strip_prefix(start));
        rest.unwrap_or_else(|| panic!("no {start} in {text}")).to_owned()
    };
    match transport {
        "tcp" => format!("tcp://{}/{number}", find("tcp:127")).replacen("tcp://", "tcp://127", 1),
        other => format!("{other}://{}#{number}", find(&format!("{other}:"))),
    }
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes that depend on `seed` and on their place.
pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Descriptors that this process has open.
pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Threads of this process.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Processor time that a process has used, in ticks of 10 ms.
pub fn processor_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum()
}

/// Resident memory of this process in bytes.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Instantiates tests that take the name of a lane, one module per lane.
#[macro_export]
macro_rules! on_lanes {
    ($($lane:ident = $name:literal),+; $tests:tt) => { $( $crate::on_lanes!(@ $lane, $name, $tests); )+ };
    (@ $lane:ident, $name:literal, [$($test:ident),* $(,)?]) => {
        mod $lane {
            $( #[test] fn $test() { super::$test($name); } )*
        }
    };
}

/// The test binary started again as another process. It says lines that start with `@`, and reads lines.
pub struct Other {
    pub child: Child,
    lines: Receiver<String>,
}

/// Starts this test binary again in a role; its test `other_process` must be ignored otherwise.
pub fn spawn(role: &str, lane: &str, extra: &[(&str, &str)]) -> Other {
    spawn_under(&[], role, lane, extra)
}

/// [`spawn`] by another program, as a tracer, that is given the command line after its own arguments.
pub fn spawn_under(program: &[&str], role: &str, lane: &str, extra: &[(&str, &str)]) -> Other {
    let own = std::env::current_exe().unwrap();
    let command = match program {
        [] => Command::new(own),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(own);
            command
        }
    };
    spawn_by(command, role, lane, extra)
}

/// [`spawn`] by a command that runs this test binary.
pub fn spawn_by(mut command: Command, role: &str, lane: &str, extra: &[(&str, &str)]) -> Other {
    command
        .args(["other_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("OTHER_ROLE", role)
        .env("OTHER_LANE", lane)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    for (name, value) in extra {
        command.env(name, value);
    }
    let mut child = command.spawn().expect("another process");
    let stdout = child.stdout.take().expect("its output");
    let (say, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // The test runner may have begun a line of its own.
            if let Some(at) = line.find('@')
                && say.send(line[at + 1..].to_owned()).is_err()
            {
                return;
            }
        }
    });
    Other { child, lines }
}

impl Other {
    /// The next line that it says.
    pub fn line(&self) -> String {
        self.line_within(PATIENCE)
    }

    pub fn line_within(&self, limit: Duration) -> String {
        match self.lines.recv_timeout(limit) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("the other process says nothing"),
            Err(RecvTimeoutError::Disconnected) => panic!("the other process has ended"),
        }
    }

    pub fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("its input");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("it reads");
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child is ours and not reaped yet, so the number is its.
        #[allow(unsafe_code)]
        unsafe {
            libc::kill(self.child.id() as i32, signal)
        };
        if signal == libc::SIGSTOP {
            let stat = format!("/proc/{}/stat", self.child.id());
            until("it stands still", || {
                let stat = std::fs::read_to_string(&stat).unwrap_or_default();
                stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
            });
        }
    }

    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let _ = self.child.wait();
    }

    /// Waits for its orderly end.
    pub fn finish(mut self) {
        drop(self.child.stdin.take());
        let start = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                assert!(status.success(), "the other process failed: {status}");
                return;
            }
            assert!(start.elapsed() < PATIENCE, "the other process does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this process was started by another test: then its ignored test is meant.
pub fn is_other() -> bool {
    std::env::var_os("OTHER_ROLE").is_some()
}

/// Says a line to the process that started this one.
pub fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "@{line}");
    let _ = out.flush();
}

/// The next line from the process that started this one; `None` at the end.
pub fn hear() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim_end().to_owned()),
    }
}
