//! A queue pair comes out of a connection when that is over.
use sinew_verbs::cm::{Established, Id};
use sinew_verbs::qp::{QueuePair, Rc};

fn program(id: Id<Established<QueuePair<Rc>>>) -> QueuePair<Rc> {
    id.into_queue_pair()
}

fn main() {}
