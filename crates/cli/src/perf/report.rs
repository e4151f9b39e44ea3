//! What was measured, as a table for people or lines of JSON for programs, and the progress in between.

use super::Op;
use crate::failure::Failure;
use crate::output::{Paint, Tone, print};
use crate::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;

/// Half the round trip, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// One measurement: a line of `--json`, with these names in this order.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Measurement {
    schema: u32,
    pub(crate) transport: String,
    pub(crate) op: &'static str,
    pub(crate) size_bytes: usize,
    iterations: u64,
    pub(crate) latency_ns: Option<Latency>,
    pub(crate) bandwidth_bytes_per_s: Option<f64>,
    pub(crate) messages_per_s: Option<f64>,
    pub(crate) verified: bool,
    #[serde(skip)]
    pub(crate) wrong: Option<String>,
}

impl Measurement {
    pub(crate) fn new(transport: String, op: Op, size_bytes: usize, iterations: u64) -> Self {
        Self {
            schema: 1,
            transport,
            op: op.name(),
            size_bytes,
            iterations,
            latency_ns: None,
            bandwidth_bytes_per_s: None,
            messages_per_s: None,
            verified: false,
            wrong: None,
        }
    }

    pub(crate) const fn latency(mut self, latency: Latency) -> Self {
        self.latency_ns = Some(latency);
        self
    }

    pub(crate) fn rate(mut self, messages_per_s: f64, size: usize) -> Self {
        self.messages_per_s = Some(messages_per_s.round());
        self.bandwidth_bytes_per_s = Some((messages_per_s * size as f64).round());
        self
    }

    pub(crate) fn verdict(mut self, wrong: Option<String>) -> Self {
        self.verified = wrong.is_none();
        self.wrong = wrong;
        self
    }
}

/// All operations of one transport and size: a row of the table.
#[derive(Default)]
struct Row {
    latency: Option<Latency>,
    bandwidth: Option<f64>,
    rate: Option<f64>,
    verified: bool,
}

/// Where results go.
pub(crate) struct Report {
    json: bool,
    paint: Paint,
    bar: ProgressBar,
    heading_shown: bool,
}

const WIDTHS: [usize; 8] = [9, 9, 9, 9, 9, 9, 11, 10];

impl Report {
    /// For `steps` measurements.
    pub(crate) fn new(json: bool, steps: usize) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Self { json, paint: Paint::for_stdout(), bar, heading_shown: false }
    }

    /// What is being done now.
    pub(crate) fn begin(&self, what: String) {
        self.bar.set_message(what);
        self.bar.tick();
    }

    pub(crate) fn step(&self, by: usize) {
        self.bar.inc(by as u64);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn print(&self, text: &str) -> Result<(), Failure> {
        self.bar.suspend(|| print(text))
    }

    /// For people, on standard error where standard output is for programs.
    pub(crate) fn note(&self, text: &str) -> Result<(), Failure> {
        if self.json {
            self.bar.suspend(|| crate::output::say(text));
            return Ok(());
        }
        self.print(&format!("{text}\n"))
    }

    /// One measurement, at once, in JSON.
    pub(crate) fn measured(&self, measurement: &Measurement) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let line = serde_json::to_string(measurement).map_err(|error| Failure::failed(error.to_string()))?;
        self.print(&format!("{line}\n"))
    }

    /// All measurements of one transport and size, as a row.
    pub(crate) fn row(&mut self, measurements: &[Measurement]) -> Result<(), Failure> {
        let Some(first) = measurements.first() else { return Ok(()) };
        if self.json {
            return Ok(());
        }
        if !self.heading_shown {
            self.heading_shown = true;
            let columns = ["transport", "size", "mean", "p50", "p99", "p99.9", "bandwidth", "messages"];
            let over = format!("{:>19}  {:^42}", "", "latency (half the round trip)");
            let heading = format!("{}\n{}\n", over.trim_end(), line(&columns.map(str::to_owned)));
            self.print(&self.paint.paint(Tone::Heading, heading.trim_end_matches('\n')))?;
            self.print("\n")?;
        }
        let (cells, verified) = cells(first, measurements);
        let verdict = if verified {
            self.paint.paint(Tone::Good, "verified")
        } else {
            self.paint.paint(Tone::Bad, "WRONG CONTENT")
        };
        self.print(&format!("{}  {verdict}\n", line(&cells)))
    }

    /// A transport that could not be measured.
    pub(crate) fn refused(&self, transport: &str, reason: &str) -> Result<(), Failure> {
        let reason = reason.trim_end().replace('\n', "\n          ");
        let word = self.paint.paint(Tone::Bad, "refused");
        let word = if self.json { "refused".to_owned() } else { word };
        self.note(&format!("{transport:<9} {word}: {reason}"))
    }
}

/// All measurements of one transport and size as the cells of a row, and whether all content was right.
pub(crate) fn cells(first: &Measurement, measurements: &[Measurement]) -> ([String; 8], bool) {
    let mut row = Row { verified: true, ..Row::default() };
    for measurement in measurements {
        row.latency = row.latency.or(measurement.latency_ns);
        if measurement.op == Op::Bandwidth.name() || measurements.len() == 1 {
            row.bandwidth = row.bandwidth.or(measurement.bandwidth_bytes_per_s);
        }
        if measurement.op == Op::Rate.name() || measurements.len() == 1 {
            row.rate = row.rate.or(measurement.messages_per_s);
        }
        row.verified &= measurement.verified;
    }
    let dash = || "-".to_owned();
    let time = |value: fn(&Latency) -> f64| {
        row.latency.as_ref().map_or_else(dash, |latency| units::time(value(latency)))
    };
    let cells = [
        first.transport.clone(),
        units::size(first.size_bytes),
        time(|latency| latency.mean),
        time(|latency| latency.p50),
        time(|latency| latency.p99),
        time(|latency| latency.p999),
        row.bandwidth.map_or_else(dash, units::bandwidth),
        row.rate.map_or_else(dash, units::rate),
    ];
    (cells, row.verified)
}

fn line(cells: &[String; 8]) -> String {
    let mut text = format!("{:<1$}", cells[0], WIDTHS[0]);
    for (cell, width) in cells.iter().zip(WIDTHS).skip(1) {
        text.push_str(&format!("  {cell:>width$}"));
    }
    text
}
