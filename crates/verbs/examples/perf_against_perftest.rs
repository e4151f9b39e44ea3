//! Our `perf` example against perftest, on the same device, in turns: the ratio, and how sure it is.
//!
//! `cargo xtask bench --verbs` builds both and runs this in the guest.
//!
//! Both sides of each program run on this machine. Latency is measured with events: two that poll would share the guest's one processor by the tick. The writes of
//! bandwidth are polled for, in both programs, as perftest cannot wait for them; their other side sleeps. Each round measures both programs, in turns first; the ratio of
//! a round is ours by theirs for latency, theirs by ours for bandwidth, so that more than 1 means slower. The answer is the median of the rounds, with
//! the interval that holds the true one in 95 of 100 cases (by order statistics: no distribution is assumed).
//!
//! Ours signals one of 32 sends (`--signal-every`): a hub gives the memory of the others back with it, and nobody is woken for them. perftest signals each.
//!
//! `ib_send_lat -e` takes the event of one of its queues for that of the other, and then waits for ever: about once in 300 messages on one processor. So rounds are short, and
//! one that hangs is measured again and counted. It counts cycles (`-C`), as on a busy machine it does not find out how long they are; we measure that.
#![allow(unsafe_code)]

use clap::Parser;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Our perf example against perftest, in turns.
#[derive(Parser, Debug)]
struct Arguments {
    /// Rounds of each test
    #[arg(short, long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(11..))]
    rounds: u32,
    /// Name of the device
    #[arg(short, long, default_value = "rxe0")]
    device: String,
    /// Place of its GID
    #[arg(short = 'x', long, default_value_t = 1)]
    gid_index: u32,
    /// Address of this machine
    #[arg(short, long, default_value = "10.77.0.1")]
    address: String,
    /// Only tests whose name contains this
    #[arg(short, long, default_value = "")]
    only: String,
    /// Messages of a round of latency
    #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(20..))]
    iters: u64,
    /// Writes of a round of bandwidth
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(20..))]
    writes: u64,
    /// One of so many of our sends is signaled; perftest signals each, and cannot do otherwise
    #[arg(long, default_value_t = 32)]
    signal_every: u64,
}

/// A test that both have.
struct Case {
    name: &'static str,
    ours: &'static str,
    theirs: &'static str,
    size: u32,
    /// Which word of perftest's line is the result.
    word: usize,
    is_bandwidth: bool,
}

const CASES: [Case; 3] = [
    Case {
        name: "send_lat 64",
        ours: "send-lat",
        theirs: "ib_send_lat",
        size: 64,
        word: 4,
        is_bandwidth: false,
    },
    Case {
        name: "send_lat 4096",
        ours: "send-lat",
        theirs: "ib_send_lat",
        size: 4096,
        word: 4,
        is_bandwidth: false,
    },
    Case {
        name: "write_bw 65536",
        ours: "write-bw",
        theirs: "ib_write_bw",
        size: 65536,
        word: 3,
        is_bandwidth: true,
    },
];

/// Longest time for one measurement: a good one takes well under a second.
const PATIENCE: Duration = Duration::from_secs(3);
/// Times that one measurement is tried.
const ATTEMPTS: u32 = 25;
/// How much slower ours may be.
const BUDGET: f64 = 1.05;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf_against_perftest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let own = std::env::current_exe()?;
    let bench = Bench { arguments, perf: own.with_file_name("perf"), cycles_per_us: cycles_per_us()? };
    let mut slow = Vec::new();
    for case in CASES.iter().filter(|case| case.name.contains(&arguments.only)) {
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let mut again = [0, 0];
        for round in 0..arguments.rounds {
            let mut measure = |is_ours: bool| -> Result<f64> {
                let (value, attempts) = bench.measured(case, is_ours)?;
                again[usize::from(is_ours)] += attempts;
                Ok(value)
            };
            let first = measure(round % 2 == 0)?;
            let second = measure(round % 2 == 1)?;
            let (own, other) = if round % 2 == 0 { (first, second) } else { (second, first) };
            ratios.push(if case.is_bandwidth { other / own } else { own / other });
            ours.push(own);
            theirs.push(other);
        }
        let (low, high) = interval(&mut ratios);
        let ratio = median(&mut ratios);
        println!(
            "{}: ours {:.2}, perftest {:.2} {}; ratio {ratio:.3} (95 %: {low:.3} to {high:.3}), budget {BUDGET}: {}; {} rounds, measured again: ours {}, perftest {}",
            case.name,
            median(&mut ours),
            median(&mut theirs),
            if case.is_bandwidth { "MiB/s" } else { "us one way" },
            if ratio <= BUDGET { "met" } else { "MISSED" },
            arguments.rounds,
            again[1],
            again[0],
        );
        if ratio > BUDGET {
            slow.push(case.name);
        }
    }
    if slow.is_empty() { Ok(()) } else { Err(format!("slower than the budget: {}", slow.join(", ")).into()) }
}

/// How many cycles of those that perftest counts a microsecond has.
#[cfg(target_arch = "x86_64")]
fn cycles_per_us() -> Result<f64> {
    // SAFETY: every processor of this architecture has the instruction; it reads a counter.
    let counter = || unsafe { std::arch::x86_64::_rdtsc() };
    let (start, first) = (Instant::now(), counter());
    std::thread::sleep(Duration::from_millis(500));
    let (cycles, elapsed) = (counter() - first, start.elapsed());
    Ok(cycles as f64 / (elapsed.as_secs_f64() * 1e6))
}

#[cfg(not(target_arch = "x86_64"))]
fn cycles_per_us() -> Result<f64> {
    Err("perftest counts cycles, and on this architecture nobody here can say how long they are".into())
}

struct Bench<'a> {
    arguments: &'a Arguments,
    perf: PathBuf,
    cycles_per_us: f64,
}

impl Bench<'_> {
    /// Measures once, again when a side hangs or fails; how often that was.
    fn measured(&self, case: &Case, is_ours: bool) -> Result<(f64, u32)> {
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            match self.measure(case, is_ours) {
                Ok(value) => return Ok((value, attempt)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| "it was not tried".into()))
    }

    fn measure(&self, case: &Case, is_ours: bool) -> Result<f64> {
        let Arguments { device, gid_index, address, .. } = self.arguments;
        let iters = if case.is_bandwidth { self.arguments.writes } else { self.arguments.iters };
        let common = format!("-d {device} -x {gid_index} -s {} -n {iters}", case.size);
        let events = if case.is_bandwidth { "" } else { "-e" };
        let (program, options, port) = if is_ours {
            let signal_every = self.arguments.signal_every;
            let options = format!("{} {common} {events} --signal-every {signal_every}", case.ours);
            (self.perf.clone(), options, 18516)
        } else {
            let cycles = if case.is_bandwidth { "" } else { "-C" };
            (case.theirs.into(), format!("{common} -F {events} {cycles}"), 18515)
        };
        let command = |more: &str| {
            let mut command = Command::new(&program);
            command.args(options.split_whitespace()).args(more.split_whitespace()).stdin(Stdio::null());
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map(Running)
        };
        let deadline = Instant::now() + PATIENCE;
        let server = command("")?;
        while !is_listening(port) {
            if Instant::now() > deadline {
                return Err("the server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let said = command(address)?.end(deadline)?;
        server.end(deadline)?;
        let value = if is_ours { our_value(&said) } else { their_value(&said, case, iters) };
        let value = value.filter(|value| value.is_finite() && *value > 0.0);
        let value = value.ok_or_else(|| format!("no result in: {said}"))?;
        Ok(if is_ours || case.is_bandwidth { value } else { value / self.cycles_per_us })
    }
}

/// The first number behind the colon.
fn our_value(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.split_once(": ")?.1.split_whitespace().next()?.parse().ok())
}

/// A number of the line that begins with size and count.
fn their_value(said: &str, case: &Case, iters: u64) -> Option<f64> {
    said.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.first()? == &case.size.to_string() && words.get(1)? == &iters.to_string();
        if is_it { words.get(case.word)?.parse().ok() } else { None }
    })
}

/// A program that is killed when nobody waits for it any more.
struct Running(Child);

impl Running {
    fn end(mut self, deadline: Instant) -> Result<String> {
        while self.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("it does not end".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut said = String::new();
        if let Some(mut output) = self.0.stdout.take() {
            std::io::Read::read_to_string(&mut output, &mut said)?;
        }
        if self.0.wait()?.success() { Ok(said) } else { Err(format!("it failed: {said}").into()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

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

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}

/// Where the median of all rounds that could be made lies, in 95 of 100 cases: the widest pair of order statistics that leaves 2.5 of 100 outside on
/// either side, when each round is as likely above the true median as below.
fn interval(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    let (mut term, mut below) = (0.5f64.powi(count as i32), 0.0);
    let mut rank = 0;
    while rank < count / 2 && below + term <= 0.025 {
        below += term;
        term *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    let outer = rank.saturating_sub(1);
    (values[outer], values[count - 1 - outer])
}
