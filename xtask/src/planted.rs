//! `cargo xtask fuzz --planted`: does fuzzing reach the code? Into a copy of the tracked files goes one fault for each target, and
//! each target must find its own.
//!
//! Called from the command line, and by `cargo xtask test --long`. Each fault is a line that is replaced; a line that is not
//! there exactly once is an error, so that the table stays true.

use crate::fuzz::cargo_in;
use crate::process;
use crate::test::outcome::Outcome;
use crate::workspace::Workspace;
use anyhow::{Result, bail};
use std::path::Path;
use std::time::Duration;

const BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);
/// A target that has not found its fault by then does not reach it.
const SECONDS: u64 = 60;

/// A fault, and the target that is to find it. None of them shows to another target.
struct Fault {
    target: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const FAULTS: [Fault; 7] = [
    // A bit of a field is lost.
    Fault {
        target: "frame",
        file: "crates/wire/src/frame/stream.rs",
        from: "src: (second >> 32) as u32,",
        to: "src: (second >> 32) as u32 & 0x7fff_ffff,",
    },
    // A length of the peer is believed.
    Fault {
        target: "hello",
        file: "crates/wire/src/hello/content.rs",
        from: "content.get(at + 2..at + 2 + len)",
        to: "Some(&content[at + 2..at + 2 + len])",
    },
    Fault {
        target: "address",
        file: "crates/wire/src/address/packed.rs",
        from: "all.get(at + 2..end)",
        to: "Some(&all[at + 2..end])",
    },
    // Not all messages of a lost source are removed.
    Fault {
        target: "matching",
        file: "crates/proto/src/matching/unexpected.rs",
        from: "if !kept && let Some((arrival, message))",
        to: "if !kept && at % 2 == 0 && let Some((arrival, message))",
    },
    // A body may reach beyond the window.
    Fault {
        target: "ring",
        file: "crates/transport-shm/src/half.rs",
        from: "len > self.geometry.window - offset",
        to: "len > self.geometry.window",
    },
    // A number may be of any length.
    Fault {
        target: "options",
        file: "crates/base/src/units.rs",
        from: "if value > u128::from(u64::MAX) {",
        to: "if false {",
    },
    // Of messages that wait for a receive the youngest comes first.
    Fault {
        target: "operations",
        file: "crates/engine/src/core/inbound.rs",
        from: "endpoint.matcher.store(arrival, message);",
        to: "endpoint.matcher.store_first(arrival, message);",
    },
];

/// Plants the faults and prints which target found its own.
///
/// # Errors
/// When one did not.
pub(crate) fn run(workspace: &Workspace, target: Option<&str>) -> Result<()> {
    step(workspace, &workspace.scratch()?, target)?.conclude("planted")
}

/// The same as a step of the test command. Every target must have a fault.
///
/// # Errors
/// When a fault cannot be planted, or cargo cannot be started.
pub(crate) fn step(workspace: &Workspace, logs: &Path, target: Option<&str>) -> Result<Outcome> {
    let Some(fuzz) = workspace.load_fuzz()? else { bail!("there is no fuzz/Cargo.toml") };
    let targets = fuzz.members().flat_map(|package| &package.targets).filter(|target| target.is("bin"));
    for binary in targets {
        if !FAULTS.iter().any(|fault| fault.target == binary.name) {
            bail!("no fault is planted for the fuzz target {}", binary.name);
        }
    }
    let tree = workspace.scratch()?.join("planted");
    if tree.exists() {
        std::fs::remove_dir_all(&tree)?;
    }
    crate::mutants::copy_tree(workspace, &tree)?;
    for fault in &FAULTS {
        plant(&tree, fault)?;
    }
    let log = logs.join("planted.log");
    let target_folder = workspace.target.join("planted");
    let built = process::run(&mut cargo_in(&tree, &target_folder, &["build"]), &log, BUILD_LIMIT)?;
    if let Some(reason) = &built.reason {
        return Ok(Outcome::failed(format!("build: {reason}\n{}", built.tail(30))));
    }
    let mut outcome = Outcome::default();
    for fault in FAULTS.iter().filter(|fault| target.is_none_or(|wanted| wanted == fault.target)) {
        let mut one = cargo_in(&tree, &target_folder, &["run", "--bin", fault.target]);
        one.args(["--", "--seconds", &SECONDS.to_string()]);
        let finished = process::run(&mut one, &log, Duration::from_secs(2 * SECONDS + 120))?;
        if finished.ok {
            outcome
                .failures
                .push(format!("{} does not find what is planted in {}", fault.target, fault.file));
        } else {
            outcome.passed += 1;
            println!("       planted {:<12} found: {}", fault.target, finished.reason.unwrap_or_default());
        }
    }
    if outcome.passed + outcome.failures.len() == 0 {
        bail!("no such fuzz target");
    }
    Ok(outcome)
}

fn plant(tree: &Path, fault: &Fault) -> Result<()> {
    let file = tree.join(fault.file);
    let text = std::fs::read_to_string(&file)?;
    if text.matches(fault.from).count() != 1 {
        bail!("{} has not exactly one `{}`: mend the table of planted faults", fault.file, fault.from);
    }
    std::fs::write(&file, text.replace(fault.from, fault.to))?;
    Ok(())
}
