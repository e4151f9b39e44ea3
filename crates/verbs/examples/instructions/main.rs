//! Instructions per post and poll, counted by callgrind on a device that does nothing: a loop in C, ours with memory kept by the caller
//! (`unsafe`), and ours with memory kept by a pipe or a hub.
//!
//! ```text
//! cargo run --release -p sinew-verbs --example instructions
//! ```
//!
//! Each side runs in a process of its own under callgrind, with two numbers of requests; the difference is what one request costs, so
//! nothing of the start counts. Needs `valgrind`, `cc` and the headers of libibverbs.
#![allow(unsafe_code, reason = "the level that is measured is unsafe, and so is C")]

mod callgrind;
mod in_c;
mod ours;

use clap::{Parser, ValueEnum};
use std::process::ExitCode;

/// Requests of one doorbell.
const BATCH: usize = 16;

/// Bytes of each.
const BYTES: usize = 64;

type Failure = Box<dyn std::error::Error>;

/// Counts instructions per request.
#[derive(Parser)]
struct Options {
    /// Only rows whose name contains this
    filter: Option<String>,
    /// One side alone, once: what is run under callgrind
    #[arg(long, requires = "row", hide = true)]
    side: Option<Side>,
    /// The row that the side runs
    #[arg(long, hide = true)]
    row: Option<String>,
    /// How many requests the side makes
    #[arg(long, default_value_t = 160, hide = true)]
    requests: u64,
}

/// Who makes the requests.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    /// A loop in C.
    C,
    /// `QueuePair`, `unsafe`.
    Raw,
    /// `Pipe`, which owns the memory.
    Pipe,
    /// `Hub`, which owns it too; operations made for each post.
    Hub,
    /// `Hub`, with prepared requests.
    Prepared,
}

/// One kind of loop.
#[derive(Clone, Copy)]
struct Row {
    is_write: bool,
    is_batch: bool,
    signal_all: bool,
    is_extended: bool,
}

impl Row {
    fn all() -> impl Iterator<Item = Self> {
        (0..16).map(|bits| Self {
            is_extended: bits & 8 != 0,
            is_batch: bits & 4 != 0,
            signal_all: bits & 2 == 0,
            is_write: bits & 1 != 0,
        })
    }

    fn name(self) -> String {
        let word = |is, yes, no| if is { yes } else { no };
        format!(
            "{}/{}/{}/{}",
            word(self.is_write, "write", "send"),
            word(self.is_batch, "batch-of-16", "single"),
            word(self.signal_all, "signaled", "last-of-16-signaled"),
            word(self.is_extended, "extended", "legacy"),
        )
    }

    /// Whether the request with this number completes visibly.
    const fn is_signaled(self, request: u64) -> bool {
        self.signal_all || request % BATCH as u64 == BATCH as u64 - 1
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match options.side {
        Some(side) => one(side, &options),
        None => all(options.filter.as_deref().unwrap_or_default()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One side of one row, in this process.
fn one(side: Side, options: &Options) -> Result<(), Failure> {
    let row = Row::all().find(|row| Some(row.name()) == options.row).ok_or("no row has that name")?;
    match side {
        Side::C => in_c::run(row, options.requests),
        Side::Raw => ours::raw(row, options.requests),
        Side::Pipe => ours::pipe(row, options.requests),
        Side::Hub => ours::hub(row, options.requests, false),
        Side::Prepared => ours::hub(row, options.requests, true),
    }
}

/// Every row, as a table.
fn all(filter: &str) -> Result<(), Failure> {
    let rows: Vec<Row> = Row::all().filter(|row| row.name().contains(filter)).collect();
    if rows.is_empty() {
        return Err(format!("no row's name contains {filter:?}").into());
    }
    in_c::compile()?;
    println!(
        "instructions per post and poll, counted by callgrind; budgets: unsafe 1.05 x C, safe (pipe, hub) 1.25 x C\n"
    );
    println!("{:<44} {:>7} {:>15} {:>15} {:>15} {:>15}", "", "C", "unsafe", "pipe", "hub", "hub, prepared");
    for row in rows {
        let count = |side| callgrind::per_request(side, row);
        let (c, raw, pipe) = (count(Side::C)?, count(Side::Raw)?, count(Side::Pipe)?);
        let (hub, prepared) = (count(Side::Hub)?, count(Side::Prepared)?);
        let judged = |ours: f64, budget: f64| {
            let ratio = ours / c;
            format!("{ours:7.1} {ratio:5.2}{}", if ratio <= budget { "  " } else { " !" })
        };
        let (raw, pipe) = (judged(raw, 1.05), judged(pipe, 1.25));
        let (hub, prepared) = (judged(hub, 1.25), judged(prepared, 1.25));
        println!("{:<44} {c:>7.1} {raw:>15} {pipe:>15} {hub:>15} {prepared:>15}", row.name());
    }
    println!("\n! over the budget");
    Ok(())
}
