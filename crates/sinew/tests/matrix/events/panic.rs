//! Code of the application panics: between post and wait, in a scope's closure, in a task that is polled, in a function that the
//! engine calls, in a waker that is run by a call which waits.
//!
//! The panic goes on to whoever is to see it. A receive that it ends is cancelled; an owned send that it drops still goes, a
//! borrowed one is taken back. A handler that panics is unregistered, a function of `on_complete` is gone; everything else goes on.

use super::early::Stage;
use super::functions;
use crate::common::{PATIENCE, until};
use crate::forms::{Got, Wanted, caught, memory, on_purpose};
use crate::world::{BOMB, Cell, FLOW, LATE, load, number_of};
use sinew::{Match, Peer, RecvOp};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

pub(crate) fn cell(cell: Cell) {
    match cell.form {
        "handler" => functions::handlers_that_end(cell, functions::End::Panic),
        "callback" => functions::callbacks_that_panic(cell),
        "scope" => scopes(cell),
        "blocking" | "batch" => calls(cell),
        _ => operations(cell),
    }
}

/// Operations that a panic drops.
fn operations(cell: Cell) {
    let stage = Stage::new(cell);
    let (world, partner) = (&stage.world, &stage.partner);
    let begin_recv = |wanted: Wanted| world.form.begin_recv(&world.a, wanted, world.room());
    let begin_send = |to: &Peer, number| world.form.begin_send(to, FLOW, load(to, cell.size, number));
    stage.receive_before_its_message(|wanted| assert!(begin_recv(wanted).panic().is_none()));
    stage.receives_of_a_stream(|wanted, moment| {
        let op = begin_recv(wanted);
        stage.pause(moment);
        op.panic()
    });
    stage.sends_that_wait(|number| {
        assert!(begin_send(&partner.to_idle, number).panic().is_none_or(|got| got.result.is_ok()));
        false
    });
    stage.sends_of_a_stream(|number, moment| {
        let op = begin_send(&partner.to_b, number);
        stage.pause(moment);
        assert!(op.panic().is_none_or(|got| got.result.is_ok()));
        true
    });
    stage.finish();
}

/// The closure of a scope panics while its operations are under way: they are cancelled before the panic goes on.
fn scopes(cell: Cell) {
    let stage = Stage::new(cell);
    let (world, partner) = (&stage.world, &stage.partner);
    let broken_recv = |tag, moment| {
        let mut memory = memory(world.room());
        let pattern = Match::tag(tag).from(partner.to_b.source());
        let mut seen = None;
        caught(|| {
            world.a.scope(|scope| {
                let op = scope.recv(pattern, &mut memory).unwrap();
                stage.pause(moment);
                if moment.as_micros() % 100 == 0 {
                    seen = op.wait_within(std::time::Duration::ZERO).0.ok();
                }
                on_purpose()
            })
        });
        seen.map(|info| Got { result: Ok(info.len), tag, memory: memory.into() })
    };
    stage.receive_before_its_message(|_| {
        assert!(broken_recv(LATE, std::time::Duration::from_micros(50)).is_none())
    });
    stage.receives_of_a_stream(|_, moment| broken_recv(FLOW, moment));
    stage.sends_that_wait(|number| {
        let load = load(&partner.to_idle, cell.size, number);
        caught(|| {
            world.a.scope(|scope| {
                let _op = scope.send(&partner.to_idle, FLOW, &load).unwrap();
                on_purpose()
            })
        });
        true
    });
    stage.sends_of_a_stream(|number, moment| {
        let load = load(&partner.to_b, cell.size, number);
        let mut sent = false;
        caught(|| {
            world.a.scope(|scope| {
                let op = scope.send(&partner.to_b, FLOW, &load).unwrap();
                sent = op.wait_within(moment).is_ok();
                on_purpose()
            })
        });
        sent
    });
    stage.finish();
}

/// A waker that panics once it is armed.
#[derive(Default)]
struct Bomb(AtomicBool);

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        if self.0.load(Ordering::Acquire) {
            on_purpose();
        }
    }
}

/// An operation whose end breaks whoever makes it.
fn armed(stage: &Stage) -> RecvOp {
    let pattern = Match::tag(BOMB).from(stage.partner.to_b.source());
    let mut op = stage.world.a.post_recv(pattern, vec![0; 8]).unwrap();
    let bomb = Arc::new(Bomb::default());
    let waker = Waker::from(Arc::clone(&bomb));
    // Where callers make progress, a poll wakes its task at once.
    assert!(Pin::new(&mut op).poll(&mut Context::from_waker(&waker)).is_pending());
    bomb.0.store(true, Ordering::Release);
    op
}

/// Runs a call that waits while a waker breaks it. Nobody else is in the engine then. A batch that had its message answers.
fn broken<T>(stage: &Stage, call: impl FnOnce() -> T) -> Option<T> {
    let _calm = stage.world.calm.hold();
    let op = armed(stage);
    let bomb = stage.partner.to_a.post_send(BOMB, vec![0; 8]).unwrap();
    let answer = catch_unwind(AssertUnwindSafe(call)).ok();
    assert!(answer.is_none() || stage.world.cell.form == "batch", "the waker should have broken it");
    let mut op = op;
    assert!(matches!(op.try_wait(), Some(Ok(_))), "the operation itself has ended well");
    bomb.wait_within(PATIENCE).unwrap();
    answer
}

/// A waker panics in a call that waits.
fn calls(cell: Cell) {
    let stage = Stage::new(cell);
    let (world, partner) = (&stage.world, &stage.partner);
    let recv = |wanted: Wanted| world.form.recv(&world.a, wanted, world.room(), PATIENCE);
    stage.receive_before_its_message(|wanted| assert!(broken(&stage, || recv(wanted)).is_none()));
    if cell.size.is_fetched() {
        // The message was announced: the call has begun to fetch it when it is broken, or is about to.
        for number in 0..3 {
            let sent = partner.post(cell.size, LATE, number);
            until("it is announced", || world.a.probe(LATE).is_some());
            let got = broken(&stage, || recv(stage.wanted(LATE))).unwrap_or_else(|| stage.recv(LATE));
            assert_eq!(number_of(got.bytes()), number, "left to the next receive");
            sent.wait_within(PATIENCE).unwrap();
        }
    }
    stage.sends_that_wait(|number| {
        let sent = broken(&stage, || {
            let load = load(&partner.to_idle, cell.size, number);
            world.form.send(&partner.to_idle, FLOW, load, PATIENCE)
        });
        assert!(sent.is_none());
        true
    });
    stage.finish();
}
