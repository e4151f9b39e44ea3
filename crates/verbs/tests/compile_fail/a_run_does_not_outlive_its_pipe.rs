//! What a poll lends lies in the pipe.
use sinew_verbs::hub::Pipe;
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::Rc;

fn program(mut pipe: Pipe<Rc>) -> sinew_verbs::Result<Vec<Buffer>> {
    let run = pipe.poll()?;
    drop(pipe);
    Ok(run.collect())
}

fn main() {}
