//! `cargo xtask vm`: a guest with a real kernel that has RDMA devices made of software, `rdma_rxe` and `siw`.
//!
//! Called from the command line and by `cargo xtask test`. `build` makes the guest from Debian's packages and keeps it in
//! `target/vm`; `run` and `pair` run programs of the host inside; `test` runs the test programs of `tests/vm/suites.toml`. Why
//! it is a user-mode kernel is told in `docs/adr/0015-the-guest-is-a-user-mode-kernel.md`. It must not change the host: what a
//! program writes inside is gone afterwards, but for folders that are shared by name.

mod archive;
mod build;
mod cache;
mod guest;
mod job;
mod packages;
mod promises;
mod run;
mod suites;
mod test;

pub(crate) use test::step;

use crate::workspace::Workspace;
use anyhow::Result;

/// What to do with the guest.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Make the guest, or say that it is there (about four minutes on two cores, 1.5 GB on disk meanwhile)
    Build {
        /// Ask the mirror for newer packages and make it anew where there are any
        #[arg(long)]
        update: bool,
    },
    /// Run a command of the host in a guest; its output, its exit status (124: out of time, 125: the guest died)
    Run(run::RunOptions),
    /// Run a command in each of two guests that are joined by a wire: `-- COMMAND … --- COMMAND …`
    Pair(run::PairOptions),
    /// Run the suites of tests/vm/suites.toml, or those whose name contains FILTER, or the tests whose name does
    Test(test::Options),
}

/// Does it.
///
/// # Errors
/// When the guest cannot be made or started, or a test failed in it.
pub(crate) fn run(workspace: &Workspace, command: &Command) -> Result<()> {
    match command {
        Command::Build { update } => build::run(workspace, *update),
        Command::Run(options) => run::run(workspace, options),
        Command::Pair(options) => run::pair(workspace, options),
        Command::Test(options) => test::run(workspace, options),
    }
}

/// Why there can be no guest on this machine: no fault of the code, so tests say SKIP.
#[derive(Debug)]
struct Lacking(String);

impl std::fmt::Display for Lacking {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.0)
    }
}

impl std::error::Error for Lacking {}
