//! A deadline passes: before the message is sent, while it is on its way, while a send waits for its receiver.
//!
//! The operation ends with `TimedOut` after its own limit (a future: with `Cancelled`, as its executor's clock ends it), and was
//! really cancelled.

use super::early::Stage;
use crate::forms::{Got, Wanted};
use crate::world::{Cell, FLOW, SHORT, load};
use sinew::OpError;
use std::time::Duration;

pub(crate) fn cell(cell: Cell) {
    let stage = Stage::new(cell);
    let (world, partner) = (&stage.world, &stage.partner);
    let recv = |wanted: Wanted, limit| world.form.recv(&world.a, wanted, world.room(), limit);
    stage.receive_before_its_message(|wanted| {
        let got = recv(wanted, SHORT);
        assert_timed_out(cell, &got.result, SHORT);
        assert!(got.is_untouched());
    });
    stage.receives_of_a_stream(|wanted, moment| -> Option<Got> { Some(recv(wanted, moment)) });
    stage.sends_that_wait(|number| {
        // Longer than credit is waited for, and shorter.
        let limit = if number % 2 == 0 { SHORT } else { Duration::from_millis(60) };
        let load = load(&partner.to_idle, cell.size, number);
        assert_timed_out(cell, &world.form.send(&partner.to_idle, FLOW, load, limit), limit);
        true
    });
    stage.sends_of_a_stream(|number, moment| {
        let load = load(&partner.to_b, cell.size, number);
        let sent = world.form.send(&partner.to_b, FLOW, load, moment);
        if sent.is_err() {
            assert_timed_out(cell, &sent, moment);
        }
        sent.is_ok()
    });
    stage.finish();
}

fn assert_timed_out(cell: Cell, result: &Result<usize, OpError>, limit: Duration) {
    match result {
        Err(OpError::Cancelled) if matches!(cell.form, "tokio" | "callback") => {}
        Err(OpError::TimedOut { after }) if cell.form == "future" || *after == limit => {}
        other => panic!("in vain for {limit:?}: {other:?}"),
    }
}
