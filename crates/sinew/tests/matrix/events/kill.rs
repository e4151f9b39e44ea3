//! The peer's process is killed while messages flow both ways and operations wait.
//!
//! Every operation towards it ends with `PeerLost`, not by `peer_timeout`; what came before came whole and in order. The talk
//! with C goes on, a receive from anybody takes C's message, and a handler too. The session stays over.

use crate::common::PATIENCE;
use crate::forms::Wanted;
use crate::partner::{Process, flows_on};
use crate::world::{ANYBODY, Cell, FLOW, LATE, World, assert_lost, fill_up, is_lost, load, number_of};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) fn cell(cell: Cell) {
    let world = World::new(cell);
    let mut process = Process::start(&world);
    let (to_b, to_idle) = (process.to_b.clone(), process.to_idle.clone());
    let wanted = |tag| Wanted::from(tag, to_b.source());
    fill_up(&to_idle, cell.size);
    let (drunk, poured) = (AtomicU64::new(0), AtomicU64::new(0));
    let (over, never) = (AtomicBool::new(false), AtomicBool::new(false));
    // A handler hears of no death: it wants messages of anybody, and gets those of C.
    let stream = if world.form.is_told() { wanted(FLOW) } else { Wanted::from_anybody(FLOW) };
    let (form, a, room) = (&world.form, &world.a, world.room());
    std::thread::scope(|scope| {
        let drinker = scope.spawn(|| world.drink(stream.stream(), &drunk, &over));
        let pourer = scope.spawn(|| world.pour(&to_b, &poured, &never));
        let waiting = form.is_told().then(|| scope.spawn(|| form.recv(a, wanted(LATE), room, PATIENCE)));
        let anybody = scope.spawn(|| form.recv(a, Wanted::from_anybody(ANYBODY), room, PATIENCE));
        let held_back = scope.spawn(|| form.send(&to_idle, FLOW, load(&to_idle, cell.size, 0), PATIENCE));
        flows_on(&[&drunk, &poured], cell.size.many());
        process.other.kill();
        let error = pourer.join().unwrap().expect_err("nobody is there");
        assert_lost("a send", &Err(error));
        assert_lost("a send that waits", &held_back.join().unwrap());
        if let Some(waiting) = waiting {
            let got = waiting.join().unwrap();
            assert_lost("a receive that waits", &got.result);
            assert!(got.is_untouched(), "nothing ever came for it");
            assert_lost("the stream", &drinker.join().unwrap().map(|len| len as usize));
        } else {
            over.store(true, Ordering::Release);
            let len = drinker.join().unwrap().unwrap();
            assert_eq!(len, drunk.load(Ordering::Acquire));
        }
        world.calm.goes_on();
        let sent = world.calm.to_a.post_send(ANYBODY, load(&world.calm.to_a, cell.size, 5)).unwrap();
        let got = anybody.join().unwrap();
        assert_eq!(number_of(got.bytes()), 5, "C's message, for the receive that wants anybody's");
        sent.wait_within(PATIENCE).unwrap();
    });
    assert!(world.form.send(&to_b, FLOW, load(&to_b, cell.size, 0), PATIENCE).is_err_and(|e| is_lost(&e)));
    assert!(!to_b.is_connected());
    drop((to_b, to_idle, process));
    world.finish();
}
