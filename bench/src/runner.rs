//! The runner: every line, its contenders one after the other, round after round, with a probe of the machine before
//! and after each program. It decides which rounds count and what a line's verdict is; it prints nothing.

use anyhow::Result;

use crate::lines::{Bound, Budget, Contender, Line, Program, Reference};
use sinew_yardstick::against::{Against, run_own};
use sinew_yardstick::sample::{Missing, Sample, Unit, median};

/// How far the probe may move within a round.
pub const PROBE_MOVE_MAX: f64 = 0.2;
/// How long one probe takes.
const PROBE_SECONDS: f64 = 0.05;

/// How to measure.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Rounds that must count.
    pub rounds: usize,
    /// How long each program measures in a round.
    pub seconds: f64,
    /// The two cores.
    pub cpus: [usize; 2],
}

/// Why a contender has no figures.
#[derive(Debug, Clone)]
pub enum Absence {
    /// It is not on this machine, or not built yet: what to do about it.
    Absent(String),
    /// It ran and failed.
    Failed(String),
}

/// What a contender reached in the rounds that count.
#[derive(Debug, Clone)]
pub struct Figures {
    pub name: String,
    /// How it was started last.
    pub command: String,
    /// One figure per round that counts, in the line's unit.
    pub rounds: Vec<f64>,
    /// The medians that contenders of latency lines report themselves.
    pub p50_rounds: Vec<f64>,
    pub absence: Option<Absence>,
}

/// What became of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Met,
    Missed,
    NotMeasured,
    /// There is a ratio, of fewer rounds than judge.
    TooFewRounds,
    PeerAbsent,
}

/// Rounds that judge a budget.
const ROUNDS_MIN: usize = 5;

impl Verdict {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::NotMeasured => "not measured",
            Self::TooFewRounds => "too few rounds",
            Self::PeerAbsent => "peer absent",
        }
    }
}

/// One budget, compared.
#[derive(Debug, Clone)]
pub struct Comparison {
    pub budget: Budget,
    /// The median of the rounds' ratios (of the figure itself where the budget is absolute).
    pub ratio: Option<f64>,
    pub verdict: Verdict,
}

/// One line, measured.
#[derive(Debug)]
pub struct Outcome {
    pub line: Line,
    pub figures: Vec<Figures>,
    /// Rounds that count, and all that were run.
    pub kept: usize,
    pub run: usize,
    /// The median probe of the rounds that count, nanoseconds.
    pub probe_ns: Option<f64>,
    pub comparisons: Vec<Comparison>,
}

impl Outcome {
    /// Whether enough rounds counted.
    pub fn is_measured(&self) -> bool {
        self.kept > 0 && 2 * self.kept >= self.run
    }
}

/// Measures `line`; `progress` is told about each round.
pub fn measure(line: Line, settings: Settings, progress: &mut dyn FnMut(&str)) -> Outcome {
    let mut figures: Vec<Figures> = line.contenders.iter().map(figures_of).collect();
    let mut probes = Vec::new();
    let (mut kept, mut run) = (0, 0);
    let runs = figures.iter().any(|one| one.absence.is_none());
    while runs && kept < settings.rounds && run < 2 * settings.rounds {
        run += 1;
        let mut seen = vec![probe(settings)];
        let mut round = Vec::with_capacity(figures.len());
        for (contender, figures) in line.contenders.iter().zip(&mut figures) {
            let sample = run_one(contender, figures, settings);
            if sample.is_some() {
                seen.push(probe(settings));
            }
            round.push(sample);
        }
        let counts = is_steady(&seen);
        let shown: Vec<String> = seen.iter().map(|probe| format!("{probe:.0}")).collect();
        let note = if counts { "" } else { ": dropped" };
        progress(&format!("{} round {run}: probes {} ns{note}", line.id, shown.join(" ")));
        if counts {
            kept += 1;
            probes.extend(seen);
            keep(&mut figures, &round, line.unit);
        }
    }
    let mut outcome =
        Outcome { line, figures, kept, run, probe_ns: median(&probes), comparisons: Vec::new() };
    outcome.comparisons = outcome.line.budgets.iter().map(|budget| compare(&outcome, budget)).collect();
    outcome
}

/// Whether the machine stayed in one state: it can change several times a second, so the probe is looked at between
/// the programs of a round, too.
fn is_steady(probes: &[f64]) -> bool {
    let lowest = probes.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = probes.iter().copied().fold(0.0, f64::max);
    highest.is_finite() && highest <= lowest * (1.0 + PROBE_MOVE_MAX)
}

fn keep(figures: &mut [Figures], round: &[Option<Sample>], unit: Unit) {
    for (figures, sample) in figures.iter_mut().zip(round) {
        // A round without a figure keeps its place, so that the ratios of a round belong together.
        let figure = |get: Option<f64>| get.unwrap_or(f64::NAN);
        figures.rounds.push(figure(sample.and_then(|sample| sample.figure(unit))));
        figures.p50_rounds.push(figure(sample.and_then(|sample| sample.latency_p50_ns)));
    }
}

fn figures_of(contender: &Contender) -> Figures {
    let missing = match &contender.program {
        Program::Ours(_) => None,
        Program::Against(program) => program.remedy(),
    };
    Figures {
        name: contender.name.clone(),
        command: String::new(),
        rounds: Vec::new(),
        p50_rounds: Vec::new(),
        absence: missing.map(|remedy| Absence::Absent(remedy.into())),
    }
}

/// Runs one contender once. One that fails is not tried again in this line.
fn run_one(contender: &Contender, figures: &mut Figures, settings: Settings) -> Option<Sample> {
    if figures.absence.is_some() {
        return None;
    }
    match run_program(&contender.program, settings) {
        Ok((sample, command)) => {
            figures.command = command;
            Some(sample)
        }
        Err(error) => {
            figures.absence = Some(match error.downcast_ref::<Missing>() {
                Some(missing) => Absence::Absent(missing.to_string()),
                None => Absence::Failed(format!("{error:#}")),
            });
            None
        }
    }
}

fn run_program(program: &Program, settings: Settings) -> Result<(Sample, String)> {
    match program {
        Program::Ours(arguments) => run_own("ours", arguments, settings.seconds, settings.cpus),
        Program::Against(program) => program.run(settings.seconds, settings.cpus),
    }
}

/// The raw cache line: says in which state the machine is. The median of its batches, as one interruption in the probe
/// says nothing about the round. A probe that fails is as far from steady as can be.
fn probe(settings: Settings) -> f64 {
    let sample = Against::Raw("line --size 8".into()).run(PROBE_SECONDS, settings.cpus);
    sample.ok().and_then(|(sample, _)| sample.latency_p50_ns).unwrap_or(f64::INFINITY)
}

/// Whether less is better in `unit`.
fn less_is_better(unit: Unit) -> bool {
    !matches!(unit, Unit::MessagesPerS | Unit::BytesPerS)
}

fn compare(outcome: &Outcome, budget: &Budget) -> Comparison {
    let named = |name: &String| outcome.figures.iter().find(|one| one.name == *name);
    let references: Vec<&Figures> = match &budget.reference {
        Reference::Best(names) => names.iter().filter_map(named).collect(),
        Reference::Absolute => Vec::new(),
    };
    let none = |verdict| Comparison { budget: budget.clone(), ratio: None, verdict };
    let Some(ours) = named(&budget.ours) else { return none(Verdict::NotMeasured) };
    if references.iter().any(|one| matches!(one.absence, Some(Absence::Absent(_)))) {
        return none(Verdict::PeerAbsent);
    }
    if !outcome.is_measured() || ours.absence.is_some() || references.iter().any(|one| one.absence.is_some())
    {
        return none(Verdict::NotMeasured);
    }
    let absolute = matches!(budget.reference, Reference::Absolute);
    let ratios: Vec<f64> = (0..ours.rounds.len())
        .map(|round| {
            let base = if absolute { 1.0 } else { best(&references, round, outcome.line.unit) };
            ours.rounds[round] / base
        })
        .filter(|ratio| ratio.is_finite())
        .collect();
    let Some(ratio) = median(&ratios) else { return none(Verdict::NotMeasured) };
    let met = match budget.bound {
        Bound::AtMost(most) => ratio <= most,
        Bound::AtLeast(least) => ratio >= least,
    };
    let verdict = if outcome.kept < ROUNDS_MIN {
        Verdict::TooFewRounds
    } else if met {
        Verdict::Met
    } else {
        Verdict::Missed
    };
    Comparison { budget: budget.clone(), ratio: Some(ratio), verdict }
}

/// The best figure of `references` in one round.
fn best(references: &[&Figures], round: usize, unit: Unit) -> f64 {
    let figures = references.iter().map(|one| one.rounds[round]);
    if less_is_better(unit) { figures.fold(f64::NAN, f64::min) } else { figures.fold(f64::NAN, f64::max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(name: &str, rounds: &[f64]) -> Figures {
        Figures {
            name: name.into(),
            command: String::new(),
            rounds: rounds.to_vec(),
            p50_rounds: Vec::new(),
            absence: None,
        }
    }

    fn outcome(figures: Vec<Figures>, kept: usize, run: usize) -> Outcome {
        let line = crate::lines::all().swap_remove(0);
        Outcome { line, figures, kept, run, probe_ns: None, comparisons: Vec::new() }
    }

    fn budget(bound: Bound, best_of: &[&str]) -> Budget {
        let best_of = best_of.iter().map(ToString::to_string).collect();
        Budget { ours: "ours".into(), bound, reference: Reference::Best(best_of) }
    }

    #[test]
    fn a_budget_is_judged_by_the_median_of_the_rounds_ratios() {
        // The machine was three times slower in the second round: the ratios of a round still belong together.
        let figures = vec![figures("ours", &[50.0, 150.0, 52.0]), figures("peer", &[100.0, 300.0, 100.0])];
        let outcome = outcome(figures, 5, 5);
        let comparison = compare(&outcome, &budget(Bound::AtMost(0.5), &["peer"]));
        assert_eq!((comparison.ratio, comparison.verdict), (Some(0.5), Verdict::Met));
        let comparison = compare(&outcome, &budget(Bound::AtMost(0.49), &["peer"]));
        assert_eq!(comparison.verdict, Verdict::Missed);
    }

    #[test]
    fn the_best_of_several_peers_counts_round_by_round() {
        let figures = vec![
            figures("ours", &[100.0, 100.0]),
            figures("one", &[100.0, 300.0]),
            figures("two", &[300.0, 100.0]),
        ];
        let comparison = compare(&outcome(figures, 5, 5), &budget(Bound::AtMost(1.0), &["one", "two"]));
        assert_eq!(comparison.verdict, Verdict::Met);
    }

    #[test]
    fn when_more_than_half_of_the_rounds_drop_nothing_is_measured() {
        let both = || vec![figures("ours", &[1.0, 1.0]), figures("peer", &[1.0, 1.0])];
        let of = |kept, run| {
            let comparison = compare(&outcome(both(), kept, run), &budget(Bound::AtMost(1.0), &["peer"]));
            (comparison.verdict, comparison.ratio.is_some())
        };
        assert_eq!(of(5, 10), (Verdict::Met, true));
        assert_eq!(of(5, 11), (Verdict::NotMeasured, false));
        assert_eq!(of(4, 4), (Verdict::TooFewRounds, true), "a ratio to look at, and no verdict");
    }

    #[test]
    fn a_round_counts_only_when_no_probe_of_it_moved() {
        assert!(is_steady(&[60.0, 71.0, 65.0]));
        assert!(!is_steady(&[60.0, 250.0, 60.0]));
        assert!(!is_steady(&[66.0, 66.0, 29.0]));
        assert!(!is_steady(&[f64::INFINITY, f64::INFINITY]));
    }

    #[test]
    fn an_absent_peer_is_not_a_met_budget() {
        let mut peer = figures("peer", &[]);
        peer.absence = Some(Absence::Absent("install it".into()));
        let outcome = outcome(vec![figures("ours", &[1.0]), peer], 1, 1);
        let comparison = compare(&outcome, &budget(Bound::AtMost(9.0), &["peer"]));
        assert_eq!(comparison.verdict, Verdict::PeerAbsent);
    }
}
