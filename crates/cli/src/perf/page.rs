//! `sinew perf --html`: what was measured as one page with plots over size, beside the bare mechanisms and the peers that
//! this machine has. `perf` fills it row by row; what it looks like is `sinew_yardstick::page`'s.

use super::Op;
use super::report::{Measurement, cells};
use crate::failure::Failure;
use crate::units;
use sinew_yardstick::against::{Beside, Pattern, over_sizes};
use sinew_yardstick::machine;
use sinew_yardstick::page::{Command, Page, Plot, Point, Role, Series, Table, Tone};
use sinew_yardstick::sample::{Sample, Unit};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Sizes of the page when none are asked for: 8 B to 64 MiB.
pub(super) const SIZES: [usize; 13] =
    [8, 32, 128, 512, 2 << 10, 8 << 10, 32 << 10, 128 << 10, 512 << 10, 2 << 20, 8 << 20, 32 << 20, 64 << 20];

/// The page in the making.
pub(super) struct Pages {
    path: PathBuf,
    page: Page,
    /// The processors of the bare mechanisms and peers; none where one side is elsewhere, and they would mean nothing.
    beside: Option<[usize; 2]>,
}

/// The columns of the table of everything measured by Sinew.
const COLUMNS: [&str; 9] =
    ["transport", "size", "mean", "p50", "p99", "p99.9", "bandwidth", "messages", "content"];

impl Pages {
    /// Says at once when the file cannot be written.
    pub(super) fn begin(path: &Path, beside: Option<[usize; 2]>, seconds: Duration) -> Result<Self, Failure> {
        let how = format!(
            "Latency is half the round trip of tagged messages, mean with the lowest and 99th percentile where given; bandwidth and \
             rate are of one direction. Every byte that Sinew moved was checked. Each figure is of one measurement of {} s, on a \
             machine that others may use: `cargo xtask bench` of the sources measures round by round and judges.",
            seconds.as_secs_f64()
        );
        let columns = COLUMNS.map(str::to_owned).to_vec();
        let table = Table { title: "Sinew".into(), columns, rows: Vec::new(), words: 2 };
        let page = Page {
            title: "sinew perf".into(),
            notes: vec![how],
            machine: machine::describe(),
            tables: vec![table],
            ..Page::default()
        };
        let pages = Self { path: path.to_owned(), page, beside };
        pages.write()?;
        Ok(pages)
    }

    fn write(&self) -> Result<(), Failure> {
        std::fs::write(&self.path, self.page.render())
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", self.path.display())))
    }

    /// All operations of one transport and size; also measures what stands beside them. The page is written at once, so
    /// one that is interrupted holds what is known.
    pub(super) fn row(
        &mut self,
        transport: &str,
        row: &[Measurement],
        seconds: Duration,
    ) -> Result<(), Failure> {
        let Some(first) = row.first() else { return Ok(()) };
        let (cells, verified) = cells(first, row);
        let (word, tone) = if verified { ("verified", Tone::Good) } else { ("WRONG", Tone::Bad) };
        let cells = cells.into_iter().chain([word.to_owned()]).collect();
        if let Some(table) = self.page.tables.first_mut() {
            table.rows.push((cells, tone));
        }
        let size_bytes = first.size_bytes;
        for measurement in row {
            let (unit, value, spread) = figure(measurement);
            let point = Point { size_bytes, value, spread };
            self.series(transport, unit, "Sinew", Role::Ours).points.push(point);
        }
        if let Some(cpus) = self.beside {
            self.measure_beside(transport, row, cpus, seconds);
        }
        self.write()
    }

    fn measure_beside(&mut self, transport: &str, row: &[Measurement], cpus: [usize; 2], seconds: Duration) {
        let size = row.first().map_or(0, |first| first.size_bytes);
        let has = |unit| row.iter().any(|measurement| figure(measurement).0 == unit);
        for pattern in [Pattern::Latency, Pattern::Stream] {
            let all = [Unit::LatencyNs, Unit::BytesPerS, Unit::MessagesPerS];
            let units =
                all.into_iter().filter(|unit| (*unit == Unit::LatencyNs) == (pattern == Pattern::Latency));
            let units: Vec<Unit> = units.filter(|unit| has(*unit)).collect();
            if units.is_empty() || size == 0 {
                continue;
            }
            for one in over_sizes(transport, pattern, size) {
                let outcome = match one.program.remedy() {
                    Some(remedy) => Err(remedy.to_owned()),
                    None => {
                        one.program.run(seconds.as_secs_f64(), cpus).map_err(|error| format!("{error:#}"))
                    }
                };
                self.keep(transport, size, &one, &units, outcome);
            }
        }
    }

    fn keep(
        &mut self,
        transport: &str,
        size: usize,
        one: &Beside,
        units: &[Unit],
        outcome: Result<(Sample, String), String>,
    ) {
        let (sample, words, is_reason) = match outcome {
            Ok((sample, command)) => (Some(sample), command, false),
            Err(reason) => (None, reason, true),
        };
        for unit in units {
            let value = sample.and_then(|sample| sample.figure(*unit)).unwrap_or(f64::NAN);
            let series = self.series(transport, *unit, one.name, one.role);
            series.points.push(Point { size_bytes: size, value, spread: None });
            if is_reason && series.absence.is_none() {
                series.absence = Some(words.clone());
            }
        }
        let what = format!("{transport} {}", units::size(size));
        self.page.commands.push(Command { what, who: one.name.to_owned(), words, is_reason });
    }

    /// A transport that could not be measured: its plots say why.
    pub(super) fn refused(&mut self, transport: &str, reason: &str) -> Result<(), Failure> {
        for unit in [Unit::LatencyNs, Unit::BytesPerS, Unit::MessagesPerS] {
            self.series(transport, unit, "Sinew", Role::Ours).absence = Some(reason.to_owned());
        }
        self.write()
    }

    /// The line `name` of the plot of `transport` in `unit`; made where there is none yet.
    fn series(&mut self, transport: &str, unit: Unit, name: &str, role: Role) -> &mut Series {
        let what = match unit {
            Unit::LatencyNs => "one-way latency",
            Unit::BytesPerS => "bandwidth",
            _ => "message rate",
        };
        let title = format!("{transport}: {what}");
        let plots = &mut self.page.plots;
        let place = plots.iter().position(|plot| plot.title == title).unwrap_or_else(|| {
            plots.push(Plot { title, unit, series: Vec::new() });
            plots.len() - 1
        });
        let all = &mut plots[place].series;
        let place = all.iter().position(|series| series.name == name).unwrap_or_else(|| {
            all.push(Series { name: name.to_owned(), role, points: Vec::new(), absence: None });
            all.len() - 1
        });
        &mut all[place]
    }
}

/// What a measurement puts into a plot, and where it may lie.
fn figure(measurement: &Measurement) -> (Unit, f64, Option<(f64, f64)>) {
    let of = |value: Option<f64>| value.unwrap_or(f64::NAN);
    match &measurement.latency_ns {
        Some(latency) => (Unit::LatencyNs, latency.mean, Some((latency.p50.min(latency.mean), latency.p99))),
        None if measurement.op == Op::Bandwidth.name() => {
            (Unit::BytesPerS, of(measurement.bandwidth_bytes_per_s), None)
        }
        None => (Unit::MessagesPerS, of(measurement.messages_per_s), None),
    }
}
