//! A real cancel: before the message is sent, while it is on its way, while a send waits for its receiver.
//!
//! The buffer is back at once, as it was or with the message. For a handler it is `unregister`, while messages stream.

use super::early::Stage;
use super::functions;
use crate::forms::Wanted;
use crate::world::{Cell, FLOW, load, number_of};
use sinew::OpError;

pub(crate) fn cell(cell: Cell) {
    if cell.form == "handler" {
        return functions::handlers_that_end(cell, functions::End::Unregister);
    }
    let stage = Stage::new(cell);
    let (world, partner) = (&stage.world, &stage.partner);
    let begin_recv = |wanted: Wanted| world.form.begin_recv(&world.a, wanted, world.room());
    stage.receive_before_its_message(|wanted| {
        let got = begin_recv(wanted).cancel();
        assert!(matches!(got.result, Err(OpError::Cancelled)), "{:?}", got.result);
        assert!(got.is_untouched());
    });
    stage.receives_of_a_stream(|wanted, moment| {
        let op = begin_recv(wanted);
        stage.pause(moment);
        Some(op.cancel())
    });
    stage.sends_that_wait(|number| {
        let load = load(&partner.to_idle, cell.size, number);
        let op = world.form.begin_send(&partner.to_idle, FLOW, load);
        stage.pause(crate::world::SHORT);
        let got = op.cancel();
        assert!(matches!(got.result, Err(OpError::Cancelled)), "{:?}", got.result);
        assert_eq!(number_of(&got.memory), number, "the buffer comes back as it was");
        true
    });
    stage.sends_of_a_stream(|number, moment| {
        let op = world.form.begin_send(&partner.to_b, FLOW, load(&partner.to_b, cell.size, number));
        stage.pause(moment);
        let got = op.cancel();
        assert_eq!(number_of(&got.memory), number, "the buffer comes back as it was");
        got.result.is_ok()
    });
    stage.finish();
}
