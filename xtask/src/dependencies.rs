//! `cargo xtask dependencies`: licences, banned crates, and that every direct dependency has its reason on paper.
//!
//! Called from the command line and by `cargo xtask test`. The rules are those of `deny.toml`, checked here over
//! `cargo metadata` so that they need neither an installed tool nor a network.

use crate::findings::Findings;
use crate::workspace::{Package, Use, Workspace};
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

const POLICY: &str = "deny.toml";
const REASONS: &str = "docs/dependencies.md";

/// The parts of `deny.toml` that are checked here too.
#[derive(Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

/// The part of the root manifest that is looked at.
#[derive(Deserialize)]
struct Root {
    workspace: Shared,
}

#[derive(Deserialize)]
struct Shared {
    dependencies: BTreeMap<String, toml::Value>,
}

/// Runs the check.
///
/// # Errors
/// When a licence is not allowed, a banned crate is built into Sinew, or a dependency has no reason.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let read =
        |path: &str| std::fs::read_to_string(workspace.root.join(path)).with_context(|| path.to_owned());
    let policy: Policy = toml::from_str(&read(POLICY)?).context(POLICY)?;
    let mut findings = Findings::new("dependencies");
    let by_id = workspace.by_id();
    for id in reachable(workspace, &[Use::Normal, Use::Build, Use::Test]) {
        let Some(package) = by_id.get(id.as_str()) else { continue };
        findings.looked_at(1);
        findings.errors(licence_problem(package, &policy.licenses.allow));
    }
    let built: Vec<&Package> = reachable(workspace, &[Use::Normal, Use::Build])
        .iter()
        .filter_map(|id| by_id.get(id.as_str()).copied())
        .collect();
    findings.errors(banned(&built, &policy.bans.deny));
    let root: Root = toml::from_str(&read("Cargo.toml")?).context("Cargo.toml")?;
    findings.errors(unexplained(&named(workspace.members(), &root), &read(REASONS)?));
    findings.conclude()
}

/// What is not ours in any manifest of the workspace, the shared table of the root included.
fn named<'a>(members: impl Iterator<Item = &'a Package>, root: &Root) -> BTreeSet<String> {
    let shared = &root.workspace.dependencies;
    let outside = shared.iter().filter(|(_, value)| value.get("path").is_none());
    let mut named: BTreeSet<String> = outside.map(|(name, _)| name.clone()).collect();
    for package in members {
        let outside = package.dependencies.iter().filter(|dependency| dependency.path.is_none());
        named.extend(outside.map(|dependency| dependency.name.clone()));
    }
    named
}

/// Ids of everything that ours need along edges for these uses.
fn reachable(workspace: &Workspace, uses: &[Use]) -> BTreeSet<String> {
    let nodes = workspace.resolve.as_ref().map(|resolve| resolve.nodes.as_slice()).unwrap_or_default();
    let edges: HashMap<&str, _> = nodes.iter().map(|node| (node.id.as_str(), &node.deps)).collect();
    let mut waiting: Vec<&str> = workspace.members().map(|package| package.id.as_str()).collect();
    let mut seen = HashSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        for edge in edges.get(id).into_iter().flat_map(|deps| deps.iter()) {
            if edge.dep_kinds.iter().any(|kind| uses.contains(&kind.usage())) {
                waiting.push(&edge.pkg);
            }
        }
    }
    seen.into_iter().map(str::to_owned).collect()
}

fn licence_problem(package: &Package, allowed: &[String]) -> Option<String> {
    let (name, version) = (&package.name, &package.version);
    let Some(licence) = &package.license else {
        return Some(format!("{name} {version}: declares no licence"));
    };
    (!is_allowed(licence, allowed)).then(|| format!("{name} {version}: licence `{licence}` is not allowed"))
}

fn banned(built: &[&Package], deny: &[Banned]) -> Vec<String> {
    let found = built.iter().filter(|package| deny.iter().any(|ban| ban.name == package.name));
    found.map(|package| format!("{} {} is part of the build: {POLICY} bans it outside of tests (`cargo tree --workspace --target all -e normal,build -i {}` shows why)", package.name, package.version, package.name)).collect()
}

fn unexplained(named: &BTreeSet<String>, reasons: &str) -> Vec<String> {
    let rows: HashSet<&str> = reasons
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name))
        .collect();
    let missing = named.iter().filter(|name| !rows.contains(name.as_str()));
    let mut errors: Vec<String> =
        missing.map(|name| format!("{REASONS}: no row for {name}, which a manifest names")).collect();
    let idle = rows.iter().filter(|name| !named.contains(**name));
    errors.extend(idle.map(|name| format!("{REASONS}: no manifest names {name}: remove its row")));
    errors
}

/// Whether an SPDX expression can be satisfied with allowed licences: `OR` needs one side, `AND` both.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let verdict = any_of(&words, &mut at, allowed);
    verdict && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut verdict = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        verdict |= all_of(words, at, allowed);
    }
    verdict
}

fn all_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut verdict = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        verdict &= one(words, at, allowed);
    }
    verdict
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let verdict = any_of(words, at, allowed);
        *at += 1;
        return verdict && words.get(*at - 1) == Some(&")");
    }
    let mut name = word.to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{word} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    allowed.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(expression: &str) -> bool {
        is_allowed(expression, &["MIT".to_owned(), "Apache-2.0".to_owned(), "Zlib".to_owned()])
    }

    #[test]
    fn licence_expressions_are_understood() {
        assert!(allows("MIT"));
        assert!(allows("GPL-3.0 OR MIT"));
        assert!(allows("Unlicense/MIT"));
        assert!(allows("(MIT OR GPL-2.0) AND Zlib"));
        assert!(allows("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"));
    }

    #[test]
    fn what_is_not_allowed_or_not_understood_is_refused() {
        assert!(!allows("GPL-3.0"));
        assert!(!allows("MIT AND GPL-2.0"));
        assert!(!allows("(MIT OR GPL-2.0) AND GPL-3.0"));
        assert!(!allows("MIT Zlib"));
        assert!(!allows("(MIT"));
        assert!(!allows(""));
        assert!(!allows("Apache-2.0 WITH Something"));
    }

    fn package(name: &str, licence: Option<&str>) -> Package {
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "1".to_owned(),
            license: licence.map(str::to_owned),
            manifest_path: "x".into(),
            dependencies: vec![crate::workspace::Dependency {
                name: "bytes".into(),
                kind: None,
                target: None,
                path: None,
            }],
            targets: Vec::new(),
            publish: None,
        }
    }

    #[test]
    fn a_package_needs_an_allowed_licence() {
        let allowed = ["MIT".to_owned()];
        assert!(licence_problem(&package("a", Some("MIT")), &allowed).is_none());
        assert!(licence_problem(&package("a", Some("GPL-3.0")), &allowed).is_some());
        assert!(licence_problem(&package("a", None), &allowed).is_some());
    }

    #[test]
    fn banned_crates_are_found() {
        let deny = [Banned { name: "cc".to_owned() }];
        assert_eq!(banned(&[&package("cc", None)], &deny).len(), 1);
        assert!(banned(&[&package("ccc", None)], &deny).is_empty());
    }

    #[test]
    fn every_dependency_has_its_row_and_every_row_its_dependency() {
        let ours =
            named([package("a", None)].iter(), &Root { workspace: Shared { dependencies: BTreeMap::new() } });
        assert!(unexplained(&ours, "| `bytes` | buffers |\n").is_empty());
        assert!(unexplained(&ours, "")[0].contains("no row for bytes"));
        assert!(unexplained(&ours, "| `bytes` |\n| `mio` |\n")[0].contains("remove"));
    }

    #[test]
    fn the_shared_table_of_the_root_counts_without_our_own() {
        let text = "[workspace.dependencies]\nmio = '1'\nsinew-base = { path = 'crates/base' }\n";
        assert_eq!(named([].iter(), &toml::from_str(text).unwrap()), BTreeSet::from(["mio".to_owned()]));
    }
}
