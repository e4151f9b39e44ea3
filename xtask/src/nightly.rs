//! `cargo xtask sanitize` and `cargo xtask miri`: tests under AddressSanitizer and under Miri, both of the nightly toolchain.
//!
//! Called from the command line, and by `cargo xtask test --long`. Where the toolchain or the component is missing and cannot be
//! installed, they say so and count as skipped. Nothing else needs a nightly toolchain.

use crate::process;
use crate::test::outcome::{self, Outcome, Runner};
use crate::workspace::Workspace;
use anyhow::Result;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(45 * 60);
/// Everything is built anew, and takes three to ten times as long.
const SANITIZE_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// How many times longer than usual a test waits before it calls something a hang (`sinew_testing::SLOWNESS`).
const SLOWNESS: &str = "8";
const SETUP_LIMIT: Duration = Duration::from_secs(5 * 60);
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Crates whose tests run under AddressSanitizer, each with all of its tests but those of [`NOT_SANITIZED`].
const SANITIZED: [&str; 10] = [
    "sinew-base",
    "sinew-wire",
    "sinew-proto",
    "sinew-transport",
    "sinew-transport-shm",
    "sinew-transport-tcp",
    "sinew-engine",
    "sinew",
    "sinew-verbs-sys",
    "sinew-verbs",
];

/// Tests that cannot pass beside the sanitizer, by a part of their name, and why.
const NOT_SANITIZED: [(&str, &str); 9] = [
    ("allocates_nothing", "the sanitizer's allocator is counted, too"),
    ("without_an_allocation", "the sanitizer's allocator is counted, too"),
    ("makes_no_system_call", "a tracer sees the sanitizer's system calls"),
    ("address_space", "the sanitizer reserves terabytes of addresses, which such a limit forbids"),
    ("bounds_the_memory_of_both", "the sanitizer keeps freed memory, which is counted, too"),
    ("in_bounded_memory", "the same"),
    ("a_death_at_each", "instructions are counted, and the sanitizer's differ from one run to the next"),
    ("programs_that_break", "what the compiler says of them is that of another toolchain"),
    ("the_guards_find", "writes where it must not, which the sanitizer notices before the guards do"),
];

/// What runs under Miri: a crate, words for cargo, words for the tests.
const INTERPRETED: [(&str, &[&str], &[&str]); 13] = [
    // Objects of C made by hand, read as the inlines read them.
    ("sinew-verbs-sys", &["--lib"], &[]),
    // Exposed memory that threads use at once: by atomics of one size.
    ("sinew-verbs", &["--lib"], &["memory::words"]),
    // Hubs on the device in software: what ended and is lent, places by pointers, panics, completions that lie.
    (
        "sinew-verbs",
        &["--test", "faults"],
        &[
            "told_twice",
            "completions_of_others",
            "iterator_that_panics",
            "nothing_to_post",
            "that_are_gone",
            "memory_of_a_post",
            "receives_told",
            "inline_operations",
            "what_a_device_did",
            "same_exposed_words",
        ],
    ),
    // A queue pair that threads change and ask, through a library that writes into it without a lock.
    ("sinew-verbs", &["--test", "tuning"], &["one_thread_at_a_time"]),
    // Requests that point to each other and to memory, and go round between program and device.
    (
        "sinew-verbs",
        &["--test", "prepared"],
        &[
            "other_operations",
            "first_failure",
            "messages_arrive",
            "memory_that_is_out",
            "lent_and_forgotten",
            "ways_of",
        ],
    ),
    // Requests that are linked once and point into the memory of buffers that move.
    (
        "sinew-verbs",
        &["--test", "pipe"],
        &[
            "nothing_that_is_out",
            "makes_completions_up",
            "middle_of_a_list",
            "panic_while",
            "queues_of_its_own",
            "another_thread",
            "nobody_knows",
            "send_that_is_not_out",
            "--skip",
            "events::",
        ],
    ),
    ("sinew-wire", &["--lib", "--tests"], &["--skip", "any_", "--skip", "noise"]),
    ("sinew-base", &["--lib"], &["copy::", "units::", "biased::", "sleepers::", "options::"]),
    (
        "sinew-proto",
        &["--lib"],
        &["both_learn", "credit::tests::a_", "credit::tests::what", "credit::tests::headroom", "select"],
    ),
    ("sinew-transport", &["--lib"], &["buf", "body", "loopback", "locator"]),
    ("sinew-transport-shm", &["--lib"], &["shared", "note", "window", "datapath"]),
    ("sinew-engine", &["--lib"], &["--skip", "ranges", "--skip", "core::rig", "--skip", "core::moves"]),
    // Whole engines in a simulated world: the table of operations, what is held and counted under the lock, the short ways, loans.
    ("sinew-sim", &["--test", "brief"], &[]),
];

/// What does not, and why.
const NOT_INTERPRETED: [(&str, &str); 9] = [
    ("property tests, and tests with a hundred thousand steps", "hours for an interpreter"),
    (
        "the other handshakes",
        "a minute or more each in curves of other crates, by safe code that one of them goes through",
    ),
    ("channels of verbs", "they wait by descriptors of the device, whose flags Miri does not change"),
    ("transport-tcp", "it is all sockets, which Miri has only in part; its buffers go through `transport`'s"),
    (
        "transport-shm but rings, hints, window and notes",
        "memory files, mappings, SCM_RIGHTS: Miri has none of them",
    ),
    (
        "engine::core::{rig, moves}",
        "its engines wait on an epoll that Miri does not have; the simulated world goes through the same code",
    ),
    ("base::{fork, guarded, runtime_dir, socket_path}", "fork, MADV_WIPEONFORK, directories: not there"),
    ("sinew, cli", "they begin with system calls; what is unsafe below them runs in the simulated world"),
    (
        "vector instructions of base::copy, base::bytes and memory::words of verbs",
        "Miri takes the plain form, tests look at what the others do natively",
    ),
];

/// Runs the sanitized tests and prints what they said.
///
/// # Errors
/// When one fails.
pub(crate) fn sanitize(workspace: &Workspace) -> Result<()> {
    sanitize_step(workspace, &workspace.scratch()?)?.conclude("sanitize")
}

/// The same as a step of the test command.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn sanitize_step(workspace: &Workspace, logs: &Path) -> Result<Outcome> {
    let log = logs.join("sanitize.log");
    if let Some(reason) = missing(&log, None)? {
        return Ok(Outcome::skipped("sanitize", reason));
    }
    let mut command = nightly();
    command.current_dir(&workspace.root).args([
        "test",
        "--no-fail-fast",
        "--all-features",
        "--lib",
        "--tests",
    ]);
    command.args(["--target", TARGET, "--target-dir"]).arg(workspace.target.join("asan"));
    command.args(SANITIZED.iter().flat_map(|name| ["--package", name]));
    command.env("RUSTFLAGS", "-Zsanitizer=address").env("CARGO_TERM_COLOR", "never");
    command.env("CARGO_PROFILE_DEV_DEBUG", "1").env("CARGO_INCREMENTAL", "0");
    // Buffers of queues that a device never gives back are leaked on purpose.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    command.env("SINEW_CAMPAIGN_ROUNDS", "10").env("XTASK_SLOWNESS", SLOWNESS);
    command.arg("--").args(NOT_SANITIZED.iter().flat_map(|(name, _)| ["--skip", name]));
    let finished = process::run(&mut command, &log, SANITIZE_LIMIT)?;
    let mut outcome = outcome::counted(Runner::Cargo, &finished, "");
    outcome.skips.retain(|skip| skip.reason != outcome::IGNORED);
    if finished.output.contains("ERROR: AddressSanitizer") {
        outcome.failures.push(format!("AddressSanitizer found something: {}", log.display()));
    }
    Ok(outcome)
}

/// Runs what Miri can interpret and prints what it said.
///
/// # Errors
/// When a test fails or Miri finds undefined behaviour.
pub(crate) fn miri(workspace: &Workspace) -> Result<()> {
    miri_step(workspace, &workspace.scratch()?)?.conclude("miri")
}

/// The same as a step of the test command. Each crate must have a test that runs.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn miri_step(workspace: &Workspace, logs: &Path) -> Result<Outcome> {
    let log = logs.join("miri.log");
    if let Some(reason) = missing(&log, Some("miri"))? {
        return Ok(Outcome::skipped("miri", reason));
    }
    let mut outcome = Outcome::default();
    for (what, why) in NOT_INTERPRETED {
        println!("       not interpreted: {what}: {why}");
    }
    for (name, targets, filter) in INTERPRETED {
        let mut command = nightly();
        command.current_dir(&workspace.root).args(["miri", "test", "--package", name]).args(targets);
        command.arg("--target-dir").arg(workspace.target.join("miri")).arg("--").args(filter);
        // Clocks, and files of `/proc`.
        command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("CARGO_TERM_COLOR", "never");
        command.env("PROPTEST_CASES", "1").env("CARGO_INCREMENTAL", "0");
        let finished = process::run(&mut command, &log, LIMIT)?;
        let mut one = outcome::counted(Runner::Cargo, &finished, "");
        if one.passed == 0 && one.failures.is_empty() {
            one.failures.push("no test ran".to_owned());
        }
        one.skips.retain(|skip| skip.reason != outcome::IGNORED);
        one.failures.iter_mut().for_each(|failure| *failure = format!("{name}: {failure}"));
        outcome.absorb(one);
    }
    Ok(outcome)
}

/// Cargo of the nightly toolchain, whatever toolchain runs this.
fn nightly() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]);
    for name in ["RUSTC", "RUSTDOC", "CARGO", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}

/// Why it cannot run here; a component that is missing is installed if that works.
fn missing(log: &Path, component: Option<&str>) -> Result<Option<String>> {
    let answers = |words: &[&str]| -> Result<bool> {
        let mut command = nightly();
        Ok(process::run(command.args(words), log, SETUP_LIMIT).is_ok_and(|finished| finished.ok))
    };
    if !answers(&["--version"])? {
        return Ok(Some(
            "[nightly] there is no nightly toolchain: rustup toolchain install nightly".to_owned(),
        ));
    }
    let Some(component) = component else { return Ok(None) };
    if answers(&[component, "--version"])? {
        return Ok(None);
    }
    let mut add = Command::new("rustup");
    add.args(["component", "add", component, "rust-src", "--toolchain", "nightly"]);
    let added = process::run(&mut add, log, SETUP_LIMIT).is_ok_and(|finished| finished.ok);
    if added && answers(&[component, "--version"])? {
        return Ok(None);
    }
    Ok(Some(format!("[nightly] the component {component} cannot be installed here")))
}
