//! The rounds: one session lives through all of them.

use crate::campaign::{Random, rounds, seed};
use crate::common::until;
use crate::net::Host;
use crate::stream::{Side, begin, end, flows_on};
use crate::wire::{Fate, Weather, Wire};
use sinew_testing::skip;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Two hosts, each with an interface for each wire.
struct Net {
    hosts: [Host; 2],
    wires: Vec<Wire>,
}

fn address(wire: usize, host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, wire as u8, host as u8 + 1)
}

impl Net {
    fn new(wires: usize, mtu: u16, seed: u64) -> Result<Self, String> {
        let host = |number| {
            let addresses: Vec<Ipv4Addr> = (0..wires).map(|wire| address(wire, number)).collect();
            Host::new(&addresses, mtu)
        };
        let ((one, one_ends), (other, other_ends)) = (host(0)?, host(1)?);
        let ends = one_ends.into_iter().zip(other_ends);
        let wires = ends.enumerate().map(|(number, (one, other))| Wire::new([one, other], seed + number as u64));
        Ok(Self { wires: wires.collect(), hosts: [one, other] })
    }

    fn sides(&self, peer_timeout: Duration, may_be_lost: bool) -> [Side; 2] {
        [0, 1].map(|number| {
            let bind: Vec<String> =
                (0..self.wires.len()).map(|wire| address(wire, number).to_string()).collect();
            Side::new(&self.hosts[number], &bind.join(" "), peer_timeout, may_be_lost)
        })
    }
}

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
    for round in 0..rounds {
        let before = sides.each_mut().map(Side::seen);
        let start = Instant::now();
        let mut lane_ends = true;
        match round % 5 {
            0 | 1 => wire.reset_one(),
            2 => wire.half_close_one(),
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
            until("the lane was lost", || {
                sides.iter_mut().zip(&before).any(|(side, before)| side.seen().lanes_lost > before.lanes_lost)
            });
        }
        wire.set(Weather::default());
        flows_on(&mut sides, 2);
        taken.push(start.elapsed());
    }
    let done = wire.done();
    let seen = sides.each_mut().map(Side::seen);
    let messages = end(&mut sides);
    taken.sort();
    println!(
        "campaign cut/connections: {rounds} rounds, 0 lost, 0 doubled, 0 out of order of {messages} messages, {} resets, {} half-closed, {} packets lost, {} slowed, {} lanes lost, {} frames sent again, flowing again after {:?}/{:?} (median/max), seed {seed}",
        done.resets, done.half_closed, done.lost, done.late,
        seen[0].lanes_lost + seen[1].lanes_lost,
        seen[0].replayed + seen[1].replayed,
        taken[taken.len() / 2], taken[taken.len() - 1],
    );
    assert_eq!(seen.map(|seen| seen.sessions_lost), [0, 0], "a session outlives its lanes");
    assert!(done.resets >= 2 * (rounds / 5) && done.half_closed >= rounds / 5 && done.lost > 0);
    sides.map(Side::finish);
}
