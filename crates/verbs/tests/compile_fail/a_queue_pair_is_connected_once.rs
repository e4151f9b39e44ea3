//! A queue pair that is being connected has moved into its identifier.
use sinew_verbs::cm::{ConnectionParameters, Id, RouteResolved};
use sinew_verbs::qp::{QueuePair, Rc};

fn program(first: Id<RouteResolved>, second: Id<RouteResolved>, pair: QueuePair<Rc>) {
    let _ = first.connect(pair, &ConnectionParameters::new());
    let _ = second.connect(pair, &ConnectionParameters::new());
}

fn main() {}
