//! A request is accepted, not the listener that it came to.
use sinew_verbs::cm::{ConnectionParameters, Id, Listening};
use sinew_verbs::qp::{QueuePair, Rc};

fn program(id: Id<Listening>, pair: QueuePair<Rc>) {
    let _ = id.accept(pair, &ConnectionParameters::new());
}

fn main() {}
