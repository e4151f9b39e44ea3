//! The command `sinew`: measures, explains and uses the paths between two processes or hosts.
//!
//! Called by people and scripts. Each command is a file or folder here; all of them use the public API of `sinew` only, and `info` that of `sinew-verbs`.
//! Standard output carries results, standard error everything else.
#![forbid(unsafe_code)]

mod access;
mod cpus;
mod explain;
mod failure;
mod info;
mod output;
mod perf;
mod transfer;
mod units;
mod verbs;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// What `--help` says about exit codes, at the end of every page.
const EXIT_CODES: &str = "\
Exit codes:
  0  done (also when the reader of standard output has gone)
  1  failure; the message names cause and remedy
  2  wrong usage: an unknown flag, a bad value, or a secret that is missing
  3  no path to the peer, or the peer was lost
  4  what arrived is not what was sent";

#[derive(Parser)]
#[command(
    name = "sinew",
    version,
    about = "Moves messages between programs over whichever path really works; this command measures, explains and uses the paths.",
    long_about = "Moves messages between programs over whichever path really works; this command measures, explains and uses the paths.\n\nWithout a command it is `sinew perf`: a quick measurement of every path on this machine.",
    after_help = output::help(&[
        "sinew                                 measure every path on this machine, quickly",
        "sinew info                            what can be used here, what is missing and how to get it",
        "sinew listen tcp://0.0.0.0:4000 --secret-file key > copy",
        "sinew send tcp://host:4000 --secret-file key --file original",
    ]),
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Perf(perf::Args),
    Info(info::Args),
    Explain(explain::Args),
    Listen(transfer::listen::Args),
    Send(transfer::send::Args),
    #[command(name = perf::child::COMMAND, hide = true)]
    Responder(perf::child::Args),
    /// One raw program, which `perf --html` puts beside Sinew.
    #[command(hide = true)]
    Raw(sinew_yardstick::raw::RawArgs),
    /// ZeroMQ, likewise.
    #[command(hide = true)]
    Zmq(sinew_yardstick::peers::zmq::ZmqArgs),
}

/// Prints what a raw program or a peer found, where `perf --html` reads it.
fn sample<E: std::fmt::Display>(
    found: Result<Option<sinew_yardstick::sample::Sample>, E>,
) -> Result<(), failure::Failure> {
    let sample = found.map_err(|error| failure::Failure::failed(format!("{error:#}")))?;
    sample.map_or(Ok(()), |sample| output::print(&format!("{}\n", sample.to_line())))
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is no reason to fail; clap knows which stream and code each kind has.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    let result = match cli.command.unwrap_or_else(|| Command::Perf(perf::Args::quick())) {
        Command::Perf(args) => perf::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Listen(args) => transfer::listen::run(&args),
        Command::Send(args) => transfer::send::run(&args),
        Command::Responder(args) => perf::child::run(&args),
        Command::Raw(args) => sample(sinew_yardstick::raw::run(&args)),
        Command::Zmq(args) => sample(sinew_yardstick::peers::zmq::run(&args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
