//! An identifier that has its address waits for nothing: it looks for a route next.
use sinew_verbs::cm::{AddressResolved, Id, Notice, Waits};

fn program(id: Id<AddressResolved>, notice: Notice) {
    let _ = id.handle(notice);
}

fn main() {}
