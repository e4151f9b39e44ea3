//! So does one that a message is to come into: nobody reads what a device may write.
use sinew_verbs::hub::Pipe;
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::Rc;

fn program(pipe: &mut Pipe<Rc>, buffer: Buffer) -> u8 {
    let _ = pipe.post_receive(buffer);
    buffer[0]
}

fn main() {}
