//! Unreliable connections do not read, and datagrams have no pipe.
use sinew_verbs::hub::{Pipe, Verb};
use sinew_verbs::memory::{Buffer, RemoteRegion};
use sinew_verbs::qp::{Uc, Ud};

fn reads(pipe: &mut Pipe<Uc>, buffer: Buffer, remote: RemoteRegion) {
    let _ = pipe.post(buffer, Verb::read(remote));
}

fn is_of_datagrams(pipe: Pipe<Ud>) {
    drop(pipe);
}

fn main() {}
