//! Who is asked for a connection is reached by a route.
use sinew_verbs::cm::{AddressResolved, ConnectionParameters, Id};
use sinew_verbs::qp::{QueuePair, Rc};

fn program(id: Id<AddressResolved>, pair: QueuePair<Rc>) {
    let _ = id.connect(pair, &ConnectionParameters::new());
}

fn main() {}
