//! A prepared channel can receive, but has nothing to send by.
use sinew_verbs::channel::PreparedChannel;

fn program(prepared: &mut PreparedChannel) {
    let _ = prepared.send(&[]);
}

fn main() {}
