//! Campaigns of hostile peers: one that scribbles over all shared memory, one that sends every frame with its fields at their
//! extremes, one that replays and rearranges handshakes.
//!
//! The survivor talks with the hostile peer and with an honest one all the while; it may deliver wrong content of the hostile one's
//! messages, or end its session with a reason, and that is all. `docs/faults.md` says what is promised. Rounds and seed come from
//! `SINEW_CAMPAIGN_ROUNDS` and `SINEW_SEED`.

mod campaign;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod forge;
mod frames;
mod handshakes;
mod peer;
mod pushes;
mod scribble;
mod survivor;
mod wire;

/// The hostile peer.
#[test]
#[ignore = "run by other tests as another process"]
fn other_process() {
    peer::child();
}
