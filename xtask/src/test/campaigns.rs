//! The step of the campaigns of faults: test programs that are called `campaign_*`, and the rows that they print.
//!
//! They run with all other tests, for few rounds. In the long run they run once more, by themselves, for many. Either way
//! their rows are kept in `target/campaigns.log`, for whoever reports on them; those of a long run are written to
//! `docs/campaigns.md` as well, which [`write_page`] also does from logs of runs elsewhere.

use super::outcome::{self, Outcome, Runner};
use super::{Context, steps};
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::time::Duration;

/// Rounds of the long run, unless the environment says otherwise.
const ROUNDS_LONG: &str = "1000";
const LIMIT_LONG: Duration = Duration::from_secs(8 * 3600);

/// Runs them in the long run, else looks what the step of the tests has left.
pub(super) fn step(context: &Context, _: &Outcome) -> Result<Outcome> {
    let mut outcome = if context.long {
        let finished = steps::run_cargo(context, "campaigns", LIMIT_LONG, |cargo| {
            let rounds = std::env::var("SINEW_CAMPAIGN_ROUNDS").unwrap_or_else(|_| ROUNDS_LONG.to_owned());
            cargo.env("XTASK_SKIP_LOG", &context.skip_log).env("SINEW_CAMPAIGN_ROUNDS", rounds);
            let what = ["--workspace", "--all-features", "--test", "campaign_*", "--no-fail-fast"];
            match context.runner {
                Runner::Nextest => {
                    cargo.args(["nextest", "run"]).args(what);
                    cargo.args(["--success-output=immediate", "--failure-output=immediate"]);
                    cargo.arg("--status-level=all");
                }
                Runner::Cargo => {
                    cargo.arg("test").args(what).args(["--", "--show-output"]);
                }
            }
        })?;
        outcome::counted(context.runner, &finished, "")
    } else {
        Outcome::one("")
    };
    let name = if context.long { "campaigns.log" } else { "tests.log" };
    let log = std::fs::read_to_string(context.logs.join(name)).unwrap_or_default();
    let rows = rows(&log);
    if rows.is_empty() {
        return Ok(Outcome::failed(format!("no campaign has left its row in {name}")));
    }
    let kept = keep(context, &rows)?;
    let folders = families(&rows);
    outcome.note =
        format!("{} campaigns ({folders}), rows in {}", rows.len(), context.workspace.relative(&kept));
    if context.long {
        for row in &rows {
            println!("       | {row}");
        }
        let page = page(&log, &commit(&context.workspace), &today());
        std::fs::write(context.workspace.root.join(PAGE), page)?;
    }
    Ok(outcome)
}

/// Where the rows of the last long run stand.
const PAGE: &str = "docs/campaigns.md";

/// Writes the page from logs of nextest; `commit` is what was run.
///
/// # Errors
/// When a log cannot be read, or holds no row.
pub(crate) fn write_page(workspace: &Workspace, logs: &[PathBuf], run: Option<&str>) -> Result<()> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let text: String = logs.iter().map(read).collect::<Result<_>>()?;
    if rows(&text).is_empty() {
        bail!("no campaign has left its row there");
    }
    let commit = run.map_or_else(|| commit(workspace), str::to_owned);
    std::fs::write(workspace.root.join(PAGE), page(&text, &commit, &today()))?;
    println!("{} rows in {PAGE}", rows(&text).len());
    Ok(())
}

fn said(program: &str, arguments: &[&str], folder: &std::path::Path) -> String {
    let output = std::process::Command::new(program).args(arguments).current_dir(folder).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn commit(workspace: &Workspace) -> String {
    said("git", &["rev-parse", "--short=12", "HEAD"], &workspace.root)
}

fn today() -> String {
    said("date", &["-u", "+%-d %B %Y"], std::path::Path::new("/"))
}

/// Tests of a log that ended so.
fn tests<'a>(log: &'a str, verdict: &str) -> Vec<&'a str> {
    let ended =
        log.lines().map(str::trim_start).filter(|line| line.starts_with(verdict) && line.contains(" sinew"));
    ended.filter_map(|line| line.split_once("sinew").map(|(_, name)| name.trim_start_matches("::"))).collect()
}

/// The page: what was run, each row, and what failed.
fn page(log: &str, commit: &str, date: &str) -> String {
    let (passed, failed) = (tests(log, "PASS ["), tests(log, "FAIL ["));
    let failed: std::collections::BTreeSet<&str> = failed.into_iter().collect();
    let mut page = format!(
        "# The last long run of the campaigns\n\n\
         Written by `cargo xtask test --long --only campaigns` (or `cargo xtask campaigns LOG…` from logs of such runs). {date}, commit {commit}: {} campaigns passed, {} failed.\n\n\
         A row is one campaign: `docs/faults.md` says what each does and promises. Rounds, faults that really happened, what was counted against the promise, how long the survivor took to notice, and the seed, which \
         `SINEW_SEED` repeats. Every campaign checks contents, order and leaks itself and fails when its faults did not happen.\n\n```text\n",
        passed.len(),
        failed.len(),
    );
    for row in rows(log) {
        page.push_str(row.trim_start_matches("campaign "));
        page.push('\n');
    }
    page.push_str("```\n");
    if !failed.is_empty() {
        page.push_str("\nFailed:\n\n");
        failed.iter().for_each(|name| page.push_str(&format!("- `{name}`\n")));
    }
    page
}

/// The rows among what a test runner printed.
fn rows(log: &str) -> Vec<&str> {
    log.lines().map(str::trim).filter(|line| line.starts_with("campaign ")).collect()
}

/// How many campaigns there are of each family: the first part of a campaign's name.
fn families(rows: &[&str]) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for row in rows {
        let name = row.trim_start_matches("campaign ");
        *counts.entry(name.split(['/', ':', ' ']).next().unwrap_or_default()).or_default() += 1;
    }
    let words: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    words.join(", ")
}

fn keep(context: &Context, rows: &[&str]) -> Result<PathBuf> {
    let path = context.workspace.target.join("campaigns.log");
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_however_the_runner_indents_them() {
        let log = "  stdout ───\n    campaign kill/shm/inline: 50 rounds\ncampaign cut/tcp: 50 rounds\n  no campaign at all\n    campaign kill/uds/batch: 50 rounds\n";
        let rows = rows(log);
        assert_eq!(rows.len(), 3);
        assert_eq!(families(&rows), "1 cut, 2 kill");
    }

    #[test]
    fn the_page_of_a_long_run_has_its_rows_and_what_failed() {
        let log = "    campaign kill/shm: 1000 rounds\n        PASS [  38.1s] ( 1/46) sinew::campaign_kill shm::dies\n        FAIL [   1.0s] ( 2/46) sinew::campaign_cut cuts::one\n";
        let page = page(log, "0123abc", "1 May 2026");
        assert!(page.contains("commit 0123abc: 1 campaigns passed, 1 failed."));
        assert!(page.contains("\nkill/shm: 1000 rounds\n") && page.contains("- `campaign_cut cuts::one`"));
    }
}
