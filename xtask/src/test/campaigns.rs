//! The step of the campaigns of faults: test programs that are called `campaign_*`, and the rows that they print.
//!
//! They run with all other tests, for few rounds. In the long run they run once more, by themselves, for many. Either way
//! their rows are kept in `target/campaigns.log`, for whoever reports on them.

use super::outcome::{self, Outcome, Runner};
use super::{Context, steps};
use anyhow::{Context as _, Result};
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
    }
    Ok(outcome)
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
}
