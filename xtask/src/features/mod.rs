//! `cargo xtask features`: `FEATURES.md` against the code. A row that is called proven names an item and a test that exist.
//!
//! Called from the command line and by `cargo xtask test`, which afterwards also checks that the named tests passed.

mod index;
mod table;

use crate::findings::Findings;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result};
use index::Index;
pub(crate) use table::{Row, State};

const PAGE: &str = "FEATURES.md";

/// Reads the table.
///
/// # Errors
/// When the page is missing or a row has the wrong form.
pub(crate) fn rows(workspace: &Workspace) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(workspace.root.join(PAGE)).context(PAGE)?;
    table::parse(&text).context(PAGE)
}

/// Runs the check and prints how many rows are proven, in work and open.
///
/// # Errors
/// When a row is missing, or names what does not exist.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let rows = rows(workspace)?;
    let index = Index::build(workspace)?;
    let mut findings = Findings::new("features");
    findings.looked_at(rows.len());
    findings.errors(table::id_problems(&rows));
    for row in &rows {
        findings.errors(row_problems(row, &index));
    }
    let count = |state| rows.iter().filter(|row| row.state == state).count();
    let (proven, in_work, open) = (count(State::Proven), count(State::InWork), count(State::Open));
    println!("{PAGE}: {proven} proven, {in_work} in work, {open} open, {} rows", rows.len());
    findings.conclude()
}

fn row_problems(row: &Row, index: &Index) -> Vec<String> {
    let mut problems = Vec::new();
    let id = &row.id;
    if row.state == State::Proven {
        if row.items.is_empty() {
            problems.push(format!("{id}: proven, but names no item that provides it"));
        }
        if row.tests.is_empty() {
            problems.push(format!("{id}: proven, but names no test"));
        }
    }
    let items = row.items.iter().filter_map(|item| index.item_problem(item));
    problems.extend(items.map(|problem| format!("{id}: {problem}")));
    let tests = row.tests.iter().filter_map(|test| index.test_problem(test));
    problems.extend(tests.map(|problem| format!("{id}: {problem}")));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(line: &str) -> Vec<String> {
        let rows = table::parse(line).unwrap();
        let mut index = Index::default();
        index.add(
            "sinew_a",
            "crates/a/src/b.rs",
            "pub struct X; impl X { pub fn go(&self) {} }\n#[test]\nfn it_goes() {}\n",
        );
        row_problems(&rows[0], &index)
    }

    #[test]
    fn a_proven_row_needs_an_item_and_a_test() {
        assert!(problems("| F001 | A | b | proven | `sinew_a::X::go` | `sinew_a::b::it_goes` |").is_empty());
        assert_eq!(problems("| F001 | A | b | proven | | |").len(), 2);
        assert!(problems("| F001 | A | b | open | | |").is_empty());
    }

    #[test]
    fn a_named_item_or_test_must_exist_whatever_the_state() {
        assert_eq!(problems("| F001 | A | b | in work | `sinew_a::X::stop` | |").len(), 1);
        assert_eq!(problems("| F001 | A | b | in work | | `sinew_a::b::it_stops` |").len(), 1);
    }
}
