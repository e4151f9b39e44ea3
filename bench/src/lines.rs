//! The table of lines: what is measured, by which programs, and the budget of each. The runner walks it.
//! A budget changes here and in the project's page of budgets together; nothing here runs anything.

use sinew_yardstick::against::Against;
use sinew_yardstick::peers::ucx::{Perftest, Transports};
use sinew_yardstick::sample::Unit;

/// One program that takes part in a line.
#[derive(Debug, Clone)]
pub struct Contender {
    /// What tables and budgets call it; unique within its line.
    pub name: String,
    pub program: Program,
}

/// How a contender is run.
#[derive(Debug, Clone)]
pub enum Program {
    /// `sinew-bench ours …`: Sinew through its public safe API.
    Ours(String),
    /// A raw program or a peer.
    Against(Against),
}

/// The side on which a ratio must stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// What a contender of ours is compared with.
#[derive(Debug, Clone)]
pub enum Reference {
    /// The best of the named contenders of the same line.
    Best(Vec<String>),
    /// The bound is the figure itself, in the line's unit.
    Absolute,
}

/// One promise about one line.
#[derive(Debug, Clone)]
pub struct Budget {
    /// The contender it is about.
    pub ours: String,
    pub bound: Bound,
    pub reference: Reference,
}

/// One line at one size.
#[derive(Debug, Clone)]
pub struct Line {
    pub id: &'static str,
    pub what: String,
    pub size_bytes: Option<usize>,
    pub unit: Unit,
    pub contenders: Vec<Contender>,
    pub budgets: Vec<Budget>,
}

impl Line {
    fn new(id: &'static str, what: &str, size_bytes: impl Into<Option<usize>>, unit: Unit) -> Self {
        let (contenders, budgets) = (Vec::new(), Vec::new());
        Self { id, what: what.into(), size_bytes: size_bytes.into(), unit, contenders, budgets }
    }

    fn with(mut self, name: &str, program: Program) -> Self {
        self.contenders.push(Contender { name: name.into(), program });
        self
    }

    /// A raw program; `arguments` without the size, which is the line's.
    fn raw(self, name: &str, arguments: &str) -> Self {
        let arguments = self.sized(arguments);
        self.with(name, Program::Against(Against::Raw(arguments)))
    }

    /// Sinew; `arguments` without the size, which is the line's.
    fn ours(self, name: &str, arguments: &str) -> Self {
        let arguments = self.sized(arguments);
        self.with(name, Program::Ours(arguments))
    }

    fn ucx(self, test: &'static str, transports: Transports) -> Self {
        let name = format!("UCX {} {test}", transports.name());
        let size_bytes = self.size_bytes.unwrap_or(8);
        self.with(&name, Program::Against(Against::Ucx(Perftest { test, transports, size_bytes })))
    }

    fn sized(&self, arguments: &str) -> String {
        match self.size_bytes {
            Some(size) => format!("{arguments} --size {size}"),
            None => arguments.into(),
        }
    }

    fn budget(mut self, ours: &str, bound: Bound, best_of: &[&str]) -> Self {
        let reference = if best_of.is_empty() {
            Reference::Absolute
        } else {
            Reference::Best(best_of.iter().map(ToString::to_string).collect())
        };
        self.budgets.push(Budget { ours: ours.into(), bound, reference });
        self
    }
}

use Bound::{AtLeast, AtMost};
use Transports::{Posix, PosixCma, Tcp};
use Unit::{Bytes, BytesPerS, Count, LatencyNs, MessagesPerS, Percent};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Every line, in the order of the page of budgets.
pub fn all() -> Vec<Line> {
    let mut lines = Vec::new();
    lines.extend(shm_latency());
    lines.extend(shm_rate());
    lines.extend(shm_bandwidth());
    lines.extend(shm_other());
    lines.extend(tcp_latency());
    lines.extend(tcp_streams());
    lines.extend(uds());
    lines.extend(engine());
    lines.extend(scale());
    lines
}

fn shm_latency() -> Vec<Line> {
    let mut lines = Vec::new();
    for size in [8, 40] {
        lines.push(
            Line::new("S1", "shm one-way latency, tagged", size, LatencyNs)
                .raw("raw line", "line")
                .raw("raw line, PAUSE", "line --pause")
                .ucx("tag_lat", Posix)
                .ours("Sinew", "latency --transport shm")
                .budget("Sinew", AtMost(0.6), &["UCX posix tag_lat"])
                .budget("Sinew", AtMost(1.0), &["raw line"]),
        );
    }
    for (size, tagged, in_place) in [(KIB, 0.5, 0.45), (4 * KIB, 0.6, 0.5)] {
        lines.push(
            Line::new("S2", "shm one-way latency", size, LatencyNs)
                .raw("raw two copies", "copy")
                .ucx("tag_lat", Posix)
                .ucx("ucp_am_lat", Posix)
                .ours("Sinew tagged", "latency --transport shm")
                .ours("Sinew in place", "latency --transport shm --in-place")
                .budget("Sinew tagged", AtMost(tagged), &["UCX posix tag_lat"])
                .budget("Sinew in place", AtMost(in_place), &["UCX posix tag_lat"]),
        );
    }
    lines
}

fn shm_rate() -> Vec<Line> {
    vec![
        Line::new("S3", "shm message rate, streaming", 8, MessagesPerS)
            .raw("raw ring", "ring")
            .ucx("tag_bw", Posix)
            .ours("Sinew in order", "rate --transport shm")
            .ours("Sinew permuted", "rate --transport shm --permute")
            .ours("Sinew permuted, posted", "rate --transport shm --permute --window 32")
            .ours("Sinew tagged batch", "rate --transport shm --batch 32")
            .ours("Sinew untagged batch", "rate --transport shm --batch 32 --untagged")
            .budget("Sinew in order", AtLeast(3.5), &["UCX posix tag_bw"])
            .budget("Sinew permuted", AtLeast(2.5), &["UCX posix tag_bw"])
            .budget("Sinew permuted, posted", AtLeast(2.5), &["UCX posix tag_bw"])
            .budget("Sinew tagged batch", AtLeast(5.0), &["UCX posix tag_bw"])
            .budget("Sinew untagged batch", AtLeast(1.0), &["raw ring"]),
    ]
}

fn shm_bandwidth() -> Vec<Line> {
    let mut lines = Vec::new();
    for size in [16 * KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB] {
        lines.push(
            Line::new("S4", "shm bandwidth, private buffers, tagged", size, BytesPerS)
                .raw("raw window", "window")
                .raw("raw slots", "slots")
                .ucx("tag_bw", Posix)
                .ucx("tag_bw", PosixCma)
                .ucx("stream_bw", Posix)
                .ours("Sinew", "bandwidth --transport shm")
                .budget("Sinew", AtLeast(1.3), &["UCX posix tag_bw", "UCX posix,cma tag_bw"])
                .budget("Sinew", AtLeast(1.05), &["UCX posix stream_bw"]),
        );
    }
    for (size, share) in [(16 * KIB, 0.85), (64 * KIB, 0.95), (MIB, 0.95), (16 * MIB, 0.95), (64 * MIB, 0.95)]
    {
        lines.push(
            Line::new("S5", "shm bandwidth, one copy, read in place", size, BytesPerS)
                .raw("memcpy", "memcpy")
                .ucx("ucp_put_bw", Posix)
                .ours("Sinew one copy", "bandwidth --transport shm --in-place")
                .budget("Sinew one copy", AtLeast(share), &["memcpy"]),
        );
    }
    lines.push(
        Line::new("S5", "shm loan, first and last line read", MIB, LatencyNs)
            .with("Sinew 8 B", Program::Ours("latency --transport shm --size 8".into()))
            .ours("Sinew loan", "loan --transport shm")
            .budget("Sinew loan", AtMost(1.5), &["Sinew 8 B"]),
    );
    lines
}

fn shm_other() -> Vec<Line> {
    vec![
        Line::new("S6", "shm wake-up of a sleeping receiver", 8, LatencyNs)
            .raw("raw eventfd, rested", "wake")
            .raw("raw eventfd ping-pong", "eventfd")
            .raw("raw futex ping-pong", "futex")
            .ours("Sinew", "wake --transport shm")
            .budget("Sinew", AtMost(1.05), &["raw eventfd, rested"]),
        Line::new("S6", "idle, 1,000 connected endpoints: share of a core", None, Percent)
            .ours("Sinew", "idle --endpoints 1000")
            .budget("Sinew", AtMost(0.5), &[]),
        Line::new("S7", "shm one-sided write", 8, LatencyNs)
            .ucx("ucp_put_lat", Posix)
            .ours("Sinew", "write --transport shm")
            .budget("Sinew", AtMost(1.0), &["UCX posix ucp_put_lat"]),
        Line::new("S7", "shm one-sided write", 64 * KIB, LatencyNs)
            .ucx("ucp_put_lat", Posix)
            .ours("Sinew", "write --transport shm")
            .budget("Sinew", AtMost(1.0), &["UCX posix ucp_put_lat"]),
        Line::new("S8", "shm async latency, busy", 8, LatencyNs)
            .ours("Sinew blocking", "latency --transport shm")
            .ours("Sinew async busy", "async --transport shm --busy")
            .budget("Sinew async busy", AtMost(1.5), &["Sinew blocking"]),
        Line::new("S8", "shm async wake-up", 8, LatencyNs)
            .ours("Sinew blocking", "wake --transport shm")
            .ours("Sinew async", "async --transport shm")
            .budget("Sinew async", AtMost(1.15), &["Sinew blocking"]),
    ]
}

fn tcp_latency() -> Vec<Line> {
    let mut lines = Vec::new();
    for size in [8, 64, KIB, 4 * KIB] {
        lines.push(
            Line::new("T1", "tcp one-way latency, spinning", size, LatencyNs)
                .raw("raw tcp", "tcp")
                .ucx("tag_lat", Tcp)
                .ours("Sinew", "latency --transport tcp")
                .budget("Sinew", AtMost(1.1), &["raw tcp"])
                .budget("Sinew", AtMost(0.85), &["UCX tcp tag_lat"]),
        );
    }
    for size in [64 * KIB, MIB] {
        lines.push(
            Line::new("T2", "tcp one-way latency, spinning", size, LatencyNs)
                .raw("raw tcp", "tcp")
                .raw("raw tcp, cubic", "tcp --congestion cubic")
                .ucx("tag_lat", Tcp)
                .ours("Sinew", "latency --transport tcp")
                .budget("Sinew", AtMost(1.1), &["raw tcp", "raw tcp, cubic"]),
        );
    }
    lines
}

fn tcp_streams() -> Vec<Line> {
    let mut lines = Vec::new();
    for (size, factor) in [(8, 1.1), (64, 1.2)] {
        lines.push(
            Line::new("T3", "tcp message rate, streaming", size, MessagesPerS)
                .raw("raw tcp, one per write", "tcp-stream")
                .raw("raw tcp, 256 per write", "tcp-stream --per-write 256")
                .ucx("tag_bw", Tcp)
                .with("ZeroMQ push/pull", Program::Against(Against::Zmq(format!("--size {size}"))))
                .ours("Sinew", "rate --transport tcp")
                .budget("Sinew", AtLeast(factor), &["ZeroMQ push/pull"]),
        );
    }
    for size in [64 * KIB, MIB, 16 * MIB] {
        lines.push(
            Line::new("T4", "tcp bandwidth", size, BytesPerS)
                .raw("raw tcp", "tcp-stream")
                .raw("raw tcp, cubic", "tcp-stream --congestion cubic")
                .ucx("tag_bw", Tcp)
                .ours("Sinew", "bandwidth --transport tcp")
                .budget("Sinew", AtLeast(0.95), &["raw tcp", "raw tcp, cubic"]),
        );
    }
    lines.push(
        Line::new("T5", "tcp one-way latency, blocking", 8, LatencyNs)
            .raw("raw tcp", "tcp --block")
            .ours("Sinew", "latency --transport tcp --block")
            .budget("Sinew", AtMost(1.1), &["raw tcp"]),
    );
    lines
}

fn uds() -> Vec<Line> {
    vec![
        Line::new("T6", "uds one-way latency, spinning", 8, LatencyNs)
            .raw("raw uds", "uds")
            .ours("Sinew", "latency --transport uds")
            .budget("Sinew", AtMost(1.15), &["raw uds"]),
        Line::new("T6", "uds bandwidth", MIB, BytesPerS)
            .raw("raw uds", "uds-stream")
            .ours("Sinew", "bandwidth --transport uds")
            .budget("Sinew", AtLeast(0.92), &["raw uds"]),
    ]
}

fn engine() -> Vec<Line> {
    let ours = |what: &str, unit: Unit, arguments: &str, most: f64, id: &'static str| {
        Line::new(id, what, None, unit).ours("Sinew", arguments).budget("Sinew", AtMost(most), &[])
    };
    vec![
        ours("memory of an idle endpoint", Bytes, "endpoint-memory", 1024.0, "E1"),
        ours("descriptors of an idle endpoint", Count, "endpoint-descriptors", 0.0, "E1"),
        ours("1,000 × 1,000 endpoints: memory per process", Bytes, "mesh-memory", 64e6, "E2"),
        ours("1,000 × 1,000 endpoints: descriptors", Count, "mesh-descriptors", 10.0, "E2"),
        ours("connect to first byte, shm", LatencyNs, "connect --transport shm", 1e6, "E3"),
        ours("connect to first byte, tcp", LatencyNs, "connect --transport tcp", 2e6, "E3"),
        ours(
            "allocations and system calls per small message, beside looks",
            Count,
            "data-path --size 40",
            0.0,
            "E4",
        ),
        Line::new("E5", "cost per match, 10,000 posted and unexpected", None, LatencyNs)
            .ours("Sinew 1 posted", "matching --posted 1")
            .ours("Sinew 10,000 posted", "matching --posted 10000")
            .budget("Sinew 10,000 posted", AtMost(2.0), &["Sinew 1 posted"]),
        Line::new("E6", "shm latency with 1,000 idle lanes", 8, LatencyNs)
            .ours("Sinew alone", "latency --transport shm")
            .ours("Sinew 1,000 lanes", "latency --transport shm --idle-lanes 1000")
            .budget("Sinew 1,000 lanes", AtMost(1.2), &["Sinew alone"]),
        ours("death of a local peer noticed", LatencyNs, "death", 10e6, "E7"),
    ]
}

/// How it goes with many: not on the page of budgets, whose bounds are ours, and generous.
fn scale() -> Vec<Line> {
    let mut lines = Vec::new();
    for transport in ["shm", "tcp"] {
        let mut line =
            Line::new("N1", &format!("{transport}: one turn of progress, idle peers"), None, LatencyNs);
        for peers in [1, 10, 100, 1000] {
            let arguments = format!("progress --transport {transport} --idle-lanes {peers}");
            line = line.ours(&format!("{peers} peers"), &arguments);
        }
        lines.push(line.budget("1000 peers", AtMost(1.5), &["10 peers"]));
    }
    let ours = |id: &'static str, what: String, unit: Unit, arguments: String, most: f64| {
        Line::new(id, &what, None, unit).ours("Sinew", &arguments).budget("Sinew", AtMost(most), &[])
    };
    for transport in ["shm", "tcp"] {
        let what = format!("{transport}: memory of the process for each connected peer");
        let arguments = format!("peer-memory --transport {transport} --idle-lanes 200");
        lines.push(ours("N2", what, Bytes, arguments, PEER_BYTES));
        let what = format!("{transport}: 1,000 connects at once, all answered");
        let arguments = format!("storm --transport {transport} --idle-lanes 1000");
        lines.push(ours("N3", what, LatencyNs, arguments, STORM_NS));
    }
    for transport in ["shm", "tcp"] {
        lines.push(
            Line::new("N4", &format!("{transport}: all-to-all on two cores"), 64, MessagesPerS)
                .ours("2 processes", &format!("all-to-all --transport {transport} --processes 2"))
                .ours("16 processes", &format!("all-to-all --transport {transport} --processes 16"))
                .ours("64 processes", &format!("all-to-all --transport {transport} --processes 64"))
                // Two processes have a processor each: none of their messages waits for a change of processes.
                .budget("64 processes", AtLeast(0.3), &["16 processes"]),
        );
    }
    lines.push(
        Line::new("N5", "shm rate, threads that share an endpoint", None, MessagesPerS)
            .ours("1 thread", "shared --threads 1")
            .ours("2 threads", "shared --threads 2")
            .ours("8 threads", "shared --threads 8")
            .budget("8 threads", AtLeast(0.2), &["1 thread"]),
    );
    lines.push(
        Line::new("N6", "death of a local peer noticed, 30 deaths", None, LatencyNs)
            .ours("median", "death --deaths 30")
            .ours("99th percentile", "death --deaths 30 --quantile 0.99")
            .budget("median", AtMost(10e6), &[]),
    );
    lines
}

/// Most memory for a connected peer; longest time of a storm.
const PEER_BYTES: f64 = 512.0 * 1024.0;
const STORM_NS: f64 = 5e9;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_budget_names_contenders_of_its_line() {
        for line in all() {
            let names: BTreeSet<&str> = line.contenders.iter().map(|one| one.name.as_str()).collect();
            assert_eq!(names.len(), line.contenders.len(), "{}: a name twice", line.id);
            assert!(!line.budgets.is_empty(), "{}: no budget", line.id);
            for budget in &line.budgets {
                assert!(names.contains(budget.ours.as_str()), "{}: {}", line.id, budget.ours);
                if let Reference::Best(best) = &budget.reference {
                    assert!(best.iter().all(|name| names.contains(name.as_str())), "{}: {best:?}", line.id);
                }
            }
        }
    }

    #[test]
    fn every_line_of_the_page_of_budgets_is_here() {
        let is_budget = |id: &&str| !id.starts_with('N');
        let ids: BTreeSet<&str> = all().iter().map(|line| line.id).filter(is_budget).collect();
        let wanted = "S1 S2 S3 S4 S5 S6 S7 S8 T1 T2 T3 T4 T5 T6 E1 E2 E3 E4 E5 E6 E7";
        assert_eq!(ids, wanted.split(' ').collect());
    }
}
