//! The matrix of faults: every event (kill, stop, cut, cancel, timeout, drop, panic) meets every form of operation, on every
//! lane, with messages of every class of size. One test for each cell; `docs/faults.md` says what a cell promises.
//!
//! A cell is `event::form::lane_size`, as `kill::scope::shm_long`. In each of them a third engine talks with the survivor all
//! the while in a checked sequence ([`world`]), and all memory of receives is poisoned when it is freed and looked at again in
//! the end ([`quarantine`]). [`forms`] makes the forms look alike, [`events`] are the scenarios.

#[path = "../common/mod.rs"]
mod common;
mod events;
mod forms;
mod partner;
mod quarantine;
mod world;

use world::{Cell, Size};

/// The other process of cells that kill or stop one.
#[test]
#[ignore = "a child of other tests"]
fn other_process() {
    if common::is_other() {
        partner::child();
    }
}

/// One event: the forms that it meets, and why it has no meaning for the others.
struct Row {
    event: &'static str,
    forms: &'static [&'static str],
    without: &'static [(&'static str, &'static str)],
}

macro_rules! lanes {
    ($(#[$attribute:meta])* $event:ident, $form:ident, $($lane:ident),*) => {
        $(#[$attribute])*
        mod $form {
            use crate::{Cell, Size, events};

            fn run(lane: &'static str, size: Size) {
                events::$event::cell(Cell::new(stringify!($form), lane, size));
            }

            $( lanes!(@ $lane); )*
        }
    };
    (@ shm) => {
        #[test] fn shm_small() { run("shm", Size::Small); }
        #[test] fn shm_eager() { run("shm", Size::Eager); }
        #[test] fn shm_long() { run("shm", Size::Long); }
        #[test] fn shm_loan() { run("shm", Size::Loan); }
    };
    (@ uds) => {
        #[test] fn uds_small() { run("uds", Size::Small); }
        #[test] fn uds_eager() { run("uds", Size::Eager); }
        #[test] fn uds_long() { run("uds", Size::Long); }
    };
    (@ tcp) => {
        #[test] fn tcp_small() { run("tcp", Size::Small); }
        #[test] fn tcp_eager() { run("tcp", Size::Eager); }
        #[test] fn tcp_long() { run("tcp", Size::Long); }
    };
    (@ own) => {
        #[test] fn own_small() { run("self", Size::Small); }
        #[test] fn own_eager() { run("self", Size::Eager); }
        #[test] fn own_long() { run("self", Size::Long); }
        #[test] fn own_loan() { run("self", Size::Loan); }
    };
}

macro_rules! table {
    ($( mod $event:ident on $lanes:tt {
        $( $(#[$attribute:meta])* $form:ident ),* $(,)?
    } without { $( $no:ident: $why:literal ),* $(,)? } )*) => {
        const TABLE: &[Row] = &[$( Row {
            event: stringify!($event),
            forms: &[$( stringify!($form) ),*],
            without: &[$( (stringify!($no), $why) ),*],
        } ),*];
        $( mod $event { $( table!(@ $event, $lanes, $(#[$attribute])* $form); )* } )*
    };
    (@ $event:ident, [$($lane:ident),*], $(#[$attribute:meta])* $form:ident) => {
        lanes!($(#[$attribute])* $event, $form, $($lane),*);
    };
}

// What has no meaning anywhere: `kill`, `stop` and `cut` on `own`, as an engine that talks to itself has neither another process
// nor a lane that could fail; `loan` on uds and tcp, which have no segments: a pool buffer is plain heap there, as in `long`.
table! {
    mod kill on [shm, uds, tcp] {
        blocking, scope, owned, future, #[cfg(feature = "tokio")] tokio, handler, callback, batch,
    } without {}

    mod stop on [shm, uds, tcp] {
        blocking, scope, owned, future, #[cfg(feature = "tokio")] tokio, handler, callback, batch,
    } without {}

    mod cut on [shm, uds, tcp] {
        blocking, scope, owned, future, #[cfg(feature = "tokio")] tokio, handler, callback, batch,
    } without {}

    mod cancel on [shm, uds, tcp, own] {
        owned, future, #[cfg(feature = "tokio")] tokio, handler, callback,
    } without {
        blocking: "a call on the stack has no handle; its deadline is its cancel",
        scope: "a handle of a scope waits or is dropped; a deadline of zero is its cancel",
        batch: "a call on the stack has no handle; its deadline is its cancel",
    }

    mod timeout on [shm, uds, tcp, own] {
        blocking, scope, owned, future, #[cfg(feature = "tokio")] tokio, callback, batch,
    } without {
        handler: "a handler waits for nothing; it is registered until it is not",
    }

    mod drop on [shm, uds, tcp, own] {
        scope, owned, future, #[cfg(feature = "tokio")] tokio, handler, callback,
    } without {
        blocking: "there is nothing to drop; a panic may end the call early",
        batch: "nothing of a batch is in the engine between calls; a panic may end a call early",
    }

    mod panic on [shm, uds, tcp, own] {
        blocking, scope, owned, future, #[cfg(feature = "tokio")] tokio, handler, callback, batch,
    } without {}
}

#[test]
fn every_event_meets_every_form_or_says_why_not() {
    for row in TABLE {
        for form in forms::NAMES {
            let (tested, excused) =
                (row.forms.contains(&form), row.without.iter().any(|(name, _)| *name == form));
            assert!(tested != excused, "{} and {form}: once a cell, or once a reason", row.event);
        }
        let others = row.forms.iter().filter(|&form| !forms::NAMES.contains(form));
        assert!(
            others.copied().eq(if cfg!(feature = "tokio") { &[][..] } else { &["tokio"] }.iter().copied())
        );
        for (form, why) in row.without {
            println!("{}::{form}: {why}", row.event);
        }
    }
}
