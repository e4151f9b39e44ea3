//! Two posts of one queue pair cannot overlap.
use sinew_verbs::qp::{QueuePair, Rc, SendRequest};

fn program(qp: &mut QueuePair<Rc>) {
    let first = &mut *qp;
    let second = &mut *qp;
    unsafe {
        let _ = first.post_one(SendRequest::send(1, &[]));
        let _ = second.post_one(SendRequest::send(2, &[]));
    }
    let _ = first;
}

fn main() {}
