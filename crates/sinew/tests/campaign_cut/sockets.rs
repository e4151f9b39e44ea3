//! A wire that limits each connection: a session grows more of them, carries more, and gives them up when they are not needed.

use crate::campaign::{rounds, seed};
use crate::common::until;
use crate::stream::{Side, begin, end, flows_on};
use crate::wire::{Net, Weather};
use sinew_testing::skip;
use std::time::{Duration, Instant};

/// Of each connection, far below what the wire carries in all.
const LIMITED: Weather = Weather {
    fate: [crate::wire::Fate::Passes; 2],
    delay: Duration::ZERO,
    lost: 0,
    doubled: 0,
    reordered: 0,
    rate: 3_000_000,
};

/// Messages per second that come to the second side, counted over so many of them.
fn rate(sides: &mut [Side; 2], messages: u64) -> f64 {
    let received = |sides: &mut [Side; 2]| sides[1].seen().received.iter().sum::<u64>();
    let (before, start) = (received(sides), Instant::now());
    until("messages come", || received(sides) >= before + messages);
    (received(sides) - before) as f64 / start.elapsed().as_secs_f64()
}

#[test]
fn a_limit_of_each_connection_makes_a_session_grow_and_carry_more() {
    let seed = seed();
    let net = match Net::new(1, 9000, seed) {
        Ok(net) => net,
        Err(reason) => skip!("netns", "{reason}"),
    };
    net.wires[0].set(LIMITED);
    grows(&net, "by the wire", seed);
}

#[test]
fn a_limit_by_tc_makes_a_session_grow_and_carry_more() {
    let seed = seed();
    let net = match Net::new(1, 9000, seed) {
        Ok(net) => net,
        Err(reason) => skip!("netns", "{reason}"),
    };
    if let Err(reason) = net.limit_by_tc() {
        skip!("tc", "{reason}");
    }
    grows(&net, "by tc", seed);
}

fn grows(net: &Net, limited: &str, seed: u64) {
    let mut sides = net.bulk_sides(["single", "single"]);
    begin(&mut sides);
    let single = rate(&mut sides, 15);
    assert_eq!(sides.each_mut().map(|side| (side.sockets().now, side.sockets().added)), [(1, 0), (1, 0)]);
    end(&mut sides);
    sides.into_iter().for_each(Side::finish);

    let mut sides = net.bulk_sides(["auto", "auto"]);
    begin(&mut sides);
    until("the session grows", || sides[0].sockets().now >= 3);
    // Three sockets carry three times as much; trials and what the machine does meanwhile take their part of that.
    let (mut grown, mut here) = (0.0, sides[0].sockets());
    until("more sockets carry more", || {
        grown = rate(&mut sides, 30);
        here = sides[0].sockets();
        grown > 1.5 * single && here.now > 1
    });
    let explain = sides[0].ask("explain");
    let messages = end(&mut sides);
    // Two stay when each side sends on another one after the one that both had is lost.
    let mut look = 0;
    until("what is not needed any more is closed", || {
        look += 1;
        if look % 2000 == 0 {
            // For whoever reads why it failed.
            println!("{}\n{}", sides[0].ask("explain"), sides[1].ask("explain"));
        }
        sides.iter_mut().all(|side| side.sockets().now <= 2)
    });
    println!(
        "limit of each connection {limited}: {single:.1} messages/s by one socket, {grown:.1} ({:.1} x) by {}, {messages} messages, none lost, doubled or out of order, {} added, {} closed again, {} stripes, seed {seed}\n{explain}",
        grown / single,
        here.now,
        here.added,
        sides[0].sockets().dropped + sides[1].sockets().dropped,
        here.stripes,
    );
    assert!(explain.contains(" sockets: "), "{explain}");
    assert_eq!(sides.each_mut().map(|side| side.seen().sessions_lost), [0, 0]);
    sides.into_iter().for_each(Side::finish);
}

#[test]
fn sockets_that_are_reset_are_replaced_and_nothing_is_lost() {
    let (rounds, seed) = (rounds(), seed());
    let net = match Net::new(1, 9000, seed) {
        Ok(net) => net,
        Err(reason) => skip!("netns", "{reason}"),
    };
    net.wires[0].set(Weather { rate: 20_000_000, ..LIMITED });
    let mut sides = net.bulk_sides(["4", "auto"]);
    begin(&mut sides);
    until("all four are there", || sides[0].sockets().now == 4);
    let mut taken = Vec::new();
    for _ in 0..rounds {
        let (resets, start) = (net.wires[0].done().resets, Instant::now());
        net.wires[0].reset_one();
        until("one is reset", || net.wires[0].done().resets > resets);
        flows_on(&mut sides[1..], 1);
        until("there are four again", || {
            let lost = sides[0].seen().lanes_lost + sides[1].seen().lanes_lost;
            lost > 0 && sides[0].sockets().now == 4
        });
        taken.push(start.elapsed());
    }
    let (lost, resets) = (sides.each_mut().map(|side| side.seen().lanes_lost), net.wires[0].done().resets);
    let (replayed, there) = (sides[0].seen().replayed, sides[0].sockets());
    let messages = end(&mut sides);
    taken.sort();
    println!(
        "campaign cut/sockets: {rounds} rounds, {resets} resets of one of four sockets, {lost:?} lanes lost, {} added, 0 lost, 0 doubled, 0 out of order of {messages} messages, {replayed} frames sent again, {} stripes, four again after {:?}/{:?} (median/max), seed {seed}",
        there.added,
        there.stripes,
        taken[taken.len() / 2],
        taken[taken.len() - 1],
    );
    assert!(resets >= rounds && lost[0].max(lost[1]) >= rounds / 2 && there.stripes > 0);
    assert_eq!(sides.each_mut().map(|side| side.seen().sessions_lost), [0, 0]);
    sides.into_iter().for_each(Side::finish);
}
