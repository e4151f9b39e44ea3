//! Posting and polling take the pipe for themselves.
use sinew_verbs::hub::{Pipe, Verb};
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::Rc;

fn program(pipe: &mut Pipe<Rc>, buffer: Buffer) {
    std::thread::scope(|threads| {
        threads.spawn(|| pipe.post(buffer, Verb::send()).is_ok());
        threads.spawn(|| pipe.poll().is_ok());
    });
}

fn main() {}
