//! A route is looked for to an address that was resolved.
use sinew_verbs::cm::{Created, Id};
use std::time::Duration;

fn program(id: Id<Created>) {
    let _ = id.resolve_route(Duration::from_secs(1));
}

fn main() {}
