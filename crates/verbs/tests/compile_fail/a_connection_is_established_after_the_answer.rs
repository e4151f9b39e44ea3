//! Nothing is established before the peer has answered.
use sinew_verbs::cm::{Connecting, Id};
use sinew_verbs::qp::{QueuePair, Rc};

fn program(id: Id<Connecting<QueuePair<Rc>>>) {
    let _ = id.establish();
}

fn main() {}
