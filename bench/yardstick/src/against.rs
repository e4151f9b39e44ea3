//! What a figure of Sinew is put beside: a raw program or a peer, run once as processes of its own, and the table of which
//! of them there are for each transport over all sizes. The runner of the bench and `sinew perf --html` call it.
//! A program that calls it has a hidden command `raw` (and `zmq`) that hands its arguments to [`raw::run`](crate::raw::run).

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::page::Role;
use crate::peers::ucx::{Perftest, Transports};
use crate::peers::{ucx, zmq};
use crate::program::{CommandLine, Running};
use crate::sample::Sample;

/// Largest message of ZeroMQ's stream that is worth a line: beyond it, it copies as all others do.
const ZMQ_MAX: usize = 1 << 20;
/// What a cache line carries beside its number.
const LINE_MAX: usize = 56;
/// From this size on a window of chunks is faster than a ring of slots.
const SLOTS_BELOW: usize = 128 << 10;
/// Bytes that the raw stream which gathers small messages writes in one call.
const GATHERED: usize = 64 << 10;

/// One program.
#[derive(Debug, Clone)]
pub enum Against {
    /// `PROGRAM raw …`, with PROGRAM this one.
    Raw(String),
    /// `PROGRAM zmq …`.
    Zmq(String),
    /// `ucx_perftest`, server and client.
    Ucx(Perftest),
}

impl Against {
    /// How to get it, where it is not on this machine.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Raw(_) => None,
            Self::Zmq(_) => (!zmq::is_present()).then_some(zmq::REMEDY),
            Self::Ucx(_) => (!ucx::is_present()).then_some(ucx::REMEDY),
        }
    }

    /// Runs it once for `seconds`, its sides on `cpus`; answers its figures and its exact command line.
    ///
    /// # Errors
    /// When it cannot be started, fails, or is not done long after its time.
    pub fn run(&self, seconds: f64, cpus: [usize; 2]) -> Result<(Sample, String)> {
        match self {
            Self::Raw(arguments) => run_own("raw", arguments, seconds, cpus),
            Self::Zmq(arguments) => run_own("zmq", arguments, seconds, cpus),
            Self::Ucx(test) => test.run(seconds, cpus),
        }
    }
}

/// Runs this program again, as `GROUP ARGUMENTS`.
///
/// # Errors
/// As [`Against::run`].
pub fn run_own(group: &str, arguments: &str, seconds: f64, cpus: [usize; 2]) -> Result<(Sample, String)> {
    let own = std::env::current_exe().context("the path of this program")?;
    let [first, second] = cpus;
    let line = CommandLine {
        program: own.to_string_lossy().into_owned(),
        arguments: format!("{group} {arguments} --seconds {seconds} --cpus {first},{second}")
            .split_whitespace()
            .map(String::from)
            .collect(),
        ..CommandLine::default()
    };
    let deadline = Instant::now() + Duration::from_secs(30) + Duration::from_secs_f64(seconds * 20.0);
    let text = Running::start(&line)?.finish(deadline)?;
    Ok((Sample::from_output(&text)?, line.to_string()))
}

/// What is plotted over size. Rate and bandwidth are two views of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Ping-pong.
    Latency,
    /// A stream in one direction.
    Stream,
}

/// One line of a plot, at one size.
#[derive(Debug, Clone)]
pub struct Beside {
    /// Its name in the legend, the same at all sizes.
    pub name: &'static str,
    /// Whose it is.
    pub role: Role,
    /// What runs.
    pub program: Against,
}

/// Raw programs and peers of `transport` for one size; none for a transport that has none.
pub fn over_sizes(transport: &str, pattern: Pattern, size: usize) -> Vec<Beside> {
    let raw = |name, arguments: &str| Beside {
        name,
        role: Role::Raw,
        program: Against::Raw(format!("{arguments} --size {size}")),
    };
    let ucx = |name, test, transports| Beside {
        name,
        role: Role::Peer,
        program: Against::Ucx(Perftest { test, transports, size_bytes: size }),
    };
    let in_line = size <= LINE_MAX;
    match (transport, pattern) {
        ("shm", Pattern::Latency) => vec![
            raw("raw: cache line, two copies", if in_line { "line" } else { "copy" }),
            ucx("UCX tag_lat", "tag_lat", Transports::Posix),
        ],
        ("shm", Pattern::Stream) => vec![
            raw(
                "raw: ring of lines, of slots, window of chunks",
                match size {
                    _ if in_line => "ring",
                    ..SLOTS_BELOW => "slots",
                    _ => "window",
                },
            ),
            ucx("UCX tag_bw", "tag_bw", Transports::Posix),
            ucx("UCX tag_bw, cma", "tag_bw", Transports::PosixCma),
        ],
        ("tcp", Pattern::Latency) => vec![
            raw("raw: read and write", "tcp"),
            raw("raw, cubic", "tcp --congestion cubic"),
            ucx("UCX tag_lat", "tag_lat", Transports::Tcp),
        ],
        ("tcp", Pattern::Stream) => {
            let per_write = (GATHERED / size.max(1)).max(1);
            let gathered = format!("tcp-stream --per-write {per_write}");
            let mut all = vec![
                raw("raw: one write for each message", "tcp-stream"),
                raw("raw: small messages gathered", &gathered),
                raw("raw: gathered, cubic", &format!("{gathered} --congestion cubic")),
                ucx("UCX tag_bw", "tag_bw", Transports::Tcp),
            ];
            if (8..=ZMQ_MAX).contains(&size) {
                let program = Against::Zmq(format!("--size {size}"));
                all.push(Beside { name: "ZeroMQ push/pull", role: Role::Peer, program });
            }
            all
        }
        ("uds", Pattern::Latency) => vec![raw("raw: read and write", "uds")],
        ("uds", Pattern::Stream) => vec![
            raw("raw: one write for each message", "uds-stream"),
            raw(
                "raw: small messages gathered",
                &format!("uds-stream --per-write {}", (GATHERED / size.max(1)).max(1)),
            ),
        ],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_lines_of_a_plot_have_the_same_names_at_all_sizes() {
        for transport in ["shm", "tcp", "uds"] {
            for pattern in [Pattern::Latency, Pattern::Stream] {
                let names = |size| -> BTreeSet<&str> {
                    over_sizes(transport, pattern, size).into_iter().map(|one| one.name).collect()
                };
                let (small, large) = (names(8), names(16 << 20));
                assert!(!small.is_empty() && large.is_subset(&small), "{small:?} {large:?}");
            }
        }
        assert!(over_sizes("pigeons", Pattern::Latency, 8).is_empty());
    }
}
