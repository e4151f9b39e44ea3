//! The rows of `FEATURES.md`: how they are read, and which must be there.

use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// How far a capability is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// A test that runs in the test command would fail if it broke.
    Proven,
    /// Code exists.
    InWork,
    /// Nothing yet.
    Open,
}

/// One capability.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) state: State,
    pub(crate) items: Vec<String>,
    pub(crate) tests: Vec<String>,
}

/// The ids that must each stand once: F001 to F124 and B01 to B23.
fn expected() -> impl Iterator<Item = String> {
    (1..=124).map(|number| format!("F{number:03}")).chain((1..=23).map(|number| format!("B{number:02}")))
}

/// Reads every table row that starts with an id.
pub(super) fn parse(text: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| F") || line.starts_with("| B")) {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [id, area, capability, state, items, tests] = cells[..] else {
            bail!(
                "`{line}`: {} columns instead of id, area, capability, state, provided by, proven by",
                cells.len()
            );
        };
        let state = match state {
            "proven" => State::Proven,
            "in work" => State::InWork,
            "open" => State::Open,
            other => bail!("{id}: state `{other}` is none of proven, in work, open"),
        };
        if area.is_empty() || capability.is_empty() {
            bail!("{id}: says no area or no capability");
        }
        rows.push(Row { id: id.to_owned(), state, items: quoted(items), tests: quoted(tests) });
    }
    Ok(rows)
}

/// The words in back quotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Rows that are missing, twice there, or unknown.
pub(super) fn id_problems(rows: &[Row]) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *seen.entry(&row.id).or_default() += 1;
    }
    let mut problems = Vec::new();
    for id in expected() {
        match seen.remove(id.as_str()) {
            Some(1) => {}
            Some(times) => problems.push(format!("{id}: stands {times} times")),
            None => problems.push(format!("{id}: missing")),
        }
    }
    problems.extend(seen.keys().map(|id| format!("{id}: not an id of the list")));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_rows() -> String {
        expected().map(|id| format!("| {id} | Area | thing | open | | |\n")).collect()
    }

    #[test]
    fn all_ids_are_needed_once() {
        let whole = all_rows();
        assert!(id_problems(&parse(&whole).unwrap()).is_empty());
        let short: String = whole.lines().skip(1).map(|line| format!("{line}\n")).collect();
        assert_eq!(id_problems(&parse(&short).unwrap()), ["F001: missing"]);
        let doubled = format!("{whole}| B23 | Area | thing | open | | |\n| B24 | Area | thing | open | | |");
        assert_eq!(id_problems(&parse(&doubled).unwrap()).len(), 2);
    }

    #[test]
    fn a_row_has_six_columns_and_a_known_state() {
        assert!(parse("| F001 | a | b | open | |").is_err());
        assert!(parse("| F001 | a | b | done | | |").is_err());
        assert!(parse("| F001 |  | b | open | | |").is_err());
        let rows = parse("| F001 | a | b | in work | `x`, `y` | |").unwrap();
        assert_eq!((rows[0].state, rows[0].items.len(), rows[0].tests.len()), (State::InWork, 2, 0));
    }
}
