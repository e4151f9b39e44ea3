//! The rule that no Rust file lies about: each is a target of cargo or a module that some target declares.

use super::House;
use crate::findings::Findings;
use crate::rust_file::RustFile;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(house: &House<'_>) -> Result<Findings> {
    let mut findings = Findings::new("modules");
    let mut roots: BTreeSet<String> = BTreeSet::new();
    let fuzz = house.workspace.load_fuzz()?;
    let ours = house.workspace.members().chain(fuzz.iter().flat_map(|fuzz| &fuzz.packages));
    for target in ours.flat_map(|package| &package.targets) {
        roots.insert(house.workspace.relative(&target.src_path));
    }
    findings.looked_at(roots.len());
    findings.errors(orphans(&house.rust, &roots));
    Ok(findings)
}

fn orphans(files: &[RustFile], roots: &BTreeSet<String>) -> Vec<String> {
    let by_path: BTreeMap<&str, &RustFile> = files.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut waiting: Vec<(String, bool)> = roots.iter().map(|root| (root.clone(), true)).collect();
    let mut reached = BTreeSet::new();
    while let Some((path, is_root)) = waiting.pop() {
        let Some(file) = by_path.get(path.as_str()) else { continue };
        if !reached.insert(path) {
            continue;
        }
        for module in file.module_files(is_root) {
            let names = module.candidates.iter().map(|candidate| normal(&candidate.to_string_lossy()));
            waiting
                .extend(names.filter(|name| by_path.contains_key(name.as_str())).map(|name| (name, false)));
        }
    }
    let lost = files.iter().filter(|file| !reached.contains(&file.path));
    lost.map(|file| format!("{}: no target and no module declares this file", file.path)).collect()
}

/// `a/b/../c` as `a/c`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => _ = parts.pop(),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_nobody_declares_is_an_orphan() {
        let files = [
            RustFile::parse("a/src/lib.rs", "mod b;").unwrap(),
            RustFile::parse("a/src/b.rs", "mod c;").unwrap(),
            RustFile::parse("a/src/b/c.rs", "").unwrap(),
            RustFile::parse("a/src/d.rs", "").unwrap(),
        ];
        let roots = BTreeSet::from(["a/src/lib.rs".to_owned()]);
        assert_eq!(orphans(&files, &roots), ["a/src/d.rs: no target and no module declares this file"]);
        assert!(orphans(&files[..3], &roots).is_empty());
    }

    #[test]
    fn a_path_attribute_may_climb() {
        assert_eq!(normal("a/src/../tests/x.rs"), "a/tests/x.rs");
    }
}
