//! `sinew-bench`: Sinew beside its peers and beside the raw mechanisms, line by line of the speed budgets.
//! People and `cargo xtask bench` call it. It uses Sinew through its public safe API only.
#![deny(unsafe_code)]
// A program: nothing of it is published, and `pub` says which of its own modules may look.
#![allow(unreachable_pub, missing_docs)]

mod counting;
mod lines;
mod ours;
mod peers;
mod priority;
mod program;
mod raw;
mod report;
mod runner;
mod sample;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

use runner::{Outcome, Settings};

/// How long each program measures in a round, and with `--quick`.
const SECONDS: f64 = 0.3;
const QUICK_SECONDS: f64 = 0.08;

/// Measures Sinew beside UCX, ZeroMQ and raw programs, interleaved, and judges every line of the speed budgets.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  sinew-bench --setup\n  sinew-bench --only S1,S3 --rounds 7\n  \
    sinew-bench --quick --json\n  sinew-bench raw line --size 40 --pause\n\n\
    Exit code: 0 when every budget that was measured is met, 1 when one is missed, 2 on an error.")]
struct Cli {
    #[command(subcommand)]
    program: Option<Program>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Install the peers (apt-get, needs root) and exit.
    #[arg(long)]
    setup: bool,
    /// Only these lines, by id: S1,S3.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rounds that must count, at least 5 for figures to quote.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that each program measures in a round [default: 0.3, quick 0.08].
    #[arg(long)]
    seconds: Option<f64>,
    /// Short rounds: to see that all works, not to quote.
    #[arg(long)]
    quick: bool,
    /// One JSON object per line instead of tables.
    #[arg(long)]
    json: bool,
    /// The two cores that the sides are pinned to.
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    cpus: Vec<usize>,
    /// Measure at high priority (needs root): keeps the other work of a shared machine off the two cores.
    #[arg(long)]
    first: bool,
    /// List the lines and exit.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// One raw program, by hand.
    Raw(raw::RawArgs),
    /// Sinew, one case, by hand.
    Ours(ours::OursArgs),
    /// The ZeroMQ peer, by hand.
    Zmq(peers::zmq::ZmqArgs),
}

fn main() {
    let code = match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sinew-bench: {error:#}");
            2
        }
    };
    std::process::exit(code);
}

fn start() -> Result<i32> {
    let cli = Cli::parse();
    let sample = match &cli.program {
        Some(Program::Raw(args)) => raw::run(args)?,
        Some(Program::Ours(args)) => {
            if let Some(missing) = ours::missing(args) {
                println!("{}", missing.to_line());
                return Ok(0);
            }
            ours::run(args)?
        }
        Some(Program::Zmq(args)) => peers::zmq::run(args)?,
        None => return bench(&cli.run),
    };
    if let Some(sample) = sample {
        println!("{}", sample.to_line());
    }
    Ok(0)
}

/// The runner: all lines that were asked for.
fn bench(args: &RunArgs) -> Result<i32> {
    if args.setup {
        return peers::set_up().map(|()| 0);
    }
    let lines = chosen(&args.only)?;
    if args.list {
        for line in &lines {
            let size = line.size_bytes.map(sample::show_size).unwrap_or_default();
            println!("{:<3} {} {size}", line.id, line.what);
        }
        return Ok(0);
    }
    if args.first {
        priority::raise()?;
    }
    let settings = settings(args)?;
    if !args.json {
        introduce(settings);
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    for line in lines {
        let outcome = runner::measure(line, settings, &mut |words| eprintln!("{words}"));
        if args.json {
            print!("{}", report::json_lines(&outcome));
        } else {
            let size = outcome.line.size_bytes.map(sample::show_size).unwrap_or_default();
            println!("{} {} {size}\n{}", outcome.line.id, outcome.line.what, report::commands(&outcome));
        }
        outcomes.push(outcome);
    }
    if !args.json {
        println!("{}", report::figures_table(&outcomes));
        println!("{}", report::verdict_table(&outcomes));
    }
    let missed = outcomes
        .iter()
        .flat_map(|outcome| &outcome.comparisons)
        .any(|comparison| comparison.verdict == runner::Verdict::Missed);
    Ok(i32::from(missed))
}

fn chosen(only: &[String]) -> Result<Vec<lines::Line>> {
    let lines = lines::all();
    for id in only {
        ensure!(lines.iter().any(|line| line.id.eq_ignore_ascii_case(id)), "no line {id}; --list names all");
    }
    let wanted =
        |line: &lines::Line| only.is_empty() || only.iter().any(|id| line.id.eq_ignore_ascii_case(id));
    Ok(lines.into_iter().filter(wanted).collect())
}

fn settings(args: &RunArgs) -> Result<Settings> {
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let [first, second] = args.cpus[..] else { anyhow::bail!("--cpus takes two cores, such as 0,1") };
    ensure!(first != second, "the two sides need two cores");
    let seconds = args.seconds.unwrap_or(if args.quick { QUICK_SECONDS } else { SECONDS });
    ensure!(seconds > 0.0 && seconds < 60.0, "--seconds must lie between 0 and 60");
    Ok(Settings { rounds: args.rounds, seconds, cpus: [first, second] })
}

fn introduce(settings: Settings) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    println!(
        "Each program in processes of its own, pinned to cores {} and {}; {} rounds of {} s, interleaved; a round counts when\n\
         the raw cache line before, between and after its programs differs by at most {:.0} %. Medians; a ratio is the median\n\
         of the rounds' ratios. \"Probe\" is that cache line: it tells in which state the machine was.",
        settings.cpus[0],
        settings.cpus[1],
        settings.rounds,
        settings.seconds,
        runner::PROBE_MOVE_MAX * 100.0
    );
    if load.parse::<f64>().is_ok_and(|load| load > 0.5) {
        println!("Others are using this machine (load {load}): figures are for orientation only.");
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use lines::Program::{Ours, Raw, Ucx, Zmq};

    #[test]
    fn every_program_of_the_table_is_understood_by_the_command_line() {
        for line in lines::all() {
            for contender in &line.contenders {
                let words = match &contender.program {
                    Raw(arguments) => format!("sinew-bench raw {arguments}"),
                    Zmq(arguments) => format!("sinew-bench zmq {arguments}"),
                    Ours(arguments) => format!("sinew-bench ours {arguments}"),
                    Ucx(_) => continue,
                };
                let parsed = Cli::try_parse_from(words.split_whitespace());
                assert!(parsed.is_ok(), "{}: {words}: {:?}", line.id, parsed.err());
            }
        }
    }

    #[test]
    fn lines_are_chosen_by_id_and_unknown_ids_refused() {
        let ids = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            chosen(&only).map(|lines| lines.iter().map(|line| line.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&["s3", "T5"]).expect("known"), ["S3", "T5"]);
        assert!(ids(&["X9"]).is_err());
    }
}
