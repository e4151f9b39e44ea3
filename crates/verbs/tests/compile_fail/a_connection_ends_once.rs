//! What is being disconnected is not connected any more.
use sinew_verbs::cm::{Established, Id};
use sinew_verbs::qp::{QueuePair, Rc};

fn program(id: Id<Established<QueuePair<Rc>>>) {
    let _ = id.disconnect();
    let _ = id.disconnect();
}

fn main() {}
