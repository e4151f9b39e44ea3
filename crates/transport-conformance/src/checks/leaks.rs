//! Nothing is left behind.

use crate::Fixture;
use crate::harness::{DEADLINE, LANE, Pair, Random, Side, Target, connect};
use sinew_transport::{ListenScope, Token};
use std::time::{Duration, Instant};

/// Domains, links and lanes, ended in every way, give back every descriptor.
pub fn no_descriptor_is_left_open(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    // What a process opens once for all stays.
    round(&fixture, 0);
    let before = open_descriptors();
    for number in 1..20 {
        round(&fixture, number);
    }
    let deadline = Instant::now() + DEADLINE;
    while open_descriptors() > before {
        assert!(
            Instant::now() < deadline,
            "{} descriptors before, {} after: {:?}",
            before,
            open_descriptors(),
            names()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn round(fixture: &Fixture, number: u64) {
    let mut pair = Pair::new(fixture);
    let body = Target::filled(5000, 1);
    pair.send_borrowed(&Random(1).header(1), &body, Token(1));
    if number.is_multiple_of(2) {
        pair.drive("it arrived", |_, b| !b.seen.got.is_empty());
        pair.a.lane().close();
    } else {
        pair.b.die();
        pair.a.turn(1);
    }
    drop(pair);
    let mut a = Side::open(fixture, ListenScope::Nobody);
    let mut b = Side::open(fixture, ListenScope::ThisUser);
    let links = connect(&mut a, &mut b, LANE);
    // A dial that is never accepted, and one that fails.
    let locator = b.domain.locators().remove(0);
    let pending = a.domain.dial(&locator, LANE + 1);
    if number.is_multiple_of(3) {
        drop(links);
    }
    drop(b);
    drop(pending);
    drop(a.domain.dial(&locator, LANE + 2));
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn names() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|path| path.display().to_string())
        .collect()
}
