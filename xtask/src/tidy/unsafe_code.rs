//! Rules about `unsafe`: only in files that `xtask/unsafe-files.txt` names, each with a reason; every block with its own.

use super::House;
use crate::findings::Findings;
use crate::rust_file::RustFile;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;

const LIST: &str = "xtask/unsafe-files.txt";
/// How far above an `unsafe` its reason may start: a long reason over a statement of a few lines.
const REASON_LINES: usize = 14;

pub(super) fn check(house: &House<'_>) -> Result<Findings> {
    let mut findings = Findings::new("unsafe code");
    let allowed = parse_list(&std::fs::read_to_string(house.path(LIST)).context(LIST)?)?;
    let mut holding = Vec::new();
    for file in &house.rust {
        findings.looked_at(1);
        if !file.unsafe_lines().is_empty() {
            holding.push(file.path.as_str());
        }
        findings.errors(unexplained(file));
    }
    findings.errors(compare(&holding, &allowed));
    let roots = house.workspace.members().flat_map(|package| &package.targets);
    for root in roots.filter(|target| target.is("lib") || target.is("bin")) {
        let path = house.workspace.relative(&root.src_path);
        let file = house.rust.iter().find(|file| file.path == path);
        findings.errors(file.and_then(closed_root));
    }
    Ok(findings)
}

pub(super) fn print(house: &House<'_>) -> Result<()> {
    let allowed = parse_list(&std::fs::read_to_string(house.path(LIST)).context(LIST)?)?;
    for file in &house.rust {
        let (all, claims) = (file.unsafe_lines().len(), file.unsafe_claims().len());
        if all > 0 {
            let reason = allowed.get(&file.path).map_or("(not in the list)", String::as_str);
            println!("{}  {reason}  [{all} uses, {claims} of them blocks or impls]", file.path);
        }
    }
    Ok(())
}

/// `path  reason`, one per line; `#` starts a comment.
fn parse_list(text: &str) -> Result<BTreeMap<String, String>> {
    let mut entries = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((path, reason)) = line.split_once(char::is_whitespace) else {
            bail!("{LIST}: `{line}` gives no reason");
        };
        entries.insert(path.to_owned(), reason.trim().to_owned());
    }
    Ok(entries)
}

fn compare(holding: &[&str], allowed: &BTreeMap<String, String>) -> Vec<String> {
    let stray = holding.iter().filter(|path| !allowed.contains_key(**path));
    let mut errors: Vec<String> =
        stray.map(|path| format!("{path}: holds `unsafe` but {LIST} does not name it")).collect();
    let idle = allowed.keys().filter(|path| !holding.contains(&path.as_str()));
    errors.extend(idle.map(|path| format!("{LIST}: {path} holds no `unsafe`: remove its line")));
    errors
}

fn unexplained(file: &RustFile) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let owing = file.unsafe_claims().into_iter().filter(|&line| {
        let from = line.saturating_sub(1 + REASON_LINES);
        !lines[from..line.min(lines.len())].iter().any(|line| line.contains("SAFETY:"))
    });
    owing.map(|line| format!("{}:{line}: `unsafe` without a `SAFETY:` reason above it", file.path)).collect()
}

/// A crate root forbids or denies unsafe code, so that a new use has to open a file by name.
fn closed_root(file: &RustFile) -> Option<String> {
    let closed = file.syntax.attrs.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let level = list.path.is_ident("forbid") || list.path.is_ident("deny");
        level && list.tokens.to_string().contains("unsafe_code")
    });
    (!closed).then(|| {
        format!("{}: crate root without `#![forbid(unsafe_code)]` or `#![deny(unsafe_code)]`", file.path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RustFile {
        RustFile::parse("crates/a/src/lib.rs", text).unwrap()
    }

    #[test]
    fn the_list_is_kept_both_ways() {
        let allowed = parse_list("# why\na.rs  copies\n").unwrap();
        assert!(compare(&["a.rs"], &allowed).is_empty());
        assert!(compare(&["a.rs", "b.rs"], &allowed)[0].contains("b.rs: holds"));
        assert!(compare(&[], &allowed)[0].contains("remove"));
    }

    #[test]
    fn an_entry_without_a_reason_is_refused() {
        assert!(parse_list("a.rs\n").is_err());
    }

    #[test]
    fn a_block_needs_its_reason() {
        assert!(
            unexplained(&parse("fn f() {\n    // SAFETY: checked above.\n    unsafe { g() }\n}\n"))
                .is_empty()
        );
        assert_eq!(unexplained(&parse("fn f() {\n    unsafe { g() }\n}\n")).len(), 1);
    }

    #[test]
    fn a_crate_root_is_closed() {
        assert!(closed_root(&parse("#![forbid(unsafe_code)]\n")).is_none());
        assert!(closed_root(&parse("#![deny(unsafe_code)]\n")).is_none());
        assert!(closed_root(&parse("#![warn(unsafe_code)]\n")).is_some());
    }
}
