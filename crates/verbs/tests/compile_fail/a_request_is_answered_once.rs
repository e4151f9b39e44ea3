//! Who was refused is not accepted.
use sinew_verbs::cm::{ConnectionParameters, Id, Requested};
use sinew_verbs::qp::{QueuePair, Rc};

fn program(id: Id<Requested>, pair: QueuePair<Rc>) {
    let _ = id.reject(b"no");
    let _ = id.accept(pair, &ConnectionParameters::new());
}

fn main() {}
