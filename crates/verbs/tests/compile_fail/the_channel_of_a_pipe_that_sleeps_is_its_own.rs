//! Nobody else arms it or takes its events: none is lost.
use sinew_verbs::hub::{OwnEvents, Pipe};
use sinew_verbs::qp::Rc;

fn arms(pipe: &Pipe<Rc, OwnEvents>) {
    let _ = pipe.arm(false);
}

fn takes(events: OwnEvents) {
    let _ = events.channel.event();
}

fn main() {}
