//! UC has no reads and no atomics.
use sinew_verbs::hub::Operation;
use sinew_verbs::memory::{Buffer, RemoteRegion};
use sinew_verbs::qp::Uc;

fn program(buffer: Buffer, remote: RemoteRegion) {
    let _ = Operation::<Uc>::read(buffer, remote);
}

fn main() {}
