//! Thousands of seeds, and that the checker would notice: the same seed twice, and lanes that break their contract on purpose.
//!
//! How many seeds run comes from `SINEW_SIM_SEEDS` (default 2000), where they begin from `SINEW_SEED` (default 0).

use sinew_sim::command::{processors, run_many};
use sinew_sim::{Breach, Setting, Weather, run};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn thousands_of_seeds_break_no_promise() {
    let (from, count) = (number("SINEW_SEED", 0), number("SINEW_SIM_SEEDS", 2000));
    let summary = run_many(from, count, processors(), &Setting::default());
    println!("{summary}");
    assert!(summary.failed.is_empty(), "{summary}");
    assert_eq!(summary.seeds, count);
    if count < 1000 {
        return;
    }
    // What hit nothing proves nothing.
    for fault in ["cut", "block", "fence", "kill", "crash", "close", "stop", "lose"] {
        assert!(summary.faults.get(fault).is_some_and(|&hits| hits > 10), "hardly any {fault}: {summary}");
    }
    assert!(summary.received > 20 * count && summary.lanes_lost > count && summary.replayed > 0, "{summary}");
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
            Setting { trace: false, weather: Some(Weather::Calm), breach: Some((breach, seed % 7)) };
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
