//! Rules about size and heads: files, functions, `//!`, empty files.

use super::House;
use crate::findings::Findings;
use crate::rust_file::{Function, RustFile};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;

const FILE_LINES_HABIT: usize = 500;
const FILE_LINES_MAX: usize = 800;
const INLINE_TEST_LINES: usize = 300;
const FUNCTION_LINES_MAX: usize = 70;
const RATCHET: &str = "xtask/long-functions.txt";

pub(super) fn check(house: &House<'_>) -> Result<Findings> {
    let mut findings = Findings::new("size and heads");
    let ratchet = parse_ratchet(&std::fs::read_to_string(house.path(RATCHET)).context(RATCHET)?)?;
    let mut long = BTreeMap::new();
    for file in &house.rust {
        findings.looked_at(1);
        length(file, &mut findings);
        if !file.path.ends_with("/tests.rs") && !file.has_head() {
            findings.error(format!(
                "{}: does not start with `//!` saying what it is, who calls it, what it must not do",
                file.path
            ));
        }
        for function in file.functions() {
            if function.lines > FUNCTION_LINES_MAX {
                long.insert(format!("{}::{}", file.path, function.name), function);
            }
        }
    }
    findings.errors(functions(&long, &ratchet));
    for path in &house.files {
        let text = std::fs::read(house.path(path)).with_context(|| format!("cannot read {path}"))?;
        findings.errors(empty(path, &text));
    }
    Ok(findings)
}

fn length(file: &RustFile, findings: &mut Findings) {
    let path = &file.path;
    let lines = file.production_lines();
    if lines > FILE_LINES_MAX {
        findings
            .error(format!("{path}: {lines} lines without its tests; the wall stands at {FILE_LINES_MAX}"));
    } else if lines > FILE_LINES_HABIT && !file.is_test_file() {
        findings.warning(format!("{path}: {lines} lines without its tests; the habit is {FILE_LINES_HABIT}"));
    }
    let tests = file.test_lines();
    if tests > INLINE_TEST_LINES {
        findings.warning(format!("{path}: {tests} lines of tests inside; a file of their own reads better"));
    }
}

fn empty(path: &str, text: &[u8]) -> Option<String> {
    text.iter().all(u8::is_ascii_whitespace).then(|| format!("{path}: empty file"))
}

/// `path::function lines`, one per line; `#` starts a comment.
fn parse_ratchet(text: &str) -> Result<BTreeMap<String, usize>> {
    let mut entries = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((name, lines)) = line.rsplit_once(' ') else { bail!("{RATCHET}: `{line}` has no length") };
        let lines = lines.parse().with_context(|| format!("{RATCHET}: `{line}` ends with no number"))?;
        entries.insert(name.trim().to_owned(), lines);
    }
    Ok(entries)
}

/// Long functions that the ratchet does not allow, and ratchet entries that could be tighter.
fn functions(long: &BTreeMap<String, Function>, ratchet: &BTreeMap<String, usize>) -> Vec<String> {
    let mut errors = Vec::new();
    for (name, function) in long {
        let (line, lines) = (function.line, function.lines);
        match ratchet.get(name) {
            None => {
                errors.push(format!("{name} (line {line}): {lines} lines; the limit is {FUNCTION_LINES_MAX}"))
            }
            Some(&allowed) if lines > allowed => {
                errors.push(format!("{name} (line {line}): grew from {allowed} to {lines} lines"));
            }
            Some(&allowed) if lines < allowed => {
                errors.push(format!(
                    "{RATCHET}: {name} is down to {lines} lines: lower its entry from {allowed}"
                ));
            }
            Some(_) => {}
        }
    }
    let done = ratchet.keys().filter(|name| !long.contains_key(*name));
    errors.extend(done.map(|name| format!("{RATCHET}: {name} is no longer too long: remove its entry")));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(lines: usize) -> RustFile {
        RustFile::parse("crates/a/src/b.rs", &"// x\n".repeat(lines)).unwrap()
    }

    fn judged(file: &RustFile) -> (usize, usize) {
        let mut findings = Findings::new("x");
        length(file, &mut findings);
        (findings.found().len(), findings.warned().len())
    }

    #[test]
    fn a_file_has_a_habit_and_a_wall() {
        assert_eq!(judged(&file_of(500)), (0, 0));
        assert_eq!(judged(&file_of(501)), (0, 1));
        assert_eq!(judged(&file_of(801)), (1, 0));
    }

    #[test]
    fn long_inline_tests_are_warned_about() {
        let text = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// x\n".repeat(INLINE_TEST_LINES));
        assert_eq!(judged(&RustFile::parse("crates/a/src/b.rs", &text).unwrap()), (0, 1));
    }

    #[test]
    fn an_empty_file_is_an_error() {
        assert!(empty("a", b" \n").is_some());
        assert!(empty("a", b"x").is_none());
    }

    fn long(lines: usize) -> BTreeMap<String, Function> {
        BTreeMap::from([("a.rs::f".to_owned(), Function { name: "f".into(), line: 1, lines })])
    }

    #[test]
    fn a_long_function_needs_an_entry_that_only_shrinks() {
        let allowed = parse_ratchet("# comment\na.rs::f 90\n").unwrap();
        assert_eq!(functions(&long(90), &BTreeMap::new()).len(), 1);
        assert!(functions(&long(90), &allowed).is_empty());
        assert!(functions(&long(91), &allowed)[0].contains("grew"));
        assert!(functions(&long(80), &allowed)[0].contains("lower"));
        assert!(functions(&BTreeMap::new(), &allowed)[0].contains("remove"));
    }

    #[test]
    fn a_ratchet_line_needs_a_number() {
        assert!(parse_ratchet("a.rs::f many").is_err());
    }
}
