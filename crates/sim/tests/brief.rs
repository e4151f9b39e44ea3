//! Brief seeds: two engines and a few short messages, for an interpreter, which takes a minute or more for each (`cargo xtask miri`).
//!
//! All of an engine but its system calls is looked at that way: the table of operations, what is held and counted under the
//! lock, the short ways, loans, and what ends early. Natively hundreds run, so that a brief seed that fails is found here first.

use sinew_sim::command::run_many;
use sinew_sim::{Setting, Weather};

fn brief(weather: Weather, from: u64, count: u64) {
    let setting = Setting { weather: Some(weather), brief: true, ..Setting::default() };
    let summary = run_many(from, count, 1, &setting);
    println!("{weather:?}: {summary}");
    assert!(summary.failed.is_empty(), "{summary}");
    assert!(summary.received > 5 * count, "hardly anything came: {summary}");
}

/// Over memory, with loans, pulls, envelopes and bundles.
#[test]
fn a_brief_seed_of_calm_weather() {
    brief(Weather::Calm, 22, 1);
}

/// Through the lossy network, with lanes that are lost and frames that are sent again.
#[test]
fn a_brief_seed_of_rough_weather() {
    brief(Weather::Rough, 2, 1);
}

#[test]
#[cfg_attr(miri, ignore = "hours for an interpreter")]
fn brief_seeds_break_no_promise() {
    brief(Weather::Calm, 0, 150);
    brief(Weather::Rough, 0, 150);
    brief(Weather::Wild, 0, 150);
}
