//! What has happened is said by the event channel alone.
use sinew_verbs::cm::{EventKind, IdNumber, Notice, Status};

fn program(id: IdNumber) -> Notice {
    Notice { id: Some(id), kind: EventKind::ADDR_RESOLVED, status: Status::OK }
}

fn main() {}
