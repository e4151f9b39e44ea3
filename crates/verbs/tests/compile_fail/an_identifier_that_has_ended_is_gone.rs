//! Nothing is done with an identifier that was dropped.
use sinew_verbs::cm::{Address, Created, Id};
use std::time::Duration;

fn program(id: Id<Created>, to: &Address) {
    drop(id);
    let _ = id.resolve_address(None, to, Duration::from_secs(1));
}

fn main() {}
