//! Bad wires: packets lost, doubled, late and out of order, and a limited rate for each connection. Streams go on, whole.

use crate::campaign::{Random, rounds, seed};
use crate::stream::{Side, begin, end, flows_on};
use crate::wire::{Net, Weather};
use sinew_testing::skip;
use std::time::{Duration, Instant};

#[test]
fn streams_over_bad_wires_are_complete_and_in_order() {
    let (rounds, seed) = (rounds(), seed());
    let net = match Net::new(1, 1500, seed) {
        Ok(net) => net,
        Err(reason) => skip!("netns", "{reason}"),
    };
    let mut sides = net.sides(Duration::from_secs(60), false);
    begin(&mut sides);
    let (wire, mut random) = (&net.wires[0], Random::new(seed));
    let mut taken = Vec::new();
    for _ in 0..rounds {
        wire.set(Weather {
            lost: 10 + random.below(41) as u32,
            reordered: random.below(50) as u32,
            doubled: random.below(20) as u32,
            delay: Duration::from_micros(random.below(1000)),
            rate: [0, 4_000_000, 20_000_000][random.below(3) as usize],
            ..Weather::default()
        });
        let start = Instant::now();
        flows_on(&mut sides, 1);
        taken.push(start.elapsed());
    }
    wire.set(Weather::default());
    let done = wire.done();
    let seen = sides.each_mut().map(Side::seen);
    let messages = end(&mut sides);
    taken.sort();
    println!(
        "campaign cut/slow: {rounds} rounds, 0 lost, 0 doubled, 0 out of order of {messages} messages, {} packets passed, {} lost, {} out of order, {} doubled, {} late, all flows moved on within {:?}/{:?} (median/max), seed {seed}",
        done.passed,
        done.lost,
        done.reordered,
        done.doubled,
        done.late,
        taken[taken.len() / 2],
        taken[taken.len() - 1],
    );
    assert_eq!(seen.map(|seen| seen.sessions_lost), [0, 0], "a bad wire is no dead one");
    assert!(done.lost > 0 && done.reordered > 0 && done.doubled > 0 && done.late > 0);
    sides.into_iter().for_each(Side::finish);
}
