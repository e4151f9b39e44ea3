//! A buffer moves into the pipe, and comes back when its operation has ended.
use sinew_verbs::hub::{Pipe, Verb};
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::Rc;

fn program(pipe: &mut Pipe<Rc>, mut buffer: Buffer) {
    let _ = pipe.post(buffer, Verb::send());
    buffer[0] = 1;
}

fn main() {}
