//! What is not connected is not disconnected.
use sinew_verbs::cm::{Id, RouteResolved};

fn program(id: Id<RouteResolved>) {
    let _ = id.disconnect();
}

fn main() {}
