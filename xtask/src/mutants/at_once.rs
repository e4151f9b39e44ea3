//! `cargo xtask mutants --at-once`: one build for all mutants of a crate, and one short run of its tests for each.
//!
//! A build for each mutant takes minutes where a crate is tested by others above it, as the engine is. The list of mutants and their names
//! are `cargo-mutants`' own; what cannot stand beside the first form in one program is said at the end and left to it.

use super::splice::{Mutant, SWITCH, VARIABLE, marks, splice};
use crate::process;
use crate::workspace::{Workspace, cargo};
use anyhow::{Context as _, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Which tests notice a change of a crate: words for `cargo test`, and the names of those that run.
struct Noticed {
    package: &'static str,
    by: &'static [Tests],
}

struct Tests {
    build: &'static [&'static str],
    only: &'static [&'static str],
    /// Of each weather of the simulation; others take a variable that they do not know for a mistake.
    seeds: Option<&'static str>,
    /// Of which files they may notice changes, by what their paths end with; none: of all.
    of: &'static [&'static str],
}

impl Tests {
    const fn of(build: &'static [&'static str], only: &'static [&'static str]) -> Self {
        Self { build, only, seeds: None, of: &[] }
    }

    /// A test of the facade that notices changes of some files.
    const fn of_facade(build: &'static [&'static str], of: &'static [&'static str]) -> Self {
        Self { build, only: &[], seeds: None, of }
    }

    const fn of_seeds(only: &'static [&'static str], count: &'static str) -> Self {
        Self { build: &["-p", "sinew-sim", "--test", "seeds"], only, seeds: Some(count), of: &[] }
    }
}

/// Short ones: each runs for each mutant that those before it have not noticed, the shortest first.
const NOTICED: [Noticed; 3] = [
    Noticed { package: "sinew-wire", by: &[Tests::of(&["-p", "sinew-wire", "--lib", "--tests"], &[])] },
    Noticed { package: "sinew-proto", by: &[Tests::of(&["-p", "sinew-proto", "--lib"], &[])] },
    Noticed {
        package: "sinew-engine",
        by: &[
            Tests::of(&["-p", "sinew-engine", "--lib"], &[]),
            // What a change breaks, it breaks soon. From fifty seeds on each fault must have hit.
            Tests::of_seeds(&["weather"], "5"),
            Tests::of_seeds(&["weather", "kept", "memory_of_stripes"], "49"),
            Tests::of(&SHORT_WAYS, &["shm::", "an_endpoint_goes"]),
            Tests::of_facade(&BATCHES, &["inbound.rs", "direct_batch.rs"]),
            Tests::of_facade(
                &BREACHES,
                &["session.rs", "failover.rs", "lanes.rs", "inbound.rs", "bundle.rs", "ending.rs"],
            ),
            Tests::of_facade(
                &HALVES,
                &["failover.rs", "lanes.rs", "inbound.rs", "unmatch.rs", "arriving.rs", "ending.rs"],
            ),
            Tests::of_facade(
                &NARROW,
                &["replay.rs", "sends.rs", "outbound.rs", "failover.rs", "announce.rs"],
            ),
            Tests::of_facade(
                &LOANS,
                &[
                    "rendezvous.rs",
                    "loans.rs",
                    "sends.rs",
                    "announce.rs",
                    "outbound.rs",
                    "operations.rs",
                    "permit.rs",
                ],
            ),
            Tests::of_facade(&CALLS, &["handler.rs", "complete.rs"]),
        ],
    },
];

/// Messages for calls that wait, one or several at a time, on each lane.
const BATCHES: [&str; 7] = ["-p", "sinew", "--all-features", "--test", "batches", "--test", "messages"];
/// What the simulation has not: the short ways over shared memory.
const SHORT_WAYS: [&str; 9] =
    ["-p", "sinew", "--all-features", "--test", "left_over", "--test", "bundles", "--test", "batches"];
/// Peers that break the protocol.
const BREACHES: [&str; 5] = ["-p", "sinew", "--all-features", "--test", "breaches"];
/// Messages that go into their receive while they arrive.
const HALVES: [&str; 5] = ["-p", "sinew", "--all-features", "--test", "halves"];
/// Lanes of short frames.
const NARROW: [&str; 5] = ["-p", "sinew", "--all-features", "--test", "narrow"];
const LOANS: [&str; 5] = ["-p", "sinew", "--all-features", "--test", "loans"];
/// Handlers and functions at the end of operations.
const CALLS: [&str; 5] = ["-p", "sinew", "--all-features", "--test", "completions"];

const BUILD_LIMIT: Duration = Duration::from_secs(3600);
/// Builds until all that is left compiles.
const BUILDS_MAX: usize = 12;

/// What became of one mutant.
#[derive(Default)]
pub(super) struct Found {
    pub(super) caught: Vec<String>,
    pub(super) endless: Vec<String>,
    pub(super) missed: Vec<String>,
    /// Those that cannot stand in one program with the others.
    pub(super) left: Vec<String>,
}

impl Found {
    pub(super) fn absorb(&mut self, other: Self) {
        self.caught.extend(other.caught);
        self.endless.extend(other.endless);
        self.missed.extend(other.missed);
        self.left.extend(other.left);
    }
}

/// A program with tests, and how long it takes without a change.
struct Program {
    file: PathBuf,
    folder: PathBuf,
    only: &'static [&'static str],
    seeds: Option<&'static str>,
    of: &'static [&'static str],
    takes: Duration,
}

impl Program {
    fn may_notice(&self, mutant: &Mutant) -> bool {
        self.of.is_empty() || self.of.iter().any(|end| mutant.file.ends_with(end))
    }
}

/// Which mutants run, and by which tests they are to be noticed.
pub(super) struct Chosen<'a> {
    pub(super) package: &'a str,
    /// None: all of the package.
    pub(super) files: &'a [String],
    pub(super) shard: Option<&'a str>,
    /// Only by the tests of the package itself, which stand first in the table.
    pub(super) own: bool,
}

/// Runs mutants in `tree`, a copy that may be changed.
pub(super) fn run(workspace: &Workspace, tree: &Path, log: &Path, chosen: &Chosen<'_>) -> Result<Found> {
    let &Chosen { package, files, shard, own } = chosen;
    let Some(noticed) = NOTICED.iter().find(|noticed| noticed.package == package) else {
        bail!("no tests are known for {package}: add them to the table NOTICED in {}", file!());
    };
    let by = if own { &noticed.by[..1] } else { noticed.by };
    let mutants = list(tree, log, package, files, shard)?;
    let root = workspace.members().find(|member| member.name == package).context("no such package")?;
    let folder = root.manifest_path.parent().context("a manifest in no folder")?;
    let folder = folder.strip_prefix(&workspace.root).unwrap_or(folder);
    let mut found = Found::default();
    let (programs, numbers) = build(workspace, tree, log, &folder.join("src/lib.rs"), by, &mutants)?;
    found.left = (1..)
        .zip(&mutants)
        .filter(|(number, _)| !numbers.contains(number))
        .map(|(_, mutant)| mutant.name.clone())
        .collect();
    let mut programs = timed(programs)?;
    programs.sort_by_key(|program| program.takes);
    let here: Vec<(u32, &Mutant)> =
        (1..).zip(&mutants).filter(|(number, _)| numbers.contains(number)).collect();
    judge_all(&here, &programs, &log.with_extension("judged"), &mut found)?;
    Ok(found)
}

/// Judges all mutants, two at a time, as tests wait for each other much; each is written down as soon as it is judged.
fn judge_all(mutants: &[(u32, &Mutant)], programs: &[Program], file: &Path, found: &mut Found) -> Result<()> {
    let mut said = std::fs::File::create(file)?;
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (tell, next) = (tell.clone(), &next);
            let mut programs: Vec<&Program> = programs.iter().collect();
            scope.spawn(move || {
                while let Some(&(number, mutant)) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if tell.send((mutant, judge(number, mutant, &mut programs))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        for (done, (mutant, judged)) in told.iter().enumerate() {
            let judged = judged?;
            writeln!(said, "{judged:?}\t{}", mutant.name)?;
            match judged {
                Judged::Caught => &mut found.caught,
                Judged::Endless => &mut found.endless,
                Judged::Missed => &mut found.missed,
            }
            .push(mutant.name.clone());
            if done % 50 == 49 {
                println!(
                    "      … {} of {} mutants in {} s",
                    done + 1,
                    mutants.len(),
                    begun.elapsed().as_secs()
                );
            }
        }
        Ok(())
    })
}

fn list(
    tree: &Path,
    log: &Path,
    package: &str,
    files: &[String],
    shard: Option<&str>,
) -> Result<Vec<Mutant>> {
    let mut command = Command::new("cargo");
    command.current_dir(tree).args(["mutants", "--list", "--json", "--no-shuffle", "--package", package]);
    command.args(files.iter().flat_map(|file| ["--file", file.as_str()]));
    command.args(shard.into_iter().flat_map(|shard| ["--shard", shard]));
    let output = command.stderr(Stdio::null()).output().context("cargo-mutants cannot be started")?;
    std::fs::write(log.with_extension("list.json"), &output.stdout)?;
    let mut mutants: Vec<Mutant> =
        serde_json::from_slice(&output.stdout).context("no list of cargo-mutants")?;
    // What people read when something has gone wrong already.
    mutants.retain(|mutant| !mutant.name.contains("fmt::Debug for"));
    // In the order in which files were named.
    mutants.sort_by_key(|mutant| files.iter().position(|file| *file == mutant.file));
    if mutants.is_empty() {
        bail!("no mutants of {package} in these files");
    }
    Ok(mutants)
}

/// Builds the tests with all mutants that compile: the programs, and the numbers of those mutants.
fn build(
    workspace: &Workspace,
    tree: &Path,
    log: &Path,
    root: &Path,
    by: &[Tests],
    mutants: &[Mutant],
) -> Result<(Vec<Program>, BTreeSet<u32>)> {
    let files: BTreeSet<&str> =
        mutants.iter().map(|mutant| mutant.file.as_str()).chain(root.to_str()).collect();
    let original: BTreeMap<&str, String> = files
        .into_iter()
        .map(|file| Ok((file, std::fs::read_to_string(workspace.root.join(file))?)))
        .collect::<Result<_>>()?;
    let (mut out, mut keep_const) = (BTreeSet::new(), BTreeSet::new());
    let result = (|| {
        for _ in 0..BUILDS_MAX {
            let mut all_placed = BTreeSet::new();
            let mut spliced_files = BTreeMap::new();
            for (&file, text) in &original {
                let here: Vec<(u32, &Mutant)> = (1..)
                    .zip(mutants)
                    .filter(|(number, mutant)| mutant.file == file && !out.contains(number))
                    .collect();
                let (mut spliced, placed) = splice(text, &here, &keep_const)?;
                if Path::new(file) == root {
                    spliced.push_str(SWITCH);
                }
                std::fs::write(tree.join(file), &spliced)?;
                all_placed.extend(placed);
                spliced_files.insert(file, spliced);
            }
            let mut programs = Vec::new();
            let mut errors = Vec::new();
            for tests in by {
                let (some, wrong) = build_once(workspace, tree, log, tests)?;
                programs.extend(some);
                errors.extend(wrong);
                if !errors.is_empty() {
                    break;
                }
            }
            if errors.is_empty() {
                return Ok((programs, all_placed));
            }
            let before = (out.len(), keep_const.len());
            for error in &errors {
                error.blame(&spliced_files, &mut out, &mut keep_const);
            }
            println!(
                "      … {} errors: {} mutants left out, {} functions stay const",
                errors.len(),
                out.len(),
                keep_const.len()
            );
            if before == (out.len(), keep_const.len()) {
                let texts: Vec<&str> = errors.iter().map(|error| error.text.as_str()).collect();
                bail!("no mutant is to blame for\n{}", texts.join("\n"));
            }
        }
        bail!("it does not compile after {BUILDS_MAX} builds")
    })();
    for (file, text) in original {
        std::fs::write(tree.join(file), text)?;
    }
    result
}

/// An error of the compiler.
struct Wrong {
    text: String,
    file: String,
    line: usize,
    column: usize,
}

impl Wrong {
    /// Leaves out the mutant whose changed form it is in, or all of the line; or keeps a function `const` that must be.
    fn blame(
        &self,
        files: &BTreeMap<&str, String>,
        out: &mut BTreeSet<u32>,
        keep_const: &mut BTreeSet<String>,
    ) {
        let constant = self.text.strip_prefix("cannot call non-const ").and_then(|rest| {
            let name = rest.split('`').nth(1)?.rsplit("::").next()?;
            Some(name.split('<').next().unwrap_or(name).to_owned())
        });
        if let Some(name) = constant.filter(|name| name != "now") {
            keep_const.insert(name);
            return;
        }
        let Some(text) = files.get(self.file.as_str()) else { return };
        let mut lines = text.lines().skip(self.line - 1);
        let Some(line) = lines.next() else { return };
        if self.text.starts_with("non-exhaustive patterns") {
            // Some arm of the match that begins here is needed.
            let indent = |line: &str| line.len() - line.trim_start().len();
            let arms =
                lines.take_while(|arm| !arm.trim_start().starts_with('}') || indent(arm) > indent(line));
            out.extend(
                arms.filter(|arm| arm.contains("now() != /*#")).flat_map(marks).map(|(_, number)| number),
            );
            out.remove(&0);
            return;
        }
        let all: Vec<(usize, u32)> = marks(line).collect();
        let last = all.iter().rev().find(|(at, _)| *at <= self.column).map(|(_, number)| *number);
        match last {
            Some(number) if number != 0 && out.insert(number) => {}
            _ => out.extend(all.iter().map(|(_, number)| *number).filter(|number| *number != 0)),
        }
    }
}

fn build_once(
    workspace: &Workspace,
    tree: &Path,
    log: &Path,
    tests: &Tests,
) -> Result<(Vec<Program>, Vec<Wrong>)> {
    let mut command = Command::new(cargo());
    command.current_dir(tree).args(["test", "--no-run", "--message-format=json", "--target-dir"]);
    command.arg(workspace.target.join("mutated")).args(tests.build).env("RUSTFLAGS", "--cap-lints allow");
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_TERM_COLOR", "never");
    let finished = process::run(&mut command, log, BUILD_LIMIT)?;
    let (mut programs, mut errors) = (Vec::new(), Vec::new());
    for line in finished.output.lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let is_test = message["profile"]["test"] == true;
        if let Some(file) = message["executable"].as_str().filter(|_| is_test) {
            let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
            let folder = manifest.parent().unwrap_or(tree).to_owned();
            let (file, takes) = (file.into(), Duration::ZERO);
            let &Tests { only, seeds, of, .. } = tests;
            programs.push(Program { file, folder, only, seeds, of, takes });
        }
        let inner = &message["message"];
        if inner["level"] == "error" {
            let spans = inner["spans"].as_array().into_iter().flatten();
            // Who is to blame for a value that is not there any more is where it went.
            let moved = inner["message"].as_str().is_some_and(|text| text.starts_with("use of moved value"));
            errors.extend(spans.filter(|span| moved || span["is_primary"] == true).map(|span| Wrong {
                text: inner["message"].as_str().unwrap_or_default().to_owned(),
                file: span["file_name"].as_str().unwrap_or_default().to_owned(),
                line: span["line_start"].as_u64().unwrap_or(1) as usize,
                column: span["column_start"].as_u64().unwrap_or(1) as usize,
            }));
        }
    }
    if !finished.ok && errors.is_empty() {
        bail!("the tests do not build: {}", finished.tail(10));
    }
    Ok((programs, errors))
}

/// Runs every program once without a change: they must pass.
fn timed(programs: Vec<Program>) -> Result<Vec<Program>> {
    programs
        .into_iter()
        .map(|program| {
            let begun = Instant::now();
            let passed = ended(start(&program, 0)?, BUILD_LIMIT)?;
            if passed != Some(true) {
                bail!("{} fails without a change", program.file.display());
            }
            println!("      … {} takes {:.1} s", program.file.display(), begun.elapsed().as_secs_f64());
            Ok(Program { takes: begun.elapsed(), ..program })
        })
        .collect()
}

#[derive(Debug)]
enum Judged {
    Caught,
    Endless,
    Missed,
}

/// Runs one program after the other until one notices; that goes first with the next change, which stands near this one.
fn judge(number: u32, mutant: &Mutant, programs: &mut [&Program]) -> Result<Judged> {
    for at in 0..programs.len() {
        let program = programs[at];
        if !program.may_notice(mutant) {
            continue;
        }
        let limit = program.takes * 8 + Duration::from_secs(6);
        let noticed = match ended(start(program, number)?, limit)? {
            Some(true) => continue,
            Some(false) => Judged::Caught,
            None => Judged::Endless,
        };
        programs[..=at].rotate_right(1);
        return Ok(noticed);
    }
    Ok(Judged::Missed)
}

/// Runs a program with a change. Its output is read by `ended`.
fn start(program: &Program, number: u32) -> Result<Child> {
    let mut command = Command::new(&program.file);
    command.current_dir(&program.folder).args(program.only).env(VARIABLE, number.to_string());
    command.envs(program.seeds.map(|seeds| ("SINEW_SIM_SEEDS", seeds)));
    command.env("PROPTEST_CASES", "40").env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().with_context(|| format!("{} cannot be started", program.file.display()))
}

/// How it ended, at its first test that fails; `None`: not within its time.
fn ended(mut child: Child, limit: Duration) -> Result<Option<bool>> {
    let begun = Instant::now();
    let (failed, failure) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for _ in lines.filter(|line| line.starts_with("test ") && line.ends_with("FAILED")) {
                let _ = failed.send(());
            }
        });
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        let has_failed = failure.try_recv().is_ok();
        if has_failed || begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(has_failed.then_some(false));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
