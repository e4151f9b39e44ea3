//! The command runner of the workspace: `cargo xtask <command>`.
//!
//! Called by people and by `.ci/run`. It must not be needed to use Sinew or to build it, and it depends on no crate of
//! ours, so that it can judge all of them.
#![forbid(unsafe_code)]

mod bench;
mod dependencies;
mod features;
mod findings;
mod fuzz;
mod layers;
mod loom;
mod mutants;
mod nightly;
mod planted;
mod process;
mod rust_file;
mod setup;
mod sim;
mod test;
mod tidy;
mod verbs_headers;
mod vm;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use workspace::Workspace;

/// The command runner of the Sinew workspace.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All tests and checks; installs what is missing; ends with `N passed, N failed, N skipped`
    Test(test::Options),
    /// Rules of style: lengths, heads, unsafe code, words, orphans, links
    Tidy {
        /// Print every file that holds unsafe code instead
        #[arg(long = "unsafe")]
        print_unsafe: bool,
    },
    /// Who may import whom: layers.toml against cargo
    Layers,
    /// Licences, banned crates, and a reason for every dependency
    Dependencies,
    /// FEATURES.md against the code
    Features,
    /// Benchmarks against the peers, in release mode; further words go to them
    Bench {
        /// Install the peers from Debian first
        #[arg(long)]
        setup: bool,
        /// Measure instead how long `sinew` takes to build from nothing, and how large it is without symbols
        #[arg(long)]
        build: bool,
        /// Measure instead verbs: instructions against C's, then against perftest, on the guest's device; further words go to `perf_against_perftest`
        #[arg(long)]
        verbs: bool,
        /// Words for the benchmarks
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Every fuzz target, or one, for a bounded time
    Fuzz {
        /// An hour for all together
        #[arg(long)]
        long: bool,
        /// Plant a fault for each target into a copy of the code, and see that it is found
        #[arg(long)]
        planted: bool,
        /// Only this target
        target: Option<String>,
    },
    /// Engines in a simulated network: `--seed N [--trace]` replays a seed, `--seeds COUNT` runs many; further words go to it
    Sim {
        /// Words for the simulator
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// The models of the concurrent parts
    Loom {
        /// Deeper models
        #[arg(long)]
        long: bool,
        /// Weaken one ordering after the other in a copy of the code, and see that a model fails
        #[arg(long)]
        weakened: bool,
    },
    /// The tests under AddressSanitizer (nightly toolchain)
    Sanitize,
    /// What Miri can interpret, under Miri (nightly toolchain)
    Miri,
    /// Writes docs/campaigns.md from logs of long runs of the campaigns
    Campaigns {
        /// What was run [default: the present commit]
        #[arg(long)]
        commit: Option<String>,
        /// Logs of nextest
        logs: Vec<std::path::PathBuf>,
    },
    /// A guest with a real kernel that has RDMA devices of software; runs programs and tests in it
    #[command(subcommand)]
    Vm(vm::Command),
    /// Small changes of the code that a test must notice, or docs/mutants.md must have a reason for
    Mutants(mutants::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Test(options) => test::run(&options),
        Command::Tidy { print_unsafe: true } => tidy::print_unsafe(&Workspace::load()?),
        Command::Tidy { print_unsafe: false } => tidy::run(&Workspace::load()?),
        Command::Layers => layers::run(&Workspace::load()?),
        Command::Dependencies => dependencies::run(&Workspace::load()?),
        Command::Features => features::run(&Workspace::load()?),
        Command::Bench { build: true, .. } => bench::measure_build(&Workspace::load()?),
        Command::Bench { verbs: true, words, .. } => bench::verbs(&Workspace::load()?, &words),
        Command::Bench { setup, words, .. } => bench::run(&Workspace::load()?, setup, &words),
        Command::Fuzz { planted: true, target, .. } => planted::run(&Workspace::load()?, target.as_deref()),
        Command::Fuzz { long, target, .. } => fuzz::run(&Workspace::load()?, long, target.as_deref()),
        Command::Loom { weakened: true, .. } => loom::weakened(&Workspace::load()?),
        Command::Loom { long, .. } => loom::run(&Workspace::load()?, long),
        Command::Sim { words } => sim::run(&Workspace::load()?, &words),
        Command::Sanitize => nightly::sanitize(&Workspace::load()?),
        Command::Miri => nightly::miri(&Workspace::load()?),
        Command::Campaigns { commit, logs } => {
            test::campaigns::write_page(&Workspace::load()?, &logs, commit.as_deref())
        }
        Command::Vm(command) => vm::run(&Workspace::load()?, &command),
        Command::Mutants(options) => mutants::run(&Workspace::load()?, &options),
    }
}
