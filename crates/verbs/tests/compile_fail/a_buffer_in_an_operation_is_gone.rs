//! An owned buffer moves into its operation.
use sinew_verbs::hub::{Hub, Member, Operation};
use sinew_verbs::memory::Buffer;
use sinew_verbs::qp::Rc;

fn program(hub: &mut Hub<Rc>, member: Member, mut buffer: Buffer) {
    let _ = hub.post(member, Operation::send(buffer));
    buffer[0] = 1;
}

fn main() {}
