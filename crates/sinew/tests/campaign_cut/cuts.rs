//! The rounds: one session lives through all of them.

use crate::campaign::{Random, rounds, seed};
use crate::common::until;
use crate::stream::{Side, begin, end, flows_on};
use crate::times::spread;
use crate::wire::{Fate, Net, Weather, Wire};
use sinew_testing::skip;
use std::time::{Duration, Instant};

const PEER_TIMEOUT: Duration = Duration::from_secs(30);

/// Resets and half-closed connections end the lane, which is made again; what blackholes and slow wires do not end goes on.
#[test]
fn cut_connections_lose_nothing_and_double_nothing() {
    let (rounds, seed) = (rounds(), seed());
    let net = match Net::new(1, 9000, seed) {
        Ok(net) => net,
        Err(reason) => skip!("netns", "{reason}"),
    };
    let mut sides = net.sides(PEER_TIMEOUT, false);
    begin(&mut sides);
    flows_on(&mut sides, 2);
    let (wire, mut random) = (&net.wires[0], Random::new(seed));
    let mut taken = Vec::new();
    // From the reset, and from the half-close, until a side has noticed.
    let mut noticed = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let before = sides.each_mut().map(Side::seen);
        let start = Instant::now();
        let mut lane_ends = true;
        match round % 5 {
            0 | 1 => wire.reset_all(),
            2 => wire.half_close_all(),
            3 => {
                lane_ends = false;
                let mut fate = [Fate::Lost; 2];
                if random.in_thousand(500) {
                    fate[random.below(2) as usize] = Fate::Passes;
                }
                wire.set(Weather { fate, ..Weather::default() });
                let lost = wire.done().lost;
                until("packets were lost", || wire.done().lost > lost + 5);
            }
            _ => {
                lane_ends = false;
                wire.set(Weather { rate: 1_000_000, ..Weather::default() });
                let late = wire.done().late;
                until("packets were slow", || wire.done().late > late + 20);
            }
        }
        if lane_ends {
            until("connections are ended", || wire.ended_at().is_some());
            let ended = wire.ended_at().unwrap_or(start);
            // Once, and that must do.
            until("the end of its connection is noticed", || {
                sides.iter_mut().zip(&before).any(|(side, before)| side.seen().lanes_lost > before.lanes_lost)
            });
            noticed[usize::from(round % 5 == 2)].push(ended.elapsed());
        }
        wire.set(Weather::default());
        flows_on(&mut sides, 2);
        taken.push(start.elapsed());
    }
    let done = wire.done();
    let seen = sides.each_mut().map(Side::seen);
    let messages = end(&mut sides);
    println!(
        "campaign cut/connections: {rounds} rounds, 0 lost, 0 doubled, 0 out of order of {messages} messages, {} resets, {} half-closed, {} packets lost, {} slowed, {} lanes lost, {} frames sent again, resets noticed in {}, half-closes in {}, flowing again after {}, seed {seed}",
        done.resets,
        done.half_closed,
        done.lost,
        done.late,
        seen[0].lanes_lost + seen[1].lanes_lost,
        seen[0].replayed + seen[1].replayed,
        spread(&mut noticed[0]),
        spread(&mut noticed[1]),
        spread(&mut taken),
    );
    assert_eq!(seen.map(|seen| seen.sessions_lost), [0, 0], "a session outlives its lanes");
    assert!(done.resets >= 2 * (rounds / 5) && done.half_closed >= rounds / 5 && done.lost > 0);
    sides.into_iter().for_each(Side::finish);
}

/// One of two wires goes dead for good, again and again: the session moves to the other one before it is lost.
#[test]
fn a_dead_wire_beside_a_good_one_loses_nothing() {
    let (rounds, seed) = (rounds().div_ceil(10), seed());
    let net = match Net::new(2, 9000, seed) {
        Ok(net) => net,
        Err(reason) => skip!("netns", "{reason}"),
    };
    let mut sides = net.sides(Duration::from_secs(3), false);
    begin(&mut sides);
    flows_on(&mut sides, 2);
    let dead = Weather { fate: [Fate::Lost; 2], ..Weather::default() };
    let (mut taken, mut moved) = (Vec::new(), 0);
    for _ in 0..rounds {
        let passed = |wire: &Wire| wire.done().passed;
        let before: Vec<u64> = net.wires.iter().map(passed).collect();
        flows_on(&mut sides, 5);
        let grown = net.wires.iter().zip(&before).map(|(wire, before)| passed(wire) - before);
        let busy = grown.enumerate().max_by_key(|(_, grown)| *grown).map_or(0, |(number, _)| number);
        let start = Instant::now();
        net.wires[busy].set(dead);
        let lost = net.wires[busy].done().lost;
        until("packets were lost", || net.wires[busy].done().lost > lost + 3);
        let other = passed(&net.wires[1 - busy]);
        flows_on(&mut sides, 2);
        taken.push(start.elapsed());
        moved += u64::from(passed(&net.wires[1 - busy]) > other);
        net.wires[busy].set(Weather::default());
    }
    let seen = sides.each_mut().map(Side::seen);
    let messages = end(&mut sides);
    println!(
        "campaign cut/second wire: {rounds} rounds, {moved} moves, 0 lost, 0 doubled of {messages} messages, {} lanes lost, flowing again after {} (peer_timeout 3 s), seed {seed}",
        seen[0].lanes_lost + seen[1].lanes_lost,
        spread(&mut taken),
    );
    assert_eq!(seen.map(|seen| seen.sessions_lost), [0, 0], "a session outlives its lanes");
    assert_eq!(moved, rounds, "each time the other wire carried on");
    sides.into_iter().for_each(Side::finish);
}
