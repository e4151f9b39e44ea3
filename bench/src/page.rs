//! The page of one run of the bench: its figures over size as plots, its verdicts and figures as tables, the machine, the
//! commands. `main` writes it; what the page looks like is `sinew_yardstick::page`'s.

use sinew_yardstick::against::{Against, Pattern};
use sinew_yardstick::page::{Command, Page, Plot, Point, Role, Series, Table, Tone};
use sinew_yardstick::sample::{Unit, show_size};

use crate::lines::Program;
use crate::report;
use crate::runner::{Absence, Figures, Outcome, Settings, Verdict};
use crate::sweep;

/// Everything that `outcomes` say.
pub fn page(outcomes: &[Outcome], settings: Settings, machine: &[(String, String)]) -> Page {
    Page {
        title: "Sinew beside its peers and beside the bare mechanisms".into(),
        notes: vec![crate::how(settings)],
        machine: machine.to_vec(),
        plots: plots(outcomes),
        tables: vec![verdicts(outcomes), figures(outcomes)],
        commands: outcomes.iter().flat_map(commands).collect(),
    }
}

fn plots(outcomes: &[Outcome]) -> Vec<Plot> {
    let mut plots = Vec::new();
    for transport in sweep::TRANSPORTS {
        for pattern in [Pattern::Latency, Pattern::Stream] {
            let title = sweep::title(transport, pattern);
            let of_plot: Vec<&Outcome> =
                outcomes.iter().filter(|one| one.line.id == sweep::ID && one.line.what == title).collect();
            if of_plot.is_empty() {
                continue;
            }
            if pattern == Pattern::Latency {
                plots.push(Plot { title, unit: Unit::LatencyNs, series: series(&of_plot, Unit::LatencyNs) });
                continue;
            }
            for (name, unit) in [("bandwidth", Unit::BytesPerS), ("message rate", Unit::MessagesPerS)] {
                let title = format!("{transport}: {name}");
                plots.push(Plot { title, unit, series: series(&of_plot, unit) });
            }
        }
    }
    plots
}

/// The lines of one plot, in the order in which contenders first appear.
fn series(outcomes: &[&Outcome], unit: Unit) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for outcome in outcomes {
        for (figures, contender) in outcome.figures.iter().zip(&outcome.line.contenders) {
            let place = all.iter().position(|series| series.name == figures.name).unwrap_or_else(|| {
                let role = match &contender.program {
                    Program::Ours(_) => Role::Ours,
                    Program::Against(Against::Raw(_)) => Role::Raw,
                    Program::Against(_) => Role::Peer,
                };
                all.push(Series { name: figures.name.clone(), role, points: Vec::new(), absence: None });
                all.len() - 1
            });
            let series = &mut all[place];
            series.points.push(point(outcome, figures, unit));
            let size = outcome.line.size_bytes.map(show_size).unwrap_or_default();
            let reason = match &figures.absence {
                Some(Absence::Absent(words)) => Some(words.clone()),
                Some(Absence::Failed(words)) => Some(format!("{size}: {words}")),
                None if !outcome.is_measured() => {
                    Some(format!("{size}: {} of {} rounds were steady", outcome.kept, outcome.run))
                }
                None => None,
            };
            series.absence = series.absence.take().or(reason);
        }
    }
    all
}

/// A figure of bytes per second is one of messages, too.
fn point(outcome: &Outcome, figures: &Figures, unit: Unit) -> Point {
    let size_bytes = outcome.line.size_bytes.unwrap_or(0);
    let scale = if unit == Unit::MessagesPerS { 1.0 / size_bytes.max(1) as f64 } else { 1.0 };
    let is_measured = outcome.is_measured();
    let value = report::middle(&figures.rounds).filter(|_| is_measured).unwrap_or(f64::NAN) * scale;
    let finite = || figures.rounds.iter().copied().filter(|figure| figure.is_finite());
    let spread = finite().reduce(f64::min).zip(finite().reduce(f64::max));
    Point { size_bytes, value, spread: spread.map(|(low, high)| (low * scale, high * scale)) }
}

fn verdicts(outcomes: &[Outcome]) -> Table {
    let mut rows = Vec::new();
    for outcome in outcomes {
        for comparison in &outcome.comparisons {
            let tone = match comparison.verdict {
                Verdict::Met => Tone::Good,
                Verdict::Missed => Tone::Bad,
                Verdict::NotMeasured | Verdict::TooFewRounds | Verdict::PeerAbsent => Tone::Faint,
            };
            rows.push((report::verdict_row(outcome, comparison), tone));
        }
    }
    Table { title: "Budgets".into(), columns: report::words(&report::VERDICT_COLUMNS), rows, words: 5 }
}

fn figures(outcomes: &[Outcome]) -> Table {
    let rows = outcomes.iter().filter(|outcome| outcome.line.id != sweep::ID).flat_map(report::figure_rows);
    Table {
        title: "Figures of each line".into(),
        columns: report::words(&report::FIGURE_COLUMNS),
        rows: rows.map(|row| (row, Tone::Plain)).collect(),
        words: 4,
    }
}

fn commands(outcome: &Outcome) -> impl Iterator<Item = Command> + '_ {
    let size = outcome.line.size_bytes.map(show_size).unwrap_or_default();
    let what = format!("{} {} {size}", outcome.line.id, outcome.line.what);
    outcome.figures.iter().map(move |figures| {
        let reason = figures.absence.as_ref().map(|absence| match absence {
            Absence::Absent(words) | Absence::Failed(words) => words,
        });
        let words = reason.unwrap_or(&figures.command).clone();
        let who = figures.name.clone();
        Command { what: what.trim_end().into(), who, words, is_reason: reason.is_some() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(absence: Option<Absence>) -> Vec<Outcome> {
        let lines = crate::sweep::lines(true).into_iter().chain(crate::lines::all());
        let measured = lines.map(|line| {
            let figures = line.contenders.iter().map(|contender| Figures {
                name: contender.name.clone(),
                command: "a <command> \"here\"".into(),
                rounds: if absence.is_some() { Vec::new() } else { vec![f64::NAN, 7.0, 9.0] },
                p50_rounds: Vec::new(),
                absence: absence.clone(),
            });
            let figures = figures.collect();
            Outcome { line, figures, kept: 3, run: 3, probe_ns: Some(60.0), comparisons: Vec::new() }
        });
        measured.collect()
    }

    const SETTINGS: Settings = Settings { rounds: 3, seconds: 0.1, cpus: [0, 1] };

    #[test]
    fn the_page_has_three_plots_for_each_transport_and_all_sizes_in_them() {
        let page = page(&outcomes(None), SETTINGS, &[]);
        let titles: Vec<&str> = page.plots.iter().map(|plot| plot.title.as_str()).collect();
        assert_eq!(titles.len(), 9, "{titles:?}");
        for plot in &page.plots {
            let ours = plot.series.iter().find(|series| series.role == Role::Ours).expect("ours");
            assert_eq!(ours.points.len(), 9, "{}", plot.title);
            assert!(plot.series.iter().any(|series| series.role == Role::Raw), "{}", plot.title);
            assert!(ours.points.iter().all(|point| point.value > 0.0));
        }
        let text = page.render();
        assert!(text.contains("a &lt;command&gt; &quot;here&quot;") && !text.contains("NaN"));
    }

    #[test]
    fn contenders_that_are_absent_are_named_with_their_reason_on_the_page() {
        let page = page(&outcomes(Some(Absence::Absent("install <it>".into()))), SETTINGS, &[]);
        let text = page.render();
        assert!(text.contains("ZeroMQ push/pull") && text.contains("install &lt;it&gt;"));
        assert!(page.commands.iter().all(|command| command.is_reason));
    }

    #[test]
    fn a_rate_is_the_bandwidth_divided_by_the_size() {
        let all = outcomes(None);
        let streams = all.iter().filter(|one| one.line.what == sweep::title("tcp", Pattern::Stream));
        let outcome = streams.max_by_key(|one| one.line.size_bytes).expect("a stream");
        let rate = point(outcome, &outcome.figures[0], Unit::MessagesPerS);
        assert_eq!(rate.value, 8.0 / (64 << 20) as f64);
    }
}
