//! What the runner found, for people (aligned tables) and for programs (one JSON object per line).
//! It computes nothing but medians and spreads of what it is given.

use std::fmt::Write;

use serde_json::json;

use crate::lines::{Bound, Reference};
use crate::runner::{Absence, Comparison, Figures, Outcome};
use sinew_yardstick::sample::{Unit, median, show_size};

/// Two spaces between columns, the first ones aligned left.
fn aligned(rows: &[Vec<String>], left_columns: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let separator = if column == 0 { "" } else { "  " };
            // Writing to a String cannot fail.
            let _ = if column < left_columns || column + 1 == columns {
                write!(line, "{separator}{cell:<width$}")
            } else {
                write!(line, "{separator}{cell:>width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub fn words(cells: &[&str]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

fn size(outcome: &Outcome) -> String {
    outcome.line.size_bytes.map(show_size).unwrap_or_default()
}

/// The median of the rounds that gave a figure.
pub fn middle(rounds: &[f64]) -> Option<f64> {
    let finite: Vec<f64> = rounds.iter().copied().filter(|figure| figure.is_finite()).collect();
    median(&finite)
}

/// Median of the rounds' ratios to the line's first contender, which is the raw program where there is one.
fn beside_first(figures: &Figures, first: &Figures) -> Option<f64> {
    let ratios: Vec<f64> = figures.rounds.iter().zip(&first.rounds).map(|(one, base)| one / base).collect();
    middle(&ratios)
}

/// The columns of [`figure_rows`].
pub const FIGURE_COLUMNS: [&str; 10] =
    ["line", "what", "size", "who", "median", "lowest", "highest", "× first", "probe", "rounds"];

/// Every contender's figure.
pub fn figures_table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![words(&FIGURE_COLUMNS)];
    rows.extend(outcomes.iter().flat_map(figure_rows));
    aligned(&rows, 4)
}

/// The figures of one line, a row for each contender.
pub fn figure_rows(outcome: &Outcome) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (position, figures) in outcome.figures.iter().enumerate() {
        let mut row = if position == 0 {
            words(&[outcome.line.id, &outcome.line.what, &size(outcome)])
        } else {
            words(&["", "", ""])
        };
        row.push(figures.name.clone());
        row.extend(figure_cells(outcome, figures, position));
        rows.push(row);
    }
    rows
}

fn figure_cells(outcome: &Outcome, figures: &Figures, position: usize) -> Vec<String> {
    let dash = || "–".to_string();
    let show = |figure: Option<f64>| figure.map_or_else(dash, |figure| outcome.line.unit.show(figure));
    let finite = || figures.rounds.iter().copied().filter(|figure| figure.is_finite());
    let beside = outcome.figures.first().and_then(|first| beside_first(figures, first));
    let note = match &figures.absence {
        Some(Absence::Absent(_)) => "absent".into(),
        Some(Absence::Failed(_)) => "failed".into(),
        None if outcome.is_measured() => format!("{} of {}", outcome.kept, outcome.run),
        None => format!("{} of {}: not measured", outcome.kept, outcome.run),
    };
    vec![
        show(middle(&figures.rounds)),
        show(finite().reduce(f64::min)),
        show(finite().reduce(f64::max)),
        beside.filter(|_| position > 0).map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        outcome
            .probe_ns
            .filter(|_| position == 0)
            .map_or_else(String::new, |probe| Unit::LatencyNs.show(probe)),
        note,
    ]
}

fn bound_words(bound: Bound, unit: Option<Unit>) -> String {
    let (sign, figure) = match bound {
        Bound::AtMost(most) => ("≤", most),
        Bound::AtLeast(least) => ("≥", least),
    };
    match unit {
        Some(unit) => format!("{sign} {}", unit.show(figure)),
        None => format!("{sign} {figure:.2} ×"),
    }
}

fn reference_words(reference: &Reference) -> String {
    match reference {
        Reference::Absolute => String::new(),
        Reference::Best(names) => names.join(" or "),
    }
}

/// The columns of [`verdict_row`].
pub const VERDICT_COLUMNS: [&str; 9] =
    ["line", "what", "size", "who", "beside", "figure", "ratio", "budget", "verdict"];

/// Every budget, its ratio, its verdict.
pub fn verdict_table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![words(&VERDICT_COLUMNS)];
    for outcome in outcomes {
        for comparison in &outcome.comparisons {
            rows.push(verdict_row(outcome, comparison));
        }
    }
    aligned(&rows, 5)
}

/// One budget.
pub fn verdict_row(outcome: &Outcome, comparison: &Comparison) -> Vec<String> {
    let unit = outcome.line.unit;
    let absolute = matches!(comparison.budget.reference, Reference::Absolute);
    let ours = outcome.figures.iter().find(|one| one.name == comparison.budget.ours);
    let figure = ours.and_then(|one| middle(&one.rounds));
    let dash = || "–".to_string();
    vec![
        outcome.line.id.into(),
        outcome.line.what.clone(),
        size(outcome),
        comparison.budget.ours.clone(),
        reference_words(&comparison.budget.reference),
        figure.map_or_else(dash, |figure| unit.show(figure)),
        comparison.ratio.filter(|_| !absolute).map_or_else(dash, |ratio| format!("{ratio:.2}")),
        bound_words(comparison.budget.bound, absolute.then_some(unit)),
        comparison.verdict.name().into(),
    ]
}

/// The commands of one line, and why a contender has no figures.
pub fn commands(outcome: &Outcome) -> String {
    let mut text = String::new();
    for figures in &outcome.figures {
        let words = match &figures.absence {
            Some(Absence::Absent(remedy)) => remedy,
            Some(Absence::Failed(error)) => error,
            None => &figures.command,
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {}: {words}", figures.name);
    }
    text
}

/// The machine, as one JSON object.
pub fn machine_json(machine: &[(String, String)]) -> String {
    let rows: serde_json::Map<String, serde_json::Value> =
        machine.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    format!("{}\n", json!({ "schema": 1, "kind": "machine", "machine": rows }))
}

/// One JSON object per contender and per budget of the line.
pub fn json_lines(outcome: &Outcome) -> String {
    let line = &outcome.line;
    let mut text = String::new();
    for figures in &outcome.figures {
        let absence = figures.absence.as_ref().map(|absence| match absence {
            Absence::Absent(words) | Absence::Failed(words) => words,
        });
        let object = json!({
            "schema": 1, "kind": "figure", "line": line.id, "what": line.what, "size_bytes": line.size_bytes,
            "who": figures.name, "unit": line.unit.name(), "median": middle(&figures.rounds),
            "rounds": figures.rounds, "p50_ns_rounds": figures.p50_rounds, "rounds_kept": outcome.kept,
            "rounds_run": outcome.run, "measured": outcome.is_measured(), "probe_ns": outcome.probe_ns,
            "absent": absence, "command": figures.command,
        });
        let _ = writeln!(text, "{object}");
    }
    for comparison in &outcome.comparisons {
        let absolute = matches!(comparison.budget.reference, Reference::Absolute);
        let object = json!({
            "schema": 1, "kind": "verdict", "line": line.id, "what": line.what, "size_bytes": line.size_bytes,
            "who": comparison.budget.ours, "beside": reference_words(&comparison.budget.reference),
            "ratio": comparison.ratio,
            "budget": bound_words(comparison.budget.bound, absolute.then_some(line.unit)),
            "verdict": comparison.verdict.name().to_lowercase(),
        });
        let _ = writeln!(text, "{object}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_by_characters_not_bytes() {
        let rows = vec![words(&["a", "µs", "end"]), words(&["long", "12345", "e"])];
        assert_eq!(aligned(&rows, 1), "a        µs  end\nlong  12345  e\n");
    }
}
