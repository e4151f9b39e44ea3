//! The queue pair of a pipe is lent to be asked: what is posted to it goes through the pipe, which counts.
use sinew_verbs::hub::Pipe;
use sinew_verbs::qp::{Rc, SendRequest};

fn program(pipe: &mut Pipe<Rc>) {
    // SAFETY: none; it does not compile.
    let _ = unsafe { pipe.queue_pair().post(&mut [SendRequest::send(1, &[])]) };
}

fn main() {}
