//! A place is free when its buffer was taken: nothing is posted while a run lends them.
use sinew_verbs::hub::{Pipe, Verb};
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::Rc;

fn program(pipe: &mut Pipe<Rc>, buffer: Buffer) -> sinew_verbs::Result<usize> {
    let run = pipe.poll()?;
    let _ = pipe.post(buffer, Verb::send());
    Ok(run.count())
}

fn main() {}
