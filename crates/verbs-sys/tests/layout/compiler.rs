//! The C compiler: called by the comparison only.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether there is one.
pub(crate) fn is_there() -> bool {
    Command::new("cc").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// What it complains about: line and text.
pub(crate) fn complaints(include: &Path, source: &Path) -> Vec<(usize, String)> {
    let output = call(include, source, &["-fsyntax-only", "-fmax-errors=0"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().filter_map(|line| complaint(line, source)).collect()
}

/// `path:line:column: error: text`, of errors and of the warning about initialisers.
fn complaint(line: &str, source: &Path) -> Option<(usize, String)> {
    let rest = line.strip_prefix(&source.display().to_string())?.strip_prefix(':')?;
    let (number, text) = rest.split_once(':')?;
    let counts = text.contains(" error: ") || text.contains("excess elements");
    counts.then_some((number.parse().ok()?, text.to_owned()))
}

/// Compiles and runs.
pub(crate) fn run(include: &Path, source: &Path) -> String {
    let program: PathBuf = source.with_extension("");
    let to = program.display().to_string();
    let output = call(include, source, &["-o", &to]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(&program).output().expect("what was compiled runs");
    assert!(output.status.success(), "{} ended with {}", program.display(), output.status);
    String::from_utf8(output.stdout).expect("it prints ASCII")
}

/// Every identifier after preprocessing, macros included.
pub(crate) fn preprocessed(include: &Path, source: &Path) -> String {
    let output = call(include, source, &["-E", "-dD"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn call(include: &Path, source: &Path, arguments: &[&str]) -> std::process::Output {
    let mut cc = Command::new("cc");
    cc.env("LC_ALL", "C").args(["-std=gnu11", "-I"]).arg(include).args(arguments).arg(source);
    cc.output().expect("the compiler was there a moment ago")
}
