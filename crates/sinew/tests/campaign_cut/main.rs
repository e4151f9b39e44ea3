//! Campaign of cuts: two processes in network namespaces of their own stream numbered, checked messages both ways while the
//! wire between them fails in every way that wires do. Nothing is lost between survivors, nothing comes twice, order is kept.
//!
//! [`net`] makes the hosts, [`wire`] is the wire, [`stream`] the processes; [`cuts`] are the rounds.

mod campaign;
#[path = "../common/mod.rs"]
mod common;
mod cuts;
mod fence;
mod lanes;
mod net;
mod packet;
mod slow;
mod sockets;
mod stream;
mod times;
mod wire;

/// The other processes.
#[test]
#[ignore = "run by other tests as another process"]
fn other_process() {
    stream::child();
}
