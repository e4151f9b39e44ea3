//! An identifier of datagrams looks a queue pair up, and connects none.
use sinew_verbs::cm::{ConnectionParameters, Id, RouteResolved};
use sinew_verbs::qp::{QueuePair, Rc, Ud};

fn program(id: Id<RouteResolved, Ud>, pair: QueuePair<Rc>) {
    let _ = id.connect(pair, &ConnectionParameters::new());
}

fn main() {}
