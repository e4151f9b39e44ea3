//! An address comes before a listener.
use sinew_verbs::cm::{Created, Id};

fn program(id: Id<Created>) {
    let _ = id.listen(1);
}

fn main() {}
