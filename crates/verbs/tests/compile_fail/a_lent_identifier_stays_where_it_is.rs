//! The blocking form waits at a channel of its own, from which nobody moves its identifier.
use sinew_verbs::cm::{Connection, EventChannel};

fn program(connection: &Connection, elsewhere: &EventChannel) {
    let _ = connection.id().migrate(elsewhere);
}

fn main() {}
