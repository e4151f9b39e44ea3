//! `cargo xtask tidy`: the rules of style that a machine can keep. What is not here is advice.
//!
//! Called from the command line and by `cargo xtask test`. Each file of this folder is a group of rules; every rule takes
//! parsed files and answers with sentences, so each is tested with a case that breaks it and one that does not.

mod docs;
mod modules;
mod purity;
mod shape;
mod unsafe_code;
mod words;

use crate::findings::Findings;
use crate::rust_file::RustFile;
use crate::workspace::Workspace;
use anyhow::Result;
use std::path::PathBuf;

/// What the rules look at, read once.
struct House<'a> {
    workspace: &'a Workspace,
    /// Every file, relative to the root.
    files: Vec<String>,
    /// Every Rust file that must keep the rules.
    rust: Vec<RustFile>,
}

impl<'a> House<'a> {
    fn read(workspace: &'a Workspace, findings: &mut Findings) -> Result<Self> {
        let files: Vec<String> = workspace.files()?.iter().map(|file| workspace.relative(file)).collect();
        let mut rust = Vec::new();
        for path in files.iter().filter(|path| path.ends_with(".rs") && !must_not_compile(path)) {
            match RustFile::read(&workspace.root, path) {
                Ok(file) => rust.push(file),
                Err(error) => findings.error(format!("{error:#}")),
            }
        }
        Ok(Self { workspace, files, rust })
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.workspace.root.join(relative)
    }
}

/// Programs that a test proves not to compile follow no rule of style.
fn must_not_compile(path: &str) -> bool {
    path.contains("/compile_fail/") || path.contains("/ui/")
}

/// Runs every rule.
///
/// # Errors
/// When one is broken or had nothing to look at.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut findings = Findings::new("tidy");
    let house = House::read(workspace, &mut findings)?;
    findings.absorb(shape::check(&house)?);
    findings.absorb(unsafe_code::check(&house)?);
    findings.absorb(words::check(&house)?);
    findings.absorb(modules::check(&house)?);
    findings.absorb(docs::check(&house)?);
    findings.absorb(purity::check(&house)?);
    findings.conclude()
}

/// Prints every file that holds `unsafe`, with the count, in the form of `xtask/unsafe-files.txt`.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn print_unsafe(workspace: &Workspace) -> Result<()> {
    let mut findings = Findings::new("tidy --unsafe");
    let house = House::read(workspace, &mut findings)?;
    unsafe_code::print(&house)
}
