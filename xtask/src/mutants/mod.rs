//! `cargo xtask mutants`: changes the code a little, a change at a time, and sees whether a test notices. What no test notices
//! has a reason in `docs/mutants.md`, or it is a failure.
//!
//! Called from the command line; it takes an hour for `wire` and `proto`. It works on a copy of the tracked files, as a
//! mutant that is left behind must not be committed.

mod at_once;
mod splice;

use crate::process;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(8 * 3600);
const SETUP_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Longest that the tests of one mutant may take.
const TIMEOUT_S: &str = "60";

/// Crates that are mutated when none is named.
const PACKAGES: [&str; 2] = ["sinew-wire", "sinew-proto"];
/// Where survivors have their reasons: lines that begin with `- `, then the mutant's name in backquotes.
const REASONS: &str = "docs/mutants.md";

/// What is run, and how.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A part of them, as 1/4
    #[arg(long)]
    shard: Option<String>,
    /// Only those in files like this, as 'matching/*.rs' (may be repeated)
    #[arg(long)]
    file: Vec<String>,
    /// One build for all: minutes where one for each takes hours
    #[arg(long)]
    at_once: bool,
    /// With `--at-once`: by the crate's own tests only, which is fast; what others would notice survives
    #[arg(long, requires = "at_once")]
    own: bool,
    /// Crates [default: sinew-wire sinew-proto]
    packages: Vec<String>,
}

/// Runs mutants, and prints those that no test noticed.
///
/// # Errors
/// When one survived without a reason, or none was tested.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let scratch = workspace.scratch()?.join("mutants");
    std::fs::create_dir_all(&scratch)?;
    let log = workspace.scratch()?.join("mutants.log");
    if !crate::setup::has("cargo-mutants") {
        let mut install = Command::new("cargo");
        install.args(["install", "--locked", "cargo-mutants"]);
        if !process::run(&mut install, &log, SETUP_LIMIT)?.ok {
            bail!("cargo-mutants cannot be installed here");
        }
    }
    let tree = scratch.join("tree");
    copy_tree(workspace, &tree)?;
    let named: Vec<&str> = options.packages.iter().map(String::as_str).collect();
    let packages: &[&str] = if named.is_empty() { &PACKAGES } else { &named };
    let mut found = at_once::Found::default();
    if options.at_once {
        for package in packages {
            let chosen = at_once::Chosen {
                package,
                files: &options.file,
                shard: options.shard.as_deref(),
                own: options.own,
            };
            let one = at_once::run(workspace, &tree, &log, &chosen)?;
            found.absorb(one);
        }
    } else {
        found = one_by_one(&scratch, &tree, &log, packages, options)?;
    }
    if found.caught.is_empty() {
        bail!("no mutant was caught");
    }
    conclude(workspace, &found)
}

/// `cargo-mutants` builds and tests one after the other.
fn one_by_one(
    scratch: &Path,
    tree: &Path,
    log: &Path,
    packages: &[&str],
    options: &Options,
) -> Result<at_once::Found> {
    let mut command = Command::new("cargo");
    command.args(["mutants", "--in-place", "--no-shuffle", "--timeout", TIMEOUT_S, "--output"]).arg(scratch);
    command.args(["--cargo-test-arg=--lib", "--cargo-test-arg=--tests"]).current_dir(tree);
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_TERM_COLOR", "never");
    command.args(packages.iter().flat_map(|name| ["--package", name]));
    command.args(options.file.iter().flat_map(|file| ["--file", file.as_str()]));
    command.args(options.shard.iter().flat_map(|shard| ["--shard", shard.as_str()]));
    // Its exit status says that some survived; which of them count is said here.
    process::run(&mut command, log, LIMIT)?;
    let found = |name: &str| lines(&scratch.join("mutants.out").join(name));
    Ok(at_once::Found {
        caught: found("caught.txt")?,
        endless: found("timeout.txt")?,
        missed: found("missed.txt")?,
        left: Vec::new(),
    })
}

/// Prints what was found. Survivors without a reason are a failure.
fn conclude(workspace: &Workspace, found: &at_once::Found) -> Result<()> {
    let known = reasons(&std::fs::read_to_string(workspace.root.join(REASONS)).unwrap_or_default());
    let (with_reason, survivors): (Vec<&String>, Vec<&String>) =
        found.missed.iter().partition(|name| known.contains(&without_place(name)));
    for name in &found.left {
        println!("not in one program with the others: {name}");
    }
    println!(
        "{} mutants noticed, {} by never ending, {} survive with a reason, {} without; {} were not run",
        found.caught.len() + found.endless.len(),
        found.endless.len(),
        with_reason.len(),
        survivors.len(),
        found.left.len()
    );
    for name in &survivors {
        println!("survives: {name}");
    }
    if survivors.is_empty() { Ok(()) } else { bail!("{} mutants survive", survivors.len()) }
}

/// The tracked files as they stand; what was built there before is kept.
pub(crate) fn copy_tree(workspace: &Workspace, to: &Path) -> Result<()> {
    for file in workspace.files()? {
        let relative = file.strip_prefix(&workspace.root).unwrap_or(&file);
        let target = to.join(relative);
        let new = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        if std::fs::read(&target).is_ok_and(|old| old == new) {
            continue;
        }
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&target, new)?;
    }
    Ok(())
}

fn lines(file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The names in backquotes of the lines of a list.
fn reasons(text: &str) -> BTreeSet<String> {
    let items = text.lines().filter_map(|line| line.trim_start().strip_prefix("- `"));
    items.filter_map(|item| item.split_once('`')).map(|(name, _)| name.to_owned()).collect()
}

/// A mutant's name without line and column, which move: `FILE: what is replaced in which function`.
fn without_place(name: &str) -> String {
    let mut parts = name.splitn(4, ':');
    let (file, _, _) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    format!("{file}:{}", parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_the_name_without_its_place() {
        let page = "Text.\n\n- `crates/a.rs: replace < with <= in least`: both are the same there\n";
        let known = reasons(page);
        assert!(known.contains(&without_place("crates/a.rs:12:7: replace < with <= in least")));
        assert!(!known.contains(&without_place("crates/a.rs:12:7: replace < with == in least")));
        assert!(!known.contains(&without_place("crates/b.rs:12:7: replace < with <= in least")));
    }
}
