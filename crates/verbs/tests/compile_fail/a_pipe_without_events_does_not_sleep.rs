//! Only a pipe with a channel of its own waits: at a shared one the event of another queue would be taken, and that slept over.
use sinew_verbs::hub::{NoEvents, Pipe, SharedEvents};
use sinew_verbs::qp::Rc;
use std::os::fd::AsFd;

fn no_events(pipe: &mut Pipe<Rc, NoEvents>) {
    let _ = pipe.wait(None);
    let _ = pipe.as_fd();
}

fn shared_events(pipe: &mut Pipe<Rc, SharedEvents>) {
    let _ = pipe.wait(None);
}

fn main() {}
