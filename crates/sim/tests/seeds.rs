//! Thousands of seeds, and that the checker would notice: the same seed twice, and lanes that break their contract on purpose.
//!
//! `SINEW_SEED` says where the seeds begin (default 0), `SINEW_SIM_SEEDS` how many of each weather run.

use sinew_sim::command::{Summary, processors, run_many};
use sinew_sim::{Breach, Setting, Weather, run};

/// Runs seeds of one weather: so many in CI, four times as many with `cargo xtask test --long`.
fn seeds(weather: Weather, count: u64) -> Summary {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let count = if std::env::var_os("XTASK_LONG").is_some() { 4 * count } else { count };
    let (from, count) = (number("SINEW_SEED").unwrap_or(0), number("SINEW_SIM_SEEDS").unwrap_or(count));
    let setting = Setting { weather: Some(weather), ..Setting::default() };
    let summary = run_many(from, count, processors(), &setting);
    println!("{weather:?}: {summary}");
    assert!(summary.failed.is_empty(), "{summary}");
    assert_eq!(summary.seeds, count);
    assert!(summary.received > 20 * count, "hardly anything came: {summary}");
    assert!(count < 100 || summary.called > count, "hardly any call of a function: {summary}");
    assert!(count < 100 || summary.stripes > count / 4, "hardly any stripe: {summary}");
    summary
}

/// What hit nothing proves nothing.
fn hits(summary: &Summary, faults: &[&str]) {
    for &fault in faults {
        let hits = summary.faults.get(fault).copied().unwrap_or_default();
        assert!(hits >= summary.seeds / 50, "hardly any {fault}: {summary}");
    }
}

#[test]
fn calm_weather_loses_delays_and_doubles_nothing() {
    seeds(Weather::Calm, 400);
}

#[test]
fn rough_weather_ends_no_session() {
    let summary = seeds(Weather::Rough, 800);
    hits(&summary, &["cut", "block"]);
    assert!(summary.lanes_lost > summary.seeds && summary.replayed > 0, "{summary}");
}

#[test]
fn wild_weather_breaks_no_promise() {
    let summary = seeds(Weather::Wild, 1000);
    hits(&summary, &["cut", "block", "fence", "kill", "crash", "close", "stop", "lose"]);
}

/// Chosen ones, and any that has failed: `tests/kept.txt`.
#[test]
fn a_seed_that_is_kept_breaks_no_promise() {
    let (mut stripes, mut faults) = (0, std::collections::BTreeSet::new());
    let mut kept = 0;
    for line in include_str!("kept.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let weather = match words.next() {
            Some("calm") => Weather::Calm,
            Some("rough") => Weather::Rough,
            Some("wild") => Weather::Wild,
            other => panic!("no weather {other:?} in {line}"),
        };
        let seed = words.next().and_then(|number| number.parse().ok()).expect("a number of a seed");
        let report = run(seed, &Setting { weather: Some(weather), ..Setting::default() });
        assert!(report.violations.is_empty(), "{}: {:#?}", report.replay(), report.violations);
        stripes += report.stripes;
        faults.extend(report.faults);
        kept += 1;
    }
    assert!(kept >= 20 && stripes > 0 && faults.len() >= 6, "{kept} seeds, {stripes} stripes, {faults:?}");
}

/// Stripes of a lane that was lost, after their message was answered or while the lane had not said yet what it had let go of: in
/// each of these seeds a send never ended, in the history that it had when that was found. The engine's rig has both by hand.
#[test]
fn memory_of_stripes_comes_back_when_their_lane_is_lost() {
    for seed in [3038, 12956, 14980, 17987] {
        let report = run(seed, &Setting::default());
        assert!(report.violations.is_empty(), "{}: {:#?}", report.replay(), report.violations);
        assert!(report.stripes > 0 && report.lanes_lost > 0, "{}", report.replay());
    }
}

#[test]
fn one_seed_is_one_history() {
    let histories = |weather| {
        let setting = Setting { weather, ..Setting::default() };
        let hashes = |_| (5000..5020).map(|seed| run(seed, &setting).hash).collect::<Vec<u64>>();
        let (first, second) =
            (hashes(1), std::thread::scope(|scope| scope.spawn(|| hashes(2)).join().unwrap()));
        assert_eq!(first, second);
        let different: std::collections::HashSet<u64> = first.iter().copied().collect();
        assert_eq!(different.len(), first.len(), "two seeds have the same history");
    };
    histories(Some(Weather::Calm));
    histories(Some(Weather::Rough));
    histories(Some(Weather::Wild));
}

/// Runs seeds in calm weather, each with one breach of the lane contract, until so many were made. How many were noticed.
fn noticed(breach: Breach, wanted: u64) -> u64 {
    let (mut made, mut noticed) = (0, 0);
    for seed in 7000..9000 {
        let setting =
            Setting { weather: Some(Weather::Calm), breach: Some((breach, seed % 7)), ..Setting::default() };
        let report = run(seed, &setting);
        if report.breached {
            made += 1;
            noticed += u64::from(!report.violations.is_empty());
        }
        if made == wanted {
            return noticed;
        }
    }
    panic!("{breach:?} was made {made} times only")
}

#[test]
fn a_frame_that_a_living_lane_drops_is_noticed() {
    // One to an endpoint that closes before it receives may as well not have come.
    let noticed = noticed(Breach::Drop, 40);
    assert!(noticed >= 32, "{noticed} of 40");
}

#[test]
fn a_frame_that_a_lane_delivers_twice_is_noticed() {
    let noticed = noticed(Breach::Twice, 40);
    assert!(noticed >= 36, "{noticed} of 40");
}

#[test]
fn a_byte_that_a_lane_changes_is_noticed() {
    // As may what a receive of less room does not show.
    let noticed = noticed(Breach::Garble, 40);
    assert!(noticed >= 32, "{noticed} of 40");
}

#[test]
fn frames_that_a_lane_swaps_are_noticed() {
    // Two messages that no receive wants both of may come in either order.
    let noticed = noticed(Breach::Swap, 40);
    assert!(noticed >= 10, "{noticed} of 40");
}
