//! Two tapes of one scenario, line by line.

use crate::Scenario;
use crate::program::{self, Buffer, Setup};
use sinew_verbs::Library;
use sinew_verbs_fake::recorder::Recording;
use sinew_verbs_fake::{FakeDevice, Options};
use sinew_verbs_sys as sys;
use std::fmt;
use std::path::PathBuf;

/// How two tapes differ.
#[derive(Debug)]
pub(crate) enum Difference {
    /// There is no program in C to compare with, and why.
    NoProgram(String),
    /// A check of the program failed, at this line; with which headers.
    Failed(PathBuf, i32),
    /// The first line that differs; nothing where a tape has ended.
    Line { include: PathBuf, number: usize, c: String, safe: String, before: Vec<String> },
    /// The same lines, but too few to be a scenario.
    TooFew(Vec<String>),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram(reason) => f.write_str(reason),
            Self::Failed(include, line) => {
                write!(f, "the check of the program's line {line} failed, with {}", include.display())
            }
            Self::Line { include, number, c, safe, before } => {
                let include = include.display();
                write!(
                    f,
                    "with {include}, call {number} differs after\n    {}\n  C:    {c}\n  safe: {safe}",
                    before.join("\n    ")
                )
            }
            Self::TooFew(lines) => write!(f, "only {} calls: {lines:#?}", lines.len()),
        }
    }
}

/// What a scenario does to a device of its own.
fn taped(scenario: &Scenario, planted: i32, run: impl FnOnce(sys::Library, &Setup)) -> Vec<String> {
    let options = Options { devices: vec![(scenario.device)()], ..Options::default() };
    let (table, efa, control) = FakeDevice::tables(options);
    let (library, recording) = Recording::start_with(table, efa);
    let buffer = Buffer::new();
    recording.name("buffer", buffer.range());
    run(library, &buffer.setup(planted));
    assert!(planted > 0 || control.live().is_empty(), "left: {:?}", control.live());
    assert!(planted > 0 || control.faults().is_empty(), "{:?}", control.faults());
    let lines = recording.take();
    // A query changes nothing, and the safe calls ask for what they check themselves.
    let counts = |line: &String| {
        let name = line.split(' ').next().unwrap_or_default();
        let asks = name.contains("query") || name.contains("get_device") || name.contains("device_list");
        !asks || scenario.queries.contains(&name)
    };
    in_order(lines.into_iter().filter(counts).map(without_size).collect())
}

/// Structures that a device fills grow, and each side passes the size of its own declaration; `sinew-verbs-sys` compares those.
fn without_size(line: String) -> String {
    let grows = ["ibv_query_port ", "ibv_query_device_ex ", "efadv_query_device "]
        .iter()
        .any(|name| line.starts_with(name));
    match line.rsplit_once(' ') {
        Some((rest, _)) if grows => format!("{rest} size"),
        _ => line,
    }
}

/// The fields of one completion are read in any order.
fn in_order(mut lines: Vec<String>) -> Vec<String> {
    let reads = |line: &String| line.starts_with("ibv_wc_read_");
    for run in lines.chunk_by_mut(|one, next| reads(one) && reads(next)) {
        run.sort();
    }
    lines
}

/// How many calls are the same in C, with each folder of headers, and by safe calls; or the first that is not.
pub(crate) fn compare(scenario: &Scenario, planted: i32) -> Result<usize, Difference> {
    let programs = program::programs().map_err(|reason| Difference::NoProgram(reason.clone()))?;
    let safe = taped(scenario, 0, |library, setup| (scenario.safe)(&Library::with(library), setup));
    for program in programs {
        let mut answer = 0;
        let c =
            taped(scenario, planted, |library, setup| answer = program.run(scenario.name, library, setup));
        if answer != 0 {
            return Err(Difference::Failed(program.include.clone(), answer));
        }
        let differs = (0..c.len().max(safe.len())).find(|at| c.get(*at) != safe.get(*at));
        let line = |lines: &[String], at: usize| lines.get(at).cloned().unwrap_or_default();
        if let Some(at) = differs {
            return Err(Difference::Line {
                include: program.include.clone(),
                number: at + 1,
                c: line(&c, at),
                safe: line(&safe, at),
                before: c[at.saturating_sub(3).min(c.len())..at.min(c.len())].to_vec(),
            });
        }
    }
    // At least a device that is opened and closed, and something between.
    if safe.len() < 3 { Err(Difference::TooFew(safe)) } else { Ok(safe.len() * programs.len()) }
}
