//! Operations are dropped before and while their message is on its way.
//!
//! A dropped receive is cancelled. A dropped send still goes, once, and its buffer lives until it has gone. A scope waits for what
//! was dropped inside. Dropping the handle of a callback changes nothing; a handler drops itself, from inside.

use super::early::Stage;
use super::functions;
use crate::forms::{Wanted, memory};
use crate::world::{Cell, FLOW, LATE, World, load, number_of, options};
use sinew::{Match, Peer};
use std::time::Duration;

pub(crate) fn cell(cell: Cell) {
    match cell.form {
        "handler" => return functions::handlers_that_end(cell, functions::End::Drop),
        "callback" => return functions::callbacks_without_a_handle(cell),
        "scope" => return scopes(cell),
        _ => {}
    }
    let stage = Stage::new(cell);
    let (world, partner) = (&stage.world, &stage.partner);
    let begin_recv = |wanted: Wanted| world.form.begin_recv(&world.a, wanted, world.room());
    let begin_send = |to: &Peer, number| world.form.begin_send(to, FLOW, load(to, cell.size, number));
    stage.receive_before_its_message(|wanted| assert!(begin_recv(wanted).abandon().is_none()));
    stage.receives_of_a_stream(|wanted, moment| {
        let op = begin_recv(wanted);
        stage.pause(moment);
        op.abandon()
    });
    stage.sends_that_wait(|number| {
        assert!(begin_send(&partner.to_idle, number).abandon().is_none_or(|got| got.result.is_ok()));
        false
    });
    stage.sends_of_a_stream(|number, moment| {
        let op = begin_send(&partner.to_b, number);
        stage.pause(moment);
        assert!(op.abandon().is_none_or(|got| got.result.is_ok()));
        true
    });
    stage.finish();
}

/// Handles of a scope are dropped, or leaked: the scope waits for their operations up to the option `timeout`.
fn scopes(cell: Cell) {
    let quick = World::with(cell, options().timeout(Duration::from_millis(10)));
    let stage = Stage::of(quick);
    stage.receive_before_its_message(|_| {
        let mut memory = memory(stage.world.room());
        let pattern = Match::tag(LATE).from(stage.partner.to_b.source());
        stage.world.a.scope(|scope| drop(scope.recv(pattern, &mut memory).unwrap()));
        assert!(memory.iter().all(|&byte| byte == crate::forms::CANARY));
    });
    stage.sends_that_wait(|number| {
        let load = load(&stage.partner.to_idle, cell.size, number);
        stage.world.a.scope(|scope| std::mem::forget(scope.send(&stage.partner.to_idle, FLOW, &load)));
        true
    });
    stage.finish();
    let stage = Stage::new(cell);
    let (world, partner) = (&stage.world, &stage.partner);
    stage.receives_of_a_stream(|_, _| {
        let mut memory = memory(world.room());
        let pattern = Match::tag(FLOW).from(partner.to_b.source());
        world.a.scope(|scope| std::mem::forget(scope.recv(pattern, &mut memory).unwrap()));
        Some(crate::forms::Got { result: Ok(cell.size.bytes()), tag: FLOW, memory: memory.into() })
    });
    stage.sends_of_a_stream(|number, _| {
        let load = load(&partner.to_b, cell.size, number);
        world.a.scope(|scope| drop(scope.send(&partner.to_b, FLOW, &load).unwrap()));
        assert_eq!(number_of(&load), number);
        true
    });
    stage.finish();
}
