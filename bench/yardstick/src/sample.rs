//! What one run of one program found: the record that every program of the bench prints and the runner reads.
//! Every program (raw, peer, ours) makes one; the runner compares them. It must not know what was measured.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What a program says when it cannot measure, because what it would measure does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub String);

impl Missing {
    /// One line of JSON, as a program prints it instead of a sample.
    pub fn to_line(&self) -> String {
        json!({ "missing": self.0 }).to_string()
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "not measured yet: {}", self.0)
    }
}

impl std::error::Error for Missing {}

/// The result of one run. A figure that the program did not measure is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Mean one-way latency, nanoseconds.
    pub latency_ns: Option<f64>,
    /// Median one-way latency, nanoseconds: of batches of 16 round trips where clocks cost too much.
    pub latency_p50_ns: Option<f64>,
    /// Messages per second.
    pub messages_per_s: Option<f64>,
    /// Payload bytes per second.
    pub bytes_per_s: Option<f64>,
    /// Any other figure (a share of a core, bytes of memory, a count).
    pub value: Option<f64>,
}

impl Sample {
    /// A stream of `messages` messages of `size_bytes` each that took `elapsed`.
    pub fn stream(messages: u64, size_bytes: usize, elapsed: Duration) -> Self {
        let rate = messages as f64 / elapsed.as_secs_f64();
        Self { messages_per_s: Some(rate), bytes_per_s: Some(rate * size_bytes as f64), ..Self::default() }
    }

    /// The figure that `unit` names.
    pub fn figure(&self, unit: Unit) -> Option<f64> {
        match unit {
            Unit::LatencyNs => self.latency_ns,
            Unit::MessagesPerS => self.messages_per_s,
            Unit::BytesPerS => self.bytes_per_s,
            Unit::Bytes | Unit::Count | Unit::Percent => self.value,
        }
    }

    /// One line of JSON, as a program prints it.
    pub fn to_line(self) -> String {
        json!({
            "latency_ns": self.latency_ns,
            "latency_p50_ns": self.latency_p50_ns,
            "messages_per_s": self.messages_per_s,
            "bytes_per_s": self.bytes_per_s,
            "value": self.value,
        })
        .to_string()
    }

    /// Reads what [`Sample::to_line`] wrote; the last line of `text` counts. The error of a program that printed
    /// [`Missing`] is that.
    pub fn from_output(text: &str) -> Result<Self> {
        let line =
            text.lines().rfind(|line| line.starts_with('{')).context("the program printed no result")?;
        let value: Value = serde_json::from_str(line).context("the program's result is not JSON")?;
        if let Some(words) = value.get("missing").and_then(Value::as_str) {
            return Err(Missing(words.to_owned()).into());
        }
        let number = |name: &str| value.get(name).and_then(Value::as_f64);
        Ok(Self {
            latency_ns: number("latency_ns"),
            latency_p50_ns: number("latency_p50_ns"),
            messages_per_s: number("messages_per_s"),
            bytes_per_s: number("bytes_per_s"),
            value: number("value"),
        })
    }
}

/// How long a stream that is measured for `seconds` runs before: sockets find their buffers' sizes in a fifth of a second.
pub fn stream_warm_up(seconds: f64) -> Duration {
    Duration::from_secs_f64((seconds / 4.0).max(0.2))
}

/// What a line of the bench is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds, lower is better.
    LatencyNs,
    /// Messages per second, higher is better.
    MessagesPerS,
    /// Bytes per second, higher is better.
    BytesPerS,
    /// Bytes of memory, lower is better.
    Bytes,
    /// A count, lower is better.
    Count,
    /// Per cent of a core, lower is better.
    Percent,
}

impl Unit {
    /// `amount` for people: three figures and a unit.
    pub fn show(self, amount: f64) -> String {
        match self {
            Self::LatencyNs => scaled(amount, &[(1e6, "ms"), (1e3, "µs"), (1.0, "ns")]),
            Self::MessagesPerS => scaled(amount, &[(1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")]),
            Self::BytesPerS => scaled(amount, &[(1e9, "GB/s"), (1e6, "MB/s"), (1.0, "B/s")]),
            Self::Bytes => scaled(amount, &[(1048576.0, "MiB"), (1024.0, "KiB"), (1.0, "B")]),
            Self::Count => format!("{amount:.0}"),
            Self::Percent => format!("{amount:.2} %"),
        }
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::LatencyNs => "ns",
            Self::MessagesPerS => "messages_per_s",
            Self::BytesPerS => "bytes_per_s",
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Percent => "percent",
        }
    }
}

fn scaled(amount: f64, steps: &[(f64, &str)]) -> String {
    let (scale, name) =
        steps.iter().find(|(scale, _)| amount >= *scale).or(steps.last()).copied().unwrap_or((1.0, ""));
    let amount = amount / scale;
    let digits = if amount < 10.0 { 2 } else { usize::from(amount < 100.0) };
    format!("{amount:.digits$} {name}")
}

/// A size for people: `8 B`, `64 KiB`.
pub fn show_size(size_bytes: usize) -> String {
    match size_bytes {
        n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 && n % (1 << 10) == 0 => format!("{} KiB", n >> 10),
        n => format!("{n} B"),
    }
}

/// The median; the mean of the middle two of an even number. `None` of nothing.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.is_empty() {
        None
    } else if sorted.len() % 2 == 1 {
        Some(sorted[middle])
    } else {
        Some((sorted[middle - 1] + sorted[middle]) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_survives_its_line_of_json() {
        let sample = Sample { latency_ns: Some(61.5), ..Sample::stream(1000, 8, Duration::from_millis(10)) };
        let text = format!("noise\n{}\n", sample.to_line());
        assert_eq!(Sample::from_output(&text).expect("readable"), sample);
        assert!(Sample::from_output("nothing").is_err());
        let missing = Missing("wings".into());
        let error = Sample::from_output(&missing.to_line()).expect_err("no sample");
        assert_eq!(error.downcast_ref::<Missing>(), Some(&missing));
    }

    #[test]
    fn the_median_is_the_middle_of_sorted_figures() {
        assert_eq!(median(&[5.0, 1.0, 100.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn figures_print_with_three_digits_and_a_unit() {
        assert_eq!(Unit::LatencyNs.show(61.23), "61.2 ns");
        assert_eq!(Unit::LatencyNs.show(3450.0), "3.45 µs");
        assert_eq!(Unit::MessagesPerS.show(250e6), "250 M/s");
        assert_eq!(Unit::BytesPerS.show(0.5), "0.50 B/s");
        assert_eq!(show_size(65536), "64 KiB");
        assert_eq!(show_size(1000), "1000 B");
    }
}
