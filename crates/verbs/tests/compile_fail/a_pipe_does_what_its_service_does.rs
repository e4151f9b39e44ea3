//! Unreliable connections do not read.
use sinew_verbs::hub::{Pipe, Verb};
use sinew_verbs::memory::{Buffer, RemoteRegion};
use sinew_verbs::qp::Uc;

fn program(pipe: &mut Pipe<Uc>, buffer: Buffer, remote: RemoteRegion) {
    let _ = pipe.post(buffer, Verb::<Uc>::read(remote));
}

fn main() {}
