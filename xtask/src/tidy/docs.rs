//! Rules about written pages: links lead somewhere, every crate has its page, the change log has a place for what is new.

use super::House;
use crate::findings::Findings;
use anyhow::{Context as _, Result};
use std::path::{Component, Path, PathBuf};

const README_LINES_MAX: usize = 40;
const CONTRIBUTING_LINES_MAX: usize = 250;

pub(super) fn check(house: &House<'_>) -> Result<Findings> {
    let mut findings = Findings::new("pages");
    for path in house.files.iter().filter(|path| path.ends_with(".md")) {
        let text = read(house, path)?;
        findings.looked_at(1);
        for link in links(&text) {
            findings.errors(broken(house, path, &link));
        }
    }
    for file in &house.rust {
        for page in named_pages(&file.text) {
            if !house.path(&page).is_file() {
                findings.error(format!("{}: names {page}, which does not exist", file.path));
            }
        }
    }
    for package in house.workspace.members() {
        let page = format!("{}/README.md", house.workspace.relative(package.folder()));
        match std::fs::read_to_string(house.path(&page)) {
            Ok(text) => findings.errors(crate_page(&page, &text)),
            Err(_) => findings.error(format!("{page}: missing")),
        }
    }
    for word in code_paths(&read(house, "ARCHITECTURE.md")?) {
        if !house.path(&word).exists() {
            findings.error(format!("ARCHITECTURE.md: {word} does not exist"));
        }
    }
    if !has_unreleased(&read(house, "CHANGELOG.md")?) {
        findings.error("CHANGELOG.md: no `## [Unreleased]` section");
    }
    let guide = read(house, "CONTRIBUTING.md")?.lines().count();
    if guide > CONTRIBUTING_LINES_MAX {
        findings.error(format!("CONTRIBUTING.md: {guide} lines; the limit is {CONTRIBUTING_LINES_MAX}"));
    }
    Ok(findings)
}

fn read(house: &House<'_>, path: &str) -> Result<String> {
    std::fs::read_to_string(house.path(path)).with_context(|| format!("cannot read {path}"))
}

/// Targets of `[text](target)` outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for part in outside_code(line).split("](").skip(1) {
            found.extend(part.split_once(')').map(|(target, _)| target.trim().to_owned()));
        }
    }
    found
}

fn outside_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

fn broken(house: &House<'_>, page: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = if path.is_empty() {
        house.path(page)
    } else {
        flat(&house.path(page).parent().unwrap_or(Path::new("")).join(path))
    };
    if !target.exists() {
        return Some(format!("{page}: link to {link}, which does not exist"));
    }
    let anchor = anchor?;
    let text = std::fs::read_to_string(&target).ok()?;
    let known = text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor);
    (!known).then(|| format!("{page}: link to {link}: that page has no such heading"))
}

fn flat(path: &Path) -> PathBuf {
    let mut flat = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir { _ = flat.pop() } else { flat.push(part) }
    }
    flat
}

/// The anchor that a heading gets.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// `docs/….md` as code and comments name them.
fn named_pages(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("docs/") {
        let before = text[..at].chars().next_back();
        let name: String = text[at..]
            .chars()
            .take_while(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(*letter))
            .collect();
        let name = name.trim_end_matches('.');
        if name.ends_with(".md") && !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '/') {
            found.push(name.to_owned());
        }
    }
    found
}

fn crate_page(page: &str, text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let lines = text.lines().count();
    if lines > README_LINES_MAX {
        errors.push(format!("{page}: {lines} lines; the limit is {README_LINES_MAX}"));
    }
    for part in ["Who calls it", "What it must not do", "How it is tested"] {
        if !text.contains(part) {
            errors.push(format!("{page}: does not say \"{part}\""));
        }
    }
    errors
}

/// Paths in back quotes that start with one of our folders.
fn code_paths(text: &str) -> Vec<String> {
    let folders = ["crates/", "docs/", "xtask/", "bench/", "fuzz/", ".ci/", "examples/"];
    let quoted = text.split('`').skip(1).step_by(2);
    let paths = quoted.filter(|word| folders.iter().any(|folder| word.starts_with(folder)));
    paths.filter(|word| !word.contains(['<', '*', ' ', '…'])).map(str::to_owned).collect()
}

fn has_unreleased(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "## [Unreleased]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_outside_of_code() {
        let text = "[a](b.md) and `[c](d)` [e](f#g)\n```\n[h](i)\n```\n";
        assert_eq!(links(text), ["b.md", "f#g"]);
    }

    #[test]
    fn headings_become_anchors() {
        assert_eq!(slug("## Where is it? (a table)"), "where-is-it-a-table");
    }

    #[test]
    fn pages_named_in_code_are_found() {
        assert_eq!(named_pages("//! See `docs/dependencies.md`, not /docs/y."), ["docs/dependencies.md"]);
    }

    #[test]
    fn a_crate_page_is_short_and_says_three_things() {
        let good = "Who calls it What it must not do How it is tested";
        assert!(crate_page("x", good).is_empty());
        assert_eq!(crate_page("x", "").len(), 3);
        assert_eq!(crate_page("x", &format!("{good}{}", "\n".repeat(41))).len(), 1);
    }

    #[test]
    fn paths_of_the_map_are_found() {
        assert_eq!(code_paths("`crates/a/src/` `crates/<x>` `cargo`"), ["crates/a/src/"]);
    }

    #[test]
    fn the_change_log_has_a_place_for_what_is_new() {
        assert!(has_unreleased("# C\n## [Unreleased]\n"));
        assert!(!has_unreleased("# C\n## [0.1.0]\n"));
    }
}
