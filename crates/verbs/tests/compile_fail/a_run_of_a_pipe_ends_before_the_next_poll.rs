//! What a poll lends is looked at before the next poll.
use sinew_verbs::hub::Pipe;
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::Rc;

fn program(pipe: &mut Pipe<Rc>) -> sinew_verbs::Result<Option<Buffer>> {
    let mut first = pipe.poll()?;
    let _second = pipe.poll()?;
    Ok(first.next())
}

fn main() {}
