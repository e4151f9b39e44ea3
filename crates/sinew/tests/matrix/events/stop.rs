//! The peer's process stands still for a while (SIGSTOP, SIGCONT) under load.
//!
//! Operations towards it end at their own deadline, what has a longer one waits. The talk with C goes on. Afterwards both
//! streams go on without a gap, the message that was waited for in vain goes to the next receive, and the send that was given
//! up has not arrived.

use crate::common::PATIENCE;
use crate::partner::{Process, flows_on};
use crate::world::{Cell, FLOW, FLOW_END, LATE, SHORT, World, fill, fill_up, is_lost, load, number_of};
use sinew::OpError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) fn cell(cell: Cell) {
    let world = World::new(cell);
    let mut process = Process::start(&world);
    let (to_b, to_idle) = (process.to_b.clone(), process.to_idle.clone());
    let filled = fill_up(&to_idle, cell.size);
    let (drunk, poured) = (AtomicU64::new(0), AtomicU64::new(0));
    let (stop, never) = (AtomicBool::new(false), AtomicBool::new(false));
    let wanted = process.wanted(FLOW).stream();
    let late = process.wanted(LATE);
    std::thread::scope(|scope| {
        let drinker = scope.spawn(|| world.drink(wanted, &drunk, &never));
        let pourer = scope.spawn(|| world.pour(&to_b, &poured, &stop));
        flows_on(&[&drunk, &poured], cell.size.many());
        process.other.signal(libc::SIGSTOP);
        world.calm.goes_on();
        let got = world.form.recv(&world.a, late, world.room(), SHORT);
        assert_given_up("a receive", &got.result);
        assert!(got.is_untouched());
        let sent = world.form.send(&to_idle, FLOW, load(&to_idle, cell.size, 9), SHORT);
        assert_given_up("a send", &sent);
        world.calm.goes_on();
        process.other.signal(libc::SIGCONT);
        flows_on(&[&drunk, &poured], cell.size.many());
        stop.store(true, Ordering::Release);
        let total = pourer.join().unwrap().unwrap();
        assert_eq!(process.ask("drunk"), total.to_string(), "what B got");
        assert_eq!(process.ask("stop"), drinker.join().unwrap().unwrap().to_string(), "what A got");
    });
    process.other.tell("late");
    let got = world.form.recv(&world.a, late, world.room(), PATIENCE);
    assert_eq!(number_of(got.bytes()), 7);
    assert_eq!(process.other.line(), "sent");
    process.other.tell("drain");
    let mut end = vec![0; 8];
    fill(&mut end, filled);
    to_idle.message(FLOW_END).timeout(PATIENCE).send(&end).unwrap();
    assert_eq!(process.other.line(), filled.to_string(), "what was sent in time, and nothing else");
    assert!(!to_b.send(FLOW_END + 100, b"x").is_err_and(|error| is_lost(&error)));
    drop((to_b, to_idle));
    let Process { other, .. } = process;
    world.finish();
    other.finish();
}

/// By its deadline, or by the cancel that stands in for one.
fn assert_given_up(what: &str, result: &Result<usize, OpError>) {
    assert!(
        matches!(result, Err(OpError::TimedOut { .. } | OpError::Cancelled)),
        "{what} from a stopped peer: {result:?}"
    );
}
