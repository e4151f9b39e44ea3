//! `cargo xtask layers`: who may import whom, `layers.toml` against what cargo says.
//!
//! Called from the command line and by `cargo xtask test`. Dev-dependencies have their own column; crates that exist for
//! tests may be imported in no other way. Crates marked `pure` name no clock, socket, thread or environment.

use crate::findings::Findings;
use crate::rust_file::RustFile;
use crate::workspace::{Package, Use, Workspace};
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

const TABLE: &str = "layers.toml";

/// What a pure crate may not say in its production part: a clock, a socket, a thread, a file, the environment, luck.
const IMPURE: [&str; 10] = [
    "Instant :: now",
    "SystemTime",
    "std :: net",
    "std :: thread",
    "std :: fs",
    "std :: env",
    "std :: process",
    "thread :: sleep",
    "getrandom",
    "RandomState",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    /// Crates that exist for tests.
    dev_only: Vec<String>,
    crates: BTreeMap<String, Row>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Row {
    /// Crates of ours that it may import.
    may: Vec<String>,
    /// Crates of ours that its tests may import besides, `dev-only` ones not named again.
    dev: Vec<String>,
    /// Crates of others that it may import.
    outside: Vec<String>,
    /// No I/O, no clock, no luck of its own.
    pure: bool,
}

/// Runs the check.
///
/// # Errors
/// When an import is not allowed or the table is not true.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let text = std::fs::read_to_string(workspace.root.join(TABLE)).context(TABLE)?;
    let table: Table = toml::from_str(&text).context(TABLE)?;
    let mut findings = Findings::new("layers");
    for package in workspace.members() {
        findings.looked_at(1);
        findings.errors(judge(package, &table));
        if table.crates.get(package.short_name()).is_some_and(|row| row.pure) {
            findings.errors(impurities(workspace, package)?);
        }
    }
    for name in table.crates.keys() {
        if !workspace.members().any(|package| package.short_name() == name) {
            findings.error(format!("{TABLE}: no crate is called {name}: remove its row"));
        }
    }
    findings.conclude()
}

fn judge(package: &Package, table: &Table) -> Vec<String> {
    let name = package.short_name();
    let Some(row) = table.crates.get(name) else {
        return vec![format!("{TABLE}: no row for {name}")];
    };
    let mut errors = Vec::new();
    for dependency in &package.dependencies {
        let other = dependency.name.strip_prefix("sinew-").unwrap_or(&dependency.name).to_owned();
        let is_dev = dependency.usage() == Use::Test;
        if dependency.path.is_none() {
            if !is_dev && !row.outside.contains(&other) {
                errors.push(format!("{name} imports {other} of others, which {TABLE} does not allow"));
            }
        } else if is_dev {
            let allowed =
                row.may.contains(&other) || row.dev.contains(&other) || table.dev_only.contains(&other);
            if !allowed {
                errors.push(format!("the tests of {name} import {other}, which {TABLE} does not allow"));
            }
        } else if table.dev_only.contains(&other)
            && !table.dev_only.contains(&package.short_name().to_owned())
        {
            errors.push(format!("{name} imports {other}, which exists for tests only"));
        } else if !row.may.contains(&other) {
            errors.push(format!("{name} imports {other}, which {TABLE} does not allow"));
        }
    }
    errors
}

fn impurities(workspace: &Workspace, package: &Package) -> Result<Vec<String>> {
    let folder = format!("{}/src/", workspace.relative(package.folder()));
    let mut errors = Vec::new();
    for path in workspace.files()?.iter().map(|file| workspace.relative(file)) {
        if path.starts_with(&folder) && path.ends_with(".rs") && !path.ends_with("/tests.rs") {
            errors.extend(impure_words(&RustFile::read(&workspace.root, &path)?));
        }
    }
    Ok(errors)
}

fn impure_words(file: &RustFile) -> Vec<String> {
    let code = file.production_tokens().to_string();
    let named = IMPURE.iter().filter(|word| code.contains(**word));
    named.map(|word| format!("{}: pure code names `{}`", file.path, word.replace(' ', ""))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;
    use std::path::PathBuf;

    fn package(name: &str, dependencies: &[(&str, Option<&str>, bool)]) -> Package {
        let dependencies = dependencies.iter().map(|&(name, kind, ours)| Dependency {
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            target: None,
            path: ours.then(PathBuf::new),
        });
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: String::new(),
            license: None,
            manifest_path: PathBuf::new(),
            dependencies: dependencies.collect(),
            targets: Vec::new(),
            publish: None,
        }
    }

    fn table() -> Table {
        let text = "dev-only = ['testing']\n[crates.engine]\nmay = ['wire']\noutside = ['bytes']\n[crates.testing]\n";
        toml::from_str(text).unwrap()
    }

    #[test]
    fn an_import_down_is_allowed_and_one_sideways_is_not() {
        assert!(
            judge(&package("sinew-engine", &[("sinew-wire", None, true), ("bytes", None, false)]), &table())
                .is_empty()
        );
        assert_eq!(judge(&package("sinew-engine", &[("sinew-cli", None, true)]), &table()).len(), 1);
        assert_eq!(judge(&package("sinew-engine", &[("mio", None, false)]), &table()).len(), 1);
    }

    #[test]
    fn test_crates_are_for_tests() {
        assert!(
            judge(&package("sinew-engine", &[("sinew-testing", Some("dev"), true)]), &table()).is_empty()
        );
        assert_eq!(judge(&package("sinew-engine", &[("sinew-testing", None, true)]), &table()).len(), 1);
        assert_eq!(judge(&package("sinew-engine", &[("sinew-cli", Some("dev"), true)]), &table()).len(), 1);
    }

    #[test]
    fn a_crate_without_a_row_is_an_error() {
        assert_eq!(judge(&package("sinew-new", &[]), &table()).len(), 1);
    }

    #[test]
    fn pure_code_reads_no_clock_but_its_tests_may() {
        let impure = RustFile::parse("a.rs", "fn f() { let now = std::time::Instant::now(); }").unwrap();
        assert_eq!(impure_words(&impure).len(), 1);
        let pure = "fn f(now: std::time::Instant) {}\n#[cfg(test)]\nmod tests { fn g() { Instant::now(); } }";
        assert!(impure_words(&RustFile::parse("a.rs", pure).unwrap()).is_empty());
    }
}
