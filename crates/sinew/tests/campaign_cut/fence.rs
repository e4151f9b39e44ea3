//! A blackhole longer than `peer_timeout` ends the session on both sides with a reason, and nothing of it arrives later,
//! neither what the systems had not sent nor what was on its way; a new session works at once.

use crate::campaign::{Random, rounds, seed};
use crate::common::until;
use crate::stream::{FLOWS, Side, begin, begin_one_way, end, flows_on};
use crate::times::spread;
use crate::wire::{Fate, Net, Weather};
use sinew_testing::skip;
use std::time::{Duration, Instant};

/// Pairs of processes that are cut side by side, as most of the time is spent waiting.
const PAIRS: u64 = 6;
const PEER_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Result {
    rounds: u64,
    held: usize,
    /// From the cut to the end of the session, as seen here.
    ended_after: Vec<Duration>,
}

/// What has come for the endpoints of a side, once it has read what had passed the wire before the cut.
fn settled(side: &mut Side) -> String {
    let (mut level, mut same) = (side.ask("level"), 0);
    until("everything is read", || {
        let now = side.ask("level");
        same = if now == level { same + 1 } else { 0 };
        level = now;
        same == 30
    });
    level
}

fn one_pair(net: &Net, rounds: u64, seed: u64) -> Result {
    let mut sides = net.sides(PEER_TIMEOUT, true);
    let (wire, mut random) = (&net.wires[0], Random::new(seed));
    let mut result = Result::default();
    // What had come for the endpoints of the session before, on each side.
    let mut levels: Option<Vec<String>> = None;
    for _ in 0..=rounds {
        // The last session ends in order, for which both must send.
        let one_way = result.rounds < rounds && random.in_thousand(300);
        if one_way {
            begin_one_way(&mut sides);
            flows_on(&mut sides[1..], 2);
        } else {
            begin(&mut sides);
            flows_on(&mut sides, 2);
        }
        if let Some(levels) = levels {
            let now: Vec<String> = sides.iter_mut().map(|side| side.ask("level before")).collect();
            assert_eq!(now, levels, "something of a session that was lost has come later");
        }
        if result.rounds == rounds {
            break;
        }
        let fate = if random.in_thousand(500) { Fate::Held } else { Fate::Lost };
        let before = sides.each_mut().map(|side| side.seen().sessions_lost);
        let start = Instant::now();
        wire.set(Weather { fate: [fate; 2], ..Weather::default() });
        let mut lost = [false; 2];
        // What is held may come back only when both have given up; what is lost is lost.
        let enough = if fate == Fate::Held { 2 } else { 1 + random.below(2) as usize };
        until("the session is lost", || {
            for (at, side) in sides.iter_mut().enumerate() {
                if !lost[at] && side.seen().sessions_lost > before[at] {
                    lost[at] = true;
                    result.ended_after.push(start.elapsed());
                }
            }
            lost.iter().filter(|lost| **lost).count() >= enough
        });
        let given_up = lost;
        let reached: Vec<String> = sides.iter_mut().map(settled).collect();
        wire.set(Weather::default());
        result.held += wire.release();
        for (at, side) in sides.iter_mut().enumerate() {
            let ended = side.join();
            let operations = if one_way && at == 1 { FLOWS } else { 2 * FLOWS } as u64;
            assert_eq!(ended.lost, operations, "each operation ends with the session: {}", side.ask("why"));
            let why = side.ask("why");
            assert!(why.contains("the peer is lost: ") && why.contains("connect again"), "{why}");
            let knew = given_up[at];
            assert_eq!(reached[at], side.ask("level"), "came later; gave up itself: {knew}, {fate:?}: {why}");
        }
        levels = Some(reached);
        result.rounds += 1;
    }
    // The last session lives on.
    for side in &mut sides {
        assert_eq!(side.ask("stop"), "stopping");
    }
    sides.iter_mut().for_each(|side| drop(side.join()));
    sides.into_iter().for_each(Side::finish);
    result
}

fn nets(pairs: u64, seed: u64) -> std::result::Result<Vec<Net>, String> {
    (0..pairs).map(|pair| Net::new(1, 9000, seed + pair)).collect()
}

#[test]
fn a_blackhole_longer_than_peer_timeout_fences_the_session() {
    let (rounds, seed) = (rounds(), seed());
    let nets = match nets(PAIRS, seed) {
        Ok(nets) => nets,
        Err(reason) => skip!("netns", "{reason}"),
    };
    let results: Vec<Result> = std::thread::scope(|scope| {
        let pairs = nets.iter().enumerate().map(|(number, net)| {
            scope.spawn(move || one_pair(net, rounds.div_ceil(PAIRS), seed ^ number as u64))
        });
        let pairs: Vec<_> = pairs.collect();
        pairs.into_iter().map(|pair| pair.join().unwrap()).collect()
    });
    let mut after: Vec<Duration> = results.iter().flat_map(|result| result.ended_after.clone()).collect();
    after.sort();
    let count: u64 = results.iter().map(|result| result.rounds).sum();
    let held: usize = results.iter().map(|result| result.held).sum();
    println!(
        "campaign cut/fence: {count} rounds, {held} packets held on the way, 0 messages later, lost after {:?} at the earliest, {} (peer_timeout {PEER_TIMEOUT:?}), seed {seed}",
        after[0],
        spread(&mut after.clone()),
    );
    assert!(count >= rounds && held > 0);
    assert!(after[0] >= PEER_TIMEOUT * 9 / 10, "lost before its time");
}

/// More of them, as they wait longer.
const GAP_PAIRS: u64 = 16;
const LONGER: Duration = Duration::from_secs(6);
/// So often everything takes twice the time, where a machine is too busy to make gaps that are short enough.
const SLOWER: u32 = 2;

/// What came of the gaps of one pair.
#[derive(Default)]
struct Gaps {
    rounds: u64,
    lanes_lost: u64,
    after: Vec<Duration>,
    /// A gap took so long that the session could have been lost by right.
    late: bool,
}

/// The only wire is dead for a time that is long enough to end the lane and too short to end the session.
fn gaps(net: &Net, rounds: u64, seed: u64, peer_timeout: Duration) -> Gaps {
    let mut sides = net.sides(peer_timeout, false);
    let (wire, mut random) = (&net.wires[0], Random::new(seed));
    let mut gaps = Gaps::default();
    begin(&mut sides);
    flows_on(&mut sides, 2);
    for _ in 0..rounds {
        let start = Instant::now();
        wire.set(Weather { fate: [Fate::Lost; 2], ..Weather::default() });
        let share = 600 + random.below(100) as u32;
        std::thread::sleep(peer_timeout * share / 1000); // This is the fault, not a wait for something.
        wire.set(Weather::default());
        if start.elapsed() > peer_timeout * 3 / 4 {
            return Gaps { late: true, ..gaps };
        }
        let back = Instant::now();
        flows_on(&mut sides, 2);
        gaps.after.push(back.elapsed());
        gaps.rounds += 1;
    }
    let seen = sides.each_mut().map(Side::seen);
    end(&mut sides);
    assert_eq!(seen.each_ref().map(|seen| seen.sessions_lost), [0, 0], "a gap shorter than peer_timeout");
    sides.into_iter().for_each(Side::finish);
    gaps.lanes_lost = seen[0].lanes_lost + seen[1].lanes_lost;
    gaps
}

/// [`gaps`], with more time when the machine is too busy.
fn gaps_in_time(net: &Net, rounds: u64, seed: u64) -> Gaps {
    let mut done = Gaps::default();
    for slower in 0..=SLOWER {
        let now = gaps(net, rounds - done.rounds, seed + u64::from(slower), LONGER * 2u32.pow(slower));
        done.rounds += now.rounds;
        done.lanes_lost += now.lanes_lost;
        done.after.extend(now.after);
        if !now.late {
            break;
        }
    }
    done
}

#[test]
fn a_gap_shorter_than_peer_timeout_loses_nothing() {
    let (rounds, seed) = (rounds(), seed());
    let nets = match nets(GAP_PAIRS, seed) {
        Ok(nets) => nets,
        Err(reason) => skip!("netns", "{reason}"),
    };
    let results: Vec<Gaps> = std::thread::scope(|scope| {
        let pairs = nets.iter().enumerate().map(|(number, net)| {
            scope.spawn(move || gaps_in_time(net, rounds.div_ceil(GAP_PAIRS), seed ^ (number as u64) << 8))
        });
        let pairs: Vec<_> = pairs.collect();
        pairs.into_iter().map(|pair| pair.join().unwrap()).collect()
    });
    let count: u64 = results.iter().map(|result| result.rounds).sum();
    let lanes: u64 = results.iter().map(|result| result.lanes_lost).sum();
    let mut after: Vec<Duration> = results.into_iter().flat_map(|result| result.after).collect();
    println!(
        "campaign cut/gap: {count} rounds of 60 to 70 % of peer_timeout, 0 sessions lost, {lanes} lanes lost, flowing again after {}, seed {seed}",
        spread(&mut after),
    );
    assert!(lanes > 0 && count >= rounds, "{count} rounds, {lanes} lanes lost");
}
