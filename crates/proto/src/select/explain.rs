//! The table that tells which path was chosen and why not the others.

use super::{Candidate, State};
use std::fmt;

/// One candidate. Plain values, for whoever prints or serialises them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The transport's name.
    pub transport: String,
    /// Where it leads.
    pub locator: String,
    /// `active`, `verified`, `dialling`, `untried`, `refused` or `lost`.
    pub verdict: &'static str,
    /// Why it was refused or lost; else empty.
    pub reason: String,
    /// Half a measured round trip, in nanoseconds.
    pub latency_ns: Option<u64>,
    /// Measured, in bytes per second.
    pub bandwidth: Option<u64>,
    /// Whether it carries the traffic.
    pub chosen: bool,
}

/// The table. [`fmt::Display`] prints it aligned, one line each, without a line break at the end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Explain {
    /// The chosen one first, then what works by cost, then the rest.
    pub rows: Vec<Row>,
}

const TITLES: [&str; 6] = ["", "path", "verdict", "latency", "bandwidth", "reason"];
/// Which columns are numbers and stand right.
const RIGHT: [bool; 6] = [false, false, false, true, true, false];

impl Explain {
    pub(super) fn of(candidates: &[Candidate], reference_len: u64) -> Self {
        let mut order: Vec<&Candidate> = candidates.iter().collect();
        order.sort_by_key(|candidate| (rank(&candidate.state), candidate.cost_ns(reference_len)));
        Self { rows: order.into_iter().map(row).collect() }
    }
}

const fn rank(state: &State) -> u8 {
    match state {
        State::Active(_) => 0,
        State::Verified(_) => 1,
        State::Dialling => 2,
        State::Untried => 3,
        State::Refused(_) => 4,
        State::Lost(_) => 5,
    }
}

fn row(candidate: &Candidate) -> Row {
    let (verdict, reason) = match &candidate.state {
        State::Untried => ("untried", ""),
        State::Dialling => ("dialling", ""),
        State::Refused(reason) => ("refused", reason.as_str()),
        State::Verified(_) => ("verified", ""),
        State::Active(_) => ("active", ""),
        State::Lost(reason) => ("lost", reason.as_str()),
    };
    let measured = candidate.state.measured();
    Row {
        transport: candidate.transport.clone(),
        locator: candidate.locator.clone(),
        verdict,
        reason: reason.into(),
        latency_ns: measured.map(|measured| measured.rtt_ns / 2),
        bandwidth: measured.and_then(|measured| measured.bandwidth),
        chosen: matches!(candidate.state, State::Active(_)),
    }
}

/// Three digits and a unit.
fn scaled(value: u64, units: &[(&str, u64)]) -> String {
    let (unit, size) = units.iter().rev().find(|(_, size)| value >= *size).unwrap_or(&units[0]);
    let number = value as f64 / *size as f64;
    let digits = match number {
        number if *size == 1 || number >= 100.0 => 0,
        number if number >= 10.0 => 1,
        _ => 2,
    };
    format!("{number:.digits$} {unit}")
}

fn latency(value: u64) -> String {
    scaled(value, &[("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)])
}

fn bandwidth(value: u64) -> String {
    scaled(value, &[("B/s", 1), ("kB/s", 1_000), ("MB/s", 1_000_000), ("GB/s", 1_000_000_000)])
}

impl Row {
    fn cells(&self) -> [String; 6] {
        // A reason may quote a peer: nothing of it may move the cursor.
        let plain =
            |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        let path = if self.locator.starts_with(&format!("{}:", self.transport)) {
            plain(&self.locator)
        } else {
            plain(&format!("{} {}", self.transport, self.locator))
        };
        [
            if self.chosen { "*".into() } else { String::new() },
            path,
            self.verdict.into(),
            self.latency_ns.map_or_else(|| "-".into(), latency),
            self.bandwidth.map_or_else(|| "-".into(), bandwidth),
            plain(&self.reason),
        ]
    }
}

impl fmt::Display for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return f.write_str("no path is known");
        }
        let mut lines = vec![TITLES.map(String::from)];
        lines.extend(self.rows.iter().map(Row::cells));
        let mut widths = [1; 6];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for (number, line) in lines.iter().enumerate() {
            let mut text = String::new();
            for ((cell, width), right) in line.iter().zip(widths).zip(RIGHT) {
                let cell = if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                text.push_str(&cell);
                text.push_str("  ");
            }
            let separator = if number == 0 { "" } else { "\n" };
            write!(f, "{separator}{}", text.trim_end())?;
        }
        Ok(())
    }
}
