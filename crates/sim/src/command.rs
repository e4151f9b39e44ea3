//! The command line, and running many seeds on several threads.

use crate::{Breach, Report, Setting, Weather, run};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const USAGE: &str =
    "sinew-sim [--seed N [--trace]] [--seeds COUNT] [--from N] [--weather calm|rough|wild] [--threads N] [--brief]
          [--breach drop|twice|swap|garble] [--after COUNT]

Without --seed it runs COUNT seeds (default 1000) from N (default 0) on, and prints those that fail.
--brief: two hosts and a few short messages, as for an interpreter.
--breach makes one lane break its contract, once COUNT messages have passed: the checker must notice.";

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds that ran.
    pub seeds: u64,
    /// Those with a violation, the lowest first.
    pub failed: Vec<Report>,
    /// Messages that were sent, and received.
    pub messages: u64,
    /// See `messages`.
    pub received: u64,
    /// Outcomes that were judged.
    pub judged: u64,
    /// Events of network and world.
    pub events: u64,
    /// Faults that hit, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// Lanes that failed, and frames that were sent again.
    pub lanes_lost: u64,
    /// See `lanes_lost`.
    pub replayed: u64,
    /// Fragments that went over one of several lanes.
    pub stripes: u64,
    /// Calls of handlers and of functions that waited for an operation.
    pub called: u64,
    /// Virtual time in all.
    pub virtual_time: Duration,
    /// Real time.
    pub took: Duration,
}

impl Summary {
    fn absorb(&mut self, report: Report) {
        self.seeds += 1;
        self.messages += report.messages;
        self.received += report.received;
        self.judged += report.judged;
        self.events += report.events;
        self.lanes_lost += report.lanes_lost;
        self.replayed += report.replayed;
        self.stripes += report.stripes;
        self.called += report.called;
        self.virtual_time += report.lasted;
        for fault in &report.faults {
            *self.faults.entry(fault).or_default() += 1;
        }
        if !report.violations.is_empty() {
            self.failed.push(report);
        }
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for report in self.failed.iter().take(20) {
            writeln!(f, "seed {} failed; replay: {}", report.seed, report.replay())?;
            for violation in report.violations.iter().take(6) {
                writeln!(f, "    {violation}")?;
            }
        }
        let faults: Vec<String> = self.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
        write!(
            f,
            "simulation: {} seeds, {} failed, {} messages sent, {} received, {} outcomes judged, {} lanes lost, {} frames replayed, {} stripes, {} calls of functions, faults: {}; {} events, {:.0} s of virtual time in {:.1} s",
            self.seeds,
            self.failed.len(),
            self.messages,
            self.received,
            self.judged,
            self.lanes_lost,
            self.replayed,
            self.stripes,
            self.called,
            faults.join(", "),
            self.events,
            self.virtual_time.as_secs_f64(),
            self.took.as_secs_f64()
        )
    }
}

/// Runs `count` seeds from `from` on, on `threads` threads.
#[must_use]
pub fn run_many(from: u64, count: u64, threads: usize, setting: &Setting) -> Summary {
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let report = run(seed, setting);
                    summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner).absorb(report);
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    summary.failed.sort_by_key(|report| report.seed);
    summary.took = begun.elapsed();
    summary
}

/// Threads that a machine has processors for.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Runs the command. `Ok(true)`: nothing failed.
///
/// # Errors
/// Words that mean nothing.
pub fn main(arguments: &[String]) -> Result<bool, String> {
    let mut setting = Setting::default();
    let (mut seed, mut count, mut from, mut threads) = (None, 1000, 0, processors());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse::<u64>().ok()).ok_or(USAGE);
        match word.as_str() {
            "--seed" => seed = Some(number()?),
            "--seeds" => count = number()?,
            "--from" => from = number()?,
            "--threads" => threads = number()? as usize,
            "--trace" => setting.trace = true,
            "--brief" => setting.brief = true,
            "--breach" => {
                let breach = match words.next().map(String::as_str) {
                    Some("drop") => Breach::Drop,
                    Some("twice") => Breach::Twice,
                    Some("swap") => Breach::Swap,
                    Some("garble") => Breach::Garble,
                    _ => return Err(USAGE.to_owned()),
                };
                setting.breach = Some((breach, 0));
            }
            "--after" => {
                let after = number()?;
                setting.breach = setting.breach.map(|(breach, _)| (breach, after));
            }
            "--weather" => {
                setting.weather = Some(match words.next().map(String::as_str) {
                    Some("calm") => Weather::Calm,
                    Some("rough") => Weather::Rough,
                    Some("wild") => Weather::Wild,
                    _ => return Err(USAGE.to_owned()),
                });
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    if let Some(seed) = seed {
        let report = run(seed, &setting);
        println!(
            "seed {seed}: hash {:016x}, {} messages, {} received, {} outcomes judged, {} events, faults: {:?}, {:?} of virtual time",
            report.hash,
            report.messages,
            report.received,
            report.judged,
            report.events,
            report.faults,
            report.lasted
        );
        for violation in &report.violations {
            println!("    {violation}");
        }
        return Ok(report.violations.is_empty());
    }
    let summary = run_many(from, count, threads, &setting);
    println!("{summary}");
    Ok(summary.failed.is_empty())
}
