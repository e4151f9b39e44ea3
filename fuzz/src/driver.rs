//! Runs a target on mutated inputs for a time, on the stable toolchain: no coverage, but inputs whose outcome is new are
//! kept and mutated further.
//!
//! Called by the binaries. The same seed gives the same inputs. A panic is a finding: the input is written beside the
//! corpus and the program ends with 1.

use crate::targets::Target;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest input that mutation makes.
const LEN_MAX: usize = 4096;
/// Most inputs kept in memory.
const KEPT_MAX: usize = 4096;

/// A small generator of numbers; good enough to mutate with.
#[derive(Clone, Debug)]
pub struct Luck(u64);

impl Luck {
    /// The same seed, the same numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let first = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let second = (first ^ first >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        second ^ second >> 31
    }

    /// Below `limit`; 0 for a limit of 0.
    fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() % limit as u64) as usize }
    }
}

/// The inputs in hand.
#[derive(Debug)]
pub struct Pool {
    inputs: Vec<Vec<u8>>,
    outcomes: HashSet<u64>,
    luck: Luck,
}

impl Pool {
    /// The target's seeds and what is kept in its corpus folder.
    #[must_use]
    pub fn of(target: &Target, seed: u64) -> Self {
        let mut inputs = (target.seeds)();
        inputs.extend(corpus(target).into_iter().map(|(_, input)| input));
        inputs.push(Vec::new());
        Self { inputs, outcomes: HashSet::new(), luck: Luck::new(seed) }
    }

    /// The inputs to begin with.
    #[must_use]
    pub fn inputs(&self) -> &[Vec<u8>] {
        &self.inputs
    }

    /// A new input, made from those in hand.
    #[must_use]
    pub fn mutated(&mut self) -> Vec<u8> {
        let Self { inputs, luck, .. } = self;
        let mut input = inputs[luck.below(inputs.len())].clone();
        for _ in 0..=luck.below(6) {
            mutate(&mut input, inputs, luck);
        }
        input.truncate(LEN_MAX);
        input
    }

    /// Keeps an input if its outcome is new.
    pub fn learn(&mut self, input: &[u8], outcome: u64) {
        if self.outcomes.insert(outcome) && self.inputs.len() < KEPT_MAX {
            self.inputs.push(input.to_vec());
        }
    }
}

fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], luck: &mut Luck) {
    const TELLING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b':', b',', b'%', b'/', b'@', b'#', b'='];
    let at = luck.below(input.len());
    match luck.below(9) {
        0 if !input.is_empty() => input[at] ^= 1 << luck.below(8),
        1 if !input.is_empty() => input[at] = luck.next() as u8,
        2 if !input.is_empty() => input[at] = TELLING[luck.below(TELLING.len())],
        3 => input.insert(at, TELLING[luck.below(TELLING.len())]),
        4 if !input.is_empty() => {
            let end = (at + 1 + luck.below(16)).min(input.len());
            input.drain(at..end);
        }
        5 => input.truncate(at),
        6 => {
            let other = &others[luck.below(others.len())];
            let from = luck.below(other.len());
            let end = (from + luck.below(64)).min(other.len());
            input.splice(at..at, other[from..end].iter().copied());
        }
        7 if !input.is_empty() => {
            let end = (at + 1 + luck.below(32)).min(input.len());
            let copy = input[at..end].to_vec();
            let target = luck.below(input.len());
            input.splice(target..target, copy);
        }
        _ => input.extend((0..luck.below(12)).map(|_| luck.next() as u8)),
    }
}

fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// The kept inputs with their files, in the order of their names.
#[must_use]
pub fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder(target)).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| std::fs::read(&path).ok().map(|input| (path, input))).collect()
}

/// What the command line asks for.
struct Options {
    seconds: u64,
    seed: u64,
    files: Vec<PathBuf>,
    write_corpus: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options { seconds: 10, seed: 1, files: Vec::new(), write_corpus: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            text.parse().map_err(|_| format!("{text} is no number"))
        };
        match word.as_str() {
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()?,
            "--write-corpus" => options.write_corpus = true,
            other if !other.starts_with('-') => options.files.push(other.into()),
            other => {
                return Err(format!(
                    "unknown {other}; usage: [--seconds N] [--seed N] [--write-corpus] [FILE…]"
                ));
            }
        }
    }
    Ok(options)
}

/// The whole program of a target's binary: fuzzes, or runs the given files once each.
#[must_use]
pub fn main(target: &Target) -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    if options.write_corpus {
        return write_seeds(target);
    }
    let ran = if options.files.is_empty() { fuzz(target, &options) } else { replay(target, &options.files) };
    match ran {
        Ok(inputs) => {
            println!("{}: {inputs} inputs, seed {}", target.name, options.seed);
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{}: {problem}", target.name);
            ExitCode::FAILURE
        }
    }
}

fn replay(target: &Target, files: &[PathBuf]) -> Result<u64, String> {
    for file in files {
        let input = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        (target.run)(&input);
    }
    Ok(files.len() as u64)
}

fn fuzz(target: &Target, options: &Options) -> Result<u64, String> {
    let mut pool = Pool::of(target, options.seed);
    watch(*target);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut inputs = 0;
    for input in pool.inputs().to_vec() {
        let outcome = guarded(target, &input, inputs)?;
        pool.learn(&input, outcome);
        inputs += 1;
    }
    while Instant::now() < end {
        for _ in 0..64 {
            let input = pool.mutated();
            let outcome = guarded(target, &input, inputs)?;
            pool.learn(&input, outcome);
            inputs += 1;
        }
    }
    Ok(inputs)
}

/// Longest that one input may run.
const HANGS_AFTER: Duration = Duration::from_secs(20);

/// The input that runs now, with its number and when it began.
static RUNNING: Mutex<Option<(u64, Instant, Vec<u8>)>> = Mutex::new(None);

/// Runs one input; a panic becomes a file and an error.
fn guarded(target: &Target, input: &[u8], number: u64) -> Result<u64, String> {
    *running() = Some((number, Instant::now(), input.to_vec()));
    let run = AssertUnwindSafe(|| (target.run)(input));
    let done = catch_unwind(run).map_err(|_| found(target, input, number));
    *running() = None;
    done
}

fn running() -> MutexGuard<'static, Option<(u64, Instant, Vec<u8>)>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn found(target: &Target, input: &[u8], number: u64) -> String {
    let file = folder(target).with_file_name(format!("{}-found-{number}", target.name));
    let written = std::fs::write(&file, input);
    format!("input {number} is a finding; {written:?} {}", file.display())
}

/// Ends the program when an input does not end.
fn watch(target: Target) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            if let Some((number, since, input)) = &*running()
                && since.elapsed() > HANGS_AFTER
            {
                eprintln!("{}: it hangs: {}", target.name, found(&target, input, *number));
                std::process::exit(1);
            }
        }
    });
}

fn write_seeds(target: &Target) -> ExitCode {
    let folder = folder(target);
    let written = std::fs::create_dir_all(&folder).and_then(|()| {
        let mut seeds = (target.seeds)().into_iter().enumerate();
        seeds.try_for_each(|(number, seed)| std::fs::write(folder.join(format!("seed-{number}")), seed))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
