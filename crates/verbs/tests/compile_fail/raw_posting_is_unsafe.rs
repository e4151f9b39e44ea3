//! A queue pair alone keeps no memory.
use sinew_verbs::qp::{QueuePair, Rc, SendRequest};

fn program(qp: &mut QueuePair<Rc>) {
    let _ = qp.post_one(SendRequest::send(1, &[]));
}

fn main() {}
