//! `sinew-bench`: Sinew beside its peers and beside the raw mechanisms, line by line of the speed budgets.
//! People and `cargo xtask bench` call it. It uses Sinew through its public safe API only.
#![deny(unsafe_code)]
// A program: nothing of it is published, and `pub` says which of its own modules may look.
#![allow(unreachable_pub, missing_docs)]

mod counting;
mod lines;
mod ours;
mod page;
mod priority;
mod report;
mod runner;
mod sweep;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use sinew_yardstick::{machine, peers, raw, sample};

use runner::{Outcome, Settings};

/// How long each program measures in a round, and with `--quick`.
const SECONDS: f64 = 0.3;
const QUICK_SECONDS: f64 = 0.08;

/// Measures Sinew beside UCX, ZeroMQ and raw programs, interleaved, and judges every line of the speed budgets.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  sinew-bench --setup\n  sinew-bench --only S1,S3 --rounds 7\n  \
    sinew-bench --quick --json\n  sinew-bench --html page.html\n  sinew-bench raw line --size 40 --pause\n\n\
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
    /// Only these lines, by id: S1,S3; `sweep` is what the plots show.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rounds that must count; fewer than 5 judge no budget.
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
    /// Measure over all sizes, too, and write everything as a page with plots: one file that needs no network.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Measure over all sizes, too (`--html` does).
    #[arg(long)]
    sweep: bool,
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
    /// Counts the instructions (callgrind) and system calls (strace) of one message in each form.
    Count(CountArgs),
}

#[derive(Debug, Args)]
struct CountArgs {
    /// Only rows that have this in their name.
    #[arg(long)]
    only: Option<String>,
    /// One JSON object per row instead of a table.
    #[arg(long)]
    json: bool,
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

/// A line of standard output, which may be full or closed by who reads it: what is measured behind that is for nobody.
pub fn say(words: impl std::fmt::Display) -> Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{words}").context("cannot write to standard output")
}

fn start() -> Result<i32> {
    let cli = Cli::parse();
    let sample = match &cli.program {
        Some(Program::Raw(args)) => raw::run(args)?,
        Some(Program::Ours(args)) => {
            if let Some(missing) = ours::missing(args) {
                say(missing.to_line())?;
                return Ok(0);
            }
            ours::run(args)?
        }
        Some(Program::Zmq(args)) => peers::zmq::run(args)?,
        Some(Program::Count(args)) => {
            ours::print_counts(args.only.as_deref(), args.json)?;
            return Ok(0);
        }
        None => return bench(&cli.run),
    };
    if let Some(sample) = sample {
        say(sample.to_line())?;
    }
    Ok(0)
}

/// The runner: all lines that were asked for.
fn bench(args: &RunArgs) -> Result<i32> {
    if args.setup {
        return peers::set_up().map(|()| 0);
    }
    let lines = chosen(args)?;
    if args.list {
        for line in &lines {
            let size = line.size_bytes.map(sample::show_size).unwrap_or_default();
            say(format_args!("{:<3} {} {size}", line.id, line.what))?;
        }
        return Ok(0);
    }
    if args.first {
        priority::raise()?;
    }
    let settings = settings(args)?;
    let machine = machine::describe();
    if args.json {
        report::machine_json(&machine).lines().try_for_each(say)?;
    } else {
        introduce(settings)?;
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    write_page(args, &outcomes, settings, &machine)?;
    for line in lines {
        let outcome = runner::measure(line, settings, &mut |words| eprintln!("{words}"));
        if args.json {
            report::json_lines(&outcome).lines().try_for_each(say)?;
        } else {
            let size = outcome.line.size_bytes.map(sample::show_size).unwrap_or_default();
            let commands = report::commands(&outcome);
            say(format_args!("{} {} {size}\n{commands}", outcome.line.id, outcome.line.what))?;
        }
        outcomes.push(outcome);
        write_page(args, &outcomes, settings, &machine)?;
    }
    if !args.json {
        say(report::figures_table(&outcomes))?;
        say(report::verdict_table(&outcomes))?;
    }
    let missed = outcomes
        .iter()
        .flat_map(|outcome| &outcome.comparisons)
        .any(|comparison| comparison.verdict == runner::Verdict::Missed);
    Ok(i32::from(missed))
}

/// Writes the page as far as it is known, so that a run that is stopped leaves one.
fn write_page(
    args: &RunArgs,
    outcomes: &[Outcome],
    settings: Settings,
    machine: &[(String, String)],
) -> Result<()> {
    let Some(path) = &args.html else { return Ok(()) };
    let text = page::page(outcomes, settings, machine).render();
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn chosen(args: &RunArgs) -> Result<Vec<lines::Line>> {
    let only = &args.only;
    let wants_sweep = args.sweep || args.html.is_some();
    let mut lines = lines::all();
    if wants_sweep || only.iter().any(|id| id.eq_ignore_ascii_case(sweep::ID)) {
        lines.extend(sweep::lines(args.quick));
    }
    for id in only {
        ensure!(lines.iter().any(|line| line.id.eq_ignore_ascii_case(id)), "no line {id}; --list names all");
    }
    let wanted = |line: &lines::Line| {
        only.is_empty()
            || (wants_sweep && line.id == sweep::ID)
            || only.iter().any(|id| line.id.eq_ignore_ascii_case(id))
    };
    Ok(lines.into_iter().filter(wanted).collect())
}

fn settings(args: &RunArgs) -> Result<Settings> {
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let [first, second] = args.cpus[..] else { anyhow::bail!("--cpus takes two cores, such as 0,1") };
    ensure!(first != second, "the two sides need two cores");
    raw::pair::may_use(&[first, second])?;
    let seconds = args.seconds.unwrap_or(if args.quick { QUICK_SECONDS } else { SECONDS });
    ensure!(seconds > 0.0 && seconds < 60.0, "--seconds must lie between 0 and 60");
    Ok(Settings { rounds: args.rounds, seconds, cpus: [first, second] })
}

/// How everything is measured, in a few sentences.
fn how(settings: Settings) -> String {
    format!(
        "Each program in processes of its own, pinned to cores {} and {}; {} rounds of {} s, interleaved; a round counts when \
         the raw cache line before, between and after its programs differs by at most {:.0} %. Medians; a ratio is the median \
         of the rounds' ratios. \"Probe\" is that cache line: it tells in which state the machine was.",
        settings.cpus[0],
        settings.cpus[1],
        settings.rounds,
        settings.seconds,
        runner::PROBE_MOVE_MAX * 100.0
    )
}

fn introduce(settings: Settings) -> Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    say(how(settings))?;
    if load.parse::<f64>().is_ok_and(|load| load > 0.5) {
        say(format_args!("Others are using this machine (load {load}): figures are for orientation only."))?;
    }
    say("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lines::Program::{Against, Ours};
    use sinew_yardstick::against::Against::{Raw, Ucx, Zmq};

    #[test]
    fn every_program_of_the_table_is_understood_by_the_command_line() {
        for line in lines::all().into_iter().chain(sweep::lines(false)) {
            for contender in &line.contenders {
                let words = match &contender.program {
                    Against(Raw(arguments)) => format!("sinew-bench raw {arguments}"),
                    Against(Zmq(arguments)) => format!("sinew-bench zmq {arguments}"),
                    Ours(arguments) => format!("sinew-bench ours {arguments}"),
                    Against(Ucx(_)) => continue,
                };
                let parsed = Cli::try_parse_from(words.split_whitespace());
                assert!(parsed.is_ok(), "{}: {words}: {:?}", line.id, parsed.err());
            }
        }
    }

    #[test]
    fn cores_that_the_machine_lacks_are_refused_before_anything_is_measured() {
        let settings = |cpus: &str| {
            let cli = Cli::try_parse_from(["sinew-bench", "--cpus", cpus]).expect("arguments");
            settings(&cli.run).map(|settings| settings.cpus)
        };
        for lacking in ["0,1000", "1000,0", "0,100000", "0,0", "0"] {
            assert!(settings(lacking).is_err(), "{lacking}");
        }
    }

    #[test]
    fn lines_are_chosen_by_id_and_unknown_ids_refused() {
        let ids = |only: &[&str]| {
            let words = ["sinew-bench", "--only"].into_iter().map(String::from).chain([only.join(",")]);
            let cli = Cli::try_parse_from(words).expect("arguments");
            chosen(&cli.run).map(|lines| lines.iter().map(|line| line.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&["s3", "T5"]).expect("known"), ["S3", "T5"]);
        assert!(ids(&["sweep"]).is_ok_and(|ids| ids.len() > 50));
        assert!(ids(&["X9"]).is_err());
    }
}
