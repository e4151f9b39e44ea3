//! A connection lends its queue pair to be posted to; it stays the one that the peer knows.
use sinew_verbs::cm::{Connection, Established, Id};
use sinew_verbs::qp::{QueuePair, Rc};

fn by_connections(one: &mut Connection, other: &mut Connection) {
    std::mem::swap(&mut *one.queue_pair_mut(), &mut *other.queue_pair_mut());
}

fn by_an_identifier(id: &mut Id<Established<QueuePair<Rc>>>, other: QueuePair<Rc>) -> QueuePair<Rc> {
    std::mem::replace(&mut *id.queue_pair_mut(), other)
}

fn main() {}
