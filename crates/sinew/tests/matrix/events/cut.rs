//! The lane between A and B fails again and again under load, from both sides, and is replaced.
//!
//! Nothing is lost or doubled, no operation ends by it: a receive that waits gets its message afterwards, a send that waits
//! arrives. `cut` makes a lane of any transport fail as its own error would: the rings of shared memory are given up with their
//! socket, a connection is closed.

use crate::common::{PATIENCE, until};
use crate::forms::Wanted;
use crate::partner::{Partner, all, drink, flows_on, pour};
use crate::world::{Cell, FLOW, FLOW_END, LATE, World, fill, fill_up, load, number_of};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const CUTS: u64 = 8;

pub(crate) fn cell(cell: Cell) {
    let world = World::new(cell);
    let partner = Partner::new(&world);
    let filled = fill_up(&partner.to_idle, cell.size);
    let (drunk, poured) = (AtomicU64::new(0), AtomicU64::new(0));
    let (stop, never) = (AtomicBool::new(false), AtomicBool::new(false));
    let wanted = |tag| Wanted::from(tag, partner.to_b.source());
    let (form, a, room) = (&world.form, &world.a, world.room());
    std::thread::scope(|scope| {
        let there = scope.spawn(|| drink(&partner.b, cell.size).unwrap());
        let back = scope.spawn(|| {
            pour(&partner.to_a, cell.size, |_| stop.load(Ordering::Acquire)).expect("the session lives")
        });
        let drinker = scope.spawn(|| world.drink(wanted(FLOW).stream(), &drunk, &never));
        let pourer = scope.spawn(|| world.pour(&partner.to_b, &poured, &stop));
        let waiting = scope.spawn(|| form.recv(a, wanted(LATE), room, PATIENCE));
        let last = load(&partner.to_idle, cell.size, filled);
        let held_back = scope.spawn(|| form.send(&partner.to_idle, FLOW, last, PATIENCE));
        for number in 0..CUTS {
            cut(&world, &partner, number);
            if number % 3 != 2 {
                flows_on(&[&drunk, &poured], 2);
            }
        }
        world.calm.goes_on();
        stop.store(true, Ordering::Release);
        assert_eq!(pourer.join().unwrap().unwrap(), all(&there.join().unwrap()), "from A to B");
        assert_eq!(back.join().unwrap(), drinker.join().unwrap().unwrap(), "from B to A");
        let late = partner.post(cell.size, LATE, 7);
        assert_eq!(number_of(waiting.join().unwrap().bytes()), 7);
        late.wait_within(PATIENCE).unwrap();
        let drain = scope.spawn(|| drink(&partner.idle, cell.size).unwrap());
        held_back.join().unwrap().expect("it went in the end");
        let mut end = [0; 8];
        fill(&mut end, filled + 1);
        partner.to_idle.message(FLOW_END).timeout(PATIENCE).send(&end).unwrap();
        assert_eq!(all(&drain.join().unwrap()), filled + 1);
    });
    assert_eq!(
        (world.here.counters().sessions_lost, partner.engine.counters().sessions_lost),
        (0, 0),
        "a session outlives its lanes"
    );
    drop(partner);
    world.finish();
}

/// One lane fails, now and then in the middle of a repair.
fn cut(world: &World, partner: &Partner, number: u64) {
    until("there is a lane to cut", || match number % 2 {
        0 => world.here.cut(&partner.to_b),
        _ => partner.engine.cut(&partner.to_a),
    });
}
