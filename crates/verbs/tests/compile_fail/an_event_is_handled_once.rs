//! An event brings one identifier on, once.
use sinew_verbs::cm::{Id, Notice, ResolvingAddress, Waits};

fn program(first: Id<ResolvingAddress>, second: Id<ResolvingAddress>, notice: Notice) {
    let _ = first.handle(notice);
    let _ = second.handle(notice);
}

fn main() {}
