//! UD sends and receives, nothing else.
use sinew_verbs::hub::Operation;
use sinew_verbs::memory::{Buffer, RemoteRegion};
use sinew_verbs::qp::Ud;

fn program(buffer: Buffer, remote: RemoteRegion) {
    let _ = Operation::<Ud>::write(buffer, remote);
}

fn main() {}
